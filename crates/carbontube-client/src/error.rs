//! What can go wrong for a client, with what to do about it.

use std::time::Duration;

use carbontube_protocol::message::Code;
use carbontube_protocol::{InstructionsError, JobId};
use carbontube_transport::{Address, OpenError};

/// Why a client could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No address was given.
    #[error("a client needs the address of a manager")]
    NoAddress,
    /// No manager answered.
    #[error("no manager answered within {waited:.1?}: {}", list(tried))]
    NotConnected {
        /// How long was waited.
        waited: Duration,
        /// Each address, and what was met there.
        tried: Vec<(Address, String)>,
    },
    /// Managers answered, but each refused to talk.
    #[error("the manager cannot be talked to: {}", list(tried))]
    Refused {
        /// Why, when all gave the same code.
        code: Option<Code>,
        /// Each address, and what was met there.
        tried: Vec<(Address, String)>,
    },
    /// The request was sent, and no answer came.
    #[error(
        "{what} was not confirmed within {waited:.1?}: it may or may not have been done ({link})"
    )]
    NotConfirmed {
        /// What was asked for.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
        /// How the connection is.
        link: String,
    },
    /// The request could not be sent in time: the manager has not seen it.
    #[error("{what} was not sent within {waited:.1?}: nothing was done ({link})")]
    NotSent {
        /// What was asked for.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
        /// How the connection is.
        link: String,
    },
    /// The manager refused a whole request.
    #[error("the manager refused {what}: {message} ({code})")]
    Refusal {
        /// What was asked for.
        what: &'static str,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        message: String,
    },
    /// The manager did not take one job.
    #[error("job {id} was not accepted: {message} ({code})")]
    Rejected {
        /// The job.
        id: JobId,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        message: String,
    },
    /// The instructions are not a JSON object within the limit.
    #[error("the instructions cannot be enqueued")]
    Instructions(#[from] InstructionsError),
    /// A value could not be written as JSON.
    #[error("the instructions cannot be written as JSON")]
    Serialize(#[from] serde_json::Error),
    /// This needs an api address, and the client has only a pull address.
    #[error("{what} needs an api address, a pull address only takes jobs")]
    NeedsApi {
        /// What was asked for.
        what: &'static str,
    },
    /// There has been no manager for too long while waiting for jobs.
    #[error("no manager for {absent:?} while waiting for {jobs} jobs ({link})")]
    Absent {
        /// For how long.
        absent: Duration,
        /// How many jobs were still waited for.
        jobs: usize,
        /// How the connection is.
        link: String,
    },
    /// The jobs did not end in time.
    #[error("{jobs} jobs have not ended within {waited:.1?}")]
    StillRunning {
        /// How many.
        jobs: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// The manager's answer does not fit the question.
    #[error("the answer to {what} does not fit it: {reason}")]
    Answer {
        /// What was asked for.
        what: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The message is too large for the socket.
    #[error("{what} is larger than a message may be")]
    TooLarge {
        /// What was asked for.
        what: &'static str,
    },
    /// Messages handed over were not written to the network in time.
    #[error("{messages} messages were not delivered within {waited:.1?}")]
    NotDelivered {
        /// How many.
        messages: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// A socket could not be opened.
    #[error("cannot open a socket")]
    Open(#[from] OpenError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

fn list(tried: &[(Address, String)]) -> String {
    let each: Vec<String> = tried
        .iter()
        .map(|(address, met)| {
            // What was met usually names the address already.
            if met.contains(&address.to_string()) {
                met.clone()
            } else {
                format!("{address}: {met}")
            }
        })
        .collect();
    each.join("; ")
}

impl ClientError {
    /// What to do about it, for a person.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            ClientError::NoAddress => "give an api address such as tcp://127.0.0.1:5051",
            ClientError::NotConnected { .. } => {
                "is a manager running there? start one with `carbontube pipeline FILE NAME`, or check its --api-bind address"
            }
            ClientError::Refused {
                code: Some(Code::Version),
                ..
            } => "use the same version of Carbontube on both sides",
            ClientError::Refused { .. } => {
                "give the manager's api address (by default port 5051) or its pull address (5050)"
            }
            ClientError::NotConfirmed { .. } => {
                "asking again is safe: enqueueing the same id twice makes one job"
            }
            ClientError::NotSent { .. } => "try again when the manager is reachable",
            ClientError::Refusal { code, .. } | ClientError::Rejected { code, .. } => {
                return code_hint(*code);
            }
            ClientError::Instructions(InstructionsError::TooLarge { .. }) => {
                "put large data into a file or an object store, and its path or URL into the instructions"
            }
            ClientError::Instructions(_) | ClientError::Serialize(_) => {
                "instructions are a JSON object such as {\"video_path\": \"/tmp/video1.mp4\"}"
            }
            ClientError::NeedsApi { .. } => {
                "give the manager's api address (--api-bind, by default port 5051)"
            }
            ClientError::Absent { .. } | ClientError::StillRunning { .. } => {
                "the jobs are safe in the manager's journal; wait for them again by their ids"
            }
            ClientError::NotDelivered { .. } => "use an api address, where enqueueing is confirmed",
            ClientError::TooLarge { .. } => "use smaller batches or smaller instructions",
            ClientError::Answer { .. } => "use the same version of Carbontube on both sides",
            ClientError::Open(_) | ClientError::Closed => return None,
        })
    }

    /// Why the manager refused, when it did.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refusal { code, .. } | ClientError::Rejected { code, .. } => Some(*code),
            ClientError::Refused { code, .. } => *code,
            _ => None,
        }
    }
}

fn code_hint(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Version => "use the same version of Carbontube on both sides",
        Code::UnknownPipeline => "`carbontube stats` tells which pipeline is behind an address",
        Code::UnknownPhase => "`carbontube stats` lists the phases of the pipeline",
        Code::UnknownJob => "`carbontube jobs` lists the jobs that are known",
        Code::UnknownWorker => "`carbontube workers` lists the workers that are known",
        Code::Busy => "the manager is at a limit; try again later or enqueue more slowly",
        Code::Journal => "the manager cannot write its journal; look at its log for the reason",
        Code::Draining => "the manager is going; use another one or wait until it is back",
        _ => return None,
    })
}
