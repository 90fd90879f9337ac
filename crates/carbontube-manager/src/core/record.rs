//! What the journal and the history hold: records, as they stand in pages.
//!
//! A record on disk is the length of its head, the head in bincode, and the payload as
//! it is. The types here are the disk's own; nothing else is serialized.

use bincode::config;
use bytes::Bytes;
use carbontube_protocol::message::{AttemptView, ErrorReport, FailureKind, JobState};
use carbontube_protocol::{
    Address, AttemptId, JobId, JobType, ManagerId, PipelineName, Timestamp, WorkerId,
};
use carbontube_storage::PageSeq;
use serde::{Deserialize, Serialize};

use super::cause::Cause;

/// Heads are small; this only stops a damaged one from asking for much memory.
const HEAD_BYTES_MAX: usize = 4 << 20;

/// A record of the journal. New kinds go to the end, old ones stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Record {
    /// Whose journal this is, and everything that is not about one job.
    State(StateRecord),
    /// All about a live job; its payload stands behind the head. Versions that did not
    /// know [`Record::JobSince`] wrote it.
    Job(JobRecord),
    /// What changed about a live job since its last [`Record::JobSince`].
    Change(ChangeRecord),
    /// The job is not live any more.
    Ended {
        /// The job.
        id: JobId,
        /// In which way.
        end: End,
    },
    /// The workers that may hold attempts: all of them. Follows each [`Record::State`];
    /// a journal without one is from version 1 of its pages and names no worker.
    Workers(Vec<KnownRecord>),
    /// From now on this worker may hold attempts, or more of them.
    Known(KnownRecord),
    /// What this worker may still hold does not count any more.
    Unknown {
        /// The worker.
        worker: WorkerId,
    },
    /// How often executions were repeated since the journal began. Follows each
    /// [`Record::State`].
    Repeats(RepeatsRecord),
    /// The live job's last attempt was given up although it may have begun.
    Doubt {
        /// The job.
        id: JobId,
        /// Why.
        cause: Cause,
    },
    /// Executions may happen a second time from now on.
    Rerun {
        /// Why.
        cause: Cause,
        /// How many at most.
        jobs: u64,
        /// The job, when it is one: its doubt is counted with this.
        id: Option<JobId>,
    },
    /// An execution certainly happened a second time.
    Duplicate {
        /// Why.
        cause: Cause,
    },
    /// The live job's waiting time is over. Journaled before it is handed out, so that no
    /// clock decides after a restart whether a worker may hold it.
    Due {
        /// The job.
        id: JobId,
        /// Its place in its phase's queue from now on.
        ticket: u64,
    },
    /// All about a live job; its payload stands behind the head.
    JobSince {
        /// The first attempt that can be its own; a former job may have had its id. Of a
        /// job whose record a version before this wrote, epoch and counter are zero.
        since: AttemptId,
        /// The job.
        job: JobRecord,
    },
    /// The journal was made out of an export: the original may have gone on since, with
    /// more starts. The next start's epoch is this much higher.
    Step {
        /// By how much.
        epochs: u64,
    },
}

/// A worker that may hold attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KnownRecord {
    pub(super) worker: WorkerId,
    pub(super) job_type: JobType,
    pub(super) address: Address,
    pub(super) shared: bool,
    pub(super) original: bool,
    /// Whether it is spoken to in JSON.
    pub(super) json: bool,
    /// How many attempts it holds at most, with those whose results are not durable yet.
    pub(super) held_max: u32,
}

/// Counts of repeated executions, by cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RepeatsRecord {
    pub(super) reruns: Vec<(Cause, u64)>,
    pub(super) duplicates: Vec<(Cause, u64)>,
}

/// No manager counts this far; counting on from here, and adding up, does not overflow.
pub(super) const NUMBER_MAX: u64 = u64::MAX >> 16;
/// No journal has so many pages; all that follow in the life of a manager have numbers too.
const PAGE_NUMBER_MAX: u64 = u64::MAX >> 8;

impl Record {
    /// All about a live job, when it is that.
    pub(super) fn into_job(self) -> Option<JobRecord> {
        match self {
            Record::Job(job) | Record::JobSince { job, .. } => Some(job),
            _ => None,
        }
    }

    /// Refuses numbers that no manager has reached: a page can come from an import, and
    /// its checksum only says that it is as somebody made it.
    pub(super) fn check_numbers(&self) -> Result<(), String> {
        let counts = |repeats: &RepeatsRecord| {
            let all = repeats.reruns.iter().chain(&repeats.duplicates);
            all.map(|(_, count)| *count).max().unwrap_or(0)
        };
        let numbers: &[(&str, u64)] = match self {
            Record::State(state) => &[
                ("an epoch", state.epoch),
                ("a count of jobs enqueued", state.totals.enqueued),
                ("a count of jobs finished", state.totals.success),
                ("a count of jobs cancelled", state.totals.cancelled),
            ],
            Record::Job(JobRecord { change, .. }) | Record::Change(change) => &[
                ("a ticket", change.ticket),
                ("a number of tries", far(change.tries)),
                ("a number of lost workers", far(change.losses)),
            ],
            Record::JobSince { since, job } => &[
                ("an epoch", since.epoch),
                ("a count of attempts", since.counter),
                ("a ticket", job.change.ticket),
                ("a number of tries", far(job.change.tries)),
                ("a number of lost workers", far(job.change.losses)),
            ],
            Record::Repeats(repeats) => &[("a count of repeats", counts(repeats))],
            Record::Rerun { jobs, .. } => &[("a count of repeats", *jobs)],
            Record::Due { ticket, .. } => &[("a ticket", *ticket)],
            Record::Step { epochs } => &[("a step of epochs", *epochs)],
            Record::Ended { .. }
            | Record::Workers(_)
            | Record::Known(_)
            | Record::Unknown { .. }
            | Record::Doubt { .. }
            | Record::Duplicate { .. } => return Ok(()),
        };
        numbers
            .iter()
            .try_for_each(|(what, number)| check_number(what, *number, NUMBER_MAX))
    }
}

/// Refuses the number of a page that no journal has reached.
pub(super) fn check_page_number(seq: PageSeq) -> Result<(), String> {
    check_number("a page number", seq.0, PAGE_NUMBER_MAX)
}

fn check_number(what: &str, number: u64, most: u64) -> Result<(), String> {
    match number > most {
        true => Err(format!("it says {what} that none reaches: {number}")),
        false => Ok(()),
    }
}

/// A number of 32 bits in proportion to those of 64.
fn far(number: u32) -> u64 {
    u64::from(number) << 17
}

/// Why a job is not live any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    Finished,
    Cancelled,
    Discarded,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StateRecord {
    pub(super) manager: ManagerId,
    pub(super) epoch: u64,
    pub(super) pipeline: PipelineName,
    pub(super) phases: Vec<JobType>,
    pub(super) paused_all: bool,
    pub(super) paused: Vec<JobType>,
    pub(super) totals: Totals,
}

/// Counts since the journal began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) enqueued: u64,
    pub(super) success: u64,
    pub(super) cancelled: u64,
}

/// Where a live job stands, as the journal tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    Ready,
    Waiting { until: Timestamp },
    Failed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChangeRecord {
    pub(super) id: JobId,
    pub(super) job_type: JobType,
    pub(super) standing: Standing,
    pub(super) tries: u32,
    pub(super) losses: u32,
    pub(super) ticket: u64,
    pub(super) changed_at: Timestamp,
    pub(super) settled: Option<AttemptId>,
    pub(super) failure: Option<FailureRecord>,
    /// An attempt that ended with this change.
    pub(super) attempt: Option<AttemptView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FailureRecord {
    pub(super) kind: FailureKind,
    pub(super) error: ErrorReport,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    /// Whether the job is accepted by this record, or was before.
    pub(super) accepted: bool,
    pub(super) enqueued_at: Timestamp,
    pub(super) traceparent: Option<String>,
    pub(super) attempts: Vec<AttemptView>,
    pub(super) change: ChangeRecord,
}

/// An ended job in the history; its result stands behind the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PastRecord {
    pub(super) id: JobId,
    pub(super) state: JobState,
    pub(super) job_type: JobType,
    pub(super) phase: u16,
    pub(super) tries: u32,
    pub(super) enqueued_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) traceparent: Option<String>,
    pub(super) failure: Option<FailureRecord>,
    pub(super) attempts: Vec<AttemptView>,
}

/// Writes a head and its payload.
pub(super) fn encode<H: Serialize>(head: &H, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    let length = bincode::serde::encode_into_std_write(head, &mut bytes, config::standard())
        .expect("writing to memory does not fail, and records hold nothing that bincode refuses");
    bytes[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads a head and its payload.
pub(super) fn decode<H: for<'de> Deserialize<'de>>(record: &Bytes) -> Result<(H, Bytes), String> {
    let length = record
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(|bytes| u32::from_le_bytes(bytes) as usize)
        .ok_or_else(|| format!("a record of {} bytes has no head", record.len()))?;
    let head = record
        .get(4..4 + length)
        .ok_or_else(|| format!("a head of {length} bytes stands in {} bytes", record.len()))?;
    let limited = config::standard().with_limit::<HEAD_BYTES_MAX>();
    let (head, _) = bincode::serde::decode_from_slice(head, limited)
        .map_err(|error| format!("a head cannot be read: {error}"))?;
    Ok((head, record.slice(4 + length..)))
}
