//! PUSH with many pullers: deals messages out in turn to whoever has room.

use std::sync::Arc;
use std::time::Duration;

use carbontube_protocol::Address;

use crate::door::Door;
use crate::door::zmtp::Kind;
use crate::outlet::Outlet;
use crate::{CloseOutcome, CountersSnapshot, Endpoint, Message, OpenError, Options, Rejected};

/// Deals messages out to any number of PULL peers, to whoever has room, in turn.
///
/// What a peer had not been written when it went goes to another one.
#[derive(Debug)]
pub struct FanOut {
    door: Door,
    outlet: Arc<Outlet>,
}

impl FanOut {
    /// Opens every endpoint; peers need not be there yet.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        options: Options,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        let endpoints = endpoints.into_iter().collect();
        let outlet = Outlet::new(Kind::Push, options);
        let door = outlet.open_door(endpoints, None).await?;
        Ok(Self { door, outlet })
    }

    /// The bound addresses with their real ports, in the order given.
    pub fn local_addresses(&self) -> Vec<Address> {
        self.door.local_addresses()
    }

    /// What was counted so far.
    pub fn counters(&self) -> CountersSnapshot {
        self.door.counters()
    }

    /// Accepts a message if a peer is connected and has room; never waits.
    ///
    /// # Errors
    /// Hands the message back with the reason.
    pub fn try_send(&self, message: Message) -> Result<(), Rejected> {
        self.outlet.try_send(message)
    }

    /// Waits for a peer with room. Cancel-safe: a cancelled call has not accepted its message.
    ///
    /// # Errors
    /// Hands the message back when it is invalid or the socket is closed.
    pub async fn send(&self, message: Message) -> Result<(), Rejected> {
        self.outlet.send(message).await
    }

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        self.outlet.links()
    }

    /// Messages accepted and not yet written to the network.
    pub fn pending(&self) -> usize {
        self.outlet.pending()
    }

    /// Writes what was accepted, for at most `linger`, and closes.
    pub async fn close(self, linger: Duration) -> CloseOutcome {
        self.outlet.close(&self.door, linger).await
    }
}
