//! The state of a dialled socket's one connection.

use std::sync::Arc;

use crate::outlet::Outlet;

/// Whether a dialled socket has its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Dialling; with what the last attempt or connection met, if one has ended.
    Disconnected {
        /// Why there is no connection.
        last_error: Option<String>,
        /// Whether the last attempt met a machine on which nobody listens there.
        refused: bool,
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
pub struct LinkWatch {
    outlet: Arc<Outlet>,
    seen: LinkState,
}

impl LinkWatch {
    pub(crate) fn new(outlet: Arc<Outlet>) -> Self {
        let seen = LinkState::Disconnected {
            last_error: None,
            refused: false,
        };
        Self { outlet, seen }
    }

    /// The state now.
    pub fn state(&self) -> LinkState {
        self.outlet.link_state()
    }

    /// Waits until the state differs from what this watch has returned last; returns it.
    ///
    /// A fresh watch takes the socket for disconnected, without an error. States
    /// that came and went in between are skipped, except that a new connection
    /// always has a new `generation`. Cancel-safe.
    /// After [`LinkState::Closed`] it waits for ever.
    pub async fn changed(&mut self) -> LinkState {
        self.seen = self.outlet.changed_from(&self.seen).await;
        self.seen.clone()
    }
}
