//! Why the web interface cannot start.

/// Why it cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Nobody to show.
    #[error("the web interface needs the api address of at least one manager")]
    NoManager,
    /// A manager's address cannot be dialled.
    #[error("{address} cannot be connected to: {reason}")]
    Address {
        /// The address.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The address to listen on is taken or not ours.
    #[error("cannot listen on {host}:{port}")]
    Listen {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the system says.
        source: std::io::Error,
    },
}

impl StartError {
    /// What to do about it, for a person.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StartError::Listen { source, .. } => match source.kind() {
                std::io::ErrorKind::AddrInUse => {
                    Some("another program listens there; choose another port with --port")
                }
                _ => None,
            },
            StartError::NoManager => Some("give it with --api-connect tcp://HOST:5051"),
            StartError::Address { .. } => None,
        }
    }
}

/// Why a token file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {place}")]
    Unreadable {
        /// The file.
        place: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no secret.
    #[error(
        "the first line of {place} is not at least {least} printable characters without blanks"
    )]
    Weak {
        /// The file.
        place: String,
        /// The fewest characters.
        least: usize,
    },
}
