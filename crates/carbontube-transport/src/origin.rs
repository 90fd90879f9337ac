//! Where a received message came from: which connection, and whose.

use std::net::{IpAddr, Ipv6Addr};

use crate::door::wire::Wire;

/// The connection that a message came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The peer's IP address; none for a Unix-domain socket.
    pub host: Option<IpAddr>,
    /// The connection's number, given once in this process.
    pub connection: u64,
    /// Whether the peer is on this machine: it came by a Unix-domain socket, from a
    /// loopback address, or from the very address that it connected to.
    pub is_local: bool,
}

impl Origin {
    /// Whether the message came by a Unix-domain socket.
    pub fn is_ipc(&self) -> bool {
        self.host.is_none()
    }

    pub(crate) fn of(connection: u64, wire: &Wire) -> Self {
        let (peer, local) = match wire {
            Wire::Unix(_) => (None, None),
            Wire::Tcp(stream) => {
                let stream = stream.get_ref();
                let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical());
                let local = stream.local_addr().map(|local| local.ip().to_canonical());
                // One that has gone already is a stranger.
                (
                    Some(peer.unwrap_or(Ipv6Addr::UNSPECIFIED.into())),
                    local.ok(),
                )
            }
        };
        Self {
            host: peer,
            connection,
            is_local: peer.is_none_or(|peer| peer.is_loopback() || Some(peer) == local),
        }
    }
}
