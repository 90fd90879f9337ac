//! ROUTER: talks to many peers, each by its own id, and waits for none of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use carbontube_protocol::Address;
use event_listener::Event;

use crate::backlog::{Backlog, Room};
use crate::connection::{Connections, Member, Members};
use crate::counters::{add, bump};
use crate::door::splice::{End, Outgoing, Replies};
use crate::door::wire::until;
use crate::door::zmtp::Kind;
use crate::door::{BoxFuture, Door};
use crate::inbox::Hand;
use crate::lane::Lane;
use crate::message::wire_bytes;
use crate::{Closed, CountersSnapshot, Endpoint, Message, OpenError, Options, RouteError};

/// One connection of a ROUTER; never reused, not even when the same peer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u64);

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "peer-{}", self.0)
    }
}

/// Talks to any number of DEALER and REQ peers, each by its [`PeerId`].
pub struct Router {
    door: Door,
    post: Arc<Post>,
    hand: Hand,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.door.fmt(f)
    }
}

impl Router {
    /// Opens every endpoint.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        options: Options,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        let endpoints = endpoints.into_iter().collect();
        let post = Arc::new(Post {
            room: Room::new(options.send_all_bytes_max),
            connections: Connections::new(Kind::Router, options),
            peers: Mutex::default(),
            settled: Event::new(),
        });
        let backend = Arc::new(post.clone());
        let door = Door::open(&post.connections, backend, endpoints, None).await?;
        Ok(Self {
            door,
            post,
            hand: Hand::default(),
        })
    }

    /// The bound addresses with their real ports, in the order given.
    pub fn local_addresses(&self) -> Vec<Address> {
        self.door.local_addresses()
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        self.door.counters()
    }

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        self.door.connections()
    }

    /// Waits for the next message and tells who sent it. Cancel-safe.
    ///
    /// A REQ peer's message begins with an empty frame: see
    /// [`take_delimiter`](crate::take_delimiter).
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&mut self) -> Result<(PeerId, Message), Closed> {
        let inbox = &self.post.connections.inbox;
        let (origin, message) = inbox.take_by_hand(&mut self.hand).await?;
        Ok((PeerId(origin.connection), message))
    }

    /// A handle that sends, from any task or thread.
    pub fn sender(&self) -> RouterSender {
        RouterSender {
            post: self.post.clone(),
        }
    }

    /// Writes what was accepted, for at most `linger`, and closes; tells whether all was written.
    pub async fn close(self, linger: Duration) -> bool {
        let deadline = Instant::now() + linger;
        let delivered = until(deadline, self.post.settle()).await.is_some();
        self.post.connections.part(deadline);
        until(deadline, self.post.empty()).await;
        self.door.close().await;
        delivered
    }
}

/// Sends to the peers of a [`Router`].
#[derive(Clone)]
pub struct RouterSender {
    post: Arc<Post>,
}

impl std::fmt::Debug for RouterSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouterSender").finish_non_exhaustive()
    }
}

impl RouterSender {
    /// Accepts a message for a peer; never waits.
    ///
    /// A peer over its high-water mark does not read: it is disconnected and counted. The
    /// mark falls when many don't, so that all together keep to a bound.
    ///
    /// # Errors
    /// When the peer is gone, is over its high-water mark, or the message is invalid.
    pub fn send(&self, peer: &PeerId, message: Message) -> Result<(), RouteError> {
        self.post.send(*peer, message)
    }

    /// Whether the peer is connected now.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.post.peers().contains_key(&peer.0)
    }
}

/// The outgoing side: who is there and what is on its way.
struct Post {
    connections: Connections,
    room: Arc<Room>,
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
    settled: Event,
}

struct Peer {
    lane: Mutex<Lane>,
    work: Event,
    bytes: Backlog,
    is_dismissed: AtomicBool,
    dismissal: Event,
}

impl Peer {
    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message; false when too much waits for this peer, or for all.
    fn accept(&self, message: Message, options: &Options) -> bool {
        let size = wire_bytes(&message);
        let mut lane = self.lane();
        let waiting = lane.len();
        let fits = waiting < options.hwm_messages()
            && !self.is_dismissed.load(Ordering::Acquire)
            && self.bytes.add(size, waiting == 0, options.send_hwm_bytes);
        if fits {
            lane.push(message);
            drop(lane);
            self.work.notify(1);
        }
        fits
    }

    fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
        self.dismissal.notify(1);
    }
}

impl Post {
    fn peers(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, id: PeerId, message: Message) -> Result<(), RouteError> {
        let Connections {
            options, counters, ..
        } = &self.connections;
        if !options.allows(&message) {
            bump(&counters.rejected_invalid);
            return Err(RouteError::Invalid);
        }
        let Some(peer) = self.peers().get(&id.0).cloned() else {
            bump(&counters.rejected_disconnected);
            return Err(RouteError::Gone);
        };
        if !peer.accept(message, options) {
            peer.dismiss();
            bump(&counters.rejected_full);
            return Err(RouteError::Full);
        }
        Ok(())
    }

    async fn wait(&self, reached: impl Fn(&HashMap<u64, Arc<Peer>>) -> bool) {
        loop {
            let settled = self.settled.listen();
            if reached(&self.peers()) {
                return;
            }
            settled.await;
        }
    }

    async fn settle(&self) {
        let idle = |peer: &Arc<Peer>| peer.lane().len() == 0;
        self.wait(|peers| peers.values().all(idle)).await;
    }

    async fn empty(&self) {
        self.wait(HashMap::is_empty).await;
    }
}

impl Members for Arc<Post> {
    type Member = Correspondent;

    fn connections(&self) -> &Connections {
        &self.connections
    }

    fn join(&self, id: u64, _replies: &Arc<Replies>) -> Correspondent {
        let peer = Arc::new(Peer {
            lane: Mutex::default(),
            work: Event::new(),
            bytes: self.room.backlog(),
            is_dismissed: AtomicBool::new(false),
            dismissal: Event::new(),
        });
        self.peers().insert(id, peer.clone());
        Correspondent {
            post: self.clone(),
            id,
            peer,
        }
    }
}

/// One connection's place in the post.
struct Correspondent {
    post: Arc<Post>,
    id: u64,
    peer: Arc<Peer>,
}

impl Outgoing for Correspondent {
    fn written(&self, messages: usize, bytes: usize) {
        let mut lane = self.peer.lane();
        let freed = lane.written(messages);
        let is_idle = lane.len() == 0;
        drop(lane);
        drop(freed);
        self.peer.bytes.remove(bytes);
        self.peer.work.notify(1);
        if is_idle {
            self.post.settled.notify(usize::MAX);
        }
    }
}

impl Member for Correspondent {
    fn work(&self) -> &Event {
        &self.peer.work
    }

    fn give(&self, batch: &mut Vec<Message>) {
        self.peer.lane().give(batch);
    }

    fn leave(&self) {
        self.post.peers().remove(&self.id);
        let abandoned = std::mem::take(&mut *self.peer.lane());
        let counters = &self.post.connections.counters;
        add(&counters.messages_abandoned, abandoned.len() as u64);
        self.post.settled.notify(usize::MAX);
    }

    fn dismissed(&self) -> BoxFuture<'_, End> {
        Box::pin(async {
            loop {
                let dismissal = self.peer.dismissal.listen();
                if self.peer.is_dismissed.load(Ordering::Acquire) {
                    return End::NotReading;
                }
                dismissal.await;
            }
        })
    }
}
