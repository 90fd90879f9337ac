//! Knows only what clients were told and what phases did.
//!
//! It never looks into a manager, a worker or a journal: what it says must hold whatever
//! happened inside. A call that got no answer counts as unknown.

use std::collections::BTreeMap;

use bytes::Bytes;
use carbontube_protocol::message::JobState;
use carbontube_protocol::{AttemptId, JobId, Timestamp, WorkerId};

/// What a client was told of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is accepted.
    Accepted,
    /// It was there already.
    Duplicate(JobState),
    /// It is not accepted, for good.
    Refused,
    /// It ended; the result if it succeeded.
    Ended {
        /// The state it ended in; none when the manager does not know the job.
        state: Option<JobState>,
        /// The final instructions.
        result: Bytes,
    },
}

/// One execution of a phase, from its start.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Where.
    pub worker: WorkerId,
    /// Which attempt.
    pub attempt: AttemptId,
    /// The phase's index.
    pub phase: u16,
    /// When.
    pub started_at: Timestamp,
    /// When it ended and whether it succeeded; none while it runs, or when it died.
    pub ended: Option<(Timestamp, bool)>,
}

/// What is known of one job.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// When it was first sent.
    pub sent_at: Option<Timestamp>,
    /// What clients were told, in order.
    pub told: Vec<(Timestamp, Told)>,
    /// What phases did with it, in order of start.
    pub executions: Vec<Execution>,
}

/// See the file's description.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    jobs: BTreeMap<JobId, Known>,
}

impl Oracle {
    /// A client handed a job to the network, perhaps not for the first time.
    pub fn sent(&mut self, now: Timestamp, job: &JobId) {
        let known = self.jobs.entry(job.clone()).or_default();
        known.sent_at.get_or_insert(now);
    }

    /// A client got an answer about a job.
    pub fn told(&mut self, now: Timestamp, job: &JobId, told: Told) {
        let known = self.jobs.entry(job.clone()).or_default();
        known.told.push((now, told));
    }

    /// A worker started to execute a phase.
    pub fn started(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        attempt: AttemptId,
        job: &JobId,
        phase: u16,
    ) {
        let known = self.jobs.entry(job.clone()).or_default();
        known.executions.push(Execution {
            worker,
            attempt,
            phase,
            started_at: now,
            ended: None,
        });
    }

    /// An execution ended by itself or was stopped; one whose process died never ends.
    pub fn ended(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        attempt: AttemptId,
        job: &JobId,
        success: bool,
    ) {
        let known = self.jobs.entry(job.clone()).or_default();
        let mut running = known.executions.iter_mut().rev();
        if let Some(found) = running
            .find(|run| run.worker == worker && run.attempt == attempt && run.ended.is_none())
        {
            found.ended = Some((now, success));
        }
    }

    /// All that is known, by job.
    pub fn jobs(&self) -> &BTreeMap<JobId, Known> {
        &self.jobs
    }
}
