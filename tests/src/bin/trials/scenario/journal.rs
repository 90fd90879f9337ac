//! The journal's own word, read from what `carbontube journal export` writes.
//!
//! Nothing of the manager is used to read it: the export's frames, the pages and the
//! records are taken apart here again, so that a mistake in the manager's own reading
//! does not hide itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bincode::config;
use carbontube_client::protocol::message::{AttemptView, ErrorReport, FailureKind, JobState};
use carbontube_client::protocol::{AttemptId, JobType, ManagerId, Timestamp};
use carbontube_client::{JobId, PipelineName};
use carbontube_tests::run_program;
use serde::Deserialize;

use crate::cluster::{Cluster, binaries};

/// What a journal holds.
#[derive(Debug, Default)]
pub(crate) struct JournalSays {
    /// Jobs that have not ended, and those that failed.
    pub(crate) live: BTreeMap<String, Standing>,
    /// Attempts of live jobs, as far as they are kept.
    pub(crate) attempts: BTreeMap<String, Vec<AttemptView>>,
    /// Jobs that ended, as the history has them.
    pub(crate) past: BTreeMap<String, Past>,
    /// Accepted since the journal began, and through all phases.
    pub(crate) enqueued: u64,
    pub(crate) success: u64,
    /// How often a manager was started on it.
    pub(crate) epoch: u64,
    /// Executions that may have been repeated, and that certainly were.
    pub(crate) reruns: u64,
    pub(crate) duplicates: u64,
    /// Records of kinds that are not known here.
    pub(crate) unknown: usize,
}

/// Where a live job stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    Ready,
    Waiting,
    /// Failed in this way, with this message.
    Failed(Option<FailureKind>, String),
}

/// An ended job.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    pub(crate) state: JobState,
    pub(crate) ended_us: u64,
    pub(crate) attempts: Vec<AttemptView>,
}

/// Exports the journal of a stopped manager and reads it.
pub(crate) fn read(cluster: &Cluster) -> Result<JournalSays> {
    let pipeline = cluster.pipeline().to_string();
    read_at(cluster.folder(), cluster.storage(), &pipeline)
}

/// Exports any journal that no manager has open, and reads it.
pub(crate) fn read_at(folder: &Path, storage: &str, pipeline: &str) -> Result<JournalSays> {
    let file = folder.join("exported");
    let _old = std::fs::remove_file(&file);
    let arguments = [
        "journal".to_owned(),
        "export".to_owned(),
        storage.to_owned(),
        pipeline.to_owned(),
        file.display().to_string(),
    ];
    let finished = run_program(folder, &binaries().join("carbontube"), &arguments);
    ensure!(
        finished.code == Some(0),
        "the journal cannot be exported: {}",
        finished.stderr
    );
    let bytes = std::fs::read(&file).context("reading the exported journal")?;
    parse(&bytes)
}

/// Splits off so many bytes.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (front, rest) = bytes
        .split_at_checked(count)
        .with_context(|| format!("{} bytes are left, {count} are due", bytes.len()))?;
    *bytes = rest;
    Ok(front)
}

fn big(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

fn little(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
}

fn parse(bytes: &[u8]) -> Result<JournalSays> {
    let mut rest = bytes;
    ensure!(take(&mut rest, 4)? == b"CTEX", "it is no export");
    // Version, filler and identity.
    take(&mut rest, 4 + 16)?;
    let mut due = 0;
    for _log in 0..2 {
        let (first, next) = (big(take(&mut rest, 8)?), big(take(&mut rest, 8)?));
        due += next - first;
    }
    let name = big(take(&mut rest, 2)?) as usize;
    take(&mut rest, name + 4)?;
    let mut says = JournalSays::default();
    let (mut pages, mut piece, mut wanted) = (0, Vec::new(), 0);
    while rest.starts_with(b"CTPG") {
        let header = take(&mut rest, 24)?;
        let page = take(&mut rest, big(&header[16..20]) as usize)?;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), page);
        ensure!(
            u64::from(sum) == big(&header[20..]),
            "page {} is damaged",
            big(&header[8..16])
        );
        pages += 1;
        let is_past = header[5] == b'H';
        let mut page = page;
        let head = take(&mut page, 2)?;
        match head[1] {
            b'W' => {
                while !page.is_empty() {
                    let length = little(take(&mut page, 4)?);
                    says.record(is_past, take(&mut page, length)?)?;
                }
            }
            b'F' => {
                wanted = little(take(&mut page, 4)?);
                piece = page.to_vec();
            }
            // The log can begin amid the pieces of a record that is dead.
            b'N' if wanted == 0 => continue,
            b'N' => piece.extend_from_slice(page),
            other => bail!("a page of kind {other}"),
        }
        if wanted > 0 && piece.len() >= wanted {
            says.record(is_past, &piece)?;
            (piece, wanted) = (Vec::new(), 0);
        }
    }
    ensure!(take(&mut rest, 4)? == b"CTEN", "it has no end");
    ensure!(pages == due, "{pages} pages of {due} are there");
    Ok(says)
}

// The records, as the manager has them on disk; the order of fields is the format.

#[derive(Deserialize)]
#[expect(dead_code, reason = "the order of fields is the format")]
enum Record {
    State(StateRecord),
    Job(JobRecord),
    Change(ChangeRecord),
    Ended {
        id: JobId,
        end: End,
    },
    // These speak of workers and doubts, which the judge does not need: they are skipped.
    Workers,
    Known,
    Unknown,
    Repeats(RepeatsRecord),
    Doubt,
    Rerun {
        cause: Cause,
        jobs: u64,
        id: Option<JobId>,
    },
    Duplicate {
        cause: Cause,
    },
    Due {
        id: JobId,
        ticket: u64,
    },
    JobSince {
        since: AttemptId,
        job: JobRecord,
    },
    // Of epochs alone.
    Step,
}

/// The number of a variant, which is all that is needed of it.
type Cause = u32;

#[derive(Deserialize)]
struct RepeatsRecord {
    reruns: Vec<(Cause, u64)>,
    duplicates: Vec<(Cause, u64)>,
}

#[derive(Deserialize)]
enum End {
    Finished,
    Cancelled,
    Discarded,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the order of fields is the format")]
struct StateRecord {
    manager: ManagerId,
    epoch: u64,
    pipeline: PipelineName,
    phases: Vec<JobType>,
    paused_all: bool,
    paused: Vec<JobType>,
    enqueued: u64,
    success: u64,
    cancelled: u64,
}

#[derive(Deserialize)]
enum OnDisk {
    Ready,
    Waiting {
        #[expect(dead_code, reason = "the order of fields is the format")]
        until: Timestamp,
    },
    Failed,
}

#[derive(Deserialize)]
struct FailureRecord {
    kind: FailureKind,
    error: ErrorReport,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the order of fields is the format")]
struct ChangeRecord {
    id: JobId,
    job_type: JobType,
    standing: OnDisk,
    tries: u32,
    losses: u32,
    ticket: u64,
    changed_at: Timestamp,
    settled: Option<AttemptId>,
    failure: Option<FailureRecord>,
    attempt: Option<AttemptView>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the order of fields is the format")]
struct JobRecord {
    accepted: bool,
    enqueued_at: Timestamp,
    traceparent: Option<String>,
    attempts: Vec<AttemptView>,
    change: ChangeRecord,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the order of fields is the format")]
struct PastRecord {
    id: JobId,
    state: JobState,
    job_type: JobType,
    phase: u16,
    tries: u32,
    enqueued_at: Timestamp,
    ended_at: Timestamp,
    traceparent: Option<String>,
    failure: Option<FailureRecord>,
    attempts: Vec<AttemptView>,
}

/// Kinds of records that are known here.
const KINDS: u8 = 14;
/// Those of them that are not read.
const SKIPPED: [u8; 5] = [4, 5, 6, 8, 13];

impl JournalSays {
    fn record(&mut self, is_past: bool, record: &[u8]) -> Result<()> {
        let mut rest = record;
        let length = little(take(&mut rest, 4)?);
        let head = take(&mut rest, length)?;
        if is_past {
            let (past, _): (PastRecord, _) =
                bincode::serde::decode_from_slice(head, config::standard())?;
            let known = Past {
                state: past.state,
                ended_us: past.ended_at.0,
                attempts: past.attempts,
            };
            let earlier = self.past.insert(past.id.to_string(), known);
            ensure!(
                earlier.is_none_or(|earlier| earlier.state != JobState::Success),
                "the history has job {} twice",
                past.id
            );
            return Ok(());
        }
        match head.first() {
            Some(kind) if SKIPPED.contains(kind) => return Ok(()),
            Some(kind) if *kind < KINDS => {}
            _ => {
                self.unknown += 1;
                return Ok(());
            }
        }
        let (record, _): (Record, _) = bincode::serde::decode_from_slice(head, config::standard())?;
        match record {
            Record::State(state) => {
                self.epoch = state.epoch;
                self.enqueued = state.enqueued;
                self.success = state.success;
            }
            Record::Job(job) | Record::JobSince { job, .. } => {
                self.enqueued += u64::from(job.accepted);
                self.attempts
                    .insert(job.change.id.to_string(), job.attempts);
                self.stand(job.change);
            }
            Record::Change(change) => self.stand(change),
            Record::Ended { id, end } => {
                self.live.remove(&id.to_string());
                self.attempts.remove(&id.to_string());
                match end {
                    End::Finished => self.success += 1,
                    End::Cancelled | End::Discarded => {}
                }
            }
            Record::Workers | Record::Known | Record::Unknown | Record::Doubt | Record::Step => {}
            Record::Repeats(repeats) => {
                let sum = |counts: Vec<(Cause, u64)>| counts.iter().map(|(_, count)| count).sum();
                self.reruns = sum(repeats.reruns);
                self.duplicates = sum(repeats.duplicates);
            }
            Record::Rerun { jobs, .. } => self.reruns += jobs,
            Record::Duplicate { .. } => self.duplicates += 1,
            Record::Due { id, .. } => {
                self.live.insert(id.to_string(), Standing::Ready);
            }
        }
        Ok(())
    }

    fn stand(&mut self, change: ChangeRecord) {
        let standing = match change.standing {
            OnDisk::Ready => Standing::Ready,
            OnDisk::Waiting { .. } => Standing::Waiting,
            OnDisk::Failed => {
                let failure = change.failure;
                let kind = failure.as_ref().map(|failure| failure.kind);
                let message = failure.map(|failure| failure.error.message);
                Standing::Failed(kind, message.unwrap_or_default())
            }
        };
        let id = change.id.to_string();
        if let Some(attempt) = change.attempt {
            self.attempts.entry(id.clone()).or_default().push(attempt);
        }
        self.live.insert(id, standing);
    }
}

/// Whether a storage is a place that an export can read.
pub(crate) fn is_readable(storage: &str) -> bool {
    !storage.starts_with("memory:")
        && (!storage.starts_with("sled:")
            || Path::new(storage.trim_start_matches("sled:")).exists())
}
