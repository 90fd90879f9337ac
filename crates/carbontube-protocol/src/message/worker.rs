//! What workers say: results on PUSH, events on PUB (protocol.md §5.3 and §5.4).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::address::Address;
use crate::ids::{AttemptId, JobId, ManagerId, WorkerId};
use crate::limits::Limits;
use crate::names::JobType;
use crate::time::Timestamp;

/// Results of attempts. The worker keeps each until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The worker.
    pub worker: WorkerId,
    /// The worker's number of the connection that it sends this by, from 0; the
    /// acknowledgement repeats it.
    #[serde(default)]
    pub route: u16,
    /// The results, each with a payload frame.
    pub results: Vec<AttemptResult>,
}

/// The result of one attempt. Its payload frame is the merged instructions after the
/// phase; an empty frame means that they are unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptResult {
    /// The attempt.
    pub attempt: AttemptId,
    /// The job.
    pub job: JobId,
    /// The phase's place in the pipeline, from 0.
    pub phase: u16,
    /// When the phase began, by the worker's clock.
    #[serde(default)]
    pub started_at: Timestamp,
    /// When it ended, by the worker's clock.
    #[serde(default)]
    pub finished_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The merged instructions, or nothing.
    #[serde(skip)]
    pub instructions: Bytes,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The phase did its work.
    Success,
    /// It did not.
    Failure {
        /// In which way.
        kind: FailureKind,
        /// What it said.
        error: ErrorReport,
        /// Whether trying again makes sense; a phase may know that it does not.
        retry: bool,
    },
}

/// In which way an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The phase returned an error, or its process exited with a non-zero status.
    Error,
    /// The phase panicked, or its process was killed by a signal.
    Panic,
    /// It ran longer than it may.
    Timeout,
    /// Its output was not a JSON object within the limit.
    Output,
    /// It was cancelled.
    Cancelled,
    /// The worker that held it was lost. Only the manager says this.
    WorkerLost,
    /// It took several workers down with it. Only the manager says this.
    Poison,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureKind::Error => "error",
            FailureKind::Panic => "panic",
            FailureKind::Timeout => "timeout",
            FailureKind::Output => "bad output",
            FailureKind::Cancelled => "cancelled",
            FailureKind::WorkerLost => "worker lost",
            FailureKind::Poison => "poison",
        })
    }
}

/// What a failed attempt said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// One line or a few: what went wrong.
    pub message: String,
    /// More, if there is more: a traceback, the causes, the tail of the log.
    #[serde(default)]
    pub detail: String,
}

impl ErrorReport {
    /// Cuts what is longer than the limits allow.
    pub fn cut(&mut self, limits: &Limits) {
        cut(&mut self.message, limits.error_bytes_max);
        cut(&mut self.detail, limits.detail_bytes_max);
    }
}

fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        // It may be kept for long.
        text.shrink_to_fit();
    }
}

/// Attempts that the worker did not start and will not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandBack {
    /// The worker.
    pub worker: WorkerId,
    /// Why.
    pub reason: HandBackReason,
    /// The attempts.
    pub attempts: Vec<HandedBack>,
}

/// One attempt handed back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandedBack {
    /// The attempt.
    pub attempt: AttemptId,
    /// The job.
    pub job: JobId,
    /// The phase's place in the pipeline, from 0.
    pub phase: u16,
}

/// Why attempts are handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandBackReason {
    /// The manager recalled them.
    Recalled,
    /// The worker leaves.
    Draining,
    /// The worker has no phase of that job type.
    UnknownJobType,
    /// The worker holds as much as it can.
    Full,
    /// The worker had begun them and stopped them before their end: they may have had
    /// effects, and run again elsewhere.
    Abandoned,
}

/// The worker's last word: it holds nothing any more and goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goodbye {
    /// The worker.
    pub worker: WorkerId,
}

/// What a worker is and holds; every second, and at once after a change that matters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The worker.
    pub worker: WorkerId,
    /// Counts this worker's events of all kinds, from 1: a gap shows a loss.
    pub sequence: u64,
    /// The phase that it runs.
    pub job_type: JobType,
    /// Where the manager's PUSH connects to.
    pub address: Address,
    /// Whether `address` leads to this worker alone, or to a device that spreads work
    /// over several.
    #[serde(default)]
    pub shared_address: bool,
    /// How many attempts it runs at once.
    pub slots: u32,
    /// Whether it takes work.
    pub state: WorkerState,
    /// What it holds, for each manager that it has heard of.
    #[serde(default)]
    pub managers: Vec<HeldFor>,
    /// How many attempts succeeded here.
    #[serde(default)]
    pub success_count: u64,
    /// How many failed.
    #[serde(default)]
    pub failed_count: u64,
    /// The box's name.
    #[serde(default)]
    pub host: String,
    /// The process's number there.
    #[serde(default)]
    pub pid: u32,
    /// When the worker started, by its clock.
    #[serde(default)]
    pub started_at: Timestamp,
    /// The version of Carbontube, or what else the worker calls itself.
    #[serde(default)]
    pub version: String,
}

/// Whether a worker takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It does.
    Available,
    /// It finishes what it runs and then leaves.
    Draining,
}

/// What a worker holds for one manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldFor {
    /// The manager.
    pub manager: ManagerId,
    /// The last epoch that the worker heard of.
    pub epoch: u64,
    /// The highest [`PipeHead::sequence`](super::PipeHead) received in that epoch.
    pub sequence: u64,
    /// Every attempt held: queued, running, or done but not acknowledged.
    pub held: Vec<Held>,
}

/// One attempt that a worker holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The attempt.
    pub attempt: AttemptId,
    /// The job.
    pub job: JobId,
    /// The phase's place in the pipeline, from 0.
    pub phase: u16,
    /// How far it is.
    pub state: HeldState,
}

/// How far a held attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldState {
    /// Waiting in the worker for a slot.
    Queued,
    /// Running.
    Running,
    /// Done; its result is not acknowledged yet.
    Done,
}

/// Log lines of attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logs {
    /// The worker.
    pub worker: WorkerId,
    /// Counts this worker's events of all kinds, from 1.
    pub sequence: u64,
    /// The phase that the worker runs.
    pub job_type: JobType,
    /// The lines.
    pub lines: Vec<LogLine>,
    /// How many lines were left out before these, because there were too many.
    #[serde(default)]
    pub dropped: u64,
}

/// One log line of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// When it was written, by the worker's clock.
    pub at: Timestamp,
    /// How loud.
    pub level: LogLevel,
    /// The line, without its end.
    pub text: String,
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something happened; lines of a command's stderr have this level.
    Info,
    /// Details.
    Debug,
}

/// Progress of attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The worker.
    pub worker: WorkerId,
    /// Counts this worker's events of all kinds, from 1.
    pub sequence: u64,
    /// The phase that the worker runs.
    pub job_type: JobType,
    /// The latest progress of each attempt that made some.
    pub items: Vec<ProgressItem>,
}

/// How far one attempt is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgressItem {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// From 0 to 1; anything else is not read.
    #[serde(deserialize_with = "fraction")]
    pub fraction: f32,
    /// What it is doing, in a few words; may be empty.
    #[serde(default)]
    pub text: String,
}

/// Reads a fraction. JSON has no word for a number that is none, so one that came in
/// bincode could not be told on.
fn fraction<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    let fraction = f32::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&fraction) {
        return Ok(fraction);
    }
    Err(de::Error::custom(format_args!(
        "a fraction is from 0 to 1, not {fraction}"
    )))
}
