//! Phases that misbehave, and workers that go or compare.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use async_std::task;
use carbontube_client::protocol::message::JobState;
use carbontube_client::{JobId, NewJob};
use file_catalogue::read_ledgers;
use serde_json::json;

use super::kills::ended;
use super::{Figures, PHASES, Size, cluster, judge, judge_beside, order, plan, settle, wait_for};
use crate::cluster::Cluster;
use crate::feeder::{feed, joined};

/// Enqueues jobs apart from those that the feeder counts, and returns their ids.
pub(super) fn enqueue_apart(cluster: &Cluster, jobs: &[serde_json::Value]) -> Result<Vec<JobId>> {
    let client = cluster.client()?;
    let jobs: Vec<NewJob> = jobs.iter().map(NewJob::new).collect::<Result<_, _>>()?;
    let receipts = task::block_on(client.enqueue_batch(&cluster.pipeline(), jobs))?;
    for receipt in &receipts {
        ensure!(receipt.is_confirmed(), "not confirmed: {receipt:?}");
    }
    Ok(receipts
        .iter()
        .map(|receipt| receipt.id().clone())
        .collect())
}

/// What became of jobs.
pub(super) fn states(cluster: &Cluster, ids: &[JobId]) -> Result<Vec<(JobState, String)>> {
    let client = cluster.client()?;
    let mut states = Vec::new();
    for id in ids {
        let timeout = std::time::Duration::from_secs(60);
        let ended = task::block_on(client.wait(&cluster.pipeline(), id, Some(timeout)))?;
        let error = ended.error.map(|error| error.message).unwrap_or_default();
        let state = ended.state;
        ensure!(state.is_some(), "the manager does not know job {id}");
        states.extend(state.map(|state| (state, error)));
    }
    Ok(states)
}

/// A job that aborts every worker process it meets fails, and takes no other with it.
pub(super) fn poison(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let settings = "attempts = 20\nbackoff = \"10ms..50ms\"";
    let mut cluster = cluster(folder.path(), settings, 2, 4)?;
    let count = size.of(100, 400);
    let poison = enqueue_apart(&cluster, &[order("abort", 0)])?;
    let jobs = vec![order("sleep", 20); count];
    let (told, feeder) = feed(cluster.client()?, cluster.pipeline(), jobs, count, 16);
    let mut aborted = 0;
    let client = cluster.client()?;
    wait_for("end of the poison job and of all others", || {
        aborted += cluster.revive_workers();
        Ok(task::block_on(client.stats())?.live == 0)
    })?;
    joined(feeder)?;
    let (state, error) = states(&cluster, &poison)?.remove(0);
    ensure!(state == JobState::Failed, "the poison job is {state:?}");
    ensure!(
        (1..=5).contains(&aborted),
        "it took {aborted} workers with it"
    );
    let figures = judge_beside(&mut cluster, &told, &poison)?;
    Ok(figures.saying(format!("{aborted} workers aborted, then: {error}")))
}

/// Several poison jobs at both phases among good ones whose second phase is slow: each
/// poison job fails, and takes no good one with it, though they share workers.
pub(super) fn poison_mixed(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut plan = plan("attempts = 20\nbackoff = \"10ms..50ms\"");
    plan.worker_timeout = std::time::Duration::from_secs(2);
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    for phase in PHASES {
        for _ in 0..3 {
            cluster.add_worker(phase, 4);
        }
    }
    let each = size.of(1, 3);
    let mut poison = Vec::new();
    for phase in PHASES {
        let abort = json!({ phase: { "do": "abort" } });
        poison.extend(enqueue_apart(&cluster, &vec![abort; each])?);
    }
    let count = size.of(300, 1500);
    let slow = json!({
        "first": { "do": "sleep", "ms": 2 },
        "second": { "do": "sleep", "ms": 100 },
    });
    let (told, feeder) = feed(
        cluster.client()?,
        cluster.pipeline(),
        vec![slow; count],
        count,
        16,
    );
    let mut aborted = 0;
    let client = cluster.client()?;
    wait_for("end of the poison jobs and of all others", || {
        aborted += cluster.revive_workers();
        Ok(task::block_on(client.stats())?.live == 0)
    })?;
    joined(feeder)?;
    for (state, error) in states(&cluster, &poison)? {
        ensure!(
            state == JobState::Failed,
            "a poison job is {state:?} {error}"
        );
    }
    ensure!(
        aborted <= 5 * poison.len(),
        "{} poison jobs took {aborted} workers with them",
        poison.len()
    );
    let figures = judge_beside(&mut cluster, &told, &poison)?;
    ensure!(
        figures.failed == 0,
        "{} good jobs failed with the poison",
        figures.failed
    );
    Ok(figures.saying(format!(
        "{} poison jobs aborted {aborted} workers and no good job failed",
        poison.len()
    )))
}

/// A job that hangs is stopped in time and tried again.
pub(super) fn timeout(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let settings = "attempts = 2\nbackoff = \"10ms..50ms\"\ntimeout = \"400ms\"";
    let mut cluster = cluster(folder.path(), settings, 2, 4)?;
    let always = enqueue_apart(&cluster, &vec![order("hang", 0); 4])?;
    let once = enqueue_apart(
        &cluster,
        &vec![json!({ "first": { "do": "hang", "times": 1 } }); 4],
    )?;
    let count = size.of(100, 400);
    let jobs = vec![order("sleep", 5); count];
    let (told, feeder) = feed(cluster.client()?, cluster.pipeline(), jobs, count, 16);
    joined(feeder)?;
    settle(&mut cluster)?;
    for (state, error) in states(&cluster, &always)? {
        ensure!(
            state == JobState::Failed,
            "a job that hangs is {state:?} {error}"
        );
    }
    for (state, error) in states(&cluster, &once)? {
        ensure!(
            state == JobState::Success,
            "a job that hung once is {state:?} {error}"
        );
    }
    let apart: Vec<JobId> = always.into_iter().chain(once).collect();
    Ok(judge_beside(&mut cluster, &told, &apart)?.saying("8 jobs hung, 4 of them for good"))
}

/// Errors and panics are tried again, and end in the dead letters when they do not stop.
pub(super) fn retries(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let settings = "attempts = 3\nbackoff = \"10ms..50ms\"";
    let mut cluster = cluster(folder.path(), settings, 2, 4)?;
    let mut bad = Vec::new();
    let mut healed = Vec::new();
    for deed in ["fail", "panic"] {
        bad.extend(enqueue_apart(&cluster, &vec![order(deed, 0); 5])?);
        let twice = json!({ "first": { "do": deed, "times": 2 } });
        healed.extend(enqueue_apart(&cluster, &vec![twice; 5])?);
    }
    let count = size.of(100, 400);
    let (told, feeder) = feed(
        cluster.client()?,
        cluster.pipeline(),
        vec![order("sleep", 1); count],
        count,
        16,
    );
    joined(feeder)?;
    settle(&mut cluster)?;
    for (state, error) in states(&cluster, &bad)? {
        ensure!(
            state == JobState::Failed && !error.is_empty(),
            "a bad job is {state:?} {error}"
        );
    }
    for (state, error) in states(&cluster, &healed)? {
        ensure!(
            state == JobState::Success,
            "a job that failed twice is {state:?} {error}"
        );
    }
    let ledgers = read_ledgers(folder.path())?;
    for id in bad.iter().chain(&healed) {
        let tries = ledgers
            .get(&(PHASES[0].to_owned(), id.to_string()))
            .map_or(0, Vec::len);
        ensure!(tries == 3, "job {id} was tried {tries} times, 3 were due");
    }
    let apart: Vec<JobId> = bad.into_iter().chain(healed).collect();
    Ok(judge_beside(&mut cluster, &told, &apart)?
        .saying("10 jobs failed, 10 healed at the third try"))
}

/// SIGTERM ends a worker, then the manager, in good order: nothing runs twice.
pub(super) fn drain(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster(folder.path(), "", 2, 4)?;
    let count = size.of(200, 600);
    let jobs = vec![order("sleep", 40); count];
    let (told, feeder) = feed(cluster.client()?, cluster.pipeline(), jobs, count, 32);
    joined(feeder)?;
    let runs = folder.path().to_owned();
    wait_for("some progress", || Ok(ended(&runs)? > count / 10))?;
    cluster.drain_worker(0)?;
    cluster.start_worker(0);
    wait_for("more progress", || Ok(ended(&runs)? > count / 3))?;
    cluster.drain_manager()?;
    cluster.start_manager()?;
    settle(&mut cluster)?;
    // Nothing was killed, so nothing explains a repeat.
    judge(&mut cluster, &told)
}

/// Equal workers get equal work, and nobody waits behind a long job.
pub(super) fn fairness(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut fair = cluster(folder.path(), "", 2, 1)?;
    let count = 1000;
    let (told, feeder) = feed(
        fair.client()?,
        fair.pipeline(),
        vec![order("sleep", 5); count],
        count,
        64,
    );
    joined(feeder)?;
    settle(&mut fair)?;
    let figures = judge(&mut fair, &told)?;
    let mut shares: BTreeMap<u32, usize> = BTreeMap::new();
    for ((phase, _), runs) in read_ledgers(folder.path())? {
        if phase == PHASES[0] {
            *shares.entry(runs[0].process).or_insert(0) += 1;
        }
    }
    let shares: Vec<usize> = shares.into_values().collect();
    let apart = shares
        .iter()
        .max()
        .zip(shares.iter().min())
        .map_or(count, |(most, least)| most - least);
    ensure!(
        shares.len() == 2 && apart * 100 <= 2 * count,
        "two equal workers ran {shares:?} of {count}"
    );
    drop(fair);

    let folder = tempfile::tempdir()?;
    let mut mixed = cluster(folder.path(), "", 2, 1)?;
    let long_ms = size.of(4000, 10_000);
    let long = enqueue_apart(&mixed, &[order("sleep", long_ms)])?;
    let (told, feeder) = feed(
        mixed.client()?,
        mixed.pipeline(),
        vec![order("sleep", 5); 200],
        200,
        64,
    );
    joined(feeder)?;
    settle(&mut mixed)?;
    judge_beside(&mut mixed, &told, &long)?;
    let ledgers = read_ledgers(folder.path())?;
    let end = |phase: &str, job: &str| {
        let runs = ledgers.get(&(phase.to_owned(), job.to_owned()));
        runs.and_then(|runs| runs.iter().find_map(|run| run.ended_us))
            .unwrap_or(u64::MAX)
    };
    let long_end = end(PHASES[0], &long[0].to_string());
    let waited = told
        .ids()
        .iter()
        .filter(|id| end(PHASES[1], id) >= long_end)
        .count();
    ensure!(
        waited == 0,
        "{waited} of 200 short jobs ended after the long one"
    );
    ensure!(
        told.rejected.load(Ordering::Relaxed) == 0,
        "jobs were rejected"
    );
    Ok(figures.saying(format!(
        "shares {shares:?}, no short job waited for one of {long_ms} ms"
    )))
}
