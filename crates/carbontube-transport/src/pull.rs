//! PULL: receives from many pushers, fairly, with real back-pressure.

use std::sync::Arc;

use carbontube_protocol::Address;

use crate::connection::Connections;
use crate::door::Door;
use crate::door::zmtp::Kind;
use crate::inbox::Hand;
use crate::{Closed, CountersSnapshot, Endpoint, Message, OpenError, Options};

/// Receives messages from any number of PUSH peers, fairly.
#[derive(Debug)]
pub struct Pull {
    door: Door,
    connections: Arc<Connections>,
    hand: Hand,
}

impl Pull {
    /// Opens every endpoint; dialled peers need not be there yet.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        options: Options,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        let endpoints = endpoints.into_iter().collect();
        let connections = Arc::new(Connections::new(Kind::Pull, options));
        let backend = Arc::new(connections.clone());
        let door = Door::open(&connections, backend, endpoints, None).await?;
        Ok(Self {
            door,
            connections,
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

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&mut self) -> Result<Message, Closed> {
        let inbox = &self.connections.inbox;
        let (_, message) = inbox.take_by_hand(&mut self.hand).await?;
        Ok(message)
    }

    /// Stops listening, closes every connection and returns when the ports are free.
    ///
    /// Messages received and not yet asked for are lost.
    pub async fn close(self) {
        self.door.close().await;
    }
}
