//! Everything that is set about a world, drawn from its seed.

use std::fmt;
use std::time::Duration;

use carbontube_manager::core::CoreOptions;
use carbontube_manager::{Backoff, PhaseDefinition, PipelineDefinition};
use carbontube_protocol::Limits;
use fastrand::Rng;

use crate::disk::DiskFaults;

/// See the file's description.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The seed.
    pub seed: u64,
    /// The pipeline, with its attempts, backoffs and timeouts.
    pub definition: PipelineDefinition,
    /// The core's settings: small limits among them.
    pub core: CoreOptions,
    /// One for each worker.
    pub workers: Vec<WorkerParameters>,
    /// One for each phase.
    pub phases: Vec<PhaseParameters>,
    /// One for each client.
    pub clients: Vec<ClientParameters>,
    /// The network.
    pub network: NetworkParameters,
    /// The manager's process.
    pub manager: ManagerParameters,
    /// How often what fails.
    pub faults: FaultParameters,
    /// How long faults go on.
    pub faults_last: Duration,
    /// How long after that everything may take to settle.
    pub settle_within: Duration,
}

/// One worker.
#[derive(Clone, Debug)]
pub struct WorkerParameters {
    /// The index of its phase.
    pub phase: usize,
    /// Its slots.
    pub slots: u32,
    /// Whether it speaks JSON.
    pub json: bool,
    /// How its phases are run.
    pub runner: Runner,
    /// Whether a restarted process gets the same port.
    pub keeps_port: bool,
}

/// How phases are run: what a stop can do to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// An async phase: a stop drops it.
    Async,
    /// A blocking phase: a stop is reported, and its thread goes on.
    Blocking,
    /// A command: a stop takes a while.
    Command,
}

/// What the executions of a phase are like.
#[derive(Clone, Debug)]
pub struct PhaseParameters {
    /// The shortest and the longest.
    pub duration: (Duration, Duration),
    /// Probabilities of how one ends.
    pub fails: f64,
    /// It fails without a retry.
    pub fatal: f64,
    /// It panics.
    pub panics: f64,
    /// It returns what cannot be merged.
    pub garbage: f64,
    /// It hangs until it is stopped or the world heals.
    pub hangs: f64,
    /// It takes its worker down.
    pub kills: f64,
    /// It returns nothing, so that the instructions stay as they are.
    pub unchanged: f64,
    /// Bytes that it adds.
    pub output_bytes: usize,
}

/// One client.
#[derive(Clone, Debug)]
pub struct ClientParameters {
    /// How many jobs it enqueues.
    pub jobs: usize,
    /// How many in one message.
    pub batch: usize,
    /// The pause between messages.
    pub pause: (Duration, Duration),
    /// Bytes of instructions.
    pub instructions_bytes: (usize, usize),
    /// Whether it speaks JSON.
    pub json: bool,
    /// How long it waits for an answer before it asks again.
    pub timeout: Duration,
    /// Whether it waits for its jobs to end.
    pub waits: bool,
    /// How often it cancels one of its jobs.
    pub cancels: f64,
    /// How often it enqueues a job again under the same id.
    pub repeats: f64,
    /// How often it has a failed job tried again or discarded.
    pub retries: f64,
    /// How many of its links lead to the manager: more than one tries the going over.
    pub links: usize,
    /// How often a job gets an id that the client made up.
    pub made_up: f64,
    /// How often a job goes to the pull address, where nobody confirms it.
    pub unconfirmed: f64,
    /// How often a job is one that must be refused.
    pub bad: f64,
    /// How often it asks something, between two messages.
    pub asks: f64,
    /// How often it pauses the pipeline, to resume it a little later.
    pub pauses: f64,
}

/// The network.
#[derive(Clone, Debug)]
pub struct NetworkParameters {
    /// The least and the most that a message takes.
    pub latency: (Duration, Duration),
    /// How long until a broken link tries again.
    pub reconnect: (Duration, Duration),
    /// How often a dial fails.
    pub connect_failure: f64,
    /// What a socket accepts beyond what is on the wire.
    pub hwm_messages: usize,
    /// What one direction of a connection holds.
    pub wire_messages: usize,
    /// How often an event is lost.
    pub publish_loss: f64,
    /// How often a message that arrived is sent again after a break.
    pub repeat: f64,
}

/// The manager's process.
#[derive(Clone, Debug)]
pub struct ManagerParameters {
    /// How long until what arrived is handled: batches are what arrives meanwhile.
    pub round: (Duration, Duration),
    /// How long a commit takes.
    pub sync: (Duration, Duration),
    /// How long a page read takes.
    pub read: (Duration, Duration),
    /// The most messages that wait for one pipe.
    pub pipe_waiting_max: usize,
    /// How long it is down after a crash.
    pub down: (Duration, Duration),
    /// How far the wall clock may have jumped when it starts again.
    pub clock_jump: Duration,
}

/// Mean times between faults while faults go on; none where a kind of fault never comes.
#[derive(Clone, Debug)]
pub struct FaultParameters {
    /// A connection breaks.
    pub breaks: Option<Duration>,
    /// One direction of a connection is cut for a while.
    pub cuts: Option<Duration>,
    /// A connection becomes slow for a while.
    pub slows: Option<Duration>,
    /// A peer of a connection vanishes for the other without a word.
    pub half_opens: Option<Duration>,
    /// A worker reads nothing from its pipe for a while.
    pub deafness: Option<Duration>,
    /// A process is suspended for a while.
    pub suspensions: Option<Duration>,
    /// The manager is suspended for a while.
    pub manager_suspensions: Option<Duration>,
    /// The manager is killed.
    pub manager_kills: Option<Duration>,
    /// A worker is killed.
    pub worker_kills: Option<Duration>,
    /// A worker is drained and started again.
    pub worker_drains: Option<Duration>,
    /// A client is killed.
    pub client_kills: Option<Duration>,
    /// The disk is full for a while.
    pub disk_full: Option<Duration>,
    /// Some syncs fail.
    pub sync_failures: Option<Duration>,
    /// The operator interferes.
    pub operations: Option<Duration>,
    /// Somebody sends nonsense or lies.
    pub hostilities: Option<Duration>,
    /// Somebody greets a worker as its manager, with an epoch that it has not.
    pub forgeries: Option<Duration>,
    /// How often results are sent twice.
    pub results_twice: f64,
    /// How often a killed process leaves its peers' connections half-open.
    pub silent_kill: f64,
    /// How often a kill takes the machine's power with it.
    pub power_loss: f64,
    /// How a careless disk treats what was not synced.
    pub disk: DiskFaults,
    /// How often damage is put on the disk while the manager is down.
    pub damage: f64,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One of some.
fn pick<T: Copy>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(..of.len())]
}

/// Zero more often than not, else up to a most.
fn rate(random: &mut Rng, often: f64, most: f64) -> f64 {
    match random.f64() < often {
        true => random.f64() * most,
        false => 0.0,
    }
}

fn sometimes(random: &mut Rng, often: f64, least: u64, most: u64) -> Option<Duration> {
    let drawn = ms(random.u64(least..=most));
    (random.f64() < often).then_some(drawn)
}

impl Parameters {
    /// A message between manager and worker that takes longer may make one think the other
    /// gone: a dispatch, the next heartbeat and its way back have to fit into the worker
    /// timeout.
    pub fn late_after(&self) -> Duration {
        self.core.worker_timeout / 4
    }

    /// Draws everything.
    pub fn draw(seed: u64) -> Parameters {
        let mut random = Rng::with_seed(seed ^ 0x7061_7261_6d65_7465);
        let r = &mut random;
        let worker_timeout = ms(pick(r, &[500, 1000, 2000, 5000]));
        let phases = r.usize(1..=3);
        let definition = definition(r, phases);
        let calm = r.u32(0..12) == 0;
        let mut parameters = Parameters {
            seed,
            core: core(r, worker_timeout),
            workers: (0..phases + r.usize(0..=4))
                .map(|number| worker(r, number, phases))
                .collect(),
            phases: (0..phases).map(|_| phase(r, calm)).collect(),
            clients: (0..r.usize(1..=3)).map(|_| client(r)).collect(),
            network: network(r, calm),
            manager: ManagerParameters {
                round: (ms(0), ms(pick(r, &[0, 1, 20]))),
                sync: (Duration::from_micros(50), ms(pick(r, &[1, 10, 200]))),
                read: (Duration::from_micros(10), ms(pick(r, &[1, 50]))),
                pipe_waiting_max: pick(r, &[4, 64, 4096]),
                down: (ms(1), ms(pick(r, &[200, 3000, 10_000]))),
                clock_jump: ms(pick(r, &[0, 0, 5_000, 3_600_000])),
            },
            faults: match calm {
                true => no_faults(r),
                false => faults(r),
            },
            faults_last: ms(pick(r, &[5_000, 15_000, 30_000])),
            settle_within: Duration::from_secs(300),
            definition,
        };
        let mut random = Rng::with_seed(seed ^ 0x7265_7374_6172_7473);
        match random.u32(0..12) {
            0 => parameters.leave_only_restarts(&mut random),
            1 => parameters.leave_only_disk_faults(&mut random),
            2 => parameters.leave_only_suspended_managers(&mut random),
            3 => parameters.use_ids_again(&mut random),
            4 => parameters.leave_only_slow_connections(&mut random),
            _ => {}
        }
        // Drawn apart, so that all other worlds stay what they were.
        if parameters.faults.hostilities.is_some() && seed % 5 < 2 {
            let mut random = Rng::with_seed(seed ^ 0x666f_7267_6572_6965);
            parameters.faults.forgeries = Some(ms(random.u64(200..=5000)));
        }
        parameters
    }

    /// A world whose manager is killed again and again, and where nothing else goes wrong
    /// that could make anything run twice.
    fn leave_only_restarts(&mut self, r: &mut Rng) {
        let worker_timeout = Duration::from_secs(5);
        self.core.worker_timeout = worker_timeout;
        self.core.adoption_grace = worker_timeout * pick(r, &[1, 2]);
        self.calm_network(r);
        self.faults = FaultParameters {
            manager_kills: Some(ms(r.u64(500..=8000))),
            power_loss: rate(r, 0.7, 1.0),
            disk_full: sometimes(r, 0.3, 1000, 10_000),
            sync_failures: sometimes(r, 0.5, 500, 10_000),
            client_kills: sometimes(r, 0.5, 1000, 10_000),
            ..no_faults(r)
        };
    }

    /// A world whose disk is full or fails now and then, and where nothing else goes wrong:
    /// commits hang, and nothing may run twice for that.
    fn leave_only_disk_faults(&mut self, r: &mut Rng) {
        self.calm_network(r);
        self.faults = FaultParameters {
            disk_full: sometimes(r, 0.8, 500, 5000),
            sync_failures: sometimes(r, 0.8, 200, 3000),
            client_kills: sometimes(r, 0.3, 1000, 10_000),
            ..no_faults(r)
        };
    }

    /// A world whose manager is suspended again and again, and where nothing else goes wrong:
    /// its own silence is nobody else's.
    fn leave_only_suspended_managers(&mut self, r: &mut Rng) {
        self.core.worker_timeout = Duration::from_secs(5);
        self.core.adoption_grace = self.core.worker_timeout;
        self.calm_network(r);
        self.faults = FaultParameters {
            manager_suspensions: Some(ms(r.u64(200..=8000))),
            client_kills: sometimes(r, 0.3, 1000, 10_000),
            ..no_faults(r)
        };
    }

    /// A world whose clients use an id again as soon as its job is forgotten, whose manager is
    /// killed again and again, and where old results are sent again meanwhile.
    fn use_ids_again(&mut self, r: &mut Rng) {
        self.calm_network(r);
        self.core.history_jobs_max = 0;
        for client in &mut self.clients {
            client.made_up = 0.0;
            client.repeats = 0.9;
            client.pause.1 = ms(pick(r, &[50, 500]));
        }
        self.faults = FaultParameters {
            manager_kills: Some(ms(r.u64(300..=3000))),
            hostilities: Some(ms(pick(r, &[20, 100, 500]))),
            results_twice: 0.5,
            ..no_faults(r)
        };
    }

    /// A world whose connections are slow for longer than a worker timeout: pipes are given up
    /// for others, and what they held arrives all the same.
    fn leave_only_slow_connections(&mut self, r: &mut Rng) {
        self.calm_network(r);
        self.core.worker_timeout = ms(500);
        self.core.adoption_grace = ms(500);
        self.faults = FaultParameters {
            slows: Some(ms(pick(r, &[50, 200, 1000]))),
            ..no_faults(r)
        };
    }

    /// Nothing is late or lost, and no phase takes its worker down.
    fn calm_network(&mut self, r: &mut Rng) {
        self.network.latency.1 = ms(pick(r, &[1, 5, 50]));
        self.network.reconnect.1 = ms(pick(r, &[50, 500]));
        self.network.connect_failure = 0.0;
        self.network.publish_loss = 0.0;
        self.network.hwm_messages = pick(r, &[64, 1000]);
        self.network.wire_messages = pick(r, &[20, 1000]);
        self.manager.pipe_waiting_max = 4096;
        for phase in &mut self.phases {
            phase.kills = 0.0;
        }
    }
}

fn definition(r: &mut Rng, phases: usize) -> PipelineDefinition {
    let phases = (0..phases).map(|index| {
        let name = format!("phase-{index}").parse().expect("a good name");
        let mut phase = PhaseDefinition::new(name);
        phase.attempts = pick(r, &[1, 2, 3, 10]);
        let first = pick(r, &[0, 20, 200, 1000]);
        phase.backoff = Backoff {
            first: ms(first),
            longest: ms(first * pick(r, &[1, 4])),
        };
        phase.timeout = pick(r, &[None, Some(ms(300)), Some(ms(3000))]);
        phase
    });
    let phases = phases.collect();
    PipelineDefinition::new("pipeline".parse().expect("a good name"), phases)
        .expect("phases differ and may be tried")
}

fn core(r: &mut Rng, worker_timeout: Duration) -> CoreOptions {
    CoreOptions {
        limits: Limits {
            batch_jobs_max: pick(r, &[20, 24, 64, 4096]),
            ..Limits::default()
        },
        worker_timeout,
        adoption_grace: worker_timeout * pick(r, &[1, 2]),
        prefetch_time: ms(pick(r, &[0, 20, 200])),
        prefetch_max: pick(r, &[0, 4, 1024]),
        poison_losses: pick(r, &[2, 3, 1000]),
        live_jobs_max: pick(r, &[12, 10_000]),
        history_jobs_max: pick(r, &[0, 5, 1000]),
        history_age_max: Duration::from_secs(pick(r, &[1, 10, 100_000])),
        history_result_bytes_max: pick(r, &[16, 1 << 20]),
        page_bytes: pick(r, &[64, 512, 60 << 10]),
        payload_cache_bytes_max: pick(r, &[0, 2000, 64 << 20]),
        newcomers_max: pick(&mut r.clone(), &[16, 512]),
        journal_garbage_bytes_min: pick(&mut r.clone(), &[2 << 10, 16 << 10, 4 << 20]),
        ..CoreOptions::default()
    }
}

fn worker(r: &mut Rng, number: usize, phases: usize) -> WorkerParameters {
    WorkerParameters {
        // The first ones see to it that each phase has one.
        phase: match number < phases {
            true => number,
            false => r.usize(..phases),
        },
        slots: pick(r, &[1, 1, 2, 5]),
        json: r.u32(0..4) == 0,
        runner: pick(r, &[Runner::Async, Runner::Blocking, Runner::Command]),
        keeps_port: r.bool(),
    }
}

fn phase(r: &mut Rng, calm: bool) -> PhaseParameters {
    let faulty = if calm { 0.0 } else { 1.0 };
    PhaseParameters {
        duration: (ms(0), ms(pick(r, &[0, 5, 100, 2000]))),
        fails: rate(r, 0.5, 0.3) * faulty,
        fatal: rate(r, 0.2, 0.1) * faulty,
        panics: rate(r, 0.3, 0.1) * faulty,
        garbage: rate(r, 0.2, 0.1) * faulty,
        hangs: rate(r, 0.3, 0.1) * faulty,
        kills: rate(r, 0.2, 0.05) * faulty,
        unchanged: rate(r, 0.5, 1.0),
        output_bytes: pick(r, &[0, 10, 300]),
    }
}

fn client(r: &mut Rng) -> ClientParameters {
    let pause = pick(r, &[0, 50, 1000]);
    ClientParameters {
        jobs: pick(r, &[1, 5, 15, 40]),
        batch: pick(r, &[1, 3, 20]),
        pause: (ms(0), ms(pause)),
        instructions_bytes: (2, pick(r, &[2, 100, 2000])),
        json: r.u32(0..4) == 0,
        timeout: ms(pick(r, &[300, 2000, 10_000])),
        waits: r.u32(0..3) > 0,
        cancels: rate(r, 0.3, 0.2),
        repeats: rate(r, 0.3, 0.3),
        retries: rate(r, 0.3, 0.5),
        links: pick(r, &[1, 1, 2]),
        made_up: pick(r, &[0.0, 0.5, 1.0]),
        unconfirmed: rate(r, 0.3, 0.3),
        bad: rate(r, 0.2, 0.1),
        asks: rate(r, 0.5, 0.5),
        pauses: rate(r, 0.1, 0.1),
    }
}

fn network(r: &mut Rng, calm: bool) -> NetworkParameters {
    let faulty = if calm { 0.0 } else { 1.0 };
    NetworkParameters {
        latency: (Duration::from_micros(20), ms(pick(r, &[1, 5, 50, 300]))),
        reconnect: (ms(5), ms(pick(r, &[50, 500, 2000]))),
        connect_failure: rate(r, 0.5, 0.3) * faulty,
        hwm_messages: pick(r, &[1, 8, 1000]),
        wire_messages: pick(r, &[2, 20, 1000]),
        publish_loss: rate(r, 0.5, 0.3) * faulty,
        repeat: rate(r, 0.5, 1.0) * faulty,
    }
}

fn faults(r: &mut Rng) -> FaultParameters {
    FaultParameters {
        breaks: sometimes(r, 0.6, 100, 5000),
        cuts: sometimes(r, 0.4, 500, 8000),
        slows: sometimes(r, 0.3, 500, 8000),
        half_opens: sometimes(r, 0.4, 500, 8000),
        deafness: sometimes(r, 0.3, 1000, 10_000),
        suspensions: sometimes(r, 0.4, 1000, 10_000),
        manager_suspensions: None,
        manager_kills: sometimes(r, 0.6, 500, 10_000),
        worker_kills: sometimes(r, 0.6, 500, 8000),
        worker_drains: sometimes(r, 0.3, 1000, 10_000),
        client_kills: sometimes(r, 0.4, 1000, 10_000),
        disk_full: sometimes(r, 0.25, 1000, 10_000),
        sync_failures: sometimes(r, 0.3, 500, 10_000),
        operations: sometimes(r, 0.4, 200, 5000),
        hostilities: sometimes(r, 0.3, 100, 5000),
        forgeries: None,
        results_twice: rate(r, 0.3, 0.3),
        silent_kill: rate(r, 0.5, 1.0),
        power_loss: rate(r, 0.5, 1.0),
        disk: DiskFaults::draw(r),
        damage: rate(r, 0.2, 0.3),
    }
}

fn no_faults(r: &mut Rng) -> FaultParameters {
    FaultParameters {
        breaks: None,
        cuts: None,
        slows: None,
        half_opens: None,
        deafness: None,
        suspensions: None,
        manager_suspensions: None,
        manager_kills: None,
        worker_kills: None,
        worker_drains: None,
        client_kills: None,
        disk_full: None,
        sync_failures: None,
        operations: None,
        hostilities: None,
        forgeries: None,
        results_twice: 0.0,
        silent_kill: 0.0,
        power_loss: 0.0,
        disk: DiskFaults::draw(r),
        damage: 0.0,
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for phase in self.definition.phases() {
            writeln!(f, "{phase:?}")?;
        }
        for (number, phase) in self.phases.iter().enumerate() {
            writeln!(f, "executions of phase {number}: {phase:?}")?;
        }
        for (number, worker) in self.workers.iter().enumerate() {
            writeln!(f, "worker {number}: {worker:?}")?;
        }
        for (number, client) in self.clients.iter().enumerate() {
            writeln!(f, "client {number}: {client:?}")?;
        }
        writeln!(f, "{:?}", self.core)?;
        writeln!(f, "{:?}", self.network)?;
        writeln!(f, "{:?}", self.manager)?;
        writeln!(f, "{:?}", self.faults)?;
        write!(
            f,
            "faults last {:?}, then everything settles within {:?}",
            self.faults_last, self.settle_within
        )
    }
}
