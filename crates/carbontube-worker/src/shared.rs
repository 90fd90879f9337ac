//! What the worker's tasks share: the session behind a lock, and the events that wake them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_io::Timer;
use bytes::Bytes;
use carbontube_protocol::message::{ErrorReport, FailureKind, Outcome, WorkerState};
use carbontube_protocol::{Limits, Timestamp, merge_instructions};
use carbontube_transport::Hurry;
use event_listener::{Event, EventListener};
use futures_lite::future;

use crate::clock::Clock;
use crate::context::{About, JobContext, Output, Stop, cut, cut_front};
use crate::phase::{Ended, Failure};
use crate::session::{Effects, Finished, Key, Session};

/// How much later than its commands a worker may hear that it shall end.
const SIGNALLED: Duration = Duration::from_secs(1);

/// The state and the wires between the tasks.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) output: Output,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    /// There may be something to start.
    work: Event,
    /// There may be something to send.
    pub(crate) outgoing: Event,
    /// A heartbeat is wanted at once.
    pub(crate) heartbeat: Event,
    pub(crate) heartbeat_wanted: AtomicBool,
    /// What dials managers at once.
    hurries: Vec<Hurry>,
    /// A deadline came that is earlier than the others.
    pub(crate) deadline: Event,
    /// Something that a draining worker waits for may have happened.
    pub(crate) changed: Event,
    pub(crate) drain_wanted: AtomicBool,
    stop_wanted: AtomicBool,
    /// No task shall go on.
    ended: AtomicBool,
    pub(crate) refused: AtomicU64,
    /// Whether an attempt whose time is over is reported before its thread returns.
    pub(crate) reports_early: bool,
}

struct State {
    session: Session,
    running: BTreeMap<Key, JobContext>,
}

/// An attempt for a runner.
pub(crate) struct Run {
    pub(crate) key: Key,
    pub(crate) context: JobContext,
    pub(crate) instructions: Bytes,
}

impl Shared {
    pub(crate) fn new(
        session: Session,
        output: Output,
        limits: Limits,
        reports_early: bool,
        hurries: Vec<Hurry>,
    ) -> Arc<Self> {
        Arc::new(Shared {
            state: Mutex::new(State {
                session,
                running: BTreeMap::new(),
            }),
            clock: output.clock,
            output,
            limits,
            work: Event::new(),
            outgoing: Event::new(),
            heartbeat: Event::new(),
            heartbeat_wanted: AtomicBool::new(false),
            hurries,
            deadline: Event::new(),
            changed: Event::new(),
            drain_wanted: AtomicBool::new(false),
            stop_wanted: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            reports_early,
        })
    }

    /// Does something with the session, then what the session wants done.
    pub(crate) fn with<T>(&self, run: impl FnOnce(&mut Session) -> T) -> T {
        let (value, effects, cancelled) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let value = run(&mut state.session);
            let effects = state.session.take_effects();
            let cancelled = contexts(&state.running, &effects.cancel);
            (value, effects, cancelled)
        };
        self.apply(&effects);
        for (key, context) in cancelled {
            self.stop(key, &context, Stop::Cancelled);
        }
        value
    }

    fn apply(&self, effects: &Effects) {
        if effects.start > 0 {
            self.work.notify_additional(effects.start);
        }
        if effects.send {
            self.outgoing.notify(usize::MAX);
        }
        if effects.hurry {
            self.hurries.iter().for_each(Hurry::dial);
        }
        if effects.heartbeat {
            self.want_heartbeat();
        }
        if effects.deadline {
            self.deadline.notify(usize::MAX);
        }
        if effects.drain {
            self.drain_wanted.store(true, Ordering::Release);
        }
        if let Some(notice) = &effects.notice {
            log::warn!("{notice}");
        }
        if effects.settled || effects.drain {
            self.changed.notify(usize::MAX);
        }
    }

    pub(crate) fn want_heartbeat(&self) {
        self.heartbeat_wanted.store(true, Ordering::Release);
        self.heartbeat.notify(usize::MAX);
    }

    /// Reports the end of the last attempt, if there was one, and takes the next.
    ///
    /// One that failed because this worker leaves is handed back: it may succeed elsewhere.
    pub(crate) fn next(&self, last: Option<(Key, Finished)>) -> Option<Run> {
        let now = self.clock.now();
        let (run, effects) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((key, finished)) = last {
                let context = state.running.remove(&key);
                let why = context.and_then(|context| context.stop_reason());
                let leaves = matches!(why, Some(Stop::GraceOver | Stop::Now));
                if leaves && finished.outcome != Outcome::Success {
                    state.session.abandon(key);
                } else {
                    state.session.finish(key, finished, now);
                }
            }
            let started = if self.is_ended() {
                None
            } else {
                state.session.start_next(now)
            };
            let run = started.map(|started| {
                let about = About {
                    job: started.work.job,
                    attempt: started.work.attempt,
                    number: started.work.number,
                    phase: started.work.phase,
                    pipeline: started.pipeline,
                    traceparent: started.work.traceparent,
                    started_at: now,
                };
                let context = JobContext::new(about, self.output.clone());
                state.running.insert(started.key, context.clone());
                Run {
                    key: started.key,
                    context,
                    instructions: started.work.instructions,
                }
            });
            (run, state.session.take_effects())
        };
        self.apply(&effects);
        run
    }

    /// Waits for work after [`next`](Self::next) found none; none when the worker ends.
    pub(crate) async fn wait_next(&self) -> Option<Run> {
        loop {
            let work: EventListener = self.work.listen();
            if self.is_ended() {
                return None;
            }
            if let Some(run) = self.next(None) {
                return Some(run);
            }
            work.await;
        }
    }

    /// Turns what a phase returned into what is reported.
    pub(crate) fn finished(&self, run: &Run, ended: Ended) -> Finished {
        let merged = ended.and_then(|output| match output {
            None => Ok(Bytes::new()),
            Some(output) => {
                merge_instructions(&run.instructions, &output, &self.limits).map_err(|error| {
                    let message = format!("the phase's output cannot be merged: {error}");
                    Failure::new(FailureKind::Output, message)
                })
            }
        });
        let (outcome, instructions) = match merged {
            Ok(instructions) => (Outcome::Success, instructions),
            Err(failure) => (self.failure(&run.context, failure), Bytes::new()),
        };
        Finished {
            outcome,
            instructions,
            started_at: run.context.started_at(),
        }
    }

    fn failure(&self, context: &JobContext, failure: Failure) -> Outcome {
        let mut detail = failure.detail;
        let tail = context.tail();
        if !tail.is_empty() {
            if !detail.is_empty() && !detail.ends_with('\n') {
                detail.push('\n');
            }
            detail.push_str(cut_front(&tail, 4 << 10));
        }
        let message = cut(&failure.message, self.limits.error_bytes_max).to_owned();
        Outcome::Failure {
            kind: failure.kind,
            error: ErrorReport {
                message,
                detail: cut_front(&detail, self.limits.detail_bytes_max).to_owned(),
            },
            retry: failure.retry,
        }
    }

    /// Stops the attempts whose time is over; tells when to look again.
    pub(crate) fn expire(&self) -> Timestamp {
        let now = self.clock.now();
        let (expired, looks_at) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let keys = state.session.expired(now, now + Duration::from_secs(1));
            (contexts(&state.running, &keys), state.session.looks_at())
        };
        for (key, context) in expired {
            self.stop(key, &context, Stop::TimedOut);
        }
        looks_at
    }

    fn stop(&self, key: Key, context: &JobContext, why: Stop) {
        context.stop(why);
        if self.reports_early {
            let failure = self.failure(context, stopped_failure(context, why));
            let finished = Finished {
                outcome: failure,
                instructions: Bytes::new(),
                started_at: context.started_at(),
            };
            let now = self.clock.now();
            self.with(|session| session.finish(key, finished, now));
        }
    }

    /// Stops whatever runs.
    pub(crate) fn stop_running(&self, why: Stop) {
        let contexts: Vec<JobContext> = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running.values().cloned().collect()
        };
        for context in contexts {
            context.stop(why);
        }
    }

    /// How many runners are busy, whatever was already reported of their attempts.
    pub(crate) fn busy(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running.len()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.work.notify(usize::MAX);
        self.outgoing.notify(usize::MAX);
        self.heartbeat.notify(usize::MAX);
        self.deadline.notify(usize::MAX);
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn want_drain(&self) {
        self.drain_wanted.store(true, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn want_stop(&self) {
        self.stop_wanted.store(true, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn is_stop_wanted(&self) -> bool {
        self.stop_wanted.load(Ordering::Acquire)
    }

    /// Waits until a condition holds or the time is over.
    pub(crate) async fn settled(&self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.listen();
                if done(self) {
                    return;
                }
                changed.await;
            }
        };
        future::or(wait, sleep(limit)).await;
    }

    /// Whether the worker drains. Where a whole control group is signalled, a command may end
    /// before the worker has heard of it: a moment is waited for that.
    pub(crate) async fn drains_soon(&self) -> bool {
        let drains = |shared: &Shared| {
            let state = shared.with(|session| session.state());
            state == WorkerState::Draining
        };
        self.until(Some(SIGNALLED), drains).await;
        drains(self)
    }

    /// Does something to its end, or until `stop_now` is called.
    pub(crate) async fn unless_stopped(&self, work: impl Future<Output = ()>) {
        future::or(self.until(None, |_| false), work).await;
    }

    /// Waits until a condition holds, `stop_now` was called, or the time is over.
    pub(crate) async fn until(&self, limit: Option<Duration>, done: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.listen();
                if done(self) || self.is_stop_wanted() {
                    return;
                }
                changed.await;
            }
        };
        match limit {
            None => wait.await,
            Some(limit) => future::or(wait, sleep(limit)).await,
        }
    }
}

fn contexts(running: &BTreeMap<Key, JobContext>, keys: &[Key]) -> Vec<(Key, JobContext)> {
    let context = |key: &Key| Some((*key, running.get(key)?.clone()));
    keys.iter().filter_map(context).collect()
}

/// What is reported of an attempt that was stopped.
pub(crate) fn stopped_failure(context: &JobContext, why: Stop) -> Failure {
    match why {
        Stop::TimedOut => {
            let seconds = context.now().since(context.started_at()).as_secs_f64();
            let message = format!("timed out after {seconds:.1} s");
            Failure::new(FailureKind::Timeout, message)
        }
        Stop::Cancelled => Failure::new(FailureKind::Cancelled, "cancelled").fatal(),
        Stop::GraceOver | Stop::Now => {
            Failure::new(FailureKind::Error, "the worker ended before the phase did")
        }
    }
}

pub(crate) async fn sleep(time: Duration) {
    Timer::after(time).await;
}
