//! Scenarios: real processes, a fault, and a judge that does not ask the manager.
//!
//! What clients were told and what the phases' own ledgers say is compared; each scenario
//! ends with one line of figures, or an error.

mod attack;
mod backlog;
mod behaviour;
mod churn;
mod crowd;
mod disks;
mod figures;
mod hostile;
mod invented;
mod journal;
mod judge;
mod kills;
mod links;
mod load;
mod restart;
mod restore;
mod roles;
mod soak;
mod stores;
mod upgrade;

use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use argh::FromArgs;

pub(crate) use figures::{Figures, PHASES, cluster, order, plan, settle, wait_for};
pub(crate) use hostile::garbage;
pub(crate) use judge::{judge, judge_beside};
pub(crate) use load::sleepers;

/// Run trials with real processes, faults among them.
#[derive(FromArgs)]
#[argh(subcommand, name = "scenario")]
pub(crate) struct Scenario {
    #[argh(positional)]
    names: Vec<String>,
    /// run every scenario that can run here
    #[argh(switch)]
    all: bool,
    /// fewer rounds and jobs
    #[argh(switch)]
    short: bool,
    /// what the random choices are drawn from (a new one each time)
    #[argh(option)]
    seed: Option<u64>,
    /// every fault at random against one cluster, for so many minutes
    #[argh(option)]
    soak: Option<f64>,
    /// name the scenarios
    #[argh(switch)]
    list: bool,
}

/// How much to do.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    short: bool,
    seed: u64,
}

impl Size {
    /// Whether it is a short run.
    pub(crate) fn is_short(self) -> bool {
        self.short
    }

    /// What its random choices are drawn from.
    pub(crate) fn seed(self) -> u64 {
        self.seed
    }

    /// The random choices of a scenario.
    pub(crate) fn random(self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }

    /// The first in a short run, the second in a whole one.
    pub(crate) fn of<T>(self, short: T, whole: T) -> T {
        if self.short { short } else { whole }
    }
}

type Run = fn(Size) -> Result<Figures>;

/// What a scenario needs besides the workspace.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    Root,
    Redis,
    /// Minutes and gigabytes: only where it is named.
    Patience,
}

const SCENARIOS: &[(&str, Run, Needs)] = &[
    ("worker-kill", kills::worker_kill, Needs::Nothing),
    ("manager-kill", kills::manager_kill, Needs::Nothing),
    ("both-kill", kills::both_kill, Needs::Nothing),
    ("adoption", kills::adoption, Needs::Nothing),
    ("links-cut", links::cut, Needs::Nothing),
    ("links-delayed", links::delayed, Needs::Nothing),
    ("links-half-open", links::half_open, Needs::Nothing),
    ("kill-any", roles::kill_any, Needs::Nothing),
    ("commit-kill", kills::commit_kill, Needs::Nothing),
    ("suspend", roles::suspend, Needs::Nothing),
    ("rolling", roles::rolling, Needs::Nothing),
    ("poison", behaviour::poison, Needs::Nothing),
    ("poison-mixed", behaviour::poison_mixed, Needs::Nothing),
    ("timeout", behaviour::timeout, Needs::Nothing),
    ("retries", behaviour::retries, Needs::Nothing),
    ("drain", behaviour::drain, Needs::Nothing),
    ("fairness", behaviour::fairness, Needs::Nothing),
    ("garbage-peer", hostile::garbage_peer, Needs::Nothing),
    ("two-managers", stores::two_managers, Needs::Nothing),
    ("redis-loss", stores::redis_loss, Needs::Redis),
    ("full-disk", stores::full_disk, Needs::Root),
    ("power-cut", stores::power_cut, Needs::Root),
    ("full-disk-manager", disks::full_disk_manager, Needs::Root),
    ("power-loss", disks::power_loss, Needs::Root),
    ("join-leave", crowd::join_leave, Needs::Nothing),
    ("mixed", crowd::mixed, Needs::Nothing),
    (
        "silent-connections",
        attack::silent_connections,
        Needs::Nothing,
    ),
    ("attack", attack::attack, Needs::Nothing),
    ("churn", churn::churn, Needs::Nothing),
    ("churn-1m", churn::churn_1m, Needs::Patience),
    (
        "invented-workers",
        invented::invented_workers,
        Needs::Nothing,
    ),
    ("invented-names", invented::invented_names, Needs::Root),
    ("discard-backlog", backlog::discard_backlog, Needs::Nothing),
    (
        "discard-without-memory",
        backlog::discard_without_memory,
        Needs::Nothing,
    ),
    ("upgrade", upgrade::upgrade, Needs::Nothing),
    ("restore", restore::restore, Needs::Nothing),
    ("restart-100k", restart::restart_100k, Needs::Nothing),
    ("restart-1m", restart::restart_1m, Needs::Patience),
];

/// Runs the scenarios that were named.
pub(crate) fn run(scenario: &Scenario) -> Result<()> {
    if scenario.list {
        for (name, ..) in SCENARIOS {
            println!("{name}");
        }
        return Ok(());
    }
    let known: Vec<&str> = SCENARIOS.iter().map(|(name, ..)| *name).collect();
    for name in &scenario.names {
        ensure!(
            known.contains(&name.as_str()),
            "no scenario {name}; there are {}",
            known.join(", ")
        );
    }
    ensure!(
        scenario.all || scenario.soak.is_some() || !scenario.names.is_empty(),
        "name scenarios, or give --all; there are {}",
        known.join(", ")
    );
    let size = Size {
        short: scenario.short,
        seed: scenario.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
    };
    let mut violated = Vec::new();
    for &(name, run, needs) in SCENARIOS {
        if !scenario.all && !scenario.names.iter().any(|wanted| wanted == name) {
            continue;
        }
        if scenario.all && !is_met(needs) {
            let what = match needs {
                Needs::Root => "root",
                Needs::Redis => "redis-server",
                Needs::Patience | Needs::Nothing => "to be named",
            };
            println!("{name}: left out, it needs {what}");
            continue;
        }
        if !is_good(name, size, || run(size)) {
            violated.push(name);
        }
    }
    if let Some(minutes) = scenario.soak
        && !is_good("soak", size, || soak::run(size, minutes))
    {
        violated.push("soak");
    }
    if !violated.is_empty() {
        bail!(
            "{} scenarios were violated: {}",
            violated.len(),
            violated.join(", ")
        );
    }
    Ok(())
}

/// Runs one and tells its figures.
fn is_good(name: &str, size: Size, run: impl FnOnce() -> Result<Figures>) -> bool {
    eprintln!("scenario {name}, seed {}", size.seed);
    let started = Instant::now();
    // The harness panics when a process does not start; the next scenario can run still.
    let run = std::panic::AssertUnwindSafe(run);
    let outcome = std::panic::catch_unwind(run);
    match outcome.unwrap_or_else(|_| Err(anyhow!("the harness gave up, see above"))) {
        Ok(figures) => {
            println!(
                "{name}: good; {figures}; took {:.1} s",
                started.elapsed().as_secs_f64()
            );
            true
        }
        Err(error) => {
            println!("{name}: VIOLATED with seed {}; {error:#}", size.seed);
            false
        }
    }
}

fn is_met(needs: Needs) -> bool {
    match needs {
        Needs::Nothing => true,
        Needs::Root => rustix::process::geteuid().is_root(),
        Needs::Redis => stores::has_redis(),
        Needs::Patience => false,
    }
}
