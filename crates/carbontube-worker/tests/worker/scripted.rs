//! A manager that does what a test tells it, and phases that tests use.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    Ack, AttemptResult, Cancel, Dispatch, DispatchedJob, Drain, HandBack, Heartbeat, Hello,
    Outcome, PipeHead, Recall,
};
use carbontube_protocol::{
    AttemptId, Codec, JobId, JobType, Limits, ManagerId, Message, PipelineName, decode,
    decode_event, encode,
};
use carbontube_transport::{Address, Endpoint, Options, Pull, Push, Subscribe};
use carbontube_worker::{AnyPhase, JobContext, Phase, PhaseError, Worker, WorkerOptions};
use futures_lite::future;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test with a deadline over all of it.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    carbontube_transport::init_runtime();
    let test = Box::pin(test);
    async_std::task::block_on(within(Duration::from_secs(90), "the whole test", test))
}

pub(crate) async fn within<T>(time: Duration, what: &str, work: impl Future<Output = T>) -> T {
    let work = Box::pin(work);
    future::or(async { Some(work.await) }, async {
        async_io::Timer::after(time).await;
        None
    })
    .await
    .unwrap_or_else(|| panic!("{what}: not within {time:?}"))
}

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    within(PATIENCE, what, work).await
}

/// Waits until a state is reached.
pub(crate) async fn reached(what: &str, mut state: impl FnMut() -> bool) {
    soon(what, async {
        while !state() {
            async_io::Timer::after(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().expect("a test's own address")
}

pub(crate) fn job_type() -> JobType {
    JobType::new("test-phase").expect("a valid name")
}

pub(crate) fn attempt(counter: u64) -> AttemptId {
    AttemptId { epoch: 1, counter }
}

pub(crate) fn job(counter: u64) -> JobId {
    JobId::new(&format!("job-{counter}")).expect("a valid id")
}

pub(crate) fn work(counter: u64, instructions: &str) -> DispatchedJob {
    DispatchedJob {
        attempt: attempt(counter),
        job: job(counter),
        phase: 0,
        job_type: job_type(),
        number: 1,
        timeout_ms: 0,
        traceparent: None,
        instructions: Bytes::copy_from_slice(instructions.as_bytes()),
    }
}

/// A manager's sockets, and its side of one worker's pipe.
pub(crate) struct Manager {
    pub(crate) id: ManagerId,
    pub(crate) epoch: u64,
    pub(crate) codec: Codec,
    pub(crate) pull: Pull,
    pub(crate) subscribe: Subscribe,
    pub(crate) pipe: Option<Push>,
    sequence: u64,
}

impl Manager {
    pub(crate) async fn open() -> Manager {
        Manager::open_at(address("tcp://127.0.0.1:0"), address("tcp://127.0.0.1:0")).await
    }

    pub(crate) async fn open_at(pull: Address, subscribe: Address) -> Manager {
        let options = Options::default();
        let pull = Pull::open(options.clone(), [Endpoint::Bind(pull)])
            .await
            .expect("pull");
        let subscribe = Subscribe::open(options, [Endpoint::Bind(subscribe)], [""])
            .await
            .expect("subscribe");
        Manager {
            id: ManagerId::from_bytes([7; 16]),
            epoch: 1,
            codec: Codec::Bincode,
            pull,
            subscribe,
            pipe: None,
            sequence: 0,
        }
    }

    pub(crate) fn options(&self) -> WorkerOptions {
        let mut options = WorkerOptions::new(job_type());
        options.pull = vec![Endpoint::Bind(address("tcp://127.0.0.1:0"))];
        options.push_connect = self.pull.local_addresses();
        options.pub_connect = self.subscribe.local_addresses();
        options
    }

    /// Connects to a worker and says hello.
    pub(crate) async fn meet(&mut self, worker: &Worker) {
        self.dial(worker.address()).await;
    }

    pub(crate) async fn dial(&mut self, address: &Address) {
        let pipe = Push::open(Options::default(), address.clone())
            .await
            .expect("pipe");
        self.pipe = Some(pipe);
        let hello = Hello {
            head: self.head(),
            pipeline: PipelineName::new("test").expect("a valid name"),
            worker_timeout_ms: 5000,
        };
        self.send(hello).await;
    }

    pub(crate) fn head(&mut self) -> PipeHead {
        self.sequence += 1;
        PipeHead {
            manager: self.id,
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }

    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        let frames = encode(&message.into(), self.codec);
        let pipe = self.pipe.as_ref().expect("the pipe is open");
        soon("sending", pipe.send(frames)).await.expect("sent");
    }

    pub(crate) async fn dispatch(&mut self, jobs: Vec<DispatchedJob>) {
        let head = self.head();
        let pipeline = PipelineName::new("test").expect("a valid name");
        self.send(Dispatch {
            head,
            worker: None,
            pipeline,
            jobs,
        })
        .await;
    }

    pub(crate) async fn recall(&mut self, counters: &[u64]) {
        let head = self.head();
        let attempts = counters.iter().copied().map(attempt).collect();
        self.send(Recall { head, attempts }).await;
    }

    pub(crate) async fn cancel(&mut self, counters: &[u64]) {
        let head = self.head();
        let attempts = counters.iter().copied().map(attempt).collect();
        self.send(Cancel { head, attempts }).await;
    }

    pub(crate) async fn acknowledge(&mut self, counters: &[u64]) {
        let head = self.head();
        let attempts = counters.iter().copied().map(attempt).collect();
        self.send(Ack {
            head,
            route: 0,
            attempts,
        })
        .await;
    }

    pub(crate) async fn drain(&mut self) {
        let head = self.head();
        self.send(Drain { head }).await;
    }

    /// The next message on PULL.
    pub(crate) async fn received(&mut self) -> Message {
        let frames = soon("a message", self.pull.recv()).await.expect("open");
        decode(&frames, &Limits::default()).expect("a message of ours")
    }

    /// The next so many results.
    pub(crate) async fn results(&mut self, count: usize) -> Vec<AttemptResult> {
        let mut results = Vec::new();
        while results.len() < count {
            match self.received().await {
                Message::Results(more) => results.extend(more.results),
                other => panic!("expected results, found {other:?}"),
            }
        }
        results.sort_by_key(|result| result.attempt);
        results
    }

    pub(crate) async fn result(&mut self) -> AttemptResult {
        self.results(1).await.remove(0)
    }

    pub(crate) async fn hand_back(&mut self) -> HandBack {
        match self.received().await {
            Message::HandBack(hand_back) => hand_back,
            other => panic!("expected a hand-back, found {other:?}"),
        }
    }

    /// The next event that a test wants.
    pub(crate) async fn event<T>(
        &mut self,
        mut wanted: impl FnMut(&str, Message) -> Option<T>,
    ) -> T {
        soon("an event", async {
            loop {
                let frames = self.subscribe.recv().await.expect("open");
                let (topic, message) =
                    decode_event(&frames, &Limits::default()).expect("an event of ours");
                let topic = std::str::from_utf8(topic).expect("a topic is text");
                if let Some(found) = wanted(topic, message) {
                    return found;
                }
            }
        })
        .await
    }

    pub(crate) async fn heartbeat(&mut self, wanted: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        self.event(|topic, message| match message {
            Message::Heartbeat(heartbeat) if wanted(&heartbeat) => {
                assert_eq!(topic, "available");
                Some(heartbeat)
            }
            _ => None,
        })
        .await
    }
}

/// How an attempt failed, for comparing.
pub(crate) fn failure(
    result: &AttemptResult,
) -> (carbontube_worker::FailureKind, &str, &str, bool) {
    match &result.outcome {
        Outcome::Failure { kind, error, retry } => (*kind, &error.message, &error.detail, *retry),
        Outcome::Success => panic!("the attempt succeeded: {result:?}"),
    }
}

/// A phase that is a function.
pub(crate) struct Function<F>(pub(crate) F);

impl<F, R> Phase for Function<F>
where
    F: Fn(JobContext, serde_json::Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<serde_json::Value, PhaseError>> + Send,
{
    type Instructions = serde_json::Value;
    type Output = serde_json::Value;

    async fn execute(
        &self,
        job: &JobContext,
        instructions: serde_json::Value,
    ) -> Result<serde_json::Value, PhaseError> {
        (self.0)(job.clone(), instructions).await
    }
}

/// Erases a function.
pub(crate) fn phase<F, R>(function: F) -> AnyPhase
where
    F: Fn(JobContext, serde_json::Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<serde_json::Value, PhaseError>> + Send + 'static,
{
    AnyPhase::from_async(Function(function))
}

/// A phase that never ends by itself.
pub(crate) fn endless() -> AnyPhase {
    phase(|_, _| future::pending())
}
