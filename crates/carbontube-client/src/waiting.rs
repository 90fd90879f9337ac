//! Waiting for jobs to end.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use carbontube_protocol::message::EndedJob;
use carbontube_protocol::{JobId, PipelineName};

use crate::ClientError;
use crate::conversation::{Call, Conversation};
use crate::core::News;

/// Jobs as they end; each that was asked for comes exactly once.
///
/// It goes on across reconnections: the wait is asked for again, and what ended in the
/// meantime is told then.
#[derive(Debug)]
pub struct EndedStream {
    call: Option<Call>,
    open: usize,
    ready: VecDeque<EndedJob>,
}

impl EndedStream {
    pub(crate) fn new(
        conversation: &Arc<Conversation>,
        pipeline: &PipelineName,
        ids: impl IntoIterator<Item = JobId>,
    ) -> Result<Self, ClientError> {
        let ids: BTreeSet<JobId> = ids.into_iter().collect();
        Ok(EndedStream {
            open: ids.len(),
            call: Some(conversation.call(|core, now| core.wait(pipeline, ids, now))?),
            ready: VecDeque::new(),
        })
    }

    /// How many jobs are still waited for.
    pub fn remaining(&self) -> usize {
        self.open
    }

    /// The next job that ended; `None` when all have. A job that is not known has no
    /// state. Cancel-safe.
    ///
    /// # Errors
    /// When the manager refuses, or there is none for longer than
    /// [`absence_max`](crate::ClientOptions::absence_max). Nothing comes after an error.
    pub async fn next(&mut self) -> Option<Result<EndedJob, ClientError>> {
        while self.ready.is_empty() && self.open > 0 {
            match self.call.as_ref()?.news().await {
                Ok(News::Ended(jobs)) => self.ready.extend(jobs),
                Ok(_) => {}
                Err(error) => {
                    self.call = None;
                    return Some(Err(error));
                }
            }
        }
        let job = self.ready.pop_front()?;
        self.open -= 1;
        Some(Ok(job))
    }
}
