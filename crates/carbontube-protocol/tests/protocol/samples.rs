//! One message of every kind, the same in golden vectors, property tests and the specification.

use bytes::Bytes;
use carbontube_protocol::message::*;
use carbontube_protocol::{AttemptId, JobId, ManagerId, Message, Timestamp, WorkerId};

pub(crate) fn job(text: &str) -> JobId {
    JobId::new(text).expect("a sample id")
}

pub(crate) fn uuid_job() -> JobId {
    job("01937a5e-7c00-7000-8000-000000000001")
}

pub(crate) fn worker() -> WorkerId {
    WorkerId::from_bytes([0x11; 16])
}

pub(crate) fn manager() -> ManagerId {
    ManagerId::from_bytes([0x22; 16])
}

pub(crate) fn attempt(counter: u64) -> AttemptId {
    AttemptId { epoch: 3, counter }
}

fn head() -> PipeHead {
    PipeHead {
        manager: manager(),
        epoch: 3,
        sequence: 42,
    }
}

fn json(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

const AT: Timestamp = Timestamp(1_764_000_000_000_000);
const LATER: Timestamp = Timestamp(1_764_000_001_500_000);

fn view() -> JobView {
    JobView {
        id: uuid_job(),
        state: JobState::Scheduled,
        job_type: "encode-video".parse().expect("a sample name"),
        phase: 0,
        reason: "waits for its next attempt".to_owned(),
        attempt: 2,
        enqueued_at: AT,
        changed_at: LATER,
        worker: None,
        error: Some("exited with status 1".to_owned()),
    }
}

/// One message of every kind, in the order of the specification.
pub(crate) fn all() -> Vec<Message> {
    let pipeline: carbontube_protocol::PipelineName = "video".parse().expect("a sample name");
    let encode: carbontube_protocol::JobType = "encode-video".parse().expect("a sample name");
    let address: carbontube_protocol::Address =
        "tcp://127.0.0.1:3000".parse().expect("a sample address");
    let error = ErrorReport {
        message: "exited with status 1".into(),
        detail: "no such file".into(),
    };
    let held = |counter, state| Held {
        attempt: attempt(counter),
        job: uuid_job(),
        phase: 0,
        state,
    };
    let line = LogLine {
        job: uuid_job(),
        attempt: attempt(7),
        at: AT,
        level: LogLevel::Info,
        text: "frame 100".into(),
    };
    let item = ProgressItem {
        job: uuid_job(),
        attempt: attempt(7),
        fraction: 0.5,
        text: "half way".into(),
    };
    vec![
        Enqueue {
            request: 1,
            pipeline: pipeline.clone(),
            jobs: vec![
                NewJob {
                    id: Some(uuid_job()),
                    delay_ms: 0,
                    traceparent: None,
                    instructions: json(r#"{"video_path":"/tmp/video1.mp4"}"#),
                },
                NewJob {
                    id: Some(job("order-7")),
                    delay_ms: 5000,
                    traceparent: Some(
                        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
                    ),
                    instructions: json("{}"),
                },
            ],
        }
        .into(),
        Enqueued {
            request: 1,
            outcomes: vec![
                EnqueueOutcome::Accepted { id: uuid_job() },
                EnqueueOutcome::Duplicate {
                    id: job("order-7"),
                    state: JobState::Running,
                },
                EnqueueOutcome::Rejected {
                    id: None,
                    code: Code::Instructions,
                    message: "instructions are a JSON object".into(),
                },
            ],
        }
        .into(),
        QueryRequest {
            request: 2,
            query: Query::Jobs {
                filter: JobFilter {
                    state: Some(JobState::Failed),
                    ..JobFilter::default()
                },
                after: None,
                limit: 100,
            },
        }
        .into(),
        QueryAnswer {
            request: 2,
            answer: Answer::Job(Box::new(JobDetail {
                view: view(),
                error: Some(error.clone()),
                failure: Some(FailureKind::Error),
                not_before: Some(LATER),
                attempts: vec![AttemptView {
                    phase: 0,
                    worker: Some(worker()),
                    started_at: AT,
                    finished_at: LATER,
                    failure: Some(FailureKind::Error),
                    error: "exited with status 1".into(),
                }],
                traceparent: None,
                instructions: json(r#"{"video_path":"/tmp/video1.mp4"}"#),
            })),
        }
        .into(),
        Wait {
            request: 3,
            pipeline: pipeline.clone(),
            ids: vec![uuid_job()],
        }
        .into(),
        Ended {
            request: 3,
            jobs: vec![EndedJob {
                id: uuid_job(),
                state: Some(JobState::Success),
                error: None,
                result: json(r#"{"segments":4}"#),
            }],
        }
        .into(),
        Refusal {
            request: Some(4),
            code: Code::UnknownPipeline,
            message: "this manager runs video, not audio".into(),
        }
        .into(),
        Hello {
            head: head(),
            pipeline: pipeline.clone(),
            worker_timeout_ms: 5000,
        }
        .into(),
        Dispatch {
            head: head(),
            worker: Some(worker()),
            pipeline: pipeline.clone(),
            jobs: vec![DispatchedJob {
                attempt: attempt(7),
                job: uuid_job(),
                phase: 0,
                job_type: encode.clone(),
                number: 1,
                timeout_ms: 600_000,
                traceparent: None,
                instructions: json(r#"{"video_path":"/tmp/video1.mp4"}"#),
            }],
        }
        .into(),
        Ack {
            head: head(),
            route: 0,
            attempts: vec![attempt(7), attempt(8)],
        }
        .into(),
        Recall {
            head: head(),
            attempts: vec![attempt(9)],
        }
        .into(),
        Cancel {
            head: head(),
            attempts: vec![attempt(7)],
        }
        .into(),
        Drain { head: head() }.into(),
        Results {
            worker: worker(),
            route: 0,
            results: vec![
                AttemptResult {
                    attempt: attempt(7),
                    job: uuid_job(),
                    phase: 0,
                    started_at: AT,
                    finished_at: LATER,
                    outcome: Outcome::Success,
                    instructions: json(r#"{"video_path":"/tmp/video1.mp4","encoded":true}"#),
                },
                AttemptResult {
                    attempt: attempt(8),
                    job: job("order-7"),
                    phase: 0,
                    started_at: AT,
                    finished_at: LATER,
                    outcome: Outcome::Failure {
                        kind: FailureKind::Error,
                        error,
                        retry: true,
                    },
                    instructions: Bytes::new(),
                },
            ],
        }
        .into(),
        HandBack {
            worker: worker(),
            reason: HandBackReason::Recalled,
            attempts: vec![HandedBack {
                attempt: attempt(9),
                job: uuid_job(),
                phase: 1,
            }],
        }
        .into(),
        Goodbye { worker: worker() }.into(),
        Heartbeat {
            worker: worker(),
            sequence: 12,
            job_type: encode.clone(),
            address,
            shared_address: false,
            slots: 4,
            state: WorkerState::Available,
            managers: vec![HeldFor {
                manager: manager(),
                epoch: 3,
                sequence: 42,
                held: vec![held(7, HeldState::Running), held(9, HeldState::Queued)],
            }],
            success_count: 10,
            failed_count: 1,
            host: "gpu-1".into(),
            pid: 4711,
            started_at: AT,
            version: "0.1.0".into(),
        }
        .into(),
        Logs {
            worker: worker(),
            sequence: 13,
            job_type: encode.clone(),
            lines: vec![line],
            dropped: 0,
        }
        .into(),
        Progress {
            worker: worker(),
            sequence: 14,
            job_type: encode.clone(),
            items: vec![item],
        }
        .into(),
        Events {
            manager: manager(),
            epoch: 3,
            pipeline,
            sequence: 5,
            events: vec![Event {
                at: AT,
                kind: EventKind::Job {
                    job: uuid_job(),
                    state: JobState::Running,
                    job_type: encode,
                    worker: Some(worker()),
                    error: None,
                },
            }],
            dropped: 0,
        }
        .into(),
    ]
}
