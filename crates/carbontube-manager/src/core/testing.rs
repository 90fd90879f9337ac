//! A look at the core's state for the simulator's invariants. Never in what is released.

use carbontube_protocol::message::{HeldState, JobState};
use carbontube_protocol::{Address, AttemptId, JobId, Timestamp, WorkerId};
use carbontube_storage::PageSeq;

use super::job::Job;
use super::machine::Core;
use super::{PipeId, RecordSeq};

/// One live job as the core has it.
#[derive(Clone, Copy, Debug)]
pub struct JobSnapshot<'a> {
    /// Its id.
    pub id: &'a JobId,
    /// Its state.
    pub state: JobState,
    /// The index of the phase that is next or runs.
    pub phase: u16,
    /// Failed attempts at this phase.
    pub tries: u32,
    /// Workers lost with it at this phase.
    pub losses: u32,
    /// Its place in its phase's queue.
    pub ticket: u64,
    /// When it came.
    pub enqueued_at: Timestamp,
    /// The journal page where its latest full record begins, and how long that is.
    pub home: (PageSeq, u32),
    /// The last record about it.
    pub after: RecordSeq,
    /// The attempt that runs it, and where.
    pub attempt: Option<(AttemptId, WorkerId)>,
    /// Until when it waits, if it does.
    pub until: Option<Timestamp>,
}

/// One attempt that is counted with a worker.
#[derive(Clone, Copy, Debug)]
pub struct AttemptState<'a> {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its job.
    pub job: &'a JobId,
    /// The phase.
    pub phase: u16,
    /// What the worker said of it last.
    pub reported: Option<HeldState>,
    /// Whether it was recalled.
    pub recalled: bool,
}

/// One worker as the core has it.
#[derive(Clone, Debug)]
pub struct WorkerSnapshot<'a> {
    /// Its incarnation.
    pub id: WorkerId,
    /// Where its pipe leads.
    pub address: &'a Address,
    /// The pipe.
    pub pipe: PipeId,
    /// Its phase.
    pub phase: u16,
    /// Its slots.
    pub slots: u32,
    /// How many attempts it may hold now.
    pub credit: u32,
    /// Whether it was given up.
    pub lost: bool,
    /// Whether it drains.
    pub draining: bool,
    /// Whether it shares its address with others, behind a device.
    pub shared: bool,
    /// When it was heard last.
    pub last_seen: Timestamp,
    /// What it holds, by attempt.
    pub attempts: Vec<AttemptState<'a>>,
}

fn snapshot(job: &Job) -> JobSnapshot<'_> {
    JobSnapshot {
        id: &job.id,
        state: job.state,
        phase: job.phase,
        tries: job.tries,
        losses: job.losses,
        ticket: job.ticket,
        enqueued_at: job.enqueued_at,
        home: (job.home, job.bytes),
        after: job.after,
        attempt: job.attempt,
        until: job.rare.as_ref().and_then(|rare| rare.until),
    }
}

impl Core {
    /// All live jobs, in the order of their arrival.
    pub fn live_jobs(&self) -> impl Iterator<Item = JobSnapshot<'_>> {
        self.jobs.iter_from(0).map(|(_, job)| snapshot(job))
    }

    /// One live job.
    pub fn live_job(&self, id: &JobId) -> Option<JobSnapshot<'_>> {
        self.jobs
            .no(id)
            .and_then(|no| self.jobs.job(no))
            .map(snapshot)
    }

    /// All workers that are known, by id.
    pub fn known_workers(&self) -> impl Iterator<Item = WorkerSnapshot<'_>> {
        self.workers
            .table
            .iter()
            .map(|(id, worker)| WorkerSnapshot {
                id: *id,
                address: &worker.address,
                pipe: worker.pipe,
                phase: worker.phase,
                slots: worker.slots,
                credit: self.credit(worker),
                lost: worker.lost,
                draining: worker.draining,
                shared: worker.shared,
                last_seen: worker.last_seen,
                attempts: worker
                    .attempts
                    .iter()
                    .map(|(attempt, held)| AttemptState {
                        attempt: *attempt,
                        job: &held.job,
                        phase: held.phase,
                        reported: held.reported,
                        recalled: held.recalled.is_some(),
                    })
                    .collect(),
            })
    }

    /// The last record made, and the last that is known to be durable.
    pub fn records(&self) -> (RecordSeq, RecordSeq) {
        (self.journal.last, self.journal.durable)
    }

    /// The first journal page and how many bytes they have: held by all, and by live jobs.
    pub fn journal_use(&self) -> (Option<PageSeq>, u64, u64) {
        let first = self.journal.pages.keys().next().copied();
        (first, self.journal.page_bytes, self.journal.live_bytes)
    }

    /// Counters by name, among them executions that were more than needed, by cause.
    pub fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counters.iter().map(|(name, count)| (*name, *count))
    }

    /// Executions that certainly happened a second time, by cause, since the journal began.
    pub fn duplicates_counted(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.repeats.duplicates.iter();
        counts.map(|(cause, count)| (cause.as_str(), *count))
    }

    /// Executions that may have happened a second time, by cause, since the journal began.
    /// The duplicates are among them.
    pub fn reruns_counted(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.repeats.reruns.iter();
        counts.map(|(cause, count)| (cause.as_str(), *count))
    }

    /// The bytes of the latest records that are about no job.
    pub fn journal_state_bytes(&self) -> u64 {
        self.journal.state_bytes
    }

    /// The state of an ended job that the history has.
    pub fn past_job(&self, id: &JobId) -> Option<JobState> {
        self.history.entry(id).map(|entry| entry.state)
    }

    /// The ended jobs that the history has, oldest first.
    pub fn past_jobs(&self) -> impl Iterator<Item = (&JobId, JobState)> {
        let all = self.history.iter_from((PageSeq(0), 0));
        all.map(|(_, id, entry)| (id, entry.state))
    }

    /// How many ended jobs are in the history beyond its bound, although their pages could
    /// have gone with the last commit.
    pub fn history_overdue(&self) -> u64 {
        self.history.overdue(self.options.history_jobs_max)
    }

    /// How many waits of clients have not been answered.
    pub fn waits(&self) -> usize {
        self.waits.total
    }
}
