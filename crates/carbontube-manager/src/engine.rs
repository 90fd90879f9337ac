//! The core's thread: inputs in batches, group commits, and effects in their turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender as StdSender;
use std::time::Instant;

use async_channel::Sender;
use carbontube_protocol::message::{Answer, Message};
use carbontube_storage as storage;

use crate::clock::Clock;
use crate::core::{ClientId, Commit, CommitId, Core, Effect, Input, RecordSeq};
use crate::error::RunError;
use crate::gate::Gate;
use crate::keeper::{Keeper, Task};
use crate::options::ManagerAddresses;
use crate::pipes::Pipes;
use crate::publisher::Publisher;
use crate::queue::{InputQueue, Taken};
use crate::tally::Tally;
use crate::watchdog::Beat;

/// How many commits may be under way. The second is put together while the first is
/// synced; more would only make each smaller.
const COMMITS_MAX: usize = 2;

/// Everything that the core's thread owns.
pub(crate) struct Engine {
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) queue: Arc<InputQueue>,
    pub(crate) keeper: Keeper,
    pub(crate) pipes: Pipes,
    pub(crate) answers: Sender<(ClientId, Message)>,
    pub(crate) publisher: Publisher,
    pub(crate) tally: Arc<Tally>,
    pub(crate) addresses: ManagerAddresses,
    pub(crate) place: String,
    pub(crate) beat: Arc<Beat>,
}

/// What is left of an engine that ended in order.
pub(crate) struct Ended {
    pub(crate) keeper: Keeper,
    pub(crate) pipes: Pipes,
}

impl Engine {
    /// Runs until the queue is closed or the core says that all is done.
    ///
    /// The loop: take a batch, let the core handle it, let it dispatch, hand what it
    /// decided to the store, carry out what is durable. One owner, no locks; its price is
    /// that the core's work is bounded by one thread.
    pub(crate) fn run(mut self) -> Ended {
        let mut gate = Gate::default();
        let mut commits: Vec<(CommitId, RecordSeq)> = Vec::new();
        let mut batch = Vec::new();
        let mut stopping = false;
        self.turn(&mut gate, &mut commits, &mut stopping);
        while !stopping {
            let deadline = self.core.next_timeout();
            let deadline = deadline.and_then(|at| self.clock.instant(at));
            if self.queue.take(&mut batch, deadline) == Taken::Closed {
                break;
            }
            self.beat.begin();
            let now = self.clock.now();
            for input in batch.drain(..) {
                let committed = match &input {
                    Input::Committed { commit } => Some(*commit),
                    _ => None,
                };
                self.core.handle(input, now);
                // The store's thread answers commits in order.
                if let Some(id) = committed
                    && let Some(at) = commits.iter().position(|(other, _)| *other == id)
                {
                    gate.advance(commits[at].1);
                    commits.drain(..=at);
                    while let Some(effect) = gate.release() {
                        self.carry_out(effect, &mut stopping);
                    }
                }
            }
            // After the inputs: a late heartbeat that is here already shall count.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.core.handle(Input::Tick, now);
            }
            self.turn(&mut gate, &mut commits, &mut stopping);
            self.beat.end();
        }
        Ended {
            keeper: self.keeper,
            pipes: self.pipes,
        }
    }

    fn turn(
        &mut self,
        gate: &mut Gate,
        commits: &mut Vec<(CommitId, RecordSeq)>,
        stopping: &mut bool,
    ) {
        let now = self.clock.now();
        self.publisher.look();
        self.core.dispatch(now);
        if commits.len() < COMMITS_MAX
            && let Some(commit) = self.core.take_commit(now)
        {
            commits.push((commit.id, commit.through));
            let id = commit.id;
            self.keeper.ask(Task::Commit(id, stored(commit)));
        }
        while let Some(gated) = self.core.poll_effect() {
            if let Some(effect) = gate.admit(gated) {
                self.carry_out(effect, stopping);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, stopping: &mut bool) {
        match effect {
            Effect::ToClient {
                client,
                mut message,
            } => {
                self.complete(&mut message);
                // Bounded by what each client may have unanswered or wait for.
                if self.answers.try_send((client, message)).is_err() {
                    self.tally.answers_dropped.bump();
                }
            }
            Effect::ToPipe { pipe, message } => self.pipes.send(pipe, message),
            Effect::ToOriginalPipe { pipe, frame } => self.pipes.send_frame(pipe, frame),
            Effect::OpenPipe { pipe, address } => self.pipes.open(pipe, address),
            Effect::ClosePipe { pipe } => self.pipes.close(pipe),
            Effect::ReadPage { log, page } => self.keeper.ask(Task::Read(log, page)),
            Effect::Publish(event) => self.publisher.publish(event),
            Effect::Stop => *stopping = true,
        }
    }

    /// Adds to an answer what only the shell knows.
    fn complete(&self, message: &mut Message) {
        let Message::Answer(answer) = message else {
            return;
        };
        match &mut answer.answer {
            Answer::Info(info) => {
                info.pull.clone_from(&self.addresses.pull);
                info.subscribe.clone_from(&self.addresses.subscribe);
                info.publish.clone_from(&self.addresses.publish);
                info.storage.clone_from(&self.place);
            }
            Answer::Stats(stats) => {
                let shared = self.keeper.shared();
                stats.journal.disk_bytes = shared.disk_bytes.load(Ordering::Relaxed);
                stats.counters.extend(self.tally.counters());
                self.keeper.ask(Task::Measure);
            }
            _ => {}
        }
    }
}

fn stored(commit: Commit) -> storage::Commit {
    let mut stored = storage::Commit::new();
    for (log, page, bytes) in commit.put {
        stored.put(log, page, bytes.into());
    }
    stored.truncate_before(storage::Log::Journal, commit.journal_from);
    stored.truncate_before(storage::Log::History, commit.history_from);
    stored
}

/// Runs an engine on the thread of its own; a panic ends the manager with an error.
pub(crate) fn spawn(
    engine: Engine,
    fatal: StdSender<RunError>,
    ended: Sender<Option<Box<Ended>>>,
) -> std::io::Result<()> {
    let queue = engine.queue.clone();
    std::thread::Builder::new()
        .name("core".to_owned())
        .spawn(move || {
            let run = std::panic::AssertUnwindSafe(|| engine.run());
            let result = match std::panic::catch_unwind(run) {
                Ok(result) => Some(Box::new(result)),
                Err(_) => {
                    let _ = fatal.send(RunError::Panicked { name: "core" });
                    None
                }
            };
            queue.close();
            let _ = ended.try_send(result);
        })?;
    Ok(())
}
