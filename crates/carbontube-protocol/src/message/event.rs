//! The manager's event stream (protocol.md §5.6).

use serde::{Deserialize, Serialize};

use super::query::{JobState, ManagerState, WorkerStatus};
use super::worker::{LogLine, ProgressItem};
use crate::ids::{JobId, ManagerId, WorkerId};
use crate::names::{JobType, PipelineName};
use crate::time::Timestamp;

/// Some events of one topic, published by a manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// The manager.
    pub manager: ManagerId,
    /// Its epoch.
    pub epoch: u64,
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Counts the messages of this topic in this epoch, from 1: a gap shows a loss, and
    /// then a view asks for the state with a query.
    pub sequence: u64,
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// How many events were left out before these because there were too many.
    #[serde(default)]
    pub dropped: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the manager's clock.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A job's state changed. Topic `PIPELINE.job`.
    Job {
        /// The job.
        job: JobId,
        /// Its state now.
        state: JobState,
        /// The phase that it is at.
        job_type: JobType,
        /// The worker that has it or had it.
        worker: Option<WorkerId>,
        /// The error's message, after a failure.
        error: Option<String>,
    },
    /// A worker came, changed or went. Topic `PIPELINE.worker`.
    Worker {
        /// The worker.
        worker: WorkerId,
        /// Its phase.
        job_type: JobType,
        /// What the manager makes of it now.
        status: WorkerStatus,
        /// The box's name.
        host: String,
        /// Its slots.
        slots: u32,
    },
    /// A phase wrote a log line. Topic `PIPELINE.log`.
    Log {
        /// The worker.
        worker: WorkerId,
        /// The phase.
        job_type: JobType,
        /// The line.
        line: LogLine,
    },
    /// An attempt made progress. Topic `PIPELINE.progress`.
    Progress {
        /// The worker.
        worker: WorkerId,
        /// The phase.
        job_type: JobType,
        /// How far it is.
        item: ProgressItem,
    },
    /// The manager's own state changed. Topic `PIPELINE.manager`.
    Manager {
        /// Its state now.
        state: ManagerState,
        /// Why, in one plain sentence.
        reason: String,
    },
    /// Somebody changed something on purpose. Topic `PIPELINE.manager`.
    Action {
        /// What was done, in one plain sentence.
        text: String,
        /// How many jobs, phases or workers it changed.
        count: u64,
        /// How many that were named could not be changed.
        skipped: u64,
    },
}

impl EventKind {
    /// The topic's last part: what stands after `PIPELINE.` in the topic frame.
    pub fn topic(&self) -> &'static str {
        match self {
            EventKind::Job { .. } => "job",
            EventKind::Worker { .. } => "worker",
            EventKind::Log { .. } => "log",
            EventKind::Progress { .. } => "progress",
            EventKind::Manager { .. } | EventKind::Action { .. } => "manager",
        }
    }
}
