//! Deliberate faults: each one a bug that the simulator must find.
//!
//! A place in the code that can be made wrong asks [`is`] for its [`Mutation`]. Without
//! the feature `enabled` the answer is a constant `false`, and the compiler removes the
//! fault with its question. With it, the answer is a switch of the thread, so that worlds
//! on other threads are not touched.

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

/// A bug that can be switched on.
///
/// What each one breaks stands beside it; which invariant finds it is the simulator's to
/// say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// The manager acknowledges a result before its record is durable.
    AcknowledgeBeforeDurable,
    /// The gate lets answers to clients go before their record is durable.
    ConfirmBeforeDurable,
    /// The manager dispatches a phase before the result of the one before is durable.
    DispatchBeforeDurable,
    /// A restarted manager does not adopt what a worker says that it holds.
    ForgetAdopted,
    /// The manager accepts a job whose id it knows already.
    AcceptKnownId,
    /// The last record of a page that has several is not written.
    LoseLastRecord,
    /// The journal gives up one page that is still needed.
    TruncateTooEarly,
    /// The journal never gives up a page.
    NeverTruncate,
    /// The manager sends a worker more than it has room for.
    IgnoreCredit,
    /// Recovery skips what changed about a job since it was accepted.
    ForgetChangesAtRecovery,
    /// A restarted manager goes on in the epoch of the one before.
    ReuseEpoch,
    /// Compaction gives a record up instead of writing it again.
    CompactionDropsRecord,
    /// A client that waits for a job is not told of its end.
    LoseWait,
    /// The job of a lost worker stays with it.
    KeepLostWorkersJobs,
    /// An execution is repeated, and its cause is not recorded.
    UncountedRepeat,
    /// A later result of a phase that is done counts once more.
    TakeResultTwice,
    /// The next phase gets the instructions from before the result.
    StaleInstructions,
    /// The history forgets nothing.
    HistoryUnbounded,
    /// A commit that failed and is not in the store counts as stored.
    AssumeCommitApplied,
    /// Pages are read without looking at their checksum.
    SkipChecksum,
    /// The worker forgets a result once it is sent.
    DropUnacknowledgedResult,
    /// The worker runs what it has handed back.
    RunHandedBack,
    /// The worker's heartbeats list nothing that it holds.
    EmptyHeartbeat,
    /// The worker does not send a result again.
    NeverResendResult,
    /// The client gives its jobs new ids when it sends them again.
    NewIdAtResend,
    /// A message that waits behind others on its pipe counts as sent.
    ForgetPipeOrder,
    /// That a retry is due is not journaled before it is handed out.
    ForgetDue,
    /// What a worker may hold is counted without the results that are not durable.
    ForgetUndecided,
    /// The worker takes what comes on a pipe that was given up.
    TakeOvertaken,
    /// A manager that was suspended takes its own silence for its workers'.
    ForgetSleep,
    /// A restarted manager does not know since when a job is there, and takes a result of a
    /// former one of its id.
    ForgetSince,
    /// The manager takes in every worker that announces itself, and dials it.
    AdmitEverybody,
    /// A worker follows the highest epoch that it ever heard of a manager, however far it
    /// is, and tells nobody of a lower one.
    KeepHighestEpoch,
    /// A manager does not greet a worker again that follows another life of it.
    GreetOnce,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 34] = [
        Mutation::AcknowledgeBeforeDurable,
        Mutation::ConfirmBeforeDurable,
        Mutation::DispatchBeforeDurable,
        Mutation::ForgetAdopted,
        Mutation::AcceptKnownId,
        Mutation::LoseLastRecord,
        Mutation::TruncateTooEarly,
        Mutation::NeverTruncate,
        Mutation::IgnoreCredit,
        Mutation::ForgetChangesAtRecovery,
        Mutation::ReuseEpoch,
        Mutation::CompactionDropsRecord,
        Mutation::LoseWait,
        Mutation::KeepLostWorkersJobs,
        Mutation::UncountedRepeat,
        Mutation::TakeResultTwice,
        Mutation::StaleInstructions,
        Mutation::HistoryUnbounded,
        Mutation::AssumeCommitApplied,
        Mutation::SkipChecksum,
        Mutation::DropUnacknowledgedResult,
        Mutation::RunHandedBack,
        Mutation::EmptyHeartbeat,
        Mutation::NeverResendResult,
        Mutation::NewIdAtResend,
        Mutation::ForgetPipeOrder,
        Mutation::ForgetDue,
        Mutation::ForgetUndecided,
        Mutation::TakeOvertaken,
        Mutation::ForgetSleep,
        Mutation::ForgetSince,
        Mutation::AdmitEverybody,
        Mutation::KeepHighestEpoch,
        Mutation::GreetOnce,
    ];

    /// The name in tables and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mutation::AcknowledgeBeforeDurable => "acknowledge-before-durable",
            Mutation::ConfirmBeforeDurable => "confirm-before-durable",
            Mutation::DispatchBeforeDurable => "dispatch-before-durable",
            Mutation::ForgetAdopted => "forget-adopted",
            Mutation::AcceptKnownId => "accept-known-id",
            Mutation::LoseLastRecord => "lose-last-record",
            Mutation::TruncateTooEarly => "truncate-too-early",
            Mutation::NeverTruncate => "never-truncate",
            Mutation::IgnoreCredit => "ignore-credit",
            Mutation::ForgetChangesAtRecovery => "forget-changes-at-recovery",
            Mutation::ReuseEpoch => "reuse-epoch",
            Mutation::CompactionDropsRecord => "compaction-drops-record",
            Mutation::LoseWait => "lose-wait",
            Mutation::KeepLostWorkersJobs => "keep-lost-workers-jobs",
            Mutation::UncountedRepeat => "uncounted-repeat",
            Mutation::TakeResultTwice => "take-result-twice",
            Mutation::StaleInstructions => "stale-instructions",
            Mutation::HistoryUnbounded => "history-unbounded",
            Mutation::AssumeCommitApplied => "assume-commit-applied",
            Mutation::SkipChecksum => "skip-checksum",
            Mutation::DropUnacknowledgedResult => "drop-unacknowledged-result",
            Mutation::RunHandedBack => "run-handed-back",
            Mutation::EmptyHeartbeat => "empty-heartbeat",
            Mutation::NeverResendResult => "never-resend-result",
            Mutation::NewIdAtResend => "new-id-at-resend",
            Mutation::ForgetPipeOrder => "forget-pipe-order",
            Mutation::ForgetDue => "forget-due",
            Mutation::ForgetUndecided => "forget-undecided",
            Mutation::TakeOvertaken => "take-overtaken",
            Mutation::ForgetSleep => "forget-sleep",
            Mutation::ForgetSince => "forget-since",
            Mutation::AdmitEverybody => "admit-everybody",
            Mutation::KeepHighestEpoch => "keep-highest-epoch",
            Mutation::GreetOnce => "greet-once",
        }
    }

    /// The mutation of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mutation> {
        Mutation::ALL
            .into_iter()
            .find(|mutation| mutation.name() == name)
    }
}

#[cfg(feature = "enabled")]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
        static TAKEN: Cell<u64> = const { Cell::new(0) };
    }

    /// Whether this thread's switch is on that mutation.
    #[must_use]
    pub fn is(mutation: Mutation) -> bool {
        let on = ON.get() == Some(mutation);
        if on {
            TAKEN.set(TAKEN.get() + 1);
        }
        on
    }

    /// Switches this thread to one mutation or to none, and counts from 0 again.
    pub fn switch(mutation: Option<Mutation>) {
        ON.set(mutation);
        TAKEN.set(0);
    }

    /// How often this thread came by the mutation that is switched on.
    #[must_use]
    pub fn taken() -> u64 {
        TAKEN.get()
    }
}

#[cfg(feature = "enabled")]
pub use switch::{is, switch, taken};

/// Whether this thread's switch is on that mutation: never, in this build.
#[cfg(not(feature = "enabled"))]
#[inline(always)]
#[must_use]
pub const fn is(_mutation: Mutation) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_is_found_by_its_name() {
        for mutation in Mutation::ALL {
            assert_eq!(Mutation::from_name(mutation.name()), Some(mutation));
        }
        assert_eq!(Mutation::from_name("nothing"), None);
    }

    #[cfg(not(feature = "enabled"))]
    #[test]
    fn without_the_feature_nothing_is_ever_on() {
        const ON: bool = is(Mutation::SkipChecksum);
        assert!(!ON);
    }

    #[cfg(feature = "enabled")]
    #[test]
    fn switch_is_of_its_thread_alone() {
        switch(Some(Mutation::SkipChecksum));
        assert!(is(Mutation::SkipChecksum));
        assert!(!is(Mutation::LoseWait));
        assert_eq!(taken(), 1);
        let other = std::thread::spawn(|| is(Mutation::SkipChecksum));
        assert_eq!(other.join().ok(), Some(false));
        switch(None);
        assert!(!is(Mutation::SkipChecksum));
    }
}
