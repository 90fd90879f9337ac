//! PUB: publishes to many subscribers and waits for none of them.
//!
//! What a subscriber wants is matched here, before a message is given to its connection.
//! For one that reads too slowly whole messages are dropped and counted, and nobody else
//! notices.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_global_executor::Task;
use carbontube_protocol::Address;
use event_listener::Event;

use crate::backlog::{Backlog, Room};
use crate::connection::{Connections, Member, Members};
use crate::counters::{add, bump};
use crate::door::Door;
use crate::door::splice::{Outgoing, Replies};
use crate::door::wire::until;
use crate::door::zmtp::Kind;
use crate::lane::Lane;
use crate::message::wire_bytes;
use crate::{CountersSnapshot, Endpoint, Hurry, Message, OpenError, Options};

/// Messages handed out to the subscribers before others may run.
const TURN_MESSAGES: usize = 256;

/// Publishes messages to any number of subscribers; never waits for a slow one.
pub struct Publish {
    door: Door,
    stage: Arc<Stage>,
    handing_out: Option<Task<()>>,
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
        let stage = Arc::new(Stage {
            room: Room::new(options.send_all_bytes_max),
            connections: Connections::new(Kind::Publish, options),
            queue: Mutex::default(),
            seats: Mutex::default(),
            queued: Event::new(),
            settled: Event::new(),
        });
        let backend = Arc::new(stage.clone());
        let door = Door::open(&stage.connections, backend, endpoints, None).await?;
        let handing_out = async_global_executor::spawn(stage.clone().hand_out());
        Ok(Self {
            door,
            stage,
            handing_out: Some(handing_out),
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
        self.stage.queue().is_ending = true;
        self.stage.queued.notify(1);
        let written = async {
            if let Some(handing_out) = self.handing_out.take() {
                handing_out.await;
            }
            self.stage.settle().await;
        };
        let delivered = until(deadline, written).await.is_some();
        self.stage.connections.part(deadline);
        until(deadline, self.stage.empty()).await;
        self.door.close().await;
        delivered
    }
}

/// The outgoing side: what waits, and who is there.
struct Stage {
    connections: Connections,
    room: Arc<Room>,
    queue: Mutex<Queue>,
    seats: Mutex<BTreeMap<u64, Arc<Seat>>>,
    queued: Event,
    settled: Event,
}

/// Published and not yet handed out.
#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    is_ending: bool,
}

/// One subscriber.
struct Seat {
    lane: Mutex<Lane>,
    work: Event,
    bytes: Backlog,
    replies: Arc<Replies>,
}

impl Seat {
    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message if there is room for it.
    fn accept(&self, message: &Message, size: usize, options: &Options) -> bool {
        let mut lane = self.lane();
        let waiting = lane.len();
        let fits = waiting < options.hwm_messages()
            && self.bytes.add(size, waiting == 0, options.send_hwm_bytes);
        if fits {
            lane.push(message.clone());
            drop(lane);
            self.work.notify(1);
        }
        fits
    }
}

impl Stage {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, message: Message) {
        let Connections {
            options, counters, ..
        } = &self.connections;
        if !options.allows(&message) {
            bump(&counters.rejected_invalid);
            return;
        }
        let size = wire_bytes(&message);
        let mut queue = self.queue();
        let fits = queue.messages.is_empty()
            || queue.messages.len() < options.hwm_messages()
                && queue.bytes + size <= options.send_hwm_bytes;
        if !fits {
            drop(queue);
            bump(&counters.publish_dropped_queue);
            return;
        }
        queue.bytes += size;
        queue.messages.push_back(message);
        drop(queue);
        self.queued.notify(1);
    }

    /// Hands published messages out to the subscribers until the end.
    async fn hand_out(self: Arc<Self>) {
        loop {
            let queued = self.queued.listen();
            let (messages, is_ending) = {
                let mut queue = self.queue();
                let count = queue.messages.len().min(TURN_MESSAGES);
                let messages: Vec<Message> = queue.messages.drain(..count).collect();
                queue.bytes -= messages.iter().map(|one| wire_bytes(one)).sum::<usize>();
                (messages, queue.is_ending)
            };
            if messages.is_empty() {
                if is_ending {
                    return;
                }
                queued.await;
                continue;
            }
            let seats: Vec<Arc<Seat>> = self.seats().values().cloned().collect();
            for message in &messages {
                self.hand_to_all(&seats, message);
            }
            futures_lite::future::yield_now().await;
        }
    }

    fn hand_to_all(&self, seats: &[Arc<Seat>], message: &Message) {
        let Connections {
            options, counters, ..
        } = &self.connections;
        let size = wire_bytes(message);
        let topic = message.first().map_or(&[][..], |frame| &frame[..]);
        for seat in seats {
            if seat.replies.wants(topic) && !seat.accept(message, size, options) {
                bump(&counters.publish_dropped_peer);
            }
        }
    }

    async fn wait(&self, reached: impl Fn(&BTreeMap<u64, Arc<Seat>>) -> bool) {
        loop {
            let settled = self.settled.listen();
            if reached(&self.seats()) {
                return;
            }
            settled.await;
        }
    }

    async fn settle(&self) {
        let idle = |seat: &Arc<Seat>| seat.lane().len() == 0;
        self.wait(|seats| seats.values().all(idle)).await;
    }

    async fn empty(&self) {
        self.wait(BTreeMap::is_empty).await;
    }
}

impl Members for Arc<Stage> {
    type Member = Subscriber;

    fn connections(&self) -> &Connections {
        &self.connections
    }

    fn join(&self, id: u64, replies: &Arc<Replies>) -> Subscriber {
        let seat = Arc::new(Seat {
            lane: Mutex::default(),
            work: Event::new(),
            bytes: self.room.backlog(),
            replies: replies.clone(),
        });
        self.seats().insert(id, seat.clone());
        Subscriber {
            stage: self.clone(),
            id,
            seat,
        }
    }
}

/// One subscriber's connection.
struct Subscriber {
    stage: Arc<Stage>,
    id: u64,
    seat: Arc<Seat>,
}

impl Outgoing for Subscriber {
    fn written(&self, messages: usize, bytes: usize) {
        let mut lane = self.seat.lane();
        let freed = lane.written(messages);
        let is_idle = lane.len() == 0;
        drop(lane);
        drop(freed);
        self.seat.bytes.remove(bytes);
        self.seat.work.notify(1);
        if is_idle {
            self.stage.settled.notify(usize::MAX);
        }
    }
}

impl Member for Subscriber {
    fn work(&self) -> &Event {
        &self.seat.work
    }

    fn give(&self, batch: &mut Vec<Message>) {
        self.seat.lane().give(batch);
    }

    fn leave(&self) {
        self.stage.seats().remove(&self.id);
        let abandoned = std::mem::take(&mut *self.seat.lane());
        let counters = &self.stage.connections.counters;
        add(&counters.messages_abandoned, abandoned.len() as u64);
        self.stage.settled.notify(usize::MAX);
    }
}
