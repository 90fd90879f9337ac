//! What Push, FanOut and Dealer share: accepted messages, kept until they are written.
//!
//! Each connection has a crate socket of its own with a single peer, so that a
//! peer that does not read can hold up nobody else. An accepted message
//! belongs to one connection at a time; when that breaks, its unwritten
//! messages go to the next connection, in order and before anything newer.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use carbontube_protocol::Address;
use event_listener::Event;
use futures_lite::future;
use zeromq::{DealerSocket, PushSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use crate::counters::{Counters, add, bump};
use crate::door::handshake::meet_inner;
use crate::door::private::listen_once;
use crate::door::splice::{End, Intake, Outgoing, Replies, give_out, part, take_in};
use crate::door::wire::{Wire, until};
use crate::door::zmtp::Kind;
use crate::door::{Backend, BoxFuture, Door, Ending};
use crate::inbox::Inbox;
use crate::message::wire_bytes;
use crate::{CloseOutcome, LinkState, Message, NotConnected, Options, Reason, Rejected};

/// How long our own crate socket may take for its handshake.
const INNER_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages given to the crate at a time.
const GIVE_MAX: usize = 128;

/// The sending side of a socket, shared with its connections.
#[derive(Debug)]
pub(crate) struct Outlet {
    kind: Kind,
    options: Options,
    counters: Arc<Counters>,
    state: Mutex<State>,
    /// Somebody may try to send again.
    room: Event,
    /// The link state changed.
    changed: Event,
    /// Nothing is pending any more, or a link has gone.
    settled: Event,
    /// The links are to part in order.
    parting: Event,
    /// Where received messages go; closed for sockets that only send.
    pub(crate) inbox: Inbox,
}

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<u64, Link>,
    /// Messages whose connection broke, waiting for the next one.
    orphans: VecDeque<Message>,
    /// The link that got a message last.
    last_used: u64,
    generation: u64,
    last_error: Option<String>,
    refused: bool,
    closed: bool,
    part_by: Option<Instant>,
}

#[derive(Debug, Default)]
struct Link {
    /// Accepted and not yet written, oldest first.
    messages: VecDeque<Message>,
    /// How many of them the crate has.
    given: usize,
    bytes: usize,
    work: Arc<Event>,
}

impl Link {
    fn has_room(&self, size: usize, options: &Options) -> bool {
        self.messages.is_empty()
            || self.messages.len() < options.hwm_messages()
                && self.bytes + size <= options.send_hwm_bytes
    }

    fn push(&mut self, message: Message) {
        self.bytes += wire_bytes(&message);
        self.messages.push_back(message);
        self.work.notify(1);
    }
}

impl State {
    /// The next link in turn that has room.
    fn link_with_room(&mut self, size: usize, options: &Options) -> Option<&mut Link> {
        let after = self.last_used;
        let fits = |(_, link): &(&u64, &Link)| link.has_room(size, options);
        let id = *self
            .links
            .range(after.saturating_add(1)..)
            .find(fits)
            .or_else(|| self.links.range(..=after).find(fits))?
            .0;
        self.last_used = id;
        self.links.get_mut(&id)
    }

    fn place_orphans(&mut self, options: &Options) {
        while let Some(message) = self.orphans.pop_front() {
            match self.link_with_room(wire_bytes(&message), options) {
                Some(link) => link.push(message),
                None => {
                    self.orphans.push_front(message);
                    return;
                }
            }
        }
    }

    fn pending(&self) -> usize {
        self.orphans.len()
            + self
                .links
                .values()
                .map(|link| link.messages.len())
                .sum::<usize>()
    }
}

impl Outlet {
    pub(crate) fn new(kind: Kind, options: Options, counters: Arc<Counters>) -> Arc<Self> {
        let inbox = Inbox::new(options.receive_hwm_messages, options.receive_hwm_bytes);
        Arc::new(Self {
            kind,
            options,
            counters,
            state: Mutex::default(),
            room: Event::new(),
            changed: Event::new(),
            settled: Event::new(),
            parting: Event::new(),
            inbox,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, message: Message) -> Result<(), Rejected> {
        let reject = |message, reason| Err(Rejected { message, reason });
        if !self.options.allows(&message) {
            return reject(message, Reason::Invalid);
        }
        let mut state = self.lock();
        if state.closed {
            return reject(message, Reason::Closed);
        }
        if state.links.is_empty() {
            return reject(message, Reason::Disconnected);
        }
        if !state.orphans.is_empty() {
            return reject(message, Reason::Full);
        }
        match state.link_with_room(wire_bytes(&message), &self.options) {
            Some(link) => {
                link.push(message);
                Ok(())
            }
            None => reject(message, Reason::Full),
        }
    }

    pub(crate) fn try_send(&self, message: Message) -> Result<(), Rejected> {
        let result = self.accept(message);
        if let Err(rejected) = &result {
            match rejected.reason {
                Reason::Full => bump(&self.counters.rejected_full),
                Reason::Invalid => bump(&self.counters.rejected_invalid),
                Reason::Disconnected | Reason::Closed => {
                    bump(&self.counters.rejected_disconnected);
                }
            }
        }
        result
    }

    pub(crate) async fn send(&self, mut message: Message) -> Result<(), Rejected> {
        loop {
            let waits = |rejected: &Rejected| {
                matches!(rejected.reason, Reason::Full | Reason::Disconnected)
            };
            message = match self.accept(message) {
                Err(rejected) if waits(&rejected) => rejected.message,
                other => return other,
            };
            let room = self.room.listen();
            message = match self.accept(message) {
                Err(rejected) if waits(&rejected) => rejected.message,
                other => return other,
            };
            room.await;
        }
    }

    pub(crate) fn pending(&self) -> usize {
        self.lock().pending()
    }

    pub(crate) fn links(&self) -> usize {
        self.lock().links.len()
    }

    pub(crate) fn link_state(&self) -> LinkState {
        let state = self.lock();
        if state.closed {
            LinkState::Closed
        } else if state.links.is_empty() {
            LinkState::Disconnected {
                last_error: state.last_error.clone(),
                refused: state.refused,
            }
        } else {
            LinkState::Connected {
                generation: state.generation,
            }
        }
    }

    pub(crate) async fn changed_from(&self, seen: &LinkState) -> LinkState {
        loop {
            let changed = self.changed.listen();
            let now = self.link_state();
            if now != *seen {
                return now;
            }
            changed.await;
        }
    }

    pub(crate) async fn connected(
        &self,
        address: &Address,
        timeout: Duration,
    ) -> Result<(), NotConnected> {
        let wait = async {
            let mut state = self.link_state();
            while matches!(state, LinkState::Disconnected { .. }) {
                state = self.changed_from(&state).await;
            }
            state
        };
        match until(Instant::now() + timeout, wait).await {
            Some(LinkState::Connected { .. }) => Ok(()),
            _ => Err(NotConnected {
                address: address.clone(),
                waited: timeout,
                last_error: self.lock().last_error.clone(),
            }),
        }
    }

    /// Takes no more messages, waits until all are written, parts from the peers in order.
    pub(crate) async fn close(&self, door: &Door, linger: Duration) -> CloseOutcome {
        let deadline = Instant::now() + linger;
        self.lock().closed = true;
        self.changed.notify(usize::MAX);
        self.room.notify(usize::MAX);
        until(deadline, self.wait(|state| state.pending() == 0)).await;
        self.lock().part_by = Some(deadline);
        self.parting.notify(usize::MAX);
        until(deadline, self.wait(|state| state.links.is_empty())).await;
        door.close().await;
        self.inbox.close();
        let mut state = self.lock();
        let mut messages = Vec::new();
        for link in std::mem::take(&mut state.links).into_values() {
            messages.extend(link.messages);
        }
        messages.extend(state.orphans.drain(..));
        if messages.is_empty() {
            CloseOutcome::Delivered
        } else {
            add(&self.counters.messages_abandoned, messages.len() as u64);
            CloseOutcome::Undelivered { messages }
        }
    }

    async fn wait(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let settled = self.settled.listen();
            if reached(&self.lock()) {
                return;
            }
            settled.await;
        }
    }

    fn join(&self, id: u64) -> Arc<Event> {
        let mut state = self.lock();
        state.generation += 1;
        let link = Link::default();
        let work = link.work.clone();
        state.links.insert(id, link);
        state.place_orphans(&self.options);
        drop(state);
        self.changed.notify(usize::MAX);
        self.room.notify(usize::MAX);
        work
    }

    fn leave(&self, id: u64) {
        let mut state = self.lock();
        if let Some(mut link) = state.links.remove(&id) {
            add(&self.counters.messages_resent, link.given as u64);
            // Older than any orphan that is still waiting for room.
            link.messages.append(&mut state.orphans);
            state.orphans = link.messages;
            state.place_orphans(&self.options);
        }
        drop(state);
        self.changed.notify(usize::MAX);
        self.settled.notify(usize::MAX);
    }

    /// Messages that the crate is to get next.
    fn give(&self, id: u64, batch: &mut Vec<Message>) {
        let mut state = self.lock();
        if let Some(link) = state.links.get_mut(&id) {
            batch.extend(
                link.messages
                    .iter()
                    .skip(link.given)
                    .take(GIVE_MAX)
                    .cloned(),
            );
            link.given += batch.len();
        }
    }

    async fn parted(&self) -> Instant {
        loop {
            let parting = self.parting.listen();
            if let Some(deadline) = self.lock().part_by {
                return deadline;
            }
            parting.await;
        }
    }

    /// Gives accepted messages to the crate socket, for ever.
    async fn pump(self: Arc<Self>, id: u64, work: Arc<Event>, mut socket: impl SocketSend) -> End {
        let mut batch = Vec::with_capacity(GIVE_MAX);
        loop {
            let more = work.listen();
            self.give(id, &mut batch);
            if batch.is_empty() {
                more.await;
                continue;
            }
            for message in batch.drain(..) {
                let Ok(message) = ZmqMessage::try_from(message) else {
                    continue;
                };
                if let Err(error) = socket.send(message).await {
                    return End::Inner(error.to_string());
                }
            }
        }
    }

    /// Moves what the crate socket receives to the inbox, for ever.
    async fn collect(&self, mut socket: impl SocketRecv) -> End {
        loop {
            match socket.recv().await {
                Ok(message) => self.inbox.put(message.into_vec()).await,
                Err(error) => return End::Inner(error.to_string()),
            }
        }
    }

    async fn serve_link(self: &Arc<Self>, id: u64, wire: &Wire, rest: Vec<u8>) -> End {
        match self.kind {
            Kind::Dealer => {
                let mut socket = DealerSocket::new();
                let (own, own_rest) = match attach(&mut socket, self.kind).await {
                    Ok(attached) => attached,
                    Err(end) => return end,
                };
                let (sending, receiving) = socket.split();
                let streams = Streams {
                    wire,
                    rest,
                    own: &own,
                    own_rest,
                };
                self.run_link(
                    id,
                    streams,
                    sending,
                    Intake::Messages,
                    self.collect(receiving),
                )
                .await
            }
            _ => {
                let mut socket = PushSocket::new();
                let (own, own_rest) = match attach(&mut socket, self.kind).await {
                    Ok(attached) => attached,
                    Err(end) => return end,
                };
                let streams = Streams {
                    wire,
                    rest,
                    own: &own,
                    own_rest,
                };
                self.run_link(id, streams, socket, Intake::Nothing, future::pending())
                    .await
            }
        }
    }

    async fn run_link(
        self: &Arc<Self>,
        id: u64,
        streams: Streams<'_>,
        sending: impl SocketSend + Send + 'static,
        intake: Intake,
        collecting: impl Future<Output = End>,
    ) -> End {
        let work = self.join(id);
        let membership = Membership { outlet: self, id };
        // A task of its own: the crate's `send` must never be cancelled while
        // its socket lives on. This one is dropped together with the socket.
        let pump = async_global_executor::spawn(self.clone().pump(id, work, sending));
        let replies = Replies::default();
        let Streams {
            wire,
            rest,
            own,
            own_rest,
        } = streams;
        // The one link of a Dealer is the only one that counts messages in.
        let passed_before = self.counters.messages_in.load(Ordering::Acquire);
        let collected_before = self.inbox.taken_in();
        let mut collecting = pin!(collecting);
        let end = {
            let (options, counters) = (&self.options, &*self.counters);
            let inward = take_in(wire, own, rest, intake, options, counters, &replies);
            let outward = give_out(own, wire, own_rest, &membership, counters, &replies);
            let parted = async {
                self.parted().await;
                End::Finished
            };
            let aside = future::or(future::or(collecting.as_mut(), parted), pump);
            future::or(future::or(inward, outward), aside).await
        };
        if end == End::Finished {
            part(wire, self.parted().await).await;
        }
        drop(membership);
        if intake == Intake::Messages && !matches!(end, End::Inner(_) | End::Finished) {
            // What the peer sent before it left is still on its way through the crate.
            let passed = self.counters.messages_in.load(Ordering::Acquire) - passed_before;
            let all = async {
                self.inbox.until_taken_in(collected_before + passed).await;
                End::Finished
            };
            future::or(all, collecting).await;
        }
        end
    }
}

struct Streams<'a> {
    wire: &'a Wire,
    rest: Vec<u8>,
    own: &'a Wire,
    own_rest: Vec<u8>,
}

/// Connects a crate socket to a private stream and introduces ourselves on it.
async fn attach(socket: &mut impl Socket, kind: Kind) -> Result<(Wire, Vec<u8>), End> {
    let fail = |error: &dyn std::fmt::Display| End::Inner(error.to_string());
    let listener = listen_once().map_err(|error| fail(&error))?;
    let endpoint = listener.endpoint();
    let connecting = async {
        socket
            .connect(&endpoint)
            .await
            .map_err(|error| fail(&error))
    };
    let answering = async {
        let own = listener.accept().await.map_err(|error| fail(&error))?;
        let met = meet_inner(&own, kind, None).await;
        Ok((own, met.map_err(|error| fail(&error))?))
    };
    let both = future::try_zip(connecting, answering);
    let ((), attached) = until(Instant::now() + INNER_TIMEOUT, both)
        .await
        .unwrap_or_else(|| Err(fail(&"no handshake in time")))?;
    Ok(attached)
}

/// A link's membership in its outlet; ends with the connection, however that ends.
struct Membership<'a> {
    outlet: &'a Outlet,
    id: u64,
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.outlet.leave(self.id);
    }
}

impl Outgoing for Membership<'_> {
    fn written(&self, messages: usize, bytes: usize) {
        let outlet = self.outlet;
        let mut state = outlet.lock();
        let Some(link) = state.links.get_mut(&self.id) else {
            return;
        };
        let messages = messages.min(link.given);
        let freed = link.messages.drain(..messages).collect::<Vec<_>>();
        link.given -= messages;
        link.bytes = link.bytes.saturating_sub(bytes);
        if !state.orphans.is_empty() {
            state.place_orphans(&outlet.options);
        }
        let settled = state.closed && state.pending() == 0;
        drop(state);
        drop(freed);
        outlet.room.notify(messages);
        if settled {
            outlet.settled.notify(usize::MAX);
        }
    }
}

impl Backend for Arc<Outlet> {
    fn serve<'a>(&'a self, id: u64, wire: &'a Wire, rest: Vec<u8>) -> BoxFuture<'a, Ending> {
        Box::pin(async move { self.serve_link(id, wire, rest).await.into() })
    }

    fn unreachable(&self, why: String, refused: bool) {
        let mut state = self.lock();
        state.last_error = Some(why);
        state.refused = refused;
        drop(state);
        self.changed.notify(usize::MAX);
    }
}
