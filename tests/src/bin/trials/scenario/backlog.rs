//! A backlog of large failed jobs is discarded: how much memory that takes, how long others
//! wait meanwhile, and what is left when there is no memory for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_std::task;
use carbontube_client::protocol::message::{JobFilter, JobState, Selector};
use carbontube_client::{NewJob, PipelineClient, PipelineName};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::{Figures, PHASES, Size, journal, plan, wait_for};
use crate::cluster::Cluster;
use crate::process::{peak_kib, resident_kib, virtual_kib};

/// How much a manager may grow while it discards.
const GROWS_BY_MAX_KIB: u64 = 160 << 10;
/// How long another client's job may wait meanwhile until it is confirmed.
const WAITS_MAX: Duration = Duration::from_secs(1);

/// Few large jobs, then many smaller ones.
pub(super) fn discard_backlog(size: Size) -> Result<Figures> {
    let large = measure(size.of(16, 64), 16 << 20)?;
    let small = measure(size.of(128, 512), 1 << 20)?;
    let more = [&large, &small].map(|found| found.text.as_str()).join("; ");
    for found in [large, small] {
        ensure!(
            found.grown_kib <= GROWS_BY_MAX_KIB && found.waited <= WAITS_MAX,
            "it takes too much: {more}"
        );
    }
    Ok(Figures::default().saying(more))
}

struct Measured {
    grown_kib: u64,
    waited: Duration,
    text: String,
}

fn measure(jobs: usize, bytes: usize) -> Result<Measured> {
    let folder = tempfile::tempdir()?;
    let mut cluster = failed(folder.path(), jobs, bytes)?;
    let client = cluster.client()?;
    let manager = cluster.manager().id();
    let before_kib = resident_kib(manager)?;
    reset_peak(manager)?;
    let probe = Probe::start(cluster.client()?, cluster.pipeline());
    let started = Instant::now();
    let changed = task::block_on(client.discard(all_failed()))?;
    let answered = started.elapsed();
    ensure!(
        changed.count as usize == jobs,
        "{} of {jobs} were discarded",
        changed.count
    );
    wait_for("an empty journal", || {
        let stats = task::block_on(client.stats())?;
        Ok(stats.journal.page_bytes < 1 << 20)
    })?;
    let emptied = started.elapsed();
    let waited = probe.end()?;
    let peak_kib = peak_kib(manager)?;
    let grown_kib = peak_kib.saturating_sub(before_kib);
    let text = format!(
        "{jobs} failed jobs of {} MiB: discarded after {:.2} s, their pages gone after {:.2} s, \
         {} MiB resident before, {} MiB at most, another client waited for a confirmation {:.0} ms at most",
        bytes >> 20,
        answered.as_secs_f64(),
        emptied.as_secs_f64(),
        before_kib >> 10,
        peak_kib >> 10,
        waited.as_secs_f64() * 1e3,
    );
    Ok(Measured {
        grown_kib,
        waited,
        text,
    })
}

/// The manager may have little more memory than it has: wherever that ends it, the next
/// one has every job that was not discarded, and takes up where it ended.
pub(super) fn discard_without_memory(size: Size) -> Result<Figures> {
    let (jobs, rounds) = (size.of(24, 64), size.of(3, 12));
    let mut ended = 0;
    for round in 0..rounds {
        let folder = tempfile::tempdir()?;
        let mut cluster = failed(folder.path(), jobs, 4 << 20)?;
        // One job that must not be lost, whatever happens to the others.
        let client = cluster.client()?;
        let kept = NewJob::new(&json!({ "first": { "do": "sleep", "ms": 1 } }))?;
        let kept = kept.with_delay(Duration::from_secs(24 * 3600));
        let kept = task::block_on(client.enqueue(&cluster.pipeline(), kept))?;
        let kept = kept.id().to_string();
        limit(cluster.manager().id(), 2 << round.min(6))?;
        let answer = task::block_on(async {
            let discarded = client.discard(all_failed());
            async_std::future::timeout(Duration::from_secs(5), discarded).await
        });
        let confirmed = matches!(&answer, Ok(Ok(changed)) if changed.count as usize == jobs);
        ended += usize::from(!cluster.manager().is_running());
        cluster.kill_manager();
        cluster
            .start_manager()
            .with_context(|| format!("round {round}, with {} MiB", 2 << round.min(6)))?;
        let client = cluster.client()?;
        let stats = task::block_on(client.stats())?;
        let left = stats.phases[0].failed as usize;
        ensure!(
            stats.live as usize == left + 1,
            "{} are live, {left} failed",
            stats.live
        );
        ensure!(
            !confirmed || left == 0,
            "{left} are there that were confirmed to be discarded"
        );
        let rest = task::block_on(client.discard(all_failed()))?;
        ensure!(
            rest.count as usize == left,
            "{} of {left} were discarded",
            rest.count
        );
        cluster.kill_manager();
        let says = journal::read(&cluster)?;
        ensure!(
            says.live.contains_key(&kept) && says.live.len() == 1,
            "the journal has {} live jobs, the one to keep among them: {}",
            says.live.len(),
            says.live.contains_key(&kept)
        );
    }
    Ok(Figures::default().saying(format!(
        "{rounds} times {jobs} failed jobs of 4 MiB were discarded under a limit of memory, \
         {ended} managers ended of it, no job was lost, none came back"
    )))
}

/// A cluster whose jobs have all failed, without workers any more.
fn failed(folder: &std::path::Path, jobs: usize, bytes: usize) -> Result<Cluster> {
    let mut cluster = Cluster::start(folder, &plan("attempts = 1"))?;
    let worker = cluster.add_worker(PHASES[0], 4);
    let client = cluster.client()?;
    let text = "x".repeat(bytes - 200);
    for _ in 0..jobs {
        let job = NewJob::new(&json!({ "first": { "do": "fail" }, "text": text }))?;
        task::block_on(client.enqueue(&cluster.pipeline(), job))?;
    }
    wait_for("failed jobs", || {
        let stats = task::block_on(client.stats())?;
        Ok(stats.failed as usize == jobs)
    })?;
    cluster.kill_worker(worker);
    Ok(cluster)
}

fn all_failed() -> Selector {
    Selector::Filter(JobFilter {
        state: Some(JobState::Failed),
        ..JobFilter::default()
    })
}

/// From now on the most memory that a process had is counted anew.
fn reset_peak(process: u32) -> Result<()> {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").context("resetting the peak")
}

/// The process may have so many MiB of addresses more than it has now.
fn limit(process: u32, more_mib: u64) -> Result<()> {
    let bytes = (virtual_kib(process)? << 10) + (more_mib << 20);
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    let process = Pid::from_raw(i32::try_from(process)?).context("a process has an id")?;
    prlimit(Some(process), Resource::As, limit)?;
    Ok(())
}

/// A client that enqueues a job again and again, and how long it waited at most.
struct Probe {
    ends: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Duration>>,
}

impl Probe {
    fn start(client: PipelineClient, pipeline: PipelineName) -> Probe {
        let ends = Arc::new(AtomicBool::new(false));
        let seen = ends.clone();
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !seen.load(Ordering::Relaxed) {
                let job = NewJob::new(&json!({ "first": { "do": "sleep", "ms": 1 } }))?;
                let job = job.with_delay(Duration::from_secs(24 * 3600));
                let asked = Instant::now();
                task::block_on(client.enqueue(&pipeline, job))?;
                longest = longest.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(longest)
        });
        Probe { ends, thread }
    }

    fn end(self) -> Result<Duration> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("the probe does not panic")
    }
}
