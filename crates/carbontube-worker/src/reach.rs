//! Which address to announce: one that managers can reach.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use carbontube_protocol::{Address, Host};

/// The bound address, with "every interface" replaced by the local address of the route
/// towards the peer.
pub(crate) fn announced(bound: &Address, peer: Option<&Address>) -> Address {
    let Address::Tcp { host, port } = bound else {
        return bound.clone();
    };
    let everywhere = match host {
        Host::Any => true,
        Host::Name(name) => matches!(name.parse::<IpAddr>(), Ok(ip) if ip.is_unspecified()),
    };
    if !everywhere {
        return bound.clone();
    }
    let local = peer
        .and_then(local_towards)
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Address::Tcp {
        host: Host::Name(local.to_string()),
        port: *port,
    }
}

/// The local address from which packets to the peer would come. Sends nothing.
fn local_towards(peer: &Address) -> Option<IpAddr> {
    let Address::Tcp {
        host: Host::Name(name),
        port,
    } = peer
    else {
        return None;
    };
    let target: SocketAddr = (name.as_str(), port.unwrap_or(1))
        .to_socket_addrs()
        .ok()?
        .next()?;
    let any: SocketAddr = if target.is_ipv4() {
        "0.0.0.0:0".parse().ok()?
    } else {
        "[::]:0".parse().ok()?
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    let local = socket.local_addr().ok()?.ip();
    (!local.is_unspecified()).then_some(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect("a test's own address")
    }

    #[test]
    fn announced_every_interface_becomes_the_one_towards_the_peer() {
        let peer = address("tcp://127.0.0.1:5050");
        for bound in ["tcp://0.0.0.0:3000", "tcp://*:3000", "tcp://[::]:3000"] {
            let found = announced(&address(bound), Some(&peer));
            assert_eq!(found, address("tcp://127.0.0.1:3000"));
        }
    }

    #[test]
    fn announced_named_address_stays() {
        let peer = address("tcp://127.0.0.1:5050");
        for bound in ["tcp://10.1.2.3:3000", "ipc:///tmp/worker"] {
            assert_eq!(announced(&address(bound), Some(&peer)), address(bound));
        }
    }
}
