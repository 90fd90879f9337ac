//! SUB: receives published messages by topic.

use std::sync::Arc;

use carbontube_protocol::Address;

use crate::connection::Connections;
use crate::door::Door;
use crate::door::zmtp::{self, Kind};
use crate::inbox::Hand;
use crate::{Closed, CountersSnapshot, Endpoint, Message, OpenError, Options, Origin};

/// Receives published messages by topic from any number of publishers.
#[derive(Debug)]
pub struct Subscribe {
    door: Door,
    connections: Arc<Connections>,
    hand: Hand,
}

impl Subscribe {
    /// Opens every endpoint and subscribes every present and future peer to `topics`.
    ///
    /// A topic is a prefix of the first frame; `""` matches everything.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open<T: AsRef<str>>(
        options: Options,
        endpoints: impl IntoIterator<Item = Endpoint>,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, OpenError> {
        let endpoints = endpoints.into_iter().collect();
        let topics = topics.into_iter();
        let subscriptions = topics.flat_map(|topic| zmtp::subscription(topic.as_ref().as_bytes()));
        let connections = Arc::new(Connections::with_introduction(
            Kind::Subscribe,
            options,
            subscriptions.collect(),
        ));
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

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&mut self) -> Result<Message, Closed> {
        let (message, _) = self.recv_from().await?;
        Ok(message)
    }

    /// As [`recv`](Self::recv); also tells by which connection the message came.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv_from(&mut self) -> Result<(Message, Origin), Closed> {
        let inbox = &self.connections.inbox;
        let (origin, message) = inbox.take_by_hand(&mut self.hand).await?;
        Ok((message, origin))
    }

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        self.door.connections()
    }

    /// Stops listening, closes every connection and returns when the ports are free.
    ///
    /// Messages received and not yet asked for are lost.
    pub async fn close(self) {
        self.door.close().await;
    }
}
