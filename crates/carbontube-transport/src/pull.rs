//! PULL: receives from many pushers, fairly, with real back-pressure.

use std::sync::Arc;

use carbontube_protocol::Address;
use zeromq::{PullSocket, Socket, SocketRecv};

use crate::counters::{Counters, bump};
use crate::door::Door;
use crate::door::zmtp::Kind;
use crate::hub::{Anybody, Hub};
use crate::message::detach;
use crate::{Closed, CountersSnapshot, Endpoint, Message, OpenError, Options, init_runtime};

/// Receives messages from any number of PUSH peers, fairly.
pub struct Pull {
    door: Door,
    counters: Arc<Counters>,
    hub: Arc<Hub<Anybody>>,
    /// There until the socket is closed.
    socket: Option<PullSocket>,
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.door.fmt(f)
    }
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
        init_runtime();
        let counters = Arc::new(Counters::default());
        let mut socket = PullSocket::new();
        let kind = Kind::Pull;
        let hub = Hub::new(
            kind,
            options.clone(),
            counters.clone(),
            &mut socket,
            Anybody,
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

    /// Peers connected now.
    pub fn peers(&self) -> usize {
        self.door.connections()
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn recv(&mut self) -> Result<Message, Closed> {
        let socket = self.socket.as_mut().ok_or(Closed)?;
        loop {
            match socket.recv().await {
                Ok(message) => return Ok(detach(message.into_vec())),
                // One peer's private stream ended; the socket goes on.
                Err(error) => {
                    bump(&self.counters.inner_errors);
                    log::debug!("PULL inner socket: {error}");
                }
            }
        }
    }

    /// Stops listening, closes every connection and returns when the ports are free.
    ///
    /// Messages received and not yet asked for are lost.
    pub async fn close(mut self) {
        self.door.close().await;
        if let Some(socket) = self.socket.take() {
            self.hub.retire(socket).await;
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            socket.backend().shutdown();
        }
    }
}
