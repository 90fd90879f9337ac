//! A manager on free ports, and peers that do exactly what a test says.

use std::collections::VecDeque;
use std::time::Duration;

use async_io::Timer;
use async_std::task::JoinHandle;
use bytes::Bytes;
use carbontube_manager::{
    Manager, ManagerAddresses, ManagerHandle, ManagerOptions, PhaseDefinition, PipelineDefinition,
    RunError,
};
use carbontube_protocol::message::{
    Answer, AttemptResult, Dispatch, DispatchedJob, Enqueue, EnqueueOutcome, Goodbye, Heartbeat,
    Held, HeldFor, HeldState, Message, NewJob, Outcome, PipeHead, Query, QueryRequest, Results,
    Stats, Wait, WorkerState,
};
use carbontube_protocol::{
    Address, AttemptId, Codec, Host, JobId, JobType, Limits, PipelineName, Timestamp, WorkerId,
    decode, encode, encode_event,
};
use carbontube_transport::{Dealer, Endpoint, Options, Publish, Pull, Push};
use futures_lite::future;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a worker that waits says that it is there.
const HEARTBEAT: Duration = Duration::from_millis(50);

pub(crate) fn loopback() -> Address {
    "tcp://127.0.0.1".parse().unwrap()
}

pub(crate) fn pipeline() -> PipelineName {
    PipelineName::new("films").unwrap()
}

pub(crate) fn job_type(name: &str) -> JobType {
    JobType::new(name).unwrap()
}

pub(crate) fn id(text: &str) -> JobId {
    JobId::new(text).unwrap()
}

/// Two phases, `cut` and `join`, on free ports and in memory.
pub(crate) fn options() -> ManagerOptions {
    let phases = ["cut", "join"].map(|name| PhaseDefinition::new(job_type(name)));
    let definition = PipelineDefinition::new(pipeline(), phases.to_vec()).unwrap();
    let mut options = ManagerOptions::new(definition);
    options.pull = vec![Endpoint::Bind(loopback())];
    options.subscribe = vec![Endpoint::Bind(loopback())];
    options.api = vec![loopback()];
    options.publish = vec![loopback()];
    options.storage = "memory:".to_owned();
    options
}

/// Runs a test; fails it when it takes too long.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    // Boxed: what waits for it copies it again and again, on a test's small stack.
    let test = Box::pin(test);
    async_std::task::block_on(within("the test", async move { Ok::<T, ()>(test.await) }))
}

async fn within<T, E: std::fmt::Debug>(what: &str, wait: impl Future<Output = Result<T, E>>) -> T {
    let late = async {
        Timer::after(PATIENCE * if what == "the test" { 3 } else { 1 }).await;
        panic!("{what} took too long")
    };
    future::or(wait, late).await.expect("it is not closed")
}

/// A manager that runs.
pub(crate) struct Running {
    pub(crate) addresses: ManagerAddresses,
    pub(crate) handle: ManagerHandle,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(options: ManagerOptions) -> Running {
        Running::of(Manager::start(options).await.expect("it starts"))
    }

    pub(crate) fn of(manager: Manager) -> Running {
        Running {
            addresses: manager.addresses().clone(),
            handle: manager.handle(),
            task: async_std::task::spawn(manager.run()),
        }
    }

    /// Waits for the end that something else brings about.
    pub(crate) async fn end(self) -> Result<(), RunError> {
        within(
            "the manager's end",
            async move { Ok::<_, ()>(self.task.await) },
        )
        .await
    }

    pub(crate) async fn stop(self) {
        self.handle.stop_now();
        self.end().await.expect("it ends in order");
    }

    /// The same places again, for a manager that is started anew.
    pub(crate) fn places(&self, options: &mut ManagerOptions) {
        let bind = |places: &[Address]| places.iter().cloned().map(Endpoint::Bind).collect();
        options.pull = bind(&self.addresses.pull);
        options.subscribe = bind(&self.addresses.subscribe);
        options.api.clone_from(&self.addresses.api);
        options.publish.clone_from(&self.addresses.publish);
    }
}

/// A client on the api socket.
pub(crate) struct Client {
    pub(crate) dealer: Dealer,
    pub(crate) codec: Codec,
    requests: u64,
}

impl Client {
    pub(crate) async fn connect(manager: &Running, codec: Codec) -> Client {
        let address = manager.addresses.api[0].clone();
        let dealer = Dealer::open(Options::default(), address).await.unwrap();
        dealer.connected(PATIENCE).await.expect("the api answers");
        Client {
            dealer,
            codec,
            requests: 0,
        }
    }

    pub(crate) async fn send(&self, message: impl Into<Message>) {
        let frames = encode(&message.into(), self.codec);
        self.dealer.send(frames).await.expect("it is sent");
    }

    pub(crate) async fn frames(&self) -> Vec<Bytes> {
        within("an answer", self.dealer.recv()).await
    }

    /// The next message; it must be in the codec that the client speaks.
    pub(crate) async fn next(&self) -> Message {
        let frames = self.frames().await;
        assert_eq!(frames[0][5], self.codec.byte(), "the answer's codec");
        decode(&frames, &Limits::default()).expect("an answer can be read")
    }

    pub(crate) async fn start_enqueue(&mut self, ids: &[&str]) -> u64 {
        self.requests += 1;
        let jobs = ids.iter().map(|text| NewJob {
            id: Some(id(text)),
            delay_ms: 0,
            traceparent: None,
            instructions: Bytes::from_static(b"{\"film\":1}"),
        });
        self.send(Enqueue {
            request: self.requests,
            pipeline: pipeline(),
            jobs: jobs.collect(),
        })
        .await;
        self.requests
    }

    pub(crate) async fn outcomes(&self, request: u64) -> Vec<EnqueueOutcome> {
        match self.next().await {
            Message::Enqueued(enqueued) if enqueued.request == request => enqueued.outcomes,
            other => panic!("expected the answer to request {request}, found {other:?}"),
        }
    }

    /// Enqueues jobs and waits until they are confirmed.
    pub(crate) async fn enqueue(&mut self, ids: &[&str]) {
        let request = self.start_enqueue(ids).await;
        let accepted = |text: &&str| EnqueueOutcome::Accepted { id: id(text) };
        let expected: Vec<_> = ids.iter().map(accepted).collect();
        assert_eq!(self.outcomes(request).await, expected);
    }

    pub(crate) async fn start_wait(&mut self, job: &str) {
        self.requests += 1;
        self.send(Wait {
            request: self.requests,
            pipeline: pipeline(),
            ids: vec![id(job)],
        })
        .await;
    }

    pub(crate) async fn ask(&mut self, query: Query) -> Answer {
        self.requests += 1;
        self.send(QueryRequest {
            request: self.requests,
            query,
        })
        .await;
        match self.next().await {
            Message::Answer(answer) if answer.request == self.requests => answer.answer,
            other => panic!("expected an answer, found {other:?}"),
        }
    }

    pub(crate) async fn stats(&mut self) -> Stats {
        match self.ask(Query::Stats).await {
            Answer::Stats(stats) => stats,
            other => panic!("expected statistics, found {other:?}"),
        }
    }

    /// Asks again and again until the statistics are as they should be.
    pub(crate) async fn stats_until(&mut self, what: &str, reached: impl Fn(&Stats) -> bool) {
        within(what, async {
            loop {
                let stats = self.stats().await;
                if reached(&stats) {
                    return Ok::<_, ()>(());
                }
                Timer::after(HEARTBEAT / 5).await;
            }
        })
        .await;
    }
}

pub(crate) fn counter(stats: &Stats, name: &str) -> u64 {
    let found = stats.counters.iter().find(|(found, _)| found == name);
    found.map_or(0, |(_, value)| *value)
}

/// A worker of one slot.
pub(crate) struct Worker {
    id: WorkerId,
    job_type: JobType,
    /// The name of its host, if it announces one.
    pub(crate) name: Option<&'static str>,
    pull: Pull,
    push: Push,
    publish: Publish,
    events: u64,
    heard: Option<PipeHead>,
    held: Vec<Held>,
    /// Jobs that came while something else was awaited.
    waiting: VecDeque<DispatchedJob>,
}

impl Worker {
    pub(crate) async fn start(manager: &Running, name: &str) -> Worker {
        let connect = |address: &Address| Endpoint::Connect(address.clone());
        let addresses = &manager.addresses;
        let options = Options::default;
        Worker {
            id: WorkerId::generate(),
            job_type: job_type(name),
            name: None,
            pull: Pull::open(options(), [Endpoint::Bind(loopback())])
                .await
                .unwrap(),
            push: Push::open(options(), addresses.pull[0].clone())
                .await
                .unwrap(),
            publish: Publish::open(options(), [connect(&addresses.subscribe[0])])
                .await
                .unwrap(),
            events: 0,
            heard: None,
            held: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    fn heartbeat(&mut self) {
        self.events += 1;
        let managers = self.heard.iter().map(|head| HeldFor {
            manager: head.manager,
            epoch: head.epoch,
            sequence: head.sequence,
            held: self.held.clone(),
        });
        let mut address = self.pull.local_addresses()[0].clone();
        if let (Some(name), Address::Tcp { host, .. }) = (self.name, &mut address) {
            *host = Host::Name(name.to_owned());
        }
        let heartbeat = Heartbeat {
            worker: self.id,
            sequence: self.events,
            job_type: self.job_type.clone(),
            address,
            shared_address: false,
            slots: 1,
            state: WorkerState::Available,
            managers: managers.collect(),
            success_count: 0,
            failed_count: 0,
            host: "here".to_owned(),
            pid: 1,
            started_at: Timestamp(1),
            version: "scripted".to_owned(),
        };
        let topic = format!("worker.{}", self.job_type);
        self.publish
            .send(encode_event(&topic, &heartbeat.into(), Codec::Bincode));
    }

    /// The next message on the pipe. Says that it is there until one comes.
    pub(crate) async fn next(&mut self) -> Message {
        let mut patience = PATIENCE.as_millis() / HEARTBEAT.as_millis();
        loop {
            self.heartbeat();
            let nothing = async {
                Timer::after(HEARTBEAT).await;
                None
            };
            let received = async { Some(self.pull.recv().await) };
            if let Some(frames) = future::or(received, nothing).await {
                let frames = frames.expect("the pull socket is open");
                let message = decode(&frames, &Limits::default()).expect("it can be read");
                self.note(&message);
                return message;
            }
            patience -= 1;
            assert!(patience > 0, "no message came on the pipe");
        }
    }

    fn note(&mut self, message: &Message) {
        let head = match message {
            Message::Hello(hello) => hello.head,
            Message::Dispatch(dispatch) => dispatch.head,
            Message::Ack(ack) => ack.head,
            Message::Recall(recall) => recall.head,
            Message::Cancel(cancel) => cancel.head,
            Message::Drain(drain) => drain.head,
            other => panic!("{other:?} does not belong on a pipe"),
        };
        self.heard = Some(head);
    }

    /// The next job; counts as running from now on.
    pub(crate) async fn job(&mut self) -> DispatchedJob {
        loop {
            if let Some(job) = self.waiting.pop_front() {
                return job;
            }
            match self.next().await {
                Message::Dispatch(dispatch) => self.take(dispatch),
                Message::Hello(_) | Message::Ack(_) => {}
                other => panic!("expected a job, found {other:?}"),
            }
        }
    }

    fn is_done(&self, attempt: AttemptId) -> bool {
        let mut held = self.held.iter();
        held.any(|held| held.attempt == attempt && held.state == HeldState::Done)
    }

    fn take(&mut self, dispatch: Dispatch) {
        for job in dispatch.jobs {
            let again = self.held.iter().any(|held| held.job == job.job);
            assert!(!again, "{} was dispatched again while it is held", job.job);
            self.held.push(Held {
                attempt: job.attempt,
                job: job.job.clone(),
                phase: job.phase,
                state: HeldState::Running,
            });
            self.waiting.push_back(job);
        }
    }

    /// Returns a result; the attempt is held until it is acknowledged.
    pub(crate) async fn succeed(&mut self, job: &DispatchedJob, instructions: &'static str) {
        for held in &mut self.held {
            if held.attempt == job.attempt {
                held.state = HeldState::Done;
            }
        }
        let results = Results {
            worker: self.id,
            route: 0,
            results: vec![AttemptResult {
                attempt: job.attempt,
                job: job.job.clone(),
                phase: job.phase,
                started_at: Timestamp(1),
                finished_at: Timestamp(2),
                outcome: Outcome::Success,
                instructions: Bytes::from_static(instructions.as_bytes()),
            }],
        };
        self.say(results).await;
    }

    pub(crate) async fn goodbye(self) {
        self.say(Goodbye { worker: self.id }).await;
        self.push.close(PATIENCE).await;
    }

    async fn say(&self, message: impl Into<Message>) {
        let frames = encode(&message.into(), Codec::Bincode);
        within("a connection to pull", self.push.send(frames)).await;
    }

    /// Waits until the job's result is acknowledged; the next job may come before.
    pub(crate) async fn acknowledged(&mut self, job: &DispatchedJob) {
        loop {
            match self.next().await {
                Message::Ack(ack) if ack.attempts.contains(&job.attempt) => {
                    self.held.retain(|held| held.attempt != job.attempt);
                    return;
                }
                Message::Dispatch(dispatch) => self.take(dispatch),
                Message::Hello(_) | Message::Ack(_) => {}
                // A heartbeat from before the result may arrive after it: the manager then
                // has no use for the attempt any more. What is done is not stopped by that.
                Message::Cancel(cancel) => assert!(
                    cancel.attempts.iter().all(|attempt| self.is_done(*attempt)),
                    "{cancel:?} stops what runs"
                ),
                other => panic!("expected an acknowledgement, found {other:?}"),
            }
        }
    }

    /// Takes the next job, succeeds and waits for the acknowledgement.
    pub(crate) async fn work(&mut self, instructions: &'static str) -> DispatchedJob {
        let job = self.job().await;
        self.succeed(&job, instructions).await;
        self.acknowledged(&job).await;
        job
    }
}
