//! The live jobs: their table, their states, and which state may follow which.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use carbontube_protocol::message::{AttemptView, JobState};
use carbontube_protocol::{AttemptId, JobId, Timestamp, WorkerId};
use carbontube_storage::PageSeq;

use super::cause::Doubt;
use super::effect::RecordSeq;
use super::failures::Failures;
use super::record::FailureRecord;

/// A live job's number in memory; grows with each job, so it orders them by arrival.
pub(super) type JobNo = u64;

/// The most ended attempts kept of one job.
pub(super) const ATTEMPTS_KEPT_MAX: usize = 20;

#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) state: JobState,
    pub(super) phase: u16,
    /// Failed attempts at this phase.
    pub(super) tries: u32,
    /// Workers lost with this job at this phase.
    pub(super) losses: u32,
    /// The place in its phase's queue: a job that goes back keeps it.
    pub(super) ticket: u64,
    pub(super) enqueued_at: Timestamp,
    pub(super) changed_at: Timestamp,
    /// The first attempt that can be its own; a former job may have had its id.
    pub(super) since: AttemptId,
    /// The page where its latest full record begins, and how long that is.
    pub(super) home: PageSeq,
    pub(super) bytes: u32,
    /// The last record about it: what depends on the job waits for this.
    pub(super) after: RecordSeq,
    pub(super) attempt: Option<(AttemptId, WorkerId)>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What few jobs have.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    pub(super) until: Option<Timestamp>,
    pub(super) failure: Option<FailureRecord>,
    pub(super) attempts: Vec<AttemptView>,
    pub(super) traceparent: Option<String>,
    pub(super) settled: Option<AttemptId>,
    /// Its last attempt was given up and may have begun.
    pub(super) doubt: Option<Doubt>,
}

impl Job {
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Whether it is not to be dispatched before somebody or some time decides so.
    pub(super) fn waits_for_no_worker(&self) -> bool {
        matches!(self.state, JobState::Failed | JobState::Scheduled)
    }

    pub(super) fn add_attempt(&mut self, view: AttemptView) {
        let attempts = &mut self.rare().attempts;
        if attempts.len() == ATTEMPTS_KEPT_MAX {
            attempts.remove(0);
        }
        attempts.push(view);
    }
}

/// Whether a live job in `from` may come to `to`.
pub(super) fn is_legal(from: JobState, to: JobState) -> bool {
    use JobState::{Cancelled, Enqueued, Failed, Running, Scheduled, Success};
    match from {
        // A late result may decide a job that went back to its queue.
        Enqueued => matches!(
            to,
            Enqueued | Scheduled | Running | Success | Failed | Cancelled
        ),
        Scheduled => matches!(to, Enqueued | Success | Cancelled),
        Running => matches!(to, Enqueued | Scheduled | Success | Failed | Cancelled),
        Failed => matches!(to, Enqueued | Cancelled),
        Success | Cancelled => false,
    }
}

/// How many jobs of one phase are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PhaseCounts {
    pub(super) enqueued: u64,
    pub(super) scheduled: u64,
    pub(super) running: u64,
    pub(super) failed: u64,
}

impl PhaseCounts {
    fn of(&mut self, state: JobState) -> Option<&mut u64> {
        match state {
            JobState::Enqueued => Some(&mut self.enqueued),
            JobState::Scheduled => Some(&mut self.scheduled),
            JobState::Running => Some(&mut self.running),
            JobState::Failed => Some(&mut self.failed),
            JobState::Success | JobState::Cancelled => None,
        }
    }
}

/// The table of live jobs with its queues and timers, which never disagree with it.
#[derive(Debug)]
pub(super) struct Jobs {
    table: BTreeMap<JobNo, Job>,
    ids: HashMap<JobId, JobNo>,
    /// For each phase: the jobs that are ready, by ticket.
    ready: Vec<BTreeMap<u64, JobNo>>,
    schedule: BTreeSet<(Timestamp, JobNo)>,
    counts: Vec<PhaseCounts>,
    pub(super) failures: Failures,
    next_no: JobNo,
    pub(super) next_ticket: u64,
}

impl Jobs {
    pub(super) fn new(phases: usize) -> Self {
        Jobs {
            table: BTreeMap::new(),
            ids: HashMap::new(),
            ready: vec![BTreeMap::new(); phases],
            schedule: BTreeSet::new(),
            counts: vec![PhaseCounts::default(); phases],
            failures: Failures::default(),
            next_no: 1,
            next_ticket: 1,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn no(&self, id: &JobId) -> Option<JobNo> {
        self.ids.get(id).copied()
    }

    pub(super) fn job(&self, no: JobNo) -> Option<&Job> {
        self.table.get(&no)
    }

    pub(super) fn job_mut(&mut self, no: JobNo) -> Option<&mut Job> {
        self.table.get_mut(&no)
    }

    pub(super) fn iter_from(&self, no: JobNo) -> impl Iterator<Item = (JobNo, &Job)> {
        self.table.range(no..).map(|(no, job)| (*no, job))
    }

    /// The live jobs from a number down to the oldest.
    pub(super) fn iter_back_from(&self, no: JobNo) -> impl Iterator<Item = (JobNo, &Job)> {
        self.table.range(..=no).rev().map(|(no, job)| (*no, job))
    }

    /// The number of the job that came last.
    pub(super) fn last_no(&self) -> JobNo {
        self.next_no - 1
    }

    pub(super) fn counts(&self, phase: usize) -> PhaseCounts {
        self.counts[phase]
    }

    pub(super) fn ready(&self, phase: usize) -> &BTreeMap<u64, JobNo> {
        &self.ready[phase]
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// Some of the jobs whose time has come, so many at most.
    pub(super) fn due(&self, now: Timestamp, most: usize) -> Vec<JobNo> {
        let due = self.schedule.range(..=(now, JobNo::MAX));
        due.take(most).map(|(_, no)| *no).collect()
    }

    pub(super) fn take_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    /// Adds a job in its state.
    pub(super) fn insert(&mut self, job: Job) -> JobNo {
        let no = self.next_no;
        self.next_no += 1;
        self.ids.insert(job.id.clone(), no);
        self.enter(no, &job);
        self.table.insert(no, job);
        no
    }

    /// Removes a job.
    pub(super) fn remove(&mut self, no: JobNo) -> Option<Job> {
        let job = self.table.remove(&no)?;
        self.ids.remove(&job.id);
        self.leave(no, &job);
        Some(job)
    }

    /// The one way in which a job's state, phase, ticket or time changes.
    ///
    /// An illegal step is our bug: it ends a test, and is not taken in production.
    pub(super) fn transition(
        &mut self,
        no: JobNo,
        to: JobState,
        now: Timestamp,
        change: impl FnOnce(&mut Job),
    ) -> bool {
        let Some(mut job) = self.table.remove(&no) else {
            debug_assert!(false, "job {no} is not live");
            return false;
        };
        let legal = is_legal(job.state, to);
        debug_assert!(legal, "job {} went from {} to {to}", job.id, job.state);
        if legal {
            self.leave(no, &job);
            job.state = to;
            job.changed_at = now;
            if to != JobState::Running {
                job.attempt = None;
            }
            change(&mut job);
            self.enter(no, &job);
        }
        self.table.insert(no, job);
        legal
    }

    fn leave(&mut self, no: JobNo, job: &Job) {
        let phase = usize::from(job.phase);
        if let Some(count) = self.counts[phase].of(job.state) {
            *count = count.saturating_sub(1);
        }
        match job.state {
            JobState::Enqueued => {
                self.ready[phase].remove(&job.ticket);
            }
            JobState::Scheduled => {
                if let Some(until) = job.rare.as_ref().and_then(|rare| rare.until) {
                    self.schedule.remove(&(until, no));
                }
            }
            JobState::Failed => self.failures.remove(no),
            _ => {}
        }
    }

    fn enter(&mut self, no: JobNo, job: &Job) {
        let phase = usize::from(job.phase);
        if let Some(count) = self.counts[phase].of(job.state) {
            *count += 1;
        }
        match job.state {
            JobState::Enqueued => {
                self.ready[phase].insert(job.ticket, no);
            }
            JobState::Scheduled => {
                let until = job.rare.as_ref().and_then(|rare| rare.until);
                debug_assert!(until.is_some(), "job {} waits for no time", job.id);
                self.schedule.insert((until.unwrap_or_default(), no));
            }
            JobState::Failed => self.failures.add(no, job),
            _ => {}
        }
    }
}
