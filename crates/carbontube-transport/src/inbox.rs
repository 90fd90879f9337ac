//! Received messages on their way to whoever asks, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use crate::message::{detach, wire_bytes};
use crate::{Closed, Message};

/// A bounded queue of received messages.
#[derive(Debug)]
pub(crate) struct Inbox {
    messages_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
    arrived: Event,
    room: Event,
    grown: Event,
}

#[derive(Debug, Default)]
struct State {
    /// Messages ever put in.
    taken_in: u64,
    messages: VecDeque<Message>,
    bytes: usize,
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            messages_max: messages_max.max(1),
            bytes_max,
            state: Mutex::default(),
            arrived: Event::new(),
            room: Event::new(),
            grown: Event::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room; the message is lost only if the caller is cancelled or the inbox closed.
    pub(crate) async fn put(&self, message: Message) {
        let message = detach(message);
        let size = wire_bytes(&message);
        loop {
            let room = self.room.listen();
            {
                let mut state = self.lock();
                let fits = state.messages.is_empty()
                    || state.messages.len() < self.messages_max
                        && state.bytes + size <= self.bytes_max;
                if state.closed {
                    return;
                }
                if fits {
                    state.bytes += size;
                    state.messages.push_back(message);
                    state.taken_in += 1;
                    break;
                }
            }
            room.await;
        }
        self.arrived.notify(1);
        self.grown.notify(usize::MAX);
    }

    /// How many messages were ever put in.
    pub(crate) fn taken_in(&self) -> u64 {
        self.lock().taken_in
    }

    /// Waits until that many messages were put in, or nothing more can be.
    pub(crate) async fn until_taken_in(&self, count: u64) {
        loop {
            let grown = self.grown.listen();
            {
                let state = self.lock();
                if state.closed || state.taken_in >= count {
                    return;
                }
            }
            grown.await;
        }
    }

    /// Waits for the oldest message.
    pub(crate) async fn take(&self) -> Result<Message, Closed> {
        loop {
            let arrived = self.arrived.listen();
            {
                let mut state = self.lock();
                if let Some(message) = state.messages.pop_front() {
                    state.bytes -= wire_bytes(&message);
                    drop(state);
                    self.room.notify(1);
                    return Ok(message);
                }
                if state.closed {
                    return Err(Closed);
                }
            }
            arrived.await;
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify(usize::MAX);
        self.room.notify(usize::MAX);
        self.grown.notify(usize::MAX);
    }
}
