//! Enqueueing in batches, with a bounded window of batches under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Timer;
use carbontube_protocol::{Message, PipelineName, encode, message};
use carbontube_transport::Reason;
use futures_lite::future;

use crate::conversation::{Call, Conversation, until};
use crate::core::{Links, News, Pauses, Window};
use crate::{ClientError, NewJob, Receipt};

/// Enqueues a stream of jobs in batches.
///
/// [`add`](Self::add) waits while the window is full: that is the back-pressure. The
/// order of jobs is kept. Call [`flush`](Self::flush) at the end: jobs of an unfinished
/// batch are not enqueued otherwise.
#[derive(Debug)]
pub struct Enqueuer {
    conversation: Arc<Conversation>,
    pipeline: PipelineName,
    window: Window,
    calls: VecDeque<Call>,
    receipts: Vec<Receipt>,
}

impl Enqueuer {
    pub(crate) fn new(conversation: Arc<Conversation>, pipeline: PipelineName) -> Self {
        Enqueuer {
            conversation,
            pipeline,
            window: Window::default(),
            calls: VecDeque::new(),
            receipts: Vec::new(),
        }
    }

    /// Adds a job; sends the batch when it is full, and waits for room in the window.
    ///
    /// # Errors
    /// When the instructions are no JSON object within the limit (the job is not added,
    /// the enqueuer goes on), or when an earlier batch failed: its jobs may or may not
    /// have been accepted.
    pub async fn add(&mut self, job: NewJob) -> Result<(), ClientError> {
        let conversation = self.conversation.clone();
        let options = &conversation.options;
        job.check(&options.limits)?;
        if self
            .window
            .is_too_small_for(job.instructions_bytes(), options)
        {
            self.send_batch().await?;
        }
        if self.window.add(job, options) {
            self.send_batch().await?;
        }
        Ok(())
    }

    /// Sends what is left and waits for every answer.
    ///
    /// # Errors
    /// As [`add`](Self::add), when a batch failed. Later batches may have succeeded:
    /// call it again for their receipts.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        if !self.window.batch().is_empty() {
            self.send_batch().await?;
        }
        while !self.calls.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    /// Takes the receipts that came so far, in the order of the jobs.
    pub fn take_receipts(&mut self) -> Vec<Receipt> {
        std::mem::take(&mut self.receipts)
    }

    /// How many batches wait for their answer.
    pub fn outstanding_batches(&self) -> usize {
        self.calls.len()
    }

    async fn send_batch(&mut self) -> Result<(), ClientError> {
        let conversation = self.conversation.clone();
        // What is answered already makes room without waiting.
        while let Some(oldest) = self.calls.front()
            && let Some(news) = future::poll_once(oldest.news()).await
        {
            self.take_in(news)?;
        }
        while !self.window.has_room(&conversation.options) {
            self.settle_oldest().await?;
        }
        if !conversation.links(Links::has_api) {
            let receipts = hand_over(&conversation, &self.pipeline, self.window.batch()).await?;
            self.window.send();
            self.window.settled();
            self.receipts.extend(receipts);
            return Ok(());
        }
        let jobs = self.window.send();
        let call = conversation.call(|core, now| core.enqueue(&self.pipeline, jobs, now));
        match call {
            Ok(call) => self.calls.push_back(call),
            Err(error) => {
                self.window.settled();
                return Err(error);
            }
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<(), ClientError> {
        if let Some(oldest) = self.calls.front() {
            let news = oldest.news().await;
            self.take_in(news)?;
        }
        Ok(())
    }

    fn take_in(&mut self, news: Result<News, ClientError>) -> Result<(), ClientError> {
        self.calls.pop_front();
        self.window.settled();
        if let News::Enqueued(receipts) = news? {
            self.receipts.extend(receipts);
        }
        Ok(())
    }
}

impl Drop for Enqueuer {
    fn drop(&mut self) {
        // What was sent as a batch is enqueued, also when nobody asks for the receipts.
        self.calls.drain(..).for_each(Call::detach);
    }
}

/// Enqueues one batch and returns a receipt for each job.
pub(crate) async fn deliver(
    conversation: &Arc<Conversation>,
    pipeline: &PipelineName,
    jobs: Vec<NewJob>,
) -> Result<Vec<Receipt>, ClientError> {
    if !conversation.links(Links::has_api) {
        return hand_over(conversation, pipeline, &jobs).await;
    }
    let call = conversation.call(|core, now| core.enqueue(pipeline, jobs, now))?;
    match call.news().await? {
        News::Enqueued(receipts) => Ok(receipts),
        _ => Err(ClientError::Closed),
    }
}

/// Hands jobs to the first pull address that takes them.
async fn hand_over(
    conversation: &Arc<Conversation>,
    pipeline: &PipelineName,
    jobs: &[NewJob],
) -> Result<Vec<Receipt>, ClientError> {
    const WHAT: &str = "handing over";
    let enqueue = Message::from(message::Enqueue {
        request: 0,
        pipeline: pipeline.clone(),
        jobs: jobs.iter().map(NewJob::to_message).collect(),
    });
    let mut message = encode(&enqueue, conversation.options.codec);
    let started = Instant::now();
    let send = async {
        let mut rng = fastrand::Rng::new();
        let mut pauses = Pauses::new(&(Duration::from_millis(1)..=Duration::from_millis(50)));
        loop {
            if conversation.is_closed() {
                return Err(ClientError::Closed);
            }
            for push in conversation.pushes() {
                let rejected = match push.try_send(message) {
                    Ok(()) => return Ok(()),
                    Err(rejected) => rejected,
                };
                if rejected.reason == Reason::Invalid {
                    return Err(ClientError::TooLarge { what: WHAT });
                }
                message = rejected.message;
            }
            Timer::after(pauses.take(&mut rng)).await;
        }
    };
    match until(started + conversation.options.timeout, send).await {
        Some(result) => result?,
        None => {
            return Err(ClientError::NotSent {
                what: WHAT,
                waited: started.elapsed(),
                link: "no pull address takes messages".to_owned(),
            });
        }
    }
    let id = |job: &NewJob| Receipt::HandedOver {
        id: job.id().clone(),
    };
    Ok(jobs.iter().map(id).collect())
}
