//! The world: what happens when, and in which order; then whether all is as it must be.

mod faults;

use std::fmt;
use std::time::Duration;

use carbontube_protocol::Timestamp;
use carbontube_protocol::message::JobState;
use fastrand::Rng;

use crate::client::ClientNode;
use crate::context::{Agenda, Context, Counts, Due};
use crate::disk::VirtualDisk;
use crate::invariants::{Invariants, Violation};
use crate::manager::ManagerNode;
use crate::network::{Network, NodeId, Notice};
use crate::operator::Operator;
use crate::oracle::Oracle;
use crate::parameters::Parameters;
use crate::trace::Trace;
use crate::view::View;
use crate::worker::WorkerNode;
use faults::Later;

/// When worlds begin.
const ORIGIN: Timestamp = Timestamp(1_800_000_000_000_000);
/// More steps than any world needs: one that takes them goes in circles.
const STEPS_MAX: u64 = 150_000;
/// The most steps at one moment of virtual time.
const STEPS_AT_ONCE_MAX: u64 = 20_000;

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Of all that happened; two runs of a seed have the same.
    pub hash: u64,
    /// How many steps there were.
    pub steps: u64,
    /// How much virtual time passed.
    pub lasted: Duration,
    /// How often what happened.
    pub counts: Counts,
}

/// One world.
#[derive(Debug)]
pub struct World {
    context: Context,
    manager: ManagerNode,
    workers: Vec<WorkerNode>,
    clients: Vec<ClientNode>,
    operator: Operator,
    invariants: Invariants,
    step: u64,
    later: Vec<Later>,
    /// What suspended nodes will see when they go on.
    stashed: Vec<Stashed>,
    suspended: Vec<NodeId>,
    /// Nodes that will be started again.
    starting: Vec<NodeId>,
    /// The manager is killed after so many more of its steps.
    kill_manager_in: Option<u32>,
    heal_at: Timestamp,
}

#[derive(Clone, Copy, Debug)]
enum Stashed {
    Due(NodeId, Due),
    Notice(Notice),
}

/// Runs a seed's world from its beginning to its end.
pub fn run(parameters: Parameters, print: bool) -> Outcome {
    World::new(parameters, print).run()
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(parameters: Parameters, print: bool) -> World {
        let seed = parameters.seed;
        let mut context = Context {
            now: ORIGIN,
            random: Rng::with_seed(seed),
            network: Network::default(),
            agenda: Agenda::default(),
            oracle: Oracle::default(),
            trace: Trace::new(ORIGIN, print),
            counts: Counts::default(),
            healed: false,
            parameters,
        };
        let disk_seed = context.random.u64(..);
        let disk_faults = context.parameters.faults.disk;
        let workers = (0..context.parameters.workers.len())
            .map(|number| WorkerNode::new(number, &context))
            .collect();
        let clients = (0..context.parameters.clients.len())
            .map(|number| ClientNode::new(number, &context))
            .collect();
        let invariants = Invariants::new(&context.parameters);
        let heal_at = ORIGIN + context.parameters.faults_last;
        World {
            context,
            manager: ManagerNode::new(VirtualDisk::new(disk_seed, disk_faults)),
            workers,
            clients,
            operator: Operator::default(),
            invariants,
            step: 0,
            later: Vec::new(),
            stashed: Vec::new(),
            suspended: Vec::new(),
            starting: Vec::new(),
            kill_manager_in: None,
            heal_at,
        }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Outcome {
        let violation = self.live().err();
        if let Some(violation) = &violation {
            let note = violation.to_string();
            self.context
                .note(NodeId::World, format_args!("VIOLATION {note}"));
        }
        let mut counts = self.context.counts;
        if let Some(core) = self.manager.core() {
            for (cause, count) in core.duplicates_counted() {
                counts.add(cause, count);
            }
        }
        Outcome {
            seed: self.context.parameters.seed,
            violation,
            hash: self.context.trace.hash(),
            steps: self.step,
            lasted: self.context.now.since(ORIGIN),
            counts,
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        self.begin();
        let last = self.heal_at + self.context.parameters.settle_within;
        let mut at_once = 0;
        while let Some((at, due)) = self.context.agenda.pop() {
            match at > self.context.now {
                true => (self.context.now, at_once) = (at, 0),
                false => at_once += 1,
            }
            if at_once > STEPS_AT_ONCE_MAX {
                return Err(Violation {
                    invariant: "time_goes_on",
                    detail: format!("{at_once} steps at one moment, the last is {due:?}"),
                });
            }
            self.step += 1;
            self.manager.clear_step();
            self.take(due)?;
            self.tell_notices();
            self.look_after()?;
            self.check()?;
            if self.context.healed && self.unsettled(&|_| ()).is_none() {
                self.context
                    .note(NodeId::World, format_args!("has settled"));
                let view = view(&self.context, &self.manager, &self.workers, self.step);
                return self.invariants.check_end(&view);
            }
            if self.context.now > last || self.step > STEPS_MAX {
                let detail = self.unsettled(&|what| what.to_string()).unwrap_or_default();
                return Err(Violation {
                    invariant: "everything_settles_when_faults_stop",
                    detail: format!("after {} steps: {detail}", self.step),
                });
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Violation> {
        if let Some(reason) = self.manager.failed() {
            return Err(Violation {
                invariant: "a_manager_never_ends_by_itself",
                detail: reason.to_owned(),
            });
        }
        let view = view(&self.context, &self.manager, &self.workers, self.step);
        self.invariants.check(&view)
    }

    /// What is not settled, if anything; `tell` says what to make of it.
    fn unsettled<T>(&self, tell: &dyn Fn(fmt::Arguments<'_>) -> T) -> Option<T> {
        if !self.starting.is_empty() || !self.suspended.is_empty() {
            let (starting, suspended) = (&self.starting, &self.suspended);
            return Some(tell(format_args!(
                "starting {starting:?}, suspended {suspended:?}"
            )));
        }
        for (number, client) in self.clients.iter().enumerate() {
            if !client.is_done() {
                return Some(tell(format_args!(
                    "client {number} is not done: {client:?}"
                )));
            }
        }
        let Some(core) = self.manager.core() else {
            return Some(tell(format_args!("the manager does not run")));
        };
        for job in core.live_jobs() {
            if job.state != JobState::Failed {
                return Some(tell(format_args!(
                    "job {} is {}: {job:?}",
                    job.id, job.state
                )));
            }
        }
        if !self.manager.is_idle() {
            return Some(tell(format_args!("the manager has inputs or commits")));
        }
        for (number, worker) in self.workers.iter().enumerate() {
            let Some(session) = worker.session() else {
                return Some(tell(format_args!("worker {number} does not run")));
            };
            let load = session.load();
            if load.queued + load.running + load.done > 0 || worker.busy() > 0 {
                return Some(tell(format_args!(
                    "worker {number} holds {load:?}: {session:?}"
                )));
            }
            if worker.is_draining() {
                return Some(tell(format_args!("worker {number} drains")));
            }
        }
        for worker in core.known_workers() {
            if !worker.attempts.is_empty() {
                return Some(tell(format_args!(
                    "the manager counts attempts with {worker:?}"
                )));
            }
        }
        None
    }

    fn take(&mut self, due: Due) -> Result<(), Violation> {
        match due {
            Due::Dial(link) => self.context.dial(link),
            Due::Arrive {
                link,
                direction,
                generation,
            } => {
                if let Some(arrived) = self.context.arrive(link, direction, generation) {
                    match arrived.node {
                        NodeId::Manager => self.manager.on_message(&mut self.context, arrived),
                        NodeId::Worker(number) => {
                            self.workers[number].on_message(&mut self.context, arrived);
                        }
                        NodeId::Client(number) => {
                            self.clients[number].on_message(&mut self.context, arrived);
                        }
                        NodeId::World => self.operator.on_message(&mut self.context, &arrived),
                    }
                }
            }
            Due::Broken { link, generation } => self.context.notice_broken(link, generation),
            Due::Wake { node, life, token } => {
                if self.suspended.contains(&node) {
                    self.stashed.push(Stashed::Due(node, due));
                } else if self.life(node) == Some(life) {
                    match node {
                        NodeId::Manager => self.manager.on_wake(&mut self.context, token),
                        NodeId::Worker(number) => {
                            self.workers[number].on_wake(&mut self.context, token);
                        }
                        NodeId::Client(number) => {
                            self.clients[number].on_wake(&mut self.context, token);
                        }
                        NodeId::World => {}
                    }
                    if node == NodeId::Manager {
                        self.count_down_to_kill();
                    }
                }
            }
            Due::World(index) => {
                let later = self.later[usize::try_from(index).unwrap_or(usize::MAX)];
                return self.happen(later);
            }
        }
        Ok(())
    }

    /// The number of a node's running process.
    fn life(&self, node: NodeId) -> Option<u64> {
        match node {
            NodeId::Manager => self.manager.is_running().then(|| self.manager.life()),
            NodeId::Worker(number) => {
                let worker = &self.workers[number];
                worker.is_running().then(|| worker.life())
            }
            NodeId::Client(number) => {
                let client = &self.clients[number];
                client.is_running().then(|| client.life())
            }
            NodeId::World => None,
        }
    }

    fn tell_notices(&mut self) {
        while let Some(notice) = self.context.network.notices.pop_front() {
            if self.suspended.contains(&notice.node) {
                self.stashed.push(Stashed::Notice(notice));
                continue;
            }
            match notice.node {
                NodeId::Manager => self.manager.on_notice(&mut self.context, notice),
                NodeId::Worker(number) => {
                    self.workers[number].on_notice(&mut self.context, notice);
                }
                NodeId::Client(number) => {
                    self.clients[number].on_notice(&mut self.context, notice);
                }
                NodeId::World => {}
            }
        }
    }
}

fn view<'a>(
    context: &'a Context,
    manager: &'a ManagerNode,
    workers: &'a [WorkerNode],
    step: u64,
) -> View<'a> {
    let (committed, started) = manager.marks();
    View {
        now: context.now,
        step,
        parameters: &context.parameters,
        manager,
        workers,
        oracle: &context.oracle,
        network: &context.network,
        disk: manager.disk(),
        released: manager.released(),
        synced: manager.synced(),
        committed,
        started,
        healed: context.healed,
    }
}
