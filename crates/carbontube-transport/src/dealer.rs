//! DEALER: talks to one dialled ROUTER peer across reconnections.

use std::sync::Arc;
use std::time::Duration;

use carbontube_protocol::Address;

use crate::door::zmtp::Kind;
use crate::door::{Door, First};
use crate::link::LinkWatch;
use crate::outlet::Outlet;
use crate::{
    CloseOutcome, Closed, CountersSnapshot, Endpoint, LinkState, Message, NotConnected, OpenError,
    Options, Rejected,
};

/// Talks to one dialled ROUTER or REP peer, under a fresh identity for each connection.
#[derive(Debug)]
pub struct Dealer {
    door: Door,
    outlet: Arc<Outlet>,
    address: Address,
}

impl Dealer {
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
        let outlet = Outlet::new(Kind::Dealer, options);
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
    /// What becomes of accepted messages is as with [`Push::try_send`](crate::Push::try_send).
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

    /// Waits for the next message; goes on across reconnections. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&self) -> Result<Message, Closed> {
        self.outlet
            .connections
            .inbox
            .take()
            .await
            .map(|(_, message)| message)
    }

    /// Whether the peer is connected now.
    pub fn state(&self) -> LinkState {
        self.outlet.link_state()
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
