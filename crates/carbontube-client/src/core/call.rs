//! What callers want, from their call to the answer.

use std::collections::{BTreeMap, BTreeSet};

use carbontube_protocol::message::{
    self, Answer, Code, EndedJob, EnqueueOutcome, Query, QueryRequest, Wait,
};
use carbontube_protocol::{JobId, Message, PipelineName, Timestamp};
use fastrand::Rng;

use super::Pauses;
use crate::{ClientError, NewJob, Receipt};

/// What a caller is told.
#[derive(Debug)]
pub enum News {
    /// The end of an enqueueing: one receipt for each job, in order.
    Enqueued(Vec<Receipt>),
    /// The end of a question.
    Answered(Answer),
    /// Jobs ended that the caller waits for; the call ends with the last of them.
    Ended(Vec<EndedJob>),
    /// The end of a call that came to nothing.
    Failed(ClientError),
}

/// Something that a caller waits for.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) what: &'static str,
    pub(super) started: Timestamp,
    pub(super) pauses: Pauses,
    /// When to ask again.
    pub(super) again: Option<Timestamp>,
    /// When to look at it next.
    pub(super) alarm: Option<Timestamp>,
    /// Its requests without an answer; each with the jobs that it waits for.
    pub(super) requests: BTreeMap<u64, Vec<JobId>>,
    pub(super) task: Task,
}

#[derive(Debug)]
pub(super) enum Task {
    Delivery(Delivery),
    Question(Query),
    Waiting(Waiting),
}

/// Jobs on their way into the journal.
#[derive(Debug)]
pub(super) struct Delivery {
    pipeline: PipelineName,
    jobs: Vec<NewJob>,
    receipts: Vec<Option<Receipt>>,
    /// The places of the jobs that the manager has not decided about for good.
    open: Vec<usize>,
}

/// Jobs that are waited for.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pipeline: PipelineName,
    pub(super) open: BTreeSet<JobId>,
    /// To be asked for at [`Call::again`].
    pub(super) refused: Vec<JobId>,
}

impl Delivery {
    pub(super) fn new(pipeline: PipelineName, jobs: Vec<NewJob>) -> Self {
        Delivery {
            receipts: vec![None; jobs.len()],
            open: (0..jobs.len()).collect(),
            pipeline,
            jobs,
        }
    }

    /// The request for what is open.
    pub(super) fn request(&self, request: u64) -> Message {
        let jobs = self.open.iter().map(|at| self.jobs[*at].to_message());
        Message::from(message::Enqueue {
            request,
            pipeline: self.pipeline.clone(),
            jobs: jobs.collect(),
        })
    }

    /// The same request for other jobs: a deliberate fault.
    pub(super) fn renamed(&self, request: u64, rng: &mut Rng) -> Message {
        let mut message = self.request(request);
        if let Message::Enqueue(enqueue) = &mut message {
            for job in &mut enqueue.jobs {
                let bytes = rng.u128(..).to_le_bytes();
                job.id = Some(JobId::from_uuid_bytes(bytes));
            }
        }
        message
    }

    /// Keeps the outcomes; leaves those open that may pass. Says whether any of those is
    /// for the manager's draining.
    pub(super) fn take(&mut self, outcomes: Vec<EnqueueOutcome>) -> Result<bool, String> {
        if outcomes.len() != self.open.len() {
            let (came, wanted) = (outcomes.len(), self.open.len());
            return Err(format!("{came} outcomes for {wanted} jobs"));
        }
        let mut drains = false;
        let mut still_open = Vec::new();
        for (at, outcome) in self.open.iter().zip(outcomes) {
            if let EnqueueOutcome::Rejected { code, .. } = outcome
                && is_passing(code)
            {
                drains |= code == Code::Draining;
                still_open.push(*at);
            }
            self.receipts[*at] = Some(self.jobs[*at].receipt(outcome));
        }
        self.open = still_open;
        Ok(drains)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether nothing at all is known to be enqueued.
    pub(super) fn is_untouched(&self) -> bool {
        !self.receipts.iter().flatten().any(Receipt::is_confirmed)
    }

    /// What became of each job after the first answer; those still open have the last
    /// rejection.
    pub(super) fn take_receipts(&mut self) -> Vec<Receipt> {
        let receipts = std::mem::take(&mut self.receipts);
        receipts.into_iter().flatten().collect()
    }
}

impl Waiting {
    /// The request for some of the jobs.
    pub(super) fn request(&self, request: u64, ids: &[JobId]) -> Message {
        Message::from(Wait {
            request,
            pipeline: self.pipeline.clone(),
            ids: ids.to_vec(),
        })
    }

    /// The jobs that had not ended before.
    pub(super) fn take(&mut self, mut jobs: Vec<EndedJob>) -> Vec<EndedJob> {
        // After a reconnection the manager tells again what it told before.
        jobs.retain(|job| self.open.remove(&job.id));
        jobs
    }
}

pub(super) fn question(request: u64, query: &Query) -> Message {
    let query = query.clone();
    Message::from(QueryRequest { request, query })
}

/// Whether a refusal passes by itself, so that trying again makes sense: a manager that
/// drains comes back, or another takes its place.
pub(super) fn is_passing(code: Code) -> bool {
    matches!(code, Code::Busy | Code::Journal | Code::Draining)
}
