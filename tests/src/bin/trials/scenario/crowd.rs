//! Many workers that come and go, and jobs of every kind at once.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_std::task;
use carbontube_client::protocol::message::JobState;
use file_catalogue::read_ledgers;
use serde_json::json;

use super::behaviour::{enqueue_apart, states};
use super::load::{Load, sleepers};
use super::{Figures, PHASES, Size, judge, judge_beside, order, plan, settle, wait_for};
use crate::cluster::Cluster;
use crate::feeder::{feed, joined};
use crate::process::resident_kib;

/// A short patience, so that lost jobs run again soon.
const WORKER_TIMEOUT: Duration = Duration::from_secs(2);
/// How much a manager may grow under huge jobs, in KiB.
const GROWTH_MAX_KIB: u64 = 384 << 10;

/// Two hundred workers join and leave under load, some in good order and some killed.
pub(super) fn join_leave(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut plan = plan("attempts = 10\nbackoff = \"10ms..100ms\"");
    plan.worker_timeout = WORKER_TIMEOUT;
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    let (in_all, at_once) = (size.of(40, 200), size.of(12, 60));
    let mut random = size.random();
    let mut here = Vec::new();
    for index in 0..at_once {
        here.push(cluster.add_worker(PHASES[index % 2], 2));
    }
    let jobs = sleepers(size.random(), 20);
    let mut load = Load::start(&cluster, cluster.client()?, jobs, at_once * 2);
    let (mut drained, mut killed) = (0, 0);
    while cluster.workers() < in_all {
        load.advance(random.usize(1..20))?;
        // The newcomer has the leaver's phase, so that no phase is ever without workers.
        let place = random.usize(..here.len());
        let phase = cluster.phase_of(here[place]);
        let leaver = std::mem::replace(&mut here[place], cluster.add_worker(&phase, 2));
        if random.bool() {
            cluster.drain_worker(leaver)?;
            drained += 1;
        } else {
            cluster.kill_worker(leaver);
            killed += 1;
        }
    }
    load.advance(200)?;
    load.finish()?;
    settle(&mut cluster)?;
    let client = cluster.client()?;
    let started = Instant::now();
    let mut ids: Vec<u32> = here
        .iter()
        .map(|index| cluster.worker(*index).id())
        .collect();
    ids.sort_unstable();
    wait_for("a list of the workers that are here and no other", || {
        let workers = task::block_on(client.workers())?;
        let mut listed: Vec<u32> = workers
            .iter()
            .filter_map(|worker| cluster.worker_ids.get(&worker.worker.to_string()).copied())
            .collect();
        listed.sort_unstable();
        Ok(workers.len() == ids.len() && listed == ids)
    })?;
    let cleared = started.elapsed();
    let figures = judge(&mut cluster, &load.told)?;
    Ok(figures.saying(format!(
        "{in_all} workers, {at_once} at once, {drained} left in good order and {killed} were \
         killed, no ghost {:.2} s after the end",
        cleared.as_secs_f64()
    )))
}

/// Slow, huge, tiny and poison jobs at once.
pub(super) fn mixed(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut plan = plan("attempts = 10\nbackoff = \"10ms..50ms\"");
    plan.worker_timeout = WORKER_TIMEOUT;
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    for phase in PHASES {
        for _ in 0..3 {
            cluster.add_worker(phase, 4);
        }
    }
    let before_kib = resident_kib(cluster.manager().id())?;
    let slow_ms = size.of(3000, 10_000);
    // Fewer than there are slots: the others are for the rest.
    let slow = enqueue_apart(&cluster, &vec![order("sleep", slow_ms); 4])?;
    let poison = enqueue_apart(&cluster, &[order("abort", 0)])?;
    let huge_bytes = 4 << 20;
    let huge = json!({ "film": "x".repeat(huge_bytes) });
    let (huge_told, huge_feeder) = feed(
        cluster.client()?,
        cluster.pipeline(),
        std::iter::repeat_n(huge, size.of(6, 24)),
        6,
        1,
    );
    let tiny = std::iter::repeat_with(|| json!({})).take(size.of(1000, 6000));
    let (told, feeder) = feed(
        cluster.client()?,
        cluster.pipeline(),
        tiny,
        usize::MAX / 2,
        16,
    );
    let (mut aborted, mut grown) = (0, 0);
    let client = cluster.client()?;
    let is_fed = || feeder.is_finished() && huge_feeder.is_finished();
    wait_for("end of all jobs", || {
        aborted += cluster.revive_workers();
        grown = grown.max(resident_kib(cluster.manager().id())?.saturating_sub(before_kib));
        let stats = task::block_on(client.stats())?;
        huge_told.finished.store(
            usize::try_from(stats.success).unwrap_or(usize::MAX),
            Ordering::Relaxed,
        );
        Ok(stats.live == 0 && is_fed())
    })?;
    joined(feeder)?;
    joined(huge_feeder)?;
    for (state, error) in states(&cluster, &slow)? {
        ensure!(
            state == JobState::Success,
            "a slow job is {state:?}: {error}"
        );
    }
    let (state, error) = states(&cluster, &poison)?.remove(0);
    ensure!(state == JobState::Failed, "the poison job is {state:?}");
    // The slow ones were with workers that the poison took down, or were not.
    let apart: Vec<_> = poison.iter().chain(&slow).cloned().collect();
    let huge_count = huge_told.count();
    told.merge(&huge_told);
    let figures = judge_beside(&mut cluster, &told, &apart)?;
    let delay = tiny_delay(folder.path(), &told.confirmations())?;
    let more = format!(
        "4 jobs of {slow_ms} ms, {huge_count} of {} MiB, the rest tiny, {aborted} workers aborted \
         by a poison job ({error}); the longest wait of a job of the rest {:.2} s, the manager grew by \
         {} MiB at most",
        huge_bytes >> 20,
        delay.as_secs_f64(),
        grown >> 10
    );
    ensure!(grown < GROWTH_MAX_KIB, "the manager grew too much: {more}");
    Ok(figures.saying(more))
}

/// The longest time from the confirmation of a job to its end.
fn tiny_delay(folder: &std::path::Path, confirmed: &BTreeMap<String, u64>) -> Result<Duration> {
    let mut longest = 0;
    for ((phase, job), runs) in read_ledgers(folder)? {
        let end = runs.iter().find_map(|run| run.ended_us);
        if let (true, Some(end), Some(at)) = (phase == PHASES[1], end, confirmed.get(&job)) {
            longest = longest.max(end.saturating_sub(*at));
        }
    }
    Ok(Duration::from_micros(longest))
}
