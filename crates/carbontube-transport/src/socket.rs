//! The sockets that other crates use.

use std::time::Duration;

use crate::{
    Address, CloseOutcome, Closed, CountersSnapshot, DialError, Endpoint, Message, NotConnected,
    OpenError, Options, Reason, Rejected, RouteError,
};

/// Whether a dialled socket has its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Dialling; with what the last attempt or connection met, if one has ended.
    Disconnected {
        /// Why there is no connection.
        last_error: Option<String>,
    },
    /// The handshake is done. `generation` grows with each connection, from 1.
    Connected {
        /// Which connection of this socket it is.
        generation: u64,
    },
    /// The socket was closed.
    Closed,
}

/// Follows the state of a dialled socket; independent of the socket's borrow.
#[derive(Clone, Debug)]
pub struct LinkWatch {}

impl LinkWatch {
    /// The state now.
    pub fn state(&self) -> LinkState {
        LinkState::Closed
    }

    /// Waits until the state differs from what this watch has returned last; returns it.
    ///
    /// States that came and went in between are skipped, except that a new
    /// connection always has a new `generation`. Cancel-safe.
    pub async fn changed(&mut self) -> LinkState {
        LinkState::Closed
    }
}

/// Receives messages from any number of PUSH peers, fairly.
#[derive(Debug)]
pub struct Pull {}

impl Pull {
    /// Opens every endpoint; dialled peers need not be there yet.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        _options: Options,
        _endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// The bound addresses with their real ports, in the order given.
    pub fn local_addresses(&self) -> Vec<Address> {
        Vec::new()
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        CountersSnapshot::default()
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&mut self) -> Result<Message, Closed> {
        Err(Closed)
    }

    /// Stops listening, closes every connection and returns when the ports are free.
    pub async fn close(self) {}
}

/// Sends messages to one dialled PULL peer, in order.
#[derive(Debug)]
pub struct Push {}

impl Push {
    /// Starts dialling; returns at once.
    ///
    /// # Errors
    /// When the address cannot be dialled at all.
    pub async fn open(_options: Options, _address: Address) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// Accepts a message if there is a connection and room; never waits.
    ///
    /// Accepted messages are written in order. Those not yet written when the
    /// connection breaks are sent first on the next one; those already written
    /// may be lost with it, so that upper layers acknowledge what matters.
    ///
    /// # Errors
    /// Hands the message back with the reason.
    pub fn try_send(&self, message: Message) -> Result<(), Rejected> {
        Err(Rejected {
            message,
            reason: Reason::Closed,
        })
    }

    /// Waits for room and a connection, then accepts the message.
    ///
    /// Cancel-safe: a cancelled call has not accepted its message.
    ///
    /// # Errors
    /// Hands the message back when it is invalid or the socket is closed.
    pub async fn send(&self, message: Message) -> Result<(), Rejected> {
        self.try_send(message)
    }

    /// Whether the peer is connected now.
    pub fn state(&self) -> LinkState {
        LinkState::Closed
    }

    /// A watch on the state.
    pub fn events(&self) -> LinkWatch {
        LinkWatch {}
    }

    /// Waits for the connection.
    ///
    /// # Errors
    /// When the time passes first, with what the last attempt met.
    pub async fn connected(&self, timeout: Duration) -> Result<(), NotConnected> {
        Err(not_connected(timeout))
    }

    /// Messages accepted and not yet written to the network.
    pub fn pending(&self) -> usize {
        0
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        CountersSnapshot::default()
    }

    /// Writes what was accepted, for at most `linger`, and shuts the connection down in order.
    pub async fn close(self, _linger: Duration) -> CloseOutcome {
        CloseOutcome::Undelivered {
            messages: Vec::new(),
        }
    }
}

fn not_connected(waited: Duration) -> NotConnected {
    NotConnected {
        address: Address::Ipc { path: "".into() },
        waited,
        last_error: None,
    }
}

/// Deals messages out to any number of PULL peers, to whoever has room, in turn.
#[derive(Debug)]
pub struct FanOut {}

impl FanOut {
    /// Opens every endpoint; peers need not be there yet.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        _options: Options,
        _endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// The bound addresses with their real ports, in the order given.
    pub fn local_addresses(&self) -> Vec<Address> {
        Vec::new()
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        CountersSnapshot::default()
    }

    /// Accepts a message if a peer is connected and there is room; never waits.
    ///
    /// # Errors
    /// Hands the message back with the reason.
    pub fn try_send(&self, message: Message) -> Result<(), Rejected> {
        Err(Rejected {
            message,
            reason: Reason::Closed,
        })
    }

    /// Waits for a peer with room. Cancel-safe: a cancelled call has not accepted its message.
    ///
    /// # Errors
    /// Hands the message back when it is invalid or the socket is closed.
    pub async fn send(&self, message: Message) -> Result<(), Rejected> {
        self.try_send(message)
    }

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        0
    }

    /// Writes what was accepted, for at most `linger`, and closes.
    pub async fn close(self, _linger: Duration) -> CloseOutcome {
        CloseOutcome::Delivered
    }
}

/// Publishes messages to any number of subscribers; never waits for a slow one.
#[derive(Debug)]
pub struct Publish {}

impl Publish {
    /// Opens every endpoint; dialled subscribers need not be there yet.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        _options: Options,
        _endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// The bound addresses with their real ports, in the order given.
    pub fn local_addresses(&self) -> Vec<Address> {
        Vec::new()
    }

    /// What was counted so far; drops for slow subscribers among it.
    pub fn counters(&self) -> CountersSnapshot {
        CountersSnapshot::default()
    }

    /// Publishes a message whose first frame begins with its topic; never waits.
    ///
    /// With no subscriber it goes nowhere. For a subscriber over its high-water
    /// mark the whole message is dropped and counted. An invalid message is
    /// dropped and counted as well.
    pub fn send(&self, _message: Message) {}

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        0
    }

    /// Writes what was published, for at most `linger`, and closes; tells whether all was written.
    pub async fn close(self, _linger: Duration) -> bool {
        true
    }
}

/// Receives published messages by topic from any number of publishers.
#[derive(Debug)]
pub struct Subscribe {}

impl Subscribe {
    /// Opens every endpoint and subscribes every present and future peer to `topics`.
    ///
    /// A topic is a prefix of the first frame; `""` matches everything.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open<T: AsRef<str>>(
        _options: Options,
        _endpoints: impl IntoIterator<Item = Endpoint>,
        _topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// The bound addresses with their real ports, in the order given.
    pub fn local_addresses(&self) -> Vec<Address> {
        Vec::new()
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        CountersSnapshot::default()
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&mut self) -> Result<Message, Closed> {
        Err(Closed)
    }

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        0
    }

    /// Stops listening, closes every connection and returns when the ports are free.
    pub async fn close(self) {}
}

/// One connection of a ROUTER; never reused, not even when the same peer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u64);

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "peer-{}", self.0)
    }
}

/// Talks to any number of DEALER and REQ peers, each by its [`PeerId`].
#[derive(Debug)]
pub struct Router {}

impl Router {
    /// Opens every endpoint.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        _options: Options,
        _endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// The bound addresses with their real ports, in the order given.
    pub fn local_addresses(&self) -> Vec<Address> {
        Vec::new()
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        CountersSnapshot::default()
    }

    /// Waits for the next message and tells who sent it. Cancel-safe.
    ///
    /// A REQ peer's message begins with an empty frame: see
    /// [`take_delimiter`](crate::take_delimiter).
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&mut self) -> Result<(PeerId, Message), Closed> {
        Err(Closed)
    }

    /// A handle that sends, from any task or thread.
    pub fn sender(&self) -> RouterSender {
        RouterSender {}
    }

    /// Writes what was accepted, for at most `linger`, and closes; tells whether all was written.
    pub async fn close(self, _linger: Duration) -> bool {
        true
    }
}

/// Sends to the peers of a [`Router`].
#[derive(Clone, Debug)]
pub struct RouterSender {}

impl RouterSender {
    /// Accepts a message for a peer; never waits.
    ///
    /// A peer over its high-water mark does not read: it is disconnected and counted.
    ///
    /// # Errors
    /// When the peer is gone, is over its high-water mark, or the message is invalid.
    pub fn send(&self, _peer: &PeerId, _message: Message) -> Result<(), RouteError> {
        Err(RouteError::Gone)
    }

    /// Whether the peer is connected now.
    pub fn is_connected(&self, _peer: &PeerId) -> bool {
        false
    }
}

/// Talks to one dialled ROUTER or REP peer, under a fresh identity for each connection.
#[derive(Debug)]
pub struct Dealer {}

impl Dealer {
    /// Starts dialling; returns at once.
    ///
    /// # Errors
    /// When the address cannot be dialled at all.
    pub async fn open(_options: Options, _address: Address) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// As [`Push::try_send`].
    ///
    /// # Errors
    /// Hands the message back with the reason.
    pub fn try_send(&self, message: Message) -> Result<(), Rejected> {
        Err(Rejected {
            message,
            reason: Reason::Closed,
        })
    }

    /// As [`Push::send`].
    ///
    /// # Errors
    /// Hands the message back when it is invalid or the socket is closed.
    pub async fn send(&self, message: Message) -> Result<(), Rejected> {
        self.try_send(message)
    }

    /// Waits for the next message; goes on across reconnections. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&self) -> Result<Message, Closed> {
        Err(Closed)
    }

    /// Whether the peer is connected now.
    pub fn state(&self) -> LinkState {
        LinkState::Closed
    }

    /// A watch on the state.
    pub fn events(&self) -> LinkWatch {
        LinkWatch {}
    }

    /// Waits for the connection.
    ///
    /// # Errors
    /// When the time passes first, with what the last attempt met.
    pub async fn connected(&self, timeout: Duration) -> Result<(), NotConnected> {
        Err(not_connected(timeout))
    }

    /// Messages accepted and not yet written to the network.
    pub fn pending(&self) -> usize {
        0
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        CountersSnapshot::default()
    }

    /// Writes what was accepted, for at most `linger`, and shuts the connection down in order.
    pub async fn close(self, _linger: Duration) -> CloseOutcome {
        CloseOutcome::Undelivered {
            messages: Vec::new(),
        }
    }
}

/// What [`dial`] found.
#[derive(Debug)]
pub enum Dialled {
    /// An api address: a ROUTER.
    Dealer(Dealer),
    /// A pull address: a PULL.
    Push(Push),
}

/// Dials an address and becomes the socket that suits its peer.
///
/// # Errors
/// When nobody answers within `timeout`, or the peer is of another type.
pub async fn dial(
    _options: Options,
    _address: Address,
    timeout: Duration,
) -> Result<Dialled, DialError> {
    Err(not_connected(timeout).into())
}
