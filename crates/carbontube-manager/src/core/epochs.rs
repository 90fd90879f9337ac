//! The epochs of this start, and what to do about workers that follow another life of this
//! manager.
//!
//! A worker follows one life of a manager and ignores hellos of lower epochs. So it ignores a
//! manager that was restored from an older journal, or whose id was used in a hello by a
//! manager on a copy of the journal or by a forger. Heartbeats name the life that the worker
//! follows and, as a second entry, the one that it does not: this proves that the worker
//! receives what this manager sends. When the other life stays silent, the manager journals
//! an epoch above it and greets its workers with that epoch.
//!
//! Invariant: an epoch is durable before anything leaves that names it, and only a worker
//! that proves in the same heartbeat that it receives can move it, by a bounded step, a
//! bounded number of times in each start.

use std::collections::BTreeSet;
use std::time::Duration;

use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{Held, HeldFor};
use carbontube_protocol::{AttemptId, EPOCH_MAX, EPOCH_STEP_MAX, Timestamp, WorkerId};

use super::machine::Core;
use super::{Effect, PipeId, RecordSeq};

/// What a heartbeat says of one manager: the life that is followed, and one that is not.
const LIVES_TOLD_MAX: usize = 2;
/// How often in a worker timeout a worker that follows another life is greeted.
const GREETINGS: u32 = 4;
/// Which part of a worker timeout another life has to answer before it counts as silent.
const ANSWER_SHARE: u32 = 2;
/// How often the epoch is raised in one start. Workers then come back by themselves, later.
const RAISES_MAX: usize = 64;
/// The pause between two raises, a worker timeout at first, doubles so often.
const PAUSE_DOUBLINGS_MAX: usize = 6;
/// The epoch is stepped by this at most beyond the one that is known, by chance: two managers
/// on copies of one journal must not meet at the same.
const SPREAD: u64 = 1 << 10;
/// No epoch above this is journaled but by one more with each start, so that none reaches
/// what cannot be read back.
pub(super) const EPOCH_FAR: u64 = EPOCH_MAX >> 1;

/// The epochs that this start has had.
#[derive(Debug)]
pub(super) struct Epochs {
    all: BTreeSet<u64>,
    /// The record that makes the last of them durable.
    pub(super) after: RecordSeq,
    raised_at: Option<Timestamp>,
    told_at: Option<Timestamp>,
}

/// A worker's heartbeats name another life of this manager as the one that it follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elsewhere {
    epoch: u64,
    sequence: u64,
    /// Since when that life says nothing new, as far as it can have been heard.
    since: Timestamp,
    /// Its epoch is above this manager's.
    is_later: bool,
    /// The worker receives this manager's messages all the same.
    proven: bool,
    told: bool,
}

impl Elsewhere {
    /// Whether it is known to ignore what it is sent.
    pub(super) fn is_deaf(&self) -> bool {
        self.proven && self.is_later
    }
}

impl Epochs {
    /// Begins with the epoch of a start, which its first record makes durable.
    pub(super) fn new(epoch: u64) -> Self {
        Epochs {
            all: [epoch].into(),
            after: RecordSeq(1),
            raised_at: None,
            told_at: None,
        }
    }

    fn has(&self, epoch: u64) -> bool {
        self.all.contains(&epoch)
    }

    /// Whether nothing was told for a while; notes that something is.
    fn may_tell(&mut self, pause: Duration, now: Timestamp) -> bool {
        let may = self.told_at.is_none_or(|at| now.since(at) >= pause);
        if may {
            self.told_at = Some(now);
        }
        may
    }
}

impl Core {
    /// Whether an attempt was made by this start of the manager, and not by another life.
    pub(super) fn is_of_this_start(&self, attempt: AttemptId) -> bool {
        attempt.epoch == self.epoch || self.epochs.has(attempt.epoch)
    }

    /// Whether an epoch that came back on the manager's own socket is one of this start.
    pub(super) fn is_own_epoch(&self, epoch: u64) -> bool {
        self.epochs.has(epoch)
    }

    /// Takes what a heartbeat says of this manager: tells how far the worker has received,
    /// and what it holds.
    pub(super) fn take_lives(
        &mut self,
        id: WorkerId,
        managers: Vec<HeldFor>,
        now: Timestamp,
    ) -> (u64, Vec<Held>) {
        let ours = managers.into_iter().filter(|of| of.manager == self.manager);
        let mut ours: Vec<HeldFor> = ours.take(LIVES_TOLD_MAX).collect();
        let mut numbers = Vec::new();
        for of in &ours {
            let number = if self.epochs.has(of.epoch) {
                of.sequence
            } else {
                0
            };
            numbers.push(self.prove(id, number));
        }
        let received = numbers.iter().copied().max().unwrap_or(0);
        if let Some(followed) = ours.first() {
            let (epoch, sequence) = (followed.epoch, followed.sequence);
            if numbers[0] > 0 {
                let rival = ours.get(1).map(|rival| rival.epoch);
                let rival = rival.filter(|epoch| !self.epochs.has(*epoch));
                self.is_followed(id, rival, now);
            } else {
                self.is_not_followed(id, epoch, sequence, received > 0, now);
            }
        }
        let held = match ours.is_empty() {
            true => Vec::new(),
            false => std::mem::take(&mut ours[0].held),
        };
        (received, held)
    }

    /// The worker follows this manager. If another life greets it under the same id, this
    /// one answers, so that the worker stays.
    fn is_followed(&mut self, id: WorkerId, rival: Option<u64>, now: Timestamp) {
        let timeout = self.options.worker_timeout;
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        let pipe = worker.pipe;
        if worker.elsewhere.take().is_some_and(|at| at.proven) {
            let status = self.status_of(id);
            self.publish_worker(id, now, status);
        }
        let Some(rival) = rival else { return };
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        let pause = timeout / (2 * GREETINGS);
        if worker.greeted_at.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        worker.greeted_at = Some(now);
        self.count("epochs_disputed", 1);
        self.send_hello(pipe);
        if self.epochs.may_tell(timeout, now) {
            let epoch = self.epoch;
            self.warn(
                now,
                format!(
                    "worker {} was greeted with epoch {rival} under this manager's id, which is \
                     at epoch {epoch}: a manager runs on a copy or an older state of this \
                     journal, or the greeting is forged; the worker stays with this one",
                    id.short()
                ),
            );
        }
    }

    /// The worker follows another life, as far as its heartbeat tells.
    fn is_not_followed(
        &mut self,
        id: WorkerId,
        epoch: u64,
        sequence: u64,
        is_proven: bool,
        now: Timestamp,
    ) {
        let timeout = self.options.worker_timeout;
        let own = self.epoch;
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        let pipe = worker.pipe;
        let up = self.workers.pipes.get(&pipe).is_some_and(|pipe| pipe.up);
        let known = worker.elsewhere.get_or_insert(Elsewhere {
            epoch,
            sequence,
            since: now,
            is_later: epoch > own,
            proven: false,
            told: false,
        });
        let was_deaf = known.is_deaf();
        let is_same = (known.epoch, known.sequence) == (epoch, sequence);
        // The other life can answer only once it can have heard of this one.
        if !is_same || !up || is_proven && !known.proven {
            (known.epoch, known.sequence, known.since) = (epoch, sequence, now);
        }
        let is_later = epoch > own;
        (known.proven, known.is_later) = (is_proven, is_later);
        let quiet = now.since(known.since);
        let pause = timeout / GREETINGS;
        let greets = worker.greeted_at.is_none_or(|at| now.since(at) >= pause)
            && (is_later || quiet >= timeout)
            && up
            && !mutation::is(Mutation::GreetOnce);
        if greets {
            worker.greeted_at = Some(now);
        }
        // One that never names this life may be of a version that cannot.
        let tells = is_later && !known.told && (is_proven || up && quiet >= timeout);
        known.told |= tells;
        let is_deaf = known.is_deaf();
        if greets {
            self.send_hello(pipe);
        }
        if is_deaf != was_deaf {
            let status = self.status_of(id);
            self.publish_worker(id, now, status);
        }
        if tells {
            self.tell_elsewhere(id, epoch, is_proven, now);
        }
        if is_proven && epoch >= own && quiet >= timeout / ANSWER_SHARE {
            self.raise_epoch(id, epoch, now);
        }
    }

    fn tell_elsewhere(&mut self, id: WorkerId, epoch: u64, is_proven: bool, now: Timestamp) {
        self.count("workers_elsewhere", 1);
        if !self.epochs.may_tell(self.options.worker_timeout, now) {
            return;
        }
        let (own, id) = (self.epoch, id.short());
        let text = match is_proven {
            true => format!(
                "worker {id} follows epoch {epoch} of this manager, which is at epoch {own}: the \
                 journal is older than what the worker has seen, or a manager on a copy of it has \
                 greeted the worker; it gets no jobs until that one is silent"
            ),
            false => format!(
                "worker {id} follows epoch {epoch} of this manager, which is at epoch {own}, and \
                 does not say that it hears this one; if it stays so, restart the worker"
            ),
        };
        self.warn(now, text);
    }

    /// Journals an epoch above one that a worker follows, and greets everybody with it.
    fn raise_epoch(&mut self, id: WorkerId, known: u64, now: Timestamp) {
        let raised = self.epochs.all.len() - 1;
        let doublings = raised.saturating_sub(1).min(PAUSE_DOUBLINGS_MAX);
        let pause = self.options.worker_timeout * (1 << doublings);
        let is_early = self
            .epochs
            .raised_at
            .is_some_and(|at| now.since(at) < pause);
        let is_far = known - self.epoch > EPOCH_STEP_MAX || known > EPOCH_FAR;
        if is_early || is_far || raised >= RAISES_MAX {
            return self.count("epochs_not_raised", 1);
        }
        let from = self.epoch;
        self.epoch = known + 1 + self.random.next() % SPREAD;
        self.epochs.all.insert(self.epoch);
        self.epochs.raised_at = Some(now);
        self.journal_state();
        self.epochs.after = self.journal.last;
        self.count("epochs_raised", 1);
        for worker in self.workers.table.values_mut() {
            worker.elsewhere = None;
        }
        let up = self.workers.pipes.iter().filter(|(_, pipe)| pipe.up);
        let up: Vec<PipeId> = up
            .filter(|(_, pipe)| self.understands_hello(pipe))
            .map(|(id, _)| *id)
            .collect();
        for pipe in up {
            self.send_hello(pipe);
        }
        self.epochs.told_at = Some(now);
        let text = format!(
            "the epoch is raised from {from} to {}: worker {} followed epoch {known} of this \
             manager, which is silent",
            self.epoch,
            id.short()
        );
        self.warn(now, text);
    }

    /// Tells operators: an event, and a line in the log.
    fn warn(&mut self, now: Timestamp, text: String) {
        self.effect(RecordSeq(0), Effect::Warn(text.clone()));
        self.publish_state(now, text);
    }
}
