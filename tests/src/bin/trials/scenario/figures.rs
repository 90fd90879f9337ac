//! The judge: what clients were told, against what the ledgers say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use carbontube_client::JobId;
use file_catalogue::{Run, read_ledgers};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Plan};
use crate::feeder::Told;

/// The phases of every scenario.
pub(crate) const PHASES: [&str; 2] = ["first", "second"];

/// How long nothing may move.
const STALL_MAX: Duration = Duration::from_secs(45);

/// What a scenario came to.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) confirmed: usize,
    pub(crate) finished: usize,
    pub(crate) lost: usize,
    /// Phases that ran again, by cause.
    pub(crate) repeats: BTreeMap<String, usize>,
    /// The longest time in which no job finished.
    pub(crate) longest_gap: Duration,
    /// What else is worth a word.
    pub(crate) more: String,
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
            "confirmed {}, finished {}, lost {}, duplicates {}",
            self.confirmed,
            self.finished,
            self.lost,
            self.repeated()
        )?;
        for (cause, count) in &self.repeats {
            write!(f, " ({count} {cause})")?;
        }
        write!(
            f,
            ", longest recovery {:.2} s",
            self.longest_gap.as_secs_f64()
        )?;
        if !self.more.is_empty() {
            write!(f, ", {}", self.more)?;
        }
        Ok(())
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

/// A kill: of which process (0 for the manager), and when.
pub(crate) type Kill = (u32, u64);

/// Compares what was confirmed with what ran. A repeat must be explained by one of the
/// kills, which lies between the two runs.
pub(crate) fn judge(cluster: &Cluster, told: &Told, kills: &[Kill]) -> Result<Figures> {
    judge_beside(cluster, told, kills, &[])
}

/// As [`judge`], beside jobs that were told to misbehave and repeat for that.
pub(crate) fn judge_beside(
    cluster: &Cluster,
    told: &Told,
    kills: &[Kill],
    misbehaving: &[JobId],
) -> Result<Figures> {
    let rejected = told.rejected.load(Ordering::Relaxed);
    ensure!(rejected == 0, "{rejected} jobs were rejected");
    let misbehaving: BTreeSet<String> = misbehaving.iter().map(JobId::to_string).collect();
    let runs = read_ledgers(cluster.folder())?;
    compare(&told.ids(), &runs, kills, &misbehaving)
}

/// Every run of each phase and job.
type Runs = BTreeMap<(String, String), Vec<Run>>;

fn compare(
    confirmed: &BTreeSet<String>,
    all: &Runs,
    kills: &[Kill],
    misbehaving: &BTreeSet<String>,
) -> Result<Figures> {
    let mut ends = Vec::new();
    let mut finished = BTreeSet::new();
    let mut figures = Figures::default();
    let mut unexplained = Vec::new();
    for ((phase, job), runs) in all {
        if phase == PHASES[1]
            && let Some(end) = runs.iter().find_map(|run| run.ended_us)
        {
            ends.push(end);
            finished.insert(job.clone());
        }
        if phase == PHASES[1] {
            let key = (PHASES[0].to_owned(), job.clone());
            let first_ended = all
                .get(&key)
                .and_then(|runs| runs.iter().find_map(|run| run.ended_us));
            let in_order = first_ended.is_some_and(|ended| ended <= runs[0].began_us);
            ensure!(
                in_order,
                "the second phase of {job} began before the first had ended"
            );
        }
        for pair in runs.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            let between = |at: u64| first.began_us <= at && at <= second.began_us;
            let killed = |id: u32| {
                kills
                    .iter()
                    .any(|(process, at)| *process == id && between(*at))
            };
            let cause = if misbehaving.contains(job) {
                "told to misbehave"
            } else if killed(first.process) && first.ended_us.is_none() {
                "cut off by a killed worker"
            } else if killed(first.process) {
                "ended, but not yet reported by a killed worker"
            } else if killed(0) {
                "not yet journaled by a killed manager"
            } else {
                unexplained.push(format!(
                    "{phase} of {job} in process {} then {}",
                    first.process, second.process
                ));
                continue;
            };
            *figures.repeats.entry(cause.to_owned()).or_insert(0) += 1;
        }
    }
    ends.sort_unstable();
    let longest = ends.windows(2).map(|pair| pair[1] - pair[0]).max();
    figures.longest_gap = Duration::from_micros(longest.unwrap_or(0));
    figures.confirmed = confirmed.len();
    figures.finished = confirmed.intersection(&finished).count();
    figures.lost = figures.confirmed - figures.finished;
    ensure!(
        figures.lost == 0,
        "{} of {} confirmed jobs never ran to their end",
        figures.lost,
        figures.confirmed
    );
    ensure!(
        unexplained.is_empty(),
        "{} unexplained repeats: {}",
        unexplained.len(),
        unexplained[..unexplained.len().min(3)].join("; ")
    );
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in process 7 that began and ended at these times.
    fn run(began_us: u64, ended_us: Option<u64>) -> Run {
        Run {
            process: 7,
            began_us,
            ended_us,
        }
    }

    /// What the judge says of one confirmed job with these runs of its phases.
    fn said(first: &[Run], second: &[Run], kills: &[Kill]) -> String {
        let confirmed = BTreeSet::from(["job".to_owned()]);
        let mut runs = Runs::new();
        for (phase, phase_runs) in PHASES.into_iter().zip([first, second]) {
            if !phase_runs.is_empty() {
                runs.insert((phase.to_owned(), "job".to_owned()), phase_runs.to_vec());
            }
        }
        match compare(&confirmed, &runs, kills, &BTreeSet::new()) {
            Ok(figures) => figures.to_string(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn job_that_ran_once_through_both_phases_is_good() {
        assert_eq!(
            said(&[run(1, Some(2))], &[run(3, Some(4))], &[]),
            "confirmed 1, finished 1, lost 0, duplicates 0, longest recovery 0.00 s"
        );
    }

    #[test]
    fn confirmed_job_that_did_not_end_is_lost() {
        let lost = "1 of 1 confirmed jobs never ran to their end";
        assert_eq!(said(&[], &[], &[]), lost);
        assert_eq!(said(&[run(1, Some(2))], &[], &[]), lost);
        assert_eq!(said(&[run(1, Some(2))], &[run(3, None)], &[]), lost);
    }

    #[test]
    fn phase_that_begins_too_early_is_found() {
        let early = "the second phase of job began before the first had ended";
        assert_eq!(said(&[run(1, Some(5))], &[run(3, Some(6))], &[]), early);
        assert_eq!(said(&[run(1, None)], &[run(3, Some(6))], &[]), early);
        assert_eq!(said(&[], &[run(3, Some(6))], &[]), early);
    }

    #[test]
    fn repeat_needs_a_kill_between_its_runs() {
        let twice = [run(1, Some(2)), run(5, Some(6))];
        let end = [run(8, Some(9))];
        let unexplained = "1 unexplained repeats: first of job in process 7 then 7";
        assert_eq!(said(&twice, &end, &[]), unexplained);
        assert_eq!(said(&twice, &end, &[(7, 6)]), unexplained);
        assert_eq!(said(&twice, &end, &[(8, 3)]), unexplained);
        let explained = |kill| said(&twice, &end, &[kill]);
        assert!(explained((7, 3)).contains("(1 ended, but not yet reported by a killed worker)"));
        assert!(explained((0, 3)).contains("(1 not yet journaled by a killed manager)"));
        let cut = [run(1, None), run(5, Some(6))];
        assert!(said(&cut, &end, &[(7, 3)]).contains("(1 cut off by a killed worker)"));
    }
}
