//! What can go wrong, one type for each question asked.

use std::io;
use std::time::Duration;

use carbontube_protocol::{Address, AddressError};

use crate::Message;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another program, or another socket of this one, listens there.
    #[error("{} is already in use", in_use(address))]
    InUse {
        /// The address asked for.
        address: Address,
    },
    /// The path of an `ipc` address exists and is no socket.
    #[error("{address} cannot be bound: the file exists and is no socket")]
    NotASocket {
        /// The address asked for.
        address: Address,
    },
    /// The host has no address.
    #[error("cannot resolve the host of {address}")]
    Resolve {
        /// The address asked for.
        address: Address,
        /// What the resolver said.
        source: io::Error,
    },
    /// The system refused to listen.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The address cannot be dialled.
    #[error("cannot connect")]
    Connect {
        /// What is wrong with it.
        source: AddressError,
    },
    /// No endpoint was given.
    #[error("a socket needs at least one address")]
    NoEndpoint,
    /// The private side behind the front door could not be made.
    #[error("cannot make the private side of the socket: {what}")]
    Private {
        /// What was tried.
        what: &'static str,
        /// What the system or the inner socket said.
        source: io::Error,
    },
}

fn in_use(address: &Address) -> String {
    match address {
        Address::Tcp {
            port: Some(port), ..
        } => format!("port {port}"),
        other => other.to_string(),
    }
}

/// The socket was closed; nothing will be received any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the socket is closed")]
pub struct Closed;

/// Why a message was not accepted for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The queue is at its high-water mark.
    #[error("the send queue is full")]
    Full,
    /// There is no connection to the peer now.
    #[error("the peer is not connected")]
    Disconnected,
    /// The socket was closed.
    #[error("the socket is closed")]
    Closed,
    /// The message has no frame, or is larger than the limits; no later try can succeed.
    #[error("the message is empty or over the size limits")]
    Invalid,
}

/// A message that was not accepted, handed back.
#[derive(Debug, thiserror::Error)]
#[error("message not accepted: {reason}")]
pub struct Rejected {
    /// The message as it was given.
    pub message: Message,
    /// Why it was not accepted.
    pub reason: Reason,
}

/// Why a ROUTER did not accept a message for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The peer is not connected any more, or the socket is closed.
    #[error("the peer is gone")]
    Gone,
    /// The peer did not read what it was sent; it is being disconnected.
    #[error("the peer does not read what it is sent")]
    Full,
    /// The message has no frame, or is larger than the limits.
    #[error("the message is empty or over the size limits")]
    Invalid,
}

/// No connection came about in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no connection to {address} within {waited:.1?}{}",
    because(last_error)
)]
pub struct NotConnected {
    /// The address dialled.
    pub address: Address,
    /// How long was waited.
    pub waited: Duration,
    /// What the last attempt met, when one has ended.
    pub last_error: Option<String>,
}

fn because(last_error: &Option<String>) -> String {
    last_error
        .as_ref()
        .map_or_else(String::new, |error| format!(": {error}"))
}

/// Why [`dial`](crate::dial) gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address cannot be dialled at all.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody answered in time.
    #[error(transparent)]
    NotConnected(#[from] NotConnected),
    /// A peer answered, but it is neither an api address (ROUTER) nor a pull address (PULL).
    #[error("{address} is a {socket_type} socket, expected ROUTER or PULL")]
    WrongType {
        /// The address dialled.
        address: Address,
        /// What the peer says it is.
        socket_type: String,
    },
}

/// How a closing socket ended.
#[derive(Debug, PartialEq, Eq)]
pub enum CloseOutcome {
    /// Every accepted message was written to the network and the connection was shut down in order.
    Delivered,
    /// The linger time passed first; these accepted messages were not written, in order.
    Undelivered {
        /// The messages, for another try.
        messages: Vec<Message>,
    },
}
