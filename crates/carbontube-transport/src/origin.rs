//! Where a received message came from: which connection, and whose.
//!
//! The crate's SUB does not say from which peer a message is. So the front door puts a
//! frame of its own before each message that it passes on, and takes it off again.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;

use crate::Message;
use crate::door::wire::Wire;
use crate::door::zmtp::FLAG_MORE;

/// The body of the frame: the connection, what it is, and the peer's address.
const BODY_BYTES: usize = 8 + 1 + 16;

const IPC: u8 = 0;
const SAME_MACHINE: u8 = 1;
const NETWORK: u8 = 2;

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

    /// The frame before each of its messages, as it is on the wire.
    pub(crate) fn tag(&self) -> Vec<u8> {
        let kind = match (self.host, self.is_local) {
            (None, _) => IPC,
            (_, true) => SAME_MACHINE,
            (_, false) => NETWORK,
        };
        let host = match self.host {
            None => Ipv6Addr::UNSPECIFIED,
            Some(IpAddr::V4(host)) => host.to_ipv6_mapped(),
            Some(IpAddr::V6(host)) => host,
        };
        let mut tag = vec![FLAG_MORE, BODY_BYTES as u8];
        tag.extend(self.connection.to_be_bytes());
        tag.push(kind);
        tag.extend(host.octets());
        tag
    }

    /// Takes the frame off a message again.
    pub(crate) fn take_off(message: &mut Message) -> Option<Self> {
        let body = (!message.is_empty()).then(|| message.remove(0))?;
        Self::read(&body)
    }

    fn read(body: &Bytes) -> Option<Self> {
        let body: &[u8; BODY_BYTES] = body.as_ref().try_into().ok()?;
        let (connection, rest) = body.split_first_chunk::<8>()?;
        let (kind, host) = rest.split_first()?;
        let host = Ipv6Addr::from(<[u8; 16]>::try_from(host).ok()?);
        let host = IpAddr::V6(host).to_canonical();
        Some(Self {
            host: (*kind != IPC).then_some(host),
            connection: u64::from_be_bytes(*connection),
            is_local: *kind != NETWORK,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_that_is_taken_off_says_the_same() {
        let hosts: [Option<&str>; 4] = [None, Some("10.1.2.3"), Some("::1"), Some("2001:db8::7")];
        for (connection, host) in hosts.into_iter().enumerate() {
            let origin = Origin {
                host: host.map(|host| host.parse().expect("an address")),
                connection: connection as u64,
                is_local: host.is_none_or(|host| host == "::1"),
            };
            let tag = origin.tag();
            let body = Bytes::copy_from_slice(&tag[2..]);
            let mut message = vec![body, Bytes::from_static(b"rest")];
            assert_eq!(Origin::take_off(&mut message), Some(origin));
            assert_eq!(message, ["rest"]);
        }
    }
}
