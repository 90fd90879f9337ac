//! The manager's event stream: batched by topic, numbered, paced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use carbontube_protocol::message::{Event, Events, Message};
use carbontube_protocol::{Codec, ManagerId, PipelineName, encode_event};
use carbontube_transport::Publish;

use crate::tally::Tally;

/// The most events that wait to be published.
const WAITING_MAX: usize = 8192;
/// The most events of one topic in a second; the rest is dropped and counted.
const EVENTS_PER_SECOND_MAX: u32 = 2000;
/// The most events in one message.
const BATCH_MAX: usize = 512;
/// How long a closing stream may take to write what it has accepted.
const LINGER: Duration = Duration::from_millis(500);

/// Takes events for the stream; never waits.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    events: Sender<Event>,
    tally: Arc<Tally>,
}

impl Publisher {
    pub(crate) fn new(tally: Arc<Tally>) -> (Publisher, Receiver<Event>) {
        let (events, receiver) = async_channel::bounded(WAITING_MAX);
        (Publisher { events, tally }, receiver)
    }

    pub(crate) fn publish(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.tally.events_dropped.bump();
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
pub(crate) async fn run(
    publish: Publish,
    events: Receiver<Event>,
    source: Source,
    tally: Arc<Tally>,
) {
    let mut topics: BTreeMap<&'static str, Topic> = BTreeMap::new();
    while let Ok(first) = events.recv().await {
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
            topic.sequence += 1;
            tally.events_published.add(events.len());
            let message = Message::Events(Events {
                manager: source.manager,
                epoch: source.epoch,
                pipeline: source.pipeline.clone(),
                sequence: topic.sequence,
                events,
                dropped: std::mem::take(&mut topic.dropped),
            });
            let name = format!("{}.{name}", source.pipeline);
            // JSON: whoever watches may be written in any language.
            publish.send(encode_event(&name, &message, Codec::Json));
        }
    }
    publish.close(LINGER).await;
}
