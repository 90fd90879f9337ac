//! What must hold after every step, each by a name.
//!
//! Each invariant is a function of its own; [`EACH_STEP`], [`NOW_AND_THEN`] and [`AT_THE_END`]
//! say when it runs. They look at the world from outside: what clients were told and phases
//! did ([`oracle`](crate::oracle)), what the gate let out, what the disk was given, and
//! what the core says it holds. What must be compared with the step before is kept by a
//! [`Watch`].

pub mod clients;
pub mod durability;
pub mod end;
pub mod journal;
pub mod order;
pub mod repeats;
pub mod watch;
pub mod workers;

use std::fmt;

use crate::parameters::Parameters;
use crate::view::View;
pub use watch::Watch;

/// Something that must hold does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: &'static str,
    /// What was found, for a person.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// An invariant: what it found, if it does not hold.
pub type Check = fn(&mut Watch, &View<'_>) -> Result<(), String>;

/// Those that run after every step; they cost little when nothing happened.
pub const EACH_STEP: &[(&str, Check)] = &[
    (
        "the_disk_serves_what_was_stored",
        durability::the_disk_serves_what_was_stored,
    ),
    (
        "confirmed_jobs_are_kept",
        durability::confirmed_jobs_are_kept,
    ),
    (
        "answers_wait_for_the_disk",
        durability::answers_wait_for_the_disk,
    ),
    (
        "acknowledgements_wait_for_the_disk",
        durability::acknowledgements_wait_for_the_disk,
    ),
    (
        "dispatches_wait_for_the_disk",
        durability::dispatches_wait_for_the_disk,
    ),
    (
        "what_was_acknowledged_survives",
        durability::what_was_acknowledged_survives,
    ),
    (
        "job_states_change_legally",
        order::job_states_change_legally,
    ),
    ("no_phase_is_skipped", order::no_phase_is_skipped),
    ("phases_follow_each_other", order::phases_follow_each_other),
    (
        "instructions_are_the_merge",
        order::instructions_are_the_merge,
    ),
    ("attempts_run_once", workers::attempts_run_once),
    (
        "workers_are_within_credit",
        workers::workers_are_within_credit,
    ),
    ("newcomers_are_bounded", workers::newcomers_are_bounded),
    (
        "repeated_executions_have_a_cause",
        repeats::repeated_executions_have_a_cause,
    ),
    (
        "nothing_repeats_without_a_disturbance",
        repeats::nothing_repeats_without_a_disturbance,
    ),
    (
        "answers_are_never_contradicted",
        clients::answers_are_never_contradicted,
    ),
    (
        "results_are_those_of_phases",
        clients::results_are_those_of_phases,
    ),
    ("history_is_bounded", journal::history_is_bounded),
];

/// Those that read the whole journal: after a start, after every [`COMMITS_BETWEEN`]th
/// commit that left nothing undone, and at the end.
pub const NOW_AND_THEN: &[(&str, Check)] = &[
    (
        "replay_gives_the_live_state",
        journal::replay_gives_the_live_state,
    ),
    ("pages_follow_live_jobs", journal::pages_follow_live_jobs),
];

/// Those that hold once faults have stopped and time has passed.
pub const AT_THE_END: &[(&str, Check)] = &[
    ("jobs_end", end::jobs_end),
    ("queues_are_empty", end::queues_are_empty),
    ("workers_are_idle", end::workers_are_idle),
];

/// How many commits pass between two readings of the whole journal.
pub const COMMITS_BETWEEN: u64 = 16;

/// All invariants, with what they remember from step to step.
#[derive(Debug)]
pub struct Invariants {
    watch: Watch,
}

impl Invariants {
    /// For a new world.
    pub fn new(parameters: &Parameters) -> Invariants {
        Invariants {
            watch: Watch::new(parameters),
        }
    }

    /// Runs those that are due on the world as it is after a step.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&mut self, view: &View<'_>) -> Result<(), Violation> {
        self.watch.look(view);
        self.run(EACH_STEP, view)?;
        if self.watch.reads_journal(view) {
            self.run(NOW_AND_THEN, view)?;
        }
        Ok(())
    }

    /// Runs those that hold once everything has settled.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check_end(&mut self, view: &View<'_>) -> Result<(), Violation> {
        self.watch.look(view);
        self.run(EACH_STEP, view)?;
        self.run(NOW_AND_THEN, view)?;
        self.run(AT_THE_END, view)
    }

    fn run(&mut self, checks: &[(&'static str, Check)], view: &View<'_>) -> Result<(), Violation> {
        for (invariant, check) in checks {
            check(&mut self.watch, view).map_err(|detail| Violation { invariant, detail })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_invariants_are_their_own() {
        let all = [EACH_STEP, NOW_AND_THEN, AT_THE_END].concat();
        let names: BTreeSet<&str> = all.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), all.len());
    }
}
