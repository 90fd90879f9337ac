//! Where a socket listens or dials: `tcp://host:port` or `ipc://path`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address that a socket binds or connects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP host and port; `*` as host and a missing port only make sense when binding.
    Tcp {
        /// A name, an IP address, or `*`.
        host: String,
        /// The port; `None` or 0 asks for any free one.
        port: Option<u16>,
    },
    /// A Unix-domain socket file.
    Ipc {
        /// The path of the socket file.
        path: PathBuf,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => {
                let bracketed = host.contains(':');
                let (open, close) = if bracketed { ("[", "]") } else { ("", "") };
                write!(f, "tcp://{open}{host}{close}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
            Self::Ipc { path } => write!(f, "ipc://{}", path.display()),
        }
    }
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error)]
#[error("address {0:?} is neither tcp://host:port nor ipc://path")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("ipc://") {
            if path.is_empty() {
                return Err(bad());
            }
            return Ok(Self::Ipc { path: path.into() });
        }
        let rest = text.strip_prefix("tcp://").ok_or_else(bad)?;
        let (host, port) = if let Some(v6) = rest.strip_prefix('[') {
            let (host, after) = v6.split_once(']').ok_or_else(bad)?;
            (host, after.strip_prefix(':'))
        } else {
            match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        if host.is_empty() {
            return Err(bad());
        }
        let port = port.map(str::parse).transpose().map_err(|_| bad())?;
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}
