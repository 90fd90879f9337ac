//! Waiting for jobs to end.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use async_io::Timer;
use carbontube_protocol::message::{self, EndedJob};
use carbontube_protocol::{JobId, Message, PipelineName};
use futures_lite::future;

use crate::ClientError;
use crate::conversation::{Conversation, Request, is_passing, until};
use crate::options::Pauses;

const WHAT: &str = "waiting";

/// Jobs as they end; each that was asked for comes exactly once.
///
/// It goes on across reconnections: the wait is asked for again, and what ended in the
/// meantime is told then.
#[derive(Debug)]
pub struct EndedStream {
    conversation: Arc<Conversation>,
    pipeline: PipelineName,
    requests: Vec<(Request, Vec<JobId>)>,
    open: BTreeSet<JobId>,
    ready: VecDeque<EndedJob>,
    pauses: Pauses,
}

impl EndedStream {
    pub(crate) fn new(
        conversation: Arc<Conversation>,
        pipeline: &PipelineName,
        ids: impl IntoIterator<Item = JobId>,
    ) -> Result<Self, ClientError> {
        if !conversation.has_api() {
            return Err(ClientError::NeedsApi { what: WHAT });
        }
        let mut stream = EndedStream {
            pauses: Pauses::new(&conversation.options.busy_retry),
            pipeline: pipeline.clone(),
            requests: Vec::new(),
            open: ids.into_iter().collect(),
            ready: VecDeque::new(),
            conversation,
        };
        let ids: Vec<JobId> = stream.open.iter().cloned().collect();
        for ids in ids.chunks(stream.conversation.options.limits.batch_jobs_max) {
            stream.ask(ids.to_vec())?;
        }
        Ok(stream)
    }

    fn ask(&mut self, ids: Vec<JobId>) -> Result<(), ClientError> {
        let build = |request| {
            Message::from(message::Wait {
                request,
                pipeline: self.pipeline.clone(),
                ids: ids.clone(),
            })
        };
        let request = self.conversation.begin(true, WHAT, build)?;
        self.requests.push((request, ids));
        Ok(())
    }

    /// How many jobs are still waited for.
    pub fn remaining(&self) -> usize {
        self.open.len() + self.ready.len()
    }

    /// The next job that ended; `None` when all have. A job that is not known has no
    /// state. Cancel-safe.
    ///
    /// # Errors
    /// When the manager refuses, or there is none for longer than
    /// [`absence_max`](crate::ClientOptions::absence_max).
    pub async fn next(&mut self) -> Option<Result<EndedJob, ClientError>> {
        loop {
            if let Some(job) = self.ready.pop_front() {
                return Some(Ok(job));
            }
            if self.open.is_empty() {
                self.requests.clear();
                return None;
            }
            if let Err(error) = self.step().await {
                return Some(Err(error));
            }
        }
    }

    async fn step(&mut self) -> Result<(), ClientError> {
        let absence = absence(&self.conversation);
        let answer = future::or(async { Some(first(&self.requests).await) }, async {
            absence.await;
            None
        });
        let Some((index, answer)) = answer.await else {
            let absent = self.conversation.options.absence_max;
            return Err(self.conversation.absent(absent, self.open.len()));
        };
        match answer? {
            Message::Ended(ended) => {
                for job in ended.jobs {
                    // After a reconnection the manager tells again what it told before.
                    if self.open.remove(&job.id) {
                        self.ready.push_back(job);
                    }
                }
                let done =
                    |(_, ids): &(Request, Vec<JobId>)| !ids.iter().any(|id| self.open.contains(id));
                if done(&self.requests[index]) {
                    self.requests.swap_remove(index);
                }
                Ok(())
            }
            Message::Refusal(refusal) if is_passing(refusal.code) => {
                Timer::after(self.pauses.take()).await;
                let (_, mut ids) = self.requests.swap_remove(index);
                ids.retain(|id| self.open.contains(id));
                self.ask(ids)
            }
            Message::Refusal(refusal) => Err(ClientError::Refusal {
                what: WHAT,
                code: refusal.code,
                message: refusal.message,
            }),
            other => Err(ClientError::Answer {
                what: WHAT,
                reason: format!("it is of kind {:?}", other.kind()),
            }),
        }
    }
}

/// The first answer to any of the requests.
async fn first(requests: &[(Request, Vec<JobId>)]) -> (usize, Result<Message, ClientError>) {
    let mut answers: Vec<_> = requests
        .iter()
        .map(|(request, _)| Box::pin(request.answer()))
        .collect();
    future::poll_fn(|context| {
        for (index, answer) in answers.iter_mut().enumerate() {
            if let std::task::Poll::Ready(answer) = answer.as_mut().poll(context) {
                return std::task::Poll::Ready((index, answer));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Ends when there has been no manager for too long without a break.
async fn absence(conversation: &Conversation) {
    loop {
        live_is(conversation, false).await;
        let deadline = Instant::now() + conversation.options.absence_max;
        if until(deadline, live_is(conversation, true)).await.is_none() {
            return;
        }
    }
}

async fn live_is(conversation: &Conversation, wanted: bool) {
    loop {
        let listener = conversation.listen();
        if conversation.is_live() == wanted {
            return;
        }
        listener.await;
    }
}
