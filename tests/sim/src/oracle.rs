//! Knows only what clients were told and what phases did.
//!
//! It never looks into a manager, a worker or a journal: what it says must hold whatever
//! happened inside. A call that got no answer counts as unknown: the job may be there, and
//! nothing is demanded of it until somebody is told.

use std::collections::BTreeMap;

use bytes::Bytes;
use carbontube_protocol::message::JobState;
use carbontube_protocol::{AttemptId, JobId, Timestamp, WorkerId};

use crate::network::NodeId;

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

/// What a client asked to be done with a job. Whether it was done is another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To stop it at once.
    Cancel,
    /// To try it again though it failed.
    Retry,
    /// To forget it though it failed.
    Discard,
}

/// What became of an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded; the instructions as they go on.
    Success(Bytes),
    /// It failed by itself.
    Failure,
    /// It was stopped, because it was cancelled or its time was over.
    Stopped,
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
    /// The instructions that it was given.
    pub given: Bytes,
    /// When.
    pub started_at: Timestamp,
    /// When it ended and how; none while it runs, or when it died.
    pub ended: Option<(Timestamp, Outcome)>,
}

impl Execution {
    /// What it returned if it succeeded.
    pub fn success(&self) -> Option<&Bytes> {
        match &self.ended {
            Some((_, Outcome::Success(bytes))) => Some(bytes),
            _ => None,
        }
    }
}

/// What is known of one job.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// When it was first sent.
    pub sent_at: Option<Timestamp>,
    /// The instructions that it was sent with.
    pub sent: Bytes,
    /// What clients were told, in order.
    pub told: Vec<(Timestamp, Told)>,
    /// What clients asked for, in order.
    pub asked: Vec<(Timestamp, Asked)>,
    /// What phases did with it, in order of start.
    pub executions: Vec<Execution>,
}

impl Known {
    /// The executions of one phase.
    pub fn of_phase(&self, phase: u16) -> impl Iterator<Item = &Execution> {
        let executions = self.executions.iter();
        executions.filter(move |execution| execution.phase == phase)
    }

    /// Whether one of them succeeded.
    pub fn succeeded(&self, phase: u16) -> bool {
        self.of_phase(phase).any(|e| e.success().is_some())
    }

    /// Whether somebody asked for that.
    pub fn was_asked(&self, what: Asked) -> bool {
        self.asked.iter().any(|(_, asked)| *asked == what)
    }

    /// Whether somebody was told that the job is in the journal.
    pub fn is_confirmed(&self) -> bool {
        let confirms = |told: &Told| matches!(told, Told::Accepted | Told::Duplicate(_));
        self.told.iter().any(|(_, told)| confirms(told))
    }

    /// Whether it may have ended so that the manager need not know it any more.
    pub fn may_be_gone(&self, last_phase: u16) -> bool {
        self.succeeded(last_phase)
            || self.was_asked(Asked::Cancel)
            || self.was_asked(Asked::Discard)
    }
}

/// Something that an invariant looks at once, when it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client was told something: the index in [`Known::told`].
    Told(usize),
    /// An execution started: the index in [`Known::executions`].
    Started(usize),
    /// An execution ended: likewise.
    Ended(usize),
}

/// A disturbance that may make a phase run twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Its process died, or ended before its work was done.
    Killed,
    /// It did not read what came.
    Slow,
    /// It stood still.
    Suspended,
    /// A connection of it broke, was cut or slow, or lost what was in it.
    Network,
    /// Somebody pretended to be somebody, or sent nonsense.
    Hostile,
    /// Its clock jumped.
    Clock,
}

/// See the file's description.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    jobs: BTreeMap<JobId, Known>,
    events: Vec<(JobId, Event)>,
    disturbances: Vec<(Timestamp, NodeId, Disturbance)>,
}

impl Oracle {
    /// A client handed a job to the network, perhaps not for the first time.
    pub fn sent(&mut self, now: Timestamp, job: &JobId, instructions: &Bytes) {
        let known = self.known(job);
        if known.sent_at.is_none() {
            known.sent_at = Some(now);
            known.sent = instructions.clone();
        }
    }

    /// A client asked for something, perhaps not for the first time.
    pub fn asked(&mut self, now: Timestamp, job: &JobId, asked: Asked) {
        self.known(job).asked.push((now, asked));
    }

    /// A client got an answer about a job.
    pub fn told(&mut self, now: Timestamp, job: &JobId, told: Told) {
        let known = self.known(job);
        known.told.push((now, told));
        let event = Event::Told(known.told.len() - 1);
        self.events.push((job.clone(), event));
    }

    /// A worker started to execute a phase.
    pub fn started(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        attempt: AttemptId,
        job: &JobId,
        phase: u16,
        given: &Bytes,
    ) {
        let known = self.known(job);
        known.executions.push(Execution {
            worker,
            attempt,
            phase,
            given: given.clone(),
            started_at: now,
            ended: None,
        });
        let event = Event::Started(known.executions.len() - 1);
        self.events.push((job.clone(), event));
    }

    /// An execution ended by itself or was stopped; one whose process died never ends.
    pub fn ended(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        attempt: AttemptId,
        job: &JobId,
        outcome: Outcome,
    ) {
        let known = self.known(job);
        let found = known
            .executions
            .iter()
            .rposition(|run| run.worker == worker && run.attempt == attempt && run.ended.is_none());
        if let Some(found) = found {
            known.executions[found].ended = Some((now, outcome));
            self.events.push((job.clone(), Event::Ended(found)));
        }
    }

    /// Something went wrong with a node, by the world's doing. What was noted just before is
    /// not noted again.
    pub fn disturbed(&mut self, now: Timestamp, node: NodeId, how: Disturbance) {
        let again =
            |(_, other, then): &(Timestamp, NodeId, Disturbance)| (*other, *then) == (node, how);
        if !self.disturbances.iter().rev().take(8).any(again) {
            self.disturbances.push((now, node, how));
        }
    }

    /// All that is known, by job.
    pub fn jobs(&self) -> &BTreeMap<JobId, Known> {
        &self.jobs
    }

    /// What is known of one job.
    pub fn job(&self, job: &JobId) -> Option<&Known> {
        self.jobs.get(job)
    }

    /// What happened, in order, from an index on.
    pub fn events_from(&self, index: usize) -> &[(JobId, Event)] {
        &self.events[index..]
    }

    /// Everything that went wrong by the world's doing, in order.
    pub fn disturbances(&self) -> &[(Timestamp, NodeId, Disturbance)] {
        &self.disturbances
    }

    fn known(&mut self, job: &JobId) -> &mut Known {
        if !self.jobs.contains_key(job) {
            self.jobs.insert(job.clone(), Known::default());
        }
        self.jobs.get_mut(job).expect("it was just put there")
    }
}
