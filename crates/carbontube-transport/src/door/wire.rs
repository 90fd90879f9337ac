//! One stream, TCP or Unix, without readiness guesses: try first, then wait.

use std::future::Future;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll};
use std::time::Instant;

use async_io::{Async, Timer};
use futures_lite::future;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Wire {
    Tcp(Async<TcpStream>),
    Unix(Async<UnixStream>),
}

impl Wire {
    /// Appends what is there to `buffer`, within its spare capacity; 0 means the end.
    pub(crate) fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            match rustix::io::read(self, rustix::buffer::spare_capacity(buffer)) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Writes what fits.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Self::Tcp(stream) => stream.get_ref().write(bytes),
                Self::Unix(stream) => stream.get_ref().write(bytes),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                other => return other,
            }
        }
    }

    /// Waits for something to read; only after a read that would block.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_readable(cx),
            Self::Unix(stream) => stream.poll_readable(cx),
        }
    }

    /// Waits for room to write; only after a write that would block.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_writable(cx),
            Self::Unix(stream) => stream.poll_writable(cx),
        }
    }

    /// Reads at least one byte, or 0 at the end.
    pub(crate) async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    future::poll_fn(|cx| self.poll_readable(cx)).await?;
                }
                other => return other,
            }
        }
    }

    /// Writes everything.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    future::poll_fn(|cx| self.poll_writable(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends our direction: the peer reads what was written, then the end.
    pub(crate) fn shutdown_write(&self) {
        // An error means that the connection is gone already.
        let _ = match self {
            Self::Tcp(stream) => stream.get_ref().shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.get_ref().shutdown(Shutdown::Write),
        };
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Runs a future until a moment; `None` when the moment comes first.
pub(crate) async fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(work.await) }, async {
        Timer::at(deadline).await;
        None
    })
    .await
}
