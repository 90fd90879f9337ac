//! All that can happen to the core.

use bytes::Bytes;
use carbontube_protocol::message::{
    Enqueue, Goodbye, HandBack, Heartbeat, Logs, NewJob, PipeHead, Progress, QueryRequest, Results,
    Wait,
};
use carbontube_protocol::original::{OriginalEvent, OriginalMessage};
use carbontube_protocol::{Address, Codec, PipelineName};

use super::effect::{CommitId, PipeId};

/// A client's connection on the ROUTER, as the shell numbers them. Never used again
/// for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Why a commit or a read failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// The disk is full. The shell tries the same commit again until there is space.
    Full(String),
    /// The store cannot be reached or written now. The shell tries again.
    Unavailable(String),
    /// The store is damaged or refuses for good: an operator must act.
    Broken(String),
}

/// Something that happened. Each variant says who sends it and when.
#[derive(Clone, Debug)]
pub enum Input {
    /// The shell, for a client's enqueue on the ROUTER. Every job has an id: the shell
    /// makes those that the client left out, since the core has no randomness.
    Enqueue {
        /// Whom to answer.
        client: ClientId,
        /// What it sent.
        request: Enqueue,
    },
    /// The shell, for jobs that came on PULL, where there is no way back: refused jobs
    /// are counted and dropped. Ids as above.
    EnqueueUnconfirmed {
        /// The pipeline that the client named, if it did.
        pipeline: Option<PipelineName>,
        /// The jobs.
        jobs: Vec<NewJob>,
    },
    /// The shell, for a client's query.
    Query {
        /// Whom to answer.
        client: ClientId,
        /// What it asked.
        request: QueryRequest,
    },
    /// The shell, for a client that waits for jobs.
    Wait {
        /// Whom to answer.
        client: ClientId,
        /// What it waits for.
        request: Wait,
    },
    /// The shell, when a client's connection is gone: its waits are forgotten.
    ClientGone {
        /// The connection.
        client: ClientId,
    },
    /// The shell, for results on PULL.
    Results(Results),
    /// The shell, for attempts handed back on PULL.
    HandBack(HandBack),
    /// The shell, for a worker's last word on PULL.
    Goodbye(Goodbye),
    /// The shell, for a worker's heartbeat on SUB.
    Heartbeat(Heartbeat),
    /// The shell, before the first heartbeat that came from an address in another codec
    /// than the last one; bincode is what it is before any.
    Codec {
        /// The address that the heartbeat announces.
        address: Address,
        /// Its codec.
        codec: Codec,
    },
    /// The shell, for a hello on PULL: a manager dialled an address that leads here.
    Echo(PipeHead),
    /// The shell, for log lines on SUB: republished, and the tail kept for failures.
    Logs(Logs),
    /// The shell, for progress on SUB: republished.
    Progress(Progress),
    /// The shell, for one of the original's messages on PULL, with an id for a job that
    /// came without.
    Original(OriginalMessage),
    /// The shell, for one of the original's events on SUB.
    OriginalEvent(OriginalEvent),
    /// The shell, when a pipe's connection is up: on each new connection of it.
    PipeUp {
        /// The pipe.
        pipe: PipeId,
    },
    /// The shell, when a pipe's connection broke; it keeps trying to connect.
    PipeDown {
        /// The pipe.
        pipe: PipeId,
    },
    /// The shell, when a pipe's machine answered that nobody listens at its address; it
    /// keeps trying to connect. Told once for a row of such answers at least.
    PipeRefused {
        /// The pipe.
        pipe: PipeId,
    },
    /// The store's thread: the commit is durable.
    Committed {
        /// The commit.
        commit: CommitId,
    },
    /// The store's thread: the commit failed. It stays under way: the shell reopens the
    /// store and tries the same commit again, and a `Committed` follows in the end.
    CommitFailed {
        /// The commit.
        commit: CommitId,
        /// Why.
        fault: StoreFault,
    },
    /// The store's thread: a page that an [`Effect::ReadPage`](super::Effect::ReadPage)
    /// asked for.
    PageRead {
        /// Which log.
        log: carbontube_storage::Log,
        /// Which page.
        page: carbontube_storage::PageSeq,
        /// Its bytes as they were put; `None` when no such page is there any more.
        bytes: Result<Option<Bytes>, StoreFault>,
    },
    /// The shell, once the time that [`Core::next_timeout`](super::Core::next_timeout)
    /// told has come.
    Tick,
    /// The shell, on SIGTERM: as [`Query::Drain`](carbontube_protocol::message::Query)
    /// without a worker.
    Drain,
}
