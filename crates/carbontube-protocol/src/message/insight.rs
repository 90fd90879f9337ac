//! What views ask for: the recent history in numbers, a search over jobs, and failed jobs
//! in groups (protocol.md §5.7).

use serde::{Deserialize, Serialize};

use super::query::{JobState, JobView};
use super::worker::FailureKind;
use crate::ids::WorkerId;
use crate::names::JobType;
use crate::time::Timestamp;

/// How fine a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A point for each second, of the last ten minutes.
    Second,
    /// A point for each minute, of the last day.
    Minute,
}

impl Step {
    /// How long a step is, in microseconds.
    pub fn micros(self) -> u64 {
        match self {
            Step::Second => 1_000_000,
            Step::Minute => 60_000_000,
        }
    }
}

/// The recent history of a pipeline: closed steps only, oldest first, without holes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// How fine it is.
    pub step: Step,
    /// When the first point's step began; point `i` is of `from + i * step`.
    pub from: Timestamp,
    /// The whole pipeline: what came in, what went through, what failed for good, and how
    /// long the jobs took from being accepted to their end.
    pub total: Track,
    /// Each phase, in order.
    pub phases: Vec<PhaseTrack>,
}

/// The series of one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseTrack {
    /// The phase.
    pub job_type: JobType,
    /// Its points. A failed attempt counts in `failed`, also when it is tried again.
    pub track: Track,
}

/// Points, each column as long as the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// Jobs that came to the phase (or were accepted) in the step.
    pub arrived: Vec<u32>,
    /// Attempts that succeeded (or jobs that went through).
    pub done: Vec<u32>,
    /// Attempts that failed (or jobs that failed for good).
    pub failed: Vec<u32>,
    /// The median duration in microseconds; 0 where nothing ended.
    pub p50_us: Vec<u64>,
    /// The 99th percentile of the duration.
    pub p99_us: Vec<u64>,
    /// The median of the wait for a worker, in microseconds.
    pub wait_p50_us: Vec<u64>,
    /// The 99th percentile of the wait.
    pub wait_p99_us: Vec<u64>,
    /// Jobs that waited at the end of the step.
    pub backlog: Vec<u32>,
    /// Jobs with a worker at the end of the step.
    pub running: Vec<u32>,
}

/// How long things took since the manager's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Since when it is counted.
    pub since: Timestamp,
    /// From being accepted to going through all phases.
    pub total: Histogram,
    /// Each phase, in order.
    pub phases: Vec<PhaseLatencies>,
}

/// How long things took in one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseLatencies {
    /// The phase.
    pub job_type: JobType,
    /// How long attempts ran, by the workers' clocks.
    pub duration: Histogram,
    /// How long jobs waited for a worker.
    pub wait: Histogram,
}

/// A log-linear histogram: eight buckets for each doubling, so a value is known to 12 %.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many values.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_us: u64,
    /// The buckets that hold something: the upper end in microseconds, inclusive, and how
    /// many values, from small to large.
    pub buckets: Vec<(u64, u64)>,
}

/// Which jobs are looked for; each set field must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobSearch {
    /// One of these states; none means any.
    #[serde(default)]
    pub states: Vec<JobState>,
    /// The phase that the job is at.
    #[serde(default)]
    pub phase: Option<JobType>,
    /// A text that the id starts with.
    #[serde(default)]
    pub id_prefix: Option<String>,
    /// A text that the last error or its details have, in any case of letters; of ended
    /// jobs only the error is looked at.
    #[serde(default)]
    pub error: Option<String>,
    /// A text that the instructions have, byte for byte.
    #[serde(default)]
    pub text: Option<String>,
    /// The group of failures that the job is in.
    #[serde(default)]
    pub group: Option<String>,
    /// The worker that has the job.
    #[serde(default)]
    pub worker: Option<WorkerId>,
    /// Accepted at this time or later.
    #[serde(default)]
    pub enqueued_from: Option<Timestamp>,
    /// Accepted before this time.
    #[serde(default)]
    pub enqueued_before: Option<Timestamp>,
    /// Changed at this time or later.
    #[serde(default)]
    pub changed_from: Option<Timestamp>,
    /// Changed before this time.
    #[serde(default)]
    pub changed_before: Option<Timestamp>,
}

/// What one step of a search found, newest first: live jobs, then ended ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// What to give as `after` to go on; `None` when all was looked at. A step may find
    /// few or no jobs and still have more to look at: what one query does is bounded.
    pub next: Option<String>,
    /// How many jobs this step looked at.
    pub looked_at: u64,
}

/// Failed jobs with the same kind of error at the same phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureGroup {
    /// Names the group; the same after a restart of the manager.
    pub group: String,
    /// The phase.
    pub job_type: JobType,
    /// The kind of failure.
    pub kind: FailureKind,
    /// What the errors have in common: numbers, ids and paths are replaced by `#`.
    pub signature: String,
    /// How many jobs.
    pub count: u64,
    /// When the first of them failed.
    pub first_at: Timestamp,
    /// When the latest of them failed.
    pub last_at: Timestamp,
    /// The latest one.
    pub sample: crate::ids::JobId,
    /// Its error's message.
    pub message: String,
}
