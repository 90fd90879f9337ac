//! Why an execution happened, or may have happened, more than once; and how often.

use std::collections::BTreeMap;

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::AttemptResult;
use carbontube_protocol::{AttemptId, WorkerId};
use serde::{Deserialize, Serialize};

use super::RecordSeq;
use super::job::JobNo;
use super::machine::Core;
use super::record::{Record, RepeatsRecord};
use super::results::Repeated;

/// Why an attempt was given up. Stands in the journal: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Cause {
    /// Its worker was silent for the worker timeout.
    WorkerLost,
    /// Another worker lives at its worker's address.
    WorkerReplaced,
    /// Its worker said goodbye and had not handed it back.
    WorkerLeft,
    /// Its worker announced another phase.
    WorkerChanged,
    /// What was sent on its pipe did not arrive for the worker timeout.
    PipeBroken,
    /// Its worker received later messages and does not hold it.
    LostOnTheWay,
    /// No worker behind the shared address reported it for the worker timeout.
    Unreported,
    /// Its worker handed it back after it had begun.
    Abandoned,
    /// Its result named another job or phase.
    Undecided,
    /// Its worker did not say what it holds after a restart of the manager.
    Restart,
    /// Its worker reported it as begun, and does not hold it any more.
    Vanished,
}

impl Cause {
    /// As people read it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Cause::WorkerLost => "worker thought lost",
            Cause::WorkerReplaced => "worker replaced at its address",
            Cause::WorkerLeft => "worker left",
            Cause::WorkerChanged => "worker changed its phase",
            Cause::PipeBroken => "the pipe was silent",
            Cause::LostOnTheWay => "lost on the way",
            Cause::Unreported => "no worker behind the shared address reported it",
            Cause::Abandoned => "handed back after it had begun",
            Cause::Undecided => "its result was of another phase",
            Cause::Restart => "worker did not report after a restart",
            Cause::Vanished => "begun, and not held any more",
        }
    }

    /// Whether an attempt that was given up for this may have begun.
    pub(super) fn may_have_begun(self) -> bool {
        self != Cause::LostOnTheWay
    }
}

/// A job goes to its next attempt although this one may have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// None after a restart.
    pub(super) attempt: Option<AttemptId>,
    pub(super) cause: Cause,
    pub(super) may_have_begun: bool,
}

/// Executions that happened, or may have, more than once since the journal began.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    pub(super) reruns: BTreeMap<Cause, u64>,
    pub(super) duplicates: BTreeMap<Cause, u64>,
    /// Reruns since this start that were counted without knowing their attempts.
    pub(super) unmatched: u64,
}

impl Repeats {
    pub(super) fn of(record: RepeatsRecord) -> Repeats {
        Repeats {
            reruns: record.reruns.into_iter().collect(),
            duplicates: record.duplicates.into_iter().collect(),
            unmatched: 0,
        }
    }

    pub(super) fn record(&self) -> RepeatsRecord {
        RepeatsRecord {
            reruns: self.reruns.iter().map(|(c, n)| (*c, *n)).collect(),
            duplicates: self.duplicates.iter().map(|(c, n)| (*c, *n)).collect(),
        }
    }
}

impl Core {
    /// Counts executions that may happen a second time. What causes them waits for the
    /// record, so that no crash hides them.
    pub(super) fn count_rerun(&mut self, cause: Cause, jobs: u64, no: Option<JobNo>) -> RecordSeq {
        *self.repeats.reruns.entry(cause).or_default() += jobs;
        let id = no
            .and_then(|no| self.jobs.job(no))
            .map(|job| job.id.clone());
        self.journal.append(&Record::Rerun { cause, jobs, id }, &[]);
        self.journal.last
    }

    fn count_duplicate(&mut self, cause: Cause) {
        *self.repeats.duplicates.entry(cause).or_default() += 1;
        self.journal
            .append(&Record::Duplicate { cause }, &Bytes::new());
    }

    /// The job is handed out again: tells what the dispatch must wait for.
    pub(super) fn settle_doubt(&mut self, no: JobNo) -> Option<RecordSeq> {
        let rare = self.jobs.job_mut(no)?.rare.as_mut()?;
        let doubt = rare.doubt.take()?;
        if let Some(attempt) = doubt.attempt {
            let repeated = match doubt.may_have_begun {
                true => Repeated::Counted,
                false => Repeated::Uncounted,
            };
            self.settled.repeat(attempt, repeated);
        }
        (doubt.may_have_begun && !mutation::is(Mutation::UncountedRepeat))
            .then(|| self.count_rerun(doubt.cause, 1, Some(no)))
    }

    /// A result came for an attempt whose job was decided without it.
    pub(super) fn late_result(&mut self, result: &AttemptResult) {
        use carbontube_protocol::message::{FailureKind, Outcome};
        let cancelled = matches!(
            result.outcome,
            Outcome::Failure {
                kind: FailureKind::Cancelled,
                ..
            }
        );
        match self.settled.given_up(result.attempt, &result.job) {
            Some((cause, repeated)) if !cancelled && repeated != Repeated::No => {
                if repeated == Repeated::Uncounted {
                    self.count_rerun(cause, 1, None);
                }
                self.count_duplicate(cause);
            }
            _ => self.count("results_repeated", 1),
        }
    }

    /// The result of one attempt decides while its job is counted with another one.
    pub(super) fn overtake(
        &mut self,
        no: JobNo,
        decided: &AttemptResult,
        other: (AttemptId, WorkerId),
    ) {
        let (other, holder) = other;
        let cause = match self.settled.given_up(decided.attempt, &decided.job) {
            Some((cause, Repeated::Counted)) => cause,
            Some((cause, _)) => {
                self.count_rerun(cause, 1, None);
                cause
            }
            // From before a restart.
            None if self.repeats.unmatched > 0 => {
                self.repeats.unmatched -= 1;
                Cause::Restart
            }
            None => {
                self.count_rerun(Cause::Restart, 1, None);
                Cause::Restart
            }
        };
        self.settled.give_up(other, cause, Some(no), &decided.job);
        self.settled.repeat(other, Repeated::Counted);
        self.send_cancel(holder, other);
    }
}
