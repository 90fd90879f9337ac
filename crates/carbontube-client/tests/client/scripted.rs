//! A manager that does what a test tells it to.

use std::future::Future;
use std::time::Duration;

use carbontube_client::{Address, ClientOptions, NewJob, PipelineClient, PipelineName};
use carbontube_protocol::message::{
    Answer, Code, Ended, EndedJob, Enqueue, EnqueueOutcome, Enqueued, JobState, ManagerInfo,
    ManagerState, Query, QueryAnswer, Refusal, Wait,
};
use carbontube_protocol::{
    Codec, JobId, JobType, Limits, ManagerId, Message, Timestamp, decode, encode,
};
use carbontube_transport::{Endpoint, Options, PeerId, Router};
use futures_lite::future;

/// The longest that a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test with a deadline over all of it.
pub(crate) fn run(test: impl Future<Output = ()>) {
    carbontube_transport::init_runtime();
    let test = Box::pin(test);
    async_std::task::block_on(future::or(test, async {
        async_io::Timer::after(PATIENCE).await;
        panic!("the test takes longer than {PATIENCE:?}");
    }));
}

pub(crate) fn any_port() -> Address {
    "tcp://127.0.0.1:0".parse().expect("an address")
}

pub(crate) fn pipeline() -> PipelineName {
    PipelineName::new("video-encoder-pipeline").expect("a name")
}

pub(crate) fn job(number: u32) -> NewJob {
    NewJob::from_json(format!("{{\"number\": {number}}}"))
}

/// Options for tests in which a timeout is what must not happen.
pub(crate) fn patient() -> ClientOptions {
    ClientOptions {
        busy_retry: Duration::from_millis(1)..=Duration::from_millis(4),
        ..ClientOptions::default()
    }
}

/// Options for tests in which a timeout is what must happen.
pub(crate) fn hasty() -> ClientOptions {
    ClientOptions {
        timeout: Duration::from_millis(300),
        ..patient()
    }
}

pub(crate) struct Scripted {
    router: Router,
    pub(crate) address: Address,
}

impl Scripted {
    pub(crate) async fn bind(address: Address) -> Scripted {
        let router = Router::open(Options::default(), [Endpoint::Bind(address)])
            .await
            .expect("the port can be bound");
        let address = router.local_addresses()[0].clone();
        Scripted { router, address }
    }

    pub(crate) async fn start() -> Scripted {
        Self::bind(any_port()).await
    }

    /// A scripted manager and a client that is connected to it.
    pub(crate) async fn with_client(options: ClientOptions) -> (Scripted, PipelineClient) {
        let mut manager = Self::start().await;
        let addresses = [manager.address.clone()];
        let (client, _) = future::zip(
            PipelineClient::connect(&addresses, options),
            manager.greet(),
        )
        .await;
        (manager, client.expect("the scripted manager answers"))
    }

    /// The next message, whatever it is, in frames.
    pub(crate) async fn frames(&mut self) -> (PeerId, carbontube_transport::Message) {
        self.router.recv().await.expect("the router is open")
    }

    /// Answers the greeting of one client; nothing else may come before it.
    pub(crate) async fn greet(&mut self) -> PeerId {
        let (peer, frames) = self.frames().await;
        let message = decode(&frames, &Limits::default()).expect("a client's message");
        assert!(self.answer_greeting(&peer, &message), "{message:?}");
        peer
    }

    fn answer_greeting(&self, peer: &PeerId, message: &Message) -> bool {
        let Message::Query(request) = message else {
            return false;
        };
        if request.query != Query::Info {
            return false;
        }
        let answer = QueryAnswer {
            request: request.request,
            answer: Answer::Info(info()),
        };
        self.send(peer, answer);
        true
    }

    /// The next message that is no greeting.
    pub(crate) async fn next(&mut self) -> (PeerId, Message) {
        loop {
            let (peer, frames) = self.frames().await;
            let message = decode(&frames, &Limits::default()).expect("a client's message");
            if !self.answer_greeting(&peer, &message) {
                return (peer, message);
            }
        }
    }

    pub(crate) async fn next_enqueue(&mut self) -> (PeerId, Enqueue) {
        match self.next().await {
            (peer, Message::Enqueue(enqueue)) => (peer, enqueue),
            (_, other) => panic!("expected jobs, got {other:?}"),
        }
    }

    pub(crate) async fn next_wait(&mut self) -> (PeerId, Wait) {
        match self.next().await {
            (peer, Message::Wait(wait)) => (peer, wait),
            (_, other) => panic!("expected a wait, got {other:?}"),
        }
    }

    pub(crate) fn send(&self, peer: &PeerId, message: impl Into<Message>) {
        self.send_frames(peer, encode(&message.into(), Codec::Bincode));
    }

    pub(crate) fn send_frames(&self, peer: &PeerId, frames: carbontube_transport::Message) {
        self.router
            .sender()
            .send(peer, frames)
            .expect("the client reads");
    }

    pub(crate) fn accept(&self, peer: &PeerId, enqueue: &Enqueue) {
        let accepted = |job: &carbontube_protocol::message::NewJob| EnqueueOutcome::Accepted {
            id: job.id.clone().expect("clients give ids"),
        };
        let outcomes = enqueue.jobs.iter().map(accepted).collect();
        self.answer_enqueue(peer, enqueue, outcomes);
    }

    pub(crate) fn answer_enqueue(
        &self,
        peer: &PeerId,
        enqueue: &Enqueue,
        outcomes: Vec<EnqueueOutcome>,
    ) {
        let request = enqueue.request;
        self.send(peer, Enqueued { request, outcomes });
    }

    pub(crate) fn refuse(&self, peer: &PeerId, request: Option<u64>, code: Code) {
        let message = format!("refused as the test wants it: {code}");
        let refusal = Refusal {
            request,
            code,
            message,
        };
        self.send(peer, refusal);
    }

    pub(crate) fn end(&self, peer: &PeerId, request: u64, ids: &[JobId]) {
        let ended = |id: &JobId| EndedJob {
            id: id.clone(),
            state: Some(JobState::Success),
            error: None,
            result: format!("{{\"id\":\"{id}\"}}").into(),
        };
        let jobs = ids.iter().map(ended).collect();
        self.send(peer, Ended { request, jobs });
    }

    pub(crate) fn peers(&self) -> usize {
        self.router.peers()
    }

    /// Goes, with every connection; returns the address to come back at.
    pub(crate) async fn leave(self) -> Address {
        self.router.close(Duration::from_secs(1)).await;
        self.address
    }
}

pub(crate) fn info() -> ManagerInfo {
    ManagerInfo {
        manager: ManagerId::from_bytes([7; 16]),
        epoch: 3,
        pipeline: pipeline(),
        phases: vec![JobType::new("encode-video").expect("a name")],
        version: "0.1.0".to_owned(),
        started_at: Timestamp(1_000_000),
        state: ManagerState::Running,
        pull: vec![],
        subscribe: vec![],
        publish: vec![],
        storage: "memory:".to_owned(),
    }
}
