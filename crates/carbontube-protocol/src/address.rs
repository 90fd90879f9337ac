//! Addresses of sockets (protocol.md §7): `tcp://host:port`, `tcp://*:port`,
//! `tcp://host` (any free port), `ipc://path`.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest address in bytes: a host name has 253 at most, a Unix path 107.
const ADDRESS_BYTES_MAX: usize = 300;
/// The longest path of a Unix-domain socket on Linux, in bytes (unix(7)).
const IPC_PATH_BYTES_MAX: usize = 107;

/// Where a socket listens or connects to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// `tcp://HOST:PORT`, `tcp://*:PORT`, or `tcp://HOST` for any free port.
    Tcp {
        /// The host.
        host: Host,
        /// The port; `None` means any free one, which only makes sense for binding.
        port: Option<u16>,
    },
    /// `ipc://PATH`.
    Ipc {
        /// The path of the Unix-domain socket.
        path: PathBuf,
    },
}

/// The host part of a TCP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// `*`: every interface. Only for binding.
    Any,
    /// A name or an address. IPv6 addresses stand here without their brackets.
    Name(String),
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is not an address: {problem}")]
pub struct AddressError {
    address: String,
    problem: String,
}

impl AddressError {
    /// What to write instead, for a person.
    pub fn hint(&self) -> &'static str {
        "write tcp://HOST:PORT (such as tcp://127.0.0.1:5050), tcp://*:PORT to listen on every interface, or ipc://PATH"
    }
}

impl Address {
    /// A TCP address.
    pub fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: Host::Name(host.to_owned()),
            port: Some(port),
        }
    }

    /// Checks that the address can be connected to: it names a host and a port.
    ///
    /// # Errors
    /// [`AddressError`] when the host is `*`, or the port is missing or 0.
    pub fn check_connectable(&self) -> Result<(), AddressError> {
        let problem = match self {
            Address::Tcp {
                host: Host::Any, ..
            } => "`*` is for listening; name the host",
            Address::Tcp {
                port: None | Some(0),
                ..
            } => "connecting needs a port",
            _ => return Ok(()),
        };
        Err(AddressError {
            address: self.to_string(),
            problem: problem.to_owned(),
        })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        parse(text).map_err(|problem| AddressError {
            address: text.chars().take(ADDRESS_BYTES_MAX).collect(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Address, String> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(format!("it is longer than {ADDRESS_BYTES_MAX} bytes"));
    }
    if let Some(path) = text.strip_prefix("ipc://") {
        return parse_ipc(path);
    }
    if let Some(rest) = text.strip_prefix("tcp://") {
        return parse_tcp(rest);
    }
    match text.split_once("://") {
        Some((scheme, _)) => Err(format!(
            "{scheme}:// is not supported, tcp:// and ipc:// are"
        )),
        None => Err("it does not start with tcp:// or ipc://".to_owned()),
    }
}

fn parse_ipc(path: &str) -> Result<Address, String> {
    if path.is_empty() {
        return Err("ipc:// needs a path".to_owned());
    }
    if path.len() > IPC_PATH_BYTES_MAX {
        return Err(format!(
            "the path of a Unix socket has at most {IPC_PATH_BYTES_MAX} bytes, this one has {}",
            path.len()
        ));
    }
    if path.contains('\0') {
        return Err("the path has a NUL character".to_owned());
    }
    Ok(Address::Ipc {
        path: PathBuf::from(path),
    })
}

fn parse_tcp(rest: &str) -> Result<Address, String> {
    let (host, port) =
        if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, after) = bracketed
                .split_once(']')
                .ok_or_else(|| "the `[` has no `]`".to_owned())?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| format!("{host:?} is no IPv6 address"))?;
            match after {
                "" => (host, None),
                _ => (
                    host,
                    Some(after.strip_prefix(':').ok_or_else(|| {
                        format!("{after:?} stands after the `]` where :PORT should")
                    })?),
                ),
            }
        } else {
            match rest.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err("an IPv6 address stands in brackets: tcp://[::1]:PORT".to_owned());
                }
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
    let port = match port {
        None | Some("*") => None,
        Some(text) => {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = digits.then(|| text.parse::<u16>().ok()).flatten();
            Some(number.ok_or_else(|| format!("{text:?} is no port from 0 to 65535"))?)
        }
    };
    let host = match host {
        "" => return Err("it names no host".to_owned()),
        "*" => Host::Any,
        name => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
            if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
                return Err(format!("a host name cannot have {bad:?}"));
            }
            Host::Name(name.to_owned())
        }
    };
    Ok(Address::Tcp {
        host,
        port: port.filter(|port| *port != 0),
    })
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Any => f.write_str("*"),
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp {
                host,
                port: Some(port),
            } => write!(f, "tcp://{host}:{port}"),
            Address::Tcp { host, port: None } => write!(f, "tcp://{host}"),
            Address::Ipc { path } => write!(f, "ipc://{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}
