//! Enqueueing in batches, with a bounded window of batches under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Timer;
use async_std::task::JoinHandle;
use carbontube_protocol::message::{self, EnqueueOutcome};
use carbontube_protocol::{Message, PipelineName, encode};
use carbontube_transport::Reason;
use futures_lite::future;

use crate::conversation::{Conversation, is_passing, until};
use crate::options::Pauses;
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
    batch: Vec<NewJob>,
    batch_bytes: usize,
    window: VecDeque<Outstanding>,
    window_bytes: usize,
    receipts: Vec<Receipt>,
}

#[derive(Debug)]
struct Outstanding {
    bytes: usize,
    work: JoinHandle<Result<Vec<Receipt>, ClientError>>,
}

impl Enqueuer {
    pub(crate) fn new(conversation: Arc<Conversation>, pipeline: PipelineName) -> Self {
        Enqueuer {
            conversation,
            pipeline,
            batch: Vec::new(),
            batch_bytes: 0,
            window: VecDeque::new(),
            window_bytes: 0,
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
        let options = &self.conversation.options;
        job.check(&options.limits)?;
        let bytes = job.instructions_bytes();
        if !self.batch.is_empty() && self.batch_bytes + bytes > options.batch_bytes_max {
            self.send_batch().await?;
        }
        self.batch_bytes += bytes;
        self.batch.push(job);
        let options = &self.conversation.options;
        let jobs_max = options
            .batch_jobs_max
            .clamp(1, options.limits.batch_jobs_max);
        if self.batch.len() >= jobs_max {
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
        if !self.batch.is_empty() {
            self.send_batch().await?;
        }
        while !self.window.is_empty() {
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
        self.window.len()
    }

    async fn send_batch(&mut self) -> Result<(), ClientError> {
        // What is answered already makes room without waiting.
        while let Some(oldest) = self.window.front_mut() {
            match future::poll_once(&mut oldest.work).await {
                Some(result) => self.take_in(result)?,
                None => break,
            }
        }
        let options = self.conversation.options.clone();
        while !self.window.is_empty()
            && (self.window.len() >= options.window_batches_max.max(1)
                || self.window_bytes + self.batch_bytes > options.window_bytes_max)
        {
            self.settle_oldest().await?;
        }
        let batch = std::mem::take(&mut self.batch);
        let bytes = std::mem::take(&mut self.batch_bytes);
        let conversation = self.conversation.clone();
        let pipeline = self.pipeline.clone();
        let work =
            async_std::task::spawn(async move { deliver(&conversation, &pipeline, &batch).await });
        self.window_bytes += bytes;
        self.window.push_back(Outstanding { bytes, work });
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<(), ClientError> {
        if let Some(oldest) = self.window.front_mut() {
            let result = (&mut oldest.work).await;
            self.take_in(result)?;
        }
        Ok(())
    }

    fn take_in(&mut self, result: Result<Vec<Receipt>, ClientError>) -> Result<(), ClientError> {
        if let Some(oldest) = self.window.pop_front() {
            self.window_bytes -= oldest.bytes;
        }
        self.receipts.extend(result?);
        Ok(())
    }
}

/// Enqueues one batch and returns a receipt for each job.
///
/// Jobs that the manager was too busy for are sent again, alone, until the timeout.
pub(crate) async fn deliver(
    conversation: &Arc<Conversation>,
    pipeline: &PipelineName,
    jobs: &[NewJob],
) -> Result<Vec<Receipt>, ClientError> {
    const WHAT: &str = "enqueueing";
    if !conversation.has_api() {
        return hand_over(conversation, pipeline, jobs).await;
    }
    let started = Instant::now();
    let mut pauses = Pauses::new(&conversation.options.busy_retry);
    let mut receipts: Vec<Option<Receipt>> = vec![None; jobs.len()];
    let mut open: Vec<usize> = (0..jobs.len()).collect();
    loop {
        let build = |request| {
            Message::from(message::Enqueue {
                request,
                pipeline: pipeline.clone(),
                jobs: open.iter().map(|at| jobs[*at].to_message()).collect(),
            })
        };
        let refusal = match conversation.ask(WHAT, started, build).await? {
            Message::Enqueued(enqueued) => {
                take_outcomes(enqueued.outcomes, jobs, &mut open, &mut receipts)?;
                None
            }
            Message::Refusal(refusal) => Some(refusal),
            other => {
                return Err(ClientError::Answer {
                    what: WHAT,
                    reason: format!("it is of kind {:?}", other.kind()),
                });
            }
        };
        let pause = pauses.take_before(started, conversation.options.timeout);
        match (refusal, pause) {
            (Some(refusal), pause) if pause.is_none() || !is_passing(refusal.code) => {
                return Err(ClientError::Refusal {
                    what: WHAT,
                    code: refusal.code,
                    message: refusal.message,
                });
            }
            (_, Some(pause)) if !open.is_empty() => Timer::after(pause).await,
            // Each job has a receipt: those still open have the last rejection.
            _ => return Ok(receipts.into_iter().flatten().collect()),
        };
    }
}

/// Keeps the outcomes; leaves those open that may pass.
fn take_outcomes(
    outcomes: Vec<EnqueueOutcome>,
    jobs: &[NewJob],
    open: &mut Vec<usize>,
    receipts: &mut [Option<Receipt>],
) -> Result<(), ClientError> {
    if outcomes.len() != open.len() {
        return Err(ClientError::Answer {
            what: "enqueueing",
            reason: format!("{} outcomes for {} jobs", outcomes.len(), open.len()),
        });
    }
    let mut still_open = Vec::new();
    for (at, outcome) in open.iter().zip(outcomes) {
        if matches!(&outcome, EnqueueOutcome::Rejected { code, .. } if is_passing(*code)) {
            still_open.push(*at);
        }
        receipts[*at] = Some(jobs[*at].receipt(outcome));
    }
    *open = still_open;
    Ok(())
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
        let mut pauses = Pauses::new(&(Duration::from_millis(1)..=Duration::from_millis(50)));
        loop {
            if conversation.is_closed() {
                return Err(ClientError::Closed);
            }
            let pushes = conversation.lock().pushes.clone();
            for push in pushes {
                let rejected = match push.try_send(message) {
                    Ok(()) => return Ok(()),
                    Err(rejected) => rejected,
                };
                if rejected.reason == Reason::Invalid {
                    return Err(ClientError::TooLarge { what: WHAT });
                }
                message = rejected.message;
            }
            Timer::after(pauses.take()).await;
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
