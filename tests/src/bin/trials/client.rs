//! A client as a process of its own, which may be killed: it writes down what it is told.
//!
//! Its file only grows. Each line is a word, a job's id and a time in microseconds since
//! 1970: `sent` before a job goes out, `confirmed`, then `finished` or `failed`. Started
//! again, it goes on where the file ends: what was sent and not confirmed is sent again
//! under the same id, what was not heard of is waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use async_std::task;
use carbontube_client::protocol::message::JobState;
use carbontube_client::{ClientOptions, JobId, NewJob, PipelineClient, PipelineName};
use signal_hook::consts::SIGTERM;

use crate::cluster::now_us;
use crate::scenario::sleepers;

/// How long it bears the absence of a manager.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many jobs go out together.
const BATCH: usize = 16;

/// Enqueue until SIGTERM, wait for every job, and write down what is told.
#[derive(FromArgs)]
#[argh(subcommand, name = "client")]
pub(crate) struct Client {
    /// the manager's api address
    #[argh(option)]
    api: String,
    /// the pipeline's name
    #[argh(option)]
    pipeline: PipelineName,
    /// the file to write to
    #[argh(option)]
    told: PathBuf,
    /// what the jobs are drawn from
    #[argh(option)]
    seed: u64,
    /// the most milliseconds that most phases sleep
    #[argh(option)]
    ms: u64,
    /// the most jobs that have not ended
    #[argh(option)]
    window: usize,
    /// file that appears once it is connected
    #[argh(option)]
    ready_file: PathBuf,
}

/// What clients wrote down.
#[derive(Default)]
pub(crate) struct Written {
    /// In the order of sending.
    pub(crate) sent: Vec<String>,
    pub(crate) confirmed: BTreeMap<String, u64>,
    pub(crate) finished: BTreeMap<String, u64>,
    pub(crate) failed: BTreeSet<String>,
}

/// Reads a client's file; a last line without an end is none.
pub(crate) fn read_told(path: &Path) -> Result<Written> {
    let mut written = Written::default();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(written),
        Err(error) => return Err(error).context("reading what a client was told"),
    };
    let lines = text.split_inclusive('\n');
    for line in lines.filter(|line| line.ends_with('\n')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [word, id, at] = fields[..] else {
            // Where a killed client was cut off, the next one goes on in the same line.
            continue;
        };
        let (id, at) = (id.to_owned(), at.parse().unwrap_or(0));
        match word {
            "sent" => written.sent.push(id),
            "confirmed" => {
                written.confirmed.insert(id, at);
            }
            "finished" => {
                written.finished.insert(id, at);
            }
            "failed" => {
                written.failed.insert(id);
            }
            _ => {}
        }
    }
    Ok(written)
}

/// Runs until SIGTERM and until every job has ended.
pub(crate) fn run(client: &Client) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, stop.clone())?;
    task::block_on(enqueue(client, &stop))
}

struct Book {
    file: File,
}

impl Book {
    fn note<'a>(&mut self, word: &str, ids: impl Iterator<Item = &'a JobId>) -> Result<()> {
        let now = now_us();
        let lines: String = ids.map(|id| format!("{word} {id} {now}\n")).collect();
        Ok(self.file.write_all(lines.as_bytes())?)
    }
}

async fn enqueue(arguments: &Client, stop: &AtomicBool) -> Result<()> {
    let options = ClientOptions {
        timeout: PATIENCE,
        connect_timeout: PATIENCE,
        absence_max: PATIENCE,
        ..ClientOptions::default()
    };
    let address = arguments.api.parse()?;
    let client = PipelineClient::connect(&[address], options).await?;
    let earlier = read_told(&arguments.told)?;
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(&arguments.told)?;
    let mut book = Book { file };
    // After a line that was cut off.
    book.file.write_all(b"\n")?;
    std::fs::write(&arguments.ready_file, "{}")?;

    let is_open =
        |id: &&String| !earlier.finished.contains_key(*id) && !earlier.failed.contains(*id);
    let mut sent: BTreeSet<&String> = BTreeSet::new();
    let (mut again, mut open) = (Vec::new(), Vec::new());
    for id in earlier.sent.iter().filter(is_open) {
        if !sent.insert(id) {
            continue;
        }
        open.push(id.parse::<JobId>()?);
        if !earlier.confirmed.contains_key(id) {
            again.push(id.clone());
        }
    }
    let mut next = earlier.sent.iter().collect::<BTreeSet<_>>().len();
    let mut waiting: VecDeque<JobId> = VecDeque::new();
    let mut again = again.into_iter();
    while !stop.load(Ordering::Relaxed) {
        let mut ids: Vec<String> = again.by_ref().take(BATCH).collect();
        if ids.is_empty() {
            ids.extend((next..next + BATCH).map(|number| format!("job-{number}")));
            next += BATCH;
        }
        let mut batch = Vec::new();
        for id in ids {
            batch.push(NewJob::new(&order_of(&id, arguments))?.with_id(id.parse()?));
        }
        let all: Vec<JobId> = batch.iter().map(|job| job.id().clone()).collect();
        book.note("sent", all.iter())?;
        let receipts = client.enqueue_batch(&arguments.pipeline, batch).await?;
        if let Some(refused) = receipts.iter().find(|receipt| !receipt.is_confirmed()) {
            bail!("job {} was refused", refused.id());
        }
        book.note("confirmed", receipts.iter().map(|receipt| receipt.id()))?;
        let fresh = all.into_iter().filter(|id| !open.contains(id));
        waiting.extend(fresh.collect::<Vec<_>>());
        if waiting.len() + open.len() > arguments.window {
            open.extend(waiting.drain(..));
            let keep = arguments.window / 2;
            wait(&client, arguments, &mut open, keep, &mut book).await?;
        }
    }
    open.extend(waiting);
    wait(&client, arguments, &mut open, 0, &mut book).await
}

/// What a job does follows from its id, so that it is the same when it is sent again.
fn order_of(id: &str, arguments: &Client) -> serde_json::Value {
    let number = id.bytes().fold(0, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let random = fastrand::Rng::with_seed(arguments.seed ^ number);
    let order = sleepers(random, arguments.ms).next();
    order.unwrap_or_default()
}

/// Waits until at most `keep` of the open jobs have not ended.
async fn wait(
    client: &PipelineClient,
    arguments: &Client,
    open: &mut Vec<JobId>,
    keep: usize,
    book: &mut Book,
) -> Result<()> {
    let mut stream = client.wait_all(&arguments.pipeline, open.iter().cloned())?;
    let mut ended = BTreeSet::new();
    while stream.remaining() > keep {
        let Some(job) = stream.next().await else {
            break;
        };
        let job = job?;
        match job.state {
            Some(JobState::Success) => book.note("finished", [&job.id].into_iter())?,
            Some(state) if state.is_terminal() => book.note("failed", [&job.id].into_iter())?,
            other => bail!("the manager says of job {}: {other:?}", job.id),
        }
        ended.insert(job.id);
    }
    open.retain(|id| !ended.contains(id));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_a_killed_client_is_read_up_to_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("told");
        let text = "sent a 1\nsent b 1\nconfirmed a 2\nfinished a 3\nfai\nfailed b 4\nconfir";
        std::fs::write(&path, text).unwrap();
        let written = read_told(&path).unwrap();
        assert_eq!(written.sent, ["a", "b"]);
        assert_eq!(written.confirmed, BTreeMap::from([("a".to_owned(), 2)]));
        assert_eq!(written.finished, BTreeMap::from([("a".to_owned(), 3)]));
        assert_eq!(written.failed, BTreeSet::from(["b".to_owned()]));
    }
}
