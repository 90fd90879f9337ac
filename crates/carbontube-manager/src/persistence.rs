//! A commit that is never given up: the store is asked again until it has it.
//!
//! A state machine without thread or clock, so that the store's thread and the simulator
//! run the same one: each step says how long to wait before the next.

#![allow(
    unreachable_pub,
    reason = "the simulator reaches it through the feature testing"
)]

use std::time::Duration;

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_storage::{Commit, InDoubt, Log, PageSeq, Store, StoreError};

use crate::core::StoreFault;
use crate::error::RunError;

/// The pauses between tries to reopen a store: the first and the longest.
const REOPEN_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// One commit on its way into the store.
///
/// ```text
///   commit ── stored ─────────────────────────────▶ Durable
///     ▲  └─── failed ─▶ wait ─▶ reopen ── it is in it ──▲
///     │                  ▲        │└──── failed again ─┐
///     └── it is not in it ────────┘                    │
///                        └─────────────────────────────┘
/// ```
///
/// Invariant: it ends in `Durable` only when the store said that the commit is in it, and
/// the commit that is tried again is the same one, byte for byte.
#[derive(Debug)]
pub struct Persistence {
    told: Option<StoreFault>,
    pause: Duration,
    failed: bool,
}

/// How a commit stands after a step.
#[derive(Debug)]
pub enum Step {
    /// It is durable.
    Durable,
    /// Take the next step after this pause.
    Wait(Duration),
    /// The manager cannot go on.
    End(RunError),
}

/// A failure that has not been told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is wrong.
    pub fault: StoreFault,
    /// A way out for an operator.
    pub hint: Option<&'static str>,
}

impl Default for Persistence {
    fn default() -> Self {
        Persistence {
            told: None,
            pause: REOPEN_PAUSE.0,
            failed: false,
        }
    }
}

impl Persistence {
    /// Tries to get the commit into the store; `tell` hears of each new kind of failure.
    pub fn step(
        &mut self,
        store: &mut dyn Store,
        commit: &Commit,
        tell: &mut dyn FnMut(Told),
    ) -> Step {
        if self.failed {
            match store.reopen() {
                Ok(Some(InDoubt::Applied)) => return Step::Durable,
                Ok(_) if mutation::is(Mutation::AssumeCommitApplied) => return Step::Durable,
                Ok(_) => {}
                Err(StoreError::Fenced { reason, .. }) => {
                    return Step::End(RunError::Fenced { reason });
                }
                Err(error) => {
                    self.tell(&error, tell);
                    return Step::Wait(self.next_pause());
                }
            }
        }
        match store.commit(commit) {
            Ok(()) => Step::Durable,
            Err(StoreError::Fenced { reason, .. }) => Step::End(RunError::Fenced { reason }),
            Err(error) => {
                self.tell(&error, tell);
                if !error.needs_reopen() {
                    // The store refuses the commit as such, and would for ever.
                    return Step::End(RunError::Refused {
                        reason: with_causes(&error),
                    });
                }
                self.failed = true;
                // Reopening may well succeed while the next commit fails again, as on a
                // full disk: the pause grows over both, since reopening verifies the
                // whole journal.
                Step::Wait(self.next_pause())
            }
        }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(REOPEN_PAUSE.1);
        pause
    }

    fn tell(&mut self, error: &StoreError, tell: &mut dyn FnMut(Told)) {
        // A store that waits to be reopened only repeats what came first.
        if self.told.is_some() && matches!(error, StoreError::Poisoned { .. }) {
            return;
        }
        let fault = fault(error);
        if self.told.as_ref() != Some(&fault) {
            self.told = Some(fault.clone());
            tell(Told {
                fault,
                hint: error.hint(),
            });
        }
    }
}

/// Reads a page, after reopening the store when that is needed. It is not for a bad page:
/// reopening verifies all of them, and would stop the store for the sake of one.
///
/// # Errors
///
/// What is wrong with the store, as the core is told it.
pub fn read(store: &mut dyn Store, log: Log, page: PageSeq) -> Result<Option<Bytes>, StoreFault> {
    let mut read = store.read(log, page);
    let helps =
        |error: &StoreError| error.needs_reopen() && !matches!(error, StoreError::Damaged { .. });
    if read.as_ref().is_err_and(helps) && store.reopen().is_ok() {
        read = store.read(log, page);
    }
    read.map(|bytes| bytes.map(Bytes::from))
        .map_err(|error| fault(&error))
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn fault(error: &StoreError) -> StoreFault {
    let text = with_causes(error);
    match error {
        StoreError::Full { .. } => StoreFault::Full(text),
        error if error.is_temporary() => StoreFault::Unavailable(text),
        _ => StoreFault::Broken(text),
    }
}

#[cfg(test)]
mod tests {
    use carbontube_storage::{Faults, Memory, NextCommit};

    use super::*;

    /// Steps until the end; gives the pauses in milliseconds and what was told.
    fn run(
        faults: &Faults,
        mut before_each: impl FnMut(usize),
    ) -> (Vec<u128>, Vec<StoreFault>, u64) {
        let mut store = Memory::store_on(faults).unwrap();
        let mut commit = Commit::new();
        commit.put(Log::Journal, PageSeq(1), b"a page".to_vec());
        let (mut pauses, mut told) = (Vec::new(), Vec::new());
        let mut persistence = Persistence::default();
        for step in 0.. {
            before_each(step);
            match persistence.step(&mut store, &commit, &mut |each| told.push(each.fault)) {
                Step::Durable => break,
                Step::Wait(pause) => pauses.push(pause.as_millis()),
                Step::End(error) => panic!("{error}"),
            }
        }
        (pauses, told, store.bounds(Log::Journal).pages())
    }

    #[test]
    fn commit_on_a_sound_store_takes_one_step() {
        let (pauses, told, pages) = run(&Faults::new(), |_| {});
        assert_eq!((pauses, told, pages), (Vec::new(), Vec::new(), 1));
    }

    #[test]
    fn commit_on_a_full_disk_waits_longer_each_time_and_tells_once() {
        let faults = Faults::new();
        let (pauses, told, pages) = run(&faults, |step| faults.disk_full(step < 7));
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert!(matches!(told[..], [StoreFault::Full(_)]), "{told:?}");
        assert_eq!(pages, 1);
    }

    #[test]
    fn commit_that_was_stored_unconfirmed_is_found_and_not_stored_again() {
        let faults = Faults::new();
        let (pauses, told, pages) = run(&faults, |step| {
            if step == 0 {
                faults.next_commit(NextCommit::IsStoredUnconfirmed);
            }
        });
        assert_eq!((pauses, told.len(), pages), (vec![50], 1, 1));
        assert_eq!(faults.commits(), 1, "the one that made the store");
    }

    #[test]
    fn commit_while_the_store_is_away_tells_the_fault_that_came_first_and_the_new_one() {
        let faults = Faults::new();
        let (pauses, told, pages) = run(&faults, |step| {
            if step == 0 {
                faults.next_commit(NextCommit::Fails);
            }
            faults.unavailable((1..4).contains(&step));
        });
        assert_eq!(pauses.len(), 4);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(pages, 1);
    }

    #[test]
    fn commit_that_leaves_a_gap_ends_it() {
        let mut store = Memory::store_on(&Faults::new()).unwrap();
        let mut commit = Commit::new();
        commit.put(Log::Journal, PageSeq(7), b"a page".to_vec());
        let step = Persistence::default().step(&mut store, &commit, &mut |_| {});
        assert!(matches!(step, Step::End(RunError::Refused { .. })));
    }
}
