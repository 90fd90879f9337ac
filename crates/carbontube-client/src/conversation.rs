//! The core with what carries for it: callers' channels and the tasks of the links.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use carbontube_protocol::Timestamp;
use carbontube_protocol::message::{Answer, Query};
use carbontube_transport::{Address, Message, Push};
use event_listener::{Event, EventListener};
use futures_lite::future;

use crate::core::{CallId, Core, Links, News};
use crate::{ClientError, ClientOptions};

/// What the client's tasks and its callers share.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) options: ClientOptions,
    started: Instant,
    state: Mutex<State>,
    changed: Event,
    /// Time has to be looked at earlier than was thought.
    earlier: Event,
}

#[derive(Debug)]
struct State {
    core: Core,
    callers: BTreeMap<CallId, Sender<News>>,
    pushes: Vec<Arc<Push>>,
    /// When [`Conversation::keep_time`] wakes by itself.
    wakes_at: Timestamp,
    closed: bool,
}

/// One call under way; dropping it forgets the call.
#[derive(Debug)]
pub(crate) struct Call {
    conversation: Arc<Conversation>,
    id: Option<CallId>,
    news: Receiver<News>,
}

impl Call {
    /// What comes next of the call. Cancel-safe.
    pub(crate) async fn news(&self) -> Result<News, ClientError> {
        match self.news.recv().await {
            Ok(News::Failed(error)) => Err(error),
            Ok(news) => Ok(news),
            Err(_) => Err(ClientError::Closed),
        }
    }

    /// Lets the call go on without anybody who waits for its end.
    pub(crate) fn detach(mut self) {
        self.id = None;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut state = self.conversation.lock();
            state.callers.remove(&id);
            state.core.forget(id);
        }
    }
}

impl Conversation {
    pub(crate) fn new(options: ClientOptions, addresses: &[Address]) -> Arc<Self> {
        let rng = fastrand::Rng::new();
        Arc::new(Conversation {
            started: Instant::now(),
            state: Mutex::new(State {
                core: Core::new(options.clone(), addresses, rng, Timestamp::ZERO),
                callers: BTreeMap::new(),
                pushes: Vec::new(),
                wakes_at: Timestamp::MAX,
                closed: false,
            }),
            options,
            changed: Event::new(),
            earlier: Event::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the links are.
    pub(crate) fn links<T>(&self, look: impl FnOnce(&Links) -> T) -> T {
        look(self.lock().core.links())
    }

    /// Lets something happen to the core, and tells everyone whom it concerns.
    pub(crate) fn happen<T>(&self, what: impl FnOnce(&mut Core, Timestamp) -> T) -> T {
        let mut state = self.lock();
        let result = what(&mut state.core, self.now());
        self.tell(state);
        result
    }

    fn tell(&self, mut state: MutexGuard<'_, State>) {
        while let Some((id, news)) = state.core.poll_news() {
            let over = !matches!(news, News::Ended(_));
            if let Some(caller) = state.callers.get(&id) {
                // The channel is unbounded, so this fails only when nobody listens.
                let _ = caller.try_send(news);
            }
            if over {
                state.callers.remove(&id);
            }
        }
        let next = state.core.next_time();
        let is_earlier = next.is_some_and(|next| next < state.wakes_at);
        drop(state);
        if is_earlier {
            self.earlier.notify(usize::MAX);
        }
        self.changed.notify(usize::MAX);
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.started.elapsed()
    }

    pub(crate) fn listen(&self) -> EventListener {
        self.changed.listen()
    }

    /// What is to be sent on a link now.
    pub(crate) fn next_message(&self, link: usize) -> Option<Message> {
        self.lock().core.poll_message(link)
    }

    pub(crate) fn add_push(&self, push: Push) {
        self.lock().pushes.push(Arc::new(push));
    }

    pub(crate) fn pushes(&self) -> Vec<Arc<Push>> {
        self.lock().pushes.clone()
    }

    pub(crate) fn take_pushes(&self) -> Vec<Arc<Push>> {
        std::mem::take(&mut self.lock().pushes)
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.callers.clear();
        drop(state);
        self.earlier.notify(usize::MAX);
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(crate) async fn until_closed(&self) {
        loop {
            let listener = self.listen();
            if self.is_closed() {
                return;
            }
            listener.await;
        }
    }

    /// Tells the core the time when it wants to know it, until the client is closed.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let earlier = self.earlier.listen();
            let wakes_at = {
                let mut state = self.lock();
                if state.closed {
                    return;
                }
                state.wakes_at = state.core.next_time().unwrap_or(Timestamp::MAX);
                state.wakes_at
            };
            let at = self.started.checked_add(wakes_at.since(Timestamp::ZERO));
            let timer = at.map_or_else(Timer::never, Timer::at);
            let passed = async {
                timer.await;
                self.happen(Core::handle_time);
            };
            future::or(passed, earlier).await;
        }
    }

    /// Begins a call.
    pub(crate) fn call(
        self: &Arc<Self>,
        begin: impl FnOnce(&mut Core, Timestamp) -> Result<CallId, ClientError>,
    ) -> Result<Call, ClientError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ClientError::Closed);
        }
        let id = begin(&mut state.core, self.now())?;
        let (sender, news) = async_channel::unbounded();
        state.callers.insert(id, sender);
        self.tell(state);
        Ok(Call {
            conversation: self.clone(),
            id: Some(id),
            news,
        })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        what: &'static str,
        query: Query,
    ) -> Result<Answer, ClientError> {
        let call = self.call(|core, now| core.ask(what, query, now))?;
        match call.news().await? {
            News::Answered(answer) => Ok(answer),
            _ => Err(ClientError::Closed),
        }
    }

    /// Waits for `reached`, at most until the deadline.
    pub(crate) async fn reached<T>(
        &self,
        deadline: Instant,
        reached: impl Fn(&Links) -> Option<T>,
    ) -> Option<T> {
        let wait = async {
            loop {
                let listener = self.listen();
                if let Some(found) = self.links(&reached) {
                    return found;
                }
                listener.await;
            }
        };
        until(deadline, wait).await
    }
}

/// Waits for a future, at most until the deadline.
pub(crate) async fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(work.await) }, async {
        Timer::at(deadline).await;
        None
    })
    .await
}

/// Waits for a future, at most for so long.
pub(crate) async fn limit<T>(longest: Duration, work: impl Future<Output = T>) -> Option<T> {
    until(Instant::now() + longest, work).await
}
