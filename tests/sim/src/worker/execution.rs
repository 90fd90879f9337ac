//! Executions of phases: how long each takes, how it ends, and what stops it.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{ErrorReport, FailureKind, Outcome};
use carbontube_protocol::{JobId, Timestamp, merge_instructions};
use carbontube_worker::testing::{Finished, Key, Started};

use super::{WorkerNode, local, token};
use crate::context::Context;
use crate::oracle::Outcome as Ended;
use crate::parameters::Runner;

/// How long a command may take to die.
const KILLING: Duration = Duration::from_secs(3);
/// How long an execution hangs that nobody stops.
const HANGS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(40));

/// One execution in a slot.
#[derive(Debug)]
pub(super) struct Run {
    key: Key,
    job: JobId,
    phase: u16,
    instructions: Bytes,
    started_at: Timestamp,
    serial: u64,
    ending: Ending,
    stopped: Option<Why>,
    /// Its end was reported before it came.
    reported: bool,
}

/// How an execution ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Success,
    Unchanged,
    Garbage,
    Error,
    Fatal,
    Panic,
    Kill,
}

/// Why an execution is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Cancelled,
    TimedOut,
    GraceOver,
}

impl WorkerNode {
    /// Starts what is queued in slots that are free.
    pub(super) fn fill_slots(&mut self, context: &mut Context) {
        loop {
            let Some(process) = &mut self.process else {
                return;
            };
            let Some(free) = process.slots.iter().position(Option::is_none) else {
                return;
            };
            let now = local(context.now, process.clock_offset);
            let Some(started) = process.session.start_next(now) else {
                return;
            };
            self.begin(free, started, context);
        }
    }

    fn begin(&mut self, slot: usize, started: Started, context: &mut Context) {
        let phase = self.parameters.phase;
        let (ending, lasts) = draw(phase, context);
        let Some(process) = &mut self.process else {
            return;
        };
        let work = started.work;
        context.counts.bump("executions");
        context.note(
            process.me,
            format_args!(
                "starts {} at phase {} as {}: {ending:?} after {lasts:?}",
                work.job, work.phase, work.attempt
            ),
        );
        context.oracle.started(
            context.now,
            process.id,
            work.attempt,
            &work.job,
            work.phase,
            &work.instructions,
        );
        process.serial += 1;
        process.slots[slot] = Some(Run {
            key: started.key,
            job: work.job,
            phase: work.phase,
            instructions: work.instructions,
            started_at: local(context.now, process.clock_offset),
            serial: process.serial,
            ending,
            stopped: None,
            reported: false,
        });
        let token = token::SLOT | process.serial << 8;
        let at = context.now + lasts;
        context.wake(process.me, process.life, at, token);
    }

    /// An execution has come to its end.
    pub(super) fn slot_due(&mut self, serial: u64, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let runs = |slot: &Option<Run>| slot.as_ref().is_some_and(|run| run.serial == serial);
        let Some(slot) = process.slots.iter().position(runs) else {
            return;
        };
        let Some(run) = process.slots[slot].take() else {
            return;
        };
        if run.stopped.is_none() && run.ending == Ending::Kill {
            context.counts.bump("fault: a phase took its worker down");
            context.note(process.me, format_args!("dies of {}", run.job));
            self.doomed = true;
            return;
        }
        let (outcome, instructions) = match run.stopped {
            Some(why) => (stopped(why), Bytes::new()),
            None => ended(&run, self.parameters.phase, context),
        };
        if !run.reported {
            self.report(&run, outcome, instructions, context);
        }
        self.fill_slots(context);
        self.drain_step(context);
    }

    fn report(&mut self, run: &Run, outcome: Outcome, instructions: Bytes, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let told = match (&outcome, run.stopped) {
            (_, Some(_)) => Ended::Stopped,
            (Outcome::Success, None) if instructions.is_empty() => {
                Ended::Success(run.instructions.clone())
            }
            (Outcome::Success, None) => Ended::Success(instructions.clone()),
            (Outcome::Failure { .. }, None) => Ended::Failure,
        };
        context.note(
            process.me,
            format_args!("ends {} as {}: {outcome:?}", run.job, run.key.attempt),
        );
        context
            .oracle
            .ended(context.now, process.id, run.key.attempt, &run.job, told);
        let finished = Finished {
            outcome,
            instructions,
            started_at: run.started_at,
        };
        let now = local(context.now, process.clock_offset);
        if run.stopped == Some(Why::GraceOver) {
            // Only what has ended may begin elsewhere.
            process.session.abandon(run.key);
        } else {
            process.session.finish(run.key, finished, now);
        }
    }

    /// Stops an execution as the worker's runners do it.
    pub(super) fn stop(&mut self, key: Key, why: Why, context: &mut Context) {
        let runner = self.parameters.runner;
        let Some(process) = &mut self.process else {
            return;
        };
        let runs = |slot: &Option<Run>| slot.as_ref().is_some_and(|run| run.key == key);
        let Some(slot) = process.slots.iter().position(runs) else {
            return;
        };
        let Some(run) = &mut process.slots[slot] else {
            return;
        };
        if run.stopped.is_some() {
            return;
        }
        run.stopped = Some(why);
        context.note(process.me, format_args!("stops {}: {why:?}", run.job));
        match runner {
            Runner::Async => {
                let serial = run.serial;
                self.slot_due(serial, context);
            }
            Runner::Blocking => {
                // Its thread goes on until it is done by itself.
                if let Some(mut run) = process.slots[slot].take() {
                    self.report(&run, stopped(why), Bytes::new(), context);
                    run.reported = true;
                    if let Some(process) = &mut self.process {
                        process.slots[slot] = Some(run);
                    }
                }
            }
            Runner::Command => {
                let at = context.now + context.duration(Duration::ZERO, KILLING);
                let token = token::SLOT | run.serial << 8;
                context.wake(process.me, process.life, at, token);
            }
        }
    }

    /// Stops whatever runs.
    pub(super) fn stop_all(&mut self, why: Why, context: &mut Context) {
        let Some(process) = &self.process else {
            return;
        };
        let keys: Vec<Key> = process.slots.iter().flatten().map(|run| run.key).collect();
        for key in keys {
            self.stop(key, why, context);
        }
    }
}

fn draw(phase: usize, context: &mut Context) -> (Ending, Duration) {
    let set = context.parameters.phases[phase].clone();
    let lasts = context.duration(set.duration.0, set.duration.1);
    if context.fault(set.hangs) {
        context.counts.bump("fault: a phase hung");
        let lasts = context.duration(HANGS.0, HANGS.1);
        return (Ending::Error, lasts);
    }
    let ending = if context.fault(set.kills) {
        Ending::Kill
    } else if context.fault(set.panics) {
        context.counts.bump("fault: a phase panicked");
        Ending::Panic
    } else if context.fault(set.garbage) {
        context.counts.bump("fault: a phase returned garbage");
        Ending::Garbage
    } else if context.fault(set.fatal) {
        context.counts.bump("fault: a phase failed for good");
        Ending::Fatal
    } else if context.fault(set.fails) {
        context.counts.bump("fault: a phase failed");
        Ending::Error
    } else if context.chance(set.unchanged) {
        Ending::Unchanged
    } else {
        Ending::Success
    };
    (ending, lasts)
}

/// What an execution that was not stopped returns; merged as the worker merges it.
fn ended(run: &Run, phase: usize, context: &mut Context) -> (Outcome, Bytes) {
    let limits = &context.parameters.core.limits;
    let output = match run.ending {
        Ending::Unchanged => return (Outcome::Success, Bytes::new()),
        Ending::Success => {
            let filler = "x".repeat(context.parameters.phases[phase].output_bytes);
            format!("{{\"phase-{}\":\"{filler}\"}}", run.phase)
        }
        Ending::Garbage => "[1, 2".to_owned(),
        Ending::Error => return (failure(FailureKind::Error, "it failed", true), Bytes::new()),
        Ending::Fatal => {
            let outcome = failure(FailureKind::Error, "it failed for good", false);
            return (outcome, Bytes::new());
        }
        Ending::Panic | Ending::Kill => {
            return (
                failure(FailureKind::Panic, "it panicked", true),
                Bytes::new(),
            );
        }
    };
    match merge_instructions(&run.instructions, output.as_bytes(), limits) {
        Ok(merged) => (Outcome::Success, merged),
        Err(error) => {
            let message = format!("the phase's output cannot be merged: {error}");
            (failure(FailureKind::Output, &message, true), Bytes::new())
        }
    }
}

fn stopped(why: Why) -> Outcome {
    match why {
        Why::Cancelled => failure(FailureKind::Cancelled, "cancelled", false),
        Why::TimedOut => failure(FailureKind::Timeout, "timed out", true),
        Why::GraceOver => failure(
            FailureKind::Error,
            "the worker ended before the phase did",
            true,
        ),
    }
}

fn failure(kind: FailureKind, message: &str, retry: bool) -> Outcome {
    Outcome::Failure {
        kind,
        error: ErrorReport {
            message: message.to_owned(),
            detail: String::new(),
        },
        retry,
    }
}
