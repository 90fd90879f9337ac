//! What workers say about themselves: registration, reconciliation, adoption, loss.

use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{
    AttemptView, EventKind, FailureKind, Heartbeat, Held as HeldReport, HeldState, Hello, JobState,
    WorkerState, WorkerStatus,
};
use carbontube_protocol::{Address, AttemptId, Timestamp, WorkerId};

use super::cause::Cause;
use super::job::JobNo;
use super::machine::Core;
use super::record::End;
use super::worker::{Held, Pipe, Worker};
use super::{Effect, PipeId, RecordSeq};

/// How many worker timeouts a lost worker stays in view.
const LOST_KEPT: u32 = 12;
/// How many heartbeats in a row must lack an attempt before its pipe is thought broken.
const MISSED_MIN: u32 = 3;
/// The route of an acknowledgement that answers no result: no worker has it.
const NO_ROUTE: u16 = u16::MAX;
/// What is kept of what a worker says of its host and version, in bytes.
const TEXT_BYTES_MAX: usize = 255;
/// Pipes beyond this share their first numbers.
const PIPES_MAX: u64 = 1 << 20;

impl Core {
    pub(super) fn handle_heartbeat(&mut self, beat: Heartbeat, now: Timestamp) {
        let Some(phase) = self.phase_of(beat.job_type.as_str()) else {
            return self.count("workers_of_unknown_phase", 1);
        };
        let id = beat.worker;
        if self.workers.is_gone(id, now) {
            return self.count("heartbeats_after_goodbye", 1);
        }
        let slots = beat.slots.clamp(1, self.options.slots_max.max(1));
        let was_lost = self
            .workers
            .table
            .get(&id)
            .is_some_and(|worker| worker.lost);
        if self.is_echo_of_the_replaced(id, now) {
            return;
        }
        let known = self.register(id, phase, &beat.address, false, slots, now);
        if !known {
            return;
        }
        let shared = beat.shared_address || self.is_shared_unsaid(id);
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        let was_draining = worker.draining;
        let was_unheard = !std::mem::replace(&mut worker.heard, true);
        let told = worker.shared == shared;
        worker.shared = shared;
        worker.slots = slots;
        let drains = beat.state == WorkerState::Draining;
        worker.draining = drains || worker.drain_asked;
        // A message is lost when its pipe is down, and only a pipe of its own leads to it.
        let ask_again = worker.drain_asked && !drains && !worker.shared;
        let pipe = worker.pipe;
        worker.success_count = beat.success_count;
        worker.failed_count = beat.failed_count;
        worker.host = cut(beat.host);
        worker.pid = beat.pid;
        worker.started_at = beat.started_at;
        worker.version = cut(beat.version);
        if was_draining != worker.draining || was_lost || was_unheard {
            self.publish_worker(id, now, self.status_of(id));
        }
        if !told {
            self.keep_known(id);
        }
        if ask_again {
            self.send_drain(pipe);
        }
        let (received, held) = self.take_lives(id, beat.managers, now);
        self.reconcile(id, received, &held, now);
        if received > 0 {
            self.replace_others(id, now);
        }
        if received > 0 || shared {
            self.settle_proven(id);
        }
        // It has heard of this epoch, and takes up nothing of an earlier one any more. Of
        // those behind a shared address another one may still take up what a device kept.
        if received > 0 && !shared {
            self.adoption_answered(id, now);
        }
    }

    /// Makes a worker known, or follows its address; false when there is no room.
    pub(super) fn register(
        &mut self,
        id: WorkerId,
        phase: u16,
        address: &Address,
        original: bool,
        slots: u32,
        now: Timestamp,
    ) -> bool {
        let known = self.workers.table.get(&id);
        let moved = known.is_some_and(|worker| worker.address != *address);
        if moved {
            if !self.may_have_moved(id, now) {
                self.count("heartbeats_from_elsewhere", 1);
                return false;
            }
            if self.is_refused(address, now) || !self.admit(id, now) {
                return false;
            }
        }
        if let Some(worker) = self.workers.table.get_mut(&id) {
            worker.last_seen = now;
            worker.lost = false;
            if worker.phase != phase {
                self.lose(id, now, Cause::WorkerChanged);
                if let Some(worker) = self.workers.table.get_mut(&id) {
                    worker.phase = phase;
                    worker.lost = false;
                }
            }
            if moved {
                self.leave_pipe(id);
                let pipe = self.pipe_to(address, original, id);
                if let Some(worker) = self.workers.table.get_mut(&id) {
                    worker.address = address.clone();
                    worker.pipe = pipe;
                    worker.received = 0;
                    worker.proven = false;
                    worker.vouched = false;
                    worker.elsewhere = None;
                }
                self.keep_known(id);
            }
            return true;
        }
        if self.is_refused(address, now) || !self.make_room() {
            self.count("workers_refused", 1);
            return false;
        }
        if !self.admit(id, now) {
            return false;
        }
        self.insert_worker(id, phase, address, original, slots, now);
        self.publish_worker(id, now, WorkerStatus::Connecting);
        true
    }

    /// Takes a worker into the table, and opens a pipe to it.
    pub(super) fn insert_worker(
        &mut self,
        id: WorkerId,
        phase: u16,
        address: &Address,
        original: bool,
        slots: u32,
        now: Timestamp,
    ) {
        let pipe = self.pipe_to(address, original, id);
        let worker = Worker {
            phase,
            address: address.clone(),
            shared: false,
            original,
            pipe,
            heard: true,
            vouched: false,
            known: None,
            slots,
            draining: false,
            drain_asked: false,
            lost: false,
            attempts: Default::default(),
            decided: Default::default(),
            quarantine: None,
            full_until: Timestamp::ZERO,
            received: 0,
            proven: false,
            lacking: 0,
            replaced_at: None,
            elsewhere: None,
            greeted_at: None,
            last_seen: now,
            started_at: Timestamp::ZERO,
            success_count: 0,
            failed_count: 0,
            host: String::new(),
            pid: 0,
            version: String::new(),
        };
        self.workers.table.insert(id, worker);
        self.wake_at(now + self.options.worker_timeout);
    }

    fn pipe_to(&mut self, address: &Address, original: bool, id: WorkerId) -> PipeId {
        if let Some(found) = self.workers.by_address.get(address).copied()
            && let Some(pipe) = self.workers.pipes.get(&found)
        {
            let greets = !original && pipe.up && !self.understands_hello(pipe);
            if let Some(pipe) = self.workers.pipes.get_mut(&found) {
                pipe.workers.insert(id);
            }
            if greets {
                self.send_hello(found);
            }
            return found;
        }
        let (pipe, start) = self.new_pipe();
        self.workers.by_address.insert(address.clone(), pipe);
        self.workers.pipes.insert(
            pipe,
            Pipe {
                address: address.clone(),
                up: false,
                up_since: Timestamp::ZERO,
                start,
                sequence: start,
                after: RecordSeq(0),
                proven: false,
                shared: false,
                workers: [id].into(),
            },
        );
        self.open_pipe(pipe, address.clone());
        pipe
    }

    /// The number of a new pipe, and of the message before its first.
    fn new_pipe(&mut self) -> (PipeId, u64) {
        self.workers.next_pipe += 1;
        let number = self.workers.next_pipe;
        // Workers count by manager and epoch, not by pipe: later pipes have higher numbers.
        // JSON's numbers are exact up to 2^53.
        let start = (number.min(PIPES_MAX) << 32) | (self.random.next() & 0x7fff_ffff);
        (PipeId(number), start)
    }

    fn open_pipe(&mut self, pipe: PipeId, address: Address) {
        let codec = self.workers.codec(&address);
        let effect = Effect::OpenPipe {
            pipe,
            address,
            codec,
        };
        self.effect(RecordSeq(0), effect);
    }

    pub(super) fn leave_pipe(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.table.get(&id) else {
            return;
        };
        let pipe_id = worker.pipe;
        let Some(pipe) = self.workers.pipes.get_mut(&pipe_id) else {
            return;
        };
        pipe.workers.remove(&id);
        if pipe.workers.is_empty() {
            let address = pipe.address.clone();
            self.workers.pipes.remove(&pipe_id);
            self.workers.by_address.remove(&address);
            self.workers.json.remove(&address);
            self.effect(RecordSeq(0), Effect::ClosePipe { pipe: pipe_id });
        }
    }

    /// A pipe that is up but delivers nothing is broken: a new one takes its place.
    fn reopen_pipe(&mut self, pipe_id: PipeId) {
        let Some(pipe) = self.workers.pipes.remove(&pipe_id) else {
            return;
        };
        self.count("pipes_reopened", 1);
        self.workers.by_address.remove(&pipe.address);
        self.effect(RecordSeq(0), Effect::ClosePipe { pipe: pipe_id });
        let (new, start) = self.new_pipe();
        for id in &pipe.workers {
            if let Some(worker) = self.workers.table.get_mut(id) {
                worker.pipe = new;
                worker.received = 0;
                worker.proven = false;
            }
            self.newcomers.touch(*id);
        }
        let address = pipe.address.clone();
        self.workers.by_address.insert(address.clone(), new);
        let pipe = Pipe {
            up: false,
            start,
            sequence: start,
            after: RecordSeq(0),
            proven: false,
            ..pipe
        };
        self.workers.pipes.insert(new, pipe);
        self.open_pipe(new, address);
    }

    pub(super) fn handle_pipe_up(&mut self, pipe: PipeId, now: Timestamp) {
        let Some(found) = self.workers.pipes.get_mut(&pipe) else {
            return;
        };
        found.up = true;
        found.up_since = now;
        let workers = found.workers.clone();
        let greets = self.workers.pipes.get(&pipe);
        if greets.is_some_and(|pipe| self.understands_hello(pipe)) {
            self.send_hello(pipe);
        }
        for id in workers {
            self.forget_refused(id);
            if let Some(worker) = self.workers.table.get(&id) {
                let status = self.workers.status(worker);
                self.publish_worker(id, now, status);
            }
        }
    }

    /// Whether there is one on a pipe that is not of the original, which knows no hello.
    pub(super) fn understands_hello(&self, pipe: &Pipe) -> bool {
        let mut workers = pipe.workers.iter();
        workers.any(|id| {
            let worker = self.workers.table.get(id);
            worker.is_some_and(|worker| !worker.original)
        })
    }

    pub(super) fn send_hello(&mut self, pipe: PipeId) {
        let head = self.head(pipe);
        let timeout = self.options.worker_timeout.as_millis();
        let hello = Hello {
            head,
            pipeline: self.definition.name().clone(),
            worker_timeout_ms: u64::try_from(timeout).unwrap_or(u64::MAX),
        };
        let message = hello.into();
        self.effect(RecordSeq(0), Effect::ToPipe { pipe, message });
    }

    pub(super) fn handle_pipe_down(&mut self, pipe: PipeId, now: Timestamp) {
        let Some(found) = self.workers.pipes.get_mut(&pipe) else {
            return;
        };
        found.up = false;
        for id in found.workers.clone() {
            self.publish_worker(id, now, WorkerStatus::Connecting);
        }
    }

    /// Any word of a worker is a sign of life.
    pub(super) fn seen(&mut self, id: WorkerId, now: Timestamp) {
        if let Some(worker) = self.workers.table.get_mut(&id) {
            worker.last_seen = now;
        }
    }

    fn reconcile(&mut self, id: WorkerId, received: u64, held: &[HeldReport], now: Timestamp) {
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        let shared = worker.shared;
        let reported: std::collections::BTreeSet<AttemptId> =
            held.iter().map(|held| held.attempt).collect();
        for held in held {
            self.reconcile_held(id, held, now);
        }
        let timeout = self.options.worker_timeout;
        let durable = self.journal.durable;
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        let pipe = worker.pipe;
        let mut lost = Vec::new();
        let mut stalled = Vec::new();
        for (attempt, held) in &mut worker.attempts {
            if held.recalled.is_some_and(|recall| recall <= received) && reported.contains(attempt)
            {
                held.recalled = None;
            }
            if reported.contains(attempt) {
                held.missed = 0;
                continue;
            }
            held.missed += 1;
            // Heartbeats that waited somewhere say nothing about the time since.
            let overdue = now.since(held.since) >= timeout && held.missed >= MISSED_MIN;
            let begun = matches!(held.reported, Some(HeldState::Running | HeldState::Done));
            if held.after > durable {
                held.since = now;
            } else if shared {
                // Another worker behind the address may have it, and will say so.
                if overdue {
                    lost.push((*attempt, Cause::Unreported));
                }
            } else if held.sequence <= received && begun {
                lost.push((*attempt, Cause::Vanished));
            } else if held.sequence <= received {
                lost.push((*attempt, Cause::LostOnTheWay));
            } else if overdue {
                stalled.push(*attempt);
            }
        }
        self.note_lacking(id, !lost.is_empty() && !shared, !held.is_empty(), now);
        for (attempt, cause) in lost {
            self.give_up(id, attempt, cause, now);
        }
        if !stalled.is_empty() {
            self.distrust(id, now);
            for attempt in stalled {
                self.give_up(id, attempt, Cause::PipeBroken, now);
            }
            self.reopen_pipe(pipe);
        }
    }

    fn give_up(&mut self, id: WorkerId, attempt: AttemptId, cause: Cause, now: Timestamp) {
        let held = self
            .workers
            .table
            .get(&id)
            .and_then(|w| w.attempts.get(&attempt));
        let Some(job) = held.map(|held| held.job.clone()) else {
            return;
        };
        self.release(id, attempt);
        let no = self.jobs.no(&job);
        self.settled.give_up(attempt, cause, no, &job);
        self.count("attempts_given_up", 1);
        self.requeue(no, attempt, Some(cause), now);
    }

    pub(super) fn reconcile_held(&mut self, id: WorkerId, held: &HeldReport, now: Timestamp) {
        let attempt = held.attempt;
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        let (pipe, shared) = (worker.pipe, worker.shared);
        let is_ours = match worker.attempts.get_mut(&attempt) {
            Some(ours) => {
                ours.reported = Some(held.state);
                true
            }
            None => false,
        };
        let phase = self.phase_now(attempt, held.phase);
        let no = self.jobs.no(&held.job);
        let job = no.and_then(|no| self.jobs.job(no));
        let Some(((no, job), phase)) = no.zip(job).zip(phase).filter(|((_, job), phase)| {
            job.phase == *phase
                && no.is_some_and(|no| self.may_be_of(attempt, no))
                && job.state != JobState::Failed
                && job.rare.as_ref().and_then(|rare| rare.settled) != Some(attempt)
                && !self.settled.was_taken(attempt)
        }) else {
            // Decided without it: the worker need not keep or run it.
            if held.state == HeldState::Done {
                // While nothing can be written it would only wait, with one more of each
                // heartbeat: one that comes later is answered.
                if self.journal.trouble.is_none() {
                    let last = self.journal.last;
                    let (after, attempts) = self.acks.entry((pipe, NO_ROUTE)).or_default();
                    *after = last;
                    attempts.push(attempt);
                }
            } else if !is_ours || self.jobs.no(&held.job).is_none() {
                self.send_cancel(id, attempt);
            }
            return;
        };
        if job.attempt.map(|(current, _)| current) == Some(attempt) {
            let holder = job.attempt.map(|(_, holder)| holder);
            if holder != Some(id) {
                let from = holder.unwrap_or(id);
                // Only what was sent to the same address can have come here.
                if self
                    .workers
                    .table
                    .get(&from)
                    .is_some_and(|from| from.pipe != pipe)
                {
                    return self.count("attempts_of_others", 1);
                }
                let moved = self
                    .workers
                    .table
                    .get_mut(&from)
                    .and_then(|worker| worker.release(attempt));
                self.hold(
                    id,
                    attempt,
                    held,
                    phase,
                    moved.map_or(0, |m| m.sequence),
                    now,
                );
                // Nothing goes from one worker to another unless a device is between: this
                // one took up what was sent to the one that had its address before.
                if !shared {
                    self.count_rerun(Cause::WorkerReplaced, 1, None);
                }
                self.make_known(id);
                if let Some(job) = self.jobs.job_mut(no) {
                    job.attempt = Some((attempt, id));
                }
            }
            return;
        }
        let is_of_this_start = self.is_of_this_start(attempt);
        match (job.state, held.state) {
            // Its result is on the way and decides by itself.
            (_, HeldState::Done) if job.state != JobState::Enqueued => {}
            // A hand-back may have overtaken an older heartbeat; what has not started
            // loses nothing by being cancelled.
            (JobState::Enqueued, HeldState::Queued) if is_of_this_start && !shared => {
                self.send_cancel(id, attempt);
            }
            (JobState::Enqueued, _) if mutation::is(Mutation::ForgetAdopted) => {}
            // The worker has stopped it, and its heartbeat was on the way.
            (JobState::Enqueued, _) if self.settled.was_abandoned(attempt) => {}
            // Of this epoch, only what was given up can still be held.
            (JobState::Enqueued, _)
                if is_of_this_start && self.settled.job_given_up(attempt) != Some(no) =>
            {
                self.count("attempts_of_others", 1);
            }
            (JobState::Enqueued, _) => self.adopt(id, no, held, phase, now),
            // It was handed out before the restart by a manager that did not journal so. What
            // this one gave up has had its followers, and the job waits for its retry.
            (JobState::Scheduled, _)
                if !is_of_this_start && self.settled.job_given_up(attempt).is_none() =>
            {
                self.jobs.transition(no, JobState::Enqueued, now, |job| {
                    job.rare().until = None;
                });
                self.journal_due(no);
                self.adopt(id, no, held, phase, now);
            }
            _ => self.send_cancel(id, attempt),
        }
    }

    /// A worker goes on with an attempt that was not counted with it.
    fn adopt(&mut self, id: WorkerId, no: JobNo, held: &HeldReport, phase: u16, now: Timestamp) {
        self.count("attempts_adopted", 1);
        self.hold(id, held.attempt, held, phase, 0, now);
        self.make_known(id);
        self.jobs.transition(no, JobState::Running, now, |job| {
            job.attempt = Some((held.attempt, id));
            // It runs on where it ran.
            if let Some(rare) = &mut job.rare {
                rare.doubt = None;
            }
        });
        self.publish_job(no, now, Some(id));
    }

    fn hold(
        &mut self,
        id: WorkerId,
        attempt: AttemptId,
        held: &HeldReport,
        phase: u16,
        sequence: u64,
        now: Timestamp,
    ) {
        if let Some(worker) = self.workers.table.get_mut(&id) {
            worker.attempts.insert(
                attempt,
                Held {
                    job: held.job.clone(),
                    phase,
                    sequence,
                    after: RecordSeq(0),
                    given_at: now,
                    since: now,
                    reported: Some(held.state),
                    missed: 0,
                    recalled: None,
                },
            );
        }
    }

    /// Takes every attempt from a worker; a job that may have been running counts a loss.
    pub(super) fn lose(&mut self, id: WorkerId, now: Timestamp, cause: Cause) {
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return;
        };
        worker.lost = true;
        if mutation::is(Mutation::KeepLostWorkersJobs) {
            return;
        }
        self.adoption_unanswered(id, now);
        let Some(worker) = self.workers.table.get(&id) else {
            return;
        };
        let suspects: Vec<(AttemptId, bool)> = worker
            .attempts
            .keys()
            .map(|attempt| (*attempt, self.may_have_run(worker, *attempt)))
            .collect();
        for (attempt, ran) in suspects {
            let held = self
                .workers
                .table
                .get(&id)
                .and_then(|w| w.attempts.get(&attempt));
            let no = held.and_then(|held| self.jobs.no(&held.job));
            let view = held.map(|held| AttemptView {
                phase: held.phase,
                worker: Some(id),
                // By the manager's clock: the worker says nothing any more.
                started_at: held.given_at,
                finished_at: now,
                failure: Some(FailureKind::WorkerLost),
                error: cause.as_str().to_owned(),
            });
            let current = no
                .and_then(|no| self.jobs.job(no))
                .and_then(|job| job.attempt);
            self.give_up(id, attempt, cause, now);
            let Some(no) = no.filter(|_| ran && current == Some((attempt, id))) else {
                continue;
            };
            if let Some(job) = self.jobs.job_mut(no) {
                job.losses += 1;
                let losses = job.losses;
                if let Some(view) = view.clone() {
                    job.add_attempt(view);
                }
                self.journal_change(no, view);
                if losses >= self.options.poison_losses {
                    let message = format!("{losses} workers were lost while they ran it");
                    self.fail_job(no, Some(id), FailureKind::Poison, message, now);
                } else {
                    let job = self.jobs.job(no);
                    let phase = job.map_or(0, |job| usize::from(job.phase));
                    let failures = &mut self.phases[phase].failures;
                    *failures.entry(FailureKind::WorkerLost).or_default() += 1;
                }
            }
        }
        self.make_unknown(id);
    }

    /// Whether an attempt may have been running at a worker that is lost, and may be why.
    ///
    /// Nobody knows that one which was never shown to receive got it at all. If it did and
    /// died of it, its connection broke; those who only say that they are workers would
    /// otherwise condemn each job that is lost with three of them.
    fn may_have_run(&self, worker: &Worker, attempt: AttemptId) -> bool {
        let pipe = self.workers.pipes.get(&worker.pipe);
        let has_broken = pipe.is_none_or(|pipe| {
            let held = worker.attempts.get(&attempt);
            !pipe.up || held.is_some_and(|held| held.given_at < pipe.up_since)
        });
        worker.may_run(attempt) && (self.workers.is_proven(worker) || worker.original || has_broken)
    }

    pub(super) fn check_workers(&mut self, now: Timestamp) {
        self.housekeeping_at = None;
        let timeout = self.options.worker_timeout;
        let silent: Vec<(WorkerId, bool)> = self
            .workers
            .table
            .iter()
            .filter(|(_, worker)| worker.last_seen + timeout <= now)
            .map(|(id, worker)| (*id, worker.lost))
            .collect();
        for (id, was_lost) in silent {
            if !was_lost {
                self.lose(id, now, Cause::WorkerLost);
                self.count("workers_lost", 1);
                self.publish_worker(id, now, WorkerStatus::Lost);
            }
            let worker = self.workers.table.get(&id);
            let is_over = worker.is_some_and(|worker| self.is_out_of_view(worker, now));
            if is_over {
                self.forget_worker(id);
            }
        }
        self.check_original_leases(now);
        let next = self
            .workers
            .table
            .values()
            .map(|worker| match worker.lost {
                true => worker.last_seen + timeout * LOST_KEPT,
                false => worker.last_seen + timeout,
            })
            .chain(self.next_original_lease())
            .chain(
                self.workers
                    .table
                    .values()
                    .map(|worker| worker.full_until)
                    .filter(|at| *at > now),
            )
            .min();
        if let Some(next) = next {
            self.wake_at(next);
        }
    }

    /// Whether a silent worker is not even listed any more: anybody can invent hundreds in
    /// each second, and each that is listed costs a look whenever work is given out.
    fn is_out_of_view(&self, worker: &Worker, now: Timestamp) -> bool {
        let timeout = self.options.worker_timeout;
        // One that the journal names and nobody heard since was a worker once.
        let was_real = self.workers.is_proven(worker) || worker.original || !worker.heard;
        let kept = if was_real { LOST_KEPT } else { 1 };
        worker.lost && worker.last_seen + timeout * kept <= now
    }

    pub(super) fn handle_goodbye(&mut self, id: WorkerId, now: Timestamp) {
        self.remove_worker(id, Cause::WorkerLeft, now);
    }

    pub(super) fn remove_worker(&mut self, id: WorkerId, cause: Cause, now: Timestamp) {
        let Some(worker) = self.workers.table.get(&id) else {
            return;
        };
        let kind = EventKind::Worker {
            worker: id,
            job_type: self.job_type(worker.phase).clone(),
            status: WorkerStatus::Gone,
            host: worker.host.clone(),
            slots: worker.slots,
        };
        let attempts: Vec<AttemptId> = worker.attempts.keys().copied().collect();
        for attempt in attempts {
            self.give_up(id, attempt, cause, now);
        }
        self.adoption_unanswered(id, now);
        self.make_unknown(id);
        self.forget_worker(id);
        let timeout = self.options.worker_timeout;
        self.workers.remember_gone(id, now + timeout);
        self.publish(now, kind);
    }

    /// Stops a job at once: durable now, and the worker is told.
    pub(super) fn cancel_job(&mut self, no: u64, now: Timestamp) {
        let running = self.jobs.job(no).and_then(|job| job.attempt);
        let payload = self.payload(no).unwrap_or_default();
        self.end(no, End::Cancelled, payload, now);
        if let Some((attempt, worker)) = running {
            self.send_cancel(worker, attempt);
        }
    }
}

fn cut(mut text: String) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text.shrink_to_fit();
    text
}
