//! A manager's event stream, with losses shown.

use std::collections::BTreeMap;

use carbontube_protocol::message::Events;
use carbontube_protocol::{Limits, ManagerId, Message, decode_event};
use carbontube_transport::{Address, Endpoint, OpenError, Options, Subscribe};

use crate::ClientError;

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Events of one topic.
    Events {
        /// The topic: `PIPELINE.job`, `.worker`, `.log`, `.progress` or `.manager`.
        topic: String,
        /// The events.
        events: Events,
    },
    /// Messages of a topic were lost just before the next notice: a view asks the
    /// manager for its state now.
    Gap {
        /// The topic.
        topic: String,
        /// How many messages are missing.
        missed: u64,
    },
}

/// Events of one or more managers, as they come.
///
/// Publishing does not wait for slow subscribers: see [`Notice::Gap`].
#[derive(Debug)]
pub struct EventStream {
    socket: Subscribe,
    limits: Limits,
    seen: BTreeMap<(ManagerId, String), (u64, u64)>,
    next: Option<Notice>,
    unreadable: u64,
}

/// The most topics that gaps are looked for in; a hostile publisher could name more.
const TOPICS_MAX: usize = 4096;

impl EventStream {
    /// Subscribes to topics at the managers' pub addresses; `""` is every topic, and a
    /// topic is a prefix: `PIPELINE.` is everything of one pipeline.
    ///
    /// It returns at once, and reconnects whenever it has to.
    ///
    /// # Errors
    /// When an address cannot be connected to at all.
    pub async fn subscribe<T: AsRef<str>>(
        addresses: &[Address],
        topics: impl IntoIterator<Item = T>,
        limits: Limits,
    ) -> Result<EventStream, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        for address in addresses {
            address
                .check_connectable()
                .map_err(|source| OpenError::Connect { source })?;
        }
        let endpoints = addresses.iter().cloned().map(Endpoint::Connect);
        let options = Options::with_limits(&limits);
        Ok(EventStream {
            socket: Subscribe::open(options, endpoints, topics).await?,
            limits,
            seen: BTreeMap::new(),
            next: None,
            unreadable: 0,
        })
    }

    /// The next notice. Cancel-safe.
    ///
    /// # Errors
    /// When the stream was closed.
    pub async fn next(&mut self) -> Result<Notice, ClientError> {
        if let Some(notice) = self.next.take() {
            return Ok(notice);
        }
        loop {
            let frames = self.socket.recv().await.map_err(|_| ClientError::Closed)?;
            match decode_event(&frames, &self.limits) {
                Ok((topic, Message::Events(events))) => {
                    let topic = String::from_utf8_lossy(topic).into_owned();
                    return Ok(self.take_in(topic, events));
                }
                Ok((_, other)) => {
                    self.unreadable += 1;
                    log::debug!("a {:?} message among events", other.kind());
                }
                Err(error) => {
                    self.unreadable += 1;
                    log::debug!("an event cannot be read: {error}");
                }
            }
        }
    }

    /// How many managers the stream is connected to now.
    pub fn peers(&self) -> usize {
        self.socket.peers()
    }

    /// How many messages came that are no events.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn take_in(&mut self, topic: String, events: Events) -> Notice {
        let key = (events.manager, topic.clone());
        let missed = match self.seen.get(&key) {
            Some((epoch, sequence)) if *epoch == events.epoch => {
                events.sequence.saturating_sub(sequence.saturating_add(1))
            }
            // A restarted manager counts from 1 again.
            Some(_) => events.sequence.saturating_sub(1),
            None => 0,
        };
        if self.seen.len() >= TOPICS_MAX && !self.seen.contains_key(&key) {
            self.seen.pop_first();
        }
        self.seen.insert(key, (events.epoch, events.sequence));
        let notice = Notice::Events {
            topic: topic.clone(),
            events,
        };
        if missed == 0 {
            return notice;
        }
        self.next = Some(notice);
        Notice::Gap { topic, missed }
    }
}
