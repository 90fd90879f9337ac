//! The judge: what clients were told, what the phases' own ledgers say and what the
//! exported journal says, against each other and against what was done to whom.
//!
//! It never asks the manager for the truth. The manager's own count of duplicates stands
//! beside the judge's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carbontube_client::JobId;
use carbontube_client::protocol::message::{AttemptView, FailureKind, JobState};
use file_catalogue::{Run, read_ledgers};

use super::figures::{Figures, ManagerSays, PHASES};
use super::journal::{self, JournalSays, Standing};
use crate::cluster::Cluster;
use crate::fault::{Deed, Fault, Whom};
use crate::feeder::Told;

/// How long a live worker with a live manager may need until its result is durable.
const REPORT_MAX_US: u64 = 1_500_000;
/// How long peers may need to find each other again after a fault.
const RECONNECT_MAX_US: u64 = 3_000_000;
/// How far the clocks of two processes may be apart.
const CLOCKS_US: u64 = 50_000;
/// The cause of repeats that a scenario asked for.
const MISBEHAVING: &str = "told to misbehave";
/// The cause of repeats where an attempt arrived after it had been given up.
const DELIVERED_LATE: &str = "delivered late over a way that had been cut";
/// How many lost workers make a job poison.
const POISON_LOSSES: usize = 3;

/// Judges a settled cluster and ends its manager; the journal is read after that.
pub(crate) fn judge(cluster: &mut Cluster, told: &Told) -> Result<Figures> {
    judge_beside(cluster, told, &[])
}

/// As [`judge`], beside jobs that were told to misbehave and repeat for that.
pub(crate) fn judge_beside(
    cluster: &mut Cluster,
    told: &Told,
    misbehaving: &[JobId],
) -> Result<Figures> {
    let rejected = told.rejected.load(Ordering::Relaxed);
    ensure!(rejected == 0, "{rejected} jobs were rejected");
    let stats = cluster.stats()?;
    cluster.drain_manager()?;
    let journal = journal::is_readable(cluster.storage())
        .then(|| journal::read(cluster))
        .transpose()
        .context("reading the journal")?;
    let evidence = Evidence {
        confirmed: told.confirmations(),
        told_ended: told.ends(),
        runs: read_ledgers(cluster.folder())?,
        faults: cluster.faults.faults.clone(),
        workers: cluster.worker_ids.clone(),
        worker_timeout: cluster.worker_timeout(),
        misbehaving: misbehaving.iter().map(JobId::to_string).collect(),
        journal,
        history_jobs: cluster.history_jobs(),
    };
    let mut figures = evidence.compare()?;
    evidence.check_counts(&figures, stats.reruns, stats.duplicates)?;
    figures.manager_says = Some(ManagerSays {
        duplicates: stats.duplicates,
        reruns: stats.reruns,
        causes: stats.rerun_causes,
    });
    Ok(figures)
}

/// Every run of each phase and job.
type Runs = BTreeMap<(String, String), Vec<Run>>;

/// A run that a worker had.
struct Held<'a> {
    is_first: bool,
    job: &'a str,
    run: &'a Run,
}

/// When there was progress that only a manager gives, in order.
struct ByManager {
    confirmations: Vec<u64>,
    seconds: Vec<(u64, u64)>,
}

impl ByManager {
    /// The first after a fault: a second phase whose first one ended after it, or a
    /// confirmation after the manager served again.
    fn after(&self, fault: &Fault) -> Option<u64> {
        let from = self
            .confirmations
            .partition_point(|at| *at < fault.until_us);
        let confirmed = self.confirmations.get(from).copied();
        let from = self
            .seconds
            .partition_point(|(end, _)| *end <= fault.from_us);
        let second = self.seconds.get(from).map(|(_, began)| *began);
        confirmed.into_iter().chain(second).min()
    }
}

/// All that the judge looks at.
#[derive(Default)]
struct Evidence {
    /// Each confirmed job, and when its client knew.
    confirmed: BTreeMap<String, u64>,
    /// Each job whose end a client was told, and when.
    told_ended: BTreeMap<String, u64>,
    runs: Runs,
    faults: Vec<Fault>,
    /// The process of each worker id.
    workers: BTreeMap<String, u32>,
    worker_timeout: Duration,
    misbehaving: BTreeSet<String>,
    journal: Option<JournalSays>,
    /// How many ended jobs the history keeps.
    history_jobs: u64,
}

impl Evidence {
    fn compare(&self) -> Result<Figures> {
        let mut figures = Figures {
            confirmed: self.confirmed.len(),
            ..Figures::default()
        };
        self.check_order()?;
        self.explain_repeats(&mut figures)?;
        self.count_ends(&mut figures)?;
        if let Some(journal) = &self.journal {
            self.check_journal(journal)?;
        }
        self.measure_recovery(&mut figures)?;
        Ok(figures)
    }

    fn runs(&self, phase: usize, job: &str) -> &[Run] {
        let key = (PHASES[phase].to_owned(), job.to_owned());
        self.runs.get(&key).map_or(&[], Vec::as_slice)
    }

    /// When a phase of a job was first through.
    fn ended(&self, phase: usize, job: &str) -> Option<u64> {
        let ends = self.runs(phase, job).iter().filter_map(|run| run.ended_us);
        ends.min()
    }

    /// No phase begins before the one before it has ended.
    fn check_order(&self) -> Result<()> {
        for ((phase, job), runs) in &self.runs {
            if phase != PHASES[1] {
                continue;
            }
            let in_order = self
                .ended(0, job)
                .is_some_and(|ended| ended <= runs[0].began_us);
            ensure!(
                in_order,
                "the second phase of {job} began before the first had ended"
            );
        }
        Ok(())
    }

    /// Every run but the first of a phase needs a fault of its own that explains it.
    fn explain_repeats(&self, figures: &mut Figures) -> Result<()> {
        let mut unexplained = Vec::new();
        for ((phase, job), runs) in &self.runs {
            let mut used = vec![false; runs.len()];
            for (later, repeat) in runs.iter().enumerate().skip(1) {
                let cause = if self.misbehaving.contains(job) {
                    Some(MISBEHAVING)
                } else {
                    self.explain(runs, later, &mut used)
                };
                match cause {
                    Some(cause) => *figures.repeats.entry(cause.to_owned()).or_default() += 1,
                    None => unexplained.push(self.describe(phase, job, runs, repeat)),
                }
            }
        }
        ensure!(
            unexplained.is_empty(),
            "{} unexplained repeats: {}",
            unexplained.len(),
            unexplained[..unexplained.len().min(3)].join("; ")
        );
        Ok(())
    }

    /// What explains that `runs[later]` began; each earlier run explains one at most.
    fn explain(&self, runs: &[Run], later: usize, used: &mut [bool]) -> Option<&'static str> {
        for earlier in 0..later {
            if used[earlier] {
                continue;
            }
            let faults = self.faults.iter();
            let cause = faults
                .filter(|fault| fault.whom == Whom::Worker(runs[earlier].process))
                .find_map(|fault| self.given_up_by(fault, &runs[earlier], &runs[later]));
            if cause.is_some() {
                used[earlier] = true;
                return cause;
            }
        }
        let own = self.faults.iter();
        own.filter(|fault| fault.whom == Whom::Worker(runs[later].process))
            .find_map(|fault| self.begun_late_after(fault, &runs[later]))
    }

    /// Why a fault of the worker that had `first` made the manager begin `second`.
    fn given_up_by(&self, fault: &Fault, first: &Run, second: &Run) -> Option<&'static str> {
        let timeout_us = self.timeout_us();
        match fault.deed {
            Deed::Killed => {
                let within = first.began_us <= fault.until_us && fault.from_us <= second.began_us;
                if !within {
                    return None;
                }
                match first.ended_us {
                    None => Some("cut off by a killed worker"),
                    Some(end) if self.is_unreported(first.process, end, fault.until_us) => {
                        Some("ended, but not yet reported by a killed worker")
                    }
                    Some(_) => None,
                }
            }
            Deed::Suspended | Deed::EventsCut => {
                // The manager knows only of a silence that is as long as its patience.
                let patient = fault.from_us + timeout_us - timeout_us / 4;
                // What waited at the worker may begin before it hears that it was given up.
                let held = first.began_us <= fault.until_us.saturating_add(RECONNECT_MAX_US)
                    && first.ended_us.is_none_or(|end| {
                        end >= fault.from_us
                            || self.is_unreported(first.process, end, fault.from_us)
                    });
                let reported = first.ended_us.map_or(u64::MAX, |end| {
                    let silent = fault.deed == Deed::Suspended;
                    if silent { end.max(fault.until_us) } else { end }
                });
                let in_time = patient <= second.began_us
                    && self.is_unreported(first.process, reported, second.began_us);
                (held && in_time).then_some(if fault.deed == Deed::Suspended {
                    "its worker was suspended for longer than the worker timeout"
                } else {
                    "no heartbeat of its worker came through for the worker timeout"
                })
            }
            Deed::PipeCut => {
                // It was on its way for so long that the manager had given it up.
                let is_late = self.begun_late_after(fault, first).is_some();
                let at = first.ended_us.unwrap_or(u64::MAX);
                let in_time = self.is_unreported(first.process, at, second.began_us);
                (is_late && in_time).then_some(DELIVERED_LATE)
            }
            Deed::Drained | Deed::ResultsCut | Deed::ApiCut | Deed::Slowed => None,
        }
    }

    /// Why a worker began a run that the manager had given to another one meanwhile.
    fn begun_late_after(&self, fault: &Fault, run: &Run) -> Option<&'static str> {
        let timeout_us = self.timeout_us();
        let given_up = fault.from_us + timeout_us - timeout_us / 4;
        // When it is heard again, the manager takes back what has not begun.
        let told = fault.until_us.saturating_add(RECONNECT_MAX_US);
        if !(given_up..=told).contains(&run.began_us) {
            return None;
        }
        match fault.deed {
            Deed::Suspended => Some("begun by a worker that had been suspended and lost"),
            Deed::PipeCut => Some(DELIVERED_LATE),
            Deed::EventsCut => Some("begun by a worker whose heartbeats were cut"),
            Deed::Killed | Deed::Drained | Deed::ResultsCut | Deed::ApiCut | Deed::Slowed => None,
        }
    }

    /// Whether a result of `process` from `end_us` may still not be durable at `at_us`:
    /// too little time has gone by in which it could be reported.
    fn is_unreported(&self, process: u32, end_us: u64, at_us: u64) -> bool {
        let span = at_us.saturating_sub(end_us);
        let hindered: u64 = self
            .faults
            .iter()
            .filter(|fault| match (fault.whom, fault.deed) {
                (Whom::Manager | Whom::Device, _) => true,
                (Whom::Worker(id), Deed::Suspended | Deed::ResultsCut) => id == process,
                _ => false,
            })
            .map(|fault| {
                // Its sockets outlive a suspended process.
                let after = match fault.deed {
                    Deed::Suspended => 0,
                    _ => RECONNECT_MAX_US,
                };
                fault.covers_us(end_us, at_us, after)
            })
            .sum();
        span <= hindered + REPORT_MAX_US
    }

    fn timeout_us(&self) -> u64 {
        u64::try_from(self.worker_timeout.as_micros()).unwrap_or(u64::MAX / 4)
    }

    fn describe(&self, phase: &str, job: &str, runs: &[Run], repeat: &Run) -> String {
        let told: Vec<String> = runs
            .iter()
            .map(|run| {
                let end = run
                    .ended_us
                    .map_or("never".to_owned(), |end| end.to_string());
                format!("process {} from {} to {end}", run.process, run.began_us)
            })
            .collect();
        // Of the workers that ran it, and of whoever is between them and the manager.
        let mut near: Vec<&Fault> = self.faults.iter().collect();
        near.retain(|fault| {
            let concerns = match fault.whom {
                Whom::Worker(process) => runs.iter().any(|run| run.process == process),
                Whom::Manager | Whom::Device => true,
                Whom::Client => false,
            };
            concerns
                && fault.from_us <= repeat.began_us
                && fault.until_us.saturating_add(10_000_000) >= runs[0].began_us
        });
        let near: Vec<String> = near.into_iter().map(Fault::to_string).collect();
        format!(
            "{phase} of {job}: {}, with faults [{}]",
            told.join(", "),
            near.join(", ")
        )
    }

    /// Every confirmed job ran to its end, or is kept as failed for a known reason.
    fn count_ends(&self, figures: &mut Figures) -> Result<()> {
        let mut lost = Vec::new();
        for job in self.confirmed.keys() {
            if self.ended(1, job).is_some() {
                figures.finished += 1;
            } else if self.is_poisoned(job) {
                figures.failed += 1;
            } else {
                lost.push(job.as_str());
            }
        }
        for (job, at) in &self.told_ended {
            let ended = self.ended(1, job);
            ensure!(
                ended.is_some_and(|end| end <= *at),
                "a client was told at {at} that job {job} had ended, its ledger says {ended:?}"
            );
        }
        figures.lost = lost.len();
        ensure!(
            lost.is_empty(),
            "{} of {} confirmed jobs never ran to their end, {} among them{}",
            lost.len(),
            figures.confirmed,
            lost[0],
            self.journal
                .as_ref()
                .map(|journal| format!(
                    " (in the journal as {:?}, in the history as {:?}, with attempts {:?})",
                    journal.live.get(lost[0]),
                    journal.past.get(lost[0]),
                    journal.attempts.get(lost[0])
                ))
                .unwrap_or_default()
        );
        Ok(())
    }

    /// Whether a job is kept as failed, and as many of its workers were lost as that takes:
    /// each of the losses that its journal names came with a fault of that worker. Whether
    /// the job had begun there is known to nobody: it may have been on its way.
    fn is_poisoned(&self, job: &str) -> bool {
        let Some(journal) = &self.journal else {
            return false;
        };
        let Some(Standing::Failed(Some(FailureKind::Poison), _)) = journal.live.get(job) else {
            return false;
        };
        let attempts = journal.attempts.get(job).map_or(&[][..], Vec::as_slice);
        let timeout_us = self.timeout_us();
        let is_explained = |each: &&AttemptView| {
            let worker = each.worker.map(|worker| worker.to_string());
            let process = worker.and_then(|worker| self.workers.get(&worker));
            self.faults.iter().any(|fault| {
                process.is_some_and(|process| fault.whom == Whom::Worker(*process))
                    && matches!(fault.deed, Deed::Killed | Deed::Suspended | Deed::EventsCut)
                    && fault.from_us <= each.finished_at.0
                    && each.started_at.0
                        <= fault.until_us.saturating_add(timeout_us).saturating_add(
                            self.manager_slept_us(fault.until_us, each.started_at.0),
                        )
            })
        };
        (0..PHASES.len()).any(|phase| {
            let lost = attempts.iter().filter(|each| {
                usize::from(each.phase) == phase && each.failure == Some(FailureKind::WorkerLost)
            });
            lost.filter(is_explained).count() >= POISON_LOSSES
        })
    }

    /// How long the manager was suspended between two times, in which it sees nobody's loss.
    fn manager_slept_us(&self, from_us: u64, until_us: u64) -> u64 {
        let sleeps = self
            .faults
            .iter()
            .filter(|fault| (fault.whom, fault.deed) == (Whom::Manager, Deed::Suspended));
        // Whoever wakes listens for half a worker timeout before it takes anybody for lost.
        let listens_us = self.timeout_us() / 2;
        sleeps
            .map(|fault| fault.covers_us(from_us, until_us, listens_us))
            .sum()
    }

    /// The journal and the history agree with what clients and phases say.
    fn check_journal(&self, journal: &JournalSays) -> Result<()> {
        let successes = journal
            .past
            .values()
            .filter(|past| past.state == JobState::Success)
            .count();
        // The history forgets the oldest beyond these.
        let is_whole = journal.success < self.history_jobs;
        for job in self.confirmed.keys() {
            let past = journal.past.get(job);
            let ended = past.is_some_and(|past| past.state == JobState::Success);
            ensure!(
                ended || !is_whole || self.is_poisoned(job),
                "confirmed job {job} is in the journal as {:?} and in the history as {past:?}",
                journal.live.get(job)
            );
            ensure!(
                !(ended && journal.live.contains_key(job)),
                "job {job} has ended and is live"
            );
        }
        for (job, standing) in &journal.live {
            let known = self.misbehaving.contains(job) || self.is_poisoned(job);
            ensure!(
                known && matches!(standing, Standing::Failed(..)),
                "job {job} is still in the journal: {standing:?}"
            );
        }
        ensure!(
            !is_whole || journal.success == successes as u64,
            "the journal counts {} finished jobs, its history has {successes}",
            journal.success
        );
        // Also where the history does not have them all any more.
        let settled = journal.success + journal.live.len() as u64;
        ensure!(
            settled >= self.confirmed.len() as u64,
            "the journal counts {} finished jobs and holds {}, {} were confirmed",
            journal.success,
            journal.live.len(),
            self.confirmed.len()
        );
        ensure!(
            journal.enqueued >= self.confirmed.len() as u64,
            "the journal counts {} jobs, {} were confirmed",
            journal.enqueued,
            self.confirmed.len()
        );
        for (job, past) in &journal.past {
            for attempt in &past.attempts {
                let process = attempt
                    .worker
                    .and_then(|worker| self.workers.get(&worker.to_string()));
                let (Some(process), None) = (process, attempt.failure) else {
                    continue;
                };
                let (from, until) = (attempt.started_at.0, attempt.finished_at.0);
                let ran = self
                    .runs(usize::from(attempt.phase), job)
                    .iter()
                    .any(|run| {
                        run.process == *process
                            && run.began_us + CLOCKS_US >= from
                            && run.ended_us.is_some_and(|end| end <= until + CLOCKS_US)
                    });
                ensure!(
                    ran,
                    "the history says that worker process {process} did phase {} of {job} \
                     from {from} to {until}, no ledger says so",
                    attempt.phase
                );
            }
        }
        Ok(())
    }

    /// The manager's own counts, which outlive it: everything that ran twice is among the
    /// reruns, and what it calls a duplicate ran twice.
    fn check_counts(&self, figures: &Figures, reruns: u64, duplicates: u64) -> Result<()> {
        let repeats = figures.repeated() as u64;
        let asked_for = figures.repeats.get(MISBEHAVING).copied().unwrap_or(0) as u64;
        ensure!(
            repeats - asked_for <= reruns,
            "{} phases ran again, the manager counts {reruns} that may have",
            repeats - asked_for
        );
        ensure!(
            duplicates <= repeats,
            "the manager counts {duplicates} duplicates, {repeats} phases ran again"
        );
        if let Some(journal) = &self.journal {
            ensure!(
                (journal.reruns, journal.duplicates) == (reruns, duplicates),
                "the manager counts {reruns} reruns and {duplicates} duplicates, its journal {} \
                 and {}",
                journal.reruns,
                journal.duplicates
            );
        }
        Ok(())
    }

    /// From each fault to the first new progress of the jobs that it hit.
    fn measure_recovery(&self, figures: &mut Figures) -> Result<()> {
        let mut by_process: BTreeMap<u32, Vec<Held<'_>>> = BTreeMap::new();
        for ((phase, job), runs) in &self.runs {
            for run in runs {
                let held = Held {
                    is_first: phase == PHASES[0],
                    job,
                    run,
                };
                by_process.entry(run.process).or_default().push(held);
            }
        }
        let by_manager = self.progress_by_manager();
        for fault in &self.faults {
            let recovered = match fault.whom {
                Whom::Worker(process) => by_process
                    .get(&process)
                    .and_then(|held| self.progress_of_held(fault, held)),
                Whom::Manager => by_manager.after(fault),
                Whom::Client | Whom::Device => None,
            };
            if let Some(at) = recovered {
                let took = Duration::from_micros(at.saturating_sub(fault.from_us));
                figures.recovery = figures.recovery.max(Some(took));
            }
        }
        let (mut latest, target) = (None, self.worker_timeout.mul_f64(1.5));
        for (took, job) in self.relocations() {
            latest = latest.max(Some(took));
            ensure!(
                took <= target,
                "a killed worker's job {job} ran elsewhere after {took:?}, {target:?} is the most"
            );
        }
        figures.relocation = latest;
        Ok(())
    }

    /// The first new progress of any job that a worker had when it was hit.
    fn progress_of_held(&self, fault: &Fault, all: &[Held<'_>]) -> Option<u64> {
        let held = all.iter().filter(|held| {
            held.run.began_us <= fault.from_us
                && held.run.ended_us.is_none_or(|end| end > fault.from_us)
        });
        let progress = held.filter_map(|held| {
            let (phase, next) = match held.is_first {
                true => (0, self.runs(1, held.job).first().map(|run| run.began_us)),
                false => (1, self.in_history_at(held.job)),
            };
            let again = self.runs(phase, held.job).iter().map(|run| run.began_us);
            again.chain(next).filter(|at| *at > fault.from_us).min()
        });
        progress.min()
    }

    fn in_history_at(&self, job: &str) -> Option<u64> {
        let journal = self.journal.as_ref()?;
        journal.past.get(job).map(|past| past.ended_us)
    }

    /// What needs a manager: confirmations, and second phases with the end of the first.
    fn progress_by_manager(&self) -> ByManager {
        let mut confirmations: Vec<u64> = self.confirmed.values().copied().collect();
        confirmations.sort_unstable();
        let mut seconds: Vec<(u64, u64)> = self
            .runs
            .iter()
            .filter(|((phase, _), _)| phase == PHASES[1])
            .filter_map(|((_, job), runs)| Some((self.ended(0, job)?, runs.first()?.began_us)))
            .collect();
        seconds.sort_unstable();
        // For each first phase's end: the earliest of the second phases from there on.
        let mut earliest = u64::MAX;
        for (_, began) in seconds.iter_mut().rev() {
            earliest = earliest.min(*began);
            *began = earliest;
        }
        ByManager {
            confirmations,
            seconds,
        }
    }

    /// How long each job that a kill cut off waited until it ran elsewhere, where no other
    /// fault came between.
    fn relocations(&self) -> Vec<(Duration, &str)> {
        let mut waits = Vec::new();
        for ((_, job), runs) in &self.runs {
            if self.misbehaving.contains(job) {
                continue;
            }
            for (first, next) in runs.iter().zip(&runs[1..]) {
                let killed = self.faults.iter().find(|fault| {
                    (fault.whom, fault.deed) == (Whom::Worker(first.process), Deed::Killed)
                        && first.ended_us.is_none()
                        && first.began_us <= fault.until_us
                        && fault.from_us <= next.began_us
                });
                let Some(killed) = killed else { continue };
                // From then on another worker may have got it, or the manager cannot give it.
                let due = killed.from_us + self.timeout_us() - self.timeout_us() / 4;
                let disturbed = self.faults.iter().any(|other| {
                    let (from, after) = match other.whom {
                        Whom::Client => return false,
                        Whom::Worker(_) => (due, 0),
                        Whom::Manager | Whom::Device => (killed.from_us, RECONNECT_MAX_US),
                    };
                    other != killed && other.covers_us(from, next.began_us, after) > 0
                });
                if !disturbed {
                    let took = next.began_us.saturating_sub(killed.from_us);
                    waits.push((Duration::from_micros(took), job.as_str()));
                }
            }
        }
        waits
    }
}

#[cfg(test)]
mod tests;
