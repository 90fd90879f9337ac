//! The manager's process: the real round over the real store, with a shell of the
//! simulator's own that does in virtual time what the threads and sockets do.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use carbontube_manager::StartError;
use carbontube_manager::core::{
    ClientId, Commit, CommitId, Core, Effect, Input, PipeId, RecordSeq,
};
use carbontube_manager::testing::{
    Outside, Persistence, Round, Step, WorkerCodecs, read, read_event, read_pulled, read_request,
    recover, stored,
};
use carbontube_protocol::message::{Event, Message};
use carbontube_protocol::{Address, Codec, Header, ManagerId, Timestamp, encode};
use carbontube_storage::{Commit as StoredCommit, Log, PageSeq, Store};

use crate::context::Context;
use crate::disk::{Interrupt, VirtualDisk};
use crate::network::{Arrived, Frames, LinkChange, LinkId, LinkKind, NodeId, Notice, Port, Sent};

const ME: NodeId = NodeId::Manager;
/// The most inputs of peers in one round, as the shell's queue gives them.
const BATCH_INPUTS_MAX: usize = 128;
/// How often the shell looks which clients are gone.
const SWEEP: Duration = Duration::from_secs(1);

/// What the manager is woken for.
mod token {
    pub(super) const ROUND: u64 = 0;
    pub(super) const TIMER: u64 = 1;
    pub(super) const STORE: u64 = 2;
    pub(super) const SWEEP: u64 = 3;
}

/// The manager, running or not, and its disk.
#[derive(Debug)]
pub struct ManagerNode {
    process: Option<Process>,
    disk: VirtualDisk,
    life: u64,
    acts: u64,
    clock_offset: i64,
    released: Vec<Effect>,
    committed: bool,
    started: bool,
    synced: RecordSeq,
    failed: Option<String>,
}

#[derive(Debug)]
struct Process {
    round: Round,
    /// The timer that the core waits for.
    timer: Option<Timestamp>,
    round_due: bool,
    clock_offset: i64,
    hands: Hands,
}

/// What effects act on.
struct Hands {
    life: u64,
    store: Box<dyn Store>,
    tasks: VecDeque<Task>,
    /// The store's thread is at the front task.
    busy: bool,
    /// Why the process has to end, if it has to.
    failed: Option<String>,
    urgent: VecDeque<Input>,
    inputs: VecDeque<Input>,
    clients: BTreeMap<LinkId, Client>,
    by_client: BTreeMap<ClientId, LinkId>,
    last_client: u64,
    /// Clients whose connections are gone, which nobody has noticed yet.
    gone: Vec<ClientId>,
    pipes: BTreeMap<PipeId, Pipe>,
    by_link: BTreeMap<LinkId, PipeId>,
    codecs: WorkerCodecs,
    through: BTreeMap<CommitId, RecordSeq>,
    synced: RecordSeq,
    released: Vec<Effect>,
    committed: bool,
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands")
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

enum Task {
    Commit(CommitId, StoredCommit, Persistence),
    Read(Log, PageSeq),
}

struct Client {
    id: ClientId,
    codec: Codec,
}

struct Pipe {
    link: LinkId,
    address: Address,
    up: bool,
    waiting: VecDeque<Frames>,
}

/// Hands at work.
struct Acting<'a> {
    hands: &'a mut Hands,
    context: &'a mut Context,
}

impl Outside for Acting<'_> {
    fn commit(&mut self, commit: Commit) {
        let id = commit.id;
        self.hands.through.insert(id, commit.through);
        self.hands
            .tasks
            .push_back(Task::Commit(id, stored(commit), Persistence::default()));
        self.hands.begin_task(self.context);
    }

    fn carry_out(&mut self, effect: Effect) {
        self.hands.released.push(effect.clone());
        match effect {
            Effect::ToClient { client, message } => {
                self.hands.answer(client, &message, self.context)
            }
            Effect::ToPipe { pipe, message } => {
                let Some(found) = self.hands.pipes.get(&pipe) else {
                    return;
                };
                let codec = self.hands.codecs.of(&found.address);
                let note = format!("to {}: {}", found.address, brief(&message));
                self.context.note(ME, format_args!("{note}"));
                self.hands.pass(pipe, encode(&message, codec), self.context);
            }
            Effect::ToOriginalPipe { pipe, frame } => {
                self.hands.pass(pipe, vec![frame], self.context);
            }
            Effect::OpenPipe { pipe, address, .. } => {
                let port = Port::at(&address);
                let link = self.context.open_link(ME, port, LinkKind::Waits);
                self.context
                    .note(ME, format_args!("opens pipe {} to {address}", pipe.0));
                self.hands.by_link.insert(link, pipe);
                self.hands.pipes.insert(
                    pipe,
                    Pipe {
                        link,
                        address,
                        up: false,
                        waiting: VecDeque::new(),
                    },
                );
            }
            Effect::ClosePipe { pipe } => {
                self.context
                    .note(ME, format_args!("closes pipe {}", pipe.0));
                self.hands.close_pipe(pipe, self.context);
            }
            Effect::ReadPage { log, page } => {
                self.hands.tasks.push_back(Task::Read(log, page));
                self.hands.begin_task(self.context);
            }
            Effect::Publish(Event { kind, .. }) => {
                self.context.counts.bump("events published");
                self.context.note(ME, format_args!("event {kind:?}"));
            }
            Effect::Warn(text) => self.context.note(ME, format_args!("warns: {text}")),
            Effect::Stop => self.context.note(ME, format_args!("is done and goes")),
        }
    }
}

impl Hands {
    fn begin_task(&mut self, context: &mut Context) {
        let Some(task) = self.tasks.front().filter(|_| !self.busy) else {
            return;
        };
        self.busy = true;
        let (least, most) = match task {
            Task::Commit(..) => context.parameters.manager.sync,
            Task::Read(..) => context.parameters.manager.read,
        };
        let at = context.now + context.duration(least, most);
        context.wake(ME, self.life, at, token::STORE);
    }

    /// The store's thread does its front task, or tries it again.
    fn store_step(&mut self, context: &mut Context) {
        match self.tasks.pop_front() {
            None => {}
            Some(Task::Read(log, page)) => {
                let bytes = read(self.store.as_mut(), log, page);
                context.note(ME, format_args!("has read page {page} of the {log}"));
                self.urgent.push_back(Input::PageRead { log, page, bytes });
            }
            Some(Task::Commit(id, commit, mut persistence)) => {
                let mut told = Vec::new();
                let step =
                    persistence.step(self.store.as_mut(), &commit, &mut |news| told.push(news));
                for news in told {
                    context.counts.bump("commits that failed");
                    context.note(ME, format_args!("cannot commit {}: {:?}", id.0, news.fault));
                    let fault = news.fault;
                    self.urgent
                        .push_back(Input::CommitFailed { commit: id, fault });
                }
                match step {
                    Step::Durable => {
                        context.note(ME, format_args!("has committed {}", id.0));
                        self.committed = true;
                        self.synced = self.through.remove(&id).unwrap_or(self.synced);
                        self.urgent.push_back(Input::Committed { commit: id });
                    }
                    Step::Wait(pause) => {
                        self.tasks.push_front(Task::Commit(id, commit, persistence));
                        let at = context.now + pause;
                        context.wake(ME, self.life, at, token::STORE);
                        return;
                    }
                    Step::End(error) => {
                        self.failed = Some(format!("{error:?}"));
                        return;
                    }
                }
            }
        }
        self.busy = false;
        self.begin_task(context);
    }

    fn answer(&mut self, client: ClientId, message: &Message, context: &mut Context) {
        let Some(link) = self.by_client.get(&client) else {
            return;
        };
        let Some(found) = self.clients.get(link) else {
            return;
        };
        let note = format!("to client {}: {}", client.0, brief(message));
        context.note(ME, format_args!("{note}"));
        if !context.answer(*link, encode(message, found.codec)) {
            context.counts.bump("answers dropped");
        }
    }

    fn pass(&mut self, pipe: PipeId, frames: Frames, context: &mut Context) {
        let most = context.parameters.manager.pipe_waiting_max;
        let Some(found) = self.pipes.get_mut(&pipe) else {
            return;
        };
        if found.waiting.len() >= most {
            let what = "fault: a pipe dropped a message over its bound";
            context.counts.bump(what);
            context.note_late(found.link);
            return;
        }
        found.waiting.push_back(frames);
        self.pump(pipe, context);
    }

    /// The pipe's task: gives its socket what waits; what meets no connection is dropped.
    fn pump(&mut self, pipe: PipeId, context: &mut Context) {
        let Some(found) = self.pipes.get_mut(&pipe) else {
            return;
        };
        while let Some(frames) = found.waiting.front() {
            match context.send(found.link, frames.clone()) {
                Sent::Full => return,
                Sent::Accepted => {}
                Sent::Disconnected => context.counts.bump("pipe messages without a connection"),
            }
            found.waiting.pop_front();
        }
    }

    fn close_pipe(&mut self, pipe: PipeId, context: &mut Context) {
        self.pump(pipe, context);
        if let Some(found) = self.pipes.remove(&pipe) {
            self.by_link.remove(&found.link);
            context.close_link(found.link, true);
        }
    }
}

impl ManagerNode {
    /// A manager that was never started, over an empty disk.
    pub fn new(disk: VirtualDisk) -> ManagerNode {
        ManagerNode {
            process: None,
            disk,
            life: 0,
            acts: 0,
            clock_offset: 0,
            released: Vec::new(),
            committed: false,
            started: false,
            synced: RecordSeq(0),
            failed: None,
        }
    }

    /// Why a process had to end by itself, if one had to.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The disk beneath.
    pub fn disk(&self) -> &VirtualDisk {
        &self.disk
    }

    /// Whether there is a process.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The core of the running process.
    pub fn core(&self) -> Option<&Core> {
        self.process.as_ref().map(|process| process.round.core())
    }

    /// The process's number, counted from 1.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Up to which record of this process, or of the last one, the disk really has everything.
    pub fn synced(&self) -> RecordSeq {
        self.synced
    }

    /// What was let out since the last call of [`clear_step`](ManagerNode::clear_step).
    pub fn released(&self) -> &[Effect] {
        &self.released
    }

    /// Whether a commit became durable, and whether the manager was started, since then.
    pub fn marks(&self) -> (bool, bool) {
        (self.committed, self.started)
    }

    /// Begins a new step.
    pub fn clear_step(&mut self) {
        self.released.clear();
        self.committed = false;
        self.started = false;
    }

    /// How often a process did anything.
    pub fn acts(&self) -> u64 {
        self.acts
    }

    /// Whether nothing waits to be handled or stored.
    pub fn is_idle(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let hands = &process.hands;
            hands.tasks.is_empty() && hands.urgent.is_empty() && hands.inputs.is_empty()
        })
    }

    /// The clock of this process at a moment of the world.
    pub fn clock(&self, now: Timestamp) -> Timestamp {
        local(now, self.clock_offset)
    }

    /// Starts a process on what the disk holds; an error leaves none.
    pub fn start(&mut self, context: &mut Context) -> Result<(), StartError> {
        self.life += 1;
        let jump = context.parameters.manager.clock_jump.as_micros() as i64;
        if jump > 0 && self.life > 1 && !context.healed {
            let to = context.random.i64(-jump..=jump);
            if to != self.clock_offset {
                context.counts.bump("fault: the manager's clock jumped");
            }
            self.clock_offset = to;
        }
        let mut store: Box<dyn Store> = match self.disk.open() {
            Ok(store) => Box::new(store),
            Err(source) => return Err(StartError::Journal { source }),
        };
        let fresh = ManagerId::from_bytes(context.random.u128(..).to_be_bytes());
        let seed = context.random.u64(..);
        let core = recover(
            store.as_mut(),
            context.parameters.definition.clone(),
            context.parameters.core.clone(),
            local(context.now, self.clock_offset),
            fresh,
            seed,
        )?;
        context.counts.bump("manager starts");
        context.note(
            ME,
            format_args!(
                "starts: epoch {}, {} live jobs",
                core.epoch(),
                core.live_jobs().count()
            ),
        );
        let hands = Hands {
            life: self.life,
            store,
            tasks: VecDeque::new(),
            busy: false,
            failed: None,
            urgent: VecDeque::new(),
            inputs: VecDeque::new(),
            clients: BTreeMap::new(),
            by_client: BTreeMap::new(),
            last_client: 0,
            gone: Vec::new(),
            pipes: BTreeMap::new(),
            by_link: BTreeMap::new(),
            codecs: WorkerCodecs::default(),
            through: BTreeMap::new(),
            synced: RecordSeq(0),
            released: Vec::new(),
            committed: false,
        };
        self.process = Some(Process {
            round: Round::new(core),
            timer: None,
            round_due: false,
            clock_offset: self.clock_offset,
            hands,
        });
        self.started = true;
        self.synced = RecordSeq(0);
        for port in [Port::Pull, Port::Subscribe, Port::Api] {
            context.network.bind(port);
        }
        let at = context.now + SWEEP;
        context.wake(ME, self.life, at, token::SWEEP);
        self.act(context, |process, context| process.turn(context));
        Ok(())
    }

    /// The process is gone without a word.
    pub fn kill(&mut self, context: &mut Context, silent: Option<Duration>) {
        if self.process.take().is_some() {
            context.note(ME, format_args!("is killed"));
            context.node_gone(ME, silent);
        }
    }

    /// Whether a commit is under way, so that a kill would strike in the middle of it.
    pub fn is_committing(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| matches!(process.hands.tasks.front(), Some(Task::Commit(..))))
    }

    /// Does part of the commit that is under way, and no more: the process ends there.
    pub fn interrupt_commit(&mut self, at: Interrupt) {
        if let Some(process) = &mut self.process
            && let Some(Task::Commit(_, commit, _)) = process.hands.tasks.front()
        {
            self.disk.interrupt_next_commit(at);
            let _ = process.hands.store.commit(commit);
        }
    }

    /// Takes no more jobs, and goes when what runs is done.
    pub fn drain(&mut self, context: &mut Context) {
        self.urgent(Input::Drain, context);
    }

    fn urgent(&mut self, input: Input, context: &mut Context) {
        if let Some(process) = &mut self.process {
            process.hands.urgent.push_back(input);
            process.want_round(context);
        }
    }

    /// A message arrived on one of the sockets.
    pub fn on_message(&mut self, context: &mut Context, arrived: Arrived) {
        let Some(process) = &mut self.process else {
            return;
        };
        let limits = context.parameters.core.limits.clone();
        let frames = &arrived.frames;
        let input = match arrived.port {
            Some(Port::Pull) => read_pulled(frames, &limits),
            Some(Port::Subscribe) => {
                let input = read_event(frames, &limits);
                if let Some(Input::Heartbeat(heartbeat)) = &input
                    && let Ok(header) = Header::from_bytes(&frames[1])
                {
                    process.hands.codecs.heard(&heartbeat.address, header.codec);
                }
                input
            }
            Some(Port::Api) => {
                let header = frames.first().map(|frame| Header::from_bytes(frame));
                let codec = match header {
                    Some(Ok(header)) => header.codec,
                    _ => Codec::Json,
                };
                let id = process.hands.heard(arrived.link, codec);
                match read_request(frames, &limits, id) {
                    Ok(input) => Some(input),
                    Err(refusal) => {
                        process.hands.answer(id, &refusal, context);
                        return;
                    }
                }
            }
            Some(Port::Work { .. }) | None => None,
        };
        let Some(input) = input else {
            context.counts.bump("messages that the manager dropped");
            return;
        };
        process.hands.inputs.push_back(input);
        process.want_round(context);
    }

    /// Something changed about a link.
    pub fn on_notice(&mut self, context: &mut Context, notice: Notice) {
        let Some(process) = &mut self.process else {
            return;
        };
        let hands = &mut process.hands;
        if notice.change == LinkChange::PeerGone {
            // The next connection of the same link is another client.
            if let Some(client) = hands.clients.remove(&notice.link) {
                hands.by_client.remove(&client.id);
                hands.gone.push(client.id);
            }
            return;
        }
        let Some(&pipe) = hands.by_link.get(&notice.link) else {
            return;
        };
        let Some(found) = hands.pipes.get_mut(&pipe) else {
            return;
        };
        match notice.change {
            LinkChange::Up if !found.up => {
                found.up = true;
                self.urgent(Input::PipeUp { pipe }, context);
            }
            LinkChange::Down if found.up => {
                found.up = false;
                // What waits for room is dropped with the connection.
                hands.pump(pipe, context);
                self.urgent(Input::PipeDown { pipe }, context);
            }
            LinkChange::Room => hands.pump(pipe, context),
            _ => {}
        }
    }

    /// The manager asked to be woken.
    pub fn on_wake(&mut self, context: &mut Context, token: u64) {
        match token {
            token::ROUND => self.act(context, |process, context| process.round(context)),
            token::TIMER => {
                if let Some(process) = &mut self.process {
                    process.want_round(context);
                }
            }
            token::STORE => self.act(context, |process, context| {
                process.hands.store_step(context);
                process.want_round(context);
            }),
            token::SWEEP => {
                let Some(process) = &mut self.process else {
                    return;
                };
                for client in std::mem::take(&mut process.hands.gone) {
                    process.hands.inputs.push_back(Input::ClientGone { client });
                    process.want_round(context);
                }
                let at = context.now + SWEEP;
                context.wake(ME, self.life, at, token::SWEEP);
            }
            _ => {}
        }
    }

    fn act(&mut self, context: &mut Context, act: impl FnOnce(&mut Process, &mut Context)) {
        let Some(process) = &mut self.process else {
            return;
        };
        act(process, context);
        self.acts += 1;
        self.released.append(&mut process.hands.released);
        self.committed |= std::mem::take(&mut process.hands.committed);
        self.synced = process.hands.synced;
        if let Some(failed) = &process.hands.failed {
            context.note(ME, format_args!("ends with an error: {failed}"));
            self.failed = Some(failed.clone());
            self.kill(context, None);
        } else if process.round.is_stopping() {
            self.end(context);
        }
    }

    /// All is done that a draining manager had to do.
    fn end(&mut self, context: &mut Context) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let pipes: Vec<PipeId> = process.hands.pipes.keys().copied().collect();
        for pipe in pipes {
            process.hands.close_pipe(pipe, context);
        }
        // The store's thread finishes what it was asked for.
        while let Some(task) = process.hands.tasks.pop_front() {
            if let Task::Commit(_, commit, mut persistence) = task {
                let store = process.hands.store.as_mut();
                if !matches!(persistence.step(store, &commit, &mut |_| {}), Step::Durable) {
                    break;
                }
            }
        }
        context.counts.bump("managers that ended in order");
        context.node_gone(ME, None);
    }
}

impl Hands {
    fn heard(&mut self, link: LinkId, codec: Codec) -> ClientId {
        if let Some(client) = self.clients.get_mut(&link) {
            client.codec = codec;
            return client.id;
        }
        self.last_client += 1;
        let id = ClientId(self.last_client);
        self.clients.insert(link, Client { id, codec });
        self.by_client.insert(id, link);
        id
    }
}

impl Process {
    fn now(&self, context: &Context) -> Timestamp {
        local(context.now, self.clock_offset)
    }

    fn want_round(&mut self, context: &mut Context) {
        if !self.round_due {
            self.round_due = true;
            let (least, most) = context.parameters.manager.round;
            let at = context.now + context.duration(least, most);
            context.wake(ME, self.hands.life, at, token::ROUND);
        }
    }

    fn round(&mut self, context: &mut Context) {
        self.round_due = false;
        let now = self.now(context);
        let taken = self.hands.inputs.len().min(BATCH_INPUTS_MAX);
        let mut batch: Vec<Input> = self.hands.urgent.drain(..).collect();
        batch.extend(self.hands.inputs.drain(..taken));
        let deadline = self.round.core().next_timeout();
        for input in batch {
            let mut acting = Acting {
                hands: &mut self.hands,
                context,
            };
            self.round.handle(input, now, &mut acting);
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            let mut acting = Acting {
                hands: &mut self.hands,
                context,
            };
            self.round.handle(Input::Tick, now, &mut acting);
        }
        self.turn(context);
        if !self.hands.inputs.is_empty() {
            self.want_round(context);
        }
    }

    fn turn(&mut self, context: &mut Context) {
        let now = self.now(context);
        let mut acting = Acting {
            hands: &mut self.hands,
            context,
        };
        self.round.turn(now, &mut acting);
        let timer = self.round.core().next_timeout();
        if let Some(at) = timer
            && self.timer != timer
        {
            let at = world(at, self.clock_offset);
            context.wake(ME, self.hands.life, at, token::TIMER);
        }
        self.timer = timer;
    }
}

/// What a clock shows that is off by some.
fn local(now: Timestamp, offset: i64) -> Timestamp {
    Timestamp(now.0.saturating_add_signed(offset))
}

/// When the world is at what a clock shows.
fn world(at: Timestamp, offset: i64) -> Timestamp {
    Timestamp(at.0.saturating_add_signed(-offset))
}

/// A message in a few words, for the trace.
pub fn brief(message: &Message) -> String {
    match message {
        Message::Dispatch(dispatch) => {
            let jobs = dispatch.jobs.iter();
            let each: Vec<String> = jobs
                .map(|job| format!("{} as {} at phase {}", job.job, job.attempt, job.phase))
                .collect();
            format!("dispatch {}: {}", dispatch.head.sequence, each.join(", "))
        }
        Message::Ack(ack) => format!("ack {}: {}", ack.head.sequence, list(&ack.attempts)),
        Message::Recall(recall) => format!(
            "recall {}: {}",
            recall.head.sequence,
            list(&recall.attempts)
        ),
        Message::Cancel(cancel) => format!(
            "cancel {}: {}",
            cancel.head.sequence,
            list(&cancel.attempts)
        ),
        Message::Hello(hello) => format!(
            "hello {} of epoch {}",
            hello.head.sequence, hello.head.epoch
        ),
        Message::Results(results) => {
            let each: Vec<String> = results
                .results
                .iter()
                .map(|result| format!("{} ({}) {:?}", result.attempt, result.job, result.outcome))
                .collect();
            format!("results: {}", each.join(", "))
        }
        Message::HandBack(back) => {
            let each: Vec<String> = back
                .attempts
                .iter()
                .map(|a| a.attempt.to_string())
                .collect();
            format!("hand-back ({:?}): {}", back.reason, each.join(", "))
        }
        Message::Heartbeat(beat) => {
            let each = beat.managers.iter().flat_map(|manager| {
                manager
                    .held
                    .iter()
                    .map(move |held| format!("{} {:?}", held.attempt, held.state))
            });
            let each: Vec<String> = each.collect();
            let heard = beat
                .managers
                .last()
                .map_or((0, 0), |m| (m.epoch, m.sequence));
            format!(
                "heartbeat of {} ({:?}, heard {}.{}): {}",
                beat.worker.short(),
                beat.state,
                heard.0,
                heard.1,
                each.join(", ")
            )
        }
        Message::Enqueue(enqueue) => {
            let each = enqueue.jobs.iter().filter_map(|job| job.id.as_ref());
            let each: Vec<String> = each.map(ToString::to_string).collect();
            format!("enqueue {}: {}", enqueue.request, each.join(", "))
        }
        Message::Enqueued(enqueued) => {
            format!("enqueued {}: {:?}", enqueued.request, enqueued.outcomes)
        }
        Message::Wait(wait) => format!("wait {}: {:?}", wait.request, wait.ids),
        Message::Ended(ended) => {
            let each = ended.jobs.iter();
            let each: Vec<String> = each
                .map(|job| format!("{} {:?}", job.id, job.state))
                .collect();
            format!("ended {}: {}", ended.request, each.join(", "))
        }
        Message::Query(query) => format!("query {}: {:?}", query.request, query.query),
        other => format!("{other:?}"),
    }
}

fn list(attempts: &[carbontube_protocol::AttemptId]) -> String {
    let each: Vec<String> = attempts.iter().map(ToString::to_string).collect();
    each.join(", ")
}
