//! The codes that the process exits with; `docs/cli.md` lists them for users.

use std::process::ExitCode;

/// Why the process exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is done.
    Success,
    /// Something went wrong that has no code of its own.
    Failure,
    /// The command line is not right.
    Usage,
    /// The pipeline file is not right, or has no such pipeline or phase.
    Definition,
    /// The jobs were handed over, but nobody confirmed them.
    Unconfirmed,
    /// The manager said no.
    Refused,
    /// A job that was waited for failed or was cancelled.
    JobFailed,
    /// Nobody answered in time.
    Timeout,
    /// The journal is damaged, in use, or cannot be opened.
    Journal,
    /// All threads of the executor hung, so it ended itself.
    Hung,
    /// A second signal ended it before it was done.
    Interrupted,
}

impl Exit {
    /// Every code with what it means, as `--help` and the documentation must have them.
    #[cfg(test)]
    pub(crate) const ALL: [(Exit, &'static str); 11] = [
        (Exit::Success, "done"),
        (Exit::Failure, "failed in another way"),
        (Exit::Usage, "the command line is not right"),
        (
            Exit::Definition,
            "the pipeline file is not right, or has no such pipeline or phase",
        ),
        (
            Exit::Unconfirmed,
            "jobs were handed over, but a pull address confirms nothing",
        ),
        (
            Exit::Refused,
            "the manager refused, or knows no such job or worker",
        ),
        (
            Exit::JobFailed,
            "a job that was waited for failed or was cancelled",
        ),
        (Exit::Timeout, "nobody answered in time"),
        (
            Exit::Journal,
            "the journal is damaged, in use or cannot be opened",
        ),
        (
            Exit::Hung,
            "it hung and ended itself, so that it can be started again",
        ),
        (
            Exit::Interrupted,
            "a second signal ended it before it was done",
        ),
    ];

    pub(crate) const fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Definition => 3,
            Exit::Unconfirmed => 4,
            Exit::Refused => 5,
            Exit::JobFailed => 6,
            Exit::Timeout => 7,
            Exit::Journal => 8,
            Exit::Hung => 9,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
