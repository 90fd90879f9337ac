//! A manager's core with what stands around it, driven by hand: a disk, pipes, clients.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use carbontube_manager::core::{
    ClientId, Commit, Core, CoreOptions, Effect, Gated, Input, PipeId, RecordSeq, RecoverError,
    Recovery, StoreFault,
};
use carbontube_manager::{PhaseDefinition, PipelineDefinition};
use carbontube_protocol::message::{Message, PipeHead};
use carbontube_protocol::{AttemptId, Codec, JobId, Limits, Timestamp, decode, encode};
use carbontube_storage::{Log, PAGE_BYTES_MAX, PageSeq};

use crate::samples;

/// Attempts that inputs may speak of.
const ATTEMPTS_KEPT_MAX: usize = 64;
/// Effects of one input with all that follows from it at once.
const EFFECTS_MAX: usize = 20_000;

/// Marks the number of a wait.
const WAIT: u64 = 1 << 63;

/// The pages of both logs.
pub type Pages = BTreeMap<(u8, PageSeq), Bytes>;

/// A core, its disk, and everything that is on its way.
#[derive(Debug)]
pub struct Bed {
    /// The core.
    pub core: Core,
    /// The time that it is told.
    pub now: Timestamp,
    /// What is durable.
    pub disk: Pages,
    /// Commits that the store has, in order.
    pub commits: VecDeque<Commit>,
    durable: RecordSeq,
    waiting: VecDeque<Gated>,
    /// Pages that were asked for.
    pub reads: VecDeque<(Log, PageSeq)>,
    /// Pipes that were opened and not closed.
    pub pipes: Vec<PipeId>,
    /// Attempts that were dispatched lately: with their job and phase.
    pub attempts: VecDeque<(AttemptId, JobId, u16)>,
    /// Requests that have not been answered.
    pub asked: BTreeMap<(ClientId, u64), usize>,
    /// Limits of what the core sends.
    limits: Limits,
}

/// Limits that short inputs reach.
pub fn limits() -> Limits {
    Limits {
        instructions_bytes_max: 2048,
        body_bytes_max: 16 << 10,
        batch_jobs_max: 24,
        message_bytes_max: 64 << 10,
        error_bytes_max: 64,
        detail_bytes_max: 128,
        log_line_bytes_max: 64,
    }
}

/// Options that short inputs reach.
pub fn options() -> CoreOptions {
    CoreOptions {
        limits: limits(),
        live_jobs_max: 40,
        workers_max: 5,
        slots_max: 16,
        waits_max: (8, 12),
        history_jobs_max: 12,
        history_age_max: Duration::from_secs(3600),
        history_result_bytes_max: 512,
        page_bytes: 1024,
        payload_cache_bytes_max: 1024,
        prefetch_max: 8,
        list_jobs_max: 6,
        ..CoreOptions::default()
    }
}

/// Two phases that fail after two tries.
pub fn definition() -> PipelineDefinition {
    let phase = |name: &str| PhaseDefinition {
        attempts: 2,
        ..PhaseDefinition::new(samples::job_type(name))
    };
    PipelineDefinition::new(samples::pipeline(), vec![phase("encode"), phase("split")])
        .expect("a sound pipeline")
}

/// Builds a core from pages, as a start does.
///
/// # Errors
/// When the pages are no journal of this pipeline.
pub fn recover(disk: &Pages, now: Timestamp) -> Result<Core, RecoverError> {
    let mut recovery = Recovery::new(definition(), options());
    for ((tag, seq), page) in disk {
        if *tag == Log::Journal.tag() {
            recovery.journal_page(*seq, page)?;
        }
    }
    for ((tag, seq), page) in disk {
        if *tag == Log::History.tag() {
            recovery.history_page(*seq, page)?;
        }
    }
    recovery.finish(now, samples::manager(7), 1)
}

impl Bed {
    /// A new journal's core.
    pub fn new() -> Bed {
        Bed::on(Pages::new()).expect("an empty journal is one")
    }

    /// A core on a disk.
    ///
    /// # Errors
    /// As [`recover`].
    pub fn on(disk: Pages) -> Result<Bed, RecoverError> {
        let now = Timestamp(1_700_000_000_000_000);
        let mut bed = Bed {
            core: recover(&disk, now)?,
            now,
            disk,
            commits: VecDeque::new(),
            durable: RecordSeq(0),
            waiting: VecDeque::new(),
            reads: VecDeque::new(),
            pipes: Vec::new(),
            attempts: VecDeque::new(),
            asked: BTreeMap::new(),
            limits: limits(),
        };
        bed.settle();
        Ok(bed)
    }

    /// Gives the core an input and lets follow what follows.
    pub fn input(&mut self, mut input: Input) {
        // Clients may number as they like; here the number tells whether it is a wait,
        // which is answered at any time, or never.
        match &mut input {
            Input::Enqueue { client, request } => self.ask(*client, &mut request.request),
            Input::Query { client, request } => self.ask(*client, &mut request.request),
            Input::Wait { request, .. } => request.request |= WAIT,
            _ => {}
        }
        self.core.handle(input, self.now);
        self.settle();
    }

    fn ask(&mut self, client: ClientId, request: &mut u64) {
        *request &= !WAIT;
        *self.asked.entry((client, *request)).or_default() += 1;
    }

    /// What the shell does after a batch of inputs.
    pub fn settle(&mut self) {
        self.core.dispatch(self.now);
        if self.commits.len() < 2
            && let Some(commit) = self.core.take_commit(self.now)
        {
            self.check_commit(&commit);
            self.commits.push_back(commit);
        }
        let mut effects = 0;
        while let Some(gated) = self.core.poll_effect() {
            effects += 1;
            self.waiting.push_back(gated);
        }
        assert!(effects <= EFFECTS_MAX, "{effects} effects of one input");
        self.release();
    }

    fn release(&mut self) {
        for gated in std::mem::take(&mut self.waiting) {
            if gated.after > self.durable {
                self.waiting.push_back(gated);
                continue;
            }
            match gated.effect {
                Effect::ToClient { client, message } => self.check_answer(client, &message),
                Effect::ToPipe { pipe, message } => self.check_order(pipe, &message),
                Effect::ToOriginalPipe { pipe, frame } => {
                    assert!(self.pipes.contains(&pipe));
                    serde_json::from_slice::<serde_json::Value>(&frame)
                        .expect("a job for the original is JSON");
                }
                Effect::OpenPipe { pipe, .. } => self.pipes.push(pipe),
                Effect::ClosePipe { pipe } => self.pipes.retain(|open| *open != pipe),
                Effect::ReadPage { log, page } => self.reads.push_back((log, page)),
                Effect::Publish(_) | Effect::Warn(_) | Effect::Stop => {}
            }
        }
    }

    fn check_commit(&self, commit: &Commit) {
        let last = |log: Log| {
            let in_flight = self.commits.iter().flat_map(|commit| &commit.put);
            let there = self.disk.keys().filter(|(tag, _)| *tag == log.tag());
            let flying = in_flight.filter(|(of, ..)| *of == log);
            there
                .map(|(_, seq)| *seq)
                .chain(flying.map(|(_, seq, _)| *seq))
                .max()
        };
        for log in Log::ALL {
            let mut next = last(log);
            for (_, seq, page) in commit.put.iter().filter(|(of, ..)| *of == log) {
                if let Some(last) = next {
                    assert_eq!(*seq, last.next(), "pages of the {log} have no gaps");
                }
                next = Some(*seq);
                assert!(!page.is_empty() && page.len() <= PAGE_BYTES_MAX);
            }
        }
    }

    fn check_answer(&mut self, client: ClientId, message: &Message) {
        self.check_sendable(message);
        let request = match message {
            Message::Enqueued(enqueued) => enqueued.request,
            Message::Answer(answer) => answer.request,
            Message::Refusal(refusal) => refusal.request.expect("the core knows the request"),
            Message::Ended(_) => return,
            other => panic!("a client was sent {other:?}"),
        };
        let Some(open) = self.asked.get_mut(&(client, request)) else {
            assert!(
                request & WAIT != 0 && matches!(message, Message::Refusal(_)),
                "nobody asked for {message:?}"
            );
            return;
        };
        *open -= 1;
        if *open == 0 {
            self.asked.remove(&(client, request));
        }
    }

    /// What the core sends keeps to the limits that it holds others to.
    fn check_sendable(&self, message: &Message) {
        for codec in [Codec::Bincode, Codec::Json] {
            let frames = encode(message, codec);
            // Error texts and names need more room than these small limits have.
            let limits = Limits {
                body_bytes_max: Limits::default().body_bytes_max,
                ..self.limits.clone()
            };
            if let Err(error) = decode(&frames, &limits) {
                panic!("the core sends what cannot be read: {error}: {message:?}");
            }
        }
    }

    fn check_order(&mut self, pipe: PipeId, message: &Message) {
        self.check_sendable(message);
        let head: PipeHead = match message {
            Message::Hello(m) => m.head,
            Message::Dispatch(m) => m.head,
            Message::Ack(m) => m.head,
            Message::Recall(m) => m.head,
            Message::Cancel(m) => m.head,
            Message::Drain(m) => m.head,
            other => panic!("{other:?} on a pipe"),
        };
        assert_eq!(head.epoch, self.core.epoch());
        assert_eq!(head.manager, self.core.manager_id());
        let _ = pipe;
        if let Message::Dispatch(dispatch) = message {
            for job in &dispatch.jobs {
                let known = (job.attempt, job.job.clone(), job.phase);
                self.attempts.push_back(known);
                if self.attempts.len() > ATTEMPTS_KEPT_MAX {
                    self.attempts.pop_front();
                }
            }
        }
    }

    /// The store has the oldest commit safe.
    pub fn commit(&mut self) {
        let Some(commit) = self.commits.pop_front() else {
            return;
        };
        for (log, seq, page) in &commit.put {
            self.disk.insert((log.tag(), *seq), page.clone());
        }
        let from = |log: Log| match log {
            Log::Journal => commit.journal_from,
            Log::History => commit.history_from,
        };
        for log in Log::ALL {
            self.disk
                .retain(|(tag, seq), _| *tag != log.tag() || *seq >= from(log));
        }
        self.durable = commit.through;
        self.input(Input::Committed { commit: commit.id });
    }

    /// The store could not keep the oldest commit, and tries again.
    pub fn fail_commit(&mut self, full: bool) {
        let Some(commit) = self.commits.front() else {
            return;
        };
        let commit = commit.id;
        self.input(Input::CommitFailed {
            commit,
            fault: fault(full),
        });
    }

    /// Answers the oldest read: with the page, or not.
    pub fn read(&mut self, how: ReadAnswer) {
        let Some((log, page)) = self.reads.pop_front() else {
            return;
        };
        let bytes = match how {
            ReadAnswer::Page => Ok(self.disk.get(&(log.tag(), page)).cloned()),
            ReadAnswer::Gone => Ok(None),
            ReadAnswer::Fault => Err(fault(false)),
        };
        self.input(Input::PageRead { log, page, bytes });
    }

    /// Lets everything that is under way end well.
    pub fn quiet(&mut self) {
        // A read gone wrong is tried again after a time.
        for _ in 0..200 {
            self.settle();
            if !self.commits.is_empty() {
                self.commit();
            } else if !self.reads.is_empty() {
                self.read(ReadAnswer::Page);
            } else if !self.asked.is_empty() {
                self.now = self.now + Duration::from_millis(500);
                self.input(Input::Tick);
            } else {
                return;
            }
        }
    }

    /// The manager is killed and started again on what is durable.
    pub fn restart(&mut self) {
        let disk = std::mem::take(&mut self.disk);
        let attempts = std::mem::take(&mut self.attempts);
        let now = self.now;
        *self = Bed::on(disk).expect("what the core wrote is a journal");
        self.now = now;
        self.attempts = attempts;
    }
}

impl Default for Bed {
    fn default() -> Self {
        Bed::new()
    }
}

/// What becomes of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// The page, if it is there.
    Page,
    /// No such page.
    Gone,
    /// The store is in trouble.
    Fault,
}

fn fault(full: bool) -> StoreFault {
    let text = "as the input wants it".to_owned();
    if full {
        StoreFault::Full(text)
    } else {
        StoreFault::Unavailable(text)
    }
}
