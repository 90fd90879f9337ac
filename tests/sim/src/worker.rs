//! A worker's process: the real session, with a shell of the simulator's own that runs
//! phases in virtual time, sends on links and publishes heartbeats.

mod drain;
mod execution;

use std::time::Duration;

use carbontube_protocol::message::{Heartbeat, Results};
use carbontube_protocol::{Codec, Header, JobType, Message, Timestamp, WorkerId, decode, encode};
use carbontube_protocol::{Limits, encode_event};
use carbontube_worker::testing::{Key, Outgoing, Profile, Session};

use crate::context::Context;
use crate::manager::brief;
use crate::network::{Arrived, Frames, LinkChange, LinkId, LinkKind, NodeId, Notice, Port, Sent};
use crate::parameters::WorkerParameters;
use drain::Drain;
use execution::{Run, Why};

/// How often a heartbeat is repeated after a new connection, and in which pause.
const AFTER_CONNECTION: (u32, Duration) = (3, Duration::from_millis(100));
/// Results of former lives that are kept to be sent again.
const OLD_RESULTS_MAX: usize = 8;

/// What a worker is woken for: the low byte of its token.
mod token {
    pub(super) const HEARTBEAT: u64 = 0;
    pub(super) const DEADLINE: u64 = 1;
    pub(super) const SLOT: u64 = 2;
    pub(super) const DRAIN: u64 = 3;
    pub(super) const REPEAT: u64 = 4;
}

/// A worker, running or not.
#[derive(Debug)]
pub struct WorkerNode {
    number: usize,
    parameters: WorkerParameters,
    job_type: JobType,
    limits: Limits,
    life: u64,
    port: u16,
    process: Option<Process>,
    old_results: Vec<Frames>,
    /// A phase took the process down.
    doomed: bool,
}

#[derive(Debug)]
struct Process {
    me: NodeId,
    life: u64,
    id: WorkerId,
    session: Session,
    clock_offset: i64,
    started_at: Timestamp,
    slots: Vec<Option<Run>>,
    serial: u64,
    route: LinkId,
    route_connections: u32,
    waiting: Option<Outgoing>,
    publish: LinkId,
    sequence: u64,
    heartbeat_serial: u64,
    drain: Option<Drain>,
    ended: bool,
}

impl WorkerNode {
    /// A worker that was never started.
    pub fn new(number: usize, context: &Context) -> WorkerNode {
        let parameters = context.parameters.workers[number].clone();
        let phase = &context.parameters.definition.phases()[parameters.phase];
        WorkerNode {
            number,
            job_type: phase.job_type.clone(),
            limits: context.parameters.core.limits.clone(),
            parameters,
            life: 0,
            port: 4000,
            process: None,
            old_results: Vec::new(),
            doomed: false,
        }
    }

    fn me(&self) -> NodeId {
        NodeId::Worker(self.number)
    }

    /// The index of its phase.
    pub fn phase(&self) -> usize {
        self.parameters.phase
    }

    /// How many slots it says it has.
    pub fn slots(&self) -> u32 {
        self.parameters.slots
    }

    /// Whether there is a process.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The id of the running incarnation.
    pub fn id(&self) -> Option<WorkerId> {
        self.process.as_ref().map(|process| process.id)
    }

    /// The session of the running process.
    pub fn session(&self) -> Option<&Session> {
        self.process.as_ref().map(|process| &process.session)
    }

    /// The process's number, counted from 1.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Its own port now.
    pub fn port(&self) -> Port {
        Port::Work {
            worker: self.number,
            number: self.port,
        }
    }

    /// Whether it was told to drain.
    pub fn is_draining(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| process.drain.is_some())
    }

    /// Executions that go on, whatever was reported of them.
    pub fn busy(&self) -> usize {
        let process = self.process.as_ref();
        process.map_or(0, |process| process.slots.iter().flatten().count())
    }

    /// Whether a phase has taken the process down; the world then kills it.
    pub fn is_doomed(&self) -> bool {
        self.doomed
    }

    /// Starts a process.
    pub fn start(&mut self, context: &mut Context) {
        self.life += 1;
        if self.life > 1 && !self.parameters.keeps_port {
            self.port += 1;
        }
        let id = WorkerId::from_bytes(context.random.u128(..).to_be_bytes());
        let clock_offset = context.random.i64(-30_000_000..30_000_000);
        let session = Session::new(Profile {
            worker: id,
            job_type: self.job_type.clone(),
            routes: 1,
            shared_address: false,
            timeout: None,
            limits: self.limits.clone(),
        });
        let me = self.me();
        context.network.bind(self.port());
        let route = context.open_link(me, Some(Port::Pull), LinkKind::Waits);
        let publish = context.open_link(me, Some(Port::Subscribe), LinkKind::Drops);
        let slots = self.parameters.slots as usize;
        context.note(me, format_args!("starts as {}", id.short()));
        context.counts.bump("worker starts");
        self.doomed = false;
        self.process = Some(Process {
            me,
            life: self.life,
            id,
            session,
            clock_offset,
            started_at: local(context.now, clock_offset),
            slots: (0..slots).map(|_| None).collect(),
            serial: 0,
            route,
            route_connections: 0,
            waiting: None,
            publish,
            sequence: 0,
            heartbeat_serial: 0,
            drain: None,
            ended: false,
        });
        context.wake(me, self.life, context.now, token::HEARTBEAT);
        context.wake(me, self.life, context.now, token::DEADLINE);
    }

    /// The process is gone without a word.
    pub fn kill(&mut self, context: &mut Context, silent: Option<Duration>) {
        if self.process.take().is_some() {
            context.note(self.me(), format_args!("is killed"));
            context.node_gone(self.me(), silent);
        }
    }

    /// Tells it to finish what runs and go.
    pub fn drain(&mut self, context: &mut Context) {
        self.act(context, |worker, context| worker.begin_drain(context));
    }

    /// A result of a former life, to be sent again by somebody.
    pub fn old_result(&self) -> Option<&Frames> {
        self.old_results.last()
    }

    /// A message arrived.
    pub fn on_message(&mut self, context: &mut Context, arrived: Arrived) {
        self.act(context, |worker, context| {
            let Some(process) = &mut worker.process else {
                return;
            };
            let frames = &arrived.frames;
            let decoded = decode(frames, &worker.limits);
            let (Ok(message), Ok(header)) = (decoded, Header::from_bytes(&frames[0])) else {
                context.counts.bump("messages that workers dropped");
                return;
            };
            let now = local(context.now, process.clock_offset);
            // What it speaks itself is what managers find out from its heartbeats.
            if !process.session.receive(message, header.codec, now) {
                context.counts.bump("messages that workers dropped");
            }
        });
    }

    /// Something changed about a link.
    pub fn on_notice(&mut self, context: &mut Context, notice: Notice) {
        self.act(context, |worker, context| {
            let Some(process) = &mut worker.process else {
                return;
            };
            match notice.change {
                LinkChange::Up if notice.link == process.route => {
                    process.route_connections += 1;
                    if process.route_connections > 1 {
                        process.session.reconnected(0);
                    }
                }
                LinkChange::Up if notice.link == process.publish => {
                    for repeat in 0..AFTER_CONNECTION.0 {
                        let at = context.now + AFTER_CONNECTION.1 * repeat;
                        context.wake(process.me, process.life, at, token::REPEAT);
                    }
                }
                _ => {}
            }
            worker.pump(context);
        });
    }

    /// It asked to be woken.
    pub fn on_wake(&mut self, context: &mut Context, token: u64) {
        let (what, detail) = (token & 0xff, token >> 8);
        self.act(context, |worker, context| match what {
            token::HEARTBEAT => {
                let serial = worker.process.as_ref().map(|p| p.heartbeat_serial);
                if serial == Some(detail) {
                    worker.heartbeat(context);
                }
            }
            token::REPEAT => worker.heartbeat(context),
            token::DEADLINE => worker.expire(context),
            token::SLOT => worker.slot_due(detail, context),
            token::DRAIN => worker.drain_step(context),
            _ => {}
        });
    }

    /// Does something, then what the session wants done, as long as there is any.
    fn act(&mut self, context: &mut Context, act: impl FnOnce(&mut Self, &mut Context)) {
        act(self, context);
        loop {
            let Some(process) = &mut self.process else {
                return;
            };
            let effects = process.session.take_effects();
            if effects == Default::default() {
                break;
            }
            if effects.start > 0 {
                self.fill_slots(context);
            }
            for key in &effects.cancel {
                self.stop(*key, Why::Cancelled, context);
            }
            if effects.send {
                self.pump(context);
            }
            if effects.heartbeat {
                self.heartbeat(context);
            }
            if effects.deadline {
                self.expire(context);
            }
            if effects.drain {
                self.begin_drain(context);
            }
            if effects.settled {
                self.drain_step(context);
            }
        }
        if self.process.as_ref().is_some_and(|process| process.ended) {
            self.end(context);
        }
    }

    /// Sends what the session has, as far as there is a connection and room.
    fn pump(&mut self, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        loop {
            if process.waiting.is_none() {
                process.waiting = process.session.take_outgoing(0);
            }
            let Some(outgoing) = &process.waiting else {
                return;
            };
            let codec = match self.parameters.json {
                true => Codec::Json,
                false => outgoing.codec,
            };
            let frames = encode(&outgoing.message, codec);
            if context.send(process.route, frames.clone()) != Sent::Accepted {
                return;
            }
            let note = brief(&outgoing.message);
            context.note(process.me, format_args!("sends {note}"));
            if let Message::Results(Results { .. }) = outgoing.message {
                if context.fault(context.parameters.faults.results_twice) {
                    context.counts.bump("fault: results were sent twice");
                    let _ = context.send(process.route, frames.clone());
                }
                if self.old_results.len() == OLD_RESULTS_MAX {
                    self.old_results.remove(0);
                }
                self.old_results.push(frames);
            }
            let now = local(context.now, process.clock_offset);
            process.session.sent(&outgoing.keys, now);
            process.waiting = None;
        }
    }

    /// Publishes a heartbeat and asks for the next.
    fn heartbeat(&mut self, context: &mut Context) {
        let address = self.port().address();
        let Some(process) = &mut self.process else {
            return;
        };
        let now = local(context.now, process.clock_offset);
        process.session.tick(now);
        process.sequence += 1;
        let (success_count, failed_count) = process.session.counts();
        let heartbeat = Message::Heartbeat(Heartbeat {
            worker: process.id,
            sequence: process.sequence,
            job_type: self.job_type.clone(),
            address,
            shared_address: false,
            slots: self.parameters.slots,
            state: process.session.state(),
            managers: process.session.held(),
            success_count,
            failed_count,
            host: "box".to_owned(),
            pid: u32::try_from(process.life).unwrap_or(0),
            started_at: process.started_at,
            version: "carbontube".to_owned(),
        });
        let codec = match self.parameters.json {
            true => Codec::Json,
            false => process.session.codec(),
        };
        let note = brief(&heartbeat);
        let sent = context.send(
            process.publish,
            encode_event("available", &heartbeat, codec),
        );
        context.note(process.me, format_args!("{note} ({sent:?})"));
        process.heartbeat_serial += 1;
        let at = context.now + process.session.heartbeat_interval();
        let token = token::HEARTBEAT | process.heartbeat_serial << 8;
        context.wake(process.me, process.life, at, token);
    }

    /// Stops the attempts whose time is over, and asks to look again.
    fn expire(&mut self, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let now = local(context.now, process.clock_offset);
        let keys: Vec<Key> = process.session.expired(now, now + Duration::from_secs(1));
        let at = world(process.session.looks_at(), process.clock_offset);
        context.wake(process.me, process.life, at, token::DEADLINE);
        for key in keys {
            self.stop(key, Why::TimedOut, context);
        }
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
