//! What a worker holds and decides. Pure: no I/O, no clock, no tasks.
//!
//! The shell tells it what arrived, started and ended, with the time; it keeps every
//! attempt from its dispatch until its result is acknowledged, and says what to send on
//! which route. What the shell must do next gathers in [`Effects`].
//!
//! Invariant: the attempts held and how far each manager's messages were received change
//! together, so that a heartbeat is always a consistent picture.

// Public for the simulator alone.
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub))]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{
    Ack, AttemptResult, Cancel, Dispatch, DispatchedJob, ErrorReport, FailureKind, HandBackReason,
    HandedBack, Held, HeldFor, HeldState, Outcome, Recall, WorkerState,
};
use carbontube_protocol::{
    AttemptId, Codec, JobId, JobType, Limits, ManagerId, Message, PipelineName, Timestamp, WorkerId,
};

mod abandoned;
mod lives;
mod outgoing;
#[cfg(test)]
mod tests;

use abandoned::Abandoned;
pub use lives::Notice;
use lives::Rival;
pub use outgoing::Outgoing;
use outgoing::Route;

/// Managers remembered at once.
const MANAGERS_MAX: usize = 32;
/// Attempts waiting for a slot, of all managers together.
const QUEUE_MAX: usize = 8192;
/// Keys in a queue beyond twice what is held that may be stale before they are swept.
const STALE_KEYS_MAX: usize = 1024;
/// Attempts held in all, whatever their state: a heartbeat lists them in a bounded body.
const HELD_MAX: usize = 16_384;
/// Bytes of instructions waiting for a slot.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Bytes of results kept; beyond it no new attempt starts.
const DONE_BYTES_MAX: usize = 256 << 20;
/// The longest pause between heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The shortest, however impatient a manager is.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);

/// A manager's pipes of one epoch begin to count at different multiples of two to this.
const PIPE_BITS: u32 = 32;

/// One attempt of one manager: epochs and counters are unique for a manager only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    manager: u8,
    /// The attempt, as its manager numbers it.
    pub attempt: AttemptId,
}

/// What the worker is.
#[derive(Clone, Debug)]
pub struct Profile {
    /// This incarnation.
    pub worker: WorkerId,
    /// What it runs.
    pub job_type: JobType,
    /// Connections that results can be sent on.
    pub routes: usize,
    /// Whether a device spreads work over several workers.
    pub shared_address: bool,
    /// Overrides what a dispatch says.
    pub timeout: Option<Duration>,
    /// Limits on what managers send.
    pub limits: Limits,
}

/// What the shell must do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Wake so many runners: there is something to start.
    pub start: usize,
    /// There is something to send.
    pub send: bool,
    /// Publish a heartbeat at once.
    pub heartbeat: bool,
    /// A manager is there: dial it at once where the connection is lost.
    pub hurry: bool,
    /// Stop these running attempts.
    pub cancel: Vec<Key>,
    /// A manager wants the worker to drain.
    pub drain: bool,
    /// There is an earlier deadline than the shell knows of.
    pub deadline: bool,
    /// Something ended or was acknowledged: a draining worker looks whether it may go.
    pub settled: bool,
    /// What to write to the log.
    pub notice: Option<Notice>,
}

/// An attempt to run now.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// Its key, for [`Session::finish`].
    pub key: Key,
    /// The pipeline.
    pub pipeline: PipelineName,
    /// What was dispatched.
    pub work: DispatchedJob,
}

/// How an attempt ended, merged and ready to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Success or how it failed.
    pub outcome: Outcome,
    /// The merged instructions; empty when unchanged.
    pub instructions: Bytes,
    /// When it started.
    pub started_at: Timestamp,
}

/// How much is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Attempts that wait for a slot.
    pub queued: usize,
    /// Attempts that run.
    pub running: usize,
    /// Attempts whose results are not acknowledged.
    pub done: usize,
}

#[derive(Debug)]
struct Manager {
    id: ManagerId,
    epoch: u64,
    sequence: u64,
    codec: Codec,
    route: Option<u16>,
    timeout: Option<Duration>,
    last_heard: Timestamp,
    held: usize,
    /// It said hello in this epoch.
    greeted: bool,
    /// Work of it was taken once: it is none of the managers that anybody can invent.
    gave_work: bool,
    /// Another life under the same id that has greeted and is not followed.
    rival: Option<Rival>,
}

#[derive(Debug)]
struct Entry {
    job: JobId,
    phase: u16,
    state: State,
}

#[derive(Debug)]
enum State {
    Queued(Box<(PipelineName, DispatchedJob)>),
    Running { deadline: Option<Timestamp> },
    Done(Box<Done>),
}

#[derive(Debug)]
struct Done {
    result: AttemptResult,
    /// The routes in whose queue it stands, as bits.
    queued_on: u64,
    /// When it was last handed to the network; none while that has not happened.
    sent_at: Option<Timestamp>,
    sends: u32,
}

/// The state of a worker.
#[derive(Debug)]
pub struct Session {
    profile: Profile,
    state: WorkerState,
    managers: Vec<Manager>,
    held: BTreeMap<Key, Entry>,
    /// What was abandoned. A manager that was started again since may not have heard of it.
    abandoned: Vec<Abandoned>,
    /// May hold keys that were recalled or cancelled since.
    queue: VecDeque<Key>,
    load: Load,
    queued_bytes: usize,
    done_bytes: usize,
    routes: Vec<Route>,
    deadlines: BTreeSet<(Timestamp, Key)>,
    /// When the shell looks at the deadlines next.
    looks_at: Timestamp,
    success_count: u64,
    failed_count: u64,
    stale_count: u64,
    unacknowledged_count: u64,
    /// When the last notice was given.
    noticed_at: Option<Timestamp>,
    effects: Effects,
}

impl Session {
    /// A worker that knows no manager yet.
    pub fn new(profile: Profile) -> Self {
        let routes = (0..profile.routes).map(|_| Route::default()).collect();
        Session {
            profile,
            state: WorkerState::Available,
            managers: Vec::new(),
            held: BTreeMap::new(),
            abandoned: Vec::new(),
            queue: VecDeque::new(),
            load: Load::default(),
            queued_bytes: 0,
            done_bytes: 0,
            routes,
            deadlines: BTreeSet::new(),
            looks_at: Timestamp::ZERO,
            success_count: 0,
            failed_count: 0,
            stale_count: 0,
            unacknowledged_count: 0,
            noticed_at: None,
            effects: Effects::default(),
        }
    }

    /// Takes what the shell must do since the last time.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// How much is held.
    pub fn load(&self) -> Load {
        self.load
    }

    /// Whether it drains.
    pub fn state(&self) -> WorkerState {
        self.state
    }

    /// How many attempts succeeded and failed here.
    pub fn counts(&self) -> (u64, u64) {
        (self.success_count, self.failed_count)
    }

    /// Messages of managers' former lives, ignored.
    pub fn stale_count(&self) -> u64 {
        self.stale_count
    }

    /// Results given up: sent often enough, and no acknowledgement can be relied on.
    pub fn unacknowledged_count(&self) -> u64 {
        self.unacknowledged_count
    }

    /// Takes a message that came from a manager. Tells whether it is one that managers send.
    pub fn receive(&mut self, message: Message, codec: Codec, now: Timestamp) -> bool {
        match message {
            Message::Hello(hello) => self.receive_hello(&hello, codec, now),
            Message::Dispatch(dispatch) => self.receive_dispatch(dispatch, codec, now),
            Message::Ack(ack) => self.receive_ack(&ack, codec, now),
            Message::Recall(recall) => self.receive_recall(&recall, codec, now),
            Message::Cancel(cancel) => self.receive_cancel(&cancel, codec, now),
            Message::Drain(drain) => {
                if self.hear(&drain.head, codec, now).is_some() {
                    self.effects.drain = true;
                }
            }
            _ => return false,
        }
        true
    }

    fn receive_dispatch(&mut self, dispatch: Dispatch, codec: Codec, now: Timestamp) {
        let is_overtaken = self.is_overtaken(&dispatch.head);
        let Some(index) = self.hear(&dispatch.head, codec, now) else {
            return;
        };
        // A hello comes first on each connection. What comes before it was sent to a worker
        // that had this address before, and may have begun there.
        let is_unheralded =
            !self.profile.shared_address && !self.managers[usize::from(index)].greeted;
        if is_unheralded || is_overtaken {
            self.stale_count += 1;
            return;
        }
        let is_for_another = dispatch
            .worker
            .is_some_and(|worker| worker != self.profile.worker);
        if is_for_another && !self.profile.shared_address {
            self.stale_count += 1;
            return;
        }
        let mut refused: BTreeMap<u8, (HandBackReason, Vec<HandedBack>)> = BTreeMap::new();
        for work in dispatch.jobs {
            let key = Key {
                manager: index,
                attempt: work.attempt,
            };
            if self.held.contains_key(&key) {
                continue;
            }
            if let Some(reason) = self.refusal(index, &work) {
                let order = reason as u8;
                let handed = HandedBack {
                    attempt: work.attempt,
                    job: work.job,
                    phase: work.phase,
                };
                let list = refused.entry(order).or_insert((reason, Vec::new()));
                list.1.push(handed);
                continue;
            }
            self.load.queued += 1;
            self.queued_bytes += work.instructions.len();
            let manager = &mut self.managers[usize::from(index)];
            manager.held += 1;
            manager.gave_work = true;
            let entry = Entry {
                job: work.job.clone(),
                phase: work.phase,
                state: State::Queued(Box::new((dispatch.pipeline.clone(), work))),
            };
            self.held.insert(key, entry);
            self.queue.push_back(key);
            if self.queue.len() > 2 * self.load.queued + STALE_KEYS_MAX {
                self.sweep_queue();
            }
            self.effects.start += 1;
        }
        for (reason, attempts) in refused.into_values() {
            self.hand_back(index, reason, attempts);
        }
    }

    /// Drops the keys of attempts that were recalled or cancelled before they started.
    fn sweep_queue(&mut self) {
        let held = &self.held;
        let queued = |key: &Key| matches!(held.get(key), Some(entry) if matches!(entry.state, State::Queued(_)));
        self.queue.retain(queued);
    }

    fn refusal(&self, index: u8, work: &DispatchedJob) -> Option<HandBackReason> {
        // A heartbeat lists all that is held for a manager, and a list is limited.
        let held = self.managers[usize::from(index)].held;
        let full = self.load.queued >= QUEUE_MAX
            || self.held.len() >= HELD_MAX
            || held >= self.profile.limits.batch_jobs_max
            || self.queued_bytes > 0
                && self.queued_bytes + work.instructions.len() > QUEUE_BYTES_MAX;
        if work.job_type != self.profile.job_type {
            Some(HandBackReason::UnknownJobType)
        } else if self.state == WorkerState::Draining {
            Some(HandBackReason::Draining)
        } else if full {
            Some(HandBackReason::Full)
        } else {
            None
        }
    }

    fn receive_ack(&mut self, ack: &Ack, codec: Codec, now: Timestamp) {
        let Some(index) = self.hear(&ack.head, codec, now) else {
            return;
        };
        let mut known = false;
        let was_full = self.is_full();
        for &attempt in &ack.attempts {
            let key = Key {
                manager: index,
                attempt,
            };
            if matches!(self.held.get(&key), Some(entry) if matches!(entry.state, State::Done(_))) {
                known = true;
                self.forget(key);
            }
        }
        if known && usize::from(ack.route) < self.profile.routes {
            self.managers[usize::from(index)].route = Some(ack.route);
        }
        self.start_after(was_full);
        self.effects.settled = true;
    }

    fn receive_recall(&mut self, recall: &Recall, codec: Codec, now: Timestamp) {
        let Some(index) = self.hear(&recall.head, codec, now) else {
            return;
        };
        let mut attempts = Vec::new();
        for &attempt in &recall.attempts {
            let key = Key {
                manager: index,
                attempt,
            };
            attempts.extend(self.unqueue(key));
        }
        self.hand_back(index, HandBackReason::Recalled, attempts);
    }

    fn receive_cancel(&mut self, cancel: &Cancel, codec: Codec, now: Timestamp) {
        let Some(index) = self.hear(&cancel.head, codec, now) else {
            return;
        };
        for &attempt in &cancel.attempts {
            let key = Key {
                manager: index,
                attempt,
            };
            match self.held.get(&key).map(|entry| &entry.state) {
                Some(State::Running { .. }) => self.effects.cancel.push(key),
                Some(State::Queued(_)) => {
                    let finished = Finished {
                        outcome: Outcome::Failure {
                            kind: FailureKind::Cancelled,
                            error: ErrorReport {
                                message: "cancelled before it started".to_owned(),
                                detail: String::new(),
                            },
                            retry: false,
                        },
                        instructions: Bytes::new(),
                        started_at: now,
                    };
                    self.finish(key, finished, now);
                }
                Some(State::Done(_)) | None => {}
            }
        }
    }

    /// Takes a queued attempt out, to hand it back.
    fn unqueue(&mut self, key: Key) -> Option<HandedBack> {
        let entry = self.held.get(&key)?;
        let State::Queued(_) = &entry.state else {
            return None;
        };
        let handed = HandedBack {
            attempt: key.attempt,
            job: entry.job.clone(),
            phase: entry.phase,
        };
        if !mutation::is(Mutation::RunHandedBack) {
            self.forget(key);
        }
        Some(handed)
    }

    fn forget(&mut self, key: Key) {
        let Some(entry) = self.held.remove(&key) else {
            return;
        };
        self.managers[usize::from(key.manager)].held -= 1;
        match entry.state {
            State::Queued(work) => {
                self.load.queued -= 1;
                self.queued_bytes -= work.1.instructions.len();
            }
            State::Running { deadline } => {
                self.load.running -= 1;
                if let Some(deadline) = deadline {
                    self.deadlines.remove(&(deadline, key));
                }
            }
            State::Done(done) => {
                self.load.done -= 1;
                self.done_bytes -= result_bytes(&done.result);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.done_bytes > DONE_BYTES_MAX
    }

    /// Attempts that waited because too many results were kept may start now.
    fn start_after(&mut self, was_full: bool) {
        if was_full && !self.is_full() {
            self.effects.start += self.load.queued;
        }
    }

    /// Takes the next attempt to run, unless too many results wait for their acknowledgement.
    pub fn start_next(&mut self, now: Timestamp) -> Option<Started> {
        if self.is_full() {
            return None;
        }
        while let Some(key) = self.queue.pop_front() {
            let Some(entry) = self.held.get_mut(&key) else {
                continue;
            };
            if !matches!(entry.state, State::Queued(_)) {
                continue;
            }
            let running = State::Running { deadline: None };
            let State::Queued(queued) = std::mem::replace(&mut entry.state, running) else {
                continue;
            };
            let (pipeline, work) = *queued;
            self.load.queued -= 1;
            self.queued_bytes -= work.instructions.len();
            self.load.running += 1;
            let dispatched = (work.timeout_ms > 0).then(|| Duration::from_millis(work.timeout_ms));
            if let Some(timeout) = self.profile.timeout.or(dispatched) {
                let deadline = now + timeout;
                entry.state = State::Running {
                    deadline: Some(deadline),
                };
                self.deadlines.insert((deadline, key));
                self.effects.deadline |= deadline < self.looks_at;
            }
            return Some(Started {
                key,
                pipeline,
                work,
            });
        }
        None
    }

    /// Takes the end of an attempt. One that was already reported (as timed out) or
    /// handed back is ignored.
    pub fn finish(&mut self, key: Key, finished: Finished, now: Timestamp) {
        self.effects.settled = true;
        let Some(entry) = self.held.get_mut(&key) else {
            return;
        };
        let result = AttemptResult {
            attempt: key.attempt,
            job: entry.job.clone(),
            phase: entry.phase,
            started_at: finished.started_at,
            finished_at: now,
            outcome: finished.outcome,
            instructions: finished.instructions,
        };
        match &entry.state {
            State::Queued(work) => {
                self.load.queued -= 1;
                self.queued_bytes -= work.1.instructions.len();
            }
            State::Running { deadline } => {
                self.load.running -= 1;
                if let Some(deadline) = deadline {
                    self.deadlines.remove(&(*deadline, key));
                }
            }
            State::Done(_) => return,
        }
        match result.outcome {
            Outcome::Success => self.success_count += 1,
            Outcome::Failure { .. } => self.failed_count += 1,
        }
        self.load.done += 1;
        self.done_bytes += result_bytes(&result);
        entry.state = State::Done(Box::new(Done {
            result,
            queued_on: 0,
            sent_at: None,
            sends: 0,
        }));
        self.enqueue_result(key);
    }

    /// Running attempts whose time is over. The shell stops them and reports their end.
    pub fn expired(&mut self, now: Timestamp, looks_again_at: Timestamp) -> Vec<Key> {
        let mut expired = Vec::new();
        while let Some(&(deadline, key)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(Entry {
                state: State::Running { deadline },
                ..
            }) = self.held.get_mut(&key)
            {
                *deadline = None;
                expired.push(key);
            }
        }
        self.looks_at = self
            .deadlines
            .first()
            .map_or(looks_again_at, |&(deadline, _)| {
                deadline.min(looks_again_at)
            });
        expired
    }

    /// When to look at the deadlines next, as the last call of [`expired`](Self::expired) found.
    pub fn looks_at(&self) -> Timestamp {
        self.looks_at
    }

    /// Takes no more work and hands back what has not started.
    pub fn drain(&mut self) {
        if self.state == WorkerState::Draining {
            return;
        }
        self.state = WorkerState::Draining;
        self.effects.heartbeat = true;
        self.effects.settled = true;
        self.hand_back_all(HandBackReason::Draining, |state| {
            matches!(state, State::Queued(_))
        });
        self.queue.clear();
    }

    fn hand_back_all(&mut self, reason: HandBackReason, which: fn(&State) -> bool) {
        let mut lists: BTreeMap<u8, Vec<HandedBack>> = BTreeMap::new();
        let mut keys = Vec::new();
        for (key, entry) in self.held.iter().filter(|(_, entry)| which(&entry.state)) {
            keys.push(*key);
            lists.entry(key.manager).or_default().push(HandedBack {
                attempt: key.attempt,
                job: entry.job.clone(),
                phase: entry.phase,
            });
        }
        for key in keys {
            self.forget(key);
        }
        for (manager, attempts) in lists {
            self.hand_back(manager, reason, attempts);
        }
    }

    /// What is held, for a heartbeat.
    pub fn held(&self) -> Vec<HeldFor> {
        let mut lists: Vec<HeldFor> = self
            .managers
            .iter()
            .map(|manager| HeldFor {
                manager: manager.id,
                epoch: manager.epoch,
                sequence: manager.sequence,
                held: Vec::with_capacity(manager.held),
            })
            .collect();
        if mutation::is(Mutation::EmptyHeartbeat) {
            return lists;
        }
        for (key, entry) in &self.held {
            lists[usize::from(key.manager)].held.push(Held {
                attempt: key.attempt,
                job: entry.job.clone(),
                phase: entry.phase,
                state: match entry.state {
                    State::Queued(_) => HeldState::Queued,
                    State::Running { .. } => HeldState::Running,
                    State::Done(_) => HeldState::Done,
                },
            });
        }
        self.list_abandoned(&mut lists);
        self.list_rivals(&mut lists);
        lists
    }

    /// How often a heartbeat is due: several times within the shortest patience.
    pub fn heartbeat_interval(&self) -> Duration {
        let patience = self.managers.iter().filter_map(|m| m.timeout).min();
        patience.map_or(HEARTBEAT, |patience| {
            (patience / 4).clamp(HEARTBEAT_MIN, HEARTBEAT)
        })
    }

    /// The codec for what goes to everyone: JSON as soon as one manager speaks it.
    pub fn codec(&self) -> Codec {
        let json = self.managers.iter().any(|m| m.codec == Codec::Json);
        if json { Codec::Json } else { Codec::Bincode }
    }
}

fn report_size(result: &AttemptResult) -> usize {
    match &result.outcome {
        Outcome::Success => 0,
        Outcome::Failure { error, .. } => error.message.len() + error.detail.len(),
    }
}

fn result_bytes(result: &AttemptResult) -> usize {
    result.instructions.len() + report_size(result)
}
