//! What goes wrong in a world, when, and how it is put right again.

use std::time::Duration;

use bytes::Bytes;

use carbontube_manager::StartError;
use carbontube_protocol::message::{Heartbeat, Hello, PipeHead, WorkerState};
use carbontube_protocol::{Address, Codec, Timestamp, WorkerId, encode, encode_event};
use carbontube_storage::StoreError;

use super::{Stashed, World};
use crate::context::Due;
use crate::disk::Interrupt;
use crate::invariants::Violation;
use crate::network::{Direction, LinkId, LinkKind, NodeId, Port};
use crate::operator::Operator;
use crate::oracle::Disturbance;

/// Something that the world does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// A fault of a kind, and the next one after it.
    Fault(Kind),
    /// The time of faults is over.
    Heal,
    /// A connection works again.
    Mend(LinkId),
    /// A port is read again.
    Hear(Port),
    /// A process goes on.
    Resume(NodeId, u64),
    /// A process is started.
    Start(NodeId),
    /// The disk has space again.
    Space,
    /// The operator tidies up.
    TidyUp,
    /// A hostile peer sends what it has, then goes.
    Hostile(LinkId, u8),
    /// Somebody who is not its manager greets a worker.
    Forge(LinkId),
}

/// A kind of fault that comes at times of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Break,
    Cut,
    Slow,
    HalfOpen,
    Deaf,
    Suspend,
    SuspendManager,
    KillManager,
    KillWorker,
    DrainWorker,
    KillClient,
    DiskFull,
    SyncFailures,
    Operation,
    Hostility,
    Forgery,
}

const KINDS: [Kind; 16] = [
    Kind::Break,
    Kind::Cut,
    Kind::Slow,
    Kind::HalfOpen,
    Kind::Deaf,
    Kind::Suspend,
    Kind::SuspendManager,
    Kind::KillManager,
    Kind::KillWorker,
    Kind::DrainWorker,
    Kind::KillClient,
    Kind::DiskFull,
    Kind::SyncFailures,
    Kind::Operation,
    Kind::Hostility,
    Kind::Forgery,
];

/// How many workers somebody invents at once.
const INVENTED: usize = 40;
/// How far beyond the manager's a forged epoch is.
const FORGED_STEPS: [u64; 6] = [1, 2, 1 << 20, 1 << 33, 1 << 46, 1 << 62];

const SHORT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(12));

impl World {
    fn later(&mut self, after: Duration, later: Later) {
        let index = self.later.len() as u64;
        self.later.push(later);
        let at = self.context.now + after;
        self.context.agenda.add(at, Due::World(index));
    }

    pub(super) fn begin(&mut self) {
        let lasts = self.context.parameters.faults_last;
        self.later(lasts, Later::Heal);
        let soon = Duration::from_millis(500);
        let nodes = self.nodes();
        for node in nodes {
            let after = self.context.duration(Duration::ZERO, soon);
            self.start_later(node, after);
        }
        for kind in KINDS {
            self.next_fault(kind);
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        let workers = (0..self.workers.len()).map(NodeId::Worker);
        let clients = (0..self.clients.len()).map(NodeId::Client);
        [NodeId::Manager]
            .into_iter()
            .chain(workers)
            .chain(clients)
            .collect()
    }

    fn start_later(&mut self, node: NodeId, after: Duration) {
        if !self.starting.contains(&node) {
            self.starting.push(node);
            self.later(after, Later::Start(node));
        }
    }

    fn next_fault(&mut self, kind: Kind) {
        let faults = &self.context.parameters.faults;
        let mean = match kind {
            Kind::Break => faults.breaks,
            Kind::Cut => faults.cuts,
            Kind::Slow => faults.slows,
            Kind::HalfOpen => faults.half_opens,
            Kind::Deaf => faults.deafness,
            Kind::Suspend => faults.suspensions,
            Kind::SuspendManager => faults.manager_suspensions,
            Kind::KillManager => faults.manager_kills,
            Kind::KillWorker => faults.worker_kills,
            Kind::DrainWorker => faults.worker_drains,
            Kind::KillClient => faults.client_kills,
            Kind::DiskFull => faults.disk_full,
            Kind::SyncFailures => faults.sync_failures,
            Kind::Operation => faults.operations,
            Kind::Hostility => faults.hostilities,
            Kind::Forgery => faults.forgeries,
        };
        if let Some(mean) = mean {
            let after = self.context.random.f64() * 2.0 * mean.as_secs_f64();
            self.later(Duration::from_secs_f64(after), Later::Fault(kind));
        }
    }

    pub(super) fn happen(&mut self, later: Later) -> Result<(), Violation> {
        match later {
            Later::Fault(kind) => {
                if !self.context.healed {
                    self.fault(kind);
                    self.next_fault(kind);
                }
            }
            Later::Heal => self.heal(),
            Later::Mend(link) => self.context.mend(link),
            Later::Hear(port) => self.context.set_deaf(port, false),
            Later::Resume(node, life) => {
                if self.life(node) == Some(life) {
                    self.resume(node);
                }
            }
            Later::Start(node) => return self.start(node),
            Later::Space => {
                self.note("the disk has space again");
                self.manager.disk().full(false);
            }
            Later::TidyUp => {
                if let Some(core) = self.manager.core() {
                    self.operator.tidy_up(&mut self.context, core);
                }
                self.later(Operator::TIDY_UP, Later::TidyUp);
            }
            Later::Hostile(link, kind) => self.be_hostile(link, kind),
            Later::Forge(link) => self.forge(link),
        }
        Ok(())
    }

    fn note(&mut self, what: &str) {
        self.context.note(NodeId::World, format_args!("{what}"));
    }

    fn start(&mut self, node: NodeId) -> Result<(), Violation> {
        self.starting.retain(|other| *other != node);
        match node {
            NodeId::Manager => {
                return self.start_manager();
            }
            NodeId::Worker(number) => self.workers[number].start(&mut self.context),
            NodeId::Client(number) => self.clients[number].start(&mut self.context),
            NodeId::World => {}
        }
        Ok(())
    }

    fn start_manager(&mut self) -> Result<(), Violation> {
        let damage = self.context.fault(self.context.parameters.faults.damage);
        let disk = self.manager.disk();
        let damaged = damage
            && match self.context.random.bool() {
                true => {
                    self.context
                        .counts
                        .bump("fault: a bit was flipped on the disk");
                    disk.flip_bit()
                }
                false => {
                    self.context
                        .counts
                        .bump("fault: the journal's tail was cut");
                    disk.cut_tail()
                }
            };
        let before = self.manager.clock(self.context.now);
        let mut result = self.manager.start(&mut self.context);
        if damaged && matches!(result, Err(StartError::Journal { .. })) {
            // As it has to be; an operator who has a copy puts it back.
            self.context.counts.bump("damage that was refused");
            self.note("the damaged journal is refused, and restored");
            self.manager.disk().restore();
            result = self.manager.start(&mut self.context);
        }
        match result {
            Ok(()) => {}
            // Opening writes to the disk, which may be full or fail; the process is started
            // again later.
            Err(StartError::Journal { source })
                if !self.context.healed && !matches!(source, StoreError::Damaged { .. }) =>
            {
                self.context.counts.bump("starts that the disk refused");
                self.note(&format!("the manager cannot start: {source}"));
            }
            Err(error) => return Err(cannot_be_opened(&error)),
        }
        if self.manager.clock(self.context.now) != before {
            self.disturbed(NodeId::Manager, Disturbance::Clock);
        }
        Ok(())
    }

    fn fault(&mut self, kind: Kind) {
        let lasts = self.context.duration(SHORT.0, SHORT.1);
        let links = self.context.network.connected();
        let link = match links.is_empty() {
            true => None,
            false => Some(links[self.context.random.usize(..links.len())]),
        };
        match kind {
            Kind::Break => {
                if let Some(link) = link {
                    self.context.counts.bump("fault: a connection broke");
                    self.note_link("breaks", link);
                    self.disturbed_link(link, Disturbance::Network);
                    self.context.break_link(link);
                }
            }
            Kind::Cut => {
                if let Some(link) = link {
                    let (direction, name) = match self.context.random.bool() {
                        true => (Direction::Forward, "fault: a connection was cut forward"),
                        false => (Direction::Back, "fault: a connection was cut back"),
                    };
                    self.context.counts.bump(name);
                    self.note_link("is cut", link);
                    self.disturbed_link(link, Disturbance::Network);
                    self.context.cut(link, direction);
                    self.later(lasts, Later::Mend(link));
                }
            }
            Kind::Slow => {
                if let Some(link) = link {
                    self.context.counts.bump("fault: a connection was slow");
                    self.note_link("is slow", link);
                    self.disturbed_link(link, Disturbance::Network);
                    let by = self.context.duration(SHORT.0, Duration::from_secs(3));
                    self.context.slow(link, by);
                    self.later(lasts, Later::Mend(link));
                }
            }
            Kind::HalfOpen => {
                if let Some(link) = link {
                    self.context
                        .counts
                        .bump("fault: a connection was half-open");
                    self.note_link("is half-open", link);
                    self.disturbed_link(link, Disturbance::Network);
                    self.context.half_open(link, lasts);
                }
            }
            Kind::Deaf => {
                let number = self.context.random.usize(..self.workers.len());
                if self.workers[number].is_running() {
                    self.context
                        .counts
                        .bump("fault: a worker did not read its pipe");
                    let port = self.workers[number].port();
                    self.context
                        .note(NodeId::Worker(number), format_args!("reads nothing"));
                    self.disturbed(NodeId::Worker(number), Disturbance::Slow);
                    self.context.set_deaf(port, true);
                    self.later(lasts, Later::Hear(port));
                }
            }
            Kind::Suspend | Kind::SuspendManager => {
                let nodes = self.nodes();
                let node = match kind {
                    Kind::SuspendManager => NodeId::Manager,
                    _ => nodes[self.context.random.usize(..nodes.len())],
                };
                if let Some(life) = self.life(node)
                    && !self.suspended.contains(&node)
                {
                    let name = match node {
                        NodeId::Manager => "fault: the manager was suspended",
                        NodeId::Worker(_) => "fault: a worker was suspended",
                        _ => "fault: a client was suspended",
                    };
                    self.context.counts.bump(name);
                    self.context.note(node, format_args!("is suspended"));
                    self.disturbed(node, Disturbance::Suspended);
                    self.suspended.push(node);
                    self.context.set_suspended(node, true);
                    self.later(lasts, Later::Resume(node, life));
                }
            }
            Kind::KillManager => {
                if self.manager.is_running() && self.kill_manager_in.is_none() {
                    self.kill_manager_in = Some(self.context.random.u32(0..8));
                }
            }
            Kind::KillWorker => {
                let number = self.context.random.usize(..self.workers.len());
                if self.workers[number].is_running() {
                    self.context.counts.bump("fault: a worker was killed");
                    self.kill(NodeId::Worker(number));
                }
            }
            Kind::DrainWorker => {
                let number = self.context.random.usize(..self.workers.len());
                let node = NodeId::Worker(number);
                if self.workers[number].is_running() && !self.suspended.contains(&node) {
                    self.context.counts.bump("fault: a worker was drained");
                    self.disturbed(node, Disturbance::Killed);
                    self.workers[number].drain(&mut self.context);
                }
            }
            Kind::KillClient => {
                let number = self.context.random.usize(..self.clients.len());
                if self.clients[number].is_running() {
                    self.context.counts.bump("fault: a client was killed");
                    self.kill(NodeId::Client(number));
                }
            }
            Kind::DiskFull => {
                self.context.counts.bump("fault: the disk was full");
                self.note("the disk is full");
                self.manager.disk().full(true);
                self.later(lasts, Later::Space);
            }
            Kind::SyncFailures => {
                self.context.counts.bump("fault: syncs were to fail");
                let syncs = self.context.random.u32(1..4);
                self.note(&format!("the next {syncs} syncs fail"));
                self.manager.disk().fail_next_syncs(syncs);
            }
            Kind::Operation => {
                let core = self.manager.core();
                self.operator.interfere(&mut self.context, core);
            }
            Kind::Hostility => self.meet_a_stranger(),
            Kind::Forgery => self.meet_a_forger(),
        }
    }

    fn note_link(&mut self, what: &str, id: LinkId) {
        let links = &self.context.network;
        let found = links.links().find(|(other, _)| *other == id);
        let text = found.map_or(String::new(), |(_, link)| {
            format!("{} to {:?}", link.dialer, link.port)
        });
        self.note(&format!("link {} ({text}) {what}", id.0));
    }

    fn kill(&mut self, node: NodeId) {
        self.disturbed(node, Disturbance::Killed);
        self.resume_silently(node);
        let silent = self
            .context
            .fault(self.context.parameters.faults.silent_kill);
        let silent = silent.then(|| self.context.duration(SHORT.0, SHORT.1));
        if silent.is_some() {
            self.context
                .counts
                .bump("fault: a machine vanished without a word");
        }
        match node {
            NodeId::Manager => self.manager.kill(&mut self.context, silent),
            NodeId::Worker(number) => self.workers[number].kill(&mut self.context, silent),
            NodeId::Client(number) => self.clients[number].kill(&mut self.context, silent),
            NodeId::World => {}
        }
    }

    /// After each wake of the manager: whether this is where it is killed.
    pub(super) fn count_down_to_kill(&mut self) {
        match self.kill_manager_in {
            Some(0) if !self.context.healed => self.kill_manager(),
            Some(left) => self.kill_manager_in = left.checked_sub(1),
            None => {}
        }
    }

    fn kill_manager(&mut self) {
        self.kill_manager_in = None;
        if !self.manager.is_running() {
            return;
        }
        self.context.counts.bump("fault: the manager was killed");
        let (committed, _) = self.manager.marks();
        if committed {
            let name = "fault: the manager was killed between a commit and its effects";
            self.context.counts.bump(name);
        } else if self.manager.is_committing() {
            let at = [
                Interrupt::BeforeSync,
                Interrupt::AfterSync,
                Interrupt::BeforeAnswer,
            ];
            let at = at[self.context.random.usize(..3)];
            self.context.counts.bump(match at {
                Interrupt::BeforeSync => "fault: the manager was killed before a sync",
                Interrupt::AfterSync => "fault: the manager was killed after a sync",
                Interrupt::BeforeAnswer => {
                    "fault: the manager was killed before it knew of a commit"
                }
            });
            self.note(&format!("the manager is killed in a commit: {at:?}"));
            self.manager.interrupt_commit(at);
        }
        let power = self
            .context
            .fault(self.context.parameters.faults.power_loss);
        self.kill(NodeId::Manager);
        if power {
            self.context
                .counts
                .bump("fault: the manager's power was lost");
            self.note("power is lost");
            self.manager.disk().crash();
        }
    }

    /// A suspended process is killed: it does not go on.
    fn resume_silently(&mut self, node: NodeId) {
        self.suspended.retain(|other| *other != node);
        self.stashed.retain(|stashed| match stashed {
            Stashed::Due(other, _) => *other != node,
            Stashed::Notice(notice) => notice.node != node,
        });
    }

    fn resume(&mut self, node: NodeId) {
        if !self.suspended.contains(&node) {
            return;
        }
        self.suspended.retain(|other| *other != node);
        self.context.note(node, format_args!("goes on"));
        self.context.set_suspended(node, false);
        for stashed in std::mem::take(&mut self.stashed) {
            match stashed {
                Stashed::Due(other, due) if other == node => {
                    self.context.agenda.add(self.context.now, due);
                }
                Stashed::Notice(notice) if notice.node == node => {
                    self.context.network.notices.push_back(notice);
                }
                other => self.stashed.push(other),
            }
        }
    }

    /// After each step: who has died or gone is started again.
    pub(super) fn look_after(&mut self) -> Result<(), Violation> {
        for number in 0..self.workers.len() {
            if self.workers[number].is_doomed() && self.workers[number].is_running() {
                self.kill(NodeId::Worker(number));
            }
        }
        for node in self.nodes() {
            if self.life(node).is_none() && !self.starting.contains(&node) {
                self.resume_silently(node);
                let (least, most) = match node {
                    NodeId::Manager => self.context.parameters.manager.down,
                    _ => (Duration::from_millis(1), Duration::from_secs(4)),
                };
                let after = self.context.duration(least, most);
                self.start_later(node, after);
            }
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.note("heals");
        self.context.healed = true;
        self.kill_manager_in = None;
        for node in std::mem::take(&mut self.suspended) {
            self.suspended.push(node);
            self.resume(node);
        }
        let links: Vec<LinkId> = self.context.network.links().map(|(id, _)| id).collect();
        for link in links {
            self.context.mend(link);
        }
        for number in 0..self.workers.len() {
            let port = self.workers[number].port();
            self.context.set_deaf(port, false);
        }
        self.manager.disk().full(false);
        self.manager.disk().fail_next_syncs(0);
        self.later(Operator::TIDY_UP, Later::TidyUp);
    }

    /// An orderly sort of mess: notes who was disturbed, for the oracle.
    fn disturbed(&mut self, node: NodeId, how: Disturbance) {
        let now = self.context.now;
        self.context.oracle.disturbed(now, node, how);
    }

    fn disturbed_link(&mut self, id: LinkId, how: Disturbance) {
        let mut links = self.context.network.links();
        let found = links.find(|(other, _)| *other == id);
        let Some((dialer, port)) = found.map(|(_, link)| (link.dialer, link.port)) else {
            return;
        };
        drop(links);
        self.disturbed(dialer, how);
        if let Some(port) = port {
            self.disturbed(port.node(), how);
        }
    }

    /// Somebody connects who means no good.
    fn meet_a_stranger(&mut self) {
        let ports = [Port::Pull, Port::Subscribe, Port::Api];
        let number = self.context.random.usize(..self.workers.len());
        self.disturbed(NodeId::Manager, Disturbance::Hostile);
        self.disturbed(NodeId::Worker(number), Disturbance::Hostile);
        let port = match self.context.random.usize(..4) {
            3 => self.workers[number].port(),
            index => ports[index],
        };
        let link = self
            .context
            .open_link(NodeId::World, Some(port), LinkKind::Waits);
        let kind = self.context.random.u8(..);
        self.later(Duration::from_millis(50), Later::Hostile(link, kind));
    }

    /// Announces workers that nobody has, at addresses where nobody is.
    fn invent_workers(&mut self, link: LinkId) {
        self.context.counts.bump("fault: workers were invented");
        let phases = self.context.parameters.definition.phases();
        let phase = self.context.random.usize(..phases.len());
        let job_type = phases[phase].job_type.clone();
        for _ in 0..INVENTED {
            let number = self.context.random.u16(1..);
            let beat = Heartbeat {
                worker: WorkerId::from_bytes(self.context.random.u128(..).to_be_bytes()),
                sequence: 1,
                job_type: job_type.clone(),
                address: Address::tcp("nowhere", number),
                shared_address: false,
                slots: 4,
                state: WorkerState::Available,
                managers: Vec::new(),
                success_count: 0,
                failed_count: 0,
                host: String::new(),
                pid: 0,
                started_at: Timestamp::ZERO,
                version: String::new(),
            };
            let topic = format!("worker.{job_type}");
            let frames = encode_event(&topic, &beat.into(), Codec::Bincode);
            let _ = self.context.send(link, frames);
        }
        self.context.close_link(link, true);
    }

    /// Somebody connects to a worker who will pose as its manager.
    fn meet_a_forger(&mut self) {
        let number = self.context.random.usize(..self.workers.len());
        self.disturbed(NodeId::Manager, Disturbance::Hostile);
        self.disturbed(NodeId::Worker(number), Disturbance::Hostile);
        let port = self.workers[number].port();
        let link = self
            .context
            .open_link(NodeId::World, Some(port), LinkKind::Waits);
        self.later(Duration::from_millis(50), Later::Forge(link));
    }

    fn forge(&mut self, link: LinkId) {
        if let Some(core) = self.manager.core() {
            let random = &mut self.context.random;
            let step = FORGED_STEPS[random.usize(..FORGED_STEPS.len())];
            let hello = Hello {
                head: PipeHead {
                    manager: core.manager_id(),
                    epoch: core.epoch() + step,
                    sequence: random.u64(..1 << 53),
                },
                pipeline: self.context.parameters.definition.name().clone(),
                worker_timeout_ms: [0, 1000, u64::MAX][random.usize(..3)],
            };
            self.context.counts.bump("fault: a hello was forged");
            let frames = encode(&hello.into(), Codec::Bincode);
            let _ = self.context.send(link, frames);
        }
        self.context.close_link(link, true);
    }

    fn be_hostile(&mut self, link: LinkId, kind: u8) {
        if kind % 16 == 2 {
            return self.invent_workers(link);
        }
        let number = self.context.random.usize(..self.workers.len());
        let old = self.workers[number].old_result().cloned();
        let frames = match (kind % 4, old) {
            (0, Some(frames)) => {
                self.context
                    .counts
                    .bump("fault: an old result was sent again");
                frames
            }
            (1, Some(mut frames)) => {
                self.context.counts.bump("fault: a spoilt message was sent");
                // Not a payload: whoever spoils that in a worker's name gets a failure counted.
                let index = self.context.random.usize(..frames.len().min(2));
                let length = self.context.random.usize(..=frames[index].len());
                frames[index] = frames[index].slice(..length);
                frames
            }
            _ => {
                self.context.counts.bump("fault: garbage was sent");
                let frames = self.context.random.usize(1..4);
                (0..frames)
                    .map(|_| {
                        let length = self.context.random.usize(..40);
                        let bytes: Vec<u8> =
                            (0..length).map(|_| self.context.random.u8(..)).collect();
                        Bytes::from(bytes)
                    })
                    .collect()
            }
        };
        let _ = self.context.send(link, frames);
        self.context.close_link(link, true);
    }
}

fn cannot_be_opened(error: &StartError) -> Violation {
    Violation {
        invariant: "a_journal_can_be_opened",
        detail: format!("{error:?}"),
    }
}
