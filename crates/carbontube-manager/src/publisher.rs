//! The manager's event stream: batched by topic, numbered, paced.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use carbontube_protocol::message::{Event, EventKind, Events, Message};
use carbontube_protocol::{Codec, ManagerId, PipelineName, encode_event};
use carbontube_transport::Publish;

use crate::error::SocketRole;
use crate::stop::{Ticks, Wake};
use crate::tally::Tally;

/// The most events that wait to be published.
const WAITING_MAX: usize = 8192;
/// The most events of one topic in a second; the rest is dropped and counted.
const EVENTS_PER_SECOND_MAX: u32 = 2000;
/// The most events in one message.
const BATCH_MAX: usize = 512;
/// The most bytes of text in one message, unless a single event has more: escaped in JSON
/// it has to stay below what a viewer takes.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// How long a closing stream may take to write what it has accepted.
const LINGER: Duration = Duration::from_millis(500);

/// The last parts of all topics.
const TOPICS: [&str; 5] = ["job", "worker", "log", "progress", "manager"];

/// Takes events for the stream; never waits.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    events: Sender<Event>,
    shared: Arc<Shared>,
    /// Gone once the stream ends.
    socket: Weak<Publish>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether anybody listens: without, nothing is handed over.
    heard: AtomicBool,
    /// Events that found no room and are not told yet, by the place in [`TOPICS`].
    dropped: [AtomicU64; TOPICS.len()],
}

impl Shared {
    fn dropped(&self, topic: &str) -> Option<&AtomicU64> {
        let place = TOPICS.iter().position(|known| *known == topic)?;
        Some(&self.dropped[place])
    }
}

/// The other end of a [`Publisher`], for [`run`].
#[derive(Debug)]
pub(crate) struct Outgoing {
    events: Receiver<Event>,
    shared: Arc<Shared>,
    socket: Arc<Publish>,
}

impl Publisher {
    pub(crate) fn new(socket: Publish, tally: Arc<Tally>) -> (Publisher, Outgoing) {
        let (events, receiver) = async_channel::bounded(WAITING_MAX);
        let shared = Arc::new(Shared::default());
        let socket = Arc::new(socket);
        let publisher = Publisher {
            events,
            shared: shared.clone(),
            socket: Arc::downgrade(&socket),
            tally,
        };
        let outgoing = Outgoing {
            events: receiver,
            shared,
            socket,
        };
        (publisher, outgoing)
    }

    /// Looks whether anybody listens: once for each batch, not for each event.
    pub(crate) fn look(&self) {
        let heard = self
            .socket
            .upgrade()
            .is_some_and(|socket| socket.peers() > 0);
        self.shared.heard.store(heard, Ordering::Relaxed);
    }

    pub(crate) fn publish(&self, event: Event) {
        if !self.shared.heard.load(Ordering::Relaxed) {
            return;
        }
        if let Err(refused) = self.events.try_send(event) {
            self.tally.events_dropped.bump();
            if let Some(dropped) = self.shared.dropped(refused.into_inner().kind.topic()) {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Nothing more comes; the stream ends once all is sent.
    pub(crate) fn close(&self) {
        self.events.close();
    }
}

/// Which events these are.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) manager: ManagerId,
    pub(crate) epoch: u64,
    pub(crate) pipeline: PipelineName,
}

#[derive(Debug, Default)]
struct Topic {
    sequence: u64,
    dropped: u64,
    second: Option<Instant>,
    sent: u32,
}

impl Topic {
    /// Whether one more event may go in this second.
    fn admits(&mut self, now: Instant) -> bool {
        if self
            .second
            .is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1))
        {
            self.second = Some(now);
            self.sent = 0;
        }
        self.sent += 1;
        self.sent <= EVENTS_PER_SECOND_MAX
    }
}

/// Sends events until there are no more, then closes the socket.
pub(crate) async fn run(outgoing: Outgoing, source: Source, tally: Arc<Tally>) {
    let Outgoing {
        events,
        shared,
        socket: publish,
    } = outgoing;
    let mut ticks = Ticks::new();
    let mut topics: BTreeMap<&'static str, Topic> = BTreeMap::new();
    loop {
        let first = match ticks.or(events.recv()).await {
            Wake::Came(Ok(first)) => first,
            Wake::Came(Err(_)) => break,
            Wake::Tick => {
                tally.note(SocketRole::Publish, publish.counters());
                continue;
            }
        };
        let mut batches: BTreeMap<&'static str, Vec<Event>> = BTreeMap::new();
        let mut next = Some(first);
        let mut taken = 0;
        let now = Instant::now();
        let heard = publish.peers() > 0;
        while let Some(event) = next {
            let name = event.kind.topic();
            let topic = topics.entry(name).or_default();
            if heard && topic.admits(now) {
                batches.entry(name).or_default().push(event);
            } else if heard {
                topic.dropped += 1;
                tally.events_dropped.bump();
            }
            taken += 1;
            next = if taken < BATCH_MAX {
                events.try_recv().ok()
            } else {
                None
            };
        }
        for (name, events) in batches {
            let topic = topics.entry(name).or_default();
            for events in parts(events) {
                topic.sequence += 1;
                tally.events_published.add(events.len());
                let message = Message::Events(Events {
                    manager: source.manager,
                    epoch: source.epoch,
                    pipeline: source.pipeline.clone(),
                    sequence: topic.sequence,
                    events,
                    dropped: std::mem::take(&mut topic.dropped)
                        + shared
                            .dropped(name)
                            .map_or(0, |dropped| dropped.swap(0, Ordering::Relaxed)),
                });
                let name = format!("{}.{name}", source.pipeline);
                // JSON: whoever watches may be written in any language.
                publish.send(encode_event(&name, &message, Codec::Json));
            }
        }
    }
    // The core's thread looks at the socket for a moment at a time, and has ended by now
    // unless it hangs.
    if let Ok(publish) = Arc::try_unwrap(publish) {
        publish.close(LINGER).await;
    }
}

/// Events in parts that each fit into a message.
fn parts(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut parts: Vec<Vec<Event>> = Vec::new();
    let mut bytes: usize = 0;
    for event in events {
        let size = text_bytes(&event.kind);
        bytes = bytes.saturating_add(size);
        match parts.last_mut().filter(|_| bytes <= BATCH_BYTES_MAX) {
            Some(part) => part.push(event),
            None => {
                parts.push(vec![event]);
                bytes = size;
            }
        }
    }
    parts
}

fn text_bytes(kind: &EventKind) -> usize {
    match kind {
        EventKind::Job { error, .. } => error.as_ref().map_or(0, String::len),
        EventKind::Worker { host, .. } => host.len(),
        EventKind::Log { line, .. } => line.text.len(),
        EventKind::Progress { item, .. } => item.text.len(),
        EventKind::Manager { reason, .. } => reason.len(),
        EventKind::Action { text, .. } => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use carbontube_protocol::message::{LogLevel, LogLine};
    use carbontube_protocol::{
        AttemptId, JobId, JobType, Limits, Timestamp, WorkerId, decode_event,
    };

    use super::*;

    #[test]
    fn long_lines_make_messages_that_every_viewer_takes() {
        let limits = Limits::default();
        let line = |number: u64| Event {
            at: Timestamp(number),
            kind: EventKind::Log {
                worker: WorkerId::from_bytes([1; 16]),
                job_type: JobType::new("one").expect("a name"),
                line: LogLine {
                    job: JobId::from_uuid_bytes([2; 16]),
                    attempt: AttemptId {
                        epoch: 1,
                        counter: number,
                    },
                    at: Timestamp(number),
                    level: LogLevel::Info,
                    text: "\u{1}".repeat(limits.log_line_bytes_max),
                },
            },
        };
        let all: Vec<Event> = (0..BATCH_MAX as u64).map(line).collect();
        let mut came = Vec::new();
        for events in parts(all.clone()) {
            let message = Message::Events(Events {
                manager: ManagerId::from_bytes([3; 16]),
                epoch: 1,
                pipeline: PipelineName::new("test").expect("a name"),
                sequence: 1,
                events,
                dropped: 0,
            });
            let frames = encode_event("test.log", &message, Codec::Json);
            match decode_event(&frames, &limits) {
                Ok((_, Message::Events(events))) => came.extend(events.events),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(came, all);
        assert_eq!(parts(Vec::new()), Vec::<Vec<Event>>::new());
    }
}
