//! What a worker has to show before it is believed: that it receives what is sent to the
//! address that it announces.
//!
//! Anyone can announce a worker. The numbers of the messages on a pipe begin where nobody
//! can guess, so a heartbeat that names one shows that its worker receives on that pipe.

use carbontube_protocol::message::{PipeHead, WorkerStatus};
use carbontube_protocol::{Address, Timestamp, WorkerId};

use super::cause::Cause;
use super::machine::Core;

/// How many worker timeouts an address that leads to the manager itself is refused.
const REFUSED_KEPT: u32 = 12;
/// The longest that a worker which does not receive gets nothing, in worker timeouts.
const DISTRUST_MAX: u32 = 12;
/// A heartbeat of a worker that was replaced may have been under way this long, as a part
/// of the worker timeout.
const UNDER_WAY: u32 = 4;

impl Core {
    /// Takes a heartbeat's word for how far its worker received, if it can be true.
    pub(super) fn prove(&mut self, id: WorkerId, received: u64) -> u64 {
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return 0;
        };
        let Some(pipe) = self.workers.pipes.get_mut(&worker.pipe) else {
            return 0;
        };
        if received <= pipe.start || received > pipe.sequence {
            return 0;
        }
        pipe.proven = true;
        if !worker.proven {
            worker.proven = true;
            worker.full_until = Timestamp::ZERO;
        }
        worker.received = worker.received.max(received);
        received
    }

    /// A result is proof as well, and all that the original's workers can give.
    pub(super) fn prove_by_result(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.table.get_mut(&id) {
            worker.proven = true;
            worker.lacking = 0;
            self.settle(id);
        }
    }

    /// One that was shown to receive is no newcomer any more.
    pub(super) fn settle_proven(&mut self, id: WorkerId) {
        let worker = self.workers.table.get(&id);
        if worker.is_some_and(|worker| self.workers.is_proven(worker)) {
            self.settle(id);
        }
    }

    /// A worker that again and again lacks what it says to have received gets nothing for
    /// a while, ever longer.
    pub(super) fn note_lacking(&mut self, id: WorkerId, lacks: bool, holds: bool, now: Timestamp) {
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        if holds {
            worker.lacking = 0;
        } else if lacks {
            worker.lacking += 1;
            let pipe = worker.pipe;
            if worker.lacking > 1 {
                self.count("workers_distrusted", 1);
                self.pass_over(id, now);
                // It may have forgotten this manager over others that it heard of, and drops
                // what comes from one that has not greeted it.
                self.send_hello(pipe);
            }
        }
    }

    /// What was sent to a worker did not arrive for the worker timeout.
    pub(super) fn distrust(&mut self, id: WorkerId, now: Timestamp) {
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        if !worker.proven {
            worker.lacking += 1;
            self.count("workers_distrusted", 1);
            self.pass_over(id, now);
        }
    }

    fn pass_over(&mut self, id: WorkerId, now: Timestamp) {
        let timeout = self.options.worker_timeout;
        if let Some(worker) = self.workers.table.get_mut(&id) {
            let share = 1u32 << worker.lacking.min(8);
            worker.full_until = now + (timeout / 4 * share).min(timeout * DISTRUST_MAX);
            let at = worker.full_until;
            self.wake_at(at);
        }
    }

    /// A worker has shown that it receives at its address: whoever announced the address
    /// before is not there any more.
    pub(super) fn replace_others(&mut self, id: WorkerId, now: Timestamp) {
        let Some(worker) = self.workers.table.get(&id) else {
            return;
        };
        let Some(pipe) = self.workers.pipes.get(&worker.pipe) else {
            return;
        };
        if worker.shared || pipe.workers.len() < 2 {
            return;
        }
        let others = pipe.workers.iter().filter(|other| **other != id);
        let gone: Vec<WorkerId> = others
            .filter(|other| {
                let other = self.workers.table.get(other);
                other.is_some_and(|other| !other.lost && !other.shared && !other.original)
            })
            .copied()
            .collect();
        for other in gone {
            self.lose(other, now, Cause::WorkerReplaced);
            self.count("workers_replaced", 1);
            if let Some(other) = self.workers.table.get_mut(&other) {
                // Only who was shown to receive there can be heard of again and mean that two
                // live behind one address; anybody can claim to.
                other.replaced_at = other.proven.then_some(now);
            }
            self.publish_worker(other, now, WorkerStatus::Lost);
        }
    }

    /// Whether a heartbeat of a worker that was replaced can have been under way since
    /// before. If not, both live behind one address, though neither says so.
    pub(super) fn is_echo_of_the_replaced(&mut self, id: WorkerId, now: Timestamp) -> bool {
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return false;
        };
        let Some(at) = worker.replaced_at else {
            return false;
        };
        if now.since(at) < self.options.worker_timeout / UNDER_WAY {
            return true;
        }
        worker.replaced_at = None;
        if let Some(pipe) = self.workers.pipes.get_mut(&worker.pipe) {
            pipe.shared = true;
            self.count("addresses_shared_unsaid", 1);
        }
        false
    }

    pub(super) fn is_shared_unsaid(&self, id: WorkerId) -> bool {
        let worker = self.workers.table.get(&id);
        let pipe = worker.and_then(|worker| self.workers.pipes.get(&worker.pipe));
        pipe.is_some_and(|pipe| pipe.shared)
    }

    /// What was sent on a pipe came back: the address leads to the manager itself.
    pub(super) fn handle_echo(&mut self, head: &PipeHead, now: Timestamp) {
        if head.manager != self.manager || !self.is_own_epoch(head.epoch) {
            return self.count("hellos_of_others", 1);
        }
        let pipes = self.workers.pipes.values();
        let found = pipes
            .filter(|pipe| pipe.start < head.sequence && head.sequence <= pipe.sequence)
            .map(|pipe| (pipe.address.clone(), pipe.workers.clone()))
            .next();
        let Some((address, workers)) = found else {
            return;
        };
        self.count("addresses_refused", 1);
        let until = now + self.options.worker_timeout * REFUSED_KEPT;
        self.workers.refuse(address, until);
        for id in workers {
            self.remove_worker(id, Cause::LostOnTheWay, now);
        }
    }

    pub(super) fn is_refused(&mut self, address: &Address, now: Timestamp) -> bool {
        match self.workers.refused.get(address) {
            Some(until) if *until > now => true,
            Some(_) => {
                self.workers.refused.remove(address);
                false
            }
            None => false,
        }
    }

    /// Makes room in the table of workers: one that was never shown to receive and holds
    /// nothing gives way. One that is believed because others behind its address are comes
    /// after those that nobody speaks for.
    pub(super) fn make_room(&mut self) -> bool {
        if self.workers.table.len() < self.options.workers_max {
            return true;
        }
        let table = self.workers.table.iter();
        let unproven = table.filter(|(_, worker)| {
            worker.attempts.is_empty() && worker.known.is_none() && !worker.proven
        });
        let oldest = unproven
            .min_by_key(|(id, worker)| (self.workers.is_proven(worker), worker.last_seen, **id));
        let Some(id) = oldest.map(|(id, _)| *id) else {
            return false;
        };
        self.count("workers_displaced", 1);
        self.forget_worker(id);
        true
    }
}
