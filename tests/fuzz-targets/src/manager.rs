//! A manager's core under arbitrary sequences of what clients, workers, the store and the
//! clock can do: raw frames of each socket, and messages that speak of real jobs.

use std::time::Duration;

use bytes::Bytes;
use carbontube_manager::core::{ClientId, Core, Input, PipeId};
use carbontube_manager::testing::{read_event, read_pulled, read_request};
use carbontube_protocol::message::{
    AttemptResult, Enqueue, ErrorReport, FailureKind, Goodbye, HandBack, HandBackReason,
    HandedBack, Held, HeldFor, HeldState, JobFilter, JobState, Message, NewJob, Outcome, Query,
    QueryRequest, Results, Selector, Wait, WorkerState,
};
use carbontube_protocol::{
    Address, AttemptId, Codec, Header, JobId, JobType, Kind, Timestamp, encode,
};

use crate::Target;
use crate::bed::{Bed, ReadAnswer, limits, options, recover};
use crate::draw::{Draw, push_piece};
use crate::frames::{DICTIONARY, check_round_trip};
use crate::samples;

/// The target.
pub const TARGET: Target = Target {
    name: "manager",
    about: "messages of clients and workers, commits, reads, time and restarts at the core",
    run,
    seeds,
    dictionary: DICTIONARY,
    bytes_max: 4096,
};

/// Steps of one input.
const STEPS_MAX: usize = 200;

const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(300),
    Duration::from_secs(2),
    Duration::from_secs(20),
    Duration::from_secs(90_000),
];

/// Does one step for each byte, with what it needs from the bytes behind it.
pub fn run(data: &[u8]) {
    let mut draw = Draw::new(data);
    let mut bed = Bed::new();
    for _ in 0..STEPS_MAX {
        if draw.is_empty() {
            break;
        }
        step(&mut bed, &mut draw);
        check(&bed);
    }
    end(bed);
}

fn step(bed: &mut Bed, draw: &mut Draw<'_>) {
    match draw.byte() % 24 {
        0 | 1 => enqueue(bed, draw),
        2..=4 => heartbeat(bed, draw),
        5..=7 => results(bed, draw),
        8 => hand_back(bed, draw),
        9 => {
            let worker = samples::worker(draw.below(8));
            bed.input(Input::Goodbye(Goodbye { worker }));
        }
        10 | 11 => query(bed, draw),
        12 => {
            let ids = (0..draw.below(12)).map(|_| job(draw)).collect();
            let request = Wait {
                request: draw.number(),
                pipeline: samples::pipeline(),
                ids,
            };
            let client = client(draw);
            bed.input(Input::Wait { client, request });
        }
        13 => {
            let client = client(draw);
            bed.input(Input::ClientGone { client });
        }
        14 => {
            let pipe = pipe(bed, draw);
            bed.input(Input::PipeUp { pipe });
        }
        15 => {
            let pipe = pipe(bed, draw);
            bed.input(Input::PipeDown { pipe });
        }
        16 | 17 => bed.commit(),
        18 => bed.fail_commit(draw.flag()),
        19 => {
            let how = [ReadAnswer::Page, ReadAnswer::Gone, ReadAnswer::Fault];
            let how = how[draw.below(4).saturating_sub(1)];
            bed.read(how);
        }
        20 => {
            bed.now = bed.now + *draw.one(&PAUSES);
            bed.input(Input::Tick);
        }
        21 | 22 => raw(bed, draw),
        _ => {
            if draw.byte() < 200 {
                bed.quiet();
            } else {
                bed.restart();
            }
        }
    }
}

fn client(draw: &mut Draw<'_>) -> ClientId {
    ClientId(1 + draw.below(4) as u64)
}

fn job(draw: &mut Draw<'_>) -> JobId {
    samples::job(draw.below(48))
}

fn job_type(draw: &mut Draw<'_>) -> JobType {
    let name: &str = draw.one::<&str>(&["encode", "split", "unknown"]);
    samples::job_type(name)
}

fn pipe(bed: &Bed, draw: &mut Draw<'_>) -> PipeId {
    let number = draw.byte();
    match bed.pipes.len() {
        0 => PipeId(u64::from(number)),
        count => bed.pipes[usize::from(number) % count],
    }
}

/// An attempt that was dispatched, or one that was not.
fn attempt(bed: &Bed, draw: &mut Draw<'_>) -> (AttemptId, JobId, u16) {
    let which = draw.byte();
    if which < 200 && !bed.attempts.is_empty() {
        return bed.attempts[usize::from(which) % bed.attempts.len()].clone();
    }
    let id = AttemptId {
        epoch: draw.number(),
        counter: draw.number(),
    };
    (id, job(draw), u16::from(draw.byte() % 4))
}

fn payload(draw: &mut Draw<'_>) -> Bytes {
    match draw.byte() % 5 {
        0 => Bytes::new(),
        1 => Bytes::from_static(br#"{"a": 1}"#),
        2 => {
            let text = "x".repeat(usize::from(draw.u16()) % 3000);
            Bytes::from(format!(r#"{{"a": "{text}"}}"#))
        }
        3 => Bytes::copy_from_slice(draw.piece()),
        _ => Bytes::from_static(b"{}"),
    }
}

fn enqueue(bed: &mut Bed, draw: &mut Draw<'_>) {
    let jobs = (0..draw.below(10))
        .map(|_| NewJob {
            id: Some(job(draw)),
            delay_ms: draw.number(),
            traceparent: draw.flag().then(|| draw.text()),
            instructions: payload(draw),
        })
        .collect();
    if draw.byte().is_multiple_of(4) {
        let pipeline = draw.flag().then(samples::pipeline);
        bed.input(Input::EnqueueUnconfirmed { pipeline, jobs });
        return;
    }
    let request = Enqueue {
        request: draw.number(),
        pipeline: samples::pipeline(),
        jobs,
    };
    let client = client(draw);
    bed.input(Input::Enqueue { client, request });
}

fn heartbeat(bed: &mut Bed, draw: &mut Draw<'_>) {
    let worker = draw.below(8);
    let held = (0..draw.below(6))
        .map(|_| {
            let (attempt, job, phase) = attempt(bed, draw);
            let states = [HeldState::Queued, HeldState::Running, HeldState::Done];
            Held {
                attempt,
                job,
                phase,
                state: *draw.one(&states),
            }
        })
        .collect();
    let mut beat = samples::heartbeat(samples::worker(worker), Vec::new());
    beat.sequence = draw.number();
    beat.job_type = job_type(draw);
    let port = 5000 + u16::try_from(draw.below(6)).unwrap_or(0);
    beat.address = Address::tcp("10.0.0.1", port);
    beat.shared_address = draw.byte() % 8 == 1;
    beat.slots = u32::try_from(draw.number()).unwrap_or(u32::MAX);
    if draw.byte() % 8 == 1 {
        beat.state = WorkerState::Draining;
    }
    beat.started_at = Timestamp(draw.number());
    let (manager, epoch) = if draw.byte() % 8 == 1 {
        (samples::manager(draw.below(4)), draw.number())
    } else {
        (bed.core.manager_id(), bed.core.epoch())
    };
    beat.managers = vec![HeldFor {
        manager,
        epoch,
        sequence: draw.number(),
        held,
    }];
    bed.input(Input::Heartbeat(beat));
}

fn results(bed: &mut Bed, draw: &mut Draw<'_>) {
    let results = (0..=draw.below(4))
        .map(|_| {
            let (attempt, job, phase) = attempt(bed, draw);
            let outcome = if draw.byte().is_multiple_of(3) {
                let kinds = [
                    FailureKind::Error,
                    FailureKind::Panic,
                    FailureKind::Cancelled,
                    FailureKind::WorkerLost,
                    FailureKind::Poison,
                ];
                Outcome::Failure {
                    kind: *draw.one(&kinds),
                    error: ErrorReport {
                        message: draw.text(),
                        detail: draw.text(),
                    },
                    retry: draw.flag(),
                }
            } else {
                Outcome::Success
            };
            AttemptResult {
                attempt,
                job,
                phase,
                started_at: Timestamp(draw.number()),
                finished_at: Timestamp(draw.number()),
                outcome,
                instructions: payload(draw),
            }
        })
        .collect();
    let worker = samples::worker(draw.below(8));
    let route = u16::from(draw.byte());
    bed.input(Input::Results(Results {
        worker,
        route,
        results,
    }));
}

fn hand_back(bed: &mut Bed, draw: &mut Draw<'_>) {
    let attempts = (0..draw.below(6))
        .map(|_| {
            let (attempt, job, phase) = attempt(bed, draw);
            HandedBack {
                attempt,
                job,
                phase,
            }
        })
        .collect();
    let reasons = [
        HandBackReason::Recalled,
        HandBackReason::Draining,
        HandBackReason::UnknownJobType,
        HandBackReason::Full,
    ];
    let reason = *draw.one(&reasons);
    let worker = samples::worker(draw.below(8));
    bed.input(Input::HandBack(HandBack {
        worker,
        reason,
        attempts,
    }));
}

fn query(bed: &mut Bed, draw: &mut Draw<'_>) {
    let filter = |draw: &mut Draw<'_>| JobFilter {
        state: draw.flag().then(|| *draw.one(&JobState::ALL)),
        phase: draw.flag().then(|| job_type(draw)),
        error: draw.flag().then(|| draw.text()),
        id_prefix: draw.flag().then(|| draw.text()),
    };
    let selector = |draw: &mut Draw<'_>| {
        if draw.flag() {
            Selector::Ids((0..draw.below(8)).map(|_| job(draw)).collect())
        } else {
            Selector::Filter(filter(draw))
        }
    };
    let query = match draw.byte() % 14 {
        0 => Query::Info,
        1 => Query::Stats,
        2 => Query::Workers,
        3 | 4 => Query::Jobs {
            filter: filter(draw),
            after: draw.flag().then(|| draw.text()),
            limit: u32::try_from(draw.number()).unwrap_or(u32::MAX),
        },
        5 | 6 => Query::Job { id: job(draw) },
        7 | 8 => Query::Retry {
            selector: selector(draw),
        },
        9 => Query::Cancel {
            selector: selector(draw),
        },
        10 => Query::Discard {
            selector: selector(draw),
        },
        11 => Query::Pause {
            phase: draw.flag().then(|| job_type(draw)),
        },
        12 => Query::Resume {
            phase: draw.flag().then(|| job_type(draw)),
        },
        _ => Query::Drain {
            // A manager that drains only refuses: now and then is enough.
            worker: (draw.byte() < 250).then(|| samples::worker(draw.below(8))),
        },
    };
    let request = QueryRequest {
        request: draw.number(),
        query,
    };
    let client = client(draw);
    bed.input(Input::Query { client, request });
}

/// Frames as they come from a socket.
fn raw(bed: &mut Bed, draw: &mut Draw<'_>) {
    let socket = draw.byte() % 3;
    let header = draw.byte();
    let count = usize::from(draw.byte() % 5);
    let mut frames: Vec<Bytes> = (0..count)
        .map(|_| Bytes::copy_from_slice(draw.piece()))
        .collect();
    if header != u8::MAX {
        let kind = Kind::ALL[usize::from(header / 2) % Kind::ALL.len()];
        let codec = if header.is_multiple_of(2) {
            Codec::Bincode
        } else {
            Codec::Json
        };
        let at = usize::from(socket == 1).min(frames.len());
        let bytes = Header { kind, codec }.to_bytes();
        frames.insert(at, Bytes::copy_from_slice(&bytes));
    }
    let limits = limits();
    let input = match socket {
        0 => read_pulled(&frames, &limits),
        1 => read_event(&frames, &limits),
        _ => match read_request(&frames, &limits, client(draw)) {
            Ok(input) => Some(input),
            Err(refusal) => {
                let Message::Refusal(text) = &*refusal else {
                    panic!("{refusal:?} is no refusal");
                };
                assert!(!text.message.is_empty());
                assert!(text.message.len() <= crate::frames::ERROR_BYTES_MAX);
                check_round_trip(&refusal);
                None
            }
        },
    };
    if let Some(input) = input {
        bed.input(input);
    }
}

/// What holds after every step.
fn check(bed: &Bed) {
    let options = options();
    let live = bed.core.live_jobs().count();
    assert!(live as u64 <= options.live_jobs_max, "{live} jobs are live");
    let mut running = 0;
    let mut workers = 0;
    for worker in bed.core.known_workers() {
        workers += 1;
        running += worker.attempts.len();
        assert!(worker.slots <= options.slots_max);
    }
    assert!(workers <= options.workers_max, "{workers} workers");
    // What a worker holds beyond live jobs is what was cancelled or is not told yet.
    let most = 2 * live + workers * limits().batch_jobs_max;
    assert!(running <= most, "{running} attempts of {live} jobs");
    assert!(bed.pipes.len() <= 2 * options.workers_max, "too many pipes");
}

/// Where a job stands, as the journal has to know it. A manager that starts looks at the
/// clock, too: what is due is not waited for.
fn standing(core: &Core, now: Timestamp) -> Vec<(String, u16, u32, Option<Timestamp>)> {
    let mut all: Vec<_> = core
        .live_jobs()
        .map(|job| {
            let until = job.until.filter(|until| *until > now);
            (job.id.to_string(), job.phase, job.tries, until)
        })
        .collect();
    all.sort();
    all
}

/// When everything under way has ended well, every request is answered and the journal
/// gives the same jobs.
fn end(mut bed: Bed) {
    bed.quiet();
    assert!(bed.commits.is_empty() && bed.reads.is_empty());
    assert!(
        bed.asked.is_empty(),
        "requests without an answer: {:?}",
        bed.asked
    );
    let again = recover(&bed.disk, bed.now).expect("what the core wrote is a journal");
    assert_eq!(standing(&again, bed.now), standing(&bed.core, bed.now));
}

fn seeds() -> Vec<Vec<u8>> {
    let index = |kind: Kind| {
        let found = Kind::ALL.iter().position(|other| *other == kind);
        u8::try_from(found.unwrap_or(0)).unwrap_or(0)
    };
    let raw = |socket: u8, message: &Message, codec: Codec| {
        let mut frames = encode(message, codec);
        frames.remove(0);
        if socket == 1 {
            frames.insert(0, Bytes::from_static(b"encode"));
        }
        let header = index(message.kind()) * 2 + u8::from(codec == Codec::Json);
        let mut step = vec![21, socket, header, u8::try_from(frames.len()).unwrap_or(4)];
        for frame in &frames {
            push_piece(&mut step, frame);
        }
        step
    };
    // Jobs, commit, a worker, its pipe, a result, commit.
    let enqueue = |from: u8| vec![0, 2, from, 0, 0, 1, from + 1, 0, 0, 1, 1, 3, 1];
    let beat = |worker: u8| vec![2, worker, 0, 1, 0, worker, 0, 4, 0, 1, 0, 0];
    let result = [5, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0];
    let life: Vec<u8> = [
        enqueue(1),
        vec![16, 16],
        beat(1),
        vec![14, 0],
        result.to_vec(),
        vec![16, 20, 3],
        result.to_vec(),
        vec![10, 1, 5, 1, 23, 0, 23, 250],
        beat(1),
        vec![14, 0, 23, 0],
    ]
    .concat();
    let mut all = vec![life.clone()];
    for message in samples::from_clients() {
        all.push(raw(2, &message, Codec::Bincode));
        all.push([life.clone(), raw(2, &message, Codec::Json)].concat());
    }
    for message in samples::from_workers() {
        let socket = match message {
            Message::Heartbeat(_) | Message::Logs(_) | Message::Progress(_) => 1,
            _ => 0,
        };
        all.push([enqueue(1), raw(socket, &message, Codec::Bincode)].concat());
        all.push([life.clone(), raw(socket, &message, Codec::Json)].concat());
    }
    for text in samples::ORIGINAL_PULLED {
        let mut step = vec![21, 0, 255, 1];
        push_piece(&mut step, text.as_bytes());
        all.push(step);
    }
    for (topic, body) in samples::ORIGINAL_EVENTS {
        let mut step = [enqueue(1), vec![21, 1, 255, 2]].concat();
        push_piece(&mut step, topic.as_bytes());
        push_piece(&mut step, body.as_bytes());
        step.extend([14, 0, 16, 23, 0]);
        all.push(step);
    }
    all
}

/// A journal with something of everything in it, for other targets.
pub fn journal() -> crate::bed::Pages {
    let mut bed = Bed::new();
    for seed in seeds() {
        let mut draw = Draw::new(&seed);
        while !draw.is_empty() {
            step(&mut bed, &mut draw);
        }
    }
    bed.quiet();
    bed.disk
}
