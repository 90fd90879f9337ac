//! Workers and clients of the original Carbontube: one slot, no held lists, a lease that
//! ends by silence or by the phase's timeout.

use carbontube_protocol::message::{
    AttemptResult, FailureKind, HeldState, NewJob, Outcome, WorkerStatus,
};
use carbontube_protocol::original::{OriginalEvent, OriginalMessage};
use carbontube_protocol::{AttemptId, JobId, Timestamp, WorkerId};

use super::machine::Core;
use super::worker::original_id;

impl Core {
    pub(super) fn handle_original(&mut self, message: OriginalMessage, now: Timestamp) {
        match message {
            OriginalMessage::Enqueue {
                id,
                pipeline,
                instructions,
            } => {
                let job = NewJob {
                    id,
                    delay_ms: 0,
                    traceparent: None,
                    instructions,
                };
                self.handle_unconfirmed(pipeline.as_ref(), vec![job], now);
            }
            OriginalMessage::Finished {
                id,
                job_type,
                success,
                error,
                started_at,
                finished_at,
                instructions,
            } => {
                let phase = self.phase_of(job_type.as_str());
                let job = self.jobs.no(&id).and_then(|no| self.jobs.job(no));
                let found = phase
                    .zip(job)
                    .filter(|(phase, job)| job.phase == *phase)
                    .and_then(|(phase, job)| Some((phase, job.attempt?)));
                let Some((phase, (attempt, worker))) = found else {
                    self.count("original_results_without_attempt", 1);
                    if let Some(phase) = phase {
                        self.free_original(&id, phase, now);
                    }
                    return;
                };
                self.seen(worker, now);
                let outcome = match success {
                    true => Outcome::Success,
                    false => Outcome::Failure {
                        kind: FailureKind::Error,
                        error,
                        retry: true,
                    },
                };
                let result = AttemptResult {
                    attempt,
                    job: id,
                    phase,
                    started_at,
                    finished_at,
                    outcome,
                    instructions,
                };
                self.handle_result(worker, 0, result, now);
            }
        }
    }

    /// A job that was decided without its worker has ended there: it takes work again.
    fn free_original(&mut self, job: &JobId, phase: u16, now: Timestamp) {
        let mut originals = self.workers.table.iter();
        let found = originals.find_map(|(id, worker)| {
            let is_there = worker.original && worker.phase == phase;
            let mut held = worker.attempts.iter().filter(|_| is_there);
            let attempt = held.find(|(_, held)| held.job == *job);
            attempt.map(|(attempt, _)| (*id, *attempt))
        });
        if let Some((id, attempt)) = found {
            self.seen(id, now);
            self.release(id, attempt);
        }
    }

    pub(super) fn handle_original_event(&mut self, event: OriginalEvent, now: Timestamp) {
        let OriginalEvent::Available {
            id,
            address,
            job_type,
            success_count,
            failed_count,
        } = event
        else {
            return self.count("original_events_unused", 1);
        };
        let Some(phase) = self.phase_of(job_type.as_str()) else {
            return self.count("workers_of_unknown_phase", 1);
        };
        let worker = original_id(&id);
        let was_lost = self.workers.table.get(&worker).is_some_and(|w| w.lost);
        if !self.register(worker, phase, &address, true, 1, now) {
            return;
        }
        if let Some(worker) = self.workers.table.get_mut(&worker) {
            worker.success_count = success_count;
            worker.failed_count = failed_count;
            worker.host = id;
            "original".clone_into(&mut worker.version);
        }
        if was_lost {
            self.publish_worker(worker, now, WorkerStatus::Available);
        }
    }

    fn original_leases(&self) -> impl Iterator<Item = (Timestamp, WorkerId, AttemptId)> + '_ {
        let originals = self.workers.table.iter().filter(|(_, w)| w.original);
        originals.flat_map(|(id, worker)| {
            let timeout = self.definition.phases()[usize::from(worker.phase)].timeout;
            let leases = timeout.map(|timeout| {
                worker
                    .attempts
                    .iter()
                    .filter(|(_, held)| held.reported != Some(HeldState::Done))
                    .map(move |(attempt, held)| (held.since + timeout, *id, *attempt))
            });
            leases.into_iter().flatten()
        })
    }

    pub(super) fn next_original_lease(&self) -> Option<Timestamp> {
        self.original_leases().map(|(at, _, _)| at).min()
    }

    /// Fails the attempts of the original's workers that ran longer than they may.
    pub(super) fn check_original_leases(&mut self, now: Timestamp) {
        let over: Vec<_> = self
            .original_leases()
            .filter(|(at, _, _)| *at <= now)
            .collect();
        for (_, worker, attempt) in over {
            let held = self
                .workers
                .table
                .get(&worker)
                .and_then(|w| w.attempts.get(&attempt));
            let Some((job, phase)) = held.map(|held| (held.job.clone(), held.phase)) else {
                continue;
            };
            let outcome = Outcome::Failure {
                kind: FailureKind::Timeout,
                error: carbontube_protocol::message::ErrorReport {
                    message: "it ran longer than the phase's timeout".to_owned(),
                    detail: String::new(),
                },
                retry: true,
            };
            let result = AttemptResult {
                attempt,
                job,
                phase,
                started_at: Timestamp::ZERO,
                finished_at: now,
                outcome,
                instructions: bytes::Bytes::new(),
            };
            self.handle_result(worker, 0, result, now);
        }
    }
}
