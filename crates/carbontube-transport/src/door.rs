//! The front door: owns every connection to the network, listening and dialling.
//!
//! Behind it stands a [`Backend`], which serves one connection at a time with
//! our own crate socket. Nothing unchecked passes: see [`splice`].

pub(crate) mod handshake;
pub(crate) mod listen;
pub(crate) mod private;
pub(crate) mod reach;
pub(crate) mod scanner;
pub(crate) mod splice;
mod topics;
pub(crate) mod wire;
pub(crate) mod zmtp;

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_global_executor::Task;
use async_io::Timer;
use carbontube_protocol::{Address, Harmless};
use event_listener::Event;
use futures_lite::future;

use crate::connection::Connections;
use crate::counters::{Counters, bump};
use crate::runtime::open_files_max;
use crate::{Complaints, CountersSnapshot, Endpoint, OpenError, Options, init_runtime};

use handshake::{HandshakeError, Met, Wish, meet};
use listen::Listening;
use private::Private;
use splice::End;
use wire::Wire;
use zmtp::Kind;

/// The pause after an error of `accept`, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Descriptors that one connection takes: the peer's, and both ends of the private stream.
const FILES_PER_CONNECTION: u64 = 3;

/// Lost connections of one dialled address whose messages the reader has not all taken.
const DRAINING_MAX: usize = 8;

/// Complaints about the peers of all sockets: each worker's pipe is a socket of its own.
static COMPLAINTS: Complaints = Complaints::new();
/// Connections of the whole process.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
/// The last number given to a connection.
static LAST_ID: AtomicU64 = AtomicU64::new(0);

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What stands behind the front door.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Serves a connection whose handshake is done, until it ends.
    fn serve<'a>(&'a self, id: u64, wire: &'a Wire, rest: Vec<u8>) -> BoxFuture<'a, Ending>;

    /// Hears why a dialled connection failed or ended.
    fn unreachable(&self, _why: String, _refused: bool) {}
}

/// How a connection ended, and what is left of it.
pub(crate) struct Ending {
    pub(crate) end: End,
    /// Hands over what the peer had sent, while the reader has not taken all of it.
    pub(crate) left: Option<BoxFuture<'static, ()>>,
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        Self { end, left: None }
    }
}

/// What one dial came to.
type Reached = Result<(Wire, Met), reach::ReachError>;

/// A dialled connection that exists before its door.
pub(crate) type First = Option<(Wire, Met)>;

/// One socket's front door; closes everything when dropped.
pub(crate) struct Door {
    core: Arc<Core>,
    locals: Vec<Address>,
}

struct Core {
    kind: Kind,
    options: Options,
    counters: Arc<Counters>,
    backend: Arc<dyn Backend>,
    tasks: Mutex<Tasks>,
    hosts: Mutex<HashMap<IpAddr, usize>>,
    accepted: AtomicUsize,
    hurry: Hurry,
}

/// Lets a dialled socket that has lost its peer dial at once, whatever its pause.
#[derive(Clone, Debug, Default)]
pub struct Hurry(Arc<(AtomicU64, Event)>);

impl Hurry {
    /// There is reason to think that the peer is back.
    pub fn dial(&self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
        self.0.1.notify(usize::MAX);
    }

    fn asked(&self) -> u64 {
        self.0.0.load(Ordering::Acquire)
    }

    /// Waits for the pause, or until asked; tells whether it was asked since `seen`.
    async fn pause(&self, pause: Duration, seen: &mut u64) -> bool {
        let listener = self.0.1.listen();
        if self.asked() == *seen {
            let timer = async {
                Timer::after(pause).await;
            };
            future::or(timer, listener).await;
        }
        std::mem::replace(seen, self.asked()) != *seen
    }
}

#[derive(Default)]
struct Tasks {
    closed: bool,
    running: HashMap<u64, Task<()>>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("kind", &self.core.kind)
            .field("locals", &self.locals)
            .finish_non_exhaustive()
    }
}

impl Door {
    /// Binds and starts dialling.
    pub(crate) async fn open(
        connections: &Connections,
        backend: Arc<dyn Backend>,
        endpoints: Vec<Endpoint>,
        mut first: First,
    ) -> Result<Self, OpenError> {
        init_runtime();
        if endpoints.is_empty() {
            return Err(OpenError::NoEndpoint);
        }
        let mut listeners = Vec::new();
        let mut targets = Vec::new();
        for endpoint in endpoints {
            match endpoint {
                Endpoint::Bind(address) => listeners.push(listen::bind(&address).await?),
                Endpoint::Connect(address) => {
                    address
                        .check_connectable()
                        .map_err(|source| OpenError::Connect { source })?;
                    targets.push(address);
                }
            }
        }
        Private::open().map_err(|source| OpenError::Private {
            what: "listening for private streams",
            source,
        })?;
        let locals = listeners.iter().map(Listening::address).collect();
        let core = Arc::new(Core {
            kind: connections.kind,
            options: connections.options.clone(),
            counters: connections.counters.clone(),
            backend,
            tasks: Mutex::default(),
            hosts: Mutex::default(),
            accepted: AtomicUsize::new(0),
            hurry: Hurry::default(),
        });
        for listener in listeners {
            core.spawn(core.clone().accept_for_ever(listener));
        }
        for target in targets {
            core.spawn(core.clone().dial_for_ever(target, first.take()));
        }
        Ok(Self { core, locals })
    }

    pub(crate) fn local_addresses(&self) -> Vec<Address> {
        self.locals.clone()
    }

    pub(crate) fn counters(&self) -> CountersSnapshot {
        self.core.counters.snapshot()
    }

    pub(crate) fn hurry(&self) -> Hurry {
        self.core.hurry.clone()
    }

    /// Connections with a finished handshake.
    pub(crate) fn connections(&self) -> usize {
        let open = self.core.counters.connections_open.load(Ordering::Relaxed);
        usize::try_from(open).unwrap_or(usize::MAX)
    }

    /// Stops listening and dialling and closes every connection; returns when all is closed.
    pub(crate) async fn close(&self) {
        for task in self.core.take_tasks() {
            task.cancel().await;
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.core.take_tasks());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let core = self.clone();
        let mut tasks = lock(&self.tasks);
        if tasks.closed {
            return;
        }
        let task = async_global_executor::spawn(async move {
            work.await;
            if let Some(task) = lock(&core.tasks).running.remove(&id) {
                task.detach();
            }
        });
        tasks.running.insert(id, task);
    }

    fn take_tasks(&self) -> Vec<Task<()>> {
        let mut tasks = lock(&self.tasks);
        tasks.closed = true;
        tasks.running.drain().map(|(_, task)| task).collect()
    }

    async fn accept_for_ever(self: Arc<Self>, listener: Listening) {
        loop {
            match listener.accept(&self.options).await {
                Ok((wire, host, name)) => {
                    bump(&self.counters.connections_accepted);
                    match Place::take(&self, host) {
                        Some(place) => self.spawn(self.clone().receive(wire, name, place)),
                        None => {
                            bump(&self.counters.connections_refused);
                            self.complain(&name, "too many connections");
                        }
                    }
                }
                Err(error) => {
                    bump(&self.counters.accept_errors);
                    self.complain("the listener", &error.to_string());
                    Timer::after(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn receive(self: Arc<Self>, wire: Wire, name: String, _place: Place) {
        let deadline = Instant::now() + self.options.handshake_timeout;
        match meet(&wire, Wish::Be(self.kind), deadline).await {
            Ok(met) => {
                let Ending { left, .. } = self.serve(wire, met.rest, &name).await;
                if let Some(left) = left {
                    // The connection keeps its place until then: what a slow reader has
                    // to hold stays bounded.
                    left.await;
                }
            }
            Err(error) => {
                self.count_handshake(&error);
                if !matches!(error, HandshakeError::Closed | HandshakeError::Io(_)) {
                    self.complain(&name, &error.to_string());
                }
            }
        }
    }

    async fn dial_for_ever(self: Arc<Self>, target: Address, mut first: First) {
        let name = target.to_string();
        let mut pause = *self.options.connect_retry.start();
        let mut is_first = true;
        let draining = Arc::new(AtomicUsize::new(0));
        let mut hurried = self.hurry.asked();
        loop {
            let reached = match first.take() {
                Some(found) => Ok(found),
                None => self.reach(&target, is_first).await,
            };
            is_first = false;
            match reached {
                Ok((wire, met)) => {
                    bump(&self.counters.connections_dialled);
                    pause = *self.options.connect_retry.start();
                    let Ending { end, left } = self.serve(wire, met.rest, &name).await;
                    bump(&self.counters.connections_lost);
                    hurried = self.hurry.asked();
                    self.backend.unreachable(end.to_string(), false);
                    if end == End::Finished {
                        return;
                    }
                    if let Some(left) = left {
                        self.hand_over_aside(left, &draining).await;
                    }
                }
                Err(error) => {
                    bump(&self.counters.dial_failures);
                    if let reach::ReachError::Handshake(error) = &error {
                        self.count_handshake(error);
                        self.complain(&name, &error.to_string());
                    }
                    let refused = error.is_refused();
                    self.backend.unreachable(error.to_string(), refused);
                }
            }
            let spread = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            pause = match self.hurry.pause(spread, &mut hurried).await {
                true => *self.options.connect_retry.start(),
                false => (pause * 2).min(*self.options.connect_retry.end()),
            };
        }
    }

    /// Dials once, within the budget if there is one.
    async fn reach(&self, target: &Address, is_first: bool) -> Reached {
        let reaching = reach::reach(target, Wish::Be(self.kind), &self.options);
        match &self.options.dials {
            Some(pass) => pass.dial(is_first, reaching).await,
            None => reaching.await,
        }
    }

    /// Serves a connection to its end; also gives what our crate socket may still have to read.
    async fn serve(&self, wire: Wire, rest: Vec<u8>, name: &str) -> Ending {
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let open = Open::new(&self.counters);
        let ending = self.backend.serve(id, &wire, rest).await;
        let end = &ending.end;
        drop(open);
        end.count(&self.counters);
        if let Some(fault) = end.fault() {
            // A courtesy: between messages only would be exact, but the peer
            // has broken the rules and is about to be closed either way.
            let _ = wire.try_write(&zmtp::error(fault));
            self.complain(name, fault);
        } else {
            log::debug!("{} connection {name} ended: {end}", self.kind);
        }
        ending
    }

    /// Hands over what a lost connection has left while the next one is dialled.
    async fn hand_over_aside(
        self: &Arc<Self>,
        left: BoxFuture<'static, ()>,
        draining: &Arc<AtomicUsize>,
    ) {
        let mine = Draining::new(draining);
        let work = async move {
            left.await;
            drop(mine);
        };
        if draining.load(Ordering::Relaxed) <= DRAINING_MAX {
            self.spawn(work);
        } else {
            work.await;
        }
    }

    fn count_handshake(&self, error: &HandshakeError) {
        match error {
            HandshakeError::TimedOut => bump(&self.counters.handshakes_timed_out),
            HandshakeError::Incompatible { .. } => bump(&self.counters.handshakes_incompatible),
            HandshakeError::Malformed(_) | HandshakeError::Closed => {
                bump(&self.counters.handshakes_malformed);
            }
            HandshakeError::Io(_) => {}
        }
    }

    /// Warns about a peer, in one of few lines for all sockets of the process.
    fn complain(&self, name: &str, what: &str) {
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        if let Some(hidden) = COMPLAINTS.admit(host) {
            let (kind, name, what) = (self.kind, Harmless(name), Harmless(what));
            log::warn!("{kind} socket closed {name}: {what} ({hidden} complaints not shown)");
        }
    }
}

/// Counts a lost connection whose messages the reader has not all taken.
struct Draining(Arc<AtomicUsize>);

impl Draining {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an open connection for as long as it lives.
struct Open<'a>(&'a Counters);

impl<'a> Open<'a> {
    fn new(counters: &'a Counters) -> Self {
        bump(&counters.connections_open);
        Self(counters)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An accepted connection's place among the allowed ones; free again when dropped.
struct Place {
    core: Arc<Core>,
    host: Option<IpAddr>,
}

impl Place {
    fn take(core: &Arc<Core>, host: Option<IpAddr>) -> Option<Self> {
        let files = open_files_max();
        let most = (files - files.min(256).min(files / 4)) / FILES_PER_CONNECTION;
        let here = core.accepted.fetch_add(1, Ordering::Relaxed);
        let everywhere = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let mut hosts = lock(&core.hosts);
        let from_host = host.map_or(0, |host| {
            let count = hosts.entry(host).or_default();
            *count += 1;
            *count
        });
        drop(hosts);
        let place = Self {
            core: core.clone(),
            host,
        };
        let fits = here < core.options.connections_max
            && (everywhere as u64) < most
            && from_host <= core.options.connections_per_host_max;
        fits.then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.accepted.fetch_sub(1, Ordering::Relaxed);
        CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
        if let Some(host) = self.host {
            let mut hosts = lock(&self.core.hosts);
            if let Some(count) = hosts.get_mut(&host) {
                *count -= 1;
                if *count == 0 {
                    hosts.remove(&host);
                }
            }
        }
    }
}
