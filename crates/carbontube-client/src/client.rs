//! The client itself: connecting, enqueueing, asking, administering.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carbontube_protocol::message::{
    Answer, EndedJob, FailureGroup, Found, JobDetail, JobFilter, JobSearch, JobView, Latencies,
    ManagerInfo, Query, Recent, Selector, Series, Stats, Step, WorkerView,
};
use carbontube_protocol::{JobId, JobType, PipelineName, Timestamp, WorkerId};
use carbontube_transport::{Address, CloseOutcome, init_runtime};
use serde::Serialize;

use crate::conversation::{Conversation, limit};
use crate::core::Links;
use crate::enqueuer::{Enqueuer, deliver};
use crate::link::attend;
use crate::waiting::EndedStream;
use crate::{ClientError, ClientOptions, NewJob, Receipt};

/// A connection to the manager of a pipeline; cheap to clone.
///
/// The client goes on across reconnections, and over to another of its addresses when
/// one is lost. When the last clone is dropped, its connections end.
#[derive(Clone, Debug)]
pub struct PipelineClient {
    conversation: Arc<Conversation>,
    _ending: Arc<Ending>,
}

/// Ends the client's tasks with its last clone.
#[derive(Debug)]
struct Ending(Arc<Conversation>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A page of jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// What to give as `after` for the next page; `None` at the end.
    pub next: Option<String>,
}

/// What an administrative change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// How many jobs, phases or workers it changed.
    pub count: u64,
    /// How many that were named could not be changed.
    pub skipped: u64,
}

impl PipelineClient {
    /// Connects to all addresses and returns with the first manager that answers.
    ///
    /// An address may be an api address, where everything is confirmed, or a pull
    /// address, which only takes jobs: see [`is_confirmed`](Self::is_confirmed).
    /// Several addresses are those of one pipeline's manager and its standbys.
    ///
    /// # Errors
    /// When no manager answers in time, or none can be talked to.
    pub async fn connect(
        addresses: &[Address],
        options: ClientOptions,
    ) -> Result<PipelineClient, ClientError> {
        init_runtime();
        if addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        for address in addresses {
            address
                .check_connectable()
                .map_err(|source| carbontube_transport::OpenError::Connect { source })?;
        }
        let started = Instant::now();
        let deadline = started + options.connect_timeout;
        let conversation = Conversation::new(options, addresses);
        // Made before the tasks, so that a failed or cancelled connect ends them.
        let client = PipelineClient {
            _ending: Arc::new(Ending(conversation.clone())),
            conversation,
        };
        async_std::task::spawn(client.conversation.clone().keep_time());
        for index in 0..addresses.len() {
            async_std::task::spawn(attend(client.conversation.clone(), index));
        }
        let conversation = &client.conversation;
        let waited = match conversation.reached(deadline, Links::first_answer).await {
            Some(true) => return Ok(client),
            Some(false) => None,
            None => Some(started.elapsed()),
        };
        // Beside a pull address, the others need not answer.
        if conversation.links(Links::has_push) {
            return Ok(client);
        }
        let tried = conversation.links(Links::tried);
        let code = conversation.links(Links::shared_code);
        Err(match waited {
            Some(waited) if code.is_none() => ClientError::NotConnected { waited, tried },
            _ => ClientError::Refused { code, tried },
        })
    }

    /// Whether enqueueing is confirmed: there is an api address. With pull addresses
    /// only, jobs are handed over, and nobody says whether they arrived.
    pub fn is_confirmed(&self) -> bool {
        self.conversation.links(Links::has_api)
    }

    /// Whether a manager answers at this moment.
    pub fn is_connected(&self) -> bool {
        self.conversation.links(|links| links.active().is_some())
    }

    /// The options that the client was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.conversation.options
    }

    /// Enqueues one job. With an api address it returns when the job is durable.
    ///
    /// # Errors
    /// When the job is refused, or not confirmed in time; the error says what is known.
    pub async fn enqueue(
        &self,
        pipeline: &PipelineName,
        job: NewJob,
    ) -> Result<Receipt, ClientError> {
        job.check(&self.options().limits)?;
        let receipts = deliver(&self.conversation, pipeline, vec![job]).await?;
        let receipt = receipts.into_iter().next();
        receipt.expect("one job has one receipt").or_rejected()
    }

    /// Enqueues one job with instructions that serialize to a JSON object.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue), and when the value cannot be written as JSON.
    pub async fn enqueue_value(
        &self,
        pipeline: &PipelineName,
        instructions: &impl Serialize,
    ) -> Result<Receipt, ClientError> {
        self.enqueue(pipeline, NewJob::new(instructions)?).await
    }

    /// Enqueues many jobs in batches; the receipts stand in the order of the jobs.
    ///
    /// # Errors
    /// When instructions are no JSON object, or a batch is not confirmed in time. Use an
    /// [`enqueuer`](Self::enqueuer) to know what was confirmed before that.
    pub async fn enqueue_batch(
        &self,
        pipeline: &PipelineName,
        jobs: impl IntoIterator<Item = NewJob>,
    ) -> Result<Vec<Receipt>, ClientError> {
        let mut enqueuer = self.enqueuer(pipeline);
        for job in jobs {
            enqueuer.add(job).await?;
        }
        enqueuer.flush().await?;
        Ok(enqueuer.take_receipts())
    }

    /// Enqueues a stream of jobs in batches, with a bounded number of them under way.
    pub fn enqueuer(&self, pipeline: &PipelineName) -> Enqueuer {
        Enqueuer::new(self.conversation.clone(), pipeline.clone())
    }

    /// Waits for one job to end, at most for `timeout` if there is one.
    ///
    /// # Errors
    /// When the job has not ended in time, or there is no manager for too long.
    pub async fn wait(
        &self,
        pipeline: &PipelineName,
        id: &JobId,
        timeout: Option<Duration>,
    ) -> Result<EndedJob, ClientError> {
        let mut stream = self.wait_all(pipeline, [id.clone()])?;
        let next = async { stream.next().await };
        let ended = match timeout {
            None => next.await,
            Some(timeout) => match limit(timeout, next).await {
                Some(ended) => ended,
                None => {
                    return Err(ClientError::StillRunning {
                        jobs: 1,
                        waited: timeout,
                    });
                }
            },
        };
        ended.unwrap_or(Err(ClientError::Closed))
    }

    /// Waits for many jobs; each comes once, as it ends.
    ///
    /// # Errors
    /// When there is no api address.
    pub fn wait_all(
        &self,
        pipeline: &PipelineName,
        ids: impl IntoIterator<Item = JobId>,
    ) -> Result<EndedStream, ClientError> {
        EndedStream::new(&self.conversation, pipeline, ids)
    }

    /// Asks anything; the answer is whatever belongs to the query.
    ///
    /// # Errors
    /// When it is refused or not answered in time.
    pub async fn query(&self, query: Query) -> Result<Answer, ClientError> {
        self.ask("the query", query).await
    }

    async fn ask(&self, what: &'static str, query: Query) -> Result<Answer, ClientError> {
        self.conversation.ask(what, query).await
    }

    /// Who the manager is.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn info(&self) -> Result<ManagerInfo, ClientError> {
        match self.ask("info", Query::Info).await? {
            Answer::Info(info) => Ok(info),
            other => Err(unfit("info", &other)),
        }
    }

    /// How the pipeline and its phases are.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        match self.ask("stats", Query::Stats).await? {
            Answer::Stats(stats) => Ok(stats),
            other => Err(unfit("stats", &other)),
        }
    }

    /// Which workers there are.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn workers(&self) -> Result<Vec<WorkerView>, ClientError> {
        match self.ask("workers", Query::Workers).await? {
            Answer::Workers(workers) => Ok(workers),
            other => Err(unfit("workers", &other)),
        }
    }

    /// A page of the jobs that a filter takes.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn jobs(
        &self,
        filter: JobFilter,
        after: Option<String>,
        limit: u32,
    ) -> Result<JobPage, ClientError> {
        let query = Query::Jobs {
            filter,
            after,
            limit,
        };
        match self.ask("jobs", query).await? {
            Answer::Jobs { jobs, next } => Ok(JobPage { jobs, next }),
            other => Err(unfit("jobs", &other)),
        }
    }

    /// One step of a search over jobs, newest first; `after` is where the step before
    /// ended.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn search(
        &self,
        search: JobSearch,
        after: Option<String>,
        limit: u32,
    ) -> Result<Found, ClientError> {
        let query = Query::Search {
            search: Box::new(search),
            after,
            limit,
        };
        match self.ask("the search", query).await? {
            Answer::Found(found) => Ok(found),
            other => Err(unfit("the search", &other)),
        }
    }

    /// The failed jobs in groups, the largest first.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn failures(&self) -> Result<Vec<FailureGroup>, ClientError> {
        match self.ask("the failures", Query::Failures).await? {
            Answer::Failures(groups) => Ok(groups),
            other => Err(unfit("the failures", &other)),
        }
    }

    /// The recent history in numbers: the latest `points` steps that began at `since` or
    /// later.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn series(
        &self,
        step: Step,
        since: Option<Timestamp>,
        points: u32,
    ) -> Result<Series, ClientError> {
        let query = Query::Series {
            step,
            since,
            points,
        };
        match self.ask("the series", query).await? {
            Answer::Series(series) => Ok(*series),
            other => Err(unfit("the series", &other)),
        }
    }

    /// How long things took since the manager's start.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn latencies(&self) -> Result<Latencies, ClientError> {
        match self.ask("the latencies", Query::Latencies).await? {
            Answer::Latencies(latencies) => Ok(latencies),
            other => Err(unfit("the latencies", &other)),
        }
    }

    /// What the manager still knows of its event stream, oldest first, for a view that comes
    /// later than its events.
    ///
    /// # Errors
    /// As [`query`](Self::query); managers before this question refuse it.
    pub async fn recent_events(&self, after: u64) -> Result<Recent, ClientError> {
        match self.ask("recent events", Query::Recent { after }).await? {
            Answer::Recent(recent) => Ok(recent),
            other => Err(unfit("recent events", &other)),
        }
    }

    /// Everything about one job.
    ///
    /// # Errors
    /// As [`query`](Self::query); a job that is not known is refused.
    pub async fn job(&self, id: &JobId) -> Result<JobDetail, ClientError> {
        match self.ask("the job", Query::Job { id: id.clone() }).await? {
            Answer::Job(detail) => Ok(*detail),
            other => Err(unfit("the job", &other)),
        }
    }

    /// Runs failed jobs again; others count as skipped.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn retry(&self, selector: Selector) -> Result<Changed, ClientError> {
        self.change("the retry", Query::Retry { selector }).await
    }

    /// Stops jobs that have not ended.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn cancel(&self, selector: Selector) -> Result<Changed, ClientError> {
        self.change("the cancellation", Query::Cancel { selector })
            .await
    }

    /// Forgets failed jobs; others count as skipped.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn discard(&self, selector: Selector) -> Result<Changed, ClientError> {
        self.change("the discarding", Query::Discard { selector })
            .await
    }

    /// Dispatches nothing more, of one phase or at all.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn pause(&self, phase: Option<JobType>) -> Result<Changed, ClientError> {
        self.change("the pause", Query::Pause { phase }).await
    }

    /// Dispatches again.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn resume(&self, phase: Option<JobType>) -> Result<Changed, ClientError> {
        self.change("the resumption", Query::Resume { phase }).await
    }

    /// Lets a worker finish and leave, or the manager itself.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn drain(&self, worker: Option<WorkerId>) -> Result<Changed, ClientError> {
        self.change("the drain", Query::Drain { worker }).await
    }

    async fn change(&self, what: &'static str, query: Query) -> Result<Changed, ClientError> {
        match self.ask(what, query).await? {
            Answer::Changed { count, skipped } => Ok(Changed { count, skipped }),
            other => Err(unfit(what, &other)),
        }
    }

    /// Closes the client; with a pull address it writes what was handed over first, for
    /// at most `linger`.
    ///
    /// # Errors
    /// When messages handed over were not written to the network in time.
    pub async fn close(self, linger: Duration) -> Result<(), ClientError> {
        self.conversation.close();
        let pushes = self.conversation.take_pushes();
        let deadline = Instant::now() + linger;
        let mut undelivered = 0;
        for mut push in pushes {
            // Another clone of the client may be handing over right now.
            let alone = loop {
                match Arc::try_unwrap(push) {
                    Ok(alone) => break Some(alone),
                    Err(shared) if Instant::now() < deadline => push = shared,
                    Err(shared) => {
                        undelivered += shared.pending();
                        break None;
                    }
                }
                async_io::Timer::after(Duration::from_millis(1)).await;
            };
            let Some(alone) = alone else { continue };
            let left = deadline.saturating_duration_since(Instant::now());
            if let CloseOutcome::Undelivered { messages } = alone.close(left).await {
                undelivered += messages.len();
            }
        }
        if undelivered > 0 {
            return Err(ClientError::NotDelivered {
                messages: undelivered,
                waited: linger,
            });
        }
        Ok(())
    }
}

fn unfit(what: &'static str, answer: &Answer) -> ClientError {
    let kind = match answer {
        Answer::Info(_) => "info",
        Answer::Stats(_) => "stats",
        Answer::Workers(_) => "workers",
        Answer::Jobs { .. } => "jobs",
        Answer::Job(_) => "job",
        Answer::Changed { .. } => "changed",
        Answer::Series(_) => "series",
        Answer::Latencies(_) => "latencies",
        Answer::Found(_) => "found",
        Answer::Failures(_) => "failures",
        Answer::Recent(_) => "recent",
    };
    ClientError::Answer {
        what,
        reason: format!("it is an answer of type {kind}"),
    }
}
