//! One well-formed message of each kind and shape, to begin with.

use bytes::Bytes;
use carbontube_protocol::message::{
    Ack, Answer, AttemptResult, AttemptView, Cancel, Code, Dispatch, DispatchedJob, Drain, Ended,
    EndedJob, Enqueue, EnqueueOutcome, Enqueued, ErrorReport, Event, EventKind, Events,
    FailureKind, Goodbye, HandBack, HandBackReason, HandedBack, Heartbeat, Held, HeldFor,
    HeldState, Hello, JobDetail, JobFilter, JobState, JobView, LogLevel, LogLine, Logs,
    ManagerState, Message, NewJob, Outcome, PipeHead, Progress, ProgressItem, Query, QueryAnswer,
    QueryRequest, Recall, Refusal, Results, Selector, Wait, WorkerState, WorkerStatus, WorkerView,
};
use carbontube_protocol::{
    Address, AttemptId, JobId, JobType, ManagerId, PipelineName, Timestamp, WorkerId,
};

/// A job's id.
pub fn job(n: usize) -> JobId {
    if n.is_multiple_of(3) {
        return JobId::from_uuid_bytes([n as u8; 16]);
    }
    JobId::new(&format!("job-{n}")).expect("a short text without spaces")
}

/// A phase's name.
pub fn job_type(text: &str) -> JobType {
    JobType::new(text).expect("a name of ours")
}

/// The pipeline that the targets know.
pub fn pipeline() -> PipelineName {
    PipelineName::new("videos").expect("a name of ours")
}

/// A worker.
pub fn worker(n: usize) -> WorkerId {
    WorkerId::from_bytes([n as u8; 16])
}

/// A manager.
pub fn manager(n: usize) -> ManagerId {
    ManagerId::from_bytes([n as u8; 16])
}

fn attempt(counter: u64) -> AttemptId {
    AttemptId { epoch: 1, counter }
}

fn error() -> ErrorReport {
    ErrorReport {
        message: "no such file".to_owned(),
        detail: "Traceback\n".to_owned(),
    }
}

fn object() -> Bytes {
    Bytes::from_static(br#"{"path": "a.mp4", "n": 1}"#)
}

fn head(sequence: u64) -> PipeHead {
    PipeHead {
        manager: manager(7),
        epoch: 1,
        sequence,
    }
}

/// Every kind of message.
pub fn messages() -> Vec<Message> {
    let mut all = from_clients();
    all.extend(to_clients());
    all.extend(to_workers());
    all.extend(from_workers());
    all
}

/// What clients send.
pub fn from_clients() -> Vec<Message> {
    let new = |id: Option<JobId>, delay_ms| NewJob {
        id,
        delay_ms,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        instructions: object(),
    };
    let filter = JobFilter {
        state: Some(JobState::Failed),
        phase: Some(job_type("split")),
        error: Some("file".to_owned()),
        id_prefix: Some("job".to_owned()),
    };
    let by_id = || Selector::Ids(vec![job(1), job(3)]);
    let queries = [
        Query::Info,
        Query::Stats,
        Query::Workers,
        Query::Jobs {
            filter: filter.clone(),
            after: Some("1".to_owned()),
            limit: 10,
        },
        Query::Jobs {
            filter: JobFilter::default(),
            after: None,
            limit: 1000,
        },
        Query::Job { id: job(1) },
        Query::Retry {
            selector: Selector::Filter(filter),
        },
        Query::Cancel { selector: by_id() },
        Query::Discard { selector: by_id() },
        Query::Pause {
            phase: Some(job_type("encode")),
        },
        Query::Resume { phase: None },
        Query::Drain {
            worker: Some(worker(1)),
        },
    ];
    let mut all: Vec<Message> = queries
        .into_iter()
        .map(|query| Message::from(QueryRequest { request: 9, query }))
        .collect();
    all.push(
        Enqueue {
            request: 1,
            pipeline: pipeline(),
            jobs: vec![new(Some(job(1)), 0), new(Some(job(3)), 50), new(None, 0)],
        }
        .into(),
    );
    all.push(
        Wait {
            request: 2,
            pipeline: pipeline(),
            ids: vec![job(1), job(3), job(5)],
        }
        .into(),
    );
    all
}

/// What the manager answers and publishes.
pub fn to_clients() -> Vec<Message> {
    let view = JobView {
        id: job(1),
        state: JobState::Failed,
        job_type: job_type("encode"),
        phase: 0,
        reason: "out of attempts".to_owned(),
        attempt: 3,
        enqueued_at: Timestamp(1),
        changed_at: Timestamp(2),
        worker: Some(worker(1)),
        error: Some("no such file".to_owned()),
    };
    let detail = JobDetail {
        view: view.clone(),
        error: Some(error()),
        failure: Some(FailureKind::Error),
        not_before: Some(Timestamp(9)),
        attempts: vec![AttemptView {
            phase: 0,
            worker: Some(worker(1)),
            started_at: Timestamp(1),
            finished_at: Timestamp(2),
            failure: Some(FailureKind::Error),
            error: "no such file".to_owned(),
        }],
        traceparent: None,
        instructions: object(),
    };
    let seen = WorkerView {
        worker: worker(1),
        job_type: job_type("encode"),
        address: Address::tcp("127.0.0.1", 5050),
        status: WorkerStatus::Available,
        slots: 4,
        held: 2,
        running: 1,
        success_count: 5,
        failed_count: 1,
        last_seen_at: Timestamp(3),
        started_at: Timestamp(1),
        host: "box".to_owned(),
        pid: 17,
        version: "0.1.0".to_owned(),
    };
    let answers = [
        Answer::Workers(vec![seen]),
        Answer::Jobs {
            jobs: vec![view],
            next: Some("1".to_owned()),
        },
        Answer::Job(Box::new(detail)),
        Answer::Changed {
            count: 1,
            skipped: 1,
        },
    ];
    let mut all: Vec<Message> = answers
        .into_iter()
        .map(|answer| Message::from(QueryAnswer { request: 9, answer }))
        .collect();
    all.push(
        Enqueued {
            request: 1,
            outcomes: vec![
                EnqueueOutcome::Accepted { id: job(1) },
                EnqueueOutcome::Duplicate {
                    id: job(3),
                    state: JobState::Running,
                },
                EnqueueOutcome::Rejected {
                    id: None,
                    code: Code::Instructions,
                    message: "an array".to_owned(),
                },
            ],
        }
        .into(),
    );
    all.push(
        Ended {
            request: 2,
            jobs: vec![EndedJob {
                id: job(1),
                state: Some(JobState::Success),
                error: None,
                result: object(),
            }],
        }
        .into(),
    );
    all.push(
        Refusal {
            request: Some(2),
            code: Code::Busy,
            message: "wait".to_owned(),
        }
        .into(),
    );
    let kinds = [
        EventKind::Manager {
            state: ManagerState::Running,
            reason: "has started".to_owned(),
        },
        EventKind::Job {
            job: job(1),
            state: JobState::Running,
            job_type: job_type("encode"),
            worker: Some(worker(1)),
            error: None,
        },
        EventKind::Progress {
            worker: worker(1),
            job_type: job_type("encode"),
            item: progress(),
        },
    ];
    let events = kinds.into_iter().map(|kind| Event {
        at: Timestamp(5),
        kind,
    });
    all.push(
        Events {
            pipeline: pipeline(),
            manager: manager(7),
            epoch: 1,
            sequence: 1,
            events: events.collect(),
            dropped: 0,
        }
        .into(),
    );
    all
}

/// What the manager sends to a worker.
pub fn to_workers() -> Vec<Message> {
    let work = |counter: u64, timeout_ms| DispatchedJob {
        attempt: attempt(counter),
        job: job(counter as usize),
        phase: 0,
        job_type: job_type("encode"),
        number: 1,
        timeout_ms,
        traceparent: None,
        instructions: object(),
    };
    let attempts = || vec![attempt(1), attempt(2)];
    vec![
        Hello {
            head: head(1),
            pipeline: pipeline(),
            worker_timeout_ms: 5000,
        }
        .into(),
        Dispatch {
            head: head(2),
            worker: None,
            pipeline: pipeline(),
            jobs: vec![work(1, 0), work(2, 100)],
        }
        .into(),
        Ack {
            head: head(3),
            route: 0,
            attempts: attempts(),
        }
        .into(),
        Recall {
            head: head(4),
            attempts: attempts(),
        }
        .into(),
        Cancel {
            head: head(5),
            attempts: attempts(),
        }
        .into(),
        Drain { head: head(6) }.into(),
    ]
}

fn progress() -> ProgressItem {
    ProgressItem {
        job: job(1),
        attempt: attempt(1),
        fraction: 0.4,
        text: "half".to_owned(),
    }
}

/// What workers send.
pub fn from_workers() -> Vec<Message> {
    let result = |counter: u64, outcome| AttemptResult {
        attempt: attempt(counter),
        job: job(counter as usize),
        phase: 0,
        started_at: Timestamp(1),
        finished_at: Timestamp(2),
        outcome,
        instructions: object(),
    };
    let held = |counter: u64, state| Held {
        attempt: attempt(counter),
        job: job(counter as usize),
        phase: 0,
        state,
    };
    let failure = Outcome::Failure {
        kind: FailureKind::Panic,
        error: error(),
        retry: true,
    };
    vec![
        Results {
            worker: worker(1),
            route: 0,
            results: vec![result(1, Outcome::Success), result(2, failure)],
        }
        .into(),
        HandBack {
            worker: worker(1),
            reason: HandBackReason::Draining,
            attempts: vec![HandedBack {
                attempt: attempt(1),
                job: job(1),
                phase: 0,
            }],
        }
        .into(),
        Goodbye { worker: worker(1) }.into(),
        heartbeat(
            worker(1),
            vec![
                held(1, HeldState::Running),
                held(2, HeldState::Queued),
                held(3, HeldState::Done),
            ],
        )
        .into(),
        Logs {
            worker: worker(1),
            sequence: 3,
            job_type: job_type("encode"),
            lines: vec![LogLine {
                job: job(1),
                attempt: attempt(1),
                at: Timestamp(2),
                level: LogLevel::Info,
                text: "frame 1".to_owned(),
            }],
            dropped: 1,
        }
        .into(),
        Progress {
            worker: worker(1),
            sequence: 4,
            job_type: job_type("encode"),
            items: vec![progress()],
        }
        .into(),
    ]
}

/// A worker's heartbeat.
pub fn heartbeat(worker: WorkerId, held: Vec<Held>) -> Heartbeat {
    Heartbeat {
        worker,
        sequence: 2,
        job_type: job_type("encode"),
        address: Address::tcp("127.0.0.1", 5050),
        shared_address: false,
        slots: 4,
        state: WorkerState::Available,
        managers: vec![HeldFor {
            manager: manager(7),
            epoch: 1,
            sequence: 2,
            held,
        }],
        success_count: 1,
        failed_count: 0,
        host: "box".to_owned(),
        pid: 17,
        started_at: Timestamp(1),
        version: "0.1.0".to_owned(),
    }
}

/// Messages of the original: on PULL, then topics and bodies on SUB.
pub const ORIGINAL_PULLED: &[&str] = &[
    r#"{"name": "videos", "instructions": {"path": "a"}}"#,
    r#"{"id": "x", "pipeline": "videos", "instructions": {"name": "videos", "instructions": {"a": 1}}}"#,
    r#"{"id": "x", "job_type": "encode", "success": true, "job_started_at": 1.5, "job_finished_at": 2.5, "instructions": {"a": 1}}"#,
    r#"{"id": "x", "job_type": "encode", "success": false, "job_finished_at": 2, "error": {"traceback": "T\nE: no"}}"#,
];

/// Topics and bodies of the original's events.
pub const ORIGINAL_EVENTS: &[(&str, &str)] = &[
    (
        "encode:available",
        r#"{"id": "w", "address": "tcp://127.0.0.1:5050", "job_type": "encode", "success_count": 1, "failed_count": 0}"#,
    ),
    ("encode:logs", r#"{"msg": "frame 1"}"#),
    ("encode:metrics", r#"{"a": 1}"#),
];
