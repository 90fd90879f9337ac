//! Many worlds side by side, one on each core, and what came of them together.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use carbontube_mutation::{self as mutation, Mutation};

use crate::context::Counts;
use crate::invariants::Violation;
use crate::parameters::Parameters;
use crate::world::{self, Outcome};

/// Seeds that once failed.
const REGRESSIONS: &str = include_str!("../../regressions/seeds.txt");
/// Seeds that find deliberate faults which few find.
const FINDERS: &str = include_str!("../../regressions/mutations.txt");

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Which seeds to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Run before all others.
    pub first: Vec<u64>,
    /// Then from here on.
    pub from: u64,
    /// So many.
    pub seeds: u64,
    /// Or as long as this takes.
    pub until: Option<Instant>,
    /// How many worlds run at a time.
    pub threads: usize,
    /// The deliberate fault that is on.
    pub mutation: Option<Mutation>,
    /// Go on after a failure.
    pub keep_going: bool,
}

/// What came of a plan.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many worlds were run.
    pub worlds: u64,
    /// The steps of all.
    pub steps: u64,
    /// The virtual time of all.
    pub lasted: Duration,
    /// What happened in all.
    pub counts: Counts,
    /// The worlds in which something did not hold, by seed.
    pub failures: Vec<(u64, Violation)>,
    /// How long it took.
    pub took: Duration,
    /// The world that took longest, and how long.
    pub slowest: (Duration, u64),
}

/// Seeds by which a deliberate fault was found before, to be tried first.
pub fn finders(mutation: Mutation) -> Vec<u64> {
    let lines = FINDERS.lines().filter(|line| !line.starts_with('#'));
    let words = lines.filter_map(|line| line.split_once(' '));
    let of_this = words.filter(|(name, _)| *name == mutation.name());
    of_this
        .filter_map(|(_, seed)| seed.trim().parse().ok())
        .collect()
}

/// The seeds that once failed, in order.
pub fn regressions() -> Vec<u64> {
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    let seeds = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok());
    seeds.collect()
}

/// Runs one seed; a panic in it is a violation like any other.
pub fn run_seed(seed: u64, print: bool, mutation: Option<Mutation>) -> Outcome {
    let run = || {
        mutation::switch(mutation);
        world::run(Parameters::draw(seed), print)
    };
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    mutation::switch(None);
    result.unwrap_or_else(|_| {
        let told = PANIC.with_borrow_mut(Option::take);
        Outcome {
            seed,
            violation: Some(Violation {
                invariant: "nothing_panics",
                detail: told.unwrap_or_default(),
            }),
            hash: 0,
            steps: 0,
            lasted: Duration::ZERO,
            counts: Counts::default(),
        }
    })
}

/// Keeps what panics say for [`run_seed`] instead of printing it.
pub fn keep_panics() {
    panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        PANIC.with_borrow_mut(|kept| *kept = Some(text));
    }));
}

/// Runs a plan; `progress` is told after each world how many there were.
pub fn run(plan: &Plan, progress: &(dyn Fn(u64) + Sync)) -> Summary {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let first = plan.first.len() as u64;
    std::thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let seed = match plan.first.get(usize::try_from(index).unwrap_or(usize::MAX)) {
                        Some(seed) => *seed,
                        None => plan.from + (index - first),
                    };
                    let over = match plan.until {
                        Some(until) => Instant::now() >= until,
                        None => index >= first + plan.seeds,
                    };
                    if over {
                        return;
                    }
                    let begun = Instant::now();
                    let outcome = run_seed(seed, false, plan.mutation);
                    let took = begun.elapsed();
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.worlds += 1;
                    summary.steps += outcome.steps;
                    summary.lasted += outcome.lasted;
                    summary.counts.add_all(&outcome.counts);
                    summary.slowest = summary.slowest.max((took, seed));
                    if let Some(violation) = outcome.violation {
                        summary.failures.push((seed, violation));
                        if !plan.keep_going {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    progress(summary.worlds);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failures.sort_by_key(|(seed, _)| *seed);
    summary.took = started.elapsed();
    summary
}

#[cfg(test)]
mod tests;
