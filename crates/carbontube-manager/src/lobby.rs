//! Where workers' heartbeats wait for the core: the newest of each worker.
//!
//! What trusted workers say waits behind nobody else. The rest is let in at a pace, in
//! turn of those who sent it: anybody can invent workers faster than the core can look at
//! them, and an honest newcomer among them has its turn with every source.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use carbontube_protocol::{Address, WorkerId};
use carbontube_transport::{Origin, Placed, Turns};

use crate::core::{Input, Rank};

/// The most heartbeats of strangers, and of newcomers, that wait.
const WAITING_MAX: usize = 1024;
/// The most bytes of either.
const BYTES_MAX: usize = 8 << 20;
/// How many strangers are let in at once after a rest, and in each second. The core has
/// the same budget, and refuses what is over it: here it is given out in turn.
const STRANGERS: Pace = Pace::new(512, 100);
/// The same of newcomers: they repeat themselves until they have shown that they receive.
const NEWCOMERS: Pace = Pace::new(512, 2000);

/// Heartbeats that wait, each in its lane.
#[derive(Debug)]
pub(crate) struct Lobby {
    ranks: BTreeMap<WorkerId, Option<Address>>,
    trusted: BTreeMap<WorkerId, Vec<Input>>,
    trusted_order: VecDeque<WorkerId>,
    newcomers: Lane,
    strangers: Lane,
}

#[derive(Debug)]
struct Lane {
    turns: Turns<WorkerId, Vec<Input>>,
    pace: Pace,
}

/// What became of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It waits for its turn.
    Waits,
    /// It took the place of an older one of its worker.
    Merged,
    /// It waits; so many of whoever has most had to go.
    Displaced(usize),
}

impl Default for Lobby {
    fn default() -> Self {
        let lane = |pace| Lane {
            turns: Turns::new(WAITING_MAX, BYTES_MAX),
            pace,
        };
        Lobby {
            ranks: BTreeMap::new(),
            trusted: BTreeMap::new(),
            trusted_order: VecDeque::new(),
            newcomers: lane(NEWCOMERS),
            strangers: lane(STRANGERS),
        }
    }
}

impl Lobby {
    /// Takes note of what the core thinks of a worker.
    pub(crate) fn rank(&mut self, worker: WorkerId, rank: &Rank) {
        match rank {
            Rank::Stranger => self.ranks.remove(&worker),
            Rank::Newcomer => self.ranks.insert(worker, None),
            Rank::Trusted(address, _) => self.ranks.insert(worker, Some(address.clone())),
        };
    }

    /// Whether a worker is trusted, at this address if one is given.
    pub(crate) fn is_trusted(&self, worker: WorkerId, at: Option<&Address>) -> bool {
        let rank = self.ranks.get(&worker).and_then(Option::as_ref);
        rank.is_some_and(|trusted| at.is_none_or(|at| at == trusted))
    }

    /// Adds what a worker at an address announces.
    pub(crate) fn put(
        &mut self,
        origin: Origin,
        worker: WorkerId,
        address: &Address,
        inputs: Vec<Input>,
        bytes: usize,
    ) -> Put {
        let lane = match self.ranks.get(&worker) {
            // Its id is no secret: what others say in its name is not to push out its word.
            Some(Some(trusted)) if trusted == address => {
                let Some(waiting) = self.trusted.get_mut(&worker) else {
                    self.trusted.insert(worker, inputs);
                    self.trusted_order.push_back(worker);
                    return Put::Waits;
                };
                *waiting = inputs;
                return Put::Merged;
            }
            Some(None) => &mut self.newcomers,
            Some(Some(_)) | None => &mut self.strangers,
        };
        match lane.turns.put(origin, worker, inputs, bytes) {
            Placed::Waits => Put::Waits,
            Placed::Newer(_) => Put::Merged,
            Placed::Displaced(gone) => Put::Displaced(gone.len()),
        }
    }

    /// Moves to `batch` what has its turn now; at most `most`.
    pub(crate) fn take(&mut self, batch: &mut Vec<Input>, most: usize, now: Instant) {
        let mut left = most;
        while left > 0
            && let Some(worker) = self.trusted_order.pop_front()
        {
            batch.extend(self.trusted.remove(&worker).into_iter().flatten());
            left -= 1;
        }
        for lane in [&mut self.newcomers, &mut self.strangers] {
            // The others have something left over, or a flood would never let them in.
            let mut left = left.max(most / 4);
            while left > 0 && !lane.turns.is_empty() && lane.pace.take(now) {
                batch.extend(
                    lane.turns
                        .take()
                        .into_iter()
                        .flat_map(|(_, _, inputs)| inputs),
                );
                left -= 1;
            }
        }
    }

    /// When the next one has its turn; now, if there is one already.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        if !self.trusted_order.is_empty() {
            return Some(now);
        }
        let lanes = [&self.newcomers, &self.strangers].into_iter();
        let waiting = lanes.filter(|lane| !lane.turns.is_empty());
        waiting.map(|lane| lane.pace.next(now)).min()
    }
}

/// So many at once, and so many in each second.
#[derive(Clone, Copy, Debug)]
struct Pace {
    at_once: u32,
    per_second: u32,
    /// In millionths.
    tokens: u64,
    filled_at: Option<Instant>,
}

/// One turn, in millionths.
const TURN: u64 = 1_000_000;

impl Pace {
    const fn new(at_once: u32, per_second: u32) -> Pace {
        Pace {
            at_once,
            per_second,
            tokens: at_once as u64 * TURN,
            filled_at: None,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = self.filled_at.map(|at| now.saturating_duration_since(at));
        let micros = since.map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        });
        let more = micros.saturating_mul(self.per_second.into());
        let full = u64::from(self.at_once) * TURN;
        self.tokens = self.tokens.saturating_add(more).min(full);
        self.filled_at = Some(self.filled_at.map_or(now, |at| at.max(now)));
        let may = self.tokens >= TURN;
        if may {
            self.tokens -= TURN;
        }
        may
    }

    fn next(&self, now: Instant) -> Instant {
        let missing = TURN.saturating_sub(self.tokens);
        let micros = missing.div_ceil(self.per_second.into());
        let from = self.filled_at.unwrap_or(now);
        (from + std::time::Duration::from_micros(micros)).max(now)
    }
}

#[cfg(test)]
mod tests;
