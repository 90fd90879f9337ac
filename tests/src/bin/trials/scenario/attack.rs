//! Strangers attack a manager and its workers, of every socket, while honest work goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_std::task;
use file_catalogue::read_ledgers;

use super::load::{Load, sleepers};
use super::{Figures, PHASES, Size, judge, plan, settle, wait_for};
use crate::cluster::Cluster;
use crate::feeder::Told;
use crate::process::{open_files, peak_kib, processor_time, resident_kib};
use crate::strangers::Attack;

/// A short patience: what an invented worker was given comes back after it.
const WORKER_TIMEOUT: Duration = Duration::from_secs(2);
/// The most memory that an attack may cost a process, in KiB. For peers that read nothing a
/// manager holds up to 32 MiB of answers and 16 MiB of events, and 16 KiB or so for each of
/// a thousand connections more.
const GROWTH_MAX_KIB: u64 = 72 << 10;
/// The most that it may grow in the second half of an attack, in KiB: it has met everything
/// in the first.
const LATER_GROWTH_MAX_KIB: u64 = 20 << 10;
/// How many ended jobs the manager keeps: as many before the attack as meanwhile, so that
/// what grows is not its history.
const HISTORY_JOBS: u64 = 2000;
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
    /// The work before anybody attacked.
    calm: Spell,
}

/// What was done in a while, and at which cost.
struct Spell {
    /// Jobs that ended.
    jobs: usize,
    /// Jobs that ended in each second.
    rate: f64,
    /// Processors that were busy with the manager, with its workers, and with the
    /// client and the judge of this process.
    busy: [f64; 3],
    /// The most memory that the manager ever had when half the while was over, in KiB.
    half_kib: u64,
}

impl Spell {
    /// Jobs for each second that a processor spent on them.
    fn jobs_by_processor(&self) -> f64 {
        self.rate / self.busy.iter().sum::<f64>().max(0.01)
    }
}

impl fmt::Display for Spell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [manager, workers, harness] = self.busy;
        write!(
            f,
            "{:.0} jobs/s (processors: manager {manager:.2}, workers {workers:.2}, harness \
             {harness:.2})",
            self.rate
        )
    }
}

impl Honest {
    fn start(folder: &std::path::Path, size: Size) -> Result<Self> {
        let mut plan = plan("attempts = 10\nbackoff = \"10ms..100ms\"");
        plan.worker_timeout = WORKER_TIMEOUT;
        plan.history_jobs = Some(HISTORY_JOBS);
        let mut cluster = Cluster::start(folder, &plan)?;
        for phase in PHASES {
            cluster.add_worker(phase, 8);
            cluster.add_worker(phase, 8);
        }
        let jobs = sleepers(size.random(), PHASE_MS);
        let load = Load::start(&cluster, cluster.client()?, jobs, WINDOW);
        // What a manager keeps of the work is full before anything is compared: its history,
        // and in the whole size the 65,536 attempts that it remembers.
        load.advance(size.of(3000, 40_000))?;
        let mut processes = vec![cluster.manager().id()];
        for index in 0..cluster.workers() {
            processes.push(cluster.worker(index).id());
        }
        let calm = spell(&load, &processes, Duration::from_secs(size.of(3, 8)))?;
        let before_kib: Vec<u64> = processes
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
            calm,
        })
    }

    /// The growth in words.
    fn growth(&self, [manager, workers]: [u64; 2], meanwhile: &Spell) -> String {
        let later = self.later_growth_kib(manager, meanwhile);
        format!(
            "the manager grew by {:.1} MiB at most, {:.1} MiB of it in the second half, a worker by \
             {:.1} MiB, with {} jobs done",
            mib(manager),
            mib(later),
            mib(workers),
            meanwhile.jobs,
        )
    }

    /// How much of the manager's growth came in the second half of a while.
    fn later_growth_kib(&self, grown_kib: u64, meanwhile: &Spell) -> u64 {
        (self.before_kib[0] + grown_kib).saturating_sub(meanwhile.half_kib.max(self.before_kib[0]))
    }

    /// Memory and work stayed within the lines.
    fn check(
        &self,
        more: &str,
        grown_kib: [u64; 2],
        during: &Spell,
        delay: Duration,
    ) -> Result<()> {
        ensure!(
            grown_kib.iter().all(|kib| *kib < GROWTH_MAX_KIB),
            "a process grew too much: {more}"
        );
        ensure!(
            self.later_growth_kib(grown_kib[0], during) < LATER_GROWTH_MAX_KIB,
            "the manager goes on growing: {more}"
        );
        ensure!(
            share(during.rate, self.calm.rate) >= SHARE_MIN,
            "the pipeline was held up: {more}"
        );
        ensure!(delay < DELAY_MAX, "a job was held up: {more}");
        Ok(())
    }

    /// Lets the work go on for a while, and tells what came of it.
    fn spell(&self, during: Duration) -> Result<Spell> {
        spell(&self.load, &self.processes, during)
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

    /// How much larger the manager was at its largest than before the attack, and which
    /// was the most of any worker, in KiB.
    fn growth_kib(&self) -> Result<[u64; 2]> {
        let each = self.processes.iter().zip(&self.before_kib);
        let grown = each.map(|(id, before)| Ok(peak_kib(*id)?.saturating_sub(*before)));
        let grown = grown.collect::<Result<Vec<u64>>>()?;
        Ok([grown[0], grown[1..].iter().copied().max().unwrap_or(0)])
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

/// What is done in a while; the first of `processes` is the manager, the others workers.
fn spell(load: &Load, processes: &[u32], during: Duration) -> Result<Spell> {
    let spent = || -> Result<[Duration; 3]> {
        let workers = processes[1..].iter().map(|id| processor_time(*id));
        Ok([
            processor_time(processes[0])?,
            workers.sum::<Result<_>>()?,
            processor_time(std::process::id())?,
        ])
    };
    let (started, ended, before) = (Instant::now(), load.ended(), spent()?);
    std::thread::sleep(during / 2);
    let half_kib = peak_kib(processes[0])?;
    std::thread::sleep(during / 2);
    let after = spent()?;
    let seconds = started.elapsed().as_secs_f64();
    let busy = |of: usize| (after[of] - before[of]).as_secs_f64() / seconds;
    let jobs = load.ended() - ended;
    Ok(Spell {
        jobs,
        rate: jobs as f64 / seconds,
        busy: [busy(0), busy(1), busy(2)],
        half_kib,
    })
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
    let attack = Attack::start(folder.path(), &targets, silent, slow, None);
    let all = (silent + slow) * targets.len();
    wait_for("silent connections", || {
        Ok(attack.report()?.raw >= all as u64)
    })?;
    let got_in = honest.newcomers_get_in()?;
    // Longer than a handshake may take, so that the first of them were closed.
    let during = honest.spell(Duration::from_secs(size.of(8, 30)))?;
    let (files, grown) = (open_files(honest.processes[0])?, honest.growth_kib()?);
    let opened = attack.report()?.raw;
    attack.end();
    let figures = honest.finish()?;
    let delay = longest_delay(&honest.cluster, &honest.load.told)?;
    let share = share(during.rate, honest.calm.rate);
    let more = format!(
        "{all} silent and slow connections on {} sockets, {opened} in all; before {}, meanwhile \
         {during}: {share} %; newcomers got in within {:.2} s, {}, it had {} files open before and \
         {files} meanwhile, longest delay of a job {:.2} s",
        targets.len(),
        honest.calm,
        got_in.as_secs_f64(),
        honest.growth(grown, &during),
        honest.files_before,
        delay.as_secs_f64()
    );
    honest.check(&more, grown, &during, delay)?;
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
    let (silent, slow) = (size.of(60, 200), size.of(10, 25));
    let attack = Attack::start(folder.path(), &targets, silent, slow, Some(PHASES[0]));
    let (started, began) = (attack.processor_time()?, Instant::now());
    let during = honest.spell(Duration::from_secs(size.of(10, 40)))?;
    let attackers =
        (attack.processor_time()? - started).as_secs_f64() / began.elapsed().as_secs_f64();
    let got_in = honest.newcomers_get_in()?;
    let (files, grown) = (open_files(honest.processes[0])?, honest.growth_kib()?);
    let done = attack.report()?;
    attack.end();
    let after = honest.spell(Duration::from_secs(size.of(3, 8)))?;
    let figures = honest.finish()?;
    let delay = longest_delay(&honest.cluster, &honest.load.told)?;
    let share = share(during.rate, honest.calm.rate);
    let cost = 100.0 * during.jobs_by_processor() / honest.calm.jobs_by_processor();
    let more = format!(
        "{} connections and pieces of garbage, {} stray messages, {} lying heartbeats, {} pipe \
         messages swallowed by attackers that used {attackers:.2} processors; before {}, \
         meanwhile {during}, afterwards {after}; throughput {share} %, by processor time {cost:.0} \
         %; newcomers got in within {:.2} s, {}, it had {} files open before and {files} \
         meanwhile, longest delay of a job {:.2} s",
        done.raw,
        done.stray,
        done.lies,
        done.taken,
        honest.calm,
        got_in.as_secs_f64(),
        honest.growth(grown, &during),
        honest.files_before,
        delay.as_secs_f64()
    );
    honest.check(&more, grown, &during, delay)?;
    Ok(figures.saying(more))
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn share(during: f64, before: f64) -> u64 {
    (during * 100.0 / before.max(1.0)) as u64
}
