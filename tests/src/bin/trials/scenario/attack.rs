//! Strangers attack a manager and its workers, of every socket, while honest work goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_std::task;
use file_catalogue::read_ledgers;

use super::hostile::garbage;
use super::load::{Load, sleepers};
use super::{Figures, PHASES, Size, judge, plan, settle, wait_for};
use crate::attackers::{Attackers, dead_port, silent_port};
use crate::cluster::Cluster;
use crate::feeder::Told;
use crate::process::{open_files, resident_kib};

/// A short patience: what an invented worker was given comes back after it.
const WORKER_TIMEOUT: Duration = Duration::from_secs(2);
/// The most memory that an attack may cost a process, in KiB.
const GROWTH_MAX_KIB: u64 = 96 << 10;
/// No job takes longer than this from its confirmation to its end.
const DELAY_MAX: Duration = Duration::from_secs(15);
/// The pipeline keeps at least this share of its throughput, in per cent; attackers,
/// pipeline and judge share the same two processors.
const SHARE_MIN: u64 = 20;
/// How many jobs are under way at once.
const WINDOW: usize = 64;
/// The most milliseconds that most phases take.
const PHASE_MS: u64 = 10;

/// A pipeline with honest work, and what it took up before anybody attacked.
struct Honest {
    cluster: Cluster,
    load: Load,
    processes: Vec<u32>,
    before_kib: Vec<u64>,
    files_before: usize,
    /// Jobs that ended in each second.
    calm_rate: f64,
}

impl Honest {
    fn start(folder: &std::path::Path, size: Size) -> Result<Self> {
        let mut plan = plan("attempts = 10\nbackoff = \"10ms..100ms\"");
        plan.worker_timeout = WORKER_TIMEOUT;
        let mut cluster = Cluster::start(folder, &plan)?;
        for phase in PHASES {
            cluster.add_worker(phase, 8);
            cluster.add_worker(phase, 8);
        }
        let jobs = sleepers(size.random(), PHASE_MS);
        let load = Load::start(&cluster, cluster.client()?, jobs, WINDOW);
        // Everything has been used once before anything is compared.
        load.advance(1000)?;
        let calm_rate = rate(&load, Duration::from_secs(size.of(3, 8)));
        let mut processes = vec![cluster.manager().id()];
        for index in 0..cluster.workers() {
            processes.push(cluster.worker(index).id());
        }
        let before_kib = processes
            .iter()
            .map(|id| resident_kib(*id))
            .collect::<Result<_>>()?;
        let files_before = open_files(processes[0])?;
        Ok(Honest {
            cluster,
            load,
            processes,
            before_kib,
            files_before,
            calm_rate,
        })
    }

    /// The manager's sockets and then the workers'.
    fn targets(&mut self) -> Vec<String> {
        let kinds = ["pull", "sub", "api", "pub"];
        let mut targets: Vec<String> = kinds
            .iter()
            .map(|kind| self.cluster.address(kind))
            .collect();
        for index in 0..self.cluster.workers() {
            targets.push(self.cluster.worker(index).address("address"));
        }
        targets
    }

    /// The most that a process has grown by since before the attack, in KiB.
    fn growth_kib(&self) -> Result<u64> {
        let mut most = 0;
        for (id, before) in self.processes.iter().zip(&self.before_kib) {
            most = most.max(resident_kib(*id)?.saturating_sub(*before));
        }
        Ok(most)
    }

    /// A client and a worker that were not there before the attack get in.
    fn newcomers_get_in(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let client = self.cluster.client()?;
        task::block_on(client.stats())?;
        let index = self.cluster.add_worker(PHASES[1], 4);
        let process = self.cluster.worker(index).id();
        self.processes.push(process);
        self.before_kib.push(resident_kib(process)?);
        let ledger = self
            .cluster
            .folder()
            .join(format!("ledger-{}-{process}", PHASES[1]));
        wait_for("job for a new worker", || Ok(ledger.metadata()?.len() > 0))?;
        Ok(started.elapsed())
    }

    /// Ends the work, and checks that all is as if nothing had happened.
    fn finish(&mut self) -> Result<Figures> {
        self.load.finish()?;
        settle(&mut self.cluster)?;
        ensure!(self.cluster.manager().is_running(), "the manager ended");
        let honest = self.cluster.workers();
        for index in 0..honest {
            ensure!(self.cluster.worker(index).is_running(), "a worker ended");
        }
        let client = self.cluster.client()?;
        wait_for("leaving of all invented workers", || {
            Ok(task::block_on(client.workers())?.len() == honest)
        })?;
        judge(&mut self.cluster, &self.load.told)
    }
}

/// Jobs that end in each second, over a while.
fn rate(load: &Load, during: Duration) -> f64 {
    let (started, before) = (Instant::now(), load.ended());
    std::thread::sleep(during);
    (load.ended() - before) as f64 / started.elapsed().as_secs_f64()
}

/// The longest time from a job's confirmation to its end, among those of a span.
fn longest_delay(cluster: &Cluster, told: &Told) -> Result<Duration> {
    let ends: BTreeMap<String, u64> = read_ledgers(cluster.folder())?
        .into_iter()
        .filter(|((phase, _), _)| phase == PHASES[1])
        .filter_map(|((_, job), runs)| Some((job, runs.iter().find_map(|run| run.ended_us)?)))
        .collect();
    let delays = told
        .confirmations()
        .into_iter()
        .filter_map(|(job, confirmed)| Some(ends.get(&job)?.saturating_sub(confirmed)));
    Ok(Duration::from_micros(delays.max().unwrap_or(0)))
}

/// Two thousand connections that say nothing, and some that say one byte at a time.
pub(super) fn silent_connections(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut honest = Honest::start(folder.path(), size)?;
    let targets = honest.targets();
    let silent = size.of(800, 2000) / targets.len();
    let slow = size.of(10, 25);
    let mut attackers = Attackers::new();
    attackers.hold(&targets, silent, false)?;
    attackers.hold(&targets, slow, true)?;
    let all = (silent + slow) * targets.len();
    wait_for("silent connections", || Ok(attackers.done() >= all as u64))?;
    let got_in = honest.newcomers_get_in()?;
    // Longer than a handshake may take, so that the first of them were closed.
    let during = rate(&honest.load, Duration::from_secs(size.of(8, 30)));
    let (files, grown) = (open_files(honest.processes[0])?, honest.growth_kib()?);
    let opened = attackers.done();
    attackers.end();
    let figures = honest.finish()?;
    let delay = longest_delay(&honest.cluster, &honest.load.told)?;
    let share = share(during, honest.calm_rate);
    let more = format!(
        "{all} silent and slow connections on {} sockets, {opened} in all, {share} % of the \
         throughput before ({:.0}/s), newcomers got in within {:.2} s, most growth {grown} KiB, \
         the manager had {} files open and {files} meanwhile, longest delay of a job {:.2} s",
        targets.len(),
        honest.calm_rate,
        got_in.as_secs_f64(),
        honest.files_before,
        delay.as_secs_f64()
    );
    check(&more, grown, share, delay)?;
    ensure!(
        opened > all as u64,
        "no silent connection was closed: {more}"
    );
    Ok(figures.saying(more))
}

/// Everything at once: garbage, slow handshakes, thousands of connections, floods of
/// valid messages, and workers that lie.
pub(super) fn attack(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut honest = Honest::start(folder.path(), size)?;
    let targets = honest.targets();
    let [pull, sub, api] = ["pull", "sub", "api"].map(|kind| honest.cluster.address(kind));
    let (_listener, silent) = silent_port()?;
    let taken = Arc::new(AtomicU64::new(0));

    let mut raw = Attackers::new();
    raw.throw(&targets, garbage)?;
    raw.hold(&targets, size.of(60, 200), false)?;
    raw.hold(&targets, size.of(10, 25), true)?;
    let mut floods = Attackers::new();
    floods.flood_pull(&pull)?;
    floods.flood_api(&api)?;
    floods.pose_as_managers(&targets[4])?;
    let mut liars = Attackers::new();
    // Nowhere, at a port that never answers, at the manager itself, at another's address.
    let places = vec![
        dead_port()?,
        silent,
        pull.clone(),
        api,
        targets[4].clone(),
        targets[6].clone(),
    ];
    liars.announce(&sub, places, PHASES[0])?;
    liars.swallow(&sub, PHASES[0], taken.clone())?;

    let during = rate(&honest.load, Duration::from_secs(size.of(10, 40)));
    let got_in = honest.newcomers_get_in()?;
    let (files, grown) = (open_files(honest.processes[0])?, honest.growth_kib()?);
    let done = [&raw, &floods, &liars].map(Attackers::done);
    raw.end();
    floods.end();
    liars.end();
    let figures = honest.finish()?;
    let delay = longest_delay(&honest.cluster, &honest.load.told)?;
    let share = share(during, honest.calm_rate);
    let more = format!(
        "{} connections and pieces of garbage, {} stray messages, {} lying heartbeats, {} pipe \
         messages swallowed; {share} % of the throughput before ({:.0}/s), newcomers got in \
         within {:.2} s, most growth {grown} KiB, the manager had {} files open and {files} \
         meanwhile, longest delay of a job {:.2} s",
        done[0],
        done[1],
        done[2],
        taken.load(Ordering::Relaxed),
        honest.calm_rate,
        got_in.as_secs_f64(),
        honest.files_before,
        delay.as_secs_f64()
    );
    check(&more, grown, share, delay)?;
    Ok(figures.saying(more))
}

fn share(during: f64, before: f64) -> u64 {
    (during * 100.0 / before.max(1.0)) as u64
}

fn check(more: &str, grown_kib: u64, share: u64, delay: Duration) -> Result<()> {
    ensure!(
        grown_kib < GROWTH_MAX_KIB,
        "a process grew too much: {more}"
    );
    ensure!(share >= SHARE_MIN, "the pipeline was held up: {more}");
    ensure!(delay < DELAY_MAX, "a job was held up: {more}");
    Ok(())
}
