//! After a restart: which workers may still hold attempts, and until when to wait for
//! their word.
//!
//! Dispatches are not journaled, but who may hold any is: a worker is written down before
//! it is handed its first attempt. So a restarted manager dials those workers at once and
//! need not wait any longer than until each has answered.

use std::collections::{BTreeMap, BTreeSet};

use carbontube_protocol::message::WorkerStatus;
use carbontube_protocol::{Codec, Timestamp, WorkerId};

use super::cause::Cause;
use super::machine::Core;
use super::record::{KnownRecord, Record};
use super::{PipeId, RecordSeq};

/// Which part of the grace a worker is waited for where nobody listens.
const REFUSED_SHARE: u32 = 3;

/// The time in which recovered jobs wait for workers that may hold them.
#[derive(Debug)]
pub(super) struct Adoption {
    pub(super) until: Timestamp,
    /// For each phase: the workers that have not answered yet. None when the journal
    /// does not say who they are.
    pub(super) awaited: Option<BTreeMap<u16, BTreeSet<WorkerId>>>,
    /// Workers at whose address nobody listens, and until when to believe in them.
    refused: BTreeMap<WorkerId, Timestamp>,
}

impl Adoption {
    /// When to look again.
    pub(super) fn next(&self) -> Timestamp {
        let refused = self.refused.values().copied();
        refused.chain([self.until]).min().unwrap_or(self.until)
    }

    fn is_of(&self, phase: u16) -> bool {
        match &self.awaited {
            Some(awaited) => awaited.contains_key(&phase),
            None => true,
        }
    }
}

/// What the journal knows of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// It holds this many attempts at most, with those whose results are not durable yet.
    held_max: u32,
    /// The record that says so.
    after: RecordSeq,
}

impl Core {
    /// Recovered jobs of this phase wait for workers that may hold them.
    pub(super) fn is_adopting(&self, phase: u16) -> bool {
        self.adoption.as_ref().is_some_and(|a| a.is_of(phase))
    }

    /// Dials the workers that the journal names, and waits for what they say.
    pub(super) fn begin_adoption(
        &mut self,
        known: BTreeMap<WorkerId, KnownRecord>,
        is_told: bool,
        now: Timestamp,
    ) {
        let mut awaited: BTreeMap<u16, BTreeSet<WorkerId>> = BTreeMap::new();
        for (id, record) in known {
            let Some(phase) = self.phase_of(record.job_type.as_str()) else {
                continue;
            };
            if record.json {
                self.workers.speak(record.address.clone(), Codec::Json);
            }
            if self.workers.table.len() >= self.options.workers_max {
                self.count("workers_refused", 1);
                continue;
            }
            self.insert_worker(id, phase, &record.address, record.original, 0, now);
            self.newcomers.touch(id);
            self.publish_worker(id, now, WorkerStatus::Connecting);
            if let Some(worker) = self.workers.table.get_mut(&id) {
                worker.heard = false;
                worker.vouched = true;
                worker.shared = record.shared;
                worker.known = Some(Known {
                    held_max: record.held_max,
                    after: RecordSeq(0),
                });
            }
            if !self.jobs.ready(usize::from(phase)).is_empty() {
                awaited.entry(phase).or_default().insert(id);
            }
        }
        let waiting = (0..self.phases.len()).any(|phase| !self.jobs.ready(phase).is_empty());
        if waiting && !(is_told && awaited.is_empty()) {
            self.adoption = Some(Adoption {
                until: now + self.options.adoption_grace,
                awaited: is_told.then_some(awaited),
                refused: BTreeMap::new(),
            });
        }
    }

    /// A worker has said all that it holds, and will not take up anything older any more.
    pub(super) fn adoption_answered(&mut self, id: WorkerId, now: Timestamp) {
        self.stop_awaiting(id, now);
    }

    /// A worker will not say any more what it holds.
    pub(super) fn adoption_unanswered(&mut self, id: WorkerId, now: Timestamp) {
        let awaited = self.adoption.as_ref().and_then(|a| a.awaited.as_ref());
        let phases = awaited.into_iter().flatten();
        let phase = phases.filter(|(_, ids)| ids.contains(&id)).map(|(p, _)| *p);
        if let Some(phase) = phase.min() {
            self.count_unanswered(phase, id);
            self.stop_awaiting(id, now);
        }
    }

    /// Recovered jobs of the phase may have run there: as many as it held at most.
    fn count_unanswered(&mut self, phase: u16, id: WorkerId) {
        let ready = self.jobs.ready(usize::from(phase));
        let recovered = ready.range(..self.recovered_below).count() as u64;
        let doubted = self.recovered_doubted.get(&phase).copied().unwrap_or(0);
        let known = self.workers.table.get(&id).and_then(|worker| worker.known);
        let held_max = u64::from(known.map_or(0, |known| known.held_max));
        let jobs = held_max.min(recovered.saturating_sub(doubted));
        if jobs > 0 {
            *self.recovered_doubted.entry(phase).or_default() += jobs;
            self.repeats.unmatched += jobs;
            self.recovered_after = self.count_rerun(Cause::Restart, jobs, None);
        }
    }

    fn stop_awaiting(&mut self, id: WorkerId, now: Timestamp) {
        let Some(adoption) = &mut self.adoption else {
            return;
        };
        let Some(awaited) = &mut adoption.awaited else {
            return;
        };
        for ids in awaited.values_mut() {
            ids.remove(&id);
        }
        awaited.retain(|_, ids| !ids.is_empty());
        if awaited.is_empty() {
            self.adoption = None;
            self.publish_state(now, "workers have said what they hold".to_owned());
        }
    }

    /// Nobody listens at an address: its process has most likely ended. For a moment it
    /// is believed to be a relay that is not there yet.
    pub(super) fn handle_pipe_refused(&mut self, pipe: PipeId, now: Timestamp) {
        let until = now + self.options.adoption_grace / REFUSED_SHARE;
        let Some(pipe) = self.workers.pipes.get(&pipe) else {
            return;
        };
        if let Some(adoption) = &mut self.adoption {
            for id in &pipe.workers {
                adoption.refused.entry(*id).or_insert(until);
            }
        }
    }

    /// Somebody listens there.
    pub(super) fn forget_refused(&mut self, id: WorkerId) {
        if let Some(adoption) = &mut self.adoption {
            adoption.refused.remove(&id);
        }
    }

    /// The time for answers is over. It begins when workers can be asked: nothing that names
    /// this epoch leaves before the first record is durable, and a full disk may take long.
    pub(super) fn check_adoption(&mut self, now: Timestamp) {
        if self.journal.durable < RecordSeq(1)
            && let Some(adoption) = &mut self.adoption
        {
            adoption.until = now + self.options.adoption_grace;
        }
        let gone: Vec<WorkerId> = match &self.adoption {
            Some(adoption) => {
                let refused = adoption.refused.iter();
                let over = refused.filter(|(_, until)| **until <= now);
                over.map(|(id, _)| *id).collect()
            }
            None => return,
        };
        for id in gone {
            self.forget_refused(id);
            self.adoption_unanswered(id, now);
        }
        let Some(adoption) = self.adoption.take_if(|adoption| adoption.until <= now) else {
            return;
        };
        for (phase, ids) in adoption.awaited.into_iter().flatten() {
            for id in ids {
                self.count("workers_unanswered", 1);
                self.count_unanswered(phase, id);
            }
        }
        self.publish_state(now, "has waited long enough for workers' word".to_owned());
    }

    /// Journals that a worker may hold what it was just given: tells what must be durable
    /// before it gets it.
    pub(super) fn make_known(&mut self, id: WorkerId) -> RecordSeq {
        let durable = self.journal.durable;
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return RecordSeq(0);
        };
        let held = worker.undecided(durable);
        if let Some(known) = worker.known.filter(|known| known.held_max >= held) {
            return known.after;
        }
        // Some room ahead, so that filling a worker up takes few records.
        let ahead = self
            .workers
            .table
            .get(&id)
            .map(|worker| self.credit(worker));
        let ahead = ahead.unwrap_or(0).min(held.saturating_mul(4));
        let held_max = held.max(ahead).checked_next_power_of_two();
        let held_max = held_max.unwrap_or(u32::MAX);
        let record = self.known_record(id, held_max);
        self.journal.append(&Record::Known(record), &[]);
        let after = self.journal.last;
        if let Some(worker) = self.workers.table.get_mut(&id) {
            worker.known = Some(Known { held_max, after });
        }
        after
    }

    fn known_record(&self, id: WorkerId, held_max: u32) -> KnownRecord {
        let worker = &self.workers.table[&id];
        KnownRecord {
            worker: id,
            job_type: self.job_type(worker.phase).clone(),
            address: worker.address.clone(),
            shared: worker.shared,
            original: worker.original,
            json: self.workers.json.contains(&worker.address),
            held_max,
        }
    }

    /// What a worker may still hold does not count any more.
    pub(super) fn make_unknown(&mut self, id: WorkerId) {
        let known = self.workers.table.get_mut(&id).and_then(|w| w.known.take());
        if known.is_some() {
            self.journal.append(&Record::Unknown { worker: id }, &[]);
        }
    }

    /// A worker that is known announces something else than the journal says.
    pub(super) fn keep_known(&mut self, id: WorkerId) {
        let known = self.workers.table.get(&id).and_then(|worker| worker.known);
        if let Some(known) = known {
            let record = self.known_record(id, known.held_max);
            self.journal.append(&Record::Known(record), &[]);
            let after = self.journal.last;
            if let Some(worker) = self.workers.table.get_mut(&id) {
                worker.known = Some(Known { after, ..known });
            }
        }
    }

    /// All workers that may hold attempts.
    pub(super) fn holders(&self) -> Vec<KnownRecord> {
        let known = self.workers.table.iter();
        let known = known.filter_map(|(id, worker)| Some((*id, worker.known?)));
        known
            .map(|(id, known)| self.known_record(id, known.held_max))
            .collect()
    }

    pub(super) fn status_of(&self, id: WorkerId) -> WorkerStatus {
        let worker = self.workers.table.get(&id);
        worker.map_or(WorkerStatus::Gone, |worker| self.workers.status(worker))
    }
}
