//! PUSH: sends to one dialled PULL peer, in order, across reconnections.

use std::sync::Arc;
use std::time::Duration;

use carbontube_protocol::Address;

use crate::door::zmtp::Kind;
use crate::door::{Door, First};
use crate::link::LinkWatch;
use crate::outlet::Outlet;
use crate::{
    CloseOutcome, CountersSnapshot, Endpoint, Hurry, LinkState, Message, NotConnected, OpenError,
    Options, Rejected,
};

/// Sends messages to one dialled PULL peer, in order.
#[derive(Debug)]
pub struct Push {
    door: Door,
    outlet: Arc<Outlet>,
    address: Address,
}

impl Push {
    /// Starts dialling; returns at once.
    ///
    /// # Errors
    /// When the address cannot be dialled at all.
    pub async fn open(options: Options, address: Address) -> Result<Self, OpenError> {
        Self::open_with(options, address, None).await
    }

    pub(crate) async fn open_with(
        options: Options,
        address: Address,
        first: First,
    ) -> Result<Self, OpenError> {
        let outlet = Outlet::new(Kind::Push, options);
        let endpoints = vec![Endpoint::Connect(address.clone())];
        let door = outlet.open_door(endpoints, first).await?;
        Ok(Self {
            door,
            outlet,
            address,
        })
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
        self.outlet.try_send(message)
    }

    /// Waits for room and a connection, then accepts the message.
    ///
    /// Cancel-safe: a cancelled call has not accepted its message.
    ///
    /// # Errors
    /// Hands the message back when it is invalid or the socket is closed.
    pub async fn send(&self, message: Message) -> Result<(), Rejected> {
        self.outlet.send(message).await
    }

    /// Whether the peer is connected now.
    pub fn state(&self) -> LinkState {
        self.outlet.link_state()
    }

    /// What makes it dial at once when it has no connection.
    pub fn hurry(&self) -> Hurry {
        self.door.hurry()
    }

    /// A watch on the state.
    pub fn events(&self) -> LinkWatch {
        LinkWatch::new(self.outlet.clone())
    }

    /// Waits for the connection.
    ///
    /// # Errors
    /// When the time passes first, with what the last attempt met.
    pub async fn connected(&self, timeout: Duration) -> Result<(), NotConnected> {
        self.outlet.connected(&self.address, timeout).await
    }

    /// Messages accepted and not yet written to the network.
    pub fn pending(&self) -> usize {
        self.outlet.pending()
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        self.door.counters()
    }

    /// Writes what was accepted, for at most `linger`, and shuts the connection down in order.
    pub async fn close(self, linger: Duration) -> CloseOutcome {
        self.outlet.close(&self.door, linger).await
    }
}
