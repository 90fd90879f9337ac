//! Every message of the protocol, as the peers see it: payloads stand beside what
//! they belong to. The codec moves them into frames of their own (protocol.md §3).

mod client;
mod event;
mod insight;
mod manager;
mod query;
mod worker;

pub use client::{Code, Ended, EndedJob, Enqueue, EnqueueOutcome, Enqueued, NewJob, Refusal, Wait};
pub use event::{Event, EventKind, Events};
pub use insight::{
    FailureGroup, Found, Histogram, JobSearch, Latencies, PhaseLatencies, PhaseTrack, Series, Step,
    Track,
};
pub use manager::{Ack, Cancel, Dispatch, DispatchedJob, Drain, Hello, PipeHead, Recall};
pub use query::{
    Answer, AttemptView, JobDetail, JobFilter, JobState, JobView, JournalView, ManagerInfo,
    ManagerState, PhaseStats, Query, QueryAnswer, QueryRequest, Recent, Selector, Stats,
    WorkerStatus, WorkerView,
};
pub use worker::{
    AttemptResult, ErrorReport, FailureKind, Goodbye, HandBack, HandBackReason, HandedBack,
    Heartbeat, Held, HeldFor, HeldState, LogLevel, LogLine, Logs, Outcome, Progress, ProgressItem,
    Results, WorkerState,
};

use crate::header::Kind;

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident($body:ident)),* $(,)?) => {
        /// A message of the protocol.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $name($body),)*
        }

        impl Message {
            /// The message's kind, as its header says it.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Message::$name(_) => Kind::$name,)*
                }
            }
        }

        $(impl From<$body> for Message {
            fn from(body: $body) -> Message {
                Message::$name(body)
            }
        })*

        /// Calls `$run` with the body type that belongs to a kind.
        macro_rules! with_body_type {
            ($kind:expr, $run:ident) => {
                match $kind {
                    $(Kind::$name => $run!($name, $crate::message::$body),)*
                }
            };
        }
        pub(crate) use with_body_type;

        /// Calls `$run` with the body of a message.
        macro_rules! with_body {
            ($message:expr, $run:ident) => {
                match $message {
                    $(Message::$name(body) => $run!(body),)*
                }
            };
        }
        pub(crate) use with_body;
    };
}

messages! {
    /// Client to manager: jobs to enqueue.
    Enqueue(Enqueue),
    /// Manager to client: what became of them.
    Enqueued(Enqueued),
    /// Client to manager: a question or an administrative change.
    Query(QueryRequest),
    /// Manager to client: the answer.
    Answer(QueryAnswer),
    /// Client to manager: tell me when these jobs end.
    Wait(Wait),
    /// Manager to client: these jobs ended.
    Ended(Ended),
    /// Manager to anyone: that could not be done or understood.
    Refusal(Refusal),
    /// Manager to worker: who I am.
    Hello(Hello),
    /// Manager to worker: attempts to run.
    Dispatch(Dispatch),
    /// Manager to worker: results that are safe now.
    Ack(Ack),
    /// Manager to worker: attempts to hand back if they have not started.
    Recall(Recall),
    /// Manager to worker: attempts to stop.
    Cancel(Cancel),
    /// Manager to worker: finish and leave.
    Drain(Drain),
    /// Worker to manager: results.
    Results(Results),
    /// Worker to manager: attempts that it did not start.
    HandBack(HandBack),
    /// Worker to manager: the last word.
    Goodbye(Goodbye),
    /// Worker to everyone: what it is and holds.
    Heartbeat(Heartbeat),
    /// Worker to everyone: log lines.
    Logs(Logs),
    /// Worker to everyone: progress.
    Progress(Progress),
    /// Manager to everyone: what happened.
    Events(Events),
}
