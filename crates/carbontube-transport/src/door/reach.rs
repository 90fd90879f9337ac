//! Dialling an address: resolve, connect, shake hands, all within the time limits.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use async_io::Async;
use async_std::net::ToSocketAddrs;
use carbontube_protocol::{Address, Host};
use socket2::{SockRef, TcpKeepalive};

use crate::Options;

use super::handshake::{HandshakeError, Met, Wish, meet};
use super::wire::{Wire, until};

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
    let deadline = Instant::now() + options.connect_timeout;
    let wire = until(deadline, connect(target, options))
        .await
        .unwrap_or(Err(ReachError::TimedOut))?;
    let deadline = Instant::now() + options.handshake_timeout;
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
    let found = (name.as_str(), port).to_socket_addrs().await;
    let addresses: Vec<SocketAddr> = found.map_err(ReachError::Connect)?.collect();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
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
