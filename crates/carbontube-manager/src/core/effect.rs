//! All that the core can ask for.

use bytes::Bytes;
use carbontube_protocol::message::{Event, Message};
use carbontube_protocol::{Address, Codec};
use carbontube_storage::{Log, PageSeq};

use super::input::ClientId;

/// Counts the journal's records of this run of the manager, from 1. What an effect
/// depends on is durable when every record up to its number is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordSeq(pub u64);

/// Counts commits of this run of the manager, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// One PUSH to one worker's address, as the core numbers them. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipeId(pub u64);

/// What the store shall make durable in one atomic step, as
/// [`Core::take_commit`](super::Core::take_commit) gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its number; `Committed` or `CommitFailed` name it.
    pub id: CommitId,
    /// The last record in it: when it is durable, effects up to here may go.
    pub through: RecordSeq,
    /// The pages to put, in order; both logs number theirs without gaps.
    pub put: Vec<(Log, PageSeq, Bytes)>,
    /// Journal pages before this one are not needed any more.
    pub journal_from: PageSeq,
    /// History pages before this one are not needed any more.
    pub history_from: PageSeq,
}

/// An effect and the record that it waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Gated {
    /// The shell carries out the effect once this record is durable; at once when it
    /// already is. Effects for one pipe or one client keep their order.
    pub after: RecordSeq,
    /// What to do.
    pub effect: Effect,
}

/// Something for the shell to do. Each variant says what the shell must do with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message to a client; drop it if the client is gone.
    ToClient {
        /// The connection.
        client: ClientId,
        /// What to send.
        message: Message,
    },
    /// Send a message on a pipe. While its connection is down the shell drops the
    /// message: heartbeats show the core what did not arrive.
    ToPipe {
        /// The pipe.
        pipe: PipeId,
        /// What to send.
        message: Message,
    },
    /// Send a single frame, in the original's JSON, on a pipe.
    ToOriginalPipe {
        /// The pipe.
        pipe: PipeId,
        /// The frame.
        frame: Bytes,
    },
    /// Open a PUSH to a worker's address and keep it connected; report `PipeUp` and
    /// `PipeDown`.
    OpenPipe {
        /// The new pipe.
        pipe: PipeId,
        /// Where to.
        address: Address,
        /// In which codec to speak, until a heartbeat from there comes in another one.
        codec: Codec,
    },
    /// Close a pipe: send what is queued, for a moment, then drop it.
    ClosePipe {
        /// The pipe.
        pipe: PipeId,
    },
    /// Read a page and answer with `PageRead`.
    ReadPage {
        /// Which log.
        log: Log,
        /// Which page.
        page: PageSeq,
    },
    /// Publish an event. The shell batches and numbers them, and merges or drops when
    /// there are too many.
    Publish(Event),
    /// Write this to the log as a warning.
    Warn(String),
    /// Everything is done that a draining manager had to do: commit and exit.
    Stop,
}
