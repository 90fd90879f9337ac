//! SUB: receives published messages by topic.

use std::sync::Arc;

use carbontube_protocol::Address;
use zeromq::{Socket, SocketRecv, SubSocket};

use crate::counters::{Counters, bump};
use crate::door::Door;
use crate::door::splice::Intake;
use crate::door::zmtp::Kind;
use crate::hub::{Hub, Members, Somebody};
use crate::message::detach;
use crate::{
    Closed, CountersSnapshot, Endpoint, Message, OpenError, Options, Origin, init_runtime,
};

/// Publishers: of each message it is to be known by which connection it came.
struct Publishers;

impl Members for Publishers {
    const INTAKE: Intake = Intake::Messages;
    const TAGGED: bool = true;

    type Member = Somebody;

    fn join(&self, _id: u64) -> Somebody {
        Somebody
    }
}

/// Receives published messages by topic from any number of publishers.
pub struct Subscribe {
    door: Door,
    counters: Arc<Counters>,
    hub: Arc<Hub<Publishers>>,
    /// There until the socket is closed.
    socket: Option<SubSocket>,
}

impl std::fmt::Debug for Subscribe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.door.fmt(f)
    }
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
        let topics: Vec<String> = topics
            .into_iter()
            .map(|topic| topic.as_ref().to_owned())
            .collect();
        init_runtime();
        let counters = Arc::new(Counters::default());
        let mut socket = SubSocket::new();
        for topic in topics {
            // No peer yet: the crate keeps the topic and sends it to each that comes.
            if let Err(error) = socket.subscribe(&topic).await {
                return Err(OpenError::Private {
                    what: "subscribing",
                    source: std::io::Error::other(error),
                });
            }
        }
        let kind = Kind::Subscribe;
        let hub = Hub::new(
            kind,
            options.clone(),
            counters.clone(),
            &mut socket,
            Publishers,
        )
        .await?;
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
            socket: Some(socket),
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
        self.recv_from().await.map(|(message, _)| message)
    }

    /// As [`recv`](Self::recv); also tells by which connection the message came.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv_from(&mut self) -> Result<(Message, Origin), Closed> {
        let socket = self.socket.as_mut().ok_or(Closed)?;
        loop {
            match socket.recv().await {
                Ok(message) => {
                    let mut message = message.into_vec();
                    if let Some(origin) = Origin::take_off(&mut message) {
                        return Ok((detach(message), origin));
                    }
                    bump(&self.counters.inner_errors);
                }
                // One peer's private stream ended; the socket goes on.
                Err(error) => {
                    bump(&self.counters.inner_errors);
                    log::debug!("SUB inner socket: {error}");
                }
            }
        }
    }

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        self.door.connections()
    }

    /// Stops listening, closes every connection and returns when the ports are free.
    pub async fn close(mut self) {
        self.door.close().await;
        if let Some(socket) = self.socket.take() {
            self.hub.retire(socket).await;
        }
    }
}

impl Drop for Subscribe {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            socket.backend().shutdown();
        }
    }
}
