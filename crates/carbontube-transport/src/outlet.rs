//! What Push, FanOut and Dealer share: accepted messages, kept until they are written.
//!
//! Each connection has a crate socket of its own with a single peer, so that a
//! peer that does not read can hold up nobody else. An accepted message
//! belongs to one connection at a time; when that breaks, its unwritten
//! messages go to the next connection, in order and before anything newer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use carbontube_protocol::Address;
use event_listener::Event;

use crate::connection::{Connections, Member, Members};
use crate::counters::{add, bump};
use crate::door::splice::{Outgoing, Replies};
use crate::door::wire::until;
use crate::door::zmtp::Kind;
use crate::door::{Door, First};
use crate::lane::Lane;
use crate::message::wire_bytes;
use crate::{
    CloseOutcome, Endpoint, LinkState, Message, NotConnected, OpenError, Options, Reason, Rejected,
};

/// The sending side of a socket, shared with its connections.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) connections: Connections,
    state: Mutex<State>,
    /// There may be room for another message.
    room: Event,
    /// The link state changed.
    changed: Event,
    /// Nothing is pending any more, or a link has gone.
    settled: Event,
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
}

#[derive(Debug)]
struct Link {
    /// Accepted and not yet written.
    lane: Lane,
    work: Arc<Event>,
}

impl Link {
    fn push(&mut self, message: Message) {
        self.lane.push(message);
        self.work.notify(1);
    }
}

impl State {
    /// The next link in turn that has room.
    fn link_with_room(&mut self, size: usize, options: &Options) -> Option<&mut Link> {
        let after = self.last_used;
        let fits = |(_, link): &(&u64, &Link)| link.lane.has_room(size, options);
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
        let links = self.links.values();
        self.orphans.len() + links.map(|link| link.lane.len()).sum::<usize>()
    }
}

impl Outlet {
    pub(crate) fn new(kind: Kind, options: Options) -> Arc<Self> {
        Arc::new(Self {
            connections: Connections::new(kind, options),
            state: Mutex::default(),
            room: Event::new(),
            changed: Event::new(),
            settled: Event::new(),
        })
    }

    /// Opens the door in front of this side.
    pub(crate) async fn open_door(
        self: &Arc<Self>,
        endpoints: Vec<Endpoint>,
        first: First,
    ) -> Result<Door, OpenError> {
        let backend = Arc::new(self.clone());
        Door::open(&self.connections, backend, endpoints, first).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, message: Message) -> Result<(), Rejected> {
        let reject = |message, reason| Err(Rejected { message, reason });
        if !self.connections.options.allows(&message) {
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
        match state.link_with_room(wire_bytes(&message), &self.connections.options) {
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
                Reason::Full => bump(&self.connections.counters.rejected_full),
                Reason::Invalid => bump(&self.connections.counters.rejected_invalid),
                Reason::Disconnected | Reason::Closed => {
                    bump(&self.connections.counters.rejected_disconnected);
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
        self.connections.part(deadline);
        until(deadline, self.wait(|state| state.links.is_empty())).await;
        door.close().await;
        self.connections.inbox.close();
        let mut state = self.lock();
        let mut messages = Vec::new();
        for link in std::mem::take(&mut state.links).into_values() {
            messages.extend(link.lane.into_messages());
        }
        messages.extend(state.orphans.drain(..));
        if messages.is_empty() {
            CloseOutcome::Delivered
        } else {
            add(
                &self.connections.counters.messages_abandoned,
                messages.len() as u64,
            );
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
        let work = Arc::new(Event::new());
        let link = Link {
            lane: Lane::default(),
            work: work.clone(),
        };
        state.links.insert(id, link);
        state.place_orphans(&self.connections.options);
        drop(state);
        self.changed.notify(usize::MAX);
        self.room.notify(usize::MAX);
        work
    }

    fn leave(&self, id: u64) {
        let mut state = self.lock();
        if let Some(link) = state.links.remove(&id) {
            let given = link.lane.given();
            add(&self.connections.counters.messages_resent, given as u64);
            // Older than any orphan that is still waiting for room.
            let mut messages = link.lane.into_messages();
            messages.append(&mut state.orphans);
            state.orphans = messages;
            state.place_orphans(&self.connections.options);
        }
        drop(state);
        self.changed.notify(usize::MAX);
        self.settled.notify(usize::MAX);
    }
}

/// One connection of an outlet.
pub(crate) struct Membership {
    outlet: Arc<Outlet>,
    id: u64,
    work: Arc<Event>,
}

impl Outgoing for Membership {
    fn written(&self, messages: usize, _bytes: usize) {
        let outlet = &*self.outlet;
        let mut state = outlet.lock();
        let Some(link) = state.links.get_mut(&self.id) else {
            return;
        };
        let freed = link.lane.written(messages);
        self.work.notify(1);
        if !state.orphans.is_empty() {
            state.place_orphans(&outlet.connections.options);
        }
        let settled = state.closed && state.pending() == 0;
        drop(state);
        outlet.room.notify(freed.len());
        drop(freed);
        if settled {
            outlet.settled.notify(usize::MAX);
        }
    }
}

impl Member for Membership {
    fn work(&self) -> &Event {
        &self.work
    }

    fn give(&self, batch: &mut Vec<Message>) {
        if let Some(link) = self.outlet.lock().links.get_mut(&self.id) {
            link.lane.give(batch);
        }
    }

    fn leave(&self) {
        self.outlet.leave(self.id);
    }
}

impl Members for Arc<Outlet> {
    type Member = Membership;

    fn connections(&self) -> &Connections {
        &self.connections
    }

    fn join(&self, id: u64, _replies: &Arc<Replies>) -> Membership {
        Membership {
            outlet: self.clone(),
            id,
            work: Outlet::join(self, id),
        }
    }

    fn unreachable(&self, why: String, refused: bool) {
        let mut state = self.lock();
        state.last_error = Some(why);
        state.refused = refused;
        drop(state);
        self.changed.notify(usize::MAX);
    }
}
