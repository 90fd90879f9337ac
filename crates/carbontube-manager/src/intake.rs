//! What comes in on PULL and SUB, where there is no way back: what is not understood is
//! counted and dropped.

use std::sync::Arc;

use carbontube_protocol::message::Message as Wire;
use carbontube_protocol::original::{self, OriginalMessage};
use carbontube_protocol::{Header, JobId, Limits, decode, decode_event};
use carbontube_transport::{Message, Pull, Subscribe};

use crate::core::Input;
use crate::error::SocketRole;
use crate::queue::InputQueue;
use crate::reception::{Announced, Reception, announcement};
use crate::stop::{Stop, Ticks, Wake};
use crate::tally::{Count, Tally};

/// The bytes of a message's frames.
pub(crate) fn size(frames: &Message) -> usize {
    frames.iter().map(bytes::Bytes::len).sum()
}

/// Reads results and unconfirmed jobs until the manager ends.
pub(crate) async fn pull(
    mut socket: Pull,
    limits: Limits,
    queue: Arc<InputQueue>,
    tally: Arc<Tally>,
    stop: Stop,
) {
    let mut ticks = Ticks::new();
    while let Some(woken) = stop.or(ticks.or(socket.recv())).await {
        let frames = match woken {
            Wake::Came(Ok(frames)) => frames,
            Wake::Came(Err(_)) => break,
            Wake::Tick => {
                tally.note(SocketRole::Pull, socket.counters());
                continue;
            }
        };
        let bytes = size(&frames);
        let input = match read_pulled(&frames, &limits) {
            Ok(input) => input,
            Err(refused) => {
                refused.count(&tally.pull_malformed, &tally.pull_unexpected, "pull");
                continue;
            }
        };
        if queue.put(input, bytes).await.is_err() {
            break;
        }
    }
    socket.close().await;
}

/// Reads workers' events until the manager ends. It waits for nobody but trusted workers.
pub(crate) async fn subscribe(
    mut socket: Subscribe,
    limits: Limits,
    reception: Arc<Reception>,
    stop: Stop,
) {
    let mut ticks = Ticks::new();
    let tally = &reception.tally;
    while let Some(woken) = stop.or(ticks.or(socket.recv_from())).await {
        let (frames, origin) = match woken {
            Wake::Came(Ok(came)) => came,
            Wake::Came(Err(_)) => break,
            Wake::Tick => {
                tally.note(SocketRole::Subscribe, socket.counters());
                continue;
            }
        };
        let bytes = size(&frames);
        let input = match read_event(&frames, &limits) {
            Ok(input) => input,
            Err(refused) => {
                refused.count(&tally.sub_malformed, &tally.sub_unexpected, "sub");
                continue;
            }
        };
        let taken = match announcement(&input) {
            Some((worker, address)) => {
                let codec = Header::from_bytes(frames.get(1).unwrap_or(&frames[0]));
                reception.receive(Announced {
                    origin,
                    worker,
                    address,
                    codec: codec.ok().map(|header| header.codec),
                    input,
                    bytes,
                })
            }
            None => reception.pass(input, bytes).await,
        };
        if taken.is_err() {
            break;
        }
    }
    socket.close().await;
}

/// Why a message was dropped.
pub(crate) enum Refused {
    Malformed(String),
    Unexpected(carbontube_protocol::Kind),
}

impl Refused {
    fn count(&self, malformed: &Count, unexpected: &Count, socket: &str) {
        match self {
            Refused::Malformed(reason) => {
                malformed.bump();
                log::debug!("dropped a message on the {socket} socket: {reason}");
            }
            Refused::Unexpected(kind) => {
                unexpected.bump();
                log::debug!("dropped a {kind:?} message on the {socket} socket");
            }
        }
    }
}

pub(crate) fn read_pulled(frames: &Message, limits: &Limits) -> Result<Input, Refused> {
    let malformed = |error: carbontube_protocol::DecodeError| Refused::Malformed(error.to_string());
    if let [frame] = &frames[..] {
        let mut message = original::decode_message(frame, limits).map_err(malformed)?;
        if let OriginalMessage::Enqueue { id, .. } = &mut message {
            id.get_or_insert_with(JobId::generate);
        }
        return Ok(Input::Original(message));
    }
    match decode(frames, limits).map_err(malformed)? {
        Wire::Results(results) => Ok(Input::Results(results)),
        Wire::HandBack(hand_back) => Ok(Input::HandBack(hand_back)),
        Wire::Goodbye(goodbye) => Ok(Input::Goodbye(goodbye)),
        Wire::Enqueue(mut enqueue) => {
            for job in &mut enqueue.jobs {
                job.id.get_or_insert_with(JobId::generate);
            }
            Ok(Input::EnqueueUnconfirmed {
                pipeline: Some(enqueue.pipeline),
                jobs: enqueue.jobs,
            })
        }
        // Only a manager sends this, to an address that leads here.
        Wire::Hello(hello) => Ok(Input::Echo(hello.head)),
        other => Err(Refused::Unexpected(other.kind())),
    }
}

pub(crate) fn read_event(frames: &Message, limits: &Limits) -> Result<Input, Refused> {
    let malformed = |error: carbontube_protocol::DecodeError| Refused::Malformed(error.to_string());
    if let [topic, frame] = &frames[..] {
        let event = original::decode_event(topic, frame, limits).map_err(malformed)?;
        return Ok(Input::OriginalEvent(event));
    }
    match decode_event(frames, limits).map_err(malformed)?.1 {
        Wire::Heartbeat(heartbeat) => Ok(Input::Heartbeat(heartbeat)),
        Wire::Logs(logs) => Ok(Input::Logs(logs)),
        Wire::Progress(progress) => Ok(Input::Progress(progress)),
        other => Err(Refused::Unexpected(other.kind())),
    }
}
