//! A TCP proxy between two peers, whose way can be cut, slowed, held up and lossy.
//!
//! It knows nothing of what it carries. Each connection has two threads for each
//! direction: one reads and stamps, one waits until the time is due and writes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a thread looks whether something changed.
const LOOK: Duration = Duration::from_millis(20);
/// How much one read takes.
const CHUNK_BYTES: usize = 16 << 10;
/// How many chunks are under way in one direction.
const CHUNKS_MAX: usize = 64;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They arrive.
    #[default]
    Passes,
    /// They stay where they are until this is over, then arrive.
    Waits,
    /// They are taken and never arrive. The connection stays open, and is reset when
    /// this is over, as it has a hole.
    Vanishes,
}

/// How a way is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// From who dialled to who listens.
    pub(crate) forward: Flow,
    /// From who listens to who dialled.
    pub(crate) backward: Flow,
    /// How much later every byte arrives.
    pub(crate) delay: Duration,
    /// The most bytes in a second and direction; 0 for no limit.
    pub(crate) bytes_per_second: u64,
    /// New connections are reset at once.
    pub(crate) refuses: bool,
}

impl Weather {
    /// Both directions are as this says.
    pub(crate) fn both(flow: Flow) -> Self {
        Weather {
            forward: flow,
            backward: flow,
            ..Weather::default()
        }
    }

    /// Whether all bytes arrive, if late.
    pub(crate) fn is_whole(&self) -> bool {
        (self.forward, self.backward, self.refuses) == (Flow::Passes, Flow::Passes, false)
    }
}

/// A listening proxy; all of it ends when this is dropped.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    at: SocketAddr,
}

struct Shared {
    target: Mutex<Option<SocketAddr>>,
    weather: Mutex<Weather>,
    connections: Mutex<Vec<Weak<Connection>>>,
    ended: AtomicBool,
}

struct Connection {
    dialler: TcpStream,
    listener: TcpStream,
    /// Bytes vanished: what comes after them means nothing.
    holed: AtomicBool,
    ended: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

impl Proxy {
    /// Listens on a free port. Until it has a target, it resets what comes.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("binding a proxy")?;
        let at = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::default(),
            weather: Mutex::default(),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.ended.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(stream) = stream {
                    accepting.connect(stream);
                }
            }
        });
        Ok(Proxy { shared, at })
    }

    /// A proxy of an address.
    pub(crate) fn to(address: &str) -> Result<Self> {
        let proxy = Proxy::start()?;
        proxy.aim(address)?;
        Ok(proxy)
    }

    /// Leads new connections to an address (`tcp://…`).
    pub(crate) fn aim(&self, address: &str) -> Result<()> {
        let place = address
            .strip_prefix("tcp://")
            .with_context(|| format!("{address} is no tcp address"))?;
        *locked(&self.shared.target) = Some(place.parse().context("a numeric address")?);
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("tcp://{}", self.at)
    }

    /// Changes the way. Connections in which bytes vanished are reset when they pass again.
    pub(crate) fn set(&self, weather: Weather) {
        *locked(&self.shared.weather) = weather;
        let vanishes = [weather.forward, weather.backward].contains(&Flow::Vanishes);
        for connection in self.connections() {
            if !vanishes && connection.holed.load(Ordering::Acquire) {
                connection.reset();
            }
        }
    }

    /// Resets every connection, with all that is under way in it.
    pub(crate) fn reset_all(&self) {
        for connection in self.connections() {
            connection.reset();
        }
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let mut connections = locked(&self.shared.connections);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.reset_all();
        // The accepting thread waits for a connection.
        let _woken = TcpStream::connect_timeout(&self.at, LOOK);
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, dialler: TcpStream) {
        let target = *locked(&self.target);
        let refuses = locked(&self.weather).refuses;
        let listener = target
            .filter(|_| !refuses)
            .and_then(|target| TcpStream::connect_timeout(&target, Duration::from_secs(2)).ok());
        let Some(listener) = listener else {
            let _reset = rustix::net::sockopt::set_socket_linger(&dialler, Some(Duration::ZERO));
            return;
        };
        for stream in [&dialler, &listener] {
            // On a stream that is gone already, reading tells so.
            let _set = stream.set_nodelay(true);
            let _set = stream.set_read_timeout(Some(LOOK));
            let _set = stream.set_write_timeout(Some(LOOK));
        }
        let connection = Arc::new(Connection {
            dialler,
            listener,
            holed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        locked(&self.connections).push(Arc::downgrade(&connection));
        for is_forward in [true, false] {
            let (sender, receiver) = sync_channel(CHUNKS_MAX);
            let direction = Direction {
                shared: self.clone(),
                connection: connection.clone(),
                is_forward,
            };
            let writing = direction.clone();
            std::thread::spawn(move || direction.read(&sender));
            std::thread::spawn(move || writing.write(&receiver));
        }
    }
}

impl Connection {
    fn reset(&self) {
        for stream in [&self.dialler, &self.listener] {
            // Closing it, when the last thread has gone, then sends a reset.
            let _reset = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
        self.ended.store(true, Ordering::Release);
    }
}

/// Bytes, or the end of them (when empty), and when they are due.
type Chunk = (Instant, Vec<u8>);

#[derive(Clone)]
struct Direction {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    is_forward: bool,
}

impl Direction {
    fn ended(&self) -> bool {
        self.connection.ended.load(Ordering::Acquire) || self.shared.ended.load(Ordering::Acquire)
    }

    fn weather(&self) -> Weather {
        *locked(&self.shared.weather)
    }

    fn flow(&self) -> Flow {
        let weather = self.weather();
        match self.is_forward {
            true => weather.forward,
            false => weather.backward,
        }
    }

    /// Waits until bytes may move; whether they arrive, or `None` at the end.
    fn moves(&self) -> Option<bool> {
        loop {
            if self.ended() {
                return None;
            }
            match self.flow() {
                Flow::Passes if self.connection.holed.load(Ordering::Acquire) => {
                    // The other direction vanishes still, or the reset is on its way.
                    return Some(false);
                }
                Flow::Passes => return Some(true),
                Flow::Vanishes => return Some(false),
                Flow::Waits => std::thread::sleep(LOOK / 4),
            }
        }
    }

    fn read(&self, sender: &SyncSender<Chunk>) {
        let mut from = match self.is_forward {
            true => &self.connection.dialler,
            false => &self.connection.listener,
        };
        let mut buffer = vec![0; CHUNK_BYTES];
        while self.moves().is_some() {
            let count = match from.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if is_timeout(&error) => continue,
                Err(_) if self.moves() == Some(true) => return self.connection.reset(),
                Err(_) => return self.outlast(),
            };
            match self.moves() {
                Some(true) => {}
                Some(false) if count == 0 => return self.outlast(),
                Some(false) => {
                    if self.flow() == Flow::Vanishes {
                        self.connection.holed.store(true, Ordering::Release);
                    }
                    continue;
                }
                None => return,
            }
            let due = Instant::now() + self.weather().delay;
            if sender.send((due, buffer[..count].to_vec())).is_err() || count == 0 {
                return;
            }
        }
    }

    /// One side went while nothing may pass: the other must not see it until then.
    fn outlast(&self) {
        self.connection.holed.store(true, Ordering::Release);
        while !self.ended() && self.flow() != Flow::Passes {
            std::thread::sleep(LOOK);
        }
        self.connection.reset();
    }

    fn write(&self, receiver: &Receiver<Chunk>) {
        let mut to = match self.is_forward {
            true => &self.connection.listener,
            false => &self.connection.dialler,
        };
        loop {
            let (due, bytes) = match receiver.recv_timeout(LOOK) {
                Ok(chunk) => chunk,
                Err(RecvTimeoutError::Timeout) if !self.ended() => continue,
                Err(_) => return,
            };
            while let Some(left) = due.checked_duration_since(Instant::now())
                && !left.is_zero()
                && !self.ended()
            {
                std::thread::sleep(left.min(LOOK));
            }
            match self.moves() {
                Some(true) => {}
                Some(false) => {
                    if self.flow() == Flow::Vanishes {
                        self.connection.holed.store(true, Ordering::Release);
                    }
                    continue;
                }
                None => return,
            }
            if bytes.is_empty() {
                let _closed = to.shutdown(std::net::Shutdown::Write);
                return;
            }
            let mut left = &bytes[..];
            while !left.is_empty() {
                let speed = self.weather().bytes_per_second;
                let step = match speed {
                    0 => left.len(),
                    // Fifty steps a second.
                    speed => left.len().min((speed / 50).max(1) as usize),
                };
                match to.write(&left[..step]) {
                    Ok(count) => left = &left[count..],
                    Err(error) if is_timeout(&error) && !self.ended() => continue,
                    Err(_) => return self.connection.reset(),
                }
                if speed > 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
