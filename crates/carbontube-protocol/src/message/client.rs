//! What clients and the manager say to each other about jobs (protocol.md §5.1).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::query::JobState;
use super::worker::ErrorReport;
use crate::ids::JobId;
use crate::names::PipelineName;

/// Jobs to enqueue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Enqueue {
    /// The client's number for this request; the answer repeats it.
    pub request: u64,
    /// The pipeline that the jobs are for.
    pub pipeline: PipelineName,
    /// The jobs, each with a payload frame.
    pub jobs: Vec<NewJob>,
}

/// One job to enqueue. Its payload frame is its instructions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewJob {
    /// The job's id. Without one the manager makes one, but then a request that is
    /// sent again makes a second job.
    #[serde(default)]
    pub id: Option<JobId>,
    /// How long the job waits before its first phase, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// The W3C `traceparent` that travels with the job.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// A JSON object.
    #[serde(skip)]
    pub instructions: Bytes,
}

/// What became of the jobs of one [`Enqueue`], in the same order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Enqueued {
    /// The client's number of the request.
    pub request: u64,
    /// One outcome for each job.
    pub outcomes: Vec<EnqueueOutcome>,
}

/// What became of one job to enqueue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnqueueOutcome {
    /// The job is in the durable journal.
    Accepted {
        /// Its id.
        id: JobId,
    },
    /// A job of this id is there already; nothing was added.
    Duplicate {
        /// Its id.
        id: JobId,
        /// What that job's state is now.
        state: JobState,
    },
    /// The job was not taken.
    Rejected {
        /// The id that the client gave, if any.
        id: Option<JobId>,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        message: String,
    },
}

/// Why the manager refused something: stable names for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The peer speaks a version that is not spoken here.
    Version,
    /// The message could not be read.
    Malformed,
    /// This kind of message does not belong on this socket.
    Unexpected,
    /// No pipeline of that name is here.
    UnknownPipeline,
    /// The pipeline has no phase of that name.
    UnknownPhase,
    /// No job of that id is known.
    UnknownJob,
    /// No worker of that id is known.
    UnknownWorker,
    /// The instructions are not a JSON object within the limit.
    Instructions,
    /// The job's state does not allow this.
    State,
    /// A limit was reached; try again later.
    Busy,
    /// The journal cannot be written now (disk full, store lost); try again later.
    Journal,
    /// The manager is draining and takes no more jobs.
    Draining,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::Version => "version",
            Code::Malformed => "malformed",
            Code::Unexpected => "unexpected",
            Code::UnknownPipeline => "unknown_pipeline",
            Code::UnknownPhase => "unknown_phase",
            Code::UnknownJob => "unknown_job",
            Code::UnknownWorker => "unknown_worker",
            Code::Instructions => "instructions",
            Code::State => "state",
            Code::Busy => "busy",
            Code::Journal => "journal",
            Code::Draining => "draining",
        })
    }
}

/// A whole request that could not be done or understood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The client's number of the request, when it could be read.
    #[serde(default)]
    pub request: Option<u64>,
    /// Why, for programs.
    pub code: Code,
    /// Why, for people: what was wrong, and what to do.
    pub message: String,
}

/// Asks to be told when jobs end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// The client's number for this request; every answer repeats it.
    pub request: u64,
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The jobs.
    pub ids: Vec<JobId>,
}

/// Some or all of the jobs of one [`Wait`] ended. There may be several for one wait:
/// one at once for jobs that had ended already or are unknown, then one as others end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// The client's number of the request.
    pub request: u64,
    /// The jobs that ended, each with a payload frame.
    pub jobs: Vec<EndedJob>,
}

/// One ended job. Its payload frame is its final instructions (the result), empty
/// when they are not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedJob {
    /// The job.
    pub id: JobId,
    /// How it ended; `None` when no job of this id is known.
    pub state: Option<JobState>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<ErrorReport>,
    /// The final instructions.
    #[serde(skip)]
    pub result: Bytes,
}
