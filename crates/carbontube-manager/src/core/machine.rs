//! The manager's state and its single entry for everything that happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{
    Event, EventKind, FailureKind, JobState, ManagerState, Message, WorkerStatus,
};
use carbontube_protocol::{AttemptId, ManagerId, Timestamp, WorkerId};

use super::adoption::Adoption;
use super::cause::Repeats;
use super::changes::Changes;
use super::epochs::Epochs;
use super::history::History;
use super::job::{JobNo, Jobs};
use super::journal::Journal;
use super::newcomers::Newcomers;
use super::payload::Payloads;
use super::record::Totals;
use super::results::Settled;
use super::series::Series;
use super::waits::Waits;
use super::worker::Workers;
use super::{ClientId, CoreOptions, Effect, Gated, Input, PipeId, RecordSeq};
use crate::PipelineDefinition;

/// How often the manager looks up within a worker timeout.
const LOOKS_UP: u32 = 4;
/// How many jobs whose time has come are handled before anything else has its turn.
const DUE_MAX: usize = 10_000;

/// The manager's state: who has which job, what is durable, and what to do next.
///
/// The shell's loop is: `handle` each input of a batch, `dispatch` once, `take_commit`
/// and hand it to the store, then `poll_effect` until there are none, each released when
/// the record that it names is durable. The core never fails and never blocks; a bad
/// input is answered or counted. [`Input::Tick`] is due at `next_timeout`.
///
/// Same inputs at the same times give the same effects and pages, byte for byte: what is
/// iterated is ordered, and randomness comes from the seed given to recovery.
#[derive(Debug)]
pub struct Core {
    pub(super) definition: PipelineDefinition,
    pub(super) options: CoreOptions,
    pub(super) manager: ManagerId,
    pub(super) epoch: u64,
    pub(super) epochs: Epochs,
    pub(super) started_at: Timestamp,
    pub(super) effects: VecDeque<Gated>,
    pub(super) jobs: Jobs,
    pub(super) workers: Workers,
    pub(super) newcomers: Newcomers,
    pub(super) journal: Journal,
    pub(super) history: History,
    pub(super) payloads: Payloads,
    pub(super) settled: Settled,
    pub(super) waits: Waits,
    pub(super) changes: Changes,
    pub(super) phases: Vec<PhaseTally>,
    pub(super) series: Series,
    pub(super) totals: Totals,
    pub(super) paused_all: bool,
    pub(super) paused: BTreeSet<u16>,
    pub(super) draining: bool,
    pub(super) stopped: bool,
    /// Recovered jobs wait for workers that may hold them.
    pub(super) adoption: Option<Adoption>,
    /// Ready jobs with a ticket below this were recovered.
    pub(super) recovered_below: u64,
    /// What their dispatch waits for.
    pub(super) recovered_after: RecordSeq,
    /// How many of each phase are counted as reruns, whichever they are.
    pub(super) recovered_doubted: BTreeMap<u16, u64>,
    /// Where each phase of the epoch before stands now.
    pub(super) phase_map: Vec<Option<u16>>,
    pub(super) next_attempt: u64,
    /// When it looks up even if nothing is due, while there is anybody to listen to.
    pub(super) looks_up_at: Option<Timestamp>,
    pub(super) cancels: BTreeMap<PipeId, (RecordSeq, Vec<AttemptId>)>,
    pub(super) acks: BTreeMap<(PipeId, u16), (RecordSeq, Vec<AttemptId>)>,
    pub(super) counters: BTreeMap<&'static str, u64>,
    pub(super) repeats: Repeats,
    pub(super) housekeeping_at: Option<Timestamp>,
    pub(super) random: Random,
}

/// What is measured of one phase since this start.
#[derive(Clone, Debug, Default)]
pub(super) struct PhaseTally {
    pub(super) done: u64,
    pub(super) failures: BTreeMap<FailureKind, u64>,
    /// A moving average; 0 when unknown.
    pub(super) duration_us: u64,
}

/// Jitter's numbers: splitmix64, since the core must repeat itself exactly.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Core {
    /// Takes in something that happened.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        self.forgive_own_sleep(now);
        self.advance_series(now);
        match input {
            Input::Enqueue { client, request } => self.handle_enqueue(client, request, now),
            Input::EnqueueUnconfirmed { pipeline, jobs } => {
                self.handle_unconfirmed(pipeline.as_ref(), jobs, now);
            }
            Input::Query { client, request } => self.handle_query(client, request, now),
            Input::Wait { client, request } => self.handle_wait(client, request),
            Input::ClientGone { client } => {
                self.forget_client(client);
                self.forget_changes(client, now);
            }
            Input::Results(results) => self.handle_results(results, now),
            Input::HandBack(hand_back) => self.handle_hand_back(hand_back, now),
            Input::Goodbye(goodbye) => self.handle_goodbye(goodbye.worker, now),
            Input::Heartbeat(heartbeat) => self.handle_heartbeat(heartbeat, now),
            Input::Codec { address, codec } => self.workers.speak(address, codec),
            Input::Echo(head) => self.handle_echo(&head, now),
            Input::Logs(logs) => {
                self.seen(logs.worker, now);
                for line in logs.lines {
                    self.publish(
                        now,
                        EventKind::Log {
                            worker: logs.worker,
                            job_type: logs.job_type.clone(),
                            line,
                        },
                    );
                }
            }
            Input::Progress(progress) => {
                self.seen(progress.worker, now);
                for item in progress.items {
                    self.publish(
                        now,
                        EventKind::Progress {
                            worker: progress.worker,
                            job_type: progress.job_type.clone(),
                            item,
                        },
                    );
                }
            }
            Input::Original(message) => self.handle_original(message, now),
            Input::OriginalEvent(event) => self.handle_original_event(event, now),
            Input::PipeUp { pipe } => self.handle_pipe_up(pipe, now),
            Input::PipeDown { pipe } => self.handle_pipe_down(pipe, now),
            Input::PipeRefused { pipe } => self.handle_pipe_refused(pipe, now),
            Input::Committed { commit } => self.handle_committed(commit, now),
            Input::CommitFailed { commit, fault } => self.handle_commit_failed(commit, fault, now),
            Input::PageRead { log, page, bytes } => self.handle_page_read(log, page, bytes, now),
            Input::Tick => {}
            Input::Drain => self.drain(now),
        }
        self.handle_timers(now);
        self.journal.cut();
    }

    /// Hands ready jobs to workers with room, and sends what was gathered: called once
    /// after each batch of inputs.
    pub fn dispatch(&mut self, now: Timestamp) {
        self.forgive_own_sleep(now);
        self.handle_timers(now);
        self.go_on_changing(now);
        self.send_cancels();
        if !self.draining {
            self.dispatch_ready(now);
            self.steal(now);
        }
        self.payloads.age();
        self.send_acks();
        self.send_ended(now);
        let running: u64 = (0..self.phases.len())
            .map(|phase| self.jobs.counts(phase).running)
            .sum();
        if self.draining
            && running == 0
            && self.waits.is_told()
            && self.changes.is_empty()
            && !self.stopped
        {
            self.stopped = true;
            self.effect(self.journal.last, Effect::Stop);
        }
    }

    /// Gives the next effect.
    pub fn poll_effect(&mut self) -> Option<Gated> {
        self.effects.pop_front()
    }

    /// Tells when to send [`Input::Tick`].
    pub fn next_timeout(&self) -> Option<Timestamp> {
        [
            self.jobs.next_due(),
            self.adoption.as_ref().map(|adoption| adoption.next()),
            self.housekeeping_at,
            self.looks_up_at,
            self.waits.next(),
            self.next_change(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The journal's id.
    pub fn manager_id(&self) -> ManagerId {
        self.manager
    }

    /// What tells this start from others on the same journal: higher with each, and raised
    /// in between when workers know a higher one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the manager takes and dispatches jobs.
    pub fn state(&self) -> ManagerState {
        if self.draining {
            ManagerState::Draining
        } else if self.journal.trouble.is_some() {
            ManagerState::Impaired
        } else if self.adoption.is_some() {
            ManagerState::Adopting
        } else if self.paused_all {
            ManagerState::Paused
        } else {
            ManagerState::Running
        }
    }

    pub(super) fn drain(&mut self, now: Timestamp) {
        if !self.draining {
            self.draining = true;
            self.publish_state(
                now,
                "takes no more jobs and goes when what runs is done".to_owned(),
            );
        }
    }

    fn handle_timers(&mut self, now: Timestamp) {
        self.check_adoption(now);
        for no in self.jobs.due(now, DUE_MAX) {
            let ticket = self.jobs.take_ticket();
            self.jobs.transition(no, JobState::Enqueued, now, |job| {
                job.ticket = ticket;
                job.rare().until = None;
            });
            if !mutation::is(Mutation::ForgetDue) {
                self.journal_due(no);
            }
            self.journal.cut();
        }
        if self.housekeeping_at.is_some_and(|at| at <= now) {
            self.check_workers(now);
            self.retry_reads();
        }
    }

    /// A manager that was stopped for a while (a suspended box, SIGSTOP) has heard nobody
    /// in that time, which says nothing about the workers: their heartbeats are waiting in
    /// the sockets, and so may be what was to be sent to them. So it listens first, takes
    /// nobody for lost, and thinks no pipe broken.
    ///
    /// It knows by looking up more often than anything is due: one who was asleep only just
    /// until a worker's time was over would not see that in its other deadlines.
    fn forgive_own_sleep(&mut self, now: Timestamp) {
        let timeout = self.options.worker_timeout;
        let slept = self
            .looks_up_at
            .is_some_and(|at| at + timeout / LOOKS_UP <= now);
        if slept && !mutation::is(Mutation::ForgetSleep) {
            for worker in self.workers.table.values_mut() {
                for held in worker.attempts.values_mut() {
                    held.since = now;
                    held.missed = 0;
                }
            }
            self.workers.listen_since(now - timeout / 2);
            self.housekeeping_at = Some(now + timeout / 2);
            if let Some(adoption) = &mut self.adoption {
                adoption.until = adoption.until.max(now + timeout / 2);
            }
            self.count("woke_up_late", 1);
        }
        if slept || self.looks_up_at.is_none_or(|at| at <= now) {
            let waits = self.housekeeping_at.is_some() || self.adoption.is_some();
            self.looks_up_at = waits.then_some(now + timeout / LOOKS_UP);
        }
    }

    /// Asks for housekeeping at a time, or earlier.
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.housekeeping_at = Some(self.housekeeping_at.map_or(at, |found| found.min(at)));
    }

    pub(super) fn count(&mut self, name: &'static str, by: u64) {
        if by > 0 {
            *self.counters.entry(name).or_default() += by;
        }
    }

    pub(super) fn effect(&mut self, after: RecordSeq, effect: Effect) {
        let after = match effect {
            Effect::OpenPipe { .. } | Effect::ClosePipe { .. } | Effect::ReadPage { .. } => after,
            // All others may mention the epoch.
            _ => after.max(self.epochs.after),
        };
        let after = match effect {
            Effect::ToPipe { pipe, .. } | Effect::ToOriginalPipe { pipe, .. } => {
                self.behind_others(pipe, after)
            }
            _ => after,
        };
        self.effects.push_back(Gated { after, effect });
    }

    /// What a message on this pipe waits for, which has to leave after all before it.
    pub(super) fn behind_others(&mut self, pipe: PipeId, after: RecordSeq) -> RecordSeq {
        let Some(pipe) = self.workers.pipes.get_mut(&pipe) else {
            return after;
        };
        if mutation::is(Mutation::ForgetPipeOrder) {
            return after;
        }
        pipe.after = pipe.after.max(after);
        pipe.after
    }

    pub(super) fn answer_client(&mut self, after: RecordSeq, client: ClientId, message: Message) {
        self.effect(after, Effect::ToClient { client, message });
    }

    /// Publishes an event, once everything that it can speak of is durable.
    pub(super) fn publish(&mut self, at: Timestamp, kind: EventKind) {
        let after = match kind {
            EventKind::Job { .. } => self.journal.last,
            _ => RecordSeq(0),
        };
        self.effect(after, Effect::Publish(Event { at, kind }));
    }

    pub(super) fn publish_state(&mut self, now: Timestamp, reason: String) {
        let state = self.state();
        self.publish(now, EventKind::Manager { state, reason });
    }

    pub(super) fn publish_job(&mut self, no: JobNo, now: Timestamp, worker: Option<WorkerId>) {
        let Some(job) = self.jobs.job(no) else { return };
        let failure = job.rare.as_ref().and_then(|rare| rare.failure.as_ref());
        let kind = EventKind::Job {
            job: job.id.clone(),
            state: job.state,
            job_type: self.job_type(job.phase).clone(),
            worker: worker.or(job.attempt.map(|(_, worker)| worker)),
            error: failure.map(|failure| failure.error.message.clone()),
        };
        self.publish(now, kind);
    }

    pub(super) fn publish_worker(&mut self, id: WorkerId, now: Timestamp, status: WorkerStatus) {
        let Some(worker) = self.workers.table.get(&id) else {
            return;
        };
        let kind = EventKind::Worker {
            worker: id,
            job_type: self.job_type(worker.phase).clone(),
            status,
            host: worker.host.clone(),
            slots: worker.slots,
        };
        self.publish(now, kind);
    }

    pub(super) fn job_type(&self, phase: u16) -> &carbontube_protocol::JobType {
        &self.definition.phases()[usize::from(phase)].job_type
    }

    pub(super) fn phase_of(&self, job_type: &str) -> Option<u16> {
        let phases = self.definition.phases();
        let index = phases.iter().position(|p| p.job_type.as_str() == job_type);
        index.and_then(|index| u16::try_from(index).ok())
    }

    /// Whether an attempt can be one of this very job, and not of a former one of its id.
    pub(super) fn may_be_of(&self, attempt: AttemptId, no: JobNo) -> bool {
        let job = self.jobs.job(no);
        // A journal that this one is a copy of may have gone on, to higher epochs.
        let is_of_another = |since| self.is_of_this_start(since) && !self.is_of_this_start(attempt);
        job.is_some_and(|job| attempt >= job.since && !is_of_another(job.since))
    }

    /// The place now of a phase that stood at `phase` when the attempt was made.
    pub(super) fn phase_now(&self, attempt: AttemptId, phase: u16) -> Option<u16> {
        if self.is_of_this_start(attempt) {
            (usize::from(phase) < self.phases.len()).then_some(phase)
        } else {
            self.phase_map.get(usize::from(phase)).copied().flatten()
        }
    }

    pub(super) fn backoff(&mut self, phase: u16, tries: u32) -> Duration {
        let backoff = self.definition.phases()[usize::from(phase)].backoff;
        let factor = 1u32 << tries.saturating_sub(1).min(30);
        let wait = backoff.first.saturating_mul(factor).min(backoff.longest);
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX / 4);
        // A quarter either way, so that jobs that failed together do not come together.
        let spread = micros / 2 + 1;
        Duration::from_micros(micros - micros / 4 + self.random.next() % spread)
    }

    pub(super) fn payload_copy(bytes: &Bytes) -> Bytes {
        // A frame shares its message's whole buffer, which would stay as long.
        Bytes::copy_from_slice(bytes)
    }
}
