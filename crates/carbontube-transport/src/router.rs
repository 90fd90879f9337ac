//! ROUTER: talks to many peers, each by its own id, and waits for none of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_global_executor::Task;
use bytes::Bytes;
use carbontube_protocol::Address;
use event_listener::Event;
use zeromq::{
    MultiPeerBackend, RouterRecvHalf, RouterSendHalf, RouterSocket, Socket, SocketRecv, SocketSend,
    ZmqMessage,
};

use crate::backlog::{Backlog, Room};
use crate::counters::{Counters, add, bump};
use crate::door::splice::{End, Intake, Outgoing};
use crate::door::wire::until;
use crate::door::zmtp::Kind;
use crate::door::{BoxFuture, Door};
use crate::hub::{Hub, Member, Members};
use crate::message::{detach, wire_bytes};
use crate::{
    Closed, CountersSnapshot, Endpoint, Message, OpenError, Options, RouteError, init_runtime,
};

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
    counters: Arc<Counters>,
    hub: Arc<Hub<Arc<Post>>>,
    post: Arc<Post>,
    receiving: Option<RouterRecvHalf>,
    backend: Arc<dyn MultiPeerBackend>,
    pump: Option<Task<()>>,
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
        init_runtime();
        let counters = Arc::new(Counters::default());
        let post = Arc::new(Post {
            options: options.clone(),
            counters: counters.clone(),
            room: Room::new(options.send_all_bytes_max),
            peers: Mutex::default(),
            queue: Mutex::default(),
            queued: Event::new(),
            settled: Event::new(),
        });
        let mut socket = RouterSocket::new();
        let kind = Kind::Router;
        let hub = Hub::new(
            kind,
            options.clone(),
            counters.clone(),
            &mut socket,
            post.clone(),
        )
        .await?;
        let backend = socket.backend();
        let (sending, receiving) = socket.split();
        let pump = async_global_executor::spawn(post.clone().pump(sending));
        let door = Door::open(
            kind,
            options,
            counters.clone(),
            hub.clone(),
            endpoints,
            None,
        )
        .await?;
        Ok(Self {
            door,
            counters,
            hub,
            post,
            receiving: Some(receiving),
            backend,
            pump: Some(pump),
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
        let receiving = self.receiving.as_mut().ok_or(Closed)?;
        loop {
            match receiving.recv().await {
                Ok(message) => {
                    let mut frames = message.into_vecdeque();
                    let id = frames
                        .pop_front()
                        .and_then(|frame| frame[..].try_into().ok());
                    if let Some(id) = id {
                        let message = detach(Vec::from(frames));
                        return Ok((PeerId(u64::from_be_bytes(id)), message));
                    }
                    bump(&self.counters.inner_errors);
                }
                Err(error) => {
                    bump(&self.counters.inner_errors);
                    log::debug!("ROUTER inner socket: {error}");
                }
            }
        }
    }

    /// A handle that sends, from any task or thread.
    pub fn sender(&self) -> RouterSender {
        RouterSender {
            post: self.post.clone(),
        }
    }

    /// Writes what was accepted, for at most `linger`, and closes; tells whether all was written.
    pub async fn close(mut self, linger: Duration) -> bool {
        let deadline = Instant::now() + linger;
        let delivered = until(deadline, self.post.settle()).await.is_some();
        self.hub.part(deadline);
        until(deadline, self.post.empty()).await;
        self.door.close().await;
        if let Some(pump) = self.pump.take() {
            pump.cancel().await;
        }
        self.backend.shutdown();
        let receiving = self.receiving.take();
        self.hub.retire_split(|| drop(receiving)).await;
        delivered
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.backend.shutdown();
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
    options: Options,
    counters: Arc<Counters>,
    room: Arc<Room>,
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
    queue: Mutex<VecDeque<(u64, Message)>>,
    queued: Event,
    settled: Event,
}

struct Peer {
    messages: AtomicUsize,
    bytes: Backlog,
    dismissed: AtomicBool,
    dismissal: Event,
}

impl Post {
    fn peers(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(u64, Message)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, id: PeerId, message: Message) -> Result<(), RouteError> {
        if !self.options.allows(&message) {
            bump(&self.counters.rejected_invalid);
            return Err(RouteError::Invalid);
        }
        let Some(peer) = self.peers().get(&id.0).cloned() else {
            bump(&self.counters.rejected_disconnected);
            return Err(RouteError::Gone);
        };
        let size = wire_bytes(&message);
        let messages = peer.messages.fetch_add(1, Ordering::AcqRel);
        let fits = messages < self.options.hwm_messages()
            && !peer.dismissed.load(Ordering::Acquire)
            && peer
                .bytes
                .add(size, messages == 0, self.options.send_hwm_bytes);
        if !fits {
            peer.messages.fetch_sub(1, Ordering::AcqRel);
            peer.dismissed.store(true, Ordering::Release);
            peer.dismissal.notify(1);
            bump(&self.counters.rejected_full);
            return Err(RouteError::Full);
        }
        self.queue().push_back((id.0, message));
        self.queued.notify(1);
        Ok(())
    }

    /// Gives accepted messages to the crate socket, for ever.
    ///
    /// The high-water mark keeps the crate's queues from ever filling, so that
    /// this `send` cannot hold the crate's map of peers while it waits.
    async fn pump(self: Arc<Self>, mut sending: RouterSendHalf) {
        loop {
            let queued = self.queued.listen();
            let batch = std::mem::take(&mut *self.queue());
            if batch.is_empty() {
                queued.await;
                continue;
            }
            for (id, message) in batch {
                let mut routed = ZmqMessage::from(Bytes::copy_from_slice(&id.to_be_bytes()));
                for frame in message {
                    routed.push_back(frame);
                }
                // An error says that the peer has gone; its member counts what it leaves.
                if let Err(error) = sending.send(routed).await {
                    log::debug!("ROUTER inner socket: {error}");
                }
            }
        }
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
        let idle = |peer: &Arc<Peer>| peer.messages.load(Ordering::Acquire) == 0;
        self.wait(|peers| peers.values().all(idle)).await;
    }

    async fn empty(&self) {
        self.wait(HashMap::is_empty).await;
    }
}

impl Members for Arc<Post> {
    const INTAKE: Intake = Intake::Messages;

    type Member = Correspondent;

    fn join(&self, id: u64) -> Correspondent {
        let peer = Arc::new(Peer {
            messages: AtomicUsize::new(0),
            bytes: self.room.backlog(),
            dismissed: AtomicBool::new(false),
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
        self.peer.bytes.remove(bytes);
        if self.peer.messages.fetch_sub(messages, Ordering::AcqRel) == messages {
            self.post.settled.notify(usize::MAX);
        }
    }
}

impl Member for Correspondent {
    fn dismissed(&self) -> BoxFuture<'_, End> {
        Box::pin(async {
            loop {
                let dismissal = self.peer.dismissal.listen();
                if self.peer.dismissed.load(Ordering::Acquire) {
                    return End::NotReading;
                }
                dismissal.await;
            }
        })
    }
}

impl Drop for Correspondent {
    fn drop(&mut self) {
        self.post.peers().remove(&self.id);
        let abandoned = self.peer.messages.load(Ordering::Acquire);
        add(&self.post.counters.messages_abandoned, abandoned as u64);
        self.post.settled.notify(usize::MAX);
    }
}
