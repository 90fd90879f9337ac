//! The soak: one cluster, every fault at random, several at once, for as long as is asked.
//!
//! Once a minute all faults end for a moment: work must go on then, and the memory of
//! every process is noted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::Watcher;
use super::{Figures, PHASES, Size, judge, plan, settle};
use crate::client::read_told;
use crate::cluster::{Cluster, Role, Way};
use crate::fault::{Deed, Fault, Whom};
use crate::feeder::Told;
use crate::process::resident_kib;
use crate::proxy::{Flow, Proxy, Weather};

const WORKER_TIMEOUT: Duration = Duration::from_secs(2);
const WINDOW: usize = 96;
const PHASE_MS: u64 = 20;
/// How long there are faults between two moments of calm.
const STORM: Duration = Duration::from_secs(50);
/// How many ended jobs the manager keeps.
const HISTORY_JOBS: u64 = 20_000;
/// How much a process may grow in its life, once it has worked for a while, in KiB: for a
/// manager the rest of its history, and up to 64 MiB at once, probably when glibc's first heap
/// of the store's thread is full and sled's buffers of 8 MiB go into the next one.
const GROWTH_MAX_KIB: u64 = 96 << 10;

/// What can be hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Manager,
    Worker(usize),
    Other(Role),
    Way(usize, Way),
    Api,
}

/// What ends a fault.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    Start,
    Continue,
    Heal,
}

struct Soak {
    cluster: Cluster,
    watcher: Watcher,
    api: Proxy,
    random: fastrand::Rng,
    /// What is hit now, until when, and what ends it.
    hit: Vec<(Target, Instant, Remedy)>,
    /// The memory of each process at each moment of calm, in KiB.
    resident: BTreeMap<(String, u32), Vec<u64>>,
    /// The manager is killed no more, so that its memory can be watched.
    spares_manager: bool,
}

/// Runs for so many minutes.
pub(super) fn run(size: Size, minutes: f64) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut soak = Soak::start(folder.path(), size)?;
    let whole = Duration::from_secs_f64(minutes * 60.0);
    let started = Instant::now();
    let mut calms = 0;
    loop {
        let storm = Instant::now();
        while storm.elapsed() < STORM && started.elapsed() < whole {
            soak.spares_manager = started.elapsed() > whole / 3;
            soak.remedy(false)?;
            soak.strike()?;
            let pause = Duration::from_millis(soak.random.u64(50..900));
            std::thread::sleep(pause);
        }
        soak.remedy(true)?;
        soak.watcher.advance(2 * WINDOW).with_context(|| {
            let faults = &soak.cluster.faults.faults;
            let last: Vec<String> = faults.iter().rev().take(8).map(Fault::to_string).collect();
            format!(
                "after the faults had ended for the {calms}th time, the last of which were {}; \
                 the manager wrote:\n{}",
                last.join(", "),
                soak.cluster.manager().log()
            )
        })?;
        soak.note_memory()?;
        calms += 1;
        eprintln!(
            "soak: {:.1} of {minutes} minutes, {} jobs, {} faults",
            started.elapsed().as_secs_f64() / 60.0,
            soak.watcher.ended(),
            soak.cluster.faults.faults.len()
        );
        if started.elapsed() >= whole {
            break;
        }
    }
    soak.judge(calms)
}

impl Soak {
    fn start(folder: &std::path::Path, size: Size) -> Result<Self> {
        let mut plan = plan("attempts = 10\nbackoff = \"10ms..100ms\"");
        plan.worker_timeout = WORKER_TIMEOUT;
        // Full early, so that what grows later is no history.
        plan.history_jobs = Some(HISTORY_JOBS);
        let mut cluster = Cluster::start(folder, &plan)?;
        cluster.add_devices()?;
        for phase in PHASES {
            // The first of each phase is never killed.
            cluster.add_worker_behind_proxies(phase, 4)?;
            cluster.add_worker_behind_proxies(phase, 4)?;
            cluster.add_worker_behind_devices(phase, 4);
        }
        let api = Proxy::to(&cluster.address("api"))?;
        let mut random = size.random();
        cluster.start_client_at(&api.address(), random.u64(..), PHASE_MS, WINDOW);
        let watcher = Watcher::start(&cluster, Arc::default());
        watcher.advance(WINDOW)?;
        Ok(Soak {
            cluster,
            watcher,
            api,
            random,
            hit: Vec::new(),
            resident: BTreeMap::new(),
            spares_manager: false,
        })
    }

    fn is_hit(&self, target: Target) -> bool {
        self.hit.iter().any(|(hit, ..)| *hit == target)
    }

    /// Whether a process is killed or stopped now, so that nothing more can be done to it.
    fn is_away(&self, target: Target) -> bool {
        match target {
            Target::Way(index, _) => self.is_hit(target) || self.is_hit(Target::Worker(index)),
            // A worker that is killed takes the faults of its ways with it.
            Target::Worker(index) => {
                self.is_hit(target)
                    || Way::ALL
                        .iter()
                        .any(|way| self.is_hit(Target::Way(index, *way)))
            }
            other => self.is_hit(other),
        }
    }

    /// Begins a fault, or does nothing.
    fn strike(&mut self) -> Result<()> {
        let workers = self.cluster.workers();
        let target = match self.random.u8(..20) {
            0..=2 => Target::Manager,
            3..=8 => Target::Worker(self.random.usize(..workers)),
            9 | 10 => Target::Other(Role::Client),
            11 => Target::Other(Role::Streamer),
            12 => Target::Other(Role::Forwarder),
            13 => Target::Api,
            _ => {
                // The third worker of a phase is behind devices instead.
                let index = [0, 1, 3, 4][self.random.usize(..4)];
                Target::Way(index, Way::ALL[self.random.usize(..3)])
            }
        };
        if self.is_away(target) {
            return Ok(());
        }
        let span = Duration::from_millis(self.random.u64(50..4000));
        let remedy = match target {
            Target::Way(index, way) => self.strike_way(index, way),
            Target::Api => {
                self.note_api(true);
                let weather = self.weather();
                self.api.set(weather);
                if self.random.bool() {
                    self.api.reset_all();
                }
                Some(Remedy::Heal)
            }
            process => self.strike_process(process)?,
        };
        if let Some(remedy) = remedy {
            self.hit.push((target, Instant::now() + span, remedy));
        }
        Ok(())
    }

    fn strike_process(&mut self, target: Target) -> Result<Option<Remedy>> {
        let is_spared = match target {
            Target::Manager => self.spares_manager,
            Target::Worker(index) => index % 3 == 0,
            _ => false,
        };
        let deed = self.random.u8(..3);
        let cluster = &mut self.cluster;
        if deed == 0 || is_spared {
            match target {
                Target::Manager => cluster.suspend_manager(),
                Target::Worker(index) => cluster.suspend_worker(index),
                Target::Other(role) => cluster.suspend_other(role),
                Target::Way(..) | Target::Api => {}
            }
            return Ok(Some(Remedy::Continue));
        }
        // In good order only where nobody it waits for is away.
        let is_calm = self.hit.is_empty();
        match target {
            Target::Manager if deed == 1 && is_calm => cluster.drain_manager()?,
            Target::Manager => cluster.kill_manager(),
            Target::Worker(index) if deed == 1 && is_calm => cluster.drain_worker(index)?,
            Target::Worker(index) => cluster.kill_worker(index),
            Target::Other(role) if deed == 1 && is_calm && role != Role::Client => {
                cluster.drain_other(role)?;
            }
            Target::Other(role) => cluster.kill_other(role),
            Target::Way(..) | Target::Api => {}
        }
        Ok(Some(Remedy::Start))
    }

    fn strike_way(&mut self, index: usize, way: Way) -> Option<Remedy> {
        if self.random.u8(..3) == 0 {
            self.cluster.reset_way(index, way);
            return None;
        }
        let weather = self.weather();
        self.cluster.set_way(index, way, weather);
        Some(Remedy::Heal)
    }

    fn weather(&mut self) -> Weather {
        let flows = [Flow::Waits, Flow::Vanishes];
        let flow = flows[self.random.usize(..2)];
        match self.random.u8(..5) {
            0 => Weather {
                forward: flow,
                ..Weather::default()
            },
            1 => Weather {
                backward: flow,
                ..Weather::default()
            },
            2 => Weather::both(flow),
            3 => Weather {
                refuses: true,
                ..Weather::default()
            },
            _ => Weather {
                delay: Duration::from_millis(self.random.u64(10..300)),
                bytes_per_second: self.random.u64(20_000..200_000),
                ..Weather::default()
            },
        }
    }

    fn note_api(&mut self, begins: bool) {
        match begins {
            true => {
                let fault = Fault::beginning(Whom::Client, Deed::ApiCut);
                self.cluster.faults.note(fault);
            }
            false => self.cluster.faults.over(Whom::Client, Deed::ApiCut),
        }
    }

    /// Ends the faults whose time is over, or all of them.
    fn remedy(&mut self, all: bool) -> Result<()> {
        // First what a client that is started waits for.
        self.hit
            .sort_by_key(|(target, ..)| !matches!(target, Target::Manager | Target::Api));
        let now = Instant::now();
        for (target, until, remedy) in std::mem::take(&mut self.hit) {
            let waits_for_manager = matches!(remedy, Remedy::Start)
                && target == Target::Other(Role::Client)
                && (self.is_hit(Target::Manager) || self.is_hit(Target::Api));
            let is_due = until <= now && !waits_for_manager;
            if !is_due && !all {
                self.hit.push((target, until, remedy));
                continue;
            }
            let cluster = &mut self.cluster;
            match (target, remedy) {
                (Target::Manager, Remedy::Start) => cluster.start_manager()?,
                (Target::Manager, _) => cluster.continue_manager(),
                (Target::Worker(index), Remedy::Start) => cluster.start_worker(index),
                (Target::Worker(index), _) => cluster.continue_worker(index),
                (Target::Other(role), Remedy::Start) => cluster.start_other(role),
                (Target::Other(role), _) => cluster.continue_other(role),
                (Target::Way(index, way), _) => cluster.set_way(index, way, Weather::default()),
                (Target::Api, _) => {
                    self.api.set(Weather::default());
                    self.note_api(false);
                }
            }
        }
        Ok(())
    }

    fn note_memory(&mut self) -> Result<()> {
        let mut processes = vec![("manager".to_owned(), self.cluster.manager().id())];
        for index in 0..self.cluster.workers() {
            processes.push(("worker".to_owned(), self.cluster.worker(index).id()));
        }
        for role in [Role::Client, Role::Streamer, Role::Forwarder] {
            let name = format!("{role:?}").to_lowercase();
            processes.push((name, self.cluster.other(role).id()));
        }
        for (name, id) in processes {
            let resident = resident_kib(id)?;
            self.resident.entry((name, id)).or_default().push(resident);
        }
        Ok(())
    }

    fn judge(mut self, calms: usize) -> Result<Figures> {
        let mut most: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((name, id), noted) in &self.resident {
            // What was started just now grows to its working size first.
            let settled = noted.get(1..).unwrap_or(&[]);
            let grown = match settled {
                [first, .., last] => last.saturating_sub(*first),
                _ => 0,
            };
            ensure!(
                grown < GROWTH_MAX_KIB,
                "{name} {id} grew by {grown} KiB: {noted:?}"
            );
            let entry = most.entry(name).or_default();
            entry.0 = entry.0.max(noted.iter().copied().max().unwrap_or(0));
            entry.1 = entry.1.max(grown);
        }
        let memory: Vec<String> = most
            .iter()
            .map(|(name, (most, grown))| {
                format!("{name} {} MiB (+{} MiB)", most >> 10, grown >> 10)
            })
            .collect();
        let log = &self.cluster.faults;
        let count = |deed| log.count(deed, |_| true);
        let faults = format!(
            "{} kills, {} orderly ends, {} stops, {} faults of links",
            count(Deed::Killed),
            count(Deed::Drained),
            count(Deed::Suspended),
            count(Deed::PipeCut)
                + count(Deed::ResultsCut)
                + count(Deed::EventsCut)
                + count(Deed::ApiCut)
                + count(Deed::Slowed)
        );
        self.cluster.drain_other(Role::Client)?;
        settle(&mut self.cluster)?;
        let told = Told::default();
        told.absorb(read_told(&self.cluster.told())?);
        let counters = self.cluster.stats()?.counters;
        let figures = judge(&mut self.cluster, &told)
            .with_context(|| format!("the manager counted {counters:?}"))?;
        Ok(figures.saying(format!(
            "{faults}; calm {calms} times; memory at most: {}",
            memory.join(", ")
        )))
    }
}
