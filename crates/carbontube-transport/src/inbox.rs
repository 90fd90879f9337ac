//! Received messages on their way to the reader: bounded in all, and fair between connections.
//!
//! What a connection has read is admitted before it is passed on to its crate socket, and
//! counts until the reader has taken it. So a reader that does not keep up makes peers wait
//! in TCP, and what it has to hold does not grow with what they send. A connection of which
//! nothing waits may always pass a little on, so that large senders do not hold up small ones.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use crate::message::{detach, wire_bytes};
use crate::{Closed, Message, Origin};

/// What a connection of which nothing waits may pass on, however much waits of others.
const EXPRESS_BYTES: usize = 16 << 10;
/// What a waiting message costs beside its bytes.
const MESSAGE_COST_BYTES: usize = 128;

/// Messages that a reader takes at a time, when there are as many, and their bytes.
const HAND_MESSAGES: usize = 64;
const HAND_BYTES: usize = 256 << 10;

/// Messages that a reader has taken and not yet looked at.
#[derive(Debug, Default)]
pub(crate) struct Hand(VecDeque<(Origin, Message)>);

/// The received messages of all connections of a socket.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes_max: usize,
    state: Mutex<State>,
    arrived: Event,
}

#[derive(Debug, Default)]
struct State {
    sources: HashMap<u64, Held>,
    /// Connections with a message for the reader, in turn.
    ready: VecDeque<u64>,
    /// Connections that wait for common room, in the order in which they came.
    waiting: VecDeque<u64>,
    /// The cost of what was admitted to the common room and is not yet taken.
    common: usize,
    closed: bool,
}

/// What waits of one connection.
#[derive(Debug)]
struct Held {
    origin: Origin,
    messages: VecDeque<Message>,
    /// What was admitted and is not yet taken, oldest first.
    admitted: VecDeque<Admitted>,
    /// Messages admitted that the crate socket has not given yet.
    expected: usize,
    changed: Arc<Event>,
}

#[derive(Debug)]
struct Admitted {
    messages: usize,
    cost: usize,
    is_common: bool,
}

impl State {
    fn admit(&mut self, id: u64, messages: usize, bytes: usize, bytes_max: usize) -> bool {
        let cost = bytes.saturating_add(messages * MESSAGE_COST_BYTES);
        let is_first = self.waiting.front().is_none_or(|first| *first == id);
        let has_room = self.common == 0 || self.common.saturating_add(cost) <= bytes_max;
        let Some(held) = self.sources.get_mut(&id) else {
            return true;
        };
        let is_express = held.admitted.is_empty() && cost <= EXPRESS_BYTES;
        let is_admitted = is_express || is_first && has_room;
        if !is_admitted {
            return false;
        }
        held.expected += messages;
        held.admitted.push_back(Admitted {
            messages,
            cost,
            is_common: !is_express,
        });
        if !is_express {
            self.common += cost;
        }
        true
    }

    fn take(&mut self) -> Option<(Origin, Message)> {
        let id = self.ready.pop_front()?;
        let held = self.sources.get_mut(&id)?;
        let message = held.messages.pop_front()?;
        let origin = held.origin;
        if !held.messages.is_empty() {
            self.ready.push_back(id);
        }
        let mut freed = 0;
        if let Some(oldest) = held.admitted.front_mut() {
            oldest.messages -= 1;
            if oldest.messages == 0 {
                freed = if oldest.is_common { oldest.cost } else { 0 };
                held.admitted.pop_front();
                held.changed.notify(usize::MAX);
            }
        }
        self.free(freed);
        Some((origin, message))
    }

    /// Gives common room back, and calls the connection that has waited longest for it.
    fn free(&mut self, cost: usize) {
        self.common -= cost;
        if cost > 0 {
            self.call_first();
        }
    }

    fn call_first(&self) {
        let first = self.waiting.front().and_then(|id| self.sources.get(id));
        if let Some(first) = first {
            first.changed.notify(usize::MAX);
        }
    }
}

impl Inbox {
    /// An inbox with common room for `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            state: Mutex::default(),
            arrived: Event::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that will pass messages on.
    pub(crate) fn source(self: &Arc<Self>, origin: Origin) -> Source {
        let changed = Arc::new(Event::new());
        let held = Held {
            origin,
            messages: VecDeque::new(),
            admitted: VecDeque::new(),
            expected: 0,
            changed: changed.clone(),
        };
        let id = origin.connection;
        self.lock().sources.insert(id, held);
        Source {
            inbox: self.clone(),
            id,
            changed,
        }
    }

    /// Waits for a message and tells which connection it came from; each has its turn.
    pub(crate) async fn take(&self) -> Result<(Origin, Message), Closed> {
        loop {
            let arrived = self.arrived.listen();
            {
                let mut state = self.lock();
                if let Some(found) = state.take() {
                    return Ok(found);
                }
                if state.closed {
                    return Err(Closed);
                }
            }
            arrived.await;
        }
    }

    /// As [`take`](Self::take), for a reader that keeps a few messages in `hand`.
    pub(crate) async fn take_by_hand(&self, hand: &mut Hand) -> Result<(Origin, Message), Closed> {
        loop {
            if let Some(found) = hand.0.pop_front() {
                return Ok(found);
            }
            let first = self.take().await?;
            let mut bytes = wire_bytes(&first.1);
            hand.0.push_back(first);
            let mut state = self.lock();
            while hand.0.len() < HAND_MESSAGES && bytes < HAND_BYTES {
                let Some(more) = state.take() else { break };
                bytes += wire_bytes(&more.1);
                hand.0.push_back(more);
            }
        }
    }

    /// Lets nothing more wait for the reader, and the reader for nothing more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify(usize::MAX);
    }
}

/// One connection's way into the inbox; what the reader has not taken goes with it.
#[derive(Debug)]
pub(crate) struct Source {
    inbox: Arc<Inbox>,
    id: u64,
    changed: Arc<Event>,
}

impl Source {
    /// Waits until so many whole messages of so many bytes may be passed on.
    pub(crate) async fn admit(&self, messages: usize, bytes: usize) {
        let bytes_max = self.inbox.bytes_max;
        let mut place = None;
        loop {
            let changed = self.changed.listen();
            if self.inbox.lock().admit(self.id, messages, bytes, bytes_max) {
                return;
            }
            place.get_or_insert_with(|| WaitingPlace::take(self));
            changed.await;
        }
    }

    /// Hands over admitted messages, in the order in which the crate socket gave them.
    pub(crate) fn deliver(&self, messages: &mut Vec<Message>) {
        let mut state = self.inbox.lock();
        let Some(held) = state.sources.get_mut(&self.id) else {
            return;
        };
        let was_empty = held.messages.is_empty();
        held.expected = held.expected.saturating_sub(messages.len());
        held.messages.extend(messages.drain(..).map(detach));
        if was_empty {
            state.ready.push_back(self.id);
        }
        drop(state);
        self.inbox.arrived.notify(1);
    }

    /// Messages that were passed on to the crate socket and that it has not given yet.
    pub(crate) fn expected(&self) -> usize {
        let state = self.inbox.lock();
        state.sources.get(&self.id).map_or(0, |held| held.expected)
    }

    /// Whether the reader has taken everything.
    pub(crate) fn is_taken(&self) -> bool {
        let state = self.inbox.lock();
        let held = state.sources.get(&self.id);
        held.is_none_or(|held| held.messages.is_empty())
    }

    /// Waits until the reader has taken everything.
    pub(crate) async fn taken(&self) {
        loop {
            let changed = self.changed.listen();
            if self.is_taken() {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut state = self.inbox.lock();
        let Some(held) = state.sources.remove(&self.id) else {
            return;
        };
        if !held.messages.is_empty() {
            state.ready.retain(|id| *id != self.id);
        }
        let common = held.admitted.iter().filter(|admitted| admitted.is_common);
        let freed = common.map(|admitted| admitted.cost).sum();
        state.free(freed);
    }
}

/// A place among those who wait for common room; given up when dropped.
struct WaitingPlace<'a>(&'a Source);

impl<'a> WaitingPlace<'a> {
    fn take(source: &'a Source) -> Self {
        source.inbox.lock().waiting.push_back(source.id);
        // Room may have come free, or the connection may be the first, since it asked.
        source.changed.notify(usize::MAX);
        Self(source)
    }
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        let mut state = self.0.inbox.lock();
        state.waiting.retain(|id| *id != self.0.id);
        state.call_first();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use futures_lite::future::block_on;

    use super::*;

    fn message(text: &str) -> Message {
        vec![Bytes::copy_from_slice(text.as_bytes())]
    }

    fn deliver(source: &Source, text: &str) {
        source.deliver(&mut vec![message(text)]);
    }

    /// Polls once, with nothing to wake.
    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut cx) == Poll::Ready(())
    }

    fn source(inbox: &Arc<Inbox>, connection: u64) -> Source {
        inbox.source(Origin {
            host: None,
            connection,
            is_local: true,
        })
    }

    /// Which connection the next message is of.
    fn take(inbox: &Inbox) -> u64 {
        block_on(inbox.take()).unwrap().0.connection
    }

    #[test]
    fn connections_have_their_turn_however_much_one_sends() {
        let inbox = Inbox::new(1 << 20);
        let (busy, quiet) = (source(&inbox, 1), source(&inbox, 2));
        block_on(busy.admit(3, 9));
        for text in ["a", "b", "c"] {
            deliver(&busy, text);
        }
        block_on(quiet.admit(1, 3));
        deliver(&quiet, "q");
        let order = [(); 4].map(|()| take(&inbox));
        assert_eq!(order, [1, 2, 1, 1]);
        assert!(busy.is_taken() && quiet.is_taken());
    }

    #[test]
    fn reader_takes_several_at_a_time_and_keeps_their_order() {
        let inbox = Inbox::new(1 << 20);
        let (busy, quiet) = (source(&inbox, 1), source(&inbox, 2));
        block_on(busy.admit(3, 9));
        busy.deliver(&mut ["a", "b", "c"].map(message).to_vec());
        block_on(quiet.admit(1, 3));
        deliver(&quiet, "q");
        let mut hand = Hand::default();
        let order: Vec<Message> = (0..4)
            .map(|_| block_on(inbox.take_by_hand(&mut hand)).unwrap().1)
            .collect();
        assert_eq!(order, ["a", "q", "b", "c"].map(message));
        assert!(hand.0.is_empty() && busy.is_taken() && quiet.is_taken());
    }

    #[test]
    fn what_waits_is_bounded_but_small_senders_pass() {
        let inbox = Inbox::new(100_000);
        let (hog, other, small) = (source(&inbox, 1), source(&inbox, 2), source(&inbox, 3));
        assert!(is_ready(hog.admit(1, 90_000)));
        assert!(!is_ready(other.admit(1, 50_000)), "over the common room");
        assert!(!is_ready(hog.admit(1, 12_000)), "over the common room");
        assert!(is_ready(small.admit(1, 10)));
        assert!(!is_ready(small.admit(1, 12_000)), "has something waiting");
        deliver(&hog, "large");
        assert_eq!(take(&inbox), 1);
        assert!(is_ready(other.admit(1, 50_000)));
    }

    #[test]
    fn larger_than_the_whole_room_passes_alone_and_in_turn() {
        let inbox = Inbox::new(1_000);
        let (first, second, third) = (source(&inbox, 1), source(&inbox, 2), source(&inbox, 3));
        assert!(is_ready(first.admit(1, 50_000)));
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits = pin!(second.admit(1, 60_000));
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        let mut behind = pin!(third.admit(1, 20_000));
        assert!(behind.as_mut().poll(&mut cx).is_pending());
        deliver(&first, "x");
        take(&inbox);
        assert!(behind.as_mut().poll(&mut cx).is_pending(), "in turn");
        assert!(waits.as_mut().poll(&mut cx).is_ready());
        assert!(behind.as_mut().poll(&mut cx).is_pending(), "room is taken");
        deliver(&second, "y");
        assert_eq!(take(&inbox), 2);
        assert!(behind.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn connection_that_gives_up_waiting_does_not_hold_up_others() {
        let inbox = Inbox::new(1_000);
        let (first, second, third) = (source(&inbox, 1), source(&inbox, 2), source(&inbox, 3));
        assert!(is_ready(first.admit(1, 20_000)));
        assert!(!is_ready(second.admit(1, 20_000)), "waits, then is dropped");
        drop(first);
        assert!(is_ready(third.admit(1, 20_000)));
    }

    #[test]
    fn nothing_is_left_of_connections_that_come_and_go() {
        let inbox = Inbox::new(1 << 20);
        for id in 0..1_000 {
            let source = source(&inbox, id);
            block_on(source.admit(1, 100_000));
            deliver(&source, "m");
            if id % 2 == 0 {
                take(&inbox);
            }
        }
        let state = inbox.lock();
        assert!(state.sources.is_empty() && state.ready.is_empty() && state.waiting.is_empty());
        assert_eq!(state.common, 0);
    }
}
