//! The private Unix streams between the front door and our own crate sockets.
//!
//! One listener serves the whole process, and no other process can reach it: its socket file
//! stands in a directory of mode 0700 for the moment it takes to open it, and is then
//! unlinked. Crate sockets connect through the open descriptor, and a stream from another
//! process is turned away. A killed process leaves nothing behind.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use async_io::Async;
use futures_lite::future;
use rustix::fs::{Mode, OFlags};
use socket2::SockRef;
use zeromq::Socket;

use super::handshake::meet_inner;
use super::splice::End;
use super::wire::{Wire, until};
use super::zmtp::Carrier;

/// The kernel buffer of a private stream towards the crate.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// How long our own crate socket may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Where the socket file may stand for its moment, after the system's temporary directory.
const BASES: [&str; 5] = ["/tmp", "/dev/shm", "/run", "/var/tmp", "."];
/// The longest path of a base: a socket's path has 107 bytes at most.
const BASE_BYTES_MAX: usize = 60;

/// The listener to which every crate socket of this process connects.
static LISTENER: Mutex<Option<Arc<Private>>> = Mutex::new(None);

/// A listener that only this process can reach.
#[derive(Debug)]
pub(crate) struct Private {
    /// Locked from a crate socket's connect until its stream is accepted, which tells whose
    /// stream it is. Neither waits: a Unix stream is connected as soon as it is asked for.
    listener: Mutex<UnixListener>,
    /// Holds the unlinked socket file, so that it can still be connected.
    file: OwnedFd,
}

impl Private {
    /// The process's listener, made at the first call.
    ///
    /// # Errors
    /// When no directory takes a socket file.
    pub(crate) fn open() -> io::Result<Arc<Self>> {
        let mut listener = LISTENER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*listener {
            return Ok(open.clone());
        }
        let temp = std::env::temp_dir();
        let bases = BASES.iter().map(Path::new);
        let mut result = Self::listen_in(&temp);
        for base in bases.filter(|base| *base != temp) {
            if result.is_ok() {
                break;
            }
            result = Self::listen_in(base);
        }
        let open = Arc::new(result?);
        *listener = Some(open.clone());
        Ok(open)
    }

    fn listen_in(base: &Path) -> io::Result<Self> {
        if base.as_os_str().len() >= BASE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let directory = Directory::new(base)?;
        let path = directory.socket();
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let file = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self {
            listener: Mutex::new(listener),
            file,
        })
    }

    /// Connects a fresh crate socket to a private stream and introduces the front door to it.
    ///
    /// Returns our end of the stream, and what the socket sent right behind its READY.
    pub(crate) async fn attach(
        &self,
        socket: &mut impl Socket,
        carrier: Carrier,
    ) -> Result<(Wire, Vec<u8>), End> {
        let attaching = self.attach_in_time(socket, carrier);
        until(Instant::now() + HANDSHAKE_TIMEOUT, attaching)
            .await
            .unwrap_or_else(|| Err(End::Inner("no handshake in time".to_owned())))
    }

    async fn attach_in_time(
        &self,
        socket: &mut impl Socket,
        carrier: Carrier,
    ) -> Result<(Wire, Vec<u8>), End> {
        let fail = |error: &dyn std::fmt::Display| End::Inner(error.to_string());
        let endpoint = format!("ipc:///proc/self/fd/{}", self.file.as_raw_fd());
        let mut connecting = pin!(async {
            let connected = socket.connect(&endpoint).await;
            connected.map_err(|error| fail(&error))
        });
        let connected = future::poll_fn(|cx| {
            let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
            // Streams of crate sockets that gave up before they were accepted.
            while listener.accept().is_ok() {}
            match connecting.as_mut().poll(cx) {
                Poll::Ready(Err(end)) => Poll::Ready(Err(end)),
                Poll::Ready(Ok(())) => {
                    let what = "connected without a handshake".to_owned();
                    Poll::Ready(Err(End::Inner(what)))
                }
                Poll::Pending => Poll::Ready(accept(&listener).map_err(|error| fail(&error))),
            }
        });
        let own = connected.await?;
        let meeting = async {
            let met = meet_inner(&own, carrier).await;
            met.map_err(|error| fail(&error))
        };
        let ((), rest) = future::try_zip(connecting, meeting).await?;
        Ok((own, rest))
    }
}

/// Accepts the stream that is there, from this process only.
fn accept(listener: &UnixListener) -> io::Result<Wire> {
    loop {
        let (stream, _) = listener.accept()?;
        if is_ours(&stream)? {
            // Room for whole bursts: fewer switches between this side and the crate.
            SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES)?;
            return Ok(Wire::Unix(Async::new(stream)?));
        }
    }
}

fn is_ours(stream: &UnixStream) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(peer.pid == rustix::process::getpid())
}

/// A directory that only this user can enter; removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(base: &Path) -> io::Result<Self> {
        for _ in 0..16 {
            let directory = base.join(format!(
                "carbontube-{}-{:016x}",
                std::process::id(),
                fastrand::u64(..)
            ));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(Self(directory)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Best effort: what cannot be removed is an empty directory of ours.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.0);
    }
}
