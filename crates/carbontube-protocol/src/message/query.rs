//! Questions and administrative changes, and their answers (protocol.md §5.5).

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::insight::{FailureGroup, Found, JobSearch, Latencies, Series, Step};
use super::worker::{ErrorReport, FailureKind, WorkerState};
use crate::address::Address;
use crate::ids::{JobId, ManagerId, WorkerId};
use crate::names::{JobType, PipelineName};
use crate::time::Timestamp;

/// A question or an administrative change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryRequest {
    /// The client's number for this request; the answer repeats it.
    pub request: u64,
    /// What is asked.
    pub query: Query,
}

/// The answer to a [`QueryRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// The client's number of the request.
    pub request: u64,
    /// What is answered.
    pub answer: Answer,
}

/// What can be asked of a manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Query {
    /// Who are you, and where are your other sockets?
    Info,
    /// How are the pipeline and its phases?
    Stats,
    /// Which workers are there?
    Workers,
    /// Which jobs are there?
    Jobs {
        /// Which of them.
        filter: JobFilter,
        /// Where the page before this one ended.
        #[serde(default)]
        after: Option<String>,
        /// How many at most; the manager may give fewer.
        limit: u32,
    },
    /// Everything about one job.
    Job {
        /// The job.
        id: JobId,
    },
    /// Run failed jobs again, from the phase at which they failed.
    Retry {
        /// Which jobs.
        selector: Selector,
    },
    /// Stop jobs that have not ended.
    Cancel {
        /// Which jobs.
        selector: Selector,
    },
    /// Forget failed jobs.
    Discard {
        /// Which jobs.
        selector: Selector,
    },
    /// Dispatch nothing more, of one phase or at all. Accepting goes on.
    Pause {
        /// The phase, or all.
        #[serde(default)]
        phase: Option<JobType>,
    },
    /// Dispatch again.
    Resume {
        /// The phase, or all.
        #[serde(default)]
        phase: Option<JobType>,
    },
    /// Let a worker finish and leave, or the manager itself.
    Drain {
        /// The worker; without one the manager drains.
        #[serde(default)]
        worker: Option<WorkerId>,
    },
    /// The recent history in numbers.
    Series {
        /// How fine.
        step: Step,
        /// Only steps that began at this time or later.
        #[serde(default)]
        since: Option<Timestamp>,
        /// The latest so many at most; the manager may give fewer.
        points: u32,
    },
    /// How long things took since the start.
    Latencies,
    /// Which jobs are there, newest first?
    Search {
        /// Which of them.
        search: Box<JobSearch>,
        /// Where the step before this one ended.
        #[serde(default)]
        after: Option<String>,
        /// How many at most; the manager may give fewer.
        limit: u32,
    },
    /// Which kinds of failures are there?
    Failures,
    /// What was in the event stream before this view listened?
    Recent {
        /// Where the part before this one ended; 0 for all there is.
        #[serde(default)]
        after: u64,
    },
}

/// Which jobs an administrative change is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// These.
    Ids(Vec<JobId>),
    /// All that the filter takes.
    Filter(JobFilter),
    /// The failed jobs of one group.
    Group {
        /// The group, as [`FailureGroup`] names it.
        group: String,
        /// So many at most, those that failed first.
        #[serde(default)]
        limit: Option<u64>,
    },
}

/// Which jobs are meant; each set field must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobFilter {
    /// The state.
    #[serde(default)]
    pub state: Option<JobState>,
    /// The phase that the job is at.
    #[serde(default)]
    pub phase: Option<JobType>,
    /// A text that the last error has, in any case of letters.
    #[serde(default)]
    pub error: Option<String>,
    /// A text that the id starts with.
    #[serde(default)]
    pub id_prefix: Option<String>,
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Ready for its phase, waiting for a worker.
    Enqueued,
    /// Waiting for a time: a delay or the back-off before the next attempt.
    Scheduled,
    /// With a worker.
    Running,
    /// Through all phases.
    Success,
    /// Out of attempts; kept until retried or discarded.
    Failed,
    /// Stopped on request.
    Cancelled,
}

impl JobState {
    /// Every state, in the order of a job's life.
    pub const ALL: [JobState; 6] = [
        JobState::Enqueued,
        JobState::Scheduled,
        JobState::Running,
        JobState::Success,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// Whether the job ended: nothing happens to it without a request.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            JobState::Success | JobState::Failed | JobState::Cancelled
        )
    }

    /// The state's name, as it stands in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Enqueued => "enqueued",
            JobState::Scheduled => "scheduled",
            JobState::Running => "running",
            JobState::Success => "success",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a manager answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Query::Info`].
    Info(ManagerInfo),
    /// To [`Query::Stats`].
    Stats(Stats),
    /// To [`Query::Workers`].
    Workers(Vec<WorkerView>),
    /// To [`Query::Jobs`].
    Jobs {
        /// A page of jobs.
        jobs: Vec<JobView>,
        /// What to give as `after` for the next page; `None` at the end.
        next: Option<String>,
    },
    /// To [`Query::Job`], with one payload frame: the job's instructions now.
    Job(Box<JobDetail>),
    /// To the administrative changes: done, and durable where it matters.
    Changed {
        /// How many jobs, phases or workers it changed.
        count: u64,
        /// How many that were named could not be changed, such as jobs of another state.
        skipped: u64,
    },
    /// To [`Query::Series`].
    Series(Box<Series>),
    /// To [`Query::Latencies`].
    Latencies(Latencies),
    /// To [`Query::Search`].
    Found(Found),
    /// To [`Query::Failures`]: the largest groups first.
    Failures(Vec<FailureGroup>),
    /// To [`Query::Recent`].
    Recent(Recent),
}

/// A part of what a manager still knows of its event stream: log lines, changes of workers
/// and of the manager, what was changed on request. It begins with the manager's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// What to give as `after` for the next part; `None` at the end.
    pub next: Option<u64>,
}

/// Who a manager is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManagerInfo {
    /// Its journal's id.
    pub manager: ManagerId,
    /// Its epoch: how often it has been started on this journal.
    pub epoch: u64,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// The pipeline's phases in order.
    pub phases: Vec<JobType>,
    /// The version of Carbontube.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Whether it takes and dispatches jobs.
    pub state: ManagerState,
    /// Its PULL addresses.
    pub pull: Vec<Address>,
    /// Its SUB addresses.
    #[serde(rename = "sub")]
    pub subscribe: Vec<Address>,
    /// Its PUB addresses.
    #[serde(rename = "pub")]
    pub publish: Vec<Address>,
    /// Where the journal is.
    pub storage: String,
}

/// Whether a manager takes and dispatches jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManagerState {
    /// Just started: waits a moment for workers to say what they still run.
    Adopting,
    /// All is well.
    Running,
    /// Dispatches nothing, on request.
    Paused,
    /// The journal cannot be written: nothing is accepted until it can.
    Impaired,
    /// Takes no more jobs and goes when what runs is done.
    Draining,
}

/// How a pipeline is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// When this was true, by the manager's clock.
    pub at: Timestamp,
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Whether it takes and dispatches jobs.
    pub state: ManagerState,
    /// Jobs that have not ended.
    pub live: u64,
    /// Jobs accepted since the journal began.
    pub enqueued: u64,
    /// Jobs that went through all phases, since the journal began.
    pub success: u64,
    /// Jobs that are failed now (dead letters).
    pub failed: u64,
    /// Jobs cancelled since the journal began.
    pub cancelled: u64,
    /// Executions that certainly happened a second time, since the journal began: both
    /// reported how they ended. Each is among the `reruns`.
    pub duplicates: u64,
    /// Why: `(cause, count)`.
    pub duplicate_causes: Vec<(String, u64)>,
    /// Executions that may have happened a second time, since the journal began: an
    /// attempt that may have begun was given up and its job handed out again.
    pub reruns: u64,
    /// Why: `(cause, count)`.
    pub rerun_causes: Vec<(String, u64)>,
    /// Each phase, in order.
    pub phases: Vec<PhaseStats>,
    /// The journal.
    pub journal: JournalView,
    /// Named counters of everything refused and dropped: `(name, count)`.
    pub counters: Vec<(String, u64)>,
}

/// How one phase is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseStats {
    /// The phase.
    pub job_type: JobType,
    /// Whether it is paused.
    pub paused: bool,
    /// Jobs that wait for a worker.
    pub enqueued: u64,
    /// Jobs that wait for a time.
    pub scheduled: u64,
    /// Jobs with a worker.
    pub running: u64,
    /// Jobs that failed at this phase and are kept.
    pub failed: u64,
    /// Since when the oldest waiting job has waited.
    pub oldest_at: Option<Timestamp>,
    /// Workers that take work.
    pub workers: u32,
    /// Their slots.
    pub slots: u32,
    /// Attempts that succeeded since this start.
    pub done: u64,
    /// Attempts that failed since this start, by kind.
    pub failures: Vec<(FailureKind, u64)>,
    /// The phase's usual duration, in microseconds (a moving average); 0 when unknown.
    pub duration_us: u64,
}

/// How the journal is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalView {
    /// Pages that hold it now.
    pub pages: u64,
    /// Bytes that those pages hold.
    pub page_bytes: u64,
    /// Bytes on disk, as far as the store can tell.
    pub disk_bytes: u64,
    /// Commits since this start.
    pub commits: u64,
    /// Records since this start.
    pub records: u64,
    /// What is wrong with it, if anything.
    pub trouble: Option<String>,
}

/// One worker as the manager sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// The worker.
    pub worker: WorkerId,
    /// The phase that it runs.
    pub job_type: JobType,
    /// Where it takes work.
    pub address: Address,
    /// What the manager makes of it.
    pub status: WorkerStatus,
    /// How many attempts it runs at once.
    pub slots: u32,
    /// How many attempts the manager counts with it.
    pub held: u32,
    /// How many of those it says are running.
    pub running: u32,
    /// How many attempts succeeded there.
    pub success_count: u64,
    /// How many failed.
    pub failed_count: u64,
    /// When it was last heard of.
    pub last_seen_at: Timestamp,
    /// When it started, by its clock.
    pub started_at: Timestamp,
    /// The box's name.
    pub host: String,
    /// The process's number there.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// What the manager makes of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Takes work.
    Available,
    /// Heard of, but the pipe to it is not up (yet).
    Connecting,
    /// Finishes what it runs.
    Draining,
    /// Silent for longer than the worker timeout.
    Lost,
    /// Said goodbye.
    Gone,
}

impl From<WorkerState> for WorkerStatus {
    fn from(state: WorkerState) -> WorkerStatus {
        match state {
            WorkerState::Available => WorkerStatus::Available,
            WorkerState::Draining => WorkerStatus::Draining,
        }
    }
}

/// One job in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// The job.
    pub id: JobId,
    /// What it is doing.
    pub state: JobState,
    /// The phase that it is at, or ended at.
    pub job_type: JobType,
    /// That phase's place in the pipeline, from 0.
    pub phase: u16,
    /// Why it is not running, in one plain sentence; empty when it runs or has ended.
    pub reason: String,
    /// Which try of this phase it is at, from 1; 0 before the first.
    pub attempt: u32,
    /// When it was accepted.
    pub enqueued_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// The worker that has it.
    pub worker: Option<WorkerId>,
    /// The last error's message.
    pub error: Option<String>,
}

/// Everything about one job. The payload frame beside it is its instructions now, or
/// its result; empty when they are not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    /// The job as in a list.
    pub view: JobView,
    /// The last error in full.
    pub error: Option<ErrorReport>,
    /// What kind of failure it was.
    pub failure: Option<FailureKind>,
    /// When it may run next, if it waits for a time.
    pub not_before: Option<Timestamp>,
    /// The attempts that ended, oldest first, as far as they are kept.
    pub attempts: Vec<AttemptView>,
    /// The W3C `traceparent` that came with it.
    pub traceparent: Option<String>,
    /// The instructions now.
    #[serde(skip)]
    pub instructions: Bytes,
}

/// One ended attempt of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// The phase's place in the pipeline, from 0.
    pub phase: u16,
    /// The worker, when known.
    pub worker: Option<WorkerId>,
    /// When it began, by the worker's clock; of one that was lost with its worker, when it
    /// was handed out, by the manager's.
    pub started_at: Timestamp,
    /// When it ended, by the worker's clock; of one that was lost with its worker, when the
    /// manager gave it up.
    pub finished_at: Timestamp,
    /// How it failed; `None` when it succeeded.
    pub failure: Option<FailureKind>,
    /// What it said when it failed.
    pub error: String,
}
