//! Dialling an address: resolve, connect, shake hands, all within the time limits.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use async_io::Async;
use carbontube_protocol::{Address, Host};
use socket2::{SockRef, TcpKeepalive};

use crate::{Options, Origin};

use super::handshake::{HandshakeError, Met, Wish, meet};
use super::wire::{Wire, until};

/// Names that only the budget's dials ask for wait in a line of their own.
const SOMEBODY: Origin = Origin {
    host: None,
    connection: 0,
    is_local: false,
};

/// Keepalive probes without an answer before a connection is given up.
const KEEPALIVE_RETRIES: u32 = 3;

/// Why an address was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("{0}")]
    Handshake(HandshakeError),
}

impl ReachError {
    /// Whether the machine is there and nobody listens.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, ReachError::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Connects and does the handshake.
pub(crate) async fn reach(
    target: &Address,
    wish: Wish,
    options: &Options,
) -> Result<(Wire, Met), ReachError> {
    let mut handshake_timeout = options.handshake_timeout;
    if let Some(pass) = &options.dials {
        handshake_timeout = pass.handshake_timeout(handshake_timeout);
    }
    let deadline = Instant::now() + options.connect_timeout;
    let wire = until(deadline, connect(target, options))
        .await
        .unwrap_or(Err(ReachError::TimedOut))?;
    let deadline = Instant::now() + handshake_timeout;
    let met = meet(&wire, wish, deadline)
        .await
        .map_err(ReachError::Handshake)?;
    Ok((wire, met))
}

async fn connect(target: &Address, options: &Options) -> Result<Wire, ReachError> {
    let (host, port) = match target {
        Address::Ipc { path } => {
            let stream = Async::<UnixStream>::connect(path).await;
            return stream.map(Wire::Unix).map_err(ReachError::Connect);
        }
        Address::Tcp { host, port } => (host, port.unwrap_or(0)),
    };
    let Host::Name(name) = host else {
        return Err(ReachError::Connect(io::ErrorKind::InvalidInput.into()));
    };
    let found = resolve(name, options).await.map_err(ReachError::Connect)?;
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in found {
        let address = SocketAddr::new(address, port);
        match Async::<TcpStream>::connect(address).await {
            Ok(stream) if is_self_connected(&stream) => {
                failure = io::ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => {
                tune(&stream, options).map_err(ReachError::Connect)?;
                return Ok(Wire::Tcp(stream));
            }
            Err(error) => failure = error,
        }
    }
    Err(ReachError::Connect(failure))
}

async fn resolve(name: &str, options: &Options) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    match &options.dials {
        Some(pass) if !pass.is_trusted() => options.resolver.resolve_for(name, SOMEBODY).await,
        _ => options.resolver.resolve(name).await,
    }
}

/// Dialling a free local port can meet itself: TCP's simultaneous open.
fn is_self_connected(stream: &Async<TcpStream>) -> bool {
    let stream = stream.get_ref();
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// Sets what makes TCP prompt, and quick to notice a vanished peer.
pub(crate) fn tune(stream: &Async<TcpStream>, options: &Options) -> io::Result<()> {
    let socket = SockRef::from(stream.get_ref());
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(options.keepalive)
            .with_interval(options.keepalive)
            .with_retries(KEEPALIVE_RETRIES),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    Ok(())
}
