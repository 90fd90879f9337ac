//! Requests without an answer: which are to be sent, and where the others went.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::CallId;

/// Every request that has no answer yet, by its number.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: u64,
    pending: BTreeMap<u64, Pending>,
    /// In the order in which they were made, also when they are sent again.
    unsent: BTreeSet<u64>,
}

#[derive(Debug)]
struct Pending {
    call: CallId,
    frames: Vec<Bytes>,
    /// The link that it was handed to last.
    link: Option<usize>,
}

impl Requests {
    pub(super) fn take_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn add(&mut self, number: u64, call: CallId, frames: Vec<Bytes>) {
        let pending = Pending {
            call,
            frames,
            link: None,
        };
        self.pending.insert(number, pending);
        self.unsent.insert(number);
    }

    pub(super) fn call(&self, number: u64) -> Option<CallId> {
        self.pending.get(&number).map(|pending| pending.call)
    }

    /// Whether it may have reached a manager.
    pub(super) fn is_sent(&self, number: u64) -> bool {
        self.pending
            .get(&number)
            .is_some_and(|pending| pending.link.is_some())
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.pending.remove(&number);
        self.unsent.remove(&number);
    }

    /// What to send next on a link.
    pub(super) fn next(&mut self, link: usize) -> Option<Vec<Bytes>> {
        let number = self.unsent.pop_first()?;
        let pending = self.pending.get_mut(&number)?;
        pending.link = Some(link);
        Some(pending.frames.clone())
    }

    /// The connection of a link ended: what went there and was not answered is sent
    /// again, under the same numbers and with the same ids.
    pub(super) fn lost(&mut self, link: usize) {
        let lost = self.at(link);
        self.unsent
            .extend(lost.into_iter().map(|(number, _)| number));
    }

    /// What a link was given and has not answered.
    pub(super) fn at(&self, link: usize) -> Vec<(u64, CallId)> {
        let at = self.pending.iter();
        let at = at.filter(|(_, pending)| pending.link == Some(link));
        at.map(|(number, pending)| (*number, pending.call))
            .collect()
    }

    pub(super) fn replace(&mut self, number: u64, frames: Vec<Bytes>) {
        if let Some(pending) = self.pending.get_mut(&number) {
            pending.frames = frames;
        }
    }
}
