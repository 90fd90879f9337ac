//! Results: the first one of a job's phase wins; what failed is tried again, or not.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{
    AttemptResult, AttemptView, Cancel, ErrorReport, FailureKind, HandBack, HandBackReason,
    Held as HeldReport, HeldState, JobState, Outcome, Results,
};
use carbontube_protocol::{AttemptId, JobId, Timestamp, WorkerId};
use carbontube_storage::{Log, PageSeq};

use super::Effect;
use super::cause::{Cause, Doubt};
use super::job::JobNo;
use super::machine::Core;
use super::payload::Reason;
use super::record::{End, FailureRecord};
use super::worker::{Held, Worker};

const SETTLED_MAX: usize = 65_536;

/// Whether a job was handed out again after an attempt of it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeated {
    /// Not so far.
    No,
    /// Yes, and that is counted as a rerun.
    Counted,
    /// Yes; it is not counted, as the attempt cannot have begun.
    Uncounted,
}

#[derive(Clone, Debug, PartialEq)]
struct GivenUp {
    cause: Cause,
    repeated: Repeated,
    no: Option<JobNo>,
    /// Outlives the job's entry: a result often comes after the job has ended.
    job: JobId,
}

/// What became of recent attempts: `None` when their result was taken, or why they were
/// given up.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Few are given up: they are kept apart, so that the others take little room.
    table: BTreeMap<AttemptId, Option<Box<GivenUp>>>,
    order: VecDeque<AttemptId>,
}

impl Settled {
    pub(super) fn take(&mut self, attempt: AttemptId) {
        self.note(attempt, None);
    }

    pub(super) fn give_up(
        &mut self,
        attempt: AttemptId,
        cause: Cause,
        no: Option<JobNo>,
        job: &JobId,
    ) {
        let given_up = GivenUp {
            cause,
            repeated: Repeated::No,
            no,
            job: job.clone(),
        };
        self.note(attempt, Some(Box::new(given_up)));
    }

    /// The job of an attempt that was given up.
    pub(super) fn job_given_up(&self, attempt: AttemptId) -> Option<JobNo> {
        self.table.get(&attempt)?.as_ref()?.no
    }

    /// An attempt that was given up has a follower.
    pub(super) fn repeat(&mut self, attempt: AttemptId, to: Repeated) {
        if let Some(Some(given_up)) = self.table.get_mut(&attempt) {
            given_up.repeated = to;
        }
    }

    fn note(&mut self, attempt: AttemptId, given_up: Option<Box<GivenUp>>) {
        if self.table.insert(attempt, given_up).is_none() {
            self.order.push_back(attempt);
            if self.order.len() > SETTLED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.table.remove(&oldest);
            }
        }
    }

    /// Its worker stopped it before its end and said so.
    pub(super) fn was_abandoned(&self, attempt: AttemptId) -> bool {
        let given_up = self.table.get(&attempt).and_then(Option::as_ref);
        given_up.is_some_and(|given_up| given_up.cause == Cause::Abandoned)
    }

    pub(super) fn was_taken(&self, attempt: AttemptId) -> bool {
        self.table.get(&attempt) == Some(&None)
    }

    /// Why an attempt of this job was given up. Who names another job knows nothing of
    /// the attempt but its number, which anybody can count to.
    pub(super) fn given_up(&self, attempt: AttemptId, job: &JobId) -> Option<(Cause, Repeated)> {
        let given_up = self.table.get(&attempt)?.as_ref()?;
        (given_up.job == *job).then_some((given_up.cause, given_up.repeated))
    }
}

impl Core {
    pub(super) fn handle_results(&mut self, results: Results, now: Timestamp) {
        self.seen(results.worker, now);
        for mut result in results.results {
            if let Outcome::Failure { error, .. } = &mut result.outcome {
                error.cut(&self.options.limits);
            }
            self.handle_result(results.worker, results.route, result, now);
            self.journal.cut();
        }
    }

    pub(super) fn handle_result(
        &mut self,
        worker: WorkerId,
        route: u16,
        result: AttemptResult,
        now: Timestamp,
    ) {
        let result = self.judged(result);
        let attempt = result.attempt;
        if self.is_of_another(worker, attempt, &result.job) {
            return self.count("attempts_of_others", 1);
        }
        let target = self.result_target(&result);
        if let Some(home) = self.page_for(target, &result) {
            let result = Box::new(result);
            let reason = Reason::Result {
                worker,
                route,
                result,
            };
            return self.read_page(Log::Journal, home, reason);
        }
        let held = self.release(worker, attempt);
        // A stranger's word about an attempt decides nothing about it.
        let given_up = self.settled.given_up(attempt, &result.job);
        let decides = held.is_some() || target.is_some() || given_up.is_some();
        if let Some(held) = held.filter(|held| held.job != result.job) {
            self.count("attempts_of_others", 1);
            self.give_back(&held.job, attempt, now);
        } else if let Some(no) = target {
            self.prove_by_result(worker);
            self.take_result(no, worker, result, now);
        } else {
            self.late_result(&result);
            // The worker forgets what is acknowledged; if its job still counts as running
            // there, nobody would end it.
            self.give_back(&result.job, attempt, now);
        }
        if decides {
            self.settled.take(attempt);
            let (last, durable) = (self.journal.last, self.journal.durable);
            if let Some(worker) = self.workers.table.get_mut(&worker)
                && !mutation::is(Mutation::ForgetUndecided)
            {
                // One behind a device may report for ever what others were handed.
                worker.forget_durable(durable);
                worker.decided.push_back(last);
            }
        }
        // While nothing can be written, what is repeated has an acknowledgement that waits.
        if decides || self.journal.trouble.is_none() {
            self.acknowledge(worker, route, attempt);
        }
    }

    /// The page with the instructions that become the job's result, if they are not in memory.
    fn page_for(&self, target: Option<JobNo>, result: &AttemptResult) -> Option<PageSeq> {
        let no = target?;
        let is_needed = matches!(result.outcome, Outcome::Success)
            && result.instructions.is_empty()
            && self.is_last_phase(no);
        if !is_needed || self.payload(no).is_some() {
            return None;
        }
        self.jobs.job(no).map(|job| job.home)
    }

    /// Takes a result whose page has been read.
    pub(super) fn handle_result_read(
        &mut self,
        worker: WorkerId,
        route: u16,
        result: AttemptResult,
        page: PageSeq,
        now: Timestamp,
    ) {
        if self.page_for(self.result_target(&result), &result) != Some(page) {
            return self.handle_result(worker, route, result, now);
        }
        // The page has lost them: its job says so at its turn, and nobody reads for ever.
        self.count("payloads_lost", 1);
        self.release(worker, result.attempt);
        self.acknowledge(worker, route, result.attempt);
    }

    /// A success whose output is no instructions is a failure, and decides what one does.
    fn judged(&self, mut result: AttemptResult) -> AttemptResult {
        if matches!(result.outcome, Outcome::Success)
            && !result.instructions.is_empty()
            && let Err(error) = self.options.check_instructions(&result.instructions)
        {
            result.instructions = Bytes::new();
            result.outcome = Outcome::Failure {
                kind: FailureKind::Output,
                error: ErrorReport {
                    message: error.to_string(),
                    detail: String::new(),
                },
                retry: true,
            };
        }
        result
    }

    fn give_back(&mut self, job: &JobId, attempt: AttemptId, now: Timestamp) {
        let no = self.jobs.no(job);
        self.requeue(no, attempt, Some(Cause::Undecided), now);
    }

    /// Whether a worker speaks of an attempt that went to another address.
    fn is_of_another(&self, worker: WorkerId, attempt: AttemptId, job: &JobId) -> bool {
        let job = self.jobs.no(job).and_then(|no| self.jobs.job(no));
        let Some((current, holder)) = job.and_then(|job| job.attempt) else {
            return false;
        };
        let pipe = |id| {
            self.workers
                .table
                .get(&id)
                .map(|worker: &Worker| worker.pipe)
        };
        current == attempt && holder != worker && pipe(holder) != pipe(worker)
    }

    fn is_last_phase(&self, no: JobNo) -> bool {
        let job = self.jobs.job(no);
        job.is_some_and(|job| usize::from(job.phase) + 1 == self.phases.len())
    }

    /// The live job that a result decides something about.
    fn result_target(&self, result: &AttemptResult) -> Option<JobNo> {
        let no = self.jobs.no(&result.job)?;
        let job = self.jobs.job(no)?;
        let settled = job.rare.as_ref().and_then(|rare| rare.settled);
        if mutation::is(Mutation::TakeResultTwice) && matches!(result.outcome, Outcome::Success) {
            return Some(no);
        }
        if !self.may_be_of(result.attempt, no)
            || self.phase_now(result.attempt, result.phase) != Some(job.phase)
            || job.state == JobState::Failed
            || settled == Some(result.attempt)
            || self.settled.was_taken(result.attempt)
        {
            return None;
        }
        let current = job.attempt.map(|(attempt, _)| attempt) == Some(result.attempt);
        // Of this epoch, only what was handed out can have run.
        if !current
            && self.is_of_this_start(result.attempt)
            && self.settled.job_given_up(result.attempt) != Some(no)
        {
            return None;
        }
        match result.outcome {
            Outcome::Success => Some(no),
            // Another attempt may still succeed; and we asked ourselves for a cancelled one.
            Outcome::Failure { kind, .. } => (current
                || (job.attempt.is_none()
                    && job.state == JobState::Enqueued
                    && kind != FailureKind::Cancelled))
                .then_some(no),
        }
    }

    fn acknowledge(&mut self, worker: WorkerId, route: u16, attempt: AttemptId) {
        if let Some(worker) = self.workers.table.get(&worker)
            && !worker.original
        {
            let key = (worker.pipe, route);
            let last = self.journal.last;
            let (after, attempts) = self.acks.entry(key).or_default();
            if !mutation::is(Mutation::AcknowledgeBeforeDurable) {
                *after = last;
            }
            attempts.push(attempt);
        }
    }

    /// The worker does not hold the attempt any more. Gives what was counted, unless the
    /// attempt is not its own.
    pub(super) fn release(&mut self, worker: WorkerId, attempt: AttemptId) -> Option<Held> {
        let worker = self.workers.table.get_mut(&worker)?;
        let held = worker.release(attempt);
        if held.is_some() || !worker.shared {
            return held;
        }
        // Behind a shared address another worker may be the one it is counted with.
        let pipe = self.workers.pipes.get(&worker.pipe)?;
        let mut found = None;
        for other in &pipe.workers {
            if let Some(other) = self.workers.table.get_mut(other) {
                found = other.release(attempt).or(found);
            }
        }
        found
    }

    fn take_result(&mut self, no: JobNo, worker: WorkerId, result: AttemptResult, now: Timestamp) {
        let Some(job) = self.jobs.job(no) else { return };
        let phase = job.phase;
        if let Some(other) = job.attempt.filter(|(other, _)| *other != result.attempt) {
            self.overtake(no, &result, other);
        }
        self.measure(phase, &result);
        let mut view = AttemptView {
            phase,
            worker: Some(worker),
            started_at: result.started_at,
            finished_at: result.finished_at,
            failure: None,
            error: String::new(),
        };
        let attempt = result.attempt;
        // Who says of what it was just given that it was cancelled would get it for ever.
        let was_taken_up =
            !self.is_of_this_start(attempt) || self.settled.job_given_up(attempt) == Some(no);
        match result.outcome {
            Outcome::Success => {
                if let Some(worker) = self.workers.table.get_mut(&worker)
                    && worker.original
                {
                    worker.success_count += 1;
                }
                self.succeed(no, attempt, view, &result.instructions, now);
            }
            // A job that is to be cancelled is gone by now. This attempt was stopped for
            // another one, and taken up again before its worker had ended it: nothing of it
            // went wrong, and nobody wants its job to end.
            Outcome::Failure {
                kind: FailureKind::Cancelled,
                ..
            } if was_taken_up => self.requeue(Some(no), attempt, Some(Cause::Abandoned), now),
            Outcome::Failure { kind, error, retry } => {
                view.finished_at = view.finished_at.max(view.started_at);
                self.fail_attempt(no, attempt, view, kind, error, retry, now);
            }
        }
    }

    fn measure(&mut self, phase: u16, result: &AttemptResult) {
        let took = result.finished_at.since(result.started_at);
        let took = micros(took);
        if result.started_at == Timestamp::ZERO || result.finished_at < result.started_at {
            return;
        }
        let took = took.clamp(1, 1 << 50);
        let tally = &mut self.phases[usize::from(phase)];
        tally.duration_us = match tally.duration_us {
            0 => took,
            old => ((old * 7 + took) / 8).max(1),
        };
        self.series.phases[usize::from(phase)].took(took);
    }

    fn succeed(
        &mut self,
        no: JobNo,
        attempt: AttemptId,
        view: AttemptView,
        instructions: &Bytes,
        now: Timestamp,
    ) {
        self.phases[usize::from(view.phase)].done += 1;
        self.series.phases[usize::from(view.phase)].done();
        let changed = (!instructions.is_empty()).then(|| Core::payload_copy(instructions));
        if self.is_last_phase(no) {
            let payload = changed.or_else(|| self.payload(no)).unwrap_or_default();
            if let Some(job) = self.jobs.job_mut(no) {
                job.add_attempt(view);
                job.rare().failure = None;
            }
            return self.end(no, End::Finished, payload, now);
        }
        self.series.phases[usize::from(view.phase) + 1].arrived();
        let ticket = self.jobs.take_ticket();
        let kept = view.clone();
        self.jobs.transition(no, JobState::Enqueued, now, |job| {
            job.phase += 1;
            job.tries = 0;
            job.losses = 0;
            job.ticket = ticket;
            job.add_attempt(kept);
            let rare = job.rare();
            rare.settled = Some(attempt);
            rare.failure = None;
            rare.until = None;
            rare.doubt = None;
        });
        match changed {
            Some(payload) => {
                self.journal_job(no, &payload, false);
                if !mutation::is(Mutation::StaleInstructions) {
                    self.payloads.offer(no, payload);
                }
            }
            None => self.journal_change(no, Some(view)),
        }
        self.publish_job(no, now, None);
    }

    #[expect(clippy::too_many_arguments, reason = "an attempt's whole end")]
    fn fail_attempt(
        &mut self,
        no: JobNo,
        attempt: AttemptId,
        mut view: AttemptView,
        kind: FailureKind,
        error: ErrorReport,
        retry: bool,
        now: Timestamp,
    ) {
        let tally = &mut self.phases[usize::from(view.phase)];
        *tally.failures.entry(kind).or_default() += 1;
        self.series.phases[usize::from(view.phase)].failed();
        view.failure = Some(kind);
        view.error.clone_from(&error.message);
        let worker = view.worker;
        if let Some(worker) = worker.and_then(|id| self.workers.table.get_mut(&id))
            && worker.original
        {
            worker.failed_count += 1;
        }
        let Some(job) = self.jobs.job_mut(no) else {
            return;
        };
        job.tries += 1;
        let (phase, tries) = (job.phase, job.tries);
        let again = retry && tries < self.definition.phases()[usize::from(phase)].attempts;
        let until = again.then(|| now + self.backoff(phase, tries));
        let to = match until {
            Some(_) => JobState::Scheduled,
            None => JobState::Failed,
        };
        let kept = view.clone();
        self.jobs.transition(no, to, now, |job| {
            job.add_attempt(kept);
            let rare = job.rare();
            rare.until = until;
            rare.settled = Some(attempt);
            rare.failure = Some(FailureRecord { kind, error });
            rare.doubt = None;
        });
        self.journal_change(no, Some(view));
        self.publish_job(no, now, worker);
        if to == JobState::Failed {
            self.series.total.failed();
            self.tell_waiting(no);
        }
    }

    /// A job fails by the manager's own judgement.
    pub(super) fn fail_job(
        &mut self,
        no: JobNo,
        worker: Option<WorkerId>,
        kind: FailureKind,
        message: String,
        now: Timestamp,
    ) {
        let Some(job) = self.jobs.job(no) else { return };
        let phase = usize::from(job.phase);
        *self.phases[phase].failures.entry(kind).or_default() += 1;
        self.series.phases[phase].failed();
        self.series.total.failed();
        let error = ErrorReport {
            message,
            detail: String::new(),
        };
        self.jobs.transition(no, JobState::Failed, now, |job| {
            let rare = job.rare();
            rare.failure = Some(FailureRecord { kind, error });
            rare.doubt = None;
        });
        self.journal_change(no, None);
        self.publish_job(no, now, worker);
        self.tell_waiting(no);
    }

    pub(super) fn fail_without_payload(&mut self, no: JobNo, now: Timestamp) {
        let state = self.jobs.job(no).map(|job| job.state);
        if matches!(state, Some(JobState::Enqueued | JobState::Running)) {
            self.count("payloads_lost", 1);
            let message = "its instructions are not in the journal any more".to_owned();
            self.fail_job(no, None, FailureKind::Error, message, now);
        }
    }

    /// Ends a job: a tombstone in the journal, all about it in the history.
    pub(super) fn end(&mut self, no: JobNo, end: End, result: Bytes, now: Timestamp) {
        let (state, total) = match end {
            End::Finished => (JobState::Success, &mut self.totals.success),
            End::Cancelled => (JobState::Cancelled, &mut self.totals.cancelled),
            End::Discarded => {
                self.journal_end(no, end);
                return;
            }
        };
        *total += 1;
        if !self.jobs.transition(no, state, now, |_| {}) {
            return;
        }
        let Some(job) = self.journal_end(no, end) else {
            return;
        };
        if end == End::Finished {
            self.series.total.done();
            self.series.total.took(micros(now.since(job.enqueued_at)));
        }
        self.remember(&job, state, &result, now);
        self.publish(
            now,
            carbontube_protocol::message::EventKind::Job {
                job: job.id.clone(),
                state,
                job_type: self.job_type(job.phase).clone(),
                worker: None,
                error: None,
            },
        );
        let error = job.rare.and_then(|rare| rare.failure).map(|f| f.error);
        self.tell_ended(&job.id, Some(state), error, result);
    }

    /// Tells a worker to stop an attempt, together with others.
    pub(super) fn send_cancel(&mut self, worker: WorkerId, attempt: AttemptId) {
        let Some(worker) = self.workers.table.get(&worker) else {
            return;
        };
        if !worker.original {
            let last = self.journal.last;
            let (after, attempts) = self.cancels.entry(worker.pipe).or_default();
            *after = last;
            attempts.push(attempt);
        }
    }

    pub(super) fn send_cancels(&mut self) {
        let most = self.options.limits.batch_jobs_max.max(1);
        for (pipe, (after, attempts)) in std::mem::take(&mut self.cancels) {
            if !self.workers.pipes.contains_key(&pipe) {
                continue;
            }
            for attempts in attempts.chunks(most) {
                let head = self.head(pipe);
                let attempts = attempts.to_vec();
                let message = Cancel { head, attempts }.into();
                self.effect(after, Effect::ToPipe { pipe, message });
            }
        }
    }

    pub(super) fn handle_hand_back(&mut self, hand_back: HandBack, now: Timestamp) {
        let id = hand_back.worker;
        self.seen(id, now);
        if let Some(worker) = self.workers.table.get_mut(&id) {
            match hand_back.reason {
                HandBackReason::Draining | HandBackReason::Abandoned => worker.draining = true,
                HandBackReason::Full | HandBackReason::UnknownJobType => {
                    worker.full_until = now + std::time::Duration::from_secs(1);
                }
                HandBackReason::Recalled => {}
            }
            if worker.full_until > now {
                let at = worker.full_until;
                self.wake_at(at);
            }
        }
        let abandoned = hand_back.reason == HandBackReason::Abandoned;
        for back in hand_back.attempts {
            let attempt = back.attempt;
            if abandoned && !self.is_of_this_start(attempt) {
                // Begun before this manager was started, and perhaps not heard of yet.
                let report = HeldReport {
                    attempt,
                    job: back.job,
                    phase: back.phase,
                    state: HeldState::Running,
                };
                self.reconcile_held(id, &report, now);
            }
            let Some(held) = self.release(id, attempt) else {
                self.count("hand_backs_of_others", 1);
                continue;
            };
            let begun = abandoned || held.reported == Some(HeldState::Running);
            let cause = begun.then_some(Cause::Abandoned);
            if let Some(cause) = cause {
                let no = self.jobs.no(&held.job);
                self.settled.give_up(attempt, cause, no, &held.job);
            }
            let no = self.jobs.no(&held.job);
            self.requeue(no, attempt, cause, now);
        }
    }

    /// An attempt is given up: its job goes back to its place in the queue.
    pub(super) fn requeue(
        &mut self,
        no: Option<JobNo>,
        attempt: AttemptId,
        cause: Option<Cause>,
        now: Timestamp,
    ) {
        let Some(no) = no else { return };
        let current = self.jobs.job(no).and_then(|job| job.attempt);
        if current.is_none_or(|(current, _)| current != attempt) {
            return;
        }
        self.jobs.transition(no, JobState::Enqueued, now, |job| {
            if let Some(cause) = cause {
                job.rare().doubt = Some(Doubt {
                    attempt: Some(attempt),
                    cause,
                    may_have_begun: cause.may_have_begun(),
                });
            }
        });
        self.journal_doubt(no);
        self.publish_job(no, now, None);
    }
}

pub(super) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
