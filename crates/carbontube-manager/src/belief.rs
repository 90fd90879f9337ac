//! Which announced addresses a manager accepts. It dials them, so an announcement could
//! otherwise point it at any address.

use std::net::{IpAddr, UdpSocket};

use carbontube_protocol::{Address, Host};
use carbontube_transport::{Found, Origin, Resolver};

use crate::options::ManagerAddresses;

/// What is thought of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    /// It may be dialled.
    Believed,
    /// Its host's name has to be looked up first.
    Unknown(String),
    /// It is not dialled.
    Refused(&'static str),
}

/// Who judges addresses: one manager.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    /// Where it listens itself.
    own: Vec<(Option<IpAddr>, u16)>,
    resolver: Resolver,
}

impl Judge {
    pub(crate) fn new(own: &ManagerAddresses, resolver: Resolver) -> Judge {
        let all = [&own.pull, &own.subscribe, &own.api, &own.publish];
        let all = all.into_iter().flatten();
        let own = all.filter_map(|address| match address {
            Address::Tcp {
                host: Host::Name(host),
                port: Some(port),
            } => {
                let host: Option<IpAddr> = host.parse().ok();
                Some((host.filter(|host| !host.is_unspecified()), *port))
            }
            _ => None,
        });
        Judge {
            own: own.collect(),
            resolver,
        }
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Whether to believe an address that came by a connection.
    pub(crate) fn judge(&self, address: &Address, origin: &Origin) -> Belief {
        let (name, port) = match address {
            Address::Ipc { .. } if origin.is_ipc() => return Belief::Believed,
            Address::Ipc { .. } => return Belief::Refused("it is a path, and came over TCP"),
            Address::Tcp {
                host: Host::Name(name),
                port: Some(port @ 1..),
            } => (name, *port),
            Address::Tcp { .. } => return Belief::Refused("nobody can connect to it"),
        };
        let found = match name.parse() {
            Ok(host) => vec![host],
            Err(_) => match self.resolver.remembered(name) {
                Found::Addresses(found) => found,
                Found::Nothing => return Belief::Refused("its host's name has no address"),
                Found::Unknown => return Belief::Unknown(name.clone()),
            },
        };
        let refusal = found
            .iter()
            .find_map(|host| self.refusal(*host, port, origin));
        refusal.map_or(Belief::Believed, Belief::Refused)
    }

    fn refusal(&self, host: IpAddr, port: u16, origin: &Origin) -> Option<&'static str> {
        let host = host.to_canonical();
        let is_broadcast = matches!(host, IpAddr::V4(host) if host.is_broadcast());
        if host.is_unspecified() || host.is_multicast() || is_broadcast {
            return Some("it is no single machine's");
        }
        if host.is_loopback() && !origin.is_local {
            return Some("it is on the loopback network, and came from another machine");
        }
        let is_own = |own: &(Option<IpAddr>, u16)| {
            own.1 == port && own.0.map_or_else(|| is_here(host), |own| own == host)
        };
        let leads_here = self.own.iter().any(is_own);
        leads_here.then_some("the manager itself listens there")
    }
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_here(host: IpAddr) -> bool {
    host.is_loopback() || UdpSocket::bind((host, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge() -> Judge {
        let resolver = Resolver::with(|name| {
            let found = match name {
                "here" => "127.0.0.1",
                "zero" => "0.0.0.0",
                "there" => "10.0.0.7",
                _ => return Err(std::io::ErrorKind::NotFound.into()),
            };
            found
                .parse()
                .map(|host| vec![host])
                .map_err(std::io::Error::other)
        });
        let own = ManagerAddresses {
            pull: vec![Address::tcp("0.0.0.0", 5050)],
            subscribe: vec![Address::tcp("127.0.0.1", 6000)],
            ..ManagerAddresses::default()
        };
        Judge::new(&own, resolver)
    }

    fn from(host: &str, is_local: bool) -> Origin {
        Origin {
            host: host.parse().ok(),
            connection: 1,
            is_local,
        }
    }

    fn refused(address: &str, origin: &Origin) -> bool {
        let judge = judge();
        let address: Address = address.parse().expect("an address");
        if let Address::Tcp {
            host: Host::Name(name),
            ..
        } = &address
        {
            // What is not looked up yet is looked up, as the shell does.
            let _found = futures_lite::future::block_on(judge.resolver.resolve_for(name, *origin));
        }
        match judge.judge(&address, origin) {
            Belief::Believed => false,
            Belief::Refused(_) => true,
            Belief::Unknown(name) => panic!("{name} was not looked up"),
        }
    }

    #[test]
    fn addresses_are_believed_of_those_who_can_be_there() {
        let far = from("10.0.0.5", false);
        let near = from("127.0.0.1", true);
        let socket = from("", true);
        // Address, and whether it is refused of a peer in the network, of one on this
        // machine, and of one on a Unix-domain socket.
        let table = [
            ("tcp://10.0.0.7:7000", [false, false, false]),
            ("tcp://there:7000", [false, false, false]),
            ("tcp://[2001:db8::1]:7000", [false, false, false]),
            ("tcp://127.0.0.1:7000", [true, false, false]),
            ("tcp://[::1]:7000", [true, false, false]),
            ("tcp://[::ffff:127.0.0.1]:7000", [true, false, false]),
            ("tcp://here:7000", [true, false, false]),
            ("ipc:///tmp/x", [true, true, false]),
            ("tcp://0.0.0.0:7000", [true; 3]),
            ("tcp://[::]:7000", [true; 3]),
            ("tcp://zero:7000", [true; 3]),
            ("tcp://224.0.0.1:7000", [true; 3]),
            ("tcp://[ff02::1]:7000", [true; 3]),
            ("tcp://255.255.255.255:7000", [true; 3]),
            ("tcp://10.0.0.7:0", [true; 3]),
            ("tcp://10.0.0.7", [true; 3]),
            ("tcp://*:7000", [true; 3]),
            ("tcp://nowhere:7000", [true; 3]),
            // The manager's own ports, the first bound on every interface.
            ("tcp://127.0.0.1:5050", [true; 3]),
            ("tcp://127.0.0.9:5050", [true; 3]),
            ("tcp://10.0.0.7:5050", [false, false, false]),
            ("tcp://127.0.0.1:6000", [true; 3]),
            ("tcp://127.0.0.9:6000", [true, false, false]),
        ];
        for (address, expected) in table {
            let found = [&far, &near, &socket].map(|origin| refused(address, origin));
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn name_that_nobody_looked_up_is_unknown() {
        let address = Address::tcp("there", 7000);
        let belief = judge().judge(&address, &from("10.0.0.5", false));
        assert_eq!(belief, Belief::Unknown("there".to_owned()));
    }
}
