//! The private Unix streams between the front door and our own crate sockets.
//!
//! Nobody else can reach them: the socket file stands in a directory of mode
//! 0700 for the moment it takes to open it, and is then unlinked. Later
//! connections go through the open file descriptor, so that nothing is left
//! behind by a process that is killed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use rustix::fs::{Mode, OFlags};
use socket2::SockRef;
use zeromq::Socket;

use super::wire::Wire;

/// The kernel buffer of a private stream towards the crate.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// How long a dropped crate socket may take to end its listener.
const DROPPED_MAX: Duration = Duration::from_secs(1);

/// A directory that only we can enter; gone with the value.
struct Nook {
    directory: PathBuf,
}

impl Nook {
    fn new() -> io::Result<Self> {
        let base = std::env::temp_dir();
        // The crate takes paths as text, and a socket path has 107 bytes at most.
        let short = base.to_str().is_some_and(|text| text.len() < 60);
        let base = if short { base } else { PathBuf::from("/tmp") };
        for _ in 0..16 {
            let name = format!(
                "carbontube-{}-{:016x}",
                std::process::id(),
                fastrand::u64(..)
            );
            let directory = base.join(name);
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(Self { directory }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("s")
    }
}

impl Drop for Nook {
    fn drop(&mut self) {
        // Best effort: what cannot be removed is an empty directory of ours.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.directory);
    }
}

/// The way to a crate socket that accepts any number of private streams.
#[derive(Debug)]
pub(crate) struct InnerListener {
    /// Holds the unlinked socket file, so that it can still be connected.
    file: OwnedFd,
    /// Where it was bound; the crate removes this file when its listener ends.
    path: PathBuf,
}

impl InnerListener {
    /// Lets `socket` listen for private streams.
    pub(crate) async fn bind(socket: &mut impl Socket) -> io::Result<Self> {
        let nook = Nook::new()?;
        let path = nook.socket();
        let listener = UnixListener::bind(&path)?;
        let file = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        socket
            .bind_listener(listener)
            .await
            .map_err(io::Error::other)?;
        Ok(Self { file, path })
    }

    /// Opens one private stream.
    pub(crate) async fn connect(&self) -> io::Result<Wire> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let stream = Async::<UnixStream>::connect(path).await?;
        // Room for whole bursts: fewer switches between this side and the crate.
        SockRef::from(stream.get_ref()).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        Ok(Wire::Unix(stream))
    }

    /// Lets the crate find the file that it removes when its listener ends.
    ///
    /// Without it each closed socket would log a warning.
    pub(crate) async fn retire(&self, unbind: impl Future<Output = ()>) {
        let Some(directory) = self.path.parent() else {
            return;
        };
        let made = DirBuilder::new().mode(0o700).create(directory).is_ok();
        if made {
            let _ = File::create(&self.path);
        }
        unbind.await;
        if made {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_dir(directory);
        }
    }
}

impl InnerListener {
    /// As [`retire`](Self::retire), for a listener whose end cannot be awaited.
    pub(crate) async fn retire_dropped(&self, ending: impl FnOnce()) {
        self.retire(async {
            ending();
            let deadline = Instant::now() + DROPPED_MAX;
            while self.path.exists() && Instant::now() < deadline {
                Timer::after(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

/// Connects a fresh crate socket to a private stream of our own; returns our end.
///
/// The caller has to do the handshake on it while `connect` waits inside the crate.
pub(crate) fn listen_once() -> io::Result<OnceListener> {
    let nook = Nook::new()?;
    let listener = Async::new(UnixListener::bind(nook.socket())?)?;
    Ok(OnceListener { listener, nook })
}

/// A private listener for one stream.
pub(crate) struct OnceListener {
    listener: Async<UnixListener>,
    nook: Nook,
}

impl OnceListener {
    /// The endpoint for the crate socket.
    pub(crate) fn endpoint(&self) -> String {
        endpoint_of(&self.nook.socket())
    }

    /// Accepts the stream, from this process only.
    pub(crate) async fn accept(&self) -> io::Result<Wire> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = rustix::net::sockopt::socket_peercred(&stream)?;
            if peer.pid == rustix::process::getpid() {
                return Ok(Wire::Unix(stream));
            }
        }
    }
}

fn endpoint_of(path: &Path) -> String {
    format!("ipc://{}", path.display())
}
