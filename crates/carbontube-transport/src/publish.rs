//! PUB: publishes to many subscribers and waits for none of them.
//!
//! The crate drops silently when its queues of 100,000 messages fill. They
//! never do here: now and then a mark that our own streams look for goes
//! through the crate, and no more than a few marks may be under way. So
//! every drop happens in our hands, by whole messages, and is counted. What a
//! subscriber wants is matched in our hands too, see `door/topics.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_global_executor::Task;
use bytes::Bytes;
use carbontube_protocol::Address;
use event_listener::Event;
use zeromq::{PubSocket, Socket, SocketSend, ZmqMessage};

use crate::backlog::{Backlog, Room};
use crate::counters::{Counters, bump};
use crate::door::Door;
use crate::door::splice::{Intake, Outgoing, Replies, Verdict};
use crate::door::wire::until;
use crate::door::zmtp::Kind;
use crate::hub::{Hub, Member, Members};
use crate::message::wire_bytes;
use crate::{CountersSnapshot, Endpoint, Hurry, Message, OpenError, Options, init_runtime};

/// Messages between two marks.
const MARK_MESSAGES: usize = 256;
/// Bytes between two marks.
const MARK_BYTES: usize = 1 << 20;
/// Marks that may be under way.
const MARKS_MAX: u64 = 8;
/// The pause before the last mark is repeated.
const MARK_AGAIN: Duration = Duration::from_millis(5);
/// The length of the secret that begins a mark.
const TOKEN_BYTES: usize = 17;
/// The length of a mark on the wire: header, token, number.
const MARK_WIRE_BYTES: usize = 2 + TOKEN_BYTES + 8;

/// Publishes messages to any number of subscribers; never waits for a slow one.
pub struct Publish {
    door: Door,
    hub: Arc<Hub<Arc<Stage>>>,
    stage: Arc<Stage>,
    pump: Option<Task<PubSocket>>,
}

impl std::fmt::Debug for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.door.fmt(f)
    }
}

impl Publish {
    /// Opens every endpoint; dialled subscribers need not be there yet.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        options: Options,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        let endpoints = endpoints.into_iter().collect();
        init_runtime();
        let counters = Arc::new(Counters::default());
        let mut token = [0xff; TOKEN_BYTES];
        token[1..].copy_from_slice(&fastrand::u128(..).to_be_bytes());
        let stage = Arc::new(Stage {
            options: options.clone(),
            counters: counters.clone(),
            room: Room::new(options.send_all_bytes_max),
            token,
            state: Mutex::default(),
            queued: Event::new(),
            progress: Event::new(),
        });
        let mut socket = PubSocket::new();
        let kind = Kind::Publish;
        let hub = Hub::new(
            kind,
            options.clone(),
            counters.clone(),
            &mut socket,
            stage.clone(),
        )
        .await?;
        let door = Door::open(kind, options, counters, hub.clone(), endpoints, None).await?;
        let pump = async_global_executor::spawn(stage.clone().pump(socket));
        Ok(Self {
            door,
            hub,
            stage,
            pump: Some(pump),
        })
    }

    /// The bound addresses with their real ports, in the order given.
    pub fn local_addresses(&self) -> Vec<Address> {
        self.door.local_addresses()
    }

    /// What was counted so far; drops for slow subscribers among it.
    pub fn counters(&self) -> CountersSnapshot {
        self.door.counters()
    }

    /// Publishes a message whose first frame begins with its topic; never waits.
    ///
    /// With no subscriber it goes nowhere. For a subscriber over its high-water
    /// mark the whole message is dropped and counted. An invalid message is
    /// dropped and counted as well.
    pub fn send(&self, message: Message) {
        self.stage.put(message);
    }

    /// What makes it dial at once where it has no connection.
    pub fn hurry(&self) -> Hurry {
        self.door.hurry()
    }

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        self.door.connections()
    }

    /// Writes what was published, for at most `linger`, and closes; tells whether all was written.
    pub async fn close(mut self, linger: Duration) -> bool {
        let deadline = Instant::now() + linger;
        self.stage.lock().ending = true;
        self.stage.queued.notify(1);
        let socket = match self.pump.take() {
            Some(pump) => until(deadline, pump).await,
            None => None,
        };
        let delivered = until(deadline, self.stage.settle()).await.is_some() && socket.is_some();
        self.hub.part(deadline);
        until(deadline, self.stage.empty()).await;
        self.door.close().await;
        if let Some(socket) = socket {
            self.hub.retire(socket).await;
        }
        delivered
    }
}

/// The outgoing side: what waits, and how far each subscriber's stream has come.
struct Stage {
    options: Options,
    counters: Arc<Counters>,
    room: Arc<Room>,
    token: [u8; TOKEN_BYTES],
    state: Mutex<State>,
    queued: Event,
    progress: Event,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    bytes: usize,
    ending: bool,
    /// The last mark given to the crate.
    marked: u64,
    seats: BTreeMap<u64, Seat>,
}

#[derive(Default)]
struct Seat {
    /// The last mark seen; `None` until the crate knows this stream's subscription.
    seen: Option<u64>,
    /// Messages passed and not yet written.
    pending: usize,
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, message: Message) {
        if !self.options.allows(&message) {
            bump(&self.counters.rejected_invalid);
            return;
        }
        let size = wire_bytes(&message);
        let mut state = self.lock();
        let fits = state.queue.is_empty()
            || state.queue.len() < self.options.hwm_messages()
                && state.bytes + size <= self.options.send_hwm_bytes;
        if !fits {
            drop(state);
            bump(&self.counters.publish_dropped_queue);
            return;
        }
        state.bytes += size;
        state.queue.push_back(message);
        drop(state);
        self.queued.notify(1);
    }

    /// Gives published messages to the crate socket until the end; returns the socket.
    async fn pump(self: Arc<Self>, mut socket: PubSocket) -> PubSocket {
        let (mut messages, mut bytes) = (0, 0);
        loop {
            let queued = self.queued.listen();
            let (message, ending) = {
                let mut state = self.lock();
                let message = state.queue.pop_front();
                if let Some(message) = &message {
                    state.bytes -= wire_bytes(message);
                }
                (message, state.ending)
            };
            let Some(message) = message else {
                if ending {
                    self.finish(&mut socket).await;
                    return socket;
                }
                queued.await;
                continue;
            };
            messages += 1;
            bytes += wire_bytes(&message);
            if let Ok(message) = ZmqMessage::try_from(message) {
                self.give(&mut socket, message).await;
            }
            if messages >= MARK_MESSAGES || bytes >= MARK_BYTES {
                (messages, bytes) = (0, 0);
                self.mark(&mut socket).await;
                self.wait(|state| state.marked - state.slowest() < MARKS_MAX)
                    .await;
            }
        }
    }

    /// Marks the end, again and again until every stream has seen it.
    ///
    /// A stream whose subscription the crate has not read yet misses a mark.
    async fn finish(&self, socket: &mut PubSocket) {
        loop {
            self.mark(socket).await;
            let again = Instant::now() + MARK_AGAIN;
            let seen = self.wait(|state| state.all_seen());
            if until(again, seen).await.is_some() {
                return;
            }
        }
    }

    async fn give(&self, socket: &mut PubSocket, message: ZmqMessage) {
        if let Err(error) = socket.send(message).await {
            bump(&self.counters.inner_errors);
            log::debug!("PUB inner socket: {error}");
        }
    }

    async fn mark(&self, socket: &mut PubSocket) {
        let number = {
            let mut state = self.lock();
            state.marked += 1;
            state.marked
        };
        let mut mark = self.token.to_vec();
        mark.extend(number.to_be_bytes());
        self.give(socket, ZmqMessage::from(Bytes::from(mark))).await;
    }

    /// The number of the mark, if a message on the wire is one.
    fn mark_number(&self, message: &[u8]) -> Option<u64> {
        if message.len() != MARK_WIRE_BYTES {
            return None;
        }
        let number = message[2..].strip_prefix(&self.token[..])?;
        number.try_into().ok().map(u64::from_be_bytes)
    }

    async fn wait(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let progress = self.progress.listen();
            if reached(&self.lock()) {
                return;
            }
            progress.await;
        }
    }

    async fn settle(&self) {
        self.wait(|state| state.all_seen() && state.seats.values().all(|seat| seat.pending == 0))
            .await;
    }

    async fn empty(&self) {
        self.wait(|state| state.seats.is_empty()).await;
    }
}

impl State {
    fn all_seen(&self) -> bool {
        let seen = |seat: &Seat| seat.seen.is_some_and(|seen| seen >= self.marked);
        self.seats.values().all(seen)
    }

    /// The mark that every stream has seen.
    fn slowest(&self) -> u64 {
        self.seats
            .values()
            .filter_map(|seat| seat.seen)
            .min()
            .unwrap_or(self.marked)
    }
}

impl Members for Arc<Stage> {
    const INTAKE: Intake = Intake::Topics;

    type Member = Subscriber;

    fn join(&self, id: u64) -> Subscriber {
        self.lock().seats.insert(id, Seat::default());
        Subscriber {
            stage: self.clone(),
            id,
            bytes: self.room.backlog(),
        }
    }

    fn introduction(&self) -> Vec<u8> {
        // One subscription to everything: what the peer wants is matched on the way out.
        vec![0, 1, 1]
    }
}

/// One subscriber's connection.
struct Subscriber {
    stage: Arc<Stage>,
    id: u64,
    bytes: Backlog,
}

impl Subscriber {
    fn change(&self, change: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.stage.lock().seats.get_mut(&self.id) {
            change(seat);
        }
    }
}

impl Outgoing for Subscriber {
    fn written(&self, messages: usize, bytes: usize) {
        self.bytes.remove(bytes);
        self.change(|seat| seat.pending -= messages.min(seat.pending));
        self.stage.progress.notify(usize::MAX);
    }

    fn judge(&self, message: &[u8], waiting: usize, replies: &Replies) -> Verdict {
        if let Some(number) = self.stage.mark_number(message) {
            self.change(|seat| seat.seen = Some(number));
            self.stage.progress.notify(usize::MAX);
            return Verdict::Remove;
        }
        if !replies.wants(message) {
            return Verdict::Remove;
        }
        let options = &self.stage.options;
        let fits = waiting < options.hwm_messages()
            && self
                .bytes
                .add(message.len(), waiting == 0, options.send_hwm_bytes);
        if !fits {
            bump(&self.stage.counters.publish_dropped_peer);
            return Verdict::Remove;
        }
        self.change(|seat| seat.pending += 1);
        Verdict::Pass
    }

    fn reads_on(&self) -> bool {
        true
    }
}

impl Member for Subscriber {}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stage.lock().seats.remove(&self.id);
        self.stage.progress.notify(usize::MAX);
    }
}
