//! What the manager says on a worker's pipe (protocol.md §5.2).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, JobId, ManagerId, WorkerId};
use crate::names::{JobType, PipelineName};

/// Stands at the head of each message on a worker's pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeHead {
    /// Which manager speaks.
    pub manager: ManagerId,
    /// Its epoch: one more with each start.
    pub epoch: u64,
    /// Counts the messages of this manager and epoch on this pipe, up from a number that
    /// nobody can guess; a later pipe begins above all numbers of the earlier ones.
    /// The worker's heartbeats say how far it has received.
    pub sequence: u64,
}

/// The manager introduces itself: sent first on each new connection.
///
/// The worker answers with a heartbeat at once, and sends all results again that are
/// not acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Who speaks, and which message this is.
    pub head: PipeHead,
    /// The manager's pipeline.
    pub pipeline: PipelineName,
    /// After how much silence the manager takes a worker for lost, in milliseconds.
    pub worker_timeout_ms: u64,
}

/// Attempts for the worker to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Who speaks, and which message this is.
    pub head: PipeHead,
    /// Whom it is for; none where several workers share the address. A worker that finds
    /// another's name here drops it: the other one had this address before, or somebody
    /// claimed it.
    #[serde(default)]
    pub worker: Option<WorkerId>,
    /// The pipeline of the jobs.
    pub pipeline: PipelineName,
    /// The attempts, each with a payload frame.
    pub jobs: Vec<DispatchedJob>,
}

/// One attempt to run one phase of one job. Its payload frame is the instructions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DispatchedJob {
    /// The attempt.
    pub attempt: AttemptId,
    /// The job.
    pub job: JobId,
    /// The phase's place in the pipeline, from 0.
    pub phase: u16,
    /// The phase.
    pub job_type: JobType,
    /// Which try of this phase it is, from 1.
    pub number: u32,
    /// How long the attempt may run, in milliseconds; 0 for as long as it likes.
    #[serde(default)]
    pub timeout_ms: u64,
    /// The W3C `traceparent` that came with the job.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// A JSON object.
    #[serde(skip)]
    pub instructions: Bytes,
}

/// Results that are durably journaled (or were not needed): the worker forgets them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Who speaks, and which message this is.
    pub head: PipeHead,
    /// The worker's number of the connection that the results came by, as its
    /// [`Results`](super::Results) said: so a worker with several managers learns
    /// which connection leads to which.
    pub route: u16,
    /// The attempts.
    pub attempts: Vec<AttemptId>,
}

/// Attempts that the worker shall hand back, as far as they have not started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Who speaks, and which message this is.
    pub head: PipeHead,
    /// The attempts.
    pub attempts: Vec<AttemptId>,
}

/// Attempts that the worker shall stop; it reports them as cancelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// Who speaks, and which message this is.
    pub head: PipeHead,
    /// The attempts.
    pub attempts: Vec<AttemptId>,
}

/// The worker shall hand back what has not started, finish what runs, and leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// Who speaks, and which message this is.
    pub head: PipeHead,
}
