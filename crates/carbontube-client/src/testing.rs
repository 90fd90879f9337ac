//! For the simulator: the client without its tasks and sockets.

pub use crate::core::{CallId, Condition, Core, Links, News, Pauses, Window};

use bytes::Bytes;
use carbontube_protocol::JobId;

use crate::NewJob;

/// A job with an id as if the client had made it up.
pub fn job_with_made_up_id(id: JobId, instructions: impl Into<Bytes>) -> NewJob {
    NewJob::made_up(id, instructions.into())
}
