//! Which life of a manager a worker follows, when several speak under one manager id.
//!
//! Each start of a manager is a life of its own, with a higher epoch. A worker follows the
//! highest that it heard of, since what an earlier life sent may still be under way. But an
//! epoch can also be wrong: the manager was restored from an older journal, another one runs
//! on a copy, or somebody forged a hello. So a hello of an epoch that does not follow is not
//! forgotten: heartbeats name it as a rival, and the worker goes over to it once the life that
//! it follows has not answered for a while.
//!
//! Invariant: one life of each manager id is followed at a time, and a rival takes its place
//! only by its second hello, when the followed one was silent since the first.

use std::fmt;
use std::time::Duration;

use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{HeldFor, Hello, PipeHead};
use carbontube_protocol::{Codec, EPOCH_MAX, EPOCH_STEP_MAX, ManagerId, Timestamp};

use super::{MANAGERS_MAX, Manager, PIPE_BITS, Session};

/// How long a followed life may take to answer a rival, when neither says what its worker
/// timeout is.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_MIN: Duration = Duration::from_secs(1);
const PATIENCE_MAX: Duration = Duration::from_secs(30);
/// The pause between two notices.
const NOTICE_PAUSE: Duration = Duration::from_secs(10);

/// Another life under the id of a manager: it has said hello, and is not followed.
#[derive(Debug)]
pub(super) struct Rival {
    epoch: u64,
    /// The number of its last hello, so that heartbeats show it that it is heard.
    sequence: u64,
    /// Since when the followed life has to answer.
    since: Timestamp,
    heard_at: Timestamp,
    patience: Duration,
}

/// What an operator should know about the lives of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A hello came of an epoch that does not follow the known one.
    Disputed {
        /// The manager.
        manager: ManagerId,
        /// The epoch that is followed.
        followed: u64,
        /// The other one.
        rival: u64,
    },
    /// The worker follows another life from now on.
    WentOver {
        /// The manager.
        manager: ManagerId,
        /// The epoch that was followed and has fallen silent.
        from: u64,
        /// The epoch that is followed.
        to: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Disputed {
                manager,
                followed,
                rival,
            } => write!(
                f,
                "manager {} says hello with epoch {rival}, but this worker follows its epoch \
                 {followed}: it was restored from an older journal, another manager runs on a \
                 copy of its journal, or the hello is forged; the worker goes over when epoch \
                 {followed} stays silent",
                manager.short()
            ),
            Notice::WentOver { manager, from, to } => write!(
                f,
                "manager {} is followed with epoch {to} from now on: epoch {from} is silent",
                manager.short()
            ),
        }
    }
}

impl Manager {
    /// Whether a message of this epoch comes from the followed life or one that follows it.
    fn leads_to(&self, epoch: u64) -> bool {
        let step = epoch.checked_sub(self.epoch);
        let furthest = match mutation::is(Mutation::KeepHighestEpoch) {
            true => u64::MAX,
            false => EPOCH_STEP_MAX,
        };
        step.is_some_and(|step| step <= furthest)
    }

    /// Notes a hello that is not followed. Tells whether the worker goes over to it now.
    fn is_won_by(&mut self, hello: &Hello, now: Timestamp) -> bool {
        let head = &hello.head;
        let told = [self.timeout, Some(timeout_of(hello))];
        let patience = told.into_iter().flatten().min().unwrap_or(PATIENCE);
        let patience = patience.clamp(PATIENCE_MIN, PATIENCE_MAX);
        if let Some(rival) = &mut self.rival {
            if rival.epoch == head.epoch {
                rival.sequence = head.sequence;
                rival.heard_at = now;
                if self.last_heard > rival.since {
                    rival.since = now;
                    return false;
                }
                // Two lives of one epoch cannot be told apart: a manager has to raise its own.
                return head.epoch != self.epoch && now.since(rival.since) >= patience;
            }
            // One after the other, or a flood of forged ones would keep a real one out.
            if !rival.is_over(now) {
                return false;
            }
        }
        self.rival = Some(Rival {
            epoch: head.epoch,
            sequence: head.sequence,
            since: now,
            heard_at: now,
            patience,
        });
        false
    }
}

impl Rival {
    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.heard_at) > 2 * self.patience
    }
}

impl Session {
    /// The last number that came from a manager in this epoch, since its hello. None behind a
    /// device, where messages of several pipes may come in any order.
    fn last_number(&self, head: &PipeHead) -> Option<u64> {
        let is_same = |manager: &&Manager| {
            (manager.id, manager.epoch) == (head.manager, head.epoch) && manager.greeted
        };
        let manager = self.managers.iter().find(is_same)?;
        (!self.profile.shared_address).then_some(manager.sequence)
    }

    /// Whether this came on a pipe that the manager has given up for another, or came
    /// before. The manager counts on it that nothing of that begins any more.
    pub(super) fn is_overtaken(&self, head: &PipeHead) -> bool {
        // Spec: protocol.md §5.2.
        let last = self.last_number(head);
        last.is_some_and(|last| head.sequence <= last) && !mutation::is(Mutation::TakeOvertaken)
    }

    fn is_of_former_pipe(&self, head: &PipeHead) -> bool {
        let pipe = |number: u64| number >> PIPE_BITS;
        self.last_number(head)
            .is_some_and(|last| pipe(head.sequence) < pipe(last))
    }

    /// Notes who speaks; none when that life is not followed.
    pub(super) fn hear(&mut self, head: &PipeHead, codec: Codec, now: Timestamp) -> Option<u8> {
        let index = match self.managers.iter().position(|m| m.id == head.manager) {
            Some(index) => index,
            None => self.meet(head, codec, now)?,
        };
        let manager = &mut self.managers[index];
        if !manager.leads_to(head.epoch) || head.epoch > EPOCH_MAX {
            self.stale_count += 1;
            return None;
        }
        manager.codec = codec;
        manager.last_heard = now;
        let is_new = head.epoch > manager.epoch;
        let index = u8::try_from(index).expect("managers are fewer than 256");
        if is_new {
            self.follow(index, head);
        }
        let manager = &mut self.managers[usize::from(index)];
        manager.sequence = manager.sequence.max(head.sequence);
        Some(index)
    }

    /// Follows another life of a manager from now on.
    fn follow(&mut self, index: u8, head: &PipeHead) {
        let manager = &mut self.managers[usize::from(index)];
        manager.epoch = head.epoch;
        manager.sequence = head.sequence;
        manager.greeted = false;
        manager.rival = None;
        // A standby that took over is reached by another route.
        if self.profile.routes > 1 {
            manager.route = None;
        }
        self.resend_all(index);
        self.repeat_abandoned(index);
        self.effects.heartbeat = true;
    }

    fn meet(&mut self, head: &PipeHead, codec: Codec, now: Timestamp) -> Option<usize> {
        if head.epoch > EPOCH_MAX {
            self.stale_count += 1;
            return None;
        }
        let manager = Manager {
            id: head.manager,
            epoch: head.epoch,
            sequence: head.sequence,
            codec,
            route: (self.profile.routes == 1).then_some(0),
            timeout: None,
            last_heard: now,
            held: 0,
            greeted: false,
            gave_work: false,
            rival: None,
        };
        if self.managers.len() < MANAGERS_MAX {
            self.managers.push(manager);
            return Some(self.managers.len() - 1);
        }
        let free = (0..self.managers.len()).filter(|&index| self.managers[index].held == 0);
        let stranger_first = |&index: &usize| {
            let manager = &self.managers[index];
            (manager.gave_work, manager.last_heard)
        };
        let Some(oldest) = free.min_by_key(stranger_first) else {
            self.stale_count += 1;
            return None;
        };
        self.abandoned
            .retain(|abandoned| usize::from(abandoned.manager) != oldest);
        self.managers[oldest] = manager;
        Some(oldest)
    }

    pub(super) fn receive_hello(&mut self, hello: &Hello, codec: Codec, now: Timestamp) {
        let index = match self.is_of_former_pipe(&hello.head) {
            true => {
                self.stale_count += 1;
                None
            }
            false => self.hear(&hello.head, codec, now),
        };
        let Some(index) = index.or_else(|| self.receive_rival(hello, now)) else {
            return;
        };
        let manager = &mut self.managers[usize::from(index)];
        manager.codec = codec;
        manager.last_heard = now;
        // A manager that had forgotten this worker counts from the start again.
        manager.sequence = hello.head.sequence;
        manager.greeted = true;
        manager.timeout = Some(timeout_of(hello));
        self.resend_all(index);
        self.effects.heartbeat = true;
        self.effects.hurry = true;
    }

    /// Takes a hello of a life that is not followed: names it in heartbeats, so that both
    /// lives learn of each other. Gives the manager's index when the worker goes over.
    fn receive_rival(&mut self, hello: &Hello, now: Timestamp) -> Option<u8> {
        let head = &hello.head;
        if head.epoch > EPOCH_MAX || mutation::is(Mutation::KeepHighestEpoch) {
            return None;
        }
        let index = self.managers.iter().position(|m| m.id == head.manager)?;
        let manager = &mut self.managers[index];
        let (id, followed) = (manager.id, manager.epoch);
        self.effects.heartbeat |= head.epoch != followed;
        if manager.is_won_by(hello, now) {
            let index = u8::try_from(index).expect("managers are fewer than 256");
            self.follow(index, head);
            let notice = Notice::WentOver {
                manager: id,
                from: followed,
                to: head.epoch,
            };
            self.effects.notice = Some(notice);
            return Some(index);
        }
        let is_due = |at: Timestamp| now.since(at) >= NOTICE_PAUSE;
        // A late hello of the same epoch is nothing to tell of.
        if head.epoch != followed && self.noticed_at.is_none_or(is_due) {
            self.noticed_at = Some(now);
            self.effects.notice = Some(Notice::Disputed {
                manager: id,
                followed,
                rival: head.epoch,
            });
        }
        None
    }

    /// Forgets rivals that have not greeted for a while.
    pub(super) fn forget_rivals(&mut self, now: Timestamp) {
        for manager in &mut self.managers {
            manager.rival.take_if(|rival| rival.is_over(now));
        }
    }

    /// Names rivals in a heartbeat, behind what is followed.
    pub(super) fn list_rivals(&self, lists: &mut Vec<HeldFor>) {
        for manager in &self.managers {
            let rival = manager.rival.as_ref();
            lists.extend(rival.map(|rival| HeldFor {
                manager: manager.id,
                epoch: rival.epoch,
                sequence: rival.sequence,
                held: Vec::new(),
            }));
        }
    }
}

fn timeout_of(hello: &Hello) -> Duration {
    Duration::from_millis(hello.worker_timeout_ms)
}
