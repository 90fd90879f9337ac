//! Requests under way, whichever manager they are with.
//!
//! One link is active: the first that answered its greeting. Requests are queued for
//! it, and all that are unanswered are queued again when another link, or a new
//! connection of the same, becomes active.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use carbontube_protocol::message::{Code, Query, QueryRequest};
use carbontube_protocol::{DecodeError, Message, decode, encode};
use carbontube_transport::{Address, Push};
use event_listener::{Event, EventListener};
use futures_lite::future;

use crate::options::Pauses;
use crate::{ClientError, ClientOptions};

/// What the client's tasks and its callers share.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) options: ClientOptions,
    state: Mutex<State>,
    changed: Event,
}

#[derive(Debug)]
pub(crate) struct State {
    next_request: u64,
    pending: BTreeMap<u64, Pending>,
    unsent: VecDeque<u64>,
    active: Option<usize>,
    pub(crate) links: Vec<Link>,
    pub(crate) pushes: Vec<Arc<Push>>,
    /// A manager has answered at some time.
    has_answered: bool,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) address: Address,
    pub(crate) condition: Condition,
}

/// How a link is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// There is no connection; with what was met last.
    Dialling(String),
    /// There is a connection; the greeting is to be sent.
    Connected,
    /// The greeting was sent under this number.
    Greeting(u64),
    /// The manager answers.
    Live,
    /// The manager answered that it cannot be talked to.
    Refused(Option<Code>, String),
    /// A pull address.
    Push,
}

#[derive(Debug)]
struct Pending {
    message: carbontube_transport::Message,
    answers: Sender<Message>,
    is_sent: bool,
    many: bool,
}

/// One request under way; dropping it forgets the request.
#[derive(Debug)]
pub(crate) struct Request {
    conversation: Arc<Conversation>,
    number: u64,
    answers: Receiver<Message>,
}

impl Request {
    /// The next answer. Cancel-safe.
    pub(crate) async fn answer(&self) -> Result<Message, ClientError> {
        self.answers.recv().await.map_err(|_| ClientError::Closed)
    }

    fn is_sent(&self) -> bool {
        let state = self.conversation.lock();
        state
            .pending
            .get(&self.number)
            .is_none_or(|pending| pending.is_sent)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.conversation.lock().pending.remove(&self.number);
    }
}

impl Conversation {
    pub(crate) fn new(options: ClientOptions, addresses: &[Address]) -> Arc<Self> {
        let links = addresses
            .iter()
            .map(|address| Link {
                address: address.clone(),
                condition: Condition::Dialling("not reached yet".to_owned()),
            })
            .collect();
        Arc::new(Conversation {
            options,
            state: Mutex::new(State {
                next_request: 1,
                pending: BTreeMap::new(),
                unsent: VecDeque::new(),
                active: None,
                links,
                pushes: Vec::new(),
                has_answered: false,
                closed: false,
            }),
            changed: Event::new(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listen(&self) -> EventListener {
        self.changed.listen()
    }

    pub(crate) fn notify(&self) {
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.pending.clear();
        drop(state);
        self.notify();
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

    /// Each link in words.
    pub(crate) fn tried(&self) -> Vec<(Address, String)> {
        let state = self.lock();
        let each = state.links.iter().map(|link| {
            let met = match &link.condition {
                Condition::Dialling(met) | Condition::Refused(_, met) => met.clone(),
                Condition::Connected | Condition::Greeting(_) => {
                    "connected, but it does not answer".to_owned()
                }
                Condition::Live => "connected".to_owned(),
                Condition::Push => "a pull address".to_owned(),
            };
            (link.address.clone(), met)
        });
        each.collect()
    }

    fn describe(&self) -> String {
        let each: Vec<String> = self
            .tried()
            .into_iter()
            .map(|(address, met)| format!("{address}: {met}"))
            .collect();
        each.join("; ")
    }

    /// Whether a manager answers now.
    pub(crate) fn is_live(&self) -> bool {
        self.lock().active.is_some()
    }

    /// Whether there is an address where requests are answered.
    pub(crate) fn has_api(&self) -> bool {
        let state = self.lock();
        // Beside a pull address, an address that never answered counts for nothing.
        state.has_answered || state.pushes.is_empty()
    }

    /// A link has a new connection.
    pub(crate) fn connected(&self, index: usize) {
        let mut state = self.lock();
        state.leave(index);
        state.links[index].condition = Condition::Connected;
        drop(state);
        self.notify();
    }

    /// A link has no connection.
    pub(crate) fn disconnected(&self, index: usize, met: String) {
        let mut state = self.lock();
        // A refusal says more than the end of the connection that it came by.
        if !matches!(state.links[index].condition, Condition::Refused(..)) {
            state.links[index].condition = Condition::Dialling(met);
        }
        state.leave(index);
        drop(state);
        self.notify();
    }

    /// A link turned out to be of no use, or a pull address.
    pub(crate) fn settle(&self, index: usize, condition: Condition) {
        let mut state = self.lock();
        state.links[index].condition = condition;
        state.leave(index);
        drop(state);
        self.notify();
    }

    /// What a link has to send next, if anything.
    pub(crate) fn next_to_send(&self, index: usize) -> Option<carbontube_transport::Message> {
        let mut state = self.lock();
        if state.links[index].condition == Condition::Connected {
            let request = state.take_number();
            state.links[index].condition = Condition::Greeting(request);
            let query = Query::Info;
            let greeting = Message::from(QueryRequest { request, query });
            return Some(encode(&greeting, self.options.codec));
        }
        if state.active != Some(index) {
            return None;
        }
        while let Some(number) = state.unsent.pop_front() {
            // One that was given up in the meantime is not sent.
            if let Some(pending) = state.pending.get_mut(&number) {
                pending.is_sent = true;
                return Some(pending.message.clone());
            }
        }
        None
    }

    /// A link received something.
    pub(crate) fn received(&self, index: usize, frames: &[bytes::Bytes]) {
        let message = match decode(frames, &self.options.limits) {
            Ok(message) => message,
            Err(error) => {
                let mut state = self.lock();
                log::warn!("{}: {error}", state.links[index].address);
                if let Condition::Greeting(_) = state.links[index].condition {
                    let code =
                        matches!(error, DecodeError::Version { .. }).then_some(Code::Version);
                    state.links[index].condition = Condition::Refused(code, error.to_string());
                    drop(state);
                    self.notify();
                }
                return;
            }
        };
        let request = request_of(&message);
        let mut state = self.lock();
        if let Condition::Greeting(greeting) = state.links[index].condition {
            let refusal = match &message {
                // A refusal of what could not even be read has no number.
                Message::Refusal(refusal) if request.is_none_or(|number| number == greeting) => {
                    Some(refusal)
                }
                _ => None,
            };
            if let Some(refusal) = refusal {
                state.links[index].condition =
                    Condition::Refused(Some(refusal.code), refusal.message.clone());
            } else if request == Some(greeting) {
                state.links[index].condition = Condition::Live;
                state.has_answered = true;
                if state.active.is_none() {
                    state.activate(index);
                }
            }
            drop(state);
            self.notify();
            return;
        }
        let Some(number) = request else {
            if let Message::Refusal(refusal) = &message {
                let address = &state.links[index].address;
                log::warn!("{address} refused something: {}", refusal.message);
            }
            return;
        };
        // An answer to a request that was given up, or that came twice, has no one to go to.
        let Some(pending) = state.pending.get(&number) else {
            return;
        };
        let more = pending.many && matches!(message, Message::Ended(_));
        // The channel is unbounded, so this fails only when nobody listens any more.
        let _ = pending.answers.try_send(message);
        if !more {
            state.pending.remove(&number);
        }
    }

    /// Queues a request; `many` when it may have several answers.
    pub(crate) fn begin(
        self: &Arc<Self>,
        many: bool,
        what: &'static str,
        build: impl FnOnce(u64) -> Message,
    ) -> Result<Request, ClientError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ClientError::Closed);
        }
        let number = state.take_number();
        let message = encode(&build(number), self.options.codec);
        let limits = &self.options.limits;
        let bytes: usize = message.iter().map(bytes::Bytes::len).sum();
        if message[1].len() > limits.body_bytes_max
            || bytes > limits.message_bytes_max
            || message.len() > limits.batch_jobs_max + 2
        {
            return Err(ClientError::TooLarge { what });
        }
        let (sender, answers) = async_channel::unbounded();
        let pending = Pending {
            message,
            answers: sender,
            is_sent: false,
            many,
        };
        state.pending.insert(number, pending);
        state.unsent.push_back(number);
        drop(state);
        self.notify();
        Ok(Request {
            conversation: self.clone(),
            number,
            answers,
        })
    }

    /// Asks and waits for the one answer, until the deadline.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        what: &'static str,
        started: Instant,
        build: impl FnOnce(u64) -> Message,
    ) -> Result<Message, ClientError> {
        if !self.has_api() {
            return Err(ClientError::NeedsApi { what });
        }
        let request = self.begin(false, what, build)?;
        let deadline = started + self.options.timeout;
        match until(deadline, request.answer()).await {
            Some(answer) => answer,
            None => {
                let waited = started.elapsed();
                let link = self.describe();
                Err(if request.is_sent() {
                    ClientError::NotConfirmed { what, waited, link }
                } else {
                    ClientError::NotSent { what, waited, link }
                })
            }
        }
    }

    /// As [`ask`](Self::ask), again while the manager is busy; a refusal is an error.
    pub(crate) async fn insist(
        self: &Arc<Self>,
        what: &'static str,
        build: impl Fn(u64) -> Message,
    ) -> Result<Message, ClientError> {
        let started = Instant::now();
        let mut pauses = Pauses::new(&self.options.busy_retry);
        loop {
            let refusal = match self.ask(what, started, &build).await? {
                Message::Refusal(refusal) => refusal,
                answer => return Ok(answer),
            };
            let pause = pauses.take_before(started, self.options.timeout);
            let Some(pause) = pause.filter(|_| is_passing(refusal.code)) else {
                return Err(ClientError::Refusal {
                    what,
                    code: refusal.code,
                    message: refusal.message,
                });
            };
            Timer::after(pause).await;
        }
    }

    /// Waits for `reached`, at most until the deadline.
    pub(crate) async fn reached<T>(
        &self,
        deadline: Instant,
        reached: impl Fn(&State) -> Option<T>,
    ) -> Option<T> {
        let wait = async {
            loop {
                let listener = self.listen();
                if let Some(found) = reached(&self.lock()) {
                    return found;
                }
                listener.await;
            }
        };
        until(deadline, wait).await
    }

    pub(crate) fn absent(&self, absent: Duration, jobs: usize) -> ClientError {
        let link = self.describe();
        ClientError::Absent { absent, jobs, link }
    }
}

impl State {
    fn take_number(&mut self) -> u64 {
        let number = self.next_request;
        self.next_request += 1;
        number
    }

    fn activate(&mut self, index: usize) {
        self.active = Some(index);
        self.unsent = self.pending.keys().copied().collect();
    }

    /// A link is not to be used any more; another that is live takes over.
    fn leave(&mut self, index: usize) {
        if self.active != Some(index) {
            return;
        }
        self.active = None;
        let live =
            |(other, link): &(usize, &Link)| *other != index && link.condition == Condition::Live;
        if let Some((other, _)) = self.links.iter().enumerate().find(live) {
            self.activate(other);
        }
    }
}

fn request_of(message: &Message) -> Option<u64> {
    match message {
        Message::Enqueued(body) => Some(body.request),
        Message::Answer(body) => Some(body.request),
        Message::Ended(body) => Some(body.request),
        Message::Refusal(body) => body.request,
        _ => None,
    }
}

/// Whether a refusal passes by itself, so that trying again makes sense.
pub(crate) fn is_passing(code: Code) -> bool {
    matches!(code, Code::Busy | Code::Journal)
}

/// Waits for a future, at most until the deadline.
pub(crate) async fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(work.await) }, async {
        Timer::at(deadline).await;
        None
    })
    .await
}
