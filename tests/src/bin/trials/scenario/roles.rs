//! Every role is killed, stopped and restarted while work goes on: manager, workers,
//! client, streamer and forwarder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::load::Watcher;
use super::{Figures, PHASES, Size, judge, plan, settle};
use crate::client::read_told;
use crate::cluster::{Cluster, Role};
use crate::fault::{Deed, Whom};
use crate::feeder::Told;

/// A short patience, so that more happens in a minute.
const WORKER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many jobs are under way at once.
const WINDOW: usize = 96;
/// The most milliseconds that most phases take.
const PHASE_MS: u64 = 20;

/// A cluster with every role: three workers for each phase, one of them behind devices,
/// and a client process.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) watcher: Watcher,
}

impl Stage {
    pub(super) fn start(folder: &Path, size: Size) -> Result<Self> {
        let mut plan = plan("attempts = 10\nbackoff = \"10ms..100ms\"");
        plan.worker_timeout = WORKER_TIMEOUT;
        let mut cluster = Cluster::start(folder, &plan)?;
        cluster.add_devices()?;
        for phase in PHASES {
            cluster.add_worker(phase, 4);
            cluster.add_worker(phase, 4);
            cluster.add_worker_behind_devices(phase, 4);
        }
        cluster.start_client(size.random().u64(..), PHASE_MS, WINDOW);
        let watcher = Watcher::start(&cluster, Arc::default());
        watcher.advance(WINDOW)?;
        Ok(Stage { cluster, watcher })
    }

    /// Lets the client and all jobs come to their end, and judges.
    pub(super) fn judge(mut self) -> Result<Figures> {
        if self.cluster.has_other(Role::Client) {
            self.cluster.drain_other(Role::Client)?;
        }
        settle(&mut self.cluster)?;
        let told = Told::default();
        told.absorb(read_told(&self.cluster.told())?);
        judge(&mut self.cluster, &told)
    }

    /// A count that the manager keeps.
    fn counted(&self, name: &str) -> Result<u64> {
        let counters = self.cluster.stats()?.counters;
        let found = counters.into_iter().find(|(counter, _)| counter == name);
        Ok(found.map_or(0, |(_, count)| count))
    }
}

/// Each role gets SIGKILL at random moments, again and again, and all of them at once.
pub(super) fn kill_any(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::start(folder.path(), size)?;
    let mut random = size.random();
    let rounds = size.of(12, 50);
    let mut together = 0;
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(random.u64(..400)));
        let cluster = &mut stage.cluster;
        let pause = Duration::from_millis(random.u64(..300));
        // The first and the last time surely, else at random.
        let choice = match round {
            0 => 9,
            _ => random.u8(..10),
        };
        match choice {
            0..=2 => {
                cluster.kill_manager();
                std::thread::sleep(pause);
                cluster.start_manager()?;
            }
            3..=5 => {
                let index = random.usize(..cluster.workers());
                cluster.kill_worker(index);
                std::thread::sleep(pause);
                cluster.start_worker(index);
            }
            6 | 7 => {
                cluster.kill_other(Role::Client);
                std::thread::sleep(pause);
                cluster.start_other(Role::Client);
            }
            8 => {
                let role = [Role::Streamer, Role::Forwarder][random.usize(..2)];
                cluster.kill_other(role);
                std::thread::sleep(pause);
                cluster.start_other(role);
            }
            _ => {
                together += 1;
                kill_all(cluster, &mut random, pause)?;
            }
        }
        if round % 4 == 0 {
            stage.watcher.advance(WINDOW)?;
        }
    }
    let log = &stage.cluster.faults;
    let killed = [
        (
            "managers",
            log.count(Deed::Killed, |whom| whom == Whom::Manager),
        ),
        (
            "workers",
            log.count(Deed::Killed, |whom| matches!(whom, Whom::Worker(_))),
        ),
        (
            "clients",
            log.count(Deed::Killed, |whom| whom == Whom::Client),
        ),
        (
            "devices",
            log.count(Deed::Killed, |whom| whom == Whom::Device),
        ),
    ];
    let killed = killed.map(|(name, count)| format!("{count} {name}"));
    let figures = stage.judge()?;
    Ok(figures.saying(format!(
        "killed {}, {together} times all at once",
        killed.join(", ")
    )))
}

/// Kills everything in one moment, in any order, and starts it again.
pub(super) fn kill_all(
    cluster: &mut Cluster,
    random: &mut fastrand::Rng,
    pause: Duration,
) -> Result<()> {
    let mut order: Vec<usize> = (0..cluster.workers() + 4).collect();
    random.shuffle(&mut order);
    let workers = cluster.workers();
    let others = [Role::Client, Role::Streamer, Role::Forwarder];
    for one in &order {
        match one.checked_sub(workers) {
            None => cluster.kill_worker(*one),
            Some(0) => cluster.kill_manager(),
            Some(other) => cluster.kill_other(others[other - 1]),
        }
    }
    std::thread::sleep(pause);
    // A client that is started waits for its manager.
    cluster.start_manager()?;
    random.shuffle(&mut order);
    for one in order {
        match one.checked_sub(workers) {
            None => cluster.start_worker(one),
            Some(0) => {}
            Some(other) => cluster.start_other(others[other - 1]),
        }
    }
    Ok(())
}

/// Each role gets SIGSTOP for shorter and for longer than the worker timeout.
pub(super) fn suspend(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::start(folder.path(), size)?;
    let spans = [WORKER_TIMEOUT.mul_f64(0.4), WORKER_TIMEOUT.mul_f64(1.8)];
    for span in spans {
        let is_long = span > WORKER_TIMEOUT;
        stage.cluster.suspend_manager();
        std::thread::sleep(span);
        stage.cluster.continue_manager();
        stage.watcher.advance(WINDOW)?;
        let lost = stage.counted("workers_lost")?;
        ensure!(
            lost == 0,
            "a manager that was stopped for {span:?} took {lost} workers for lost"
        );

        let others = [Role::Client, Role::Streamer, Role::Forwarder];
        for together in others.chunks(size.of(3, 1)) {
            for role in together {
                stage.cluster.suspend_other(*role);
            }
            std::thread::sleep(span);
            for role in together {
                stage.cluster.continue_other(*role);
            }
            stage.watcher.advance(WINDOW)?;
        }
        let lost = stage.counted("workers_lost")?;
        // Behind the forwarder that was stopped, two workers were silent.
        let expected = if is_long { 2 } else { 0 };
        ensure!(
            lost <= expected,
            "{lost} workers were taken for lost, {expected} at most were due"
        );

        // One of each phase, the second one behind the devices.
        for index in [0, 5] {
            stage.cluster.suspend_worker(index);
        }
        std::thread::sleep(span);
        for index in [0, 5] {
            stage.cluster.continue_worker(index);
        }
        stage.watcher.advance(WINDOW)?;
        let after = stage.counted("workers_lost")?;
        let due = if is_long { lost + 2 } else { lost };
        ensure!(
            after == due,
            "{after} workers were taken for lost after {span:?}, {due} were due"
        );
    }
    let figures = stage.judge()?;
    Ok(figures.saying(format!(
        "every role stopped for {:.1} s and {:.1} s, the worker timeout is {:.0} s",
        spans[0].as_secs_f64(),
        spans[1].as_secs_f64(),
        WORKER_TIMEOUT.as_secs_f64()
    )))
}

/// Everything is restarted under load, one after the other and in good order; the manager
/// by SIGKILL as well. Nothing runs twice, nothing fails.
pub(super) fn rolling(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::start(folder.path(), size)?;
    let rounds = size.of(1, 4);
    for _ in 0..rounds {
        for index in 0..stage.cluster.workers() {
            stage.cluster.drain_worker(index)?;
            stage.cluster.start_worker(index);
            stage.watcher.advance(WINDOW / 4)?;
        }
        for role in [Role::Streamer, Role::Forwarder] {
            stage.cluster.drain_other(role)?;
            stage.cluster.start_other(role);
            stage.watcher.advance(WINDOW / 4)?;
        }
        stage.cluster.drain_manager()?;
        stage.cluster.start_manager()?;
        stage.watcher.advance(WINDOW)?;
        stage.cluster.kill_manager();
        stage.cluster.start_manager()?;
        stage.watcher.advance(WINDOW)?;
        stage.cluster.drain_other(Role::Client)?;
        stage.cluster.start_other(Role::Client);
        stage.watcher.advance(WINDOW)?;
    }
    let figures = stage.judge()?;
    ensure!(
        figures.repeated() == 0,
        "{} phases ran again",
        figures.repeated()
    );
    ensure!(figures.failed == 0, "{} jobs failed", figures.failed);
    Ok(figures.saying(format!(
        "{rounds} times through every process, and a SIGKILL of the manager each time"
    )))
}
