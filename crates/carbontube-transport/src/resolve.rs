//! Looking up host names without letting anybody take up all threads or time.
//!
//! The system's resolver blocks its caller, for many seconds when no server answers. So
//! look-ups have threads of their own, few of them. Those that strangers cause have a
//! share of these, one look-up at a time for each connection and some for each host: a
//! name that never resolves holds up nobody but its own source. Look-ups of our own, and
//! of peers that have shown what they are, have the other share.

mod cache;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::Origin;
use crate::turns::{Placed, Turns};

use cache::Cache;

/// The most look-ups under way for peers that are trusted.
const TRUSTED_MAX: usize = 16;
/// The same for strangers.
const STRANGERS_MAX: usize = 32;
/// The most look-ups under way for one stranger's host; beyond it those connections have
/// a turn that have none under way, one in each [`BEYOND_PAUSE`].
const HOST_MAX: usize = 8;
const BEYOND_PAUSE: Duration = Duration::from_secs(1);
/// The most names that wait; who has most gives way.
const WAITING_MAX: usize = 512;
/// A thread without work ends after this.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How often a thread looks whether a stranger may have its turn by now.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// The stack of a thread: the system's resolver needs some.
const STACK_BYTES: usize = 512 << 10;

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What looks up host names; clones share its threads and what it remembers.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

/// Whether a name was found lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has these addresses.
    Addresses(Vec<IpAddr>),
    /// It has none, or no server said so in time.
    Nothing,
    /// Nobody has asked lately.
    Unknown,
}

struct Inner {
    look_up: Box<LookUp>,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    cache: Cache,
    /// Look-ups that somebody waits for, by name.
    asked: BTreeMap<String, Arc<Asked>>,
    trusted: Turns<String, String>,
    strangers: Turns<String, String>,
    trusted_running: usize,
    /// The strangers' look-ups under way, by host and connection.
    running: BTreeMap<Option<IpAddr>, Vec<u64>>,
    strangers_running: usize,
    /// When a host had its last look-up beyond its share.
    beyond: BTreeMap<Option<IpAddr>, Instant>,
    threads: usize,
    idle: usize,
}

#[derive(Default)]
struct Asked {
    result: OnceLock<Result<Vec<IpAddr>, io::ErrorKind>>,
    done: Event,
    is_running: AtomicBool,
}

/// Work for a thread.
struct Job {
    name: String,
    /// None when it is of somebody trusted.
    origin: Option<Origin>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl PartialEq for Resolver {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Resolver {}

impl Default for Resolver {
    /// The system's, one for the whole process.
    fn default() -> Self {
        static SYSTEM: LazyLock<Resolver> = LazyLock::new(|| {
            Resolver::with(|name| {
                let found = (name, 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            })
        });
        SYSTEM.clone()
    }
}

/// Our own look-ups all wait in one line.
const OURSELVES: Origin = Origin {
    host: None,
    connection: 0,
    is_local: true,
};

impl Resolver {
    /// One that looks names up in a way of its own, as tests need it.
    pub fn with(look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            look_up: Box::new(look_up),
            state: Mutex::new(State {
                cache: Cache::default(),
                asked: BTreeMap::new(),
                trusted: Turns::new(usize::MAX, usize::MAX),
                strangers: Turns::new(WAITING_MAX, usize::MAX),
                trusted_running: 0,
                running: BTreeMap::new(),
                strangers_running: 0,
                beyond: BTreeMap::new(),
                threads: 0,
                idle: 0,
            }),
            work: Condvar::new(),
        }))
    }

    /// What is remembered of a name.
    pub fn remembered(&self, name: &str) -> Found {
        self.0.lock().cache.get(name, Instant::now())
    }

    /// How many threads it has now.
    pub fn threads(&self) -> usize {
        self.0.lock().threads
    }

    /// Looks a name up for a stranger, in its turn, unless it was looked up lately.
    ///
    /// # Errors
    /// When it has no address, or too many names wait.
    pub async fn resolve_for(&self, name: &str, origin: Origin) -> io::Result<Vec<IpAddr>> {
        match self.remembered(name) {
            Found::Addresses(found) => Ok(found),
            Found::Nothing => Err(io::ErrorKind::NotFound.into()),
            Found::Unknown => self.ask(name, Some(origin)).await,
        }
    }

    /// Has a name looked up for a stranger, in its turn, without waiting for it.
    pub fn ask_for(&self, name: &str, origin: Origin) {
        if self.remembered(name) == Found::Unknown {
            self.enqueue(name, Some(origin));
        }
    }

    /// Looks a name up anew, without waiting behind any stranger.
    ///
    /// # Errors
    /// When it has no address.
    pub async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.ask(name, None).await
    }

    async fn ask(&self, name: &str, origin: Option<Origin>) -> io::Result<Vec<IpAddr>> {
        let asked = self.enqueue(name, origin);
        loop {
            let done = asked.done.listen();
            if let Some(result) = asked.result.get() {
                return result.clone().map_err(io::Error::from);
            }
            done.await;
        }
    }

    fn enqueue(&self, name: &str, origin: Option<Origin>) -> Arc<Asked> {
        let mut state = self.0.lock();
        let asked = state.asked.entry(name.to_owned()).or_default().clone();
        if asked.is_running.load(Ordering::Relaxed) {
            return asked;
        }
        // Whoever asks, it waits in its own line too, not only in another's long one.
        let line = match origin {
            Some(_) => &mut state.strangers,
            None => &mut state.trusted,
        };
        let origin = origin.unwrap_or(OURSELVES);
        match line.put(origin, name.to_owned(), name.to_owned(), 0) {
            Placed::Waits | Placed::Newer(_) => {}
            Placed::Displaced(names) => state.give_up_displaced(names),
        }
        if state.idle == 0 && state.threads < TRUSTED_MAX + STRANGERS_MAX {
            let inner = self.0.clone();
            let thread = std::thread::Builder::new().name("resolver".to_owned());
            match thread.stack_size(STACK_BYTES).spawn(move || inner.work()) {
                Ok(_) => state.threads += 1,
                Err(error) => log::debug!("no thread to look up names: {error}"),
            }
        }
        drop(state);
        self.0.work.notify_one();
        asked
    }
}

impl State {
    /// Ends look-ups that are not waited for in any line any more.
    fn give_up_displaced(&mut self, names: Vec<String>) {
        for name in names {
            if self.strangers.has(&name) || self.trusted.has(&name) {
                continue;
            }
            let is_idle = |asked: &Arc<Asked>| !asked.is_running.load(Ordering::Relaxed);
            if let Some(asked) = self.asked.get(&name).filter(|asked| is_idle(asked)) {
                let _ = asked.result.set(Err(io::ErrorKind::QuotaExceeded));
                asked.done.notify(usize::MAX);
                self.asked.remove(&name);
            }
        }
    }

    fn next(&mut self, now: Instant) -> Option<Job> {
        if self.trusted_running < TRUSTED_MAX
            && let Some((_, name, _)) = self.trusted.take()
        {
            return Some(Job { name, origin: None });
        }
        if self.strangers_running >= STRANGERS_MAX {
            return None;
        }
        self.beyond
            .retain(|_, at| now.saturating_duration_since(*at) < BEYOND_PAUSE);
        let (running, beyond) = (&self.running, &self.beyond);
        let may = |host: Option<IpAddr>, connection: u64| {
            let Some(of_host) = running.get(&host) else {
                return true;
            };
            let has_room = of_host.len() < HOST_MAX || !beyond.contains_key(&host);
            has_room && !of_host.contains(&connection)
        };
        let (origin, name, _) = self.strangers.take_of(may)?;
        if self
            .running
            .get(&origin.host)
            .is_some_and(|of| of.len() >= HOST_MAX)
        {
            self.beyond.insert(origin.host, now);
        }
        Some(Job {
            name,
            origin: Some(origin),
        })
    }

    fn begin(&mut self, job: &Job) -> Option<Arc<Asked>> {
        // Another line may have had it looked up meanwhile.
        let asked = self.asked.get(&job.name)?.clone();
        if asked.is_running.swap(true, Ordering::Relaxed) {
            return None;
        }
        match job.origin {
            None => self.trusted_running += 1,
            Some(origin) => {
                self.strangers_running += 1;
                let of_host = self.running.entry(origin.host).or_default();
                of_host.push(origin.connection);
            }
        }
        Some(asked)
    }

    fn end(&mut self, job: &Job, result: &io::Result<Vec<IpAddr>>, now: Instant) {
        self.asked.remove(&job.name);
        self.cache.put(job.name.clone(), result.as_ref().ok(), now);
        let Some(origin) = job.origin else {
            self.trusted_running -= 1;
            return;
        };
        self.strangers_running -= 1;
        if let Some(of_host) = self.running.get_mut(&origin.host) {
            let place = of_host.iter().position(|it| *it == origin.connection);
            place.map(|place| of_host.swap_remove(place));
            if of_host.is_empty() {
                self.running.remove(&origin.host);
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life: look-ups until there were none for a while.
    fn work(&self) {
        let mut state = self.lock();
        let mut idle_since = Instant::now();
        loop {
            let now = Instant::now();
            let Some(job) = state.next(now) else {
                if now.saturating_duration_since(idle_since) >= IDLE_MAX {
                    state.threads -= 1;
                    return;
                }
                let pause = match state.strangers.is_empty() {
                    true => IDLE_MAX,
                    false => LOOK_PAUSE,
                };
                state.idle += 1;
                let waited = self.work.wait_timeout(state, pause);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.idle -= 1;
                continue;
            };
            let Some(asked) = state.begin(&job) else {
                continue;
            };
            drop(state);
            let result = (self.look_up)(&job.name).and_then(|found| match found.is_empty() {
                true => Err(io::ErrorKind::NotFound.into()),
                false => Ok(found),
            });
            state = self.lock();
            state.end(&job, &result, Instant::now());
            let _ = asked.result.set(result.map_err(|error| error.kind()));
            asked.done.notify(usize::MAX);
            idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests;
