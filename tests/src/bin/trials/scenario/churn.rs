//! Peers that join and leave without end on every socket, while honest work goes on.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_std::task;

use super::load::{Load, sleepers};
use super::{Figures, PHASES, Size, judge, plan, settle, wait_for};
use crate::churn::Churning;
use crate::cluster::Cluster;
use crate::process::{open_files, resident_kib};

/// The most that a process may grow from a tenth of the joins to their end, in KiB: after
/// a short run it has not yet met all that it keeps.
const GROWTH_MAX_KIB: [u64; 2] = [32 << 10, 8 << 10];
/// The most files that may be open more afterwards than before.
const FILES_MAX: usize = 16;
/// No job for so long is a stop.
const STOP: Duration = Duration::from_secs(20);
/// How many ended jobs the manager keeps, so that what grows is not its history.
const HISTORY_JOBS: u64 = 2000;
/// How many jobs are under way at once.
const WINDOW: usize = 16;

/// Tens of thousands of joins on every socket.
pub(super) fn churn(size: Size) -> Result<Figures> {
    join_and_leave(size, size.of(4_000, 60_000))
}

/// A million joins on every socket.
pub(super) fn churn_1m(size: Size) -> Result<Figures> {
    join_and_leave(size, size.of(100_000, 1_000_000))
}

fn join_and_leave(size: Size, joins: u64) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut plan = plan("attempts = 10");
    plan.history_jobs = Some(HISTORY_JOBS);
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    for phase in PHASES {
        cluster.add_worker(phase, 8);
    }
    let jobs = sleepers(size.random(), 3);
    let mut load = Load::start(&cluster, cluster.client()?, jobs, WINDOW);
    // What a manager keeps of the work is full before anything is compared: its history,
    // and in the whole size the 65,536 attempts that it remembers.
    load.advance(size.of(2_000, 35_000))?;
    let processes = [cluster.manager().id(), cluster.worker(0).id()];
    let files = open_files(processes[0])?;
    let (ended, started) = (load.ended(), Instant::now());
    let churning = Churning::start(folder.path(), &targets(&mut cluster), joins);
    let mut memory = Memory::new(processes);
    let mut progress = (load.ended(), Instant::now());
    loop {
        let report = churning.report()?;
        memory.look(report.joins >= joins / 10)?;
        if load.ended() > progress.0 {
            progress = (load.ended(), Instant::now());
        }
        ensure!(
            progress.1.elapsed() < STOP,
            "no job ended for {STOP:?} after {} joins of each socket",
            report.joins
        );
        if report.joins >= joins {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let (took, report) = (started.elapsed().as_secs_f64(), churning.report()?);
    let rate = (load.ended() - ended) as f64 / took;
    churning.end();
    let grown = memory.grown_kib()?;
    wait_for("end of all connections", || {
        Ok(open_files(processes[0])? <= files + FILES_MAX)
    })?;
    load.finish()?;
    settle(&mut cluster)?;
    let client = cluster.client()?;
    task::block_on(client.stats())?;
    let figures = judge(&mut cluster, &load.told)?;
    let more = format!(
        "{joins} joins of each of 5 sockets, {:.0} a second in all, {} not answered in time, \
         {rate:.0} jobs/s meanwhile; from a tenth of the joins on the manager grew by {:.1} MiB \
         and a worker by {:.1} MiB",
        report.in_all as f64 / took,
        report.unanswered,
        grown[0] as f64 / 1024.0,
        grown[1] as f64 / 1024.0,
    );
    let most_kib = size.of(GROWTH_MAX_KIB[0], GROWTH_MAX_KIB[1]);
    ensure!(report.unanswered == 0, "handshakes got no answer: {more}");
    ensure!(
        grown.iter().all(|kib| *kib <= most_kib),
        "a process grows with the joins: {more}"
    );
    Ok(figures.saying(more))
}

/// The manager's sockets and a worker's, each with the peer that it expects.
fn targets(cluster: &mut Cluster) -> Vec<String> {
    let sockets = [
        ("PUSH", "pull"),
        ("PUB", "sub"),
        ("DEALER", "api"),
        ("SUB", "pub"),
    ];
    let mut targets: Vec<String> = sockets
        .iter()
        .map(|(peer, socket)| format!("{peer}={}", cluster.address(socket)))
        .collect();
    targets.push(format!("PUSH={}", cluster.worker(0).address("address")));
    targets
}

/// The memory of two processes once the joins are well under way, and now.
struct Memory {
    processes: [u32; 2],
    before_kib: Option<[u64; 2]>,
}

impl Memory {
    fn new(processes: [u32; 2]) -> Self {
        Self {
            processes,
            before_kib: None,
        }
    }

    fn look(&mut self, is_under_way: bool) -> Result<()> {
        if is_under_way && self.before_kib.is_none() {
            self.before_kib = Some(self.resident_kib()?);
        }
        Ok(())
    }

    fn resident_kib(&self) -> Result<[u64; 2]> {
        Ok([
            resident_kib(self.processes[0])?,
            resident_kib(self.processes[1])?,
        ])
    }

    fn grown_kib(&self) -> Result<[u64; 2]> {
        let now = self.resident_kib()?;
        let before = self.before_kib.unwrap_or(now);
        Ok([0, 1].map(|index| now[index].saturating_sub(before[index])))
    }
}
