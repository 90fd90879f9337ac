//! Builds a core from the journal's pages.

use std::collections::VecDeque;

use carbontube_protocol::{JobType, ManagerId, PipelineName, Timestamp};
use carbontube_storage::PageSeq;

use super::{Core, CoreOptions};
use crate::PipelineDefinition;

/// Why a core cannot be built from a journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The journal holds another pipeline's jobs.
    #[error("the journal belongs to pipeline {found}, this manager is for pipeline {expected}")]
    OtherPipeline {
        /// Whose journal it is.
        found: PipelineName,
        /// Whose journal it should be.
        expected: PipelineName,
    },
    /// Jobs stand at a phase that the pipeline does not have any more.
    #[error("the journal has jobs at phase {job_type}, which pipeline {pipeline} no longer has")]
    VanishedPhase {
        /// The phase.
        job_type: JobType,
        /// The pipeline.
        pipeline: PipelineName,
    },
    /// A page could not be read as records.
    #[error("{log} page {} is not readable: {reason}", page.0)]
    Unreadable {
        /// `journal` or `history`.
        log: &'static str,
        /// The page.
        page: PageSeq,
        /// What is wrong with it.
        reason: String,
    },
}

/// Builds a [`Core`] from pages: all of the journal, then all of the history.
#[derive(Debug)]
pub struct Recovery {
    definition: PipelineDefinition,
    options: CoreOptions,
}

impl Recovery {
    /// Begins with nothing: finishing at once gives the core of a new journal.
    pub fn new(definition: PipelineDefinition, options: CoreOptions) -> Self {
        Recovery {
            definition,
            options,
        }
    }

    /// Takes in the journal's next page.
    ///
    /// # Errors
    /// [`RecoverError`] when it belongs to another pipeline or cannot be read.
    pub fn journal_page(&mut self, seq: PageSeq, bytes: &[u8]) -> Result<(), RecoverError> {
        let _ = (seq, bytes);
        Ok(())
    }

    /// Takes in the history's next page.
    ///
    /// # Errors
    /// [`RecoverError`] when it cannot be read.
    pub fn history_page(&mut self, seq: PageSeq, bytes: &[u8]) -> Result<(), RecoverError> {
        let _ = (seq, bytes);
        Ok(())
    }

    /// Ends recovery. `fresh` becomes the journal's id if it is new, `seed` is where the
    /// jitter of retries begins.
    ///
    /// # Errors
    /// [`RecoverError`] when jobs stand at a phase that is gone.
    pub fn finish(self, now: Timestamp, fresh: ManagerId, seed: u64) -> Result<Core, RecoverError> {
        let _ = (now, seed);
        Ok(Core {
            definition: self.definition,
            options: self.options,
            manager: fresh,
            epoch: 1,
            effects: VecDeque::new(),
        })
    }
}
