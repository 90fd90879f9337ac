//! Which job goes to which worker: credit, fairness, quarantine and stealing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{Ack, Dispatch, DispatchedJob, JobState, PipeHead, Recall};
use carbontube_protocol::{AttemptId, Timestamp, WorkerId, original};
use carbontube_storage::Log;

use super::job::JobNo;
use super::machine::Core;
use super::payload::Reason;
use super::results::micros;
use super::worker::{Held, Worker};
use super::{Effect, PipeId, RecordSeq};

/// What is gathered for one worker in one call, and the pipe that leads there.
type Batches = BTreeMap<(PipeId, Option<WorkerId>), Batch>;
type Batch = (RecordSeq, Vec<DispatchedJob>, usize);

/// The most attempts of one phase at workers that were never shown to receive any.
const UNPROVEN_MAX: u32 = 8;

/// How many pages one call may ask for ahead of what is in memory.
const READS_MAX: usize = 64;

impl Core {
    /// The head of the next message on a pipe.
    pub(super) fn head(&mut self, pipe: PipeId) -> PipeHead {
        let sequence = self.workers.pipes.get_mut(&pipe).map_or(0, |pipe| {
            pipe.sequence += 1;
            pipe.sequence
        });
        PipeHead {
            manager: self.manager,
            epoch: self.epoch,
            sequence,
        }
    }

    /// The attempt that is made next, of whichever job.
    pub(super) fn next_attempt(&self) -> AttemptId {
        AttemptId {
            epoch: self.epoch,
            counter: self.next_attempt,
        }
    }

    /// How many attempts a worker may hold: its slots, and a little work in hand.
    pub(super) fn credit(&self, worker: &Worker) -> u32 {
        if !self.workers.is_proven(worker) {
            return 1;
        }
        // More cannot be listed in one heartbeat.
        let most = self.options.limits.batch_jobs_max;
        self.credit_by_time(worker)
            .min(u32::try_from(most).unwrap_or(u32::MAX))
    }

    fn credit_by_time(&self, worker: &Worker) -> u32 {
        let duration = self.phases[usize::from(worker.phase)].duration_us;
        if duration == 0 || worker.original {
            return worker.slots;
        }
        let time = u64::try_from(self.options.prefetch_time.as_micros()).unwrap_or(u64::MAX);
        let prefetch = u64::from(worker.slots).saturating_mul(time) / duration;
        let prefetch = prefetch.min(u64::from(self.options.prefetch_max));
        worker.slots + u32::try_from(prefetch).unwrap_or(0)
    }

    pub(super) fn dispatch_ready(&mut self, now: Timestamp) {
        if self.paused_all {
            return;
        }
        let mut batches = Batches::new();
        // Jobs further along go first: what is begun gets finished.
        for phase in (0..self.phases.len()).rev() {
            let phase_no = u16::try_from(phase).unwrap_or(u16::MAX);
            if self.paused.contains(&phase_no) || self.jobs.ready(phase).is_empty() {
                continue;
            }
            self.dispatch_phase(phase_no, now, &mut batches);
        }
        for ((pipe, worker), batch) in batches {
            self.send_batch(pipe, worker, batch);
        }
    }

    fn dispatch_phase(&mut self, phase: u16, now: Timestamp, batches: &mut Batches) {
        let mut room = 0usize;
        // Load in 1/65,536 of the slots, then id. Whoever was not shown to receive comes
        // last, and all of those together get no more than a handful.
        let mut by_load: BTreeSet<(u64, WorkerId)> = BTreeSet::new();
        let mut unproven: BTreeSet<WorkerId> = BTreeSet::new();
        let mut unproven_held = 0;
        for (id, worker) in &self.workers.table {
            if worker.phase != phase || worker.lost {
                continue;
            }
            let credit = self.credit(worker) + u32::from(mutation::is(Mutation::IgnoreCredit));
            if self.workers.is_proven(worker) {
                if worker.held() < credit && self.workers.is_usable(worker, now) {
                    room += (credit - worker.held()) as usize;
                    by_load.insert((load(worker), *id));
                }
                continue;
            }
            // Anybody can announce thousands: few of them are looked at closely.
            unproven_held += worker.held();
            let is_candidate = worker.held() < credit
                && unproven.len() < UNPROVEN_MAX as usize
                && self.workers.is_usable(worker, now);
            if is_candidate {
                unproven.insert(*id);
            }
        }
        let few = UNPROVEN_MAX.saturating_sub(unproven_held) as usize;
        room += unproven.len().min(few);
        by_load.extend(unproven.into_iter().take(few).map(|id| (u64::MAX, id)));
        if by_load.is_empty() {
            return;
        }
        let from = match self.is_adopting(phase) {
            true => self.recovered_below,
            false => 0,
        };
        let ready: Vec<JobNo> = self
            .jobs
            .ready(usize::from(phase))
            .range(from..)
            .map(|(_, no)| *no)
            .take(room)
            .collect();
        let mut blocked = false;
        for no in ready {
            if by_load.is_empty() {
                return;
            }
            let Some(payload) = self.payload(no) else {
                let home = self.jobs.job(no).map(|job| job.home);
                let damaged = home.is_some_and(|home| self.payloads.is_damaged(Log::Journal, home));
                blocked |= !damaged;
                if self.payloads.reads.len() < READS_MAX
                    && let Some(home) = self.jobs.job(no).map(|job| job.home)
                {
                    self.read_page(Log::Journal, home, Reason::Cache);
                }
                // Order within a phase holds: nothing overtakes what is being read,
                // but the reads of those behind may begin.
                continue;
            };
            if blocked {
                continue;
            }
            let suspect = self.options.poison_losses > 1
                && self
                    .jobs
                    .job(no)
                    .is_some_and(|job| job.losses + 1 >= self.options.poison_losses);
            let chosen = if suspect {
                let idle = by_load.iter().find(|(load, _)| *load == 0).copied();
                if idle.is_none() {
                    // Nothing more for the least loaded one, so that it becomes idle.
                    by_load.pop_first();
                }
                idle
            } else {
                by_load.first().copied()
            };
            let Some((key, id)) = chosen else { continue };
            by_load.remove(&(key, id));
            self.hand_over(no, id, payload, suspect, now, batches);
            let Some(worker) = self.workers.table.get(&id) else {
                continue;
            };
            if !suspect && worker.held() < self.credit(worker) {
                by_load.insert((load(worker), id));
            }
        }
    }

    fn hand_over(
        &mut self,
        no: JobNo,
        id: WorkerId,
        payload: Bytes,
        suspect: bool,
        now: Timestamp,
        batches: &mut Batches,
    ) {
        let attempt = self.next_attempt();
        self.next_attempt += 1;
        if let Some(job) = self.jobs.job(no) {
            let waited = micros(now.since(job.changed_at));
            self.series.phases[usize::from(job.phase)].waited(waited);
            if job.phase == 0 && job.tries == 0 {
                self.series.total.waited(waited);
            }
        }
        let doubt = self.settle_doubt(no).unwrap_or_default();
        self.jobs.transition(no, JobState::Running, now, |job| {
            job.attempt = Some((attempt, id));
        });
        let (Some(job), Some(worker)) = (self.jobs.job(no), self.workers.table.get_mut(&id)) else {
            return;
        };
        let phase = job.phase;
        let mut after = job.after.max(doubt);
        if job.ticket < self.recovered_below {
            after = after.max(self.recovered_after);
        }
        worker.attempts.insert(
            attempt,
            Held {
                job: job.id.clone(),
                phase,
                sequence: u64::MAX,
                after,
                given_at: now,
                since: now,
                reported: None,
                missed: 0,
                recalled: None,
            },
        );
        if suspect {
            worker.quarantine = Some(attempt);
        }
        let after = after.max(self.make_known(id));
        let (Some(job), Some(worker)) = (self.jobs.job(no), self.workers.table.get_mut(&id)) else {
            return;
        };
        if let Some(held) = worker.attempts.get_mut(&attempt) {
            held.after = after;
        }
        let (pipe, was_original) = (worker.pipe, worker.original);
        // Behind a device nobody knows which worker will get it.
        let is_shared = worker.shared || self.workers.pipes.get(&pipe).is_some_and(|p| p.shared);
        let aim = (pipe, (!is_shared).then_some(id));
        let definition = &self.definition.phases()[usize::from(phase)];
        if was_original {
            let frame = original::encode_job(
                &job.id,
                &definition.job_type,
                &payload,
                job.enqueued_at,
                job.tries,
            );
            self.effect(after, Effect::ToOriginalPipe { pipe, frame });
        } else {
            let dispatched = DispatchedJob {
                attempt,
                job: job.id.clone(),
                phase,
                job_type: definition.job_type.clone(),
                number: job.tries + 1,
                timeout_ms: definition
                    .timeout
                    .map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
                traceparent: job.rare.as_ref().and_then(|rare| rare.traceparent.clone()),
                instructions: payload,
            };
            let bytes = dispatched.instructions.len() + 512;
            let limits = &self.options.limits;
            let full = batches.get(&aim).is_some_and(|(_, jobs, held)| {
                jobs.len() >= limits.batch_jobs_max.min(1024)
                    || held + bytes > limits.message_bytes_max.min(4 << 20)
            });
            if full && let Some(batch) = batches.remove(&aim) {
                self.send_batch(pipe, aim.1, batch);
            }
            let batch = batches.entry(aim).or_default();
            batch.0 = batch.0.max(after);
            batch.1.push(dispatched);
            batch.2 += bytes;
        }
        self.publish_job(no, now, None);
    }

    fn send_batch(&mut self, pipe: PipeId, worker: Option<WorkerId>, (after, jobs, _): Batch) {
        let after = match mutation::is(Mutation::DispatchBeforeDurable) {
            true => RecordSeq(0),
            false => self.behind_others(pipe, after),
        };
        let head = self.head(pipe);
        let attempts: BTreeSet<AttemptId> = jobs.iter().map(|job| job.attempt).collect();
        if let Some(workers) = self.workers.pipes.get(&pipe).map(|p| p.workers.clone()) {
            for id in workers {
                if let Some(worker) = self.workers.table.get_mut(&id) {
                    for attempt in &attempts {
                        if let Some(held) = worker.attempts.get_mut(attempt) {
                            held.sequence = head.sequence;
                            held.after = after;
                        }
                    }
                }
            }
        }
        let dispatch = Dispatch {
            head,
            worker,
            pipeline: self.definition.name().clone(),
            jobs,
        };
        let message = dispatch.into();
        self.effect(after, Effect::ToPipe { pipe, message });
    }

    /// Recalls queued attempts for workers that idle while nothing is ready.
    pub(super) fn steal(&mut self, now: Timestamp) {
        for phase in 0..self.phases.len() {
            let phase_no = u16::try_from(phase).unwrap_or(u16::MAX);
            if !self.jobs.ready(phase).is_empty() || self.jobs.counts(phase).running == 0 {
                continue;
            }
            let of_phase = || {
                let all = self.workers.table.iter();
                all.filter(move |(_, w)| w.phase == phase_no && !w.lost && !w.original)
            };
            // Only what `dispatch_phase` would fill: what comes back must not go back.
            let mut idle: usize = of_phase()
                .filter(|(_, worker)| {
                    self.workers.is_usable(worker, now) && self.workers.is_proven(worker)
                })
                .map(|(_, worker)| worker.slots.saturating_sub(worker.held()) as usize)
                .sum();
            if idle == 0 {
                continue;
            }
            let mut victims: BTreeSet<(usize, WorkerId)> = BTreeSet::new();
            let mut coming = 0;
            for (id, worker) in of_phase() {
                if worker.attempts.len() > worker.slots as usize {
                    let recalled = worker.attempts.values().filter(|h| h.recalled.is_some());
                    coming += recalled.count();
                    let queued = worker.queued().count();
                    if queued > 0 {
                        victims.insert((queued, *id));
                    }
                }
            }
            idle = idle.saturating_sub(coming);
            while idle > 0
                && let Some((queued, id)) = victims.pop_last()
            {
                let share = queued.div_ceil(2).min(idle);
                idle -= share;
                self.recall(id, share);
            }
        }
    }

    fn recall(&mut self, id: WorkerId, share: usize) {
        let Some(worker) = self.workers.table.get(&id) else {
            return;
        };
        let pipe = worker.pipe;
        // The last ones dispatched are the least likely to start meanwhile.
        let attempts: Vec<AttemptId> = worker.queued().collect();
        let attempts: Vec<AttemptId> = attempts.into_iter().rev().take(share).collect();
        let head = self.head(pipe);
        let mut after = RecordSeq(0);
        if let Some(worker) = self.workers.table.get_mut(&id) {
            for attempt in &attempts {
                if let Some(held) = worker.attempts.get_mut(attempt) {
                    held.recalled = Some(head.sequence);
                    after = after.max(held.after);
                }
            }
        }
        let message = Recall { head, attempts }.into();
        self.effect(after, Effect::ToPipe { pipe, message });
    }

    pub(super) fn send_acks(&mut self) {
        for ((pipe, route), (after, attempts)) in std::mem::take(&mut self.acks) {
            if self.workers.pipes.contains_key(&pipe) {
                let head = self.head(pipe);
                let message = Ack {
                    head,
                    route,
                    attempts,
                };
                let message = message.into();
                self.effect(after, Effect::ToPipe { pipe, message });
            }
        }
    }
}

fn load(worker: &Worker) -> u64 {
    (u64::from(worker.held()) << 16) / u64::from(worker.slots.max(1))
}
