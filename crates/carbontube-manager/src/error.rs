//! Why a manager does not start, or ends before it should.

use std::fmt;
use std::io;

use carbontube_storage::StoreError;
use carbontube_transport::OpenError;

use crate::core::RecoverError;

/// Which of the manager's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketRole {
    /// PULL: results and unconfirmed jobs.
    Pull,
    /// SUB: workers' events.
    Subscribe,
    /// ROUTER: clients.
    Api,
    /// PUB: the manager's own events.
    Publish,
}

impl fmt::Display for SocketRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SocketRole::Pull => "pull",
            SocketRole::Subscribe => "sub",
            SocketRole::Api => "api",
            SocketRole::Publish => "pub",
        })
    }
}

/// Why a manager could not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A socket could not be opened.
    #[error("cannot open the {role} socket")]
    Socket {
        /// Which one.
        role: SocketRole,
        /// Why not.
        source: OpenError,
    },
    /// The journal could not be opened.
    #[error("cannot open the journal")]
    Journal {
        /// Why not; names the place.
        #[source]
        source: StoreError,
    },
    /// The journal was opened, but what its pages say cannot be used.
    #[error("cannot take up the journal at {place}: {reason}")]
    Recovery {
        /// Where the journal is.
        place: String,
        /// What is wrong with it.
        reason: RecoverError,
    },
    /// The system refused a thread.
    #[error("cannot start the {name} thread")]
    Thread {
        /// What it was for.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A thread ended in a panic before the manager served.
    #[error("the {name} thread panicked while starting; this is a bug in carbontube")]
    Panicked {
        /// Which one.
        name: &'static str,
    },
}

impl StartError {
    /// A way out to show beneath the error, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            StartError::Socket {
                role,
                source: OpenError::InUse { .. },
            } => Some(format!(
                "another manager or program listens there; stop it, or choose another address with --{role}-bind"
            )),
            StartError::Socket { role, .. } => {
                Some(format!("choose another address with --{role}-bind"))
            }
            StartError::Journal { source } => match source {
                StoreError::OtherPipeline { .. } => Some(
                    "each pipeline has a journal of its own; give this one another place with --storage"
                        .to_owned(),
                ),
                other => other.hint().map(str::to_owned),
            },
            StartError::Recovery {
                reason: RecoverError::VanishedPhase { job_type, .. },
                ..
            } => Some(format!(
                "put phase {job_type} back into the pipeline, and take it out when no job is at it any more"
            )),
            StartError::Recovery { .. } => Some(
                "`carbontube journal verify` says what is readable, `carbontube journal export` saves it"
                    .to_owned(),
            ),
            StartError::Thread { .. } | StartError::Panicked { .. } => None,
        }
    }
}

/// Why a running manager ended otherwise than by being drained or stopped.
///
/// Every confirmed job is in the journal all the same: start it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A thread panicked; the log has the message.
    #[error(
        "the {name} thread panicked; this is a bug in carbontube, confirmed jobs are safe in the journal"
    )]
    Panicked {
        /// Which one.
        name: &'static str,
    },
    /// The store refuses what it is given; trying again would not help.
    #[error("the journal refuses a commit, which is a bug in carbontube: {reason}")]
    Refused {
        /// What the store said.
        reason: String,
    },
    /// Another manager took the journal over, so this one may not write any more.
    #[error("the journal is not ours any more: {reason}")]
    Fenced {
        /// How that was noticed.
        reason: String,
    },
}
