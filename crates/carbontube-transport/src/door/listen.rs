//! Listening on TCP ports and ipc files.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use async_io::Async;
use carbontube_protocol::{Address, Host};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{OpenError, Options};

use super::reach::tune;
use super::wire::Wire;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A bound listener; an ipc file is removed with it.
pub(crate) enum Listening {
    Tcp {
        listener: Async<TcpListener>,
        address: Address,
    },
    Ipc {
        listener: Async<UnixListener>,
        file: SocketFile,
    },
}

/// The file of an ipc listener.
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have replaced a file that it took for stale.
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode));
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listening {
    /// The address with the real port.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Tcp { address, .. } => address.clone(),
            Self::Ipc { file, .. } => Address::Ipc {
                path: file.path.clone(),
            },
        }
    }

    /// Waits for a connection; also gives the peer's host, and a name for logs.
    pub(crate) async fn accept(
        &self,
        options: &Options,
    ) -> io::Result<(Wire, Option<IpAddr>, String)> {
        match self {
            Self::Tcp { listener, .. } => {
                let (stream, peer) = listener.accept().await?;
                tune(&stream, options)?;
                Ok((
                    Wire::Tcp(stream),
                    Some(peer.ip().to_canonical()),
                    peer.to_string(),
                ))
            }
            Self::Ipc { listener, file } => {
                let (stream, _) = listener.accept().await?;
                let name = format!("ipc://{}", file.path.display());
                Ok((Wire::Unix(stream), None, name))
            }
        }
    }
}

/// Binds an address.
pub(crate) async fn bind(address: &Address) -> Result<Listening, OpenError> {
    match address {
        Address::Tcp { host, port } => {
            let (host, port, asked) = (host.clone(), port.unwrap_or(0), address.clone());
            // A name may have to be looked up, which blocks.
            async_global_executor::spawn_blocking(move || bind_tcp(&host, port, &asked)).await
        }
        Address::Ipc { path } => bind_ipc(path, address),
    }
}

fn bind_tcp(host: &Host, port: u16, asked: &Address) -> Result<Listening, OpenError> {
    let addresses: Vec<SocketAddr> = match host {
        Host::Any => vec![(Ipv4Addr::UNSPECIFIED, port).into()],
        Host::Name(name) => (name.as_str(), port)
            .to_socket_addrs()
            .map_err(|source| OpenError::Resolve {
                address: asked.clone(),
                source,
            })?
            .collect(),
    };
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in addresses {
        match bind_one(candidate) {
            Ok((listener, port)) => {
                let address = Address::Tcp {
                    host: Host::Name(candidate.ip().to_string()),
                    port: Some(port),
                };
                return Ok(Listening::Tcp { listener, address });
            }
            Err(error) => failure = error,
        }
    }
    Err(refused(asked, failure))
}

fn bind_one(address: SocketAddr) -> io::Result<(Async<TcpListener>, u16)> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    let listener = Async::new(TcpListener::from(socket))?;
    let port = listener.get_ref().local_addr()?.port();
    Ok((listener, port))
}

fn refused(asked: &Address, source: io::Error) -> OpenError {
    let address = asked.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => OpenError::InUse { address },
        _ => OpenError::Bind { address, source },
    }
}

fn bind_ipc(path: &Path, asked: &Address) -> Result<Listening, OpenError> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, asked)?;
            UnixListener::bind(path)
        }
        other => other,
    };
    let opened = listener.and_then(|listener| {
        let meta = fs::symlink_metadata(path)?;
        let file = SocketFile {
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
        };
        Ok((Async::new(listener)?, file))
    });
    let (listener, file) = opened.map_err(|source| refused(asked, source))?;
    Ok(Listening::Ipc { listener, file })
}

/// Removes a socket file at which nobody answers.
fn remove_stale(path: &Path, asked: &Address) -> Result<(), OpenError> {
    let address = || asked.clone();
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if !is_socket {
        return Err(OpenError::NotASocket { address: address() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("removing the stale socket file {}", path.display());
            fs::remove_file(path).map_err(|source| refused(asked, source))
        }
        _ => Err(OpenError::InUse { address: address() }),
    }
}
