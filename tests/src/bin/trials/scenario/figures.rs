//! What a scenario is made of, and what it comes to: plans, waiting, the line of figures.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Plan, WORKER_TIMEOUT};

/// The phases of every scenario.
pub(crate) const PHASES: [&str; 2] = ["first", "second"];

/// How long nothing may move.
const STALL_MAX: Duration = Duration::from_secs(45);

/// What a scenario came to.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) confirmed: usize,
    pub(crate) finished: usize,
    /// Kept as failed, because too many workers were lost that ran them.
    pub(crate) failed: usize,
    pub(crate) lost: usize,
    /// Phases that ran again, by cause.
    pub(crate) repeats: BTreeMap<String, usize>,
    /// What the manager counts itself.
    pub(crate) manager_says: Option<ManagerSays>,
    /// The longest time from a fault to the first new progress of the jobs that it hit.
    pub(crate) recovery: Option<Duration>,
    /// The longest time until a job that a kill cut off ran elsewhere.
    pub(crate) relocation: Option<Duration>,
    /// What else is worth a word.
    pub(crate) more: String,
}

/// What a manager counts of its own repeats, since its journal began.
pub(crate) struct ManagerSays {
    /// Executions that certainly happened twice.
    pub(crate) duplicates: u64,
    /// Those that may have, with the certain ones.
    pub(crate) reruns: u64,
    /// Why.
    pub(crate) causes: Vec<(String, u64)>,
}

impl Figures {
    /// The same with more to say.
    pub(crate) fn saying(mut self, more: impl Into<String>) -> Self {
        self.more = more.into();
        self
    }

    /// How many phases ran again.
    pub(crate) fn repeated(&self) -> usize {
        self.repeats.values().sum()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.confirmed == 0 {
            return f.write_str(&self.more);
        }
        write!(
            f,
            "confirmed {}, finished {}",
            self.confirmed, self.finished
        )?;
        if self.failed > 0 {
            write!(f, ", failed {}", self.failed)?;
        }
        write!(f, ", lost {}, duplicates {}", self.lost, self.repeated())?;
        write_causes(
            f,
            self.repeats
                .iter()
                .map(|(cause, count)| (cause, *count as u64)),
        )?;
        if let Some(ManagerSays {
            duplicates,
            reruns,
            causes,
        }) = &self.manager_says
        {
            write!(f, ", the manager counts {duplicates} among {reruns} reruns")?;
            write_causes(f, causes.iter().map(|(cause, count)| (cause, *count)))?;
        }
        if let Some(relocation) = self.relocation {
            write!(
                f,
                ", a killed worker's jobs ran elsewhere within {:.2} s",
                relocation.as_secs_f64()
            )?;
        }
        if let Some(recovery) = self.recovery {
            write!(f, ", longest recovery {:.2} s", recovery.as_secs_f64())?;
        }
        if !self.more.is_empty() {
            write!(f, ", {}", self.more)?;
        }
        Ok(())
    }
}

fn write_causes<'a>(
    f: &mut fmt::Formatter<'_>,
    causes: impl Iterator<Item = (&'a String, u64)>,
) -> fmt::Result {
    let causes: Vec<String> = causes
        .map(|(cause, count)| format!("{count} {cause}"))
        .collect();
    match causes.is_empty() {
        true => Ok(()),
        false => write!(f, " ({})", causes.join(", ")),
    }
}

/// A plan of the scenario phases with settings for each.
pub(crate) fn plan(settings: &str) -> Plan<'_> {
    Plan {
        pipeline: "scenario",
        phases: &PHASES,
        program: "scenario-phases",
        settings,
        storage: None,
        worker_timeout: WORKER_TIMEOUT,
        history_jobs: None,
    }
}

/// A cluster with `workers` workers of each phase.
pub(crate) fn cluster(
    folder: &Path,
    settings: &str,
    workers: usize,
    concurrency: u32,
) -> Result<Cluster> {
    let mut cluster = Cluster::start(folder, &plan(settings))?;
    for phase in PHASES {
        for _ in 0..workers {
            cluster.add_worker(phase, concurrency);
        }
    }
    Ok(cluster)
}

/// A job that makes the first phase do something.
pub(crate) fn order(deed: &str, ms: u64) -> Value {
    json!({ "first": { "do": deed, "ms": ms } })
}

/// Waits until `done` says so, as long as it does not take forever.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !done()? {
        ensure!(
            started.elapsed() < STALL_MAX,
            "no {what} within {STALL_MAX:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits until the manager has no live job; gives up when nothing moves for long.
pub(crate) fn settle(cluster: &mut Cluster) -> Result<()> {
    let client = cluster.client()?;
    let (mut last, mut moved) = (String::new(), Instant::now());
    loop {
        let stats = async_std::task::block_on(client.stats())?;
        if stats.live == 0 {
            return Ok(());
        }
        let phases: Vec<String> = stats
            .phases
            .iter()
            .map(|phase| {
                format!(
                    "{}: {} enqueued, {} scheduled, {} running, {} workers, {} slots",
                    phase.job_type,
                    phase.enqueued,
                    phase.scheduled,
                    phase.running,
                    phase.workers,
                    phase.slots
                )
            })
            .collect();
        let now = format!(
            "{} live, {} finished; {}",
            stats.live,
            stats.success,
            phases.join("; ")
        );
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STALL_MAX {
            bail!(
                "nothing moves for {STALL_MAX:?}: {last}; the manager wrote:\n{}",
                cluster.manager().log()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
