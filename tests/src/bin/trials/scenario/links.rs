//! The ways between the processes are cut, slowed, and half-open.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::load::{Load, sleepers};
use super::{Figures, PHASES, Size, judge, plan, settle};
use crate::cluster::{Cluster, Way};
use crate::fault::{Deed, Fault, Whom};
use crate::proxy::{Flow, Proxy, Weather};

/// A short patience, so that more happens in a minute.
const WORKER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many jobs are under way at once.
const WINDOW: usize = 64;

/// A cluster of two workers for each phase with proxies on every way, and a load whose
/// client is behind one as well.
struct Meshed {
    cluster: Cluster,
    load: Load,
    api: Proxy,
}

impl Meshed {
    fn start(folder: &std::path::Path, size: Size) -> Result<Self> {
        let mut plan = plan("attempts = 10\nbackoff = \"10ms..100ms\"");
        plan.worker_timeout = WORKER_TIMEOUT;
        let mut cluster = Cluster::start(folder, &plan)?;
        for phase in PHASES {
            for _ in 0..2 {
                cluster.add_worker_behind_proxies(phase, 4)?;
            }
        }
        let api = Proxy::to(&cluster.address("api"))?;
        let client = cluster.client_at(&api.address())?;
        let jobs = sleepers(size.random(), 20);
        let load = Load::start(&cluster, client, jobs, WINDOW);
        load.advance(WINDOW)?;
        Ok(Meshed { cluster, load, api })
    }

    fn reset_api(&mut self) {
        let cut = Fault::beginning(Whom::Client, Deed::ApiCut);
        self.cluster.faults.note(cut);
        self.api.reset_all();
        self.cluster.faults.over(Whom::Client, Deed::ApiCut);
    }

    /// Changes the client's way for a while.
    fn spoil_api(&mut self, weather: Weather, span: Duration) {
        let cut = Fault::beginning(Whom::Client, Deed::ApiCut);
        self.cluster.faults.note(cut);
        self.api.set(weather);
        std::thread::sleep(span);
        self.api.set(Weather::default());
        self.cluster.faults.over(Whom::Client, Deed::ApiCut);
    }

    /// Ends the load, waits until all is done, and judges.
    fn judge(mut self) -> Result<Figures> {
        self.load.finish()?;
        settle(&mut self.cluster)?;
        judge(&mut self.cluster, &self.load.told)
    }

    /// A count that the manager keeps.
    fn counted(&self, name: &str) -> Result<u64> {
        let counters = self.cluster.stats()?.counters;
        let found = counters.into_iter().find(|(counter, _)| counter == name);
        Ok(found.map_or(0, |(_, count)| count))
    }
}

/// Connections are reset, and for a while not taken, at random moments.
pub(super) fn cut(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut meshed = Meshed::start(folder.path(), size)?;
    let mut random = size.random();
    let rounds = size.of(16, 60);
    let mut longer = 0;
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(random.u64(20..300)));
        let index = random.usize(..meshed.cluster.workers());
        match random.u8(..8) {
            0 | 1 => meshed.reset_api(),
            2 => {
                // Everything at once.
                for index in 0..meshed.cluster.workers() {
                    for way in Way::ALL {
                        meshed.cluster.reset_way(index, way);
                    }
                }
                meshed.reset_api();
            }
            3 => {
                longer += 1;
                let way = Way::ALL[random.usize(..3)];
                let refuses = Weather {
                    refuses: true,
                    ..Weather::default()
                };
                meshed.cluster.set_way(index, way, refuses);
                meshed.cluster.reset_way(index, way);
                std::thread::sleep(Duration::from_millis(random.u64(100..2800)));
                meshed.cluster.set_way(index, way, Weather::default());
            }
            _ => {
                let way = Way::ALL[random.usize(..3)];
                meshed.cluster.reset_way(index, way);
            }
        }
        meshed.load.advance(8)?;
    }
    let figures = meshed.judge()?;
    Ok(figures.saying(format!("{rounds} cuts, {longer} of them for up to 2.8 s")))
}

/// Every way is slow and narrow, each for itself and all at once: nobody is taken for
/// lost, nothing runs twice.
pub(super) fn delayed(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut meshed = Meshed::start(folder.path(), size)?;
    let mut random = size.random();
    let mut weather = || Weather {
        delay: Duration::from_millis(random.u64(20..250)),
        bytes_per_second: random.u64(20_000..200_000),
        ..Weather::default()
    };
    let jobs = size.of(40, 200);
    for way in Way::ALL {
        for index in 0..meshed.cluster.workers() {
            meshed.cluster.set_way(index, way, weather());
        }
        meshed.load.advance(jobs)?;
        for index in 0..meshed.cluster.workers() {
            meshed.cluster.set_way(index, way, Weather::default());
        }
    }
    for index in 0..meshed.cluster.workers() {
        for way in Way::ALL {
            meshed.cluster.set_way(index, way, weather());
        }
    }
    meshed.spoil_api(weather(), Duration::from_secs(size.of(1, 5)));
    meshed.load.advance(jobs)?;
    for index in 0..meshed.cluster.workers() {
        for way in Way::ALL {
            meshed.cluster.set_way(index, way, Weather::default());
        }
    }
    let lost = meshed.counted("workers_lost")?;
    ensure!(lost == 0, "{lost} workers were taken for lost");
    let figures = meshed.judge()?;
    ensure!(
        figures.repeated() == 0,
        "{} phases ran again though nothing was lost on the way",
        figures.repeated()
    );
    Ok(figures.saying("up to 250 ms later and 20 to 200 kB/s, no worker taken for lost"))
}

/// Each way in turn carries only one direction, or none, and no connection breaks: for
/// longer than the worker timeout.
pub(super) fn half_open(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut meshed = Meshed::start(folder.path(), size)?;
    let span = WORKER_TIMEOUT.mul_f64(1.4);
    let one_way = |flow, forward| match forward {
        true => Weather {
            forward: flow,
            ..Weather::default()
        },
        false => Weather {
            backward: flow,
            ..Weather::default()
        },
    };
    // Two at once: one for a worker of the first phase, one for a worker of the second.
    // The other worker of each phase does the work meanwhile.
    let mut pairs = vec![(one_way(Flow::Vanishes, true), Weather::both(Flow::Waits))];
    if !size.is_short() {
        pairs.extend([
            (Weather::both(Flow::Vanishes), one_way(Flow::Waits, true)),
            (one_way(Flow::Vanishes, false), one_way(Flow::Waits, false)),
            (Weather::both(Flow::Waits), one_way(Flow::Vanishes, true)),
        ]);
    }
    let mut cases = 0;
    let mut slowest = f64::MAX;
    for (first, second) in pairs {
        for turn in 0..Way::ALL.len() {
            let hit = [
                (0, Way::ALL[turn], first),
                (2, Way::ALL[(turn + 1) % Way::ALL.len()], second),
            ];
            for (index, way, weather) in hit {
                meshed.cluster.set_way(index, way, weather);
            }
            cases += 2;
            let before = meshed.load.ended();
            std::thread::sleep(span);
            let went = meshed.load.ended() - before;
            slowest = slowest.min(went as f64 / span.as_secs_f64());
            ensure!(went > 0, "nothing ended in {span:?} with {hit:?}");
            for (index, way, _) in hit {
                meshed.cluster.set_way(index, way, Weather::default());
            }
            meshed.load.advance(2 * WINDOW)?;
        }
        meshed.spoil_api(first, span);
        meshed.load.advance(WINDOW)?;
    }
    let reopened = meshed.counted("pipes_reopened")?;
    let figures = meshed.judge()?;
    Ok(figures.saying(format!(
        "{cases} ways half-open for {:.1} s each, at least {slowest:.0} jobs/s meanwhile, \
         {reopened} pipes opened anew",
        span.as_secs_f64()
    )))
}
