//! ZMTP bytes of an untrusted peer at the front door, for each kind of socket: the scanner
//! against a plain reading of the whole stream, and a whole connection over a local stream.

use carbontube_transport::Options;
use carbontube_transport::testing::{
    KINDS, Outcome, Scanned, Served, command, opening, scan, serve, unfinished_bytes,
};

use crate::Target;
use crate::draw::Draw;

/// The target.
pub const TARGET: Target = Target {
    name: "door",
    about: "greetings, handshakes, frames and commands of a peer, for each kind of socket",
    run,
    seeds,
    dictionary: DICTIONARY,
    bytes_max: 2048,
};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
/// The longest command after the handshake.
const COMMAND_BYTES_MAX: u64 = 4096;

/// The first byte: which kind of socket, and whether the connection is real. The second:
/// how the stream is split. The third: whether a peer's opening is put in front of it.
pub fn run(data: &[u8]) {
    let mut draw = Draw::new(data);
    let first = draw.byte();
    let kind = usize::from(first >> 2) % KINDS.len();
    let split = draw.byte();
    let opened = draw.byte();
    let options = options();
    let rest = draw.rest();

    let pieces = pieces(rest, split);
    let scanned = scan(pieces.iter().copied(), &options);
    check_scan(rest, &scanned, &options);
    // The scanner is fast, a connection is not: one input of four makes one.
    if first & 3 != 3 {
        return;
    }
    let mut stream = Vec::new();
    if opened & 1 == 0 {
        stream.extend(opening(FITTING[kind]));
    }
    stream.extend_from_slice(rest);
    let whole = self::pieces(&stream, split);
    let served = serve(kind, &whole, &options).expect("local streams work");
    check_served(kind, opened & 1 == 0, &served, &scanned);
}

/// What fits each of [`KINDS`].
const FITTING: [&str; 6] = ["PUSH", "PULL", "SUB", "PUB", "DEALER", "ROUTER"];

/// Limits that short inputs reach.
fn options() -> Options {
    Options {
        frame_bytes_max: 300,
        message_bytes_max: 400,
        message_frames_max: 4,
        topic_bytes_max: 16,
        topics_max: 4,
        ..Options::default()
    }
}

/// Splits a stream: into so many bytes each, or in two.
fn pieces(stream: &[u8], split: u8) -> Vec<&[u8]> {
    match split {
        0 => vec![stream],
        1..=63 => stream.chunks(usize::from(split)).collect(),
        _ => {
            let (one, two) = stream.split_at(stream.len() * usize::from(split - 63) / 193);
            vec![one, two]
        }
    }
}

/// A stream read as ZMTP says, by somebody who has it whole.
fn read_plainly(stream: &[u8], options: &Options) -> Scanned {
    let mut read = Scanned::default();
    let mut at = 0;
    let mut message = Vec::new();
    let mut frames = 0;
    loop {
        let rest = &stream[at..];
        let Some(&flags) = rest.first() else { break };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & COMMAND != 0 && flags & MORE != 0 {
            read.violation = Some("malformed");
            break;
        }
        let (header, length) = if flags & LONG == 0 {
            let Some(&length) = rest.get(1) else { break };
            (2, u64::from(length))
        } else {
            let Some(length) = rest.get(1..9) else { break };
            (
                9,
                u64::from_be_bytes(length.try_into().expect("eight bytes")),
            )
        };
        let oversized = if flags & COMMAND != 0 {
            length > COMMAND_BYTES_MAX
        } else {
            frames >= options.message_frames_max
                || length > options.frame_bytes_max as u64
                || message.len() as u64 + header as u64 + length > options.message_bytes_max as u64
        };
        if oversized {
            read.violation = Some("oversized");
            break;
        }
        let whole = header + usize::try_from(length).expect("within the limit");
        let Some(frame) = rest.get(..whole) else {
            break;
        };
        at += whole;
        if flags & COMMAND != 0 {
            read.commands.push(frame[header..].to_vec());
            continue;
        }
        message.extend_from_slice(frame);
        frames += 1;
        if flags & MORE == 0 {
            read.messages.push(std::mem::take(&mut message));
            frames = 0;
        }
    }
    read.unfinished = message.len() + stream.len() - at;
    read
}

fn check_scan(stream: &[u8], scanned: &Scanned, options: &Options) {
    let plain = read_plainly(stream, options);
    assert_eq!(scanned.violation, plain.violation);
    assert_eq!(scanned.messages, plain.messages);
    assert_eq!(scanned.commands, plain.commands);
    if plain.violation.is_none() {
        assert_eq!(scanned.unfinished, plain.unfinished);
    }
    for message in &scanned.messages {
        assert!(message.len() <= options.message_bytes_max);
    }
}

fn check_served(kind: usize, opened: bool, served: &Served, scanned: &Scanned) {
    assert_eq!(unfinished_bytes(), 0, "the budget gets everything back");
    assert!(
        served.replied.starts_with(&[0xff]),
        "a greeting comes first"
    );
    let counters = &served.counters;
    if !opened {
        // The stream's own handshake: whatever it was, nothing came through without one.
        if matches!(served.outcome, Outcome::Handshake(_)) {
            assert!(served.passed.is_empty());
        }
        return;
    }
    if let Outcome::Handshake(how) = &served.outcome {
        panic!("a good handshake was refused: {how}");
    }
    // An ERROR ends a connection where it stands.
    let is_error = |payload: &Vec<u8>| payload.starts_with(b"\x05ERROR");
    let reported = scanned.commands.iter().any(is_error);
    match KINDS[kind] {
        "PUSH" => assert!(served.passed.is_empty(), "a PUSH takes nothing"),
        "PUB" => assert!(served.passed.is_empty(), "a PUB's crate hears no peer"),
        _ => {
            let all: Vec<u8> = scanned.messages.concat();
            assert!(
                all.starts_with(&served.passed),
                "what passed is what came, whole messages from the front"
            );
            if !reported && scanned.violation.is_none() {
                assert_eq!(served.passed, all);
                assert_eq!(counters.messages_in as usize, scanned.messages.len());
            }
        }
    }
    match &served.outcome {
        Outcome::Fault(fault) => {
            let expected = match scanned.violation {
                Some("oversized") => "a declared length is over the limit",
                Some(_) => "the bytes are no ZMTP frames",
                None => "too many or too long subscriptions",
            };
            let topics = KINDS[kind] == "PUB" && fault.contains("subscriptions");
            assert!(*fault == expected || topics, "{fault:?}, not {expected:?}");
        }
        Outcome::Left { mid_message } => {
            assert_eq!(scanned.violation, None);
            assert_eq!(*mid_message, scanned.unfinished > 0);
        }
        Outcome::Reported(text) => {
            assert!(reported, "{text}");
            assert!(text.len() <= 5 * COMMAND_BYTES_MAX as usize);
        }
        Outcome::Handshake(_) => {}
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut messages = vec![0, 3];
    messages.extend(b"one");
    messages.extend([MORE, 3]);
    messages.extend(b"two");
    messages.extend(command("PING", b"\0\0context"));
    messages.extend([LONG]);
    messages.extend(260_u64.to_be_bytes());
    messages.extend([7; 260]);
    let mut subscriptions = vec![0, 4];
    subscriptions.extend(b"\x01job");
    subscriptions.extend(command("SUBSCRIBE", b"log"));
    subscriptions.extend(command("CANCEL", b"log"));
    subscriptions.extend([0, 4]);
    subscriptions.extend(b"\0job");
    let mut all = Vec::new();
    for kind in 0..6_u8 {
        for split in [0, 1, 7, 100] {
            all.push([&[kind << 2 | 3, split, 0], &messages[..]].concat());
        }
        let own = opening(FITTING[usize::from(kind)]);
        all.push([&[kind << 2 | 3, 5, 1], &own[..], &messages[..20]].concat());
        all.push([&[kind << 2 | 3, 0, 1], &own[..30]].concat());
    }
    all.push([&[2 << 2 | 3, 3, 0], &subscriptions[..]].concat());
    all.push([&[3, 3, 0], &command("ERROR", b"\x03bad")[..]].concat());
    all.push(vec![0, 0, 0, LONG, 0xff, 0, 0, 0, 0, 0, 0, 0]);
    all
}

const DICTIONARY: &[&[u8]] = &[
    b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL",
    b"\x04PING",
    b"\x04PONG",
    b"\x05ERROR",
    b"\x05READY",
    b"\x09SUBSCRIBE",
    b"\x06CANCEL",
    b"\x0bSocket-Type\0\0\0\x04PUSH",
    b"\x08Identity\0\0\0\x01x",
    b"\x02\0\0\0\0\0\0\x01\x2c",
    b"\x02\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x06\0\0\0\0\0\0\x10\0",
    b"\x01\0",
    b"\0\0",
];
