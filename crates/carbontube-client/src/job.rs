//! Jobs to enqueue, and what became of them.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{self, Code, EnqueueOutcome, JobState};
use carbontube_protocol::{JobId, Limits, check_instructions};
use serde::Serialize;

use crate::ClientError;

/// One job to enqueue.
///
/// It has an id from the start, so that it is one job however often it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    id: JobId,
    id_is_given: bool,
    delay: Duration,
    traceparent: Option<String>,
    instructions: Bytes,
}

impl NewJob {
    /// A job with instructions that serialize to a JSON object.
    ///
    /// # Errors
    /// When the value cannot be written as JSON; that it is an object within the limits
    /// is checked when it is enqueued.
    pub fn new(instructions: &impl Serialize) -> Result<Self, ClientError> {
        Ok(Self::from_json(serde_json::to_vec(instructions)?))
    }

    /// A job with instructions that are JSON already; they are checked when enqueued.
    pub fn from_json(instructions: impl Into<Bytes>) -> Self {
        Self::made_up(JobId::generate(), instructions.into())
    }

    pub(crate) fn made_up(id: JobId, instructions: Bytes) -> Self {
        NewJob {
            id,
            id_is_given: false,
            delay: Duration::ZERO,
            traceparent: None,
            instructions,
        }
    }

    /// Gives the job an id of the caller's own: enqueueing it again is no second job.
    #[must_use]
    pub fn with_id(mut self, id: JobId) -> Self {
        self.id = id;
        self.id_is_given = true;
        self
    }

    /// Lets the job wait before its first phase.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Gives the job a W3C `traceparent` to travel with it.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// The size of the instructions in bytes.
    pub fn instructions_bytes(&self) -> usize {
        self.instructions.len()
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ClientError> {
        Ok(check_instructions(&self.instructions, limits)?)
    }

    pub(crate) fn to_message(&self) -> message::NewJob {
        message::NewJob {
            id: Some(self.id.clone()),
            delay_ms: u64::try_from(self.delay.as_millis()).unwrap_or(u64::MAX),
            traceparent: self.traceparent.clone(),
            instructions: self.instructions.clone(),
        }
    }

    /// What an outcome means for this job.
    ///
    /// A duplicate of an id that this client made can only be a request of its own that
    /// was sent again after its answer was lost.
    pub(crate) fn receipt(&self, outcome: EnqueueOutcome) -> Receipt {
        let id = self.id.clone();
        match outcome {
            EnqueueOutcome::Duplicate { state, .. } if self.id_is_given => {
                Receipt::Duplicate { id, state }
            }
            EnqueueOutcome::Accepted { .. } | EnqueueOutcome::Duplicate { .. } => {
                Receipt::Accepted { id }
            }
            EnqueueOutcome::Rejected { code, message, .. } => {
                Receipt::Rejected { id, code, message }
            }
        }
    }
}

/// What became of a job to enqueue.
#[derive(Clone, Debug, PartialEq)]
pub enum Receipt {
    /// The job is in the manager's durable journal.
    Accepted {
        /// The job.
        id: JobId,
    },
    /// The manager had a job of this id already; nothing was added.
    ///
    /// It may be from this very request, if an answer was lost on the way.
    Duplicate {
        /// The job.
        id: JobId,
        /// What its state is now.
        state: JobState,
    },
    /// The job was handed over to a pull address, which cannot confirm.
    HandedOver {
        /// The job.
        id: JobId,
    },
    /// The manager did not take the job.
    Rejected {
        /// The job.
        id: JobId,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        message: String,
    },
}

impl Receipt {
    /// The job.
    pub fn id(&self) -> &JobId {
        match self {
            Receipt::Accepted { id }
            | Receipt::Duplicate { id, .. }
            | Receipt::HandedOver { id }
            | Receipt::Rejected { id, .. } => id,
        }
    }

    /// Whether the manager confirmed that it has the job in its journal.
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Receipt::Accepted { .. } | Receipt::Duplicate { .. })
    }

    pub(crate) fn or_rejected(self) -> Result<Receipt, ClientError> {
        match self {
            Receipt::Rejected { id, code, message } => {
                Err(ClientError::Rejected { id, code, message })
            }
            other => Ok(other),
        }
    }
}
