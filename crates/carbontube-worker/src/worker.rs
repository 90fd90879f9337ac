//! The runtime: opens the sockets, starts the tasks, drains and ends them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_std::task::{self, JoinHandle};
use carbontube_protocol::message::WorkerState;
use carbontube_protocol::{Address, Header, Limits, WorkerId, decode};
use carbontube_transport::{Endpoint, Hurry, Message, Options, Publish, Pull, Push};
use futures_lite::future;

use crate::clock::Clock;
use crate::context::{Output, Stop};
use crate::events::{self, Identity};
use crate::options::{ROUTES_MAX, SLOTS_MAX, StartError, WorkerOptions};
use crate::phase::{AnyPhase, Erased};
use crate::session::{Profile, Session};
use crate::shared::{Shared, sleep};
use crate::telemetry::Telemetry;
use crate::{blocking, panics, reach, route, runner};

/// How long a draining worker waits for the acknowledgement of its last results.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(10);
/// How long the last messages may take.
const LINGER: Duration = Duration::from_secs(2);
/// How long commands have to end after the grace period: the time between their two signals, and some.
const KILLING: Duration = Duration::from_secs(4);
/// How long commands have to end after SIGKILL.
const KILLED: Duration = Duration::from_secs(1);
/// Bad messages are logged at most this often.
const COMPLAINT: Duration = Duration::from_secs(10);

/// A running worker.
///
/// It works from [`start`](Worker::start) on; [`run`](Worker::run) waits for its end.
pub struct Worker {
    shared: Arc<Shared>,
    identity: Identity,
    bound: Vec<Address>,
    phase: AnyPhase,
    grace: Duration,
    tasks: Vec<JoinHandle<()>>,
}

/// Ends a worker from elsewhere.
#[derive(Clone)]
pub struct WorkerHandle {
    shared: Arc<Shared>,
}

/// What a worker has counted and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerCounters {
    /// Attempts that succeeded.
    pub success: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that wait for a slot.
    pub queued: usize,
    /// Attempts that run.
    pub running: usize,
    /// Attempts whose results are not acknowledged.
    pub unacknowledged: usize,
    /// Messages that could not be read, or that no manager sends.
    pub refused: u64,
    /// Messages of managers' former lives.
    pub stale: u64,
    /// Results given up after repeats, because acknowledgements may not reach a worker
    /// behind a device.
    pub given_up: u64,
}

impl Worker {
    /// Opens the sockets and starts to work. Managers need not be there yet.
    ///
    /// # Errors
    /// When the options make no sense, an address cannot be bound, or a command cannot
    /// be executed.
    pub async fn start(options: WorkerOptions, phase: AnyPhase) -> Result<Worker, StartError> {
        check(&options)?;
        if let Erased::Command(command) = &phase.0 {
            command.check()?;
        }
        panics::install();
        let transport = Options::with_limits(&options.limits);
        let pull = Pull::open(transport.clone(), options.pull.clone())
            .await
            .map_err(|source| StartError::Socket {
                what: "attempts",
                source,
            })?;
        let mut pushes = Vec::new();
        for address in &options.push_connect {
            let push = Push::open(transport.clone(), address.clone())
                .await
                .map_err(|source| StartError::Socket {
                    what: "results",
                    source,
                })?;
            pushes.push(push);
        }
        let endpoints = options.pub_connect.iter().cloned().map(Endpoint::Connect);
        let publish = Publish::open(transport, endpoints)
            .await
            .map_err(|source| StartError::Socket {
                what: "events",
                source,
            })?;
        let identity = identity(&options, &pull)?;
        let bound = pull.local_addresses().to_vec();
        let hurries = pushes.iter().map(Push::hurry);
        let hurries = hurries.chain([publish.hurry()]).collect();
        let shared = shared(&options, &identity, &phase, hurries);

        let mut tasks = Vec::new();
        match &phase.0 {
            Erased::Blocking(blocking) => blocking::start(&shared, blocking, options.slots)?,
            Erased::Async(_) | Erased::Command(_) => {
                for _ in 0..options.slots {
                    task::spawn(runner::run(shared.clone(), phase.clone()));
                }
            }
        }
        for (index, push) in pushes.into_iter().enumerate() {
            task::spawn(route::watch(shared.clone(), push.events(), index));
            let sends = route::send(shared.clone(), push, index, LINGER);
            tasks.push(task::spawn(sends));
        }
        let publishes = events::publish(shared.clone(), publish, identity.clone());
        tasks.push(task::spawn(publishes));
        tasks.push(task::spawn(receive(shared.clone(), pull)));
        task::spawn(watch_deadlines(shared.clone()));
        log::info!(
            "worker {} runs {} on {} with {} slots",
            identity.worker.short(),
            identity.job_type,
            identity.address,
            identity.slots
        );
        Ok(Worker {
            shared,
            identity,
            bound,
            phase,
            grace: options.grace,
            tasks,
        })
    }

    /// The address that managers are told.
    pub fn address(&self) -> &Address {
        &self.identity.address
    }

    /// Where it listens itself; that differs from [`address`](Worker::address) when
    /// another one is advertised, and is empty when it dials.
    pub fn bound(&self) -> &[Address] {
        &self.bound
    }

    /// This incarnation's id.
    pub fn id(&self) -> WorkerId {
        self.identity.worker
    }

    /// What was counted, and is held, at this moment.
    pub fn counters(&self) -> WorkerCounters {
        self.handle().counters()
    }

    /// A handle to end the worker with.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle {
            shared: self.shared.clone(),
        }
    }

    /// Waits until the worker was drained (by its handle or a manager) or stopped.
    ///
    /// Draining: the worker says so, hands back what has not started, gives what runs
    /// the grace period (and stops and hands back what it still has then), waits for the
    /// acknowledgement of its last results, says goodbye and closes.
    /// Stopped at once, it kills what runs and hands back all that it has.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        shared
            .until(None, |shared| shared.drain_wanted.load(Ordering::Acquire))
            .await;
        if !shared.is_stop_wanted() {
            self.drain().await;
        }
        if let Erased::Command(command) = &self.phase.0 {
            shared.unless_stopped(command.end_idle()).await;
        }
        if shared.is_stop_wanted() {
            // Nothing may begin that nobody would stop.
            shared.with(Session::drain);
            // Commands must be killed before this process may go.
            self.abandon(Stop::Now, shared.settled(KILLED, is_at_rest))
                .await;
            if let Erased::Command(command) = &self.phase.0 {
                command.kill_idle();
            }
        }
        shared.with(Session::goodbye);
        shared.end();
        for task in std::mem::take(&mut self.tasks) {
            task.await;
        }
    }

    async fn drain(&self) {
        let shared = &self.shared;
        log::info!(
            "draining: finishing what runs, for {:?} at most",
            self.grace
        );
        shared.with(Session::drain);
        let idle = |shared: &Shared| shared.with(|session| session.load().running) == 0;
        shared.until(Some(self.grace), idle).await;
        if !idle(shared) {
            log::warn!("the grace period is over: handing back what still runs");
            self.abandon(Stop::GraceOver, shared.until(Some(KILLING), is_at_rest))
                .await;
        }
        let acknowledged = |shared: &Shared| shared.with(|session| session.load().done) == 0;
        shared.until(Some(ACKNOWLEDGEMENT), acknowledged).await;
        let left = shared.with(|session| session.load().done);
        if left > 0 && !shared.is_stop_wanted() {
            log::warn!("{left} results were not acknowledged; their jobs will run again");
        }
    }

    /// Stops what runs and hands it back, each when it has ended: until then it must not
    /// begin elsewhere. What has not ended when the waiting is over is handed back then.
    async fn abandon(&self, why: Stop, ended: impl Future<Output = ()>) {
        if self.shared.reports_early {
            // Nothing can stop a thread, so there is nothing to wait for.
            self.shared.with(Session::abandon_running);
        }
        self.shared.stop_running(why);
        ended.await;
        // A stop that came meanwhile kills what is left before it is handed back.
        if why == Stop::Now || !self.shared.is_stop_wanted() {
            self.shared.with(Session::abandon_running);
        }
    }
}

/// Whether no runner is busy with what could be stopped.
fn is_at_rest(shared: &Shared) -> bool {
    shared.reports_early || shared.busy() == 0
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After `run` this changes nothing; without it, nothing may stay behind.
        if !self.shared.is_ended() {
            self.shared.want_stop();
            self.shared.with(Session::drain);
            self.shared.stop_running(Stop::Now);
            self.shared.with(Session::abandon_running);
            self.shared.end();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("identity", &self.identity)
            .field("state", &self.shared.with(|session| session.state()))
            .finish_non_exhaustive()
    }
}

impl WorkerHandle {
    /// Asks the worker to finish what runs and go.
    pub fn drain(&self) {
        self.shared.want_drain();
    }

    /// Asks the worker to go at once: running attempts are dropped, commands killed.
    pub fn stop_now(&self) {
        self.shared.want_stop();
    }

    /// Whether the worker was asked to drain or drains.
    pub fn is_draining(&self) -> bool {
        self.shared.drain_wanted.load(Ordering::Acquire)
            || self.shared.with(|session| session.state()) == WorkerState::Draining
    }

    /// What was counted, and is held, at this moment.
    pub fn counters(&self) -> WorkerCounters {
        let refused = self.shared.refused.load(Ordering::Relaxed);
        self.shared.with(|session| {
            let (success, failed) = session.counts();
            let load = session.load();
            WorkerCounters {
                success,
                failed,
                queued: load.queued,
                running: load.running,
                unacknowledged: load.done,
                refused,
                stale: session.stale_count(),
                given_up: session.unacknowledged_count(),
            }
        })
    }
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerHandle").finish_non_exhaustive()
    }
}

fn check(options: &WorkerOptions) -> Result<(), StartError> {
    if !(1..=SLOTS_MAX).contains(&options.slots) {
        return Err(StartError::Slots {
            found: options.slots,
        });
    }
    for (what, addresses) in [
        ("results", &options.push_connect),
        ("events", &options.pub_connect),
    ] {
        if !(1..=ROUTES_MAX).contains(&addresses.len()) {
            return Err(StartError::Addresses {
                what,
                found: addresses.len(),
            });
        }
    }
    if options.pull.is_empty() {
        return Err(StartError::NoPull);
    }
    Ok(())
}

fn identity(options: &WorkerOptions, pull: &Pull) -> Result<Identity, StartError> {
    let bound = pull.local_addresses();
    let shared_address = bound.is_empty();
    let seen = bound
        .first()
        .map(|bound| reach::announced(bound, options.push_connect.first()))
        .or_else(|| options.advertise.clone())
        .ok_or(StartError::NoAdvertise)?;
    let address = options.advertise.clone().unwrap_or(seen);
    address
        .check_connectable()
        .map_err(|source| StartError::Advertise { source })?;
    Ok(Identity {
        worker: WorkerId::generate(),
        job_type: options.job_type.clone(),
        address,
        shared_address,
        slots: options.slots,
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        pid: std::process::id(),
    })
}

fn shared(
    options: &WorkerOptions,
    identity: &Identity,
    phase: &AnyPhase,
    hurries: Vec<Hurry>,
) -> Arc<Shared> {
    let session = Session::new(Profile {
        worker: identity.worker,
        job_type: options.job_type.clone(),
        routes: options.push_connect.len(),
        shared_address: identity.shared_address,
        timeout: options.timeout,
        limits: options.limits.clone(),
    });
    let output = Output {
        job_type: options.job_type.clone(),
        telemetry: Arc::new(Telemetry::new(&options.limits)),
        clock: Clock::start(),
    };
    let reports_early = matches!(phase.0, Erased::Blocking(_));
    Shared::new(
        session,
        output,
        options.limits.clone(),
        reports_early,
        hurries,
    )
}

/// Takes what managers send.
async fn receive(shared: Arc<Shared>, mut pull: Pull) {
    let mut complaints = Complaints::default();
    loop {
        let received = future::or(async { pull.recv().await.ok() }, async {
            loop {
                let ended = shared.deadline.listen();
                if shared.is_ended() {
                    return None;
                }
                ended.await;
            }
        })
        .await;
        let Some(frames) = received else {
            break;
        };
        if let Err(problem) = take(&shared, &frames, &shared.limits) {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            complaints.add(&problem);
        }
    }
    pull.close().await;
}

fn take(shared: &Shared, frames: &Message, limits: &Limits) -> Result<(), String> {
    let message = decode(frames, limits).map_err(|error| error.to_string())?;
    let header = Header::from_bytes(&frames[0]).map_err(|error| error.to_string())?;
    let now = shared.clock.now();
    if shared.with(|session| session.receive(message, header.codec, now)) {
        Ok(())
    } else {
        Err(format!("a worker takes no {:?} message", header.kind))
    }
}

#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    count: u64,
}

impl Complaints {
    fn add(&mut self, problem: &str) {
        self.count += 1;
        if self.last.is_none_or(|last| last.elapsed() >= COMPLAINT) {
            log::warn!(
                "{} messages ignored, the last because: {problem}",
                self.count
            );
            self.last = Some(Instant::now());
            self.count = 0;
        }
    }
}

/// Stops attempts whose time is over.
async fn watch_deadlines(shared: Arc<Shared>) {
    while !shared.is_ended() {
        let earlier = shared.deadline.listen();
        let looks_at = shared.expire();
        let pause = looks_at.since(shared.clock.now());
        future::or(earlier, sleep(pause)).await;
    }
}
