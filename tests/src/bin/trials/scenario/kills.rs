//! Processes are killed while jobs run.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use file_catalogue::read_ledgers;

use super::load::Load;
use super::{Figures, PHASES, Size, cluster, journal, judge, order, settle, wait_for};
use crate::feeder::{feed, joined};

/// Workers die by SIGKILL in the middle of jobs and are started again.
pub(super) fn worker_kill(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster(
        folder.path(),
        "attempts = 10\nbackoff = \"10ms..100ms\"",
        2,
        8,
    )?;
    let (count, rounds) = (size.of(1000, 4000), size.of(2, 8));
    let jobs = vec![order("sleep", 10); count];
    let (told, feeder) = feed(cluster.client()?, cluster.pipeline(), jobs, count, 64);
    let runs = folder.path().to_owned();
    for round in 0..rounds {
        wait_for("progress before a kill", || {
            Ok(ended(&runs)? > count * (round + 1) / (rounds + 2))
        })?;
        let index = round % cluster.workers();
        cluster.kill_worker(index);
        cluster.start_worker(index);
    }
    joined(feeder)?;
    settle(&mut cluster)?;
    Ok(judge(&mut cluster, &told)?.saying(format!("{rounds} workers killed")))
}

/// The manager dies by SIGKILL, again and again, while 10,000 jobs are enqueued.
pub(super) fn manager_kill(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster(
        folder.path(),
        "attempts = 10\nbackoff = \"10ms..100ms\"",
        2,
        8,
    )?;
    let (count, rounds) = (size.of(2000, 10_000), size.of(4, 20));
    let jobs = vec![order("sleep", 0); count];
    let (told, feeder) = feed(cluster.client()?, cluster.pipeline(), jobs, count, 16);
    for round in 0..rounds {
        wait_for("confirmations before a kill", || {
            Ok(told.count() > count * (round + 1) / (rounds + 2))
        })?;
        ensure!(
            told.count() < count,
            "everything was confirmed before kill {round}"
        );
        cluster.kill_manager();
        cluster.start_manager()?;
    }
    joined(feeder)?;
    settle(&mut cluster)?;
    ensure!(
        told.count() == count,
        "{} of {count} were confirmed",
        told.count()
    );
    Ok(judge(&mut cluster, &told)?.saying(format!("{rounds} managers killed")))
}

/// The manager dies under a stream of commits, so that many kills fall into one; after
/// each the journal is read as it was left, and has every job that was confirmed.
pub(super) fn commit_kill(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster(
        folder.path(),
        "attempts = 10\nbackoff = \"10ms..100ms\"",
        1,
        16,
    )?;
    let mut random = size.random();
    let rounds = size.of(8, 30);
    let jobs = std::iter::repeat_with(|| order("sleep", 0));
    let mut load = Load::start(&cluster, cluster.client()?, jobs, 20_000);
    let (mut amid, mut unseen) = (0, 0);
    for _ in 0..rounds {
        let before = load.told.count();
        wait_for("confirmations before a kill", || {
            Ok(load.told.count() > before + 64)
        })?;
        let until = Instant::now() + Duration::from_micros(random.u64(..30_000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        cluster.kill_manager();
        // What was on its way to the client has arrived when nothing more comes.
        let mut confirmed = load.told.ids();
        loop {
            std::thread::sleep(Duration::from_millis(30));
            let now = load.told.ids();
            if now.len() == confirmed.len() {
                break;
            }
            confirmed = now;
        }
        let left = journal::read(&cluster)?;
        let has = |id: &&String| left.live.contains_key(*id) || left.past.contains_key(*id);
        let missing = confirmed.iter().filter(|id| !has(id)).count();
        ensure!(
            missing == 0,
            "{missing} of {} confirmed jobs are not in the journal after a kill",
            confirmed.len()
        );
        let sent = load.told.all_sent();
        let unconfirmed: Vec<&String> = sent.difference(&confirmed).collect();
        let durable = unconfirmed.iter().filter(|id| has(id)).count();
        amid += usize::from(durable > 0);
        unseen += usize::from(durable < unconfirmed.len());
        cluster.start_manager()?;
    }
    load.finish()?;
    settle(&mut cluster)?;
    Ok(judge(&mut cluster, &load.told)?.saying(format!(
        "{rounds} managers killed, {amid} between a commit and its confirmation, {unseen} before \
         the commit of jobs that were sent"
    )))
}

/// The manager and a worker die in the same moment.
pub(super) fn both_kill(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster(
        folder.path(),
        "attempts = 10\nbackoff = \"10ms..100ms\"",
        2,
        8,
    )?;
    let (count, rounds) = (size.of(1000, 4000), size.of(2, 6));
    let jobs = vec![order("sleep", 10); count];
    let (told, feeder) = feed(cluster.client()?, cluster.pipeline(), jobs, count, 64);
    let runs = folder.path().to_owned();
    for round in 0..rounds {
        wait_for("progress before a kill", || {
            Ok(ended(&runs)? > count * (round + 1) / (rounds + 2))
        })?;
        let index = round % cluster.workers();
        cluster.kill_manager();
        cluster.kill_worker(index);
        cluster.start_worker(index);
        cluster.start_manager()?;
    }
    joined(feeder)?;
    settle(&mut cluster)?;
    Ok(judge(&mut cluster, &told)?.saying(format!("{rounds} pairs killed")))
}

/// A manager that comes back adopts what runs, and takes what was finished meanwhile.
pub(super) fn adoption(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster(folder.path(), "", 2, 8)?;
    let (long, short) = (size.of(3000, 5000), size.of(500, 1000));
    let jobs: Vec<_> = (0..16)
        .map(|index| order("sleep", if index % 2 == 0 { long } else { short }))
        .collect();
    let (told, feeder) = feed(cluster.client()?, cluster.pipeline(), jobs, 16, 16);
    joined(feeder)?;
    let runs = folder.path().to_owned();
    wait_for("beginning of all jobs", || {
        Ok(read_ledgers(&runs)?.len() >= 16)
    })?;
    cluster.kill_manager();
    wait_for("end of the short jobs without a manager", || {
        let runs = read_ledgers(&runs)?;
        Ok(runs
            .values()
            .filter(|runs| runs[0].ended_us.is_some())
            .count()
            >= 8)
    })?;
    cluster.start_manager()?;
    settle(&mut cluster)?;
    // The manager's kill explains nothing: nothing may run twice.
    let figures = judge(&mut cluster, &told)?;
    Ok(figures.saying(format!(
        "8 jobs of {:?} adopted, 8 results taken that ended in its absence",
        Duration::from_millis(long)
    )))
}

/// How many jobs are through the last phase.
pub(super) fn ended(folder: &std::path::Path) -> Result<usize> {
    let runs = read_ledgers(folder)?;
    Ok(runs
        .iter()
        .filter(|((phase, _), runs)| {
            phase == PHASES[1] && runs.iter().any(|run| run.ended_us.is_some())
        })
        .count())
}
