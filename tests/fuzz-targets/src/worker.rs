//! A worker's session under arbitrary sequences of what managers send and its own phases do.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    Ack, Cancel, Dispatch, DispatchedJob, ErrorReport, FailureKind, Hello, Message, Outcome,
    PipeHead, Recall,
};
use carbontube_protocol::{AttemptId, Codec, Header, Kind, Limits, Timestamp, decode, encode};
use carbontube_worker::testing::{Finished, Key, Profile, Session};

use crate::Target;
use crate::draw::{Draw, push_piece};
use crate::frames::{DICTIONARY, check_round_trip};
use crate::samples;

/// The target.
pub const TARGET: Target = Target {
    name: "worker",
    about: "messages of managers, ends of attempts, time and lost connections at the session",
    run,
    seeds,
    dictionary: DICTIONARY,
    bytes_max: 4096,
};

/// Steps of one input.
const STEPS_MAX: usize = 400;

const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_secs(3),
    Duration::from_secs(100),
    Duration::from_secs(1 << 40),
];

fn limits() -> Limits {
    Limits {
        instructions_bytes_max: 4096,
        batch_jobs_max: 16,
        ..Limits::default()
    }
}

struct Bed {
    session: Session,
    now: Timestamp,
    routes: usize,
    running: Vec<Key>,
    ended: Vec<Key>,
    /// How many attempts were stopped before their end: heartbeats to a later life of
    /// their manager list them too.
    abandoned: usize,
}

impl Bed {
    fn abandon_running(&mut self) {
        self.abandoned += self.session.load().running;
        self.session.abandon_running();
    }

    fn abandon_one(&mut self, draw: &mut Draw<'_>) {
        if let Some(last) = self.running.len().checked_sub(1) {
            let key = self.running.swap_remove(draw.below(last + 1));
            let before = self.session.load().running;
            self.session.abandon(key);
            self.abandoned += before - self.session.load().running;
            self.ended.push(key);
        }
    }
}

/// Does one step for each byte, with what it needs from the bytes behind it.
pub fn run(data: &[u8]) {
    let mut draw = Draw::new(data);
    let routes = 1 + draw.below(3);
    let profile = Profile {
        worker: samples::worker(1),
        job_type: samples::job_type("encode"),
        routes,
        shared_address: draw.flag(),
        timeout: draw.flag().then(|| Duration::from_millis(draw.number())),
        limits: limits(),
    };
    let mut bed = Bed {
        session: Session::new(profile),
        now: Timestamp(1_700_000_000_000_000),
        routes,
        running: Vec::new(),
        ended: Vec::new(),
        abandoned: 0,
    };
    for _ in 0..STEPS_MAX {
        if draw.is_empty() {
            break;
        }
        step(&mut bed, &mut draw);
        check(&mut bed);
    }
    // In the end the worker goes: everything is said, and then nothing is left to say.
    bed.session.drain();
    bed.abandon_running();
    bed.session.goodbye();
    for route in 0..bed.routes {
        send(&mut bed, route, usize::MAX);
        assert_eq!(bed.session.take_outgoing(route), None);
    }
    check(&mut bed);
    assert_eq!(bed.session.load().queued, 0);
    assert_eq!(bed.session.load().running, 0);
}

fn step(bed: &mut Bed, draw: &mut Draw<'_>) {
    match draw.byte() % 16 {
        0..=2 => {
            let message = dispatch(draw);
            bed.session.receive(message, codec(draw), bed.now);
        }
        3 => {
            let message = about_attempts(draw);
            bed.session.receive(message, codec(draw), bed.now);
        }
        4 => {
            let hello = Hello {
                head: head(draw),
                pipeline: samples::pipeline(),
                worker_timeout_ms: draw.number(),
            };
            bed.session.receive(hello.into(), codec(draw), bed.now);
        }
        5 => raw(bed, draw),
        6 | 7 => {
            for _ in 0..=draw.below(4) {
                if let Some(started) = bed.session.start_next(bed.now) {
                    assert_eq!(started.work.job_type, samples::job_type("encode"));
                    bed.running.push(started.key);
                }
            }
        }
        8 | 9 => finish(bed, draw),
        10 | 11 => {
            let route = draw.below(bed.routes);
            send(bed, route, 1 + draw.below(3));
        }
        12 => {
            let route = draw.below(bed.routes);
            bed.session.reconnected(route);
        }
        13 => {
            bed.now = bed.now + *draw.one(&PAUSES);
            bed.session.tick(bed.now);
            let looks_again_at = bed.now + Duration::from_secs(1);
            let expired = bed.session.expired(bed.now, looks_again_at);
            assert!(bed.session.looks_at() <= looks_again_at);
            for key in expired {
                let finished = failure(FailureKind::Timeout, bed.now);
                bed.session.finish(key, finished, bed.now);
            }
        }
        14 => {
            if let Some(key) = bed.ended.last() {
                // An end that is reported twice.
                let finished = failure(FailureKind::Error, bed.now);
                bed.session.finish(*key, finished, bed.now);
            }
        }
        _ => match draw.byte() {
            0..=9 => bed.session.drain(),
            10..=12 => bed.abandon_running(),
            13 => bed.session.goodbye(),
            14..=40 => bed.abandon_one(draw),
            _ => {}
        },
    }
}

fn codec(draw: &mut Draw<'_>) -> Codec {
    if draw.flag() {
        Codec::Json
    } else {
        Codec::Bincode
    }
}

fn head(draw: &mut Draw<'_>) -> PipeHead {
    let manager = draw.byte();
    PipeHead {
        manager: samples::manager(usize::from(if manager < 200 {
            manager % 3
        } else {
            manager
        })),
        epoch: draw.number(),
        sequence: draw.number(),
    }
}

fn attempt(draw: &mut Draw<'_>) -> AttemptId {
    AttemptId {
        epoch: 1,
        counter: u64::from(draw.byte() % 64),
    }
}

fn dispatch(draw: &mut Draw<'_>) -> Message {
    let head = head(draw);
    let jobs = (0..draw.below(24))
        .map(|_| {
            let attempt = attempt(draw);
            let how = draw.byte();
            DispatchedJob {
                attempt,
                job: samples::job(attempt.counter as usize),
                phase: u16::from(how % 3),
                job_type: samples::job_type(if how > 240 { "split" } else { "encode" }),
                number: u32::from(how),
                timeout_ms: if how.is_multiple_of(4) {
                    draw.number()
                } else {
                    0
                },
                traceparent: None,
                instructions: Bytes::from_static(b"{\"a\": 1}"),
            }
        })
        .collect();
    Dispatch {
        head,
        worker: None,
        pipeline: samples::pipeline(),
        jobs,
    }
    .into()
}

fn about_attempts(draw: &mut Draw<'_>) -> Message {
    let kind = draw.byte();
    let head = head(draw);
    let attempts = (0..draw.below(24)).map(|_| attempt(draw)).collect();
    match kind % 3 {
        0 => Ack {
            head,
            route: u16::from(draw.byte() % 5),
            attempts,
        }
        .into(),
        1 => Recall { head, attempts }.into(),
        _ => Cancel { head, attempts }.into(),
    }
}

/// Frames as they come on the worker's socket.
fn raw(bed: &mut Bed, draw: &mut Draw<'_>) {
    let header = draw.byte();
    let kind = Kind::ALL[usize::from(header / 2) % Kind::ALL.len()];
    let codec = if header.is_multiple_of(2) {
        Codec::Bincode
    } else {
        Codec::Json
    };
    let mut frames = vec![Bytes::copy_from_slice(&Header { kind, codec }.to_bytes())];
    for _ in 0..draw.below(4) {
        frames.push(Bytes::copy_from_slice(draw.piece()));
    }
    if let Ok(message) = decode(&frames, &limits()) {
        let known = bed.session.receive(message, codec, bed.now);
        let expected = matches!(
            kind,
            Kind::Hello | Kind::Dispatch | Kind::Ack | Kind::Recall | Kind::Cancel | Kind::Drain
        );
        assert_eq!(known, expected, "{kind:?}");
    }
}

fn failure(kind: FailureKind, started_at: Timestamp) -> Finished {
    Finished {
        outcome: Outcome::Failure {
            kind,
            error: ErrorReport::default(),
            retry: true,
        },
        instructions: Bytes::new(),
        started_at,
    }
}

fn finish(bed: &mut Bed, draw: &mut Draw<'_>) {
    if bed.running.is_empty() {
        return;
    }
    let key = bed.running.swap_remove(draw.below(bed.running.len()));
    let finished = if draw.flag() {
        failure(FailureKind::Error, bed.now)
    } else {
        Finished {
            outcome: Outcome::Success,
            instructions: Bytes::from(vec![b' '; usize::from(draw.u16())]),
            started_at: bed.now,
        }
    };
    bed.session.finish(key, finished, bed.now);
    bed.ended.push(key);
}

fn send(bed: &mut Bed, route: usize, most: usize) {
    for _ in 0..most {
        let Some(outgoing) = bed.session.take_outgoing(route) else {
            return;
        };
        let frames = encode(&outgoing.message, outgoing.codec);
        let wide = Limits {
            instructions_bytes_max: 1 << 20,
            ..limits()
        };
        decode(&frames, &wide).expect("what a session sends can be read within the limits");
        check_round_trip(&outgoing.message);
        bed.session.sent(&outgoing.keys, bed.now);
    }
}

/// What holds after every step.
fn check(bed: &mut Bed) {
    let load = bed.session.load();
    let held = bed.session.held();
    let listed: usize = held.iter().map(|manager| manager.held.len()).sum();
    let loaded = load.queued + load.running + load.done;
    assert!(
        (loaded..=loaded + bed.abandoned).contains(&listed),
        "{listed} listed, {load:?}, {} abandoned",
        bed.abandoned
    );
    assert!(held.len() <= 32, "{} managers", held.len());
    for manager in &held {
        assert!(manager.held.len() <= limits().batch_jobs_max);
    }
    let pause = bed.session.heartbeat_interval();
    assert!(pause >= Duration::from_millis(50) && pause <= Duration::from_secs(1));
    let effects = bed.session.take_effects();
    for key in &effects.cancel {
        bed.running.retain(|running| running != key);
        let finished = failure(FailureKind::Cancelled, bed.now);
        bed.session.finish(*key, finished, bed.now);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let index = |kind: Kind| {
        let found = Kind::ALL.iter().position(|other| *other == kind);
        u8::try_from(found.unwrap_or(0)).unwrap_or(0)
    };
    let raw = |message: &Message, codec: Codec| {
        let frames = encode(message, codec);
        let header = index(message.kind()) * 2 + u8::from(codec == Codec::Json);
        let mut step = vec![5, header, u8::try_from(frames.len() - 1).unwrap_or(3)];
        for frame in &frames[1..] {
            push_piece(&mut step, frame);
        }
        step
    };
    let mut all = Vec::new();
    let mut both = vec![0, 0, 0];
    for message in samples::to_workers() {
        for codec in [Codec::Bincode, Codec::Json] {
            all.push([vec![0, 0, 0], raw(&message, codec)].concat());
        }
        both.extend(raw(&message, Codec::Bincode));
        both.extend([6, 1, 8, 0, 0, 1, 10, 0, 2, 13, 3]);
    }
    all.push(both);
    // Two managers, three routes: dispatch, run, end, send, acknowledge.
    all.push(
        [
            &[2, 0, 0][..],
            &[4, 0, 1, 1, 0],
            &[0, 0, 1, 2, 2, 1, 1, 2, 1, 0],
            &[0, 1, 1, 2, 1, 3, 1, 1],
            &[6, 2, 8, 0, 0, 9, 9, 8, 0, 1],
            &[10, 0, 2, 10, 1, 2, 12, 0, 10, 0, 2],
            &[3, 0, 0, 1, 3, 2, 1, 2, 0, 0],
            &[13, 3, 13, 4, 10, 2, 2],
        ]
        .concat(),
    );
    all
}
