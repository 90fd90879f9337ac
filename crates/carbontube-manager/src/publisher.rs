//! The manager's event stream: batched by topic, numbered, paced.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use carbontube_protocol::message::{Event, EventKind, Events, Message};
use carbontube_protocol::{Codec, ManagerId, PipelineName, encode_event};
use carbontube_transport::Publish;
use futures_lite::future;

use crate::error::SocketRole;
use crate::merge::{Merge, Put};
use crate::stop::{Ticks, Wake};
use crate::tally::Tally;

/// The most events that wait to be published.
const WAITING_MAX: usize = 8192;
/// How long a turn of a topic is, and the most events in it: two thousand a second. What
/// is over that waits and is merged; what cannot wait is dropped and counted.
const TURN: Duration = Duration::from_millis(250);
const EVENTS_PER_TURN_MAX: u32 = 500;
/// The most events of a topic that are handed over in a turn, what waits for later turns
/// included: a busy core must not pay for events that nobody will see.
const HANDED_PER_TURN_MAX: u32 = 2 * EVENTS_PER_TURN_MAX;
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
    handed: Handed,
}

impl Shared {
    fn dropped(&self, topic: &str) -> Option<&AtomicU64> {
        Some(&self.dropped[place(topic)?])
    }
}

fn place(topic: &str) -> Option<usize> {
    TOPICS.iter().position(|known| *known == topic)
}

/// How many events of each topic were handed over in this turn.
#[derive(Debug, Default)]
struct Handed {
    began: Mutex<Option<Instant>>,
    counts: [AtomicU32; TOPICS.len()],
}

impl Handed {
    /// Begins the next turn when it is time.
    fn look(&self, now: Instant) {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if began.is_none_or(|began| now.duration_since(began) >= TURN) {
            *began = Some(now);
            for count in &self.counts {
                count.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Whether there is room for one more. Failures have twice the room, so that a flood
    /// of jobs that go well does not hide them.
    fn takes(&self, kind: &EventKind) -> bool {
        let is_failure = matches!(kind, EventKind::Job { error: Some(_), .. });
        let most = HANDED_PER_TURN_MAX * if is_failure { 2 } else { 1 };
        place(kind.topic())
            .is_none_or(|place| self.counts[place].fetch_add(1, Ordering::Relaxed) < most)
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
        self.shared.handed.look(Instant::now());
    }

    pub(crate) fn publish(&self, event: Event) {
        if !self.shared.heard.load(Ordering::Relaxed) {
            return;
        }
        let topic = event.kind.topic();
        if !self.shared.handed.takes(&event.kind) || self.events.try_send(event).is_err() {
            self.tally.events_dropped.bump();
            if let Some(dropped) = self.shared.dropped(topic) {
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
    began: Option<Instant>,
    sent: u32,
    merge: Merge,
}

impl Topic {
    /// How many more events may go in this turn.
    fn room(&mut self, now: Instant) -> u32 {
        if self
            .began
            .is_none_or(|began| now.duration_since(began) >= TURN)
        {
            self.began = Some(now);
            self.sent = 0;
        }
        EVENTS_PER_TURN_MAX.saturating_sub(self.sent)
    }

    /// Takes an event in: it goes now, or waits, or is left out.
    fn take_in(&mut self, event: Event, now: Instant, batch: &mut Vec<Event>, tally: &Tally) {
        if self.merge.is_empty() && self.room(now) > 0 {
            self.sent += 1;
            batch.push(event);
            return;
        }
        match self.merge.put(event) {
            Put::Waits => {}
            Put::Merged => tally.events_merged.bump(),
            Put::Dropped => {
                self.dropped += 1;
                tally.events_dropped.bump();
            }
        }
    }

    /// What waited and has its turn now.
    fn catch_up(&mut self, now: Instant, batch: &mut Vec<Event>) {
        for _ in 0..self.room(now) {
            let Some(event) = self.merge.take() else {
                return;
            };
            self.sent += 1;
            batch.push(event);
        }
    }

    /// When the next turn of those that wait begins.
    fn next_turn(&self) -> Option<Instant> {
        let began = self.began.filter(|_| !self.merge.is_empty())?;
        Some(began + TURN)
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
        let turn = topics.values().filter_map(Topic::next_turn).min();
        let turn = async {
            match turn {
                Some(turn) => Timer::at(turn).await,
                None => future::pending().await,
            };
            Ok(None)
        };
        let came = async { events.recv().await.map(Some) };
        let first = match ticks.or(future::or(came, turn)).await {
            Wake::Came(Ok(first)) => first,
            Wake::Came(Err(_)) => break,
            Wake::Tick => {
                tally.note(SocketRole::Publish, publish.counters());
                continue;
            }
        };
        let mut batches: BTreeMap<&'static str, Vec<Event>> = BTreeMap::new();
        let mut next = first;
        let mut taken = 0;
        let now = Instant::now();
        let heard = publish.peers() > 0;
        for (name, topic) in &mut topics {
            if !topic.merge.is_empty() {
                topic.catch_up(now, batches.entry(name).or_default());
            }
        }
        while let Some(event) = next {
            let name = event.kind.topic();
            let topic = topics.entry(name).or_default();
            if heard {
                topic.take_in(event, now, batches.entry(name).or_default(), &tally);
            }
            taken += 1;
            next = if taken < BATCH_MAX {
                events.try_recv().ok()
            } else {
                None
            };
        }
        for (name, events) in batches.into_iter().filter(|(_, events)| !events.is_empty()) {
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

/// The bytes of an event's text: what is without bound in it.
pub(crate) fn text_bytes(kind: &EventKind) -> usize {
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
    fn topic_over_its_pace_merges_and_catches_up_in_its_next_turn() {
        let tally = Tally::default();
        let mut topic = Topic::default();
        let job = |name: String| Event {
            at: Timestamp(1),
            kind: EventKind::Job {
                job: JobId::new(&name).expect("an id"),
                state: carbontube_protocol::message::JobState::Running,
                job_type: JobType::new("one").expect("a name"),
                worker: None,
                error: None,
            },
        };
        let now = Instant::now();
        let mut batch = Vec::new();
        for n in 0..600 {
            topic.take_in(job(format!("j{n}")), now, &mut batch, &tally);
        }
        assert_eq!(batch.len(), 500);
        // The same jobs again: those that wait are overtaken, the others wait too.
        for n in 0..600 {
            topic.take_in(job(format!("j{n}")), now, &mut batch, &tally);
        }
        assert_eq!((batch.len(), tally.events_merged.value()), (500, 100));
        assert_eq!(topic.next_turn(), Some(now + TURN));
        let mut later = Vec::new();
        topic.catch_up(now + TURN / 2, &mut later);
        assert!(later.is_empty());
        topic.catch_up(now + TURN, &mut later);
        assert_eq!(later.len(), 500);
        assert_eq!(later[0], job("j500".to_owned()));
        topic.catch_up(now + TURN * 2, &mut later);
        assert_eq!(
            (later.len(), topic.dropped, topic.next_turn()),
            (600, 0, None)
        );
    }

    #[test]
    fn topic_hands_over_so_many_events_in_a_turn_and_more_failures() {
        let handed = Handed::default();
        let job = |error: Option<&str>| EventKind::Job {
            job: JobId::from_uuid_bytes([2; 16]),
            state: carbontube_protocol::message::JobState::Failed,
            job_type: JobType::new("one").expect("a name"),
            worker: None,
            error: error.map(str::to_owned),
        };
        let note = EventKind::Manager {
            state: carbontube_protocol::message::ManagerState::Running,
            reason: String::new(),
        };
        let now = Instant::now();
        handed.look(now);
        let most = HANDED_PER_TURN_MAX as usize;
        let taken = (0..most + 100).filter(|_| handed.takes(&job(None)));
        assert_eq!(taken.count(), most);
        assert!(handed.takes(&job(Some("no"))) && handed.takes(&note));
        handed.look(now + TURN / 2);
        assert!(!handed.takes(&job(None)));
        handed.look(now + TURN);
        assert!(handed.takes(&job(None)));
    }

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
