//! Workers that have announced themselves and have not yet proved that they receive.
//!
//! Each costs a pipe and a dial to an address of its choice, and any peer can invent them.
//! So they have a budget: how many are in the table, and how many are admitted per second.
//! When the table is full, a new one replaces the oldest, preferring those without a
//! connected pipe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::{Address, Timestamp, WorkerId};

use super::PipeId;
use super::machine::Core;
use super::worker::Worker;

/// What the shell may think of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The manager does not know it, or not any more.
    Stranger,
    /// It has announced itself; there is a pipe to its address.
    Newcomer,
    /// It has shown that it receives at this address, or the journal names it: what it says
    /// waits behind no stranger, and this pipe is dialled at once.
    Trusted(Address, PipeId),
}

/// The newcomers in the table, and how many more may come.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// By the order of their arrival.
    order: BTreeMap<u64, WorkerId>,
    places: BTreeMap<WorkerId, (u64, Timestamp)>,
    last: u64,
    /// How many may come now, in millionths.
    tokens: u64,
    filled_at: Option<Timestamp>,
    /// Workers whose rank may have changed.
    touched: BTreeSet<WorkerId>,
}

/// One admission, in millionths.
const ADMISSION: u64 = 1_000_000;

impl Newcomers {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn touch(&mut self, id: WorkerId) {
        self.touched.insert(id);
    }

    fn add(&mut self, id: WorkerId, now: Timestamp) {
        self.remove(id);
        self.last += 1;
        self.order.insert(self.last, id);
        self.places.insert(id, (self.last, now));
    }

    fn remove(&mut self, id: WorkerId) {
        self.touched.insert(id);
        if let Some((place, _)) = self.places.remove(&id) {
            self.order.remove(&place);
        }
    }

    /// Takes one from the pace, if there is one.
    fn take_pace(&mut self, per_second: u32, at_once: usize, now: Timestamp) -> bool {
        let full = at_once as u64 * ADMISSION;
        let passed = self.filled_at.map_or(Duration::MAX, |at| now.since(at));
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let more = micros.saturating_mul(per_second.into());
        self.tokens = self.tokens.saturating_add(more).min(full);
        self.filled_at = Some(now);
        let may = self.tokens >= ADMISSION;
        if may {
            self.tokens -= ADMISSION;
        }
        may
    }
}

impl Core {
    /// How many workers are in the table that have shown nothing yet.
    pub fn newcomers(&self) -> usize {
        self.newcomers.len()
    }

    /// Workers whose rank may have changed since the last call.
    pub fn take_ranks(&mut self) -> Vec<(WorkerId, Rank)> {
        let touched = std::mem::take(&mut self.newcomers.touched);
        let ranks = touched.into_iter().map(|id| (id, self.rank(id)));
        ranks.collect()
    }

    fn rank(&self, id: WorkerId) -> Rank {
        match self.workers.table.get(&id) {
            None => Rank::Stranger,
            Some(worker) if self.is_trusted(worker) => {
                Rank::Trusted(worker.address.clone(), worker.pipe)
            }
            Some(_) => Rank::Newcomer,
        }
    }

    fn is_trusted(&self, worker: &Worker) -> bool {
        worker.vouched || self.workers.is_proven(worker)
    }

    /// Gives a worker without proof a place among the newcomers: one that is not known yet,
    /// or that announces another address.
    pub(super) fn admit(&mut self, id: WorkerId, now: Timestamp) -> bool {
        let (most, pace) = (
            self.options.newcomers_max,
            self.options.newcomers_per_second,
        );
        if mutation::is(Mutation::AdmitEverybody) {
            self.newcomers.add(id, now);
            return true;
        }
        let is_new = !self.newcomers.places.contains_key(&id);
        let full = is_new && self.newcomers.len() >= most;
        let displaced = match full {
            true => self.displaceable(now),
            false => None,
        };
        if full && displaced.is_none() || !self.newcomers.take_pace(pace, most, now) {
            self.count("newcomers_refused", 1);
            return false;
        }
        if let Some(displaced) = displaced {
            self.count("workers_displaced", 1);
            self.make_unknown(displaced);
            self.forget_worker(displaced);
        }
        self.newcomers.add(id, now);
        true
    }

    /// The oldest newcomer that holds nothing and has had some time: one whose address does
    /// not answer, if there is any.
    fn displaceable(&self, now: Timestamp) -> Option<WorkerId> {
        let patience = self.options.worker_timeout / 2;
        let mut silent = None;
        let mut up = None;
        for id in self.newcomers.order.values() {
            let since = self.newcomers.places.get(id).map(|(_, since)| *since);
            if since.is_none_or(|since| now.since(since) < patience) {
                // All after it came later.
                break;
            }
            let Some(worker) = self.workers.table.get(id) else {
                continue;
            };
            let pipe = self.workers.pipes.get(&worker.pipe);
            if !worker.attempts.is_empty() {
                continue;
            }
            if pipe.is_some_and(|pipe| pipe.up) {
                up = up.or(Some(*id));
            } else {
                silent = Some(*id);
                break;
            }
        }
        silent.or(up)
    }

    /// A worker has shown that it receives.
    pub(super) fn settle(&mut self, id: WorkerId) {
        self.newcomers.remove(id);
    }

    /// Takes a worker out of the table, and its pipe with it if it was the last there.
    pub(super) fn forget_worker(&mut self, id: WorkerId) {
        self.leave_pipe(id);
        self.workers.table.remove(&id);
        self.newcomers.remove(id);
    }

    /// Whether a worker may be elsewhere than it was. One that is heard and reached where it
    /// was shown to be has not moved: it has got an impostor, since its id is no secret.
    pub(super) fn may_have_moved(&self, id: WorkerId, now: Timestamp) -> bool {
        let Some(worker) = self.workers.table.get(&id) else {
            return true;
        };
        let is_up = self
            .workers
            .pipes
            .get(&worker.pipe)
            .is_some_and(|pipe| pipe.up);
        let is_heard = now.since(worker.last_seen) < self.options.worker_timeout / 2;
        !(is_up && is_heard && !worker.lost && self.workers.is_proven(worker))
    }
}
