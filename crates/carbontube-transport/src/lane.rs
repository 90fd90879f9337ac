//! Messages on their way to one peer, kept until the network has taken them.

use std::collections::VecDeque;

use crate::message::wire_bytes;
use crate::{Message, Options};

/// Messages that the crate socket may hold at a time; far below the length of its queue.
const GIVEN_MAX: usize = 1024;
/// Bytes that the crate socket may hold at a time; one message may have more.
const GIVEN_BYTES_MAX: usize = 1 << 20;
/// Messages given to the crate in one go.
const BATCH_MAX: usize = 128;

/// The messages of one connection, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    messages: VecDeque<Message>,
    bytes: usize,
    /// How many of the messages the crate socket has, and their bytes.
    given: usize,
    given_bytes: usize,
}

impl Lane {
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// How many messages the crate socket has.
    pub(crate) fn given(&self) -> usize {
        self.given
    }

    /// Whether a message of `size` bytes keeps to the high-water marks.
    pub(crate) fn has_room(&self, size: usize, options: &Options) -> bool {
        self.messages.is_empty()
            || self.messages.len() < options.hwm_messages()
                && self.bytes + size <= options.send_hwm_bytes
    }

    pub(crate) fn push(&mut self, message: Message) {
        self.bytes += wire_bytes(&message);
        self.messages.push_back(message);
    }

    /// Adds what the crate socket is to get next, as much as it may hold.
    pub(crate) fn give(&mut self, batch: &mut Vec<Message>) {
        while let Some(message) = self.messages.get(self.given) {
            let is_full = self.given >= GIVEN_MAX || self.given_bytes >= GIVEN_BYTES_MAX;
            if is_full || batch.len() >= BATCH_MAX {
                return;
            }
            self.given += 1;
            self.given_bytes += wire_bytes(message);
            batch.push(message.clone());
        }
    }

    /// Takes off what was written to the network; the caller drops it where it holds no lock.
    pub(crate) fn written(&mut self, messages: usize) -> Vec<Message> {
        let messages = messages.min(self.given);
        let written: Vec<Message> = self.messages.drain(..messages).collect();
        let bytes: usize = written.iter().map(|message| wire_bytes(message)).sum();
        self.given -= messages;
        self.given_bytes -= bytes;
        self.bytes -= bytes;
        written
    }

    /// What was not written, oldest first.
    pub(crate) fn into_messages(self) -> VecDeque<Message> {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn crate_socket_holds_a_bounded_part_of_what_waits() {
        let mut lane = Lane::default();
        for _ in 0..5_000 {
            lane.push(vec![Bytes::from_static(b"message")]);
        }
        let mut given = 0;
        loop {
            let mut batch = Vec::new();
            lane.give(&mut batch);
            if batch.is_empty() {
                break;
            }
            given += batch.len();
        }
        assert_eq!(given, GIVEN_MAX);
        assert_eq!(lane.written(100).len(), 100);
        let mut batch = Vec::new();
        lane.give(&mut batch);
        assert_eq!((batch.len(), lane.len()), (100, 4_900));
    }

    #[test]
    fn large_messages_are_given_one_by_one() {
        let mut lane = Lane::default();
        for _ in 0..3 {
            lane.push(vec![Bytes::from(vec![0; 2 * GIVEN_BYTES_MAX])]);
        }
        for left in (0..3).rev() {
            let mut batch = Vec::new();
            lane.give(&mut batch);
            assert_eq!(batch.len(), 1);
            lane.written(1);
            assert_eq!(lane.len(), left);
        }
        assert_eq!((lane.bytes, lane.given_bytes), (0, 0));
    }
}
