//! The manager's inside, opened for the simulator: the round that the core's thread runs,
//! how messages become inputs, recovery, and a look at the core's state.
//!
//! Behind the feature `testing`, which nothing that is released enables.

use bytes::Bytes;
use carbontube_protocol::message::Message;
use carbontube_protocol::{Address, Codec, Limits, ManagerId, Timestamp};
use carbontube_storage::{self as storage, Store};

use crate::core::{ClientId, Commit, Core, CoreOptions, Input};
use crate::{PipelineDefinition, StartError};

pub use crate::core::testing::{AttemptState, JobSnapshot, WorkerSnapshot};
pub use crate::persistence::{Persistence, Step, Told, read};
pub use crate::round::{Outside, Round};

/// Reads a message from the api socket as the shell does; an error is the refusal to send.
///
/// # Errors
/// What the client is told instead.
pub fn read_request(
    frames: &[Bytes],
    limits: &Limits,
    client: ClientId,
) -> Result<Input, Box<Message>> {
    let read = crate::api::read_request(&frames.to_vec(), limits, client);
    read.map_err(|refusal| Box::new(Message::Refusal(refusal)))
}

/// Reads a message from the pull socket as the shell does; none when it is dropped.
pub fn read_pulled(frames: &[Bytes], limits: &Limits) -> Option<Input> {
    crate::intake::read_pulled(&frames.to_vec(), limits).ok()
}

/// Reads a message from the sub socket as the shell does; none when it is dropped.
pub fn read_event(frames: &[Bytes], limits: &Limits) -> Option<Input> {
    crate::intake::read_event(&frames.to_vec(), limits).ok()
}

/// A commit as the store's thread gets it.
pub fn stored(commit: Commit) -> storage::Commit {
    crate::engine::stored(commit)
}

/// Builds the core from what a store holds, as a start does. `fresh` becomes the id of a
/// new journal, `seed` is where the jitter of retries begins.
///
/// # Errors
/// As starting a manager.
pub fn recover(
    store: &mut dyn Store,
    definition: PipelineDefinition,
    options: CoreOptions,
    now: Timestamp,
    fresh: ManagerId,
    seed: u64,
) -> Result<Core, StartError> {
    crate::keeper::recover_as(store, definition, options, now, fresh, seed)
}

/// In which codec the pipes to workers go: see the shell's type of this name.
#[derive(Debug, Default)]
pub struct WorkerCodecs(crate::codecs::WorkerCodecs);

impl WorkerCodecs {
    /// Notes in which codec a heartbeat came.
    pub fn heard(&self, address: &Address, codec: Codec) {
        self.0.heard(address, codec);
    }

    /// The codec for a pipe to an address.
    pub fn of(&self, address: &Address) -> Codec {
        self.0.of(address)
    }
}
