//! What a session sends on each route: batches, hand-backs, repeats, the last word.

use std::collections::VecDeque;
use std::time::Duration;

use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{
    AttemptResult, Goodbye, HandBack, HandBackReason, HandedBack, Results,
};
use carbontube_protocol::{Codec, Message, Timestamp};

use super::{Entry, Key, STALE_KEYS_MAX, Session, State, report_size};

/// Bytes of payload in one message, unless a single one is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Results in one message.
pub(super) const BATCH_RESULTS_MAX: usize = 512;
/// Bytes of error reports in one message: they stand in its bounded body.
const BATCH_REPORT_BYTES_MAX: usize = 1 << 20;
/// How long after sending a result it is sent again; doubles with each time.
const RESEND: Duration = Duration::from_secs(5);
/// The doubling ends here.
const RESEND_DOUBLINGS_MAX: u32 = 4;
/// How often a result is sent when acknowledgements may never reach this worker.
const SENDS_MAX_SHARED: u32 = 5;
/// Hand-backs waiting for a route; more are dropped, since the next heartbeat says the same.
const HAND_BACKS_MAX: usize = 256;

/// A message to send on a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// The codec that its receiver speaks.
    pub codec: Codec,
    /// The results in it, for [`Session::sent`].
    pub keys: Vec<Key>,
}

#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) hand_backs: VecDeque<(Codec, HandBack)>,
    pub(super) results: VecDeque<Key>,
    pub(super) goodbye: bool,
}

impl Session {
    pub(super) fn hand_back(
        &mut self,
        index: u8,
        reason: HandBackReason,
        attempts: Vec<HandedBack>,
    ) {
        if attempts.is_empty() {
            return;
        }
        let codec = self.managers[usize::from(index)].codec;
        let mask = self.routes_to(index);
        let most = self.profile.limits.batch_jobs_max.max(1);
        for part in attempts.chunks(most) {
            for route in bits(mask) {
                let hand_backs = &mut self.routes[route].hand_backs;
                if hand_backs.len() >= HAND_BACKS_MAX {
                    hand_backs.pop_front();
                }
                let message = HandBack {
                    worker: self.profile.worker,
                    reason,
                    attempts: part.to_vec(),
                };
                hand_backs.push_back((codec, message));
            }
        }
        self.effects.send = true;
        self.effects.settled = true;
    }

    pub(super) fn routes_to(&self, manager: u8) -> u64 {
        match self.managers[usize::from(manager)].route {
            Some(route) => 1 << route,
            None => (1 << self.profile.routes) - 1,
        }
    }

    /// Puts a result into the queue of each route to its manager, if it does not stand there.
    pub(super) fn enqueue_result(&mut self, key: Key) {
        let mask = self.routes_to(key.manager);
        let mut swept = false;
        let Some(Entry {
            state: State::Done(done),
            ..
        }) = self.held.get_mut(&key)
        else {
            return;
        };
        for route in bits(mask & !done.queued_on) {
            let results = &mut self.routes[route].results;
            results.push_back(key);
            swept |= results.len() > 2 * self.load.done + STALE_KEYS_MAX;
            self.effects.send = true;
        }
        done.queued_on |= mask;
        if swept {
            // A route that stays disconnected keeps the keys of what went by another.
            let held = &self.held;
            for route in &mut self.routes {
                route.results.retain(|key| held.contains_key(key));
            }
        }
    }

    pub(super) fn resend_all(&mut self, manager: u8) {
        if mutation::is(Mutation::NeverResendResult) {
            return;
        }
        let of_manager = |(key, entry): (&Key, &Entry)| {
            let done = matches!(entry.state, State::Done(_)) && key.manager == manager;
            done.then_some(*key)
        };
        let keys: Vec<Key> = self.held.iter().filter_map(of_manager).collect();
        for key in keys {
            self.enqueue_result(key);
        }
    }

    /// A route was connected again: what was written to the old connection may be lost.
    pub fn reconnected(&mut self, route: usize) {
        if mutation::is(Mutation::NeverResendResult) {
            return;
        }
        let sent = |(key, entry): (&Key, &Entry)| match &entry.state {
            State::Done(done) if done.sent_at.is_some() => Some(*key),
            _ => None,
        };
        let keys: Vec<Key> = self.held.iter().filter_map(sent).collect();
        for key in keys {
            if self.routes_to(key.manager) & (1 << route) != 0 {
                self.enqueue_result(key);
            }
        }
    }

    /// Takes the next message for a route.
    pub fn take_outgoing(&mut self, route: usize) -> Option<Outgoing> {
        if let Some((codec, hand_back)) = self.routes[route].hand_backs.pop_front() {
            return Some(Outgoing {
                message: hand_back.into(),
                codec,
                keys: Vec::new(),
            });
        }
        if let Some(outgoing) = self.take_results(route) {
            return Some(outgoing);
        }
        if std::mem::take(&mut self.routes[route].goodbye) {
            return Some(Outgoing {
                message: Goodbye {
                    worker: self.profile.worker,
                }
                .into(),
                codec: self.codec(),
                keys: Vec::new(),
            });
        }
        None
    }

    pub(super) fn take_results(&mut self, route: usize) -> Option<Outgoing> {
        let most = BATCH_RESULTS_MAX.min(self.profile.limits.batch_jobs_max);
        let mut results: Vec<AttemptResult> = Vec::new();
        let mut keys = Vec::new();
        let mut codec = None;
        let (mut payload_bytes, mut report_bytes) = (0, 0);
        while let Some(&key) = self.routes[route].results.front() {
            let Some(Entry {
                state: State::Done(done),
                ..
            }) = self.held.get_mut(&key)
            else {
                // Acknowledged while it waited.
                self.routes[route].results.pop_front();
                continue;
            };
            let wanted = self.managers[usize::from(key.manager)].codec;
            payload_bytes += done.result.instructions.len();
            report_bytes += report_size(&done.result);
            let more = results.len() < most
                && payload_bytes <= BATCH_BYTES_MAX
                && report_bytes <= BATCH_REPORT_BYTES_MAX
                && codec.is_none_or(|codec| codec == wanted);
            if !results.is_empty() && !more {
                break;
            }
            codec = Some(wanted);
            done.queued_on &= !(1 << route);
            results.push(done.result.clone());
            keys.push(key);
            self.routes[route].results.pop_front();
        }
        let codec = codec?;
        let message = Results {
            worker: self.profile.worker,
            route: u16::try_from(route).expect("routes are few"),
            results,
        };
        Some(Outgoing {
            message: message.into(),
            codec,
            keys,
        })
    }

    /// A message was handed to the network.
    pub fn sent(&mut self, keys: &[Key], now: Timestamp) {
        for key in keys {
            if let Some(Entry {
                state: State::Done(done),
                ..
            }) = self.held.get_mut(key)
            {
                done.sent_at = Some(now);
                done.sends = done.sends.saturating_add(1);
            }
            if mutation::is(Mutation::DropUnacknowledgedResult) {
                self.forget(*key);
            }
        }
    }

    /// Looks for results that wait too long for their acknowledgement, and forgets rivals
    /// of managers that are gone.
    pub fn tick(&mut self, now: Timestamp) {
        self.forget_rivals(now);
        let mut again = Vec::new();
        let mut given_up = Vec::new();
        for (key, entry) in &self.held {
            let State::Done(done) = &entry.state else {
                continue;
            };
            let Some(sent_at) = done.sent_at else {
                continue;
            };
            let doublings = done.sends.saturating_sub(1).min(RESEND_DOUBLINGS_MAX);
            if now < sent_at + RESEND * (1 << doublings) {
                continue;
            }
            // Behind a device, acknowledgements go to whichever worker the device likes.
            if self.profile.shared_address && done.sends >= SENDS_MAX_SHARED {
                given_up.push(*key);
            } else {
                again.push(*key);
            }
        }
        if mutation::is(Mutation::NeverResendResult) {
            again.clear();
        }
        for key in again {
            self.enqueue_result(key);
        }
        let was_full = self.is_full();
        for key in given_up {
            self.unacknowledged_count += 1;
            self.forget(key);
            self.effects.settled = true;
        }
        self.start_after(was_full);
    }

    /// Says the last word on every route, after all that waits there.
    pub fn goodbye(&mut self) {
        for route in &mut self.routes {
            route.goodbye = true;
        }
        self.effects.send = true;
    }
}

fn bits(mask: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |bit| mask & (1 << bit) != 0)
}
