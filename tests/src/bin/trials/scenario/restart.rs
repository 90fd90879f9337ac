//! A manager with a long backlog is killed and comes back; how long each part of that takes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_std::task;
use carbontube_client::NewJob;
use file_catalogue::read_ledgers;
use serde_json::json;

use super::journal;
use super::{Figures, PHASES, Size, order, plan, wait_for};
use crate::cluster::Cluster;
use crate::feeder::{feed, joined};
use crate::process::resident_kib;

/// A restarted manager serves within this.
const SERVES_WITHIN: Duration = Duration::from_secs(2);

/// Killed four times with 100,000 live jobs, in short twice with 20,000; each time it serves
/// within two seconds.
pub(super) fn restart_100k(size: Size) -> Result<Figures> {
    restart(size.of(20_000, 100_000), size.of(2, 4), Some(SERVES_WITHIN))
}

/// The same with a million, to know how it grows.
pub(super) fn restart_1m(_size: Size) -> Result<Figures> {
    restart(1_000_000, 1, None)
}

/// How long parts of one restart took, from the start of the process on.
#[derive(Clone, Copy, Default)]
struct Restart {
    ready: Duration,
    answered: Duration,
    confirmed: Duration,
    dispatched: Duration,
    resident_kib: u64,
}

fn restart(live: usize, rounds: usize, limit: Option<Duration>) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &plan(""))?;
    // Nothing runs until all are there, and then few at a time: the backlog stays.
    let slow = json!({ "first": { "do": "sleep", "ms": 100 }, "text": "x".repeat(200) });
    let client = cluster.client()?;
    let (told, feeder) = feed(client, cluster.pipeline(), vec![slow; live], live, 1000);
    joined(feeder)?;
    ensure!(told.count() == live, "{} of {live} confirmed", told.count());
    for phase in PHASES {
        cluster.add_worker(phase, 4);
        cluster.add_worker(phase, 4);
    }
    let runs = folder.path().to_owned();
    wait_for("first jobs", || Ok(!read_ledgers(&runs)?.is_empty()))?;
    let full_kib = resident_kib(cluster.manager().id())?;

    let mut restarts = Vec::new();
    let mut extra = Vec::new();
    for _ in 0..rounds {
        cluster.kill_manager();
        // What it runs can only have come from the manager that is started now.
        let fresh = cluster.add_worker(PHASES[0], 1);
        let fresh = cluster.worker(fresh).id();
        let mut restart = Restart::default();
        let started = Instant::now();
        cluster.start_manager()?;
        restart.ready = started.elapsed();
        let client = cluster.client()?;
        let stats = task::block_on(client.stats())?;
        restart.answered = started.elapsed();
        ensure!(
            stats.live as usize + 2000 > live,
            "only {} of {live} jobs are live after a restart",
            stats.live
        );
        let pipeline = cluster.pipeline();
        let receipt = task::block_on(client.enqueue(&pipeline, NewJob::new(&order("sleep", 0))?))?;
        restart.confirmed = started.elapsed();
        extra.push(receipt.id().to_string());
        wait_for("dispatch of a recovered job", || {
            let ledgers = read_ledgers(folder.path())?;
            Ok(ledgers.iter().any(|((_, job), runs)| {
                runs.iter().any(|run| run.process == fresh) && !extra.contains(job)
            }))
        })?;
        restart.dispatched = started.elapsed();
        restart.resident_kib = resident_kib(cluster.manager().id())?;
        restarts.push(restart);
    }
    cluster.kill_manager();

    let says = journal::read(&cluster)?;
    let lost = told
        .ids()
        .iter()
        .chain(&extra)
        .filter(|id| !says.live.contains_key(*id) && !says.past.contains_key(*id))
        .count();
    let ledgers = read_ledgers(folder.path())?;
    let repeats = ledgers.values().filter(|runs| runs.len() > 1).count();
    ensure!(
        lost == 0,
        "{lost} of {live} confirmed jobs are not in the journal"
    );
    ensure!(
        repeats == 0,
        "{repeats} phases ran again after nothing but restarts of the manager"
    );
    let worst =
        |part: fn(&Restart) -> Duration| restarts.iter().map(part).max().unwrap_or_default();
    let served = worst(|restart| {
        restart
            .answered
            .max(restart.confirmed)
            .max(restart.dispatched)
    });
    let each: Vec<String> = restarts
        .iter()
        .map(|restart| format!("{:.2}", restart.dispatched.as_secs_f64()))
        .collect();
    let more = format!(
        "{rounds} restarts with {live} live jobs: ready after {:.2} s at most, answered {:.2} s, \
         confirmed a job {:.2} s, dispatched a recovered one {:.2} s (each: {} s), \
         {} MiB resident, before the kill {} MiB",
        worst(|restart| restart.ready).as_secs_f64(),
        worst(|restart| restart.answered).as_secs_f64(),
        worst(|restart| restart.confirmed).as_secs_f64(),
        worst(|restart| restart.dispatched).as_secs_f64(),
        each.join(", "),
        restarts
            .iter()
            .map(|restart| restart.resident_kib)
            .max()
            .unwrap_or(0)
            >> 10,
        full_kib >> 10,
    );
    if let Some(limit) = limit {
        ensure!(
            served <= limit,
            "it does not serve within {limit:?}: {more}"
        );
    }
    let finished = says.past.len();
    Ok(Figures {
        confirmed: live + extra.len(),
        finished,
        recovery: Some(served),
        ..Figures::default()
    }
    .saying(more))
}
