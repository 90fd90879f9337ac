//! Frames of any socket through the codecs: what can be read can be written, and is the
//! same when read again; everything else is refused by name and within limits.

use bytes::Bytes;
use carbontube_protocol::original::{self, OriginalEvent, OriginalMessage};
use carbontube_protocol::{
    Codec, DecodeError, HEADER_BYTES, Header, Kind, Limits, Message, check_instructions, decode,
    decode_event, encode, encode_event,
};

use crate::Target;
use crate::draw::{Draw, push_piece};
use crate::samples;

/// The target.
pub const TARGET: Target = Target {
    name: "frames",
    about: "frames of every socket, both codecs, the original's messages and events",
    run,
    seeds,
    dictionary: DICTIONARY,
    bytes_max: 8192,
};

/// Longer texts of errors would only carry the peer's own bytes back to it.
pub const ERROR_BYTES_MAX: usize = 1024;

/// Which of the four ways of reading.
const MESSAGE: u8 = 0;
const EVENT: u8 = 1;
const ORIGINAL_MESSAGE: u8 = 2;
const ORIGINAL_EVENT: u8 = 3;

/// Reads frames as one of the sockets does.
///
/// A byte for the way of reading, one for the limits, one for a generated header (255:
/// none), then frames, each behind its length.
pub fn run(data: &[u8]) {
    let mut draw = Draw::new(data);
    let way = draw.byte() % 4;
    let limits = limits(draw.byte());
    let header = draw.byte();
    let mut frames = draw.frames(usize::from(u8::MAX));
    if header != u8::MAX && way <= EVENT {
        let place = usize::from(way == EVENT).min(frames.len());
        let kind = Kind::ALL[usize::from(header / 2) % Kind::ALL.len()];
        let codec = if header.is_multiple_of(2) {
            Codec::Bincode
        } else {
            Codec::Json
        };
        let bytes = Header { kind, codec }.to_bytes();
        frames.insert(place, Bytes::copy_from_slice(&bytes));
    }
    match way {
        MESSAGE => match decode(&frames, &limits) {
            Ok(message) => check_message(&message, &frames, &limits),
            Err(error) => check_error(&error),
        },
        EVENT => match decode_event(&frames, &limits) {
            Ok((topic, message)) => {
                check_message(&message, &frames[1..], &limits);
                if let Ok(topic) = std::str::from_utf8(topic) {
                    let again = encode_event(topic, &message, Codec::Bincode);
                    let (found, _) = decode_event(&again, &Limits::default())
                        .expect("an event that was written is read");
                    assert_eq!(found, topic.as_bytes());
                }
            }
            Err(error) => check_error(&error),
        },
        ORIGINAL_MESSAGE => {
            let frame = frames.first().cloned().unwrap_or_default();
            match original::decode_message(&frame, &limits) {
                Ok(message) => check_original(&message, &limits),
                Err(error) => check_error(&error),
            }
        }
        _ => {
            debug_assert_eq!(way, ORIGINAL_EVENT);
            let topic = frames.first().cloned().unwrap_or_default();
            let frame = frames.get(1).cloned().unwrap_or_default();
            match original::decode_event(&topic, &frame, &limits) {
                Ok(event) => check_original_event(&event, &limits),
                Err(error) => check_error(&error),
            }
        }
    }
}

/// The protocol's own limits, or some that short inputs reach.
fn limits(byte: u8) -> Limits {
    if byte.is_multiple_of(2) {
        return Limits::default();
    }
    Limits {
        instructions_bytes_max: 64,
        body_bytes_max: 512,
        batch_jobs_max: 3,
        message_bytes_max: 1024,
        error_bytes_max: 16,
        detail_bytes_max: 32,
        log_line_bytes_max: 24,
    }
}

/// An error says what is wrong, in a line that a log can bear.
pub fn check_error(error: &DecodeError) {
    let text = error.to_string();
    assert!(!text.is_empty(), "{error:?} says nothing");
    assert!(
        text.len() <= ERROR_BYTES_MAX,
        "an error of {} bytes: {text:.200}",
        text.len()
    );
}

/// What was read keeps to the limits, and both codecs write it so that it is read again.
pub fn check_message(message: &Message, frames: &[Bytes], limits: &Limits) {
    let header = Header::from_bytes(&frames[0]).expect("the header of a message that was read");
    assert_eq!(message.kind(), header.kind);
    assert_eq!(frames[0].len(), HEADER_BYTES);
    assert!(frames[1].len() <= limits.body_bytes_max);
    assert!(frames.len() - 2 <= limits.batch_jobs_max);
    for payload in &frames[2..] {
        assert!(payload.len() <= limits.instructions_bytes_max);
    }
    check_round_trip(message);
}

/// Both codecs write a message so that it is read again as it was.
pub fn check_round_trip(message: &Message) {
    // Compared as bytes: a float need not be equal to itself.
    let binary = encode(message, Codec::Bincode);
    for codec in [Codec::Bincode, Codec::Json] {
        let written = encode(message, codec);
        match decode(&written, &Limits::default()) {
            Ok(again) => assert_eq!(
                encode(&again, Codec::Bincode),
                binary,
                "{codec:?} changed {message:?} to {again:?}"
            ),
            // Short in one codec may be long in the other.
            Err(DecodeError::Limit { .. }) => {}
            Err(error) => panic!("{codec:?} wrote what it cannot read: {error}: {message:?}"),
        }
    }
}

fn check_original(message: &OriginalMessage, limits: &Limits) {
    match message {
        OriginalMessage::Enqueue { instructions, .. } => {
            check_instructions(instructions, limits)
                .expect("instructions that were taken are an object within the limit");
        }
        OriginalMessage::Finished {
            id,
            job_type,
            error,
            instructions,
            finished_at,
            ..
        } => {
            assert!(error.message.len() <= limits.error_bytes_max);
            assert!(error.detail.len() <= limits.detail_bytes_max);
            assert!(instructions.len() <= limits.instructions_bytes_max);
            let frame = original::encode_job(id, job_type, instructions, *finished_at, 1);
            let job: serde_json::Value =
                serde_json::from_slice(&frame).expect("a job for the original is JSON");
            assert_eq!(job["id"], id.to_string());
            assert_eq!(job["job_type"], job_type.as_str());
        }
    }
}

fn check_original_event(event: &OriginalEvent, limits: &Limits) {
    match event {
        OriginalEvent::Available { id, address, .. } => {
            assert!(!id.is_empty() && id.len() <= 128);
            assert_eq!(address.to_string().parse().as_ref(), Ok(address));
        }
        OriginalEvent::Log { text, .. } => assert!(text.len() <= limits.log_line_bytes_max),
        OriginalEvent::Other { topic } => assert!(topic.len() <= 256),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let with = |way: u8, header: u8, frames: &[Bytes]| {
        let mut input = vec![way, 0, header];
        for frame in frames {
            push_piece(&mut input, frame);
        }
        input
    };
    for message in samples::messages() {
        let index = Kind::ALL.iter().position(|kind| *kind == message.kind());
        let index = u8::try_from(index.unwrap_or(0)).unwrap_or(0);
        for (bit, codec) in [(0, Codec::Bincode), (1, Codec::Json)] {
            let frames = encode(&message, codec);
            all.push(with(MESSAGE, index * 2 + bit, &frames[1..]));
        }
    }
    let first = &samples::messages()[0];
    let whole = encode(first, Codec::Json);
    all.push(with(MESSAGE, u8::MAX, &whole));
    all.push(with(
        EVENT,
        u8::MAX,
        &encode_event("job", first, Codec::Json),
    ));
    for text in samples::ORIGINAL_PULLED {
        all.push(with(
            ORIGINAL_MESSAGE,
            0,
            &[Bytes::from_static(text.as_bytes())],
        ));
    }
    for (topic, body) in samples::ORIGINAL_EVENTS {
        let frames = [topic, body].map(|text| Bytes::from_static(text.as_bytes()));
        all.push(with(ORIGINAL_EVENT, 0, &frames));
    }
    all
}

/// Field names, variants and edges of JSON.
pub const DICTIONARY: &[&[u8]] = &[
    b"CT\x01",
    b"\"request\":",
    b"\"jobs\":[",
    b"\"id\":",
    b"\"ids\":[",
    b"\"attempt\":\"1-2\"",
    b"\"outcome\":\"success\"",
    b"\"failure\":{\"kind\":\"panic\",\"error\":",
    b"\"query\":{\"jobs\":{\"filter\":{}",
    b"\"selector\":{\"ids\":[",
    b"\"selector\":{\"filter\":{",
    b"\"state\":\"failed\"",
    b"\"managers\":[",
    b"\"held\":[",
    b"\"address\":\"tcp://[::1]:1\"",
    b"\"fraction\":1e39",
    b"\"fraction\":-0.0",
    b"\"instructions\":{",
    b"\"job_finished_at\":1e300",
    b"\"traceback\":\"",
    b"\\u0000",
    b"\\ud800",
    b"18446744073709551615",
    b"-1",
    b"null",
    b"[[[[[[[[",
    b"{\"a\":{\"a\":",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xfd\xff\xff\xff\xff\xff\xff\xff\xff",
    b":available",
    b":logs",
];
