//! The bed: a core, its store in memory, and simulated workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    Answer, AttemptResult, DispatchedJob, Enqueue, EnqueueOutcome, ErrorReport, FailureKind,
    HandBack, HandBackReason, HandedBack, Heartbeat, Held, HeldFor, HeldState, JobState, Message,
    NewJob, Outcome, Query, QueryRequest, Results, Stats, WorkerState,
};
use carbontube_protocol::{
    Address, AttemptId, JobId, JobType, ManagerId, PipelineName, Timestamp, WorkerId,
};
use carbontube_storage::{Log, PageSeq};

use crate::core::{
    ClientId, Commit, Core, CoreOptions, Effect, Gated, Input, PipeId, RecordSeq, Recovery,
    StoreFault,
};
use crate::{PhaseDefinition, PipelineDefinition};

pub(super) const CLIENT: ClientId = ClientId(1);

/// More than any test needs: a core that is never done would let it hang.
const TURNS_MAX: usize = 100_000;

pub(super) fn id(text: &str) -> JobId {
    JobId::new(text).expect("the test's id is one")
}

pub(super) fn worker_id(n: u8) -> WorkerId {
    WorkerId::from_bytes([n; 16])
}

pub(super) fn pipeline(phases: &[&str]) -> PipelineDefinition {
    let phase = |name: &&str| PhaseDefinition::new(JobType::new(name).expect("a name"));
    let name = PipelineName::new("test").expect("a name");
    PipelineDefinition::new(name, phases.iter().map(phase).collect()).expect("phases")
}

/// The pages that a store would hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(pub(super) BTreeMap<(u8, u64), Bytes>);

impl Disk {
    pub(super) fn apply(&mut self, commit: &Commit) {
        for (log, seq, bytes) in &commit.put {
            assert!(!bytes.is_empty() && bytes.len() <= carbontube_storage::PAGE_BYTES_MAX);
            if let Some(((_, last), _)) = self
                .0
                .range((log.tag(), 0)..=(log.tag(), u64::MAX))
                .next_back()
            {
                assert_eq!(last + 1, seq.0, "pages follow on");
            }
            self.0.insert((log.tag(), seq.0), bytes.clone());
        }
        let (journal, history) = (commit.journal_from, commit.history_from);
        self.0.retain(|(log, seq), _| {
            let from = if *log == Log::Journal.tag() {
                journal
            } else {
                history
            };
            *seq >= from.0
        });
    }

    pub(super) fn recover(
        &self,
        definition: PipelineDefinition,
        options: CoreOptions,
        now: Timestamp,
    ) -> Core {
        let mut recovery = Recovery::new(definition, options);
        for log in Log::ALL {
            for ((_, seq), bytes) in self.0.range((log.tag(), 0)..=(log.tag(), u64::MAX)) {
                match log {
                    Log::Journal => recovery.journal_page(PageSeq(*seq), bytes),
                    Log::History => recovery.history_page(PageSeq(*seq), bytes),
                }
                .expect("the page is readable");
            }
        }
        let fresh = ManagerId::from_bytes([9; 16]);
        recovery.finish(now, fresh, 7).expect("the journal is ours")
    }
}

/// A simulated worker: runs what it holds in order, in virtual time.
#[derive(Debug)]
pub(super) struct SimWorker {
    pub(super) job_type: String,
    pub(super) slots: usize,
    pub(super) address: Address,
    pub(super) pipe: Option<PipeId>,
    /// The epoch that it follows, and the last number in it.
    pub(super) received: (u64, u64),
    /// The last hello of an earlier epoch: it is not followed.
    pub(super) rival: Option<(u64, u64)>,
    pub(super) queue: VecDeque<DispatchedJob>,
    pub(super) running: Vec<(Timestamp, DispatchedJob)>,
    pub(super) done: BTreeMap<AttemptId, AttemptResult>,
    pub(super) ran: Vec<(Timestamp, JobId, u16)>,
    pub(super) alive: bool,
    pub(super) beat: u64,
    pub(super) draining: bool,
    pub(super) shared: bool,
}

pub(super) struct Bed {
    pub(super) core: Core,
    pub(super) now: Timestamp,
    pub(super) disk: Disk,
    pub(super) store_works: bool,
    /// A page that cannot be read.
    pub(super) damaged: Option<PageSeq>,
    pub(super) durable: RecordSeq,
    pub(super) waiting: VecDeque<Gated>,
    pub(super) workers: BTreeMap<WorkerId, SimWorker>,
    pub(super) to_client: Vec<Message>,
    pub(super) sent: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) opened: Vec<PipeId>,
    pub(super) definition: PipelineDefinition,
    pub(super) options: CoreOptions,
    pub(super) duration: fn(&JobId) -> Duration,
    pub(super) stopped: bool,
    pub(super) commits_undone: VecDeque<Commit>,
    pub(super) deliver: bool,
    /// Whether workers answer a hello at once.
    pub(super) answers: bool,
    pub(super) pipes: BTreeMap<Address, PipeId>,
    turn: usize,
}

impl Bed {
    pub(super) fn new(phases: &[&str]) -> Bed {
        Bed::with(pipeline(phases), CoreOptions::default())
    }

    pub(super) fn with(definition: PipelineDefinition, options: CoreOptions) -> Bed {
        let now = Timestamp(1_000_000_000);
        let core = Disk::default().recover(definition.clone(), options.clone(), now);
        let mut bed = Bed {
            core,
            now,
            disk: Disk::default(),
            store_works: true,
            damaged: None,
            durable: RecordSeq(0),
            waiting: VecDeque::new(),
            workers: BTreeMap::new(),
            to_client: Vec::new(),
            sent: Vec::new(),
            warnings: Vec::new(),
            opened: Vec::new(),
            definition,
            options,
            duration: |_| Duration::from_millis(5),
            stopped: false,
            commits_undone: VecDeque::new(),
            deliver: true,
            answers: true,
            pipes: BTreeMap::new(),
            turn: 0,
        };
        bed.settle();
        bed
    }

    pub(super) fn input(&mut self, input: Input) {
        self.core.handle(input, self.now);
        self.settle();
    }

    /// What the shell does after a batch, until nothing is left to do.
    ///
    /// # Panics
    /// If there is always more.
    pub(super) fn settle(&mut self) {
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "the core never has enough");
            self.core.dispatch(self.now);
            if let Some(commit) = self.core.take_commit(self.now) {
                self.commits_undone.push_back(commit);
            }
            let mut inputs = Vec::new();
            if self.store_works {
                while let Some(commit) = self.commits_undone.pop_front() {
                    self.disk.apply(&commit);
                    self.durable = commit.through;
                    inputs.push(Input::Committed { commit: commit.id });
                }
            }
            while let Some(gated) = self.core.poll_effect() {
                self.waiting.push_back(gated);
            }
            let mut blocked = BTreeSet::new();
            for gated in std::mem::take(&mut self.waiting) {
                let pipe = match &gated.effect {
                    Effect::ToPipe { pipe, .. } => Some(*pipe),
                    _ => None,
                };
                // A pipe keeps its order, as the shell promises.
                let is_blocked = pipe.is_some_and(|pipe| blocked.contains(&pipe));
                if gated.after <= self.durable && !is_blocked {
                    self.carry_out(gated.effect, &mut inputs);
                } else {
                    blocked.extend(pipe);
                    self.waiting.push_back(gated);
                }
            }
            if inputs.is_empty() {
                return;
            }
            for input in inputs {
                self.core.handle(input, self.now);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, inputs: &mut Vec<Input>) {
        match effect {
            Effect::ToClient { message, .. } => self.to_client.push(message),
            Effect::OpenPipe { pipe, address, .. } => {
                self.opened.push(pipe);
                let mut is_up = false;
                for worker in self.workers.values_mut() {
                    if address == worker.address && worker.alive {
                        worker.pipe = Some(pipe);
                        is_up = true;
                    }
                }
                self.pipes.insert(address, pipe);
                if is_up {
                    inputs.push(Input::PipeUp { pipe });
                }
            }
            Effect::ClosePipe { pipe } => {
                self.pipes.retain(|_, found| *found != pipe);
                for worker in self.workers.values_mut() {
                    if worker.pipe == Some(pipe) {
                        worker.pipe = None;
                    }
                }
            }
            Effect::ReadPage { log, page } => {
                let bytes = match self.damaged == Some(page) {
                    true => Err(StoreFault::Broken("a bit was flipped".to_owned())),
                    false => Ok(self.disk.0.get(&(log.tag(), page.0)).cloned()),
                };
                inputs.push(Input::PageRead { log, page, bytes });
            }
            Effect::ToPipe { pipe, message } => self.receive(pipe, message, inputs),
            Effect::ToOriginalPipe { frame, .. } => {
                self.sent.push(String::from_utf8_lossy(&frame).into_owned());
            }
            Effect::Warn(text) => self.warnings.push(text),
            Effect::Publish(_) => {}
            Effect::Stop => self.stopped = true,
        }
    }

    fn receive(&mut self, pipe: PipeId, message: Message, inputs: &mut Vec<Input>) {
        // A device between gives to one after the other.
        self.turn += 1;
        let behind = |w: &SimWorker| w.pipe == Some(pipe) && w.alive;
        let all = self.workers.values().filter(|w| behind(w)).count();
        let found = self.workers.iter_mut().filter(|(_, w)| behind(w));
        let Some((id, worker)) = found.into_iter().nth(self.turn % all.max(1)) else {
            return;
        };
        if !self.deliver || !worker.alive {
            return;
        }
        let head = match &message {
            Message::Hello(m) => m.head,
            Message::Dispatch(m) => m.head,
            Message::Ack(m) => m.head,
            Message::Recall(m) => m.head,
            Message::Cancel(m) => m.head,
            Message::Drain(m) => m.head,
            other => panic!("{other:?} does not belong on a pipe"),
        };
        let (epoch, number) = worker.received;
        let is_of_former_pipe = head.epoch == epoch && head.sequence >> 32 < number >> 32;
        if head.epoch < epoch || is_of_former_pipe {
            if matches!(message, Message::Hello(_)) {
                worker.rival = Some((head.epoch, head.sequence));
                let id = *id;
                if self.answers {
                    inputs.extend(self.heartbeat(id).map(Input::Heartbeat));
                }
            }
            return;
        }
        if head.epoch == worker.received.0 {
            assert!(
                head.sequence > worker.received.1,
                "a pipe's messages are in order"
            );
        }
        if head.epoch > worker.received.0 {
            worker.rival = None;
        }
        worker.received = (head.epoch, head.sequence);
        match message {
            Message::Dispatch(dispatch) => {
                let is_mine = worker.shared || dispatch.worker.is_none_or(|aim| aim == *id);
                let jobs = dispatch.jobs.into_iter().filter(|_| is_mine);
                worker.queue.extend(jobs);
            }
            Message::Ack(ack) => {
                for attempt in ack.attempts {
                    worker.done.remove(&attempt);
                }
            }
            Message::Recall(recall) => {
                let (back, kept) = std::mem::take(&mut worker.queue)
                    .into_iter()
                    .partition(|job| recall.attempts.contains(&job.attempt));
                worker.queue = kept;
                let back: VecDeque<DispatchedJob> = back;
                let attempts = back.iter().map(|job| HandedBack {
                    attempt: job.attempt,
                    job: job.job.clone(),
                    phase: job.phase,
                });
                inputs.push(Input::HandBack(HandBack {
                    worker: *id,
                    reason: HandBackReason::Recalled,
                    attempts: attempts.collect(),
                }));
            }
            Message::Cancel(cancel) => {
                self.sent.push(format!("cancel {:?}", cancel.attempts));
                worker
                    .queue
                    .retain(|job| !cancel.attempts.contains(&job.attempt));
                worker
                    .running
                    .retain(|(_, job)| !cancel.attempts.contains(&job.attempt));
            }
            Message::Drain(_) => worker.draining = true,
            Message::Hello(_) => {
                let id = *id;
                if self.answers {
                    inputs.extend(self.heartbeat(id).map(Input::Heartbeat));
                }
                return;
            }
            _ => {}
        }
        let slots = worker.slots;
        let now = self.now;
        worker.start(now, slots, self.duration);
    }

    pub(super) fn add_worker(&mut self, n: u8, job_type: &str, slots: usize) -> WorkerId {
        self.add_worker_at(n, job_type, slots, address_of(worker_id(n)), false)
    }

    /// As [`Bed::add_worker`], at an address that may be another one's or many's.
    pub(super) fn add_worker_at(
        &mut self,
        n: u8,
        job_type: &str,
        slots: usize,
        address: Address,
        shared: bool,
    ) -> WorkerId {
        let id = worker_id(n);
        let pipe = self.pipes.get(&address).copied();
        self.workers.insert(
            id,
            SimWorker {
                address,
                job_type: job_type.to_owned(),
                slots,
                pipe,
                received: (0, 0),
                rival: None,
                queue: VecDeque::new(),
                running: Vec::new(),
                done: BTreeMap::new(),
                ran: Vec::new(),
                alive: true,
                beat: 0,
                draining: false,
                shared,
            },
        );
        self.beat(id);
        id
    }

    pub(super) fn beat(&mut self, id: WorkerId) {
        if let Some(beat) = self.heartbeat(id) {
            self.input(Input::Heartbeat(beat));
        }
    }

    /// What the worker says of itself now, if it lives.
    pub(super) fn heartbeat(&mut self, id: WorkerId) -> Option<Heartbeat> {
        let manager = self.core.manager_id();
        let worker = self.workers.get_mut(&id).filter(|w| w.alive)?;
        worker.beat += 1;
        let held = |job: &DispatchedJob, state| Held {
            attempt: job.attempt,
            job: job.job.clone(),
            phase: job.phase,
            state,
        };
        let mut all: Vec<Held> = Vec::new();
        all.extend(worker.queue.iter().map(|job| held(job, HeldState::Queued)));
        all.extend(
            worker
                .running
                .iter()
                .map(|(_, job)| held(job, HeldState::Running)),
        );
        all.extend(worker.done.values().map(|result| Held {
            attempt: result.attempt,
            job: result.job.clone(),
            phase: result.phase,
            state: HeldState::Done,
        }));
        Some(Heartbeat {
            worker: id,
            sequence: worker.beat,
            job_type: JobType::new(&worker.job_type).expect("a name"),
            address: worker.address.clone(),
            shared_address: worker.shared,
            slots: u32::try_from(worker.slots).expect("few"),
            state: if worker.draining {
                WorkerState::Draining
            } else {
                WorkerState::Available
            },
            managers: [Some(worker.received), worker.rival]
                .into_iter()
                .flatten()
                .map(|(epoch, sequence)| HeldFor {
                    manager,
                    epoch,
                    sequence,
                    held: std::mem::take(&mut all),
                })
                .collect(),
            success_count: 0,
            failed_count: 0,
            host: "box".to_owned(),
            pid: 1,
            started_at: Timestamp(1),
            version: "test".to_owned(),
        })
    }

    pub(super) fn enqueue(&mut self, ids: &[&str]) -> Vec<EnqueueOutcome> {
        let jobs: Vec<NewJob> = ids.iter().map(|text| new_job(id(text))).collect();
        self.enqueue_jobs(jobs)
    }

    pub(super) fn enqueue_jobs(&mut self, jobs: Vec<NewJob>) -> Vec<EnqueueOutcome> {
        let pipeline = self.definition.name().clone();
        let request = Enqueue {
            request: 5,
            pipeline,
            jobs,
        };
        self.to_client.clear();
        self.input(Input::Enqueue {
            client: CLIENT,
            request,
        });
        match self.to_client.pop() {
            Some(Message::Enqueued(enqueued)) => enqueued.outcomes,
            None => Vec::new(),
            other => panic!("an enqueue was answered with {other:?}"),
        }
    }

    pub(super) fn ask(&mut self, query: Query) -> Answer {
        self.to_client.clear();
        let request = QueryRequest { request: 6, query };
        self.input(Input::Query {
            client: CLIENT,
            request,
        });
        match self.to_client.pop() {
            Some(Message::Answer(answer)) => answer.answer,
            other => panic!("a query was answered with {other:?}"),
        }
    }

    pub(super) fn stats(&mut self) -> Stats {
        match self.ask(Query::Stats) {
            Answer::Stats(stats) => stats,
            other => panic!("stats were asked, {other:?} came"),
        }
    }

    pub(super) fn state(&mut self, job: &str) -> Option<JobState> {
        self.core.state_of(&id(job))
    }

    /// Sends the result of a held attempt.
    pub(super) fn finish(&mut self, worker: WorkerId, job: &str, outcome: Outcome, output: &str) {
        let job = id(job);
        let sim = self.workers.get_mut(&worker).expect("the worker is there");
        let found = sim
            .running
            .iter()
            .position(|(_, running)| running.job == job);
        let found = found.unwrap_or_else(|| panic!("worker {worker} does not run {job}"));
        let (_, running) = sim.running.remove(found);
        let result = AttemptResult {
            attempt: running.attempt,
            job,
            phase: running.phase,
            started_at: Timestamp(self.now.0 - 1000),
            finished_at: self.now,
            outcome,
            instructions: Bytes::copy_from_slice(output.as_bytes()),
        };
        sim.done.insert(result.attempt, result.clone());
        let (slots, now) = (sim.slots, self.now);
        sim.start(now, slots, self.duration);
        self.result(worker, result);
    }

    pub(super) fn result(&mut self, worker: WorkerId, result: AttemptResult) {
        let results = vec![result];
        self.input(Input::Results(Results {
            worker,
            route: 0,
            results,
        }));
    }

    /// What a worker says that had to stop the first attempt it runs.
    pub(super) fn abandonment(&self, worker: WorkerId) -> HandBack {
        let job = self.workers[&worker].running[0].1.clone();
        HandBack {
            worker,
            reason: HandBackReason::Abandoned,
            attempts: vec![HandedBack {
                attempt: job.attempt,
                job: job.job,
                phase: job.phase,
            }],
        }
    }

    /// Lets time pass for a manager that is awake.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.core.next_timeout()
            && self.now < next
            && next < end
        {
            self.now = next;
            self.input(Input::Tick);
        }
        self.now = end;
        self.input(Input::Tick);
    }

    /// Lets time pass for a manager that is stopped meanwhile.
    pub(super) fn sleep(&mut self, time: Duration) {
        self.now = self.now + time;
        self.input(Input::Tick);
    }

    /// Lets virtual time run until nothing runs, workers beating each second.
    pub(super) fn run(&mut self, most: Duration) {
        let end = self.now + most;
        let mut next_beat = self.now + Duration::from_secs(1);
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "time stands still");
            let ends = self
                .workers
                .values()
                .filter(|w| w.alive)
                .flat_map(|w| w.running.iter().map(|(at, _)| *at));
            let next = ends
                .chain([next_beat])
                .chain(self.core.next_timeout())
                .min();
            let next = next.expect("the next heartbeat").max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            let mut finished = Vec::new();
            for (id, worker) in &self.workers {
                for (at, job) in &worker.running {
                    if *at <= next && worker.alive {
                        finished.push((*id, job.job.to_string()));
                    }
                }
            }
            for (worker, job) in finished {
                // An earlier result of this moment may have cancelled it.
                if self.runs(worker).contains(&job) {
                    self.finish(worker, &job, Outcome::Success, "");
                }
            }
            if self.now >= next_beat {
                next_beat = self.now + Duration::from_secs(1);
                for id in self.workers.keys().copied().collect::<Vec<_>>() {
                    self.beat(id);
                }
            }
            self.input(Input::Tick);
            if self.core.jobs.len() == 0 {
                return;
            }
        }
    }

    pub(super) fn runs(&self, worker: WorkerId) -> Vec<String> {
        let worker = &self.workers[&worker];
        worker
            .running
            .iter()
            .map(|(_, job)| job.job.to_string())
            .collect()
    }

    /// Kills the manager and starts it on what is on disk.
    pub(super) fn restart(&mut self) {
        let (definition, options) = (self.definition.clone(), self.options.clone());
        self.core = self.disk.recover(definition, options, self.now);
        self.durable = RecordSeq(0);
        self.waiting.clear();
        self.commits_undone.clear();
        self.pipes.clear();
        for worker in self.workers.values_mut() {
            worker.pipe = None;
        }
        self.settle();
    }
}

impl SimWorker {
    fn start(&mut self, now: Timestamp, slots: usize, duration: fn(&JobId) -> Duration) {
        while self.running.len() < slots
            && let Some(job) = self.queue.pop_front()
        {
            self.ran.push((now, job.job.clone(), job.phase));
            self.running.push((now + duration(&job.job), job));
        }
    }
}

pub(super) fn address_of(id: WorkerId) -> carbontube_protocol::Address {
    let port = 7000 + u16::from(id.as_bytes()[0]);
    format!("tcp://127.0.0.1:{port}")
        .parse()
        .expect("an address")
}

pub(super) fn new_job(id: JobId) -> NewJob {
    NewJob {
        id: Some(id),
        delay_ms: 0,
        traceparent: None,
        instructions: Bytes::from_static(b"{\"a\":1}"),
    }
}

pub(super) fn failure(retry: bool) -> Outcome {
    let error = ErrorReport {
        message: "it broke".to_owned(),
        detail: String::new(),
    };
    Outcome::Failure {
        kind: FailureKind::Error,
        error,
        retry,
    }
}
