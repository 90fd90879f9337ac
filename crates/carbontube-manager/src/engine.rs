//! The core's thread: inputs in batches, group commits, and effects in their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender as StdSender;
use std::time::{Duration, Instant};

use async_channel::Sender;
use carbontube_protocol::WorkerId;
use carbontube_protocol::message::{Answer, EndedJob, Message};
use carbontube_storage as storage;

use crate::api::Clients;
use crate::clock::Clock;
use crate::core::{ClientId, Commit, Effect, Input, Rank};
use crate::error::RunError;
use crate::keeper::{Keeper, Task};
use crate::options::ManagerAddresses;
use crate::pipes::Pipes;
use crate::publisher::Publisher;
use crate::queue::{InputQueue, Taken};
use crate::recent::Record;
use crate::round::{Outside, Round};
use crate::tally::Tally;
use crate::watchdog::Beat;

/// Questions get one part in so many of the core's time.
const QUESTIONS_SHARE: u32 = 4;
/// The most answers to questions that may wait to be written down for the network.
const VIEWS_MAX: usize = 4;
/// The pause of questions while so many wait.
const VIEWS_PAUSE: Duration = Duration::from_millis(2);
/// No more is told to those who wait for jobs while so many bytes of it wait for the network.
const TOLD_BYTES_MAX: usize = 32 << 20;
/// The store is asked no more often how much room it takes.
const MEASURE_PAUSE: Duration = Duration::from_millis(200);

/// Everything that the core's thread owns.
pub(crate) struct Engine {
    pub(crate) round: Round,
    pub(crate) clock: Clock,
    pub(crate) queue: Arc<InputQueue>,
    pub(crate) beat: Arc<Beat>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) surroundings: Surroundings,
}

/// What the core's thread acts on.
pub(crate) struct Surroundings {
    pub(crate) keeper: Keeper,
    pub(crate) queue: Arc<InputQueue>,
    pub(crate) pipes: Pipes,
    pub(crate) answers: Sender<(ClientId, Message)>,
    /// How many of them are answers to questions, which may be large.
    pub(crate) views: Arc<AtomicUsize>,
    /// How many bytes of them are for those who wait for jobs.
    pub(crate) told: Arc<AtomicUsize>,
    pub(crate) publisher: Publisher,
    pub(crate) tally: Arc<Tally>,
    pub(crate) addresses: ManagerAddresses,
    pub(crate) place: String,
    pub(crate) record: Record,
    /// When the store was last asked how much room it takes.
    pub(crate) measured: Option<Instant>,
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
        let mut batch = Vec::new();
        let mut questions_from = Instant::now();
        self.turn();
        while !self.round.is_stopping() {
            let deadline = self.round.core().next_timeout();
            let deadline = deadline.and_then(|at| self.clock.instant(at));
            if self.surroundings.views.load(Ordering::Relaxed) >= VIEWS_MAX {
                questions_from = questions_from.max(Instant::now() + VIEWS_PAUSE);
            }
            if self.queue.take(&mut batch, deadline, questions_from) == Taken::Closed {
                break;
            }
            self.beat.begin();
            let now = self.clock.now();
            for input in batch.drain(..) {
                let asked = matches!(input, Input::Query { .. }).then(Instant::now);
                let waiting = match &input {
                    Input::Wait { client, .. } => {
                        Some((*client, self.round.core().waits_refused()))
                    }
                    _ => None,
                };
                self.round.handle(input, now, &mut self.surroundings);
                // A refusal counts itself as the answer; those who wait are told later.
                if let Some((client, refused)) = waiting
                    && self.round.core().waits_refused() == refused
                {
                    self.clients.taken(client);
                }
                if let Some(asked) = asked {
                    questions_from = Instant::now() + asked.elapsed() * (QUESTIONS_SHARE - 1);
                }
            }
            // After the inputs: a late heartbeat that is here already shall count.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.round.handle(Input::Tick, now, &mut self.surroundings);
            }
            self.turn();
            self.beat.end();
        }
        Ended {
            keeper: self.surroundings.keeper,
            pipes: self.surroundings.pipes,
        }
    }

    fn turn(&mut self) {
        self.surroundings.publisher.look();
        let told = self.surroundings.told.load(Ordering::Relaxed);
        self.round.hold_waits(told >= TOLD_BYTES_MAX);
        self.round.turn(self.clock.now(), &mut self.surroundings);
    }
}

impl Outside for Surroundings {
    fn commit(&mut self, commit: Commit) {
        let id = commit.id;
        self.keeper.ask(Task::Commit(id, stored(commit)));
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::ToClient {
                client,
                mut message,
            } => {
                self.complete(&mut message);
                let is_view = matches!(message, Message::Answer(_));
                self.views
                    .fetch_add(usize::from(is_view), Ordering::Relaxed);
                let told = told_bytes(&message);
                self.told.fetch_add(told, Ordering::Relaxed);
                // Bounded by what each client may have unanswered or wait for.
                if self.answers.try_send((client, message)).is_err() {
                    self.views
                        .fetch_sub(usize::from(is_view), Ordering::Relaxed);
                    self.told.fetch_sub(told, Ordering::Relaxed);
                    self.tally.answers_dropped.bump();
                }
            }
            Effect::ToPipe { pipe, message } => self.pipes.send(pipe, message),
            Effect::ToOriginalPipe { pipe, frame } => self.pipes.send_frame(pipe, frame),
            Effect::OpenPipe {
                pipe,
                address,
                codec,
            } => self.pipes.open(pipe, address, codec),
            Effect::ClosePipe { pipe } => self.pipes.close(pipe),
            Effect::ReadPage { log, page } => self.keeper.ask(Task::Read(log, page)),
            Effect::Publish(event) => {
                self.record.keep(&event);
                self.publisher.publish(event);
            }
            Effect::Warn(text) => log::warn!("{text}"),
            // The round ends; there is nothing to do about it here.
            Effect::Stop => {}
        }
    }

    fn rank(&mut self, worker: WorkerId, rank: Rank) {
        if let Rank::Trusted(_, pipe) = &rank {
            self.pipes.trust(*pipe);
        }
        self.queue.rank(worker, &rank);
    }
}

impl Surroundings {
    /// Adds to an answer what only the shell knows.
    fn complete(&mut self, message: &mut Message) {
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
            Answer::Recent(recent) => *recent = self.record.read(recent.next.unwrap_or(0)),
            Answer::Stats(stats) => {
                let shared = self.keeper.shared();
                stats.journal.disk_bytes = shared.disk_bytes.load(Ordering::Relaxed);
                self.tally.note_dials(self.pipes.dials());
                stats.counters.extend(self.tally.counters());
                // Commits do not wait for whoever asks for figures without end.
                if self.measured.is_none_or(|at| at.elapsed() >= MEASURE_PAUSE) {
                    self.measured = Some(Instant::now());
                    self.keeper.ask(Task::Measure);
                }
            }
            _ => {}
        }
    }
}

/// How much an answer holds on to that tells of ended jobs.
pub(crate) fn told_bytes(message: &Message) -> usize {
    let Message::Ended(ended) = message else {
        return 0;
    };
    let error = |job: &EndedJob| {
        let error = job.error.as_ref();
        error.map_or(0, |error| error.message.len() + error.detail.len())
    };
    let jobs = ended.jobs.iter();
    jobs.map(|job| job.result.len() + error(job) + 256).sum()
}

/// A commit as stores take it.
pub(crate) fn stored(commit: Commit) -> storage::Commit {
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
