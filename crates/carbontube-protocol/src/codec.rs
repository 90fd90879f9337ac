//! Messages to frames and back (protocol.md §3).

use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::counted::{Counted, Counter};
use crate::error::DecodeError;
use crate::header::{Codec, Header, Kind};
use crate::instructions::non_object;
use crate::limits::Limits;
use crate::message::{self, Message, with_body, with_body_type};

/// Bincode's own bound while it decodes; the frame was checked against
/// [`Limits::body_bytes_max`] before, so this only bounds what a body may claim.
const BINCODE_LIMIT: usize = 64 << 20;

/// The longest reason why something cannot be read: it may quote what was sent, and it
/// goes into logs and back to the peer.
pub(crate) const REASON_BYTES_MAX: usize = 512;

/// The beginning of a text, of at most so many bytes.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<BINCODE_LIMIT>()
}

/// A message body whose payloads travel in frames of their own.
///
/// `batch` is the number of jobs, results or attempts in the body, for the limit.
/// `payloads` lists the payloads in the order of their frames.
pub(crate) trait Body: Serialize + DeserializeOwned {
    /// The most items of any one list or map in the body, where the limit on batches is not
    /// more; and of all of them together.
    const ITEMS_MAX: (usize, usize) = (4096, 16 * 4096);

    fn batch(&self) -> usize {
        0
    }

    fn payloads<'a>(&'a self, _each: &mut dyn FnMut(&'a Bytes)) {}

    fn payload_slots<'a>(&'a mut self, _each: &mut dyn FnMut(&'a mut Bytes)) {}
}

macro_rules! plain_bodies {
    ($($body:ident),* $(,)?) => { $(impl Body for message::$body {})* };
}
plain_bodies!(Refusal, Hello, Drain, Goodbye);

macro_rules! batch_bodies {
    ($($body:ident . $list:ident),* $(,)?) => {
        $(impl Body for message::$body {
            fn batch(&self) -> usize {
                self.$list.len()
            }
        })*
    };
}
batch_bodies!(
    Enqueued.outcomes,
    Wait.ids,
    Ack.attempts,
    Recall.attempts,
    Cancel.attempts,
    HandBack.attempts,
    Logs.lines,
    Progress.items,
    Events.events,
);

macro_rules! payload_bodies {
    ($($body:ident . $list:ident . $payload:ident),* $(,)?) => {
        $(impl Body for message::$body {
            fn batch(&self) -> usize {
                self.$list.len()
            }

            fn payloads<'a>(&'a self, each: &mut dyn FnMut(&'a Bytes)) {
                self.$list.iter().for_each(|item| each(&item.$payload));
            }

            fn payload_slots<'a>(&'a mut self, each: &mut dyn FnMut(&'a mut Bytes)) {
                self.$list.iter_mut().for_each(|item| each(&mut item.$payload));
            }
        })*
    };
}
payload_bodies!(
    Enqueue.jobs.instructions,
    Ended.jobs.result,
    Dispatch.jobs.instructions,
    Results.results.instructions,
);

impl Body for message::Heartbeat {
    fn batch(&self) -> usize {
        self.managers
            .iter()
            .map(|manager| manager.held.len())
            .max()
            .unwrap_or(0)
    }
}

impl Body for message::QueryRequest {
    fn batch(&self) -> usize {
        use message::{Query, Selector};
        match &self.query {
            Query::Retry {
                selector: Selector::Ids(ids),
            }
            | Query::Cancel {
                selector: Selector::Ids(ids),
            }
            | Query::Discard {
                selector: Selector::Ids(ids),
            } => ids.len(),
            _ => 0,
        }
    }
}

impl Body for message::QueryAnswer {
    /// A series has so many numbers, of one byte or more each.
    const ITEMS_MAX: (usize, usize) = (1 << 16, 1 << 20);

    fn batch(&self) -> usize {
        match &self.answer {
            message::Answer::Jobs { jobs, .. } => jobs.len(),
            message::Answer::Workers(workers) => workers.len(),
            message::Answer::Found(found) => found.jobs.len(),
            message::Answer::Failures(groups) => groups.len(),
            message::Answer::Recent(recent) => recent.events.len(),
            _ => 0,
        }
    }

    fn payloads<'a>(&'a self, each: &mut dyn FnMut(&'a Bytes)) {
        if let message::Answer::Job(detail) = &self.answer {
            each(&detail.instructions);
        }
    }

    fn payload_slots<'a>(&'a mut self, each: &mut dyn FnMut(&'a mut Bytes)) {
        if let message::Answer::Job(detail) = &mut self.answer {
            each(&mut detail.instructions);
        }
    }
}

/// The frames of a message: header, body, then its payloads.
pub fn encode(message: &Message, codec: Codec) -> Vec<Bytes> {
    let header = Header {
        kind: message.kind(),
        codec,
    };
    let mut frames = Vec::with_capacity(2);
    frames.push(Bytes::copy_from_slice(&header.to_bytes()));
    macro_rules! run {
        ($body:ident) => {{
            frames.push(encode_body($body, codec));
            $body.payloads(&mut |payload| frames.push(payload.clone()));
        }};
    }
    with_body!(message, run);
    frames
}

/// The frames of an event: its topic, then those of [`encode`].
pub fn encode_event(topic: &str, message: &Message, codec: Codec) -> Vec<Bytes> {
    let mut frames = encode(message, codec);
    frames.insert(0, Bytes::copy_from_slice(topic.as_bytes()));
    frames
}

fn encode_body(body: &impl Serialize, codec: Codec) -> Bytes {
    let bytes = match codec {
        Codec::Bincode => bincode::serde::encode_to_vec(body, bincode::config::standard())
            .expect("a message body has no type that bincode cannot write"),
        Codec::Json => serde_json::to_vec(body).expect("a message body has only string keys"),
    };
    Bytes::from(bytes)
}

/// Reads a message from its frames.
///
/// Payloads share the frames' memory.
///
/// # Errors
/// [`DecodeError`] says what is wrong with the first thing that is.
pub fn decode(frames: &[Bytes], limits: &Limits) -> Result<Message, DecodeError> {
    let Some(first) = frames.first() else {
        return Err(DecodeError::Frames { frames: 0 });
    };
    let header = Header::from_bytes(first)?;
    let Some(body) = frames.get(1) else {
        return Err(DecodeError::Frames {
            frames: frames.len(),
        });
    };
    let payloads = &frames[2..];
    check_limit("a body, in bytes,", limits.body_bytes_max, body.len())?;
    check_limit(
        "a batch, in payload frames,",
        limits.batch_jobs_max,
        payloads.len(),
    )?;
    for payload in payloads {
        check_limit(
            "a payload, in bytes,",
            limits.instructions_bytes_max,
            payload.len(),
        )?;
    }
    macro_rules! run {
        ($name:ident, $body:ty) => {{
            let mut body: $body = decode_body(header, body, limits)?;
            check_limit("a batch, in items,", limits.batch_jobs_max, body.batch())?;
            attach(header.kind, &mut body, payloads)?;
            Message::$name(body)
        }};
    }
    Ok(with_body_type!(header.kind, run))
}

/// Reads an event: a topic frame, then a message.
///
/// # Errors
/// As [`decode`].
pub fn decode_event<'a>(
    frames: &'a [Bytes],
    limits: &Limits,
) -> Result<(&'a [u8], Message), DecodeError> {
    let Some((topic, rest)) = frames.split_first() else {
        return Err(DecodeError::Frames { frames: 0 });
    };
    Ok((topic, decode(rest, limits)?))
}

fn check_limit(what: &'static str, limit: usize, found: usize) -> Result<(), DecodeError> {
    if found > limit {
        return Err(DecodeError::Limit { what, limit, found });
    }
    Ok(())
}

fn decode_body<T: Body>(header: Header, frame: &[u8], limits: &Limits) -> Result<T, DecodeError> {
    // A smaller bound on batches is checked when all is read; what is read is small by then.
    let (each, all) = T::ITEMS_MAX;
    let limit = limits.batch_jobs_max.max(each);
    let counter = Counter::new(limit, all.max(limit.saturating_mul(16)));
    let bad = |reason: String| match counter.is_exceeded() {
        true => DecodeError::Limit {
            what: "a batch, in items,",
            limit,
            found: limit + 1,
        },
        false => DecodeError::Body {
            kind: header.kind,
            reason: cut(reason, REASON_BYTES_MAX),
        },
    };
    match header.codec {
        Codec::Bincode => {
            let seed = Counted::new(PhantomData::<T>, &counter);
            let (body, read) =
                bincode::serde::seed_decode_from_slice(seed, frame, bincode_config())
                    .map_err(|error| bad(error.to_string()))?;
            if read != frame.len() {
                return Err(bad(format!(
                    "{} bytes stand after its end",
                    frame.len() - read
                )));
            }
            Ok(body)
        }
        Codec::Json => {
            // Serde would also take an array of the fields in order, which nobody means.
            if let Some(found) = non_object(frame) {
                return Err(bad(format!("it is {found}, not a JSON object")));
            }
            let mut inner = serde_json::Deserializer::from_slice(frame);
            let body = T::deserialize(Counted::new(&mut inner, &counter));
            let body = body.and_then(|body| inner.end().map(|()| body));
            body.map_err(|error| bad(error.to_string()))
        }
    }
}

fn attach<B: Body>(kind: Kind, body: &mut B, payloads: &[Bytes]) -> Result<(), DecodeError> {
    let mut expected = 0;
    let mut frames = payloads.iter();
    body.payload_slots(&mut |slot| {
        expected += 1;
        if let Some(frame) = frames.next() {
            *slot = frame.clone();
        }
    });
    if expected != payloads.len() {
        return Err(DecodeError::Payloads {
            kind,
            expected,
            found: payloads.len(),
        });
    }
    Ok(())
}
