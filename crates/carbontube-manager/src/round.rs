//! One round of the manager's work, without threads, clock or sockets: the core, the gate
//! and the commits under way.
//!
//! The core's thread runs it in production, the simulator in virtual time.

use carbontube_protocol::{Timestamp, WorkerId};

use crate::core::{Commit, CommitId, Core, Effect, Input, Rank, RecordSeq};
use crate::gate::Gate;

/// How many commits may be under way. The second is put together while the first is
/// synced; more would only make each smaller.
const COMMITS_MAX: usize = 2;

/// What a round acts on: the store's thread, and everything that effects are for.
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub))]
pub trait Outside {
    /// Hands a commit to the store. Its answer comes as [`Input::Committed`].
    fn commit(&mut self, commit: Commit);

    /// Carries out an effect whose record is durable.
    fn carry_out(&mut self, effect: Effect);

    /// Hears what to think of a worker from now on.
    fn rank(&mut self, _worker: WorkerId, _rank: Rank) {}
}

/// The core and what stands between it and the outside.
#[derive(Debug)]
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub))]
pub struct Round {
    core: Core,
    gate: Gate,
    commits: Vec<(CommitId, RecordSeq)>,
    stopping: bool,
}

#[cfg_attr(not(feature = "testing"), allow(unreachable_pub))]
impl Round {
    /// Begins with a core; a first [`turn`](Round::turn) lets out what recovery left to do.
    pub fn new(core: Core) -> Round {
        Round {
            core,
            gate: Gate::default(),
            commits: Vec::new(),
            stopping: false,
        }
    }

    /// The core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// See [`Core::hold_waits`].
    pub fn hold_waits(&mut self, hold: bool) {
        self.core.hold_waits(hold);
    }

    /// Whether the core has said that all is done.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Takes in something that happened; what a commit made durable is let out.
    pub fn handle(&mut self, input: Input, now: Timestamp, outside: &mut dyn Outside) {
        let committed = match &input {
            Input::Committed { commit } => Some(*commit),
            _ => None,
        };
        self.core.handle(input, now);
        // The store's thread answers commits in order.
        if let Some(id) = committed
            && let Some(at) = self.commits.iter().position(|(other, _)| *other == id)
        {
            let (_, through) = self.commits[at];
            self.commits.drain(..=at);
            let stopping = &mut self.stopping;
            self.gate.advance(through, &mut |effect| {
                let_out(effect, stopping, outside);
            });
        }
    }

    /// After a batch of inputs: dispatches, hands what was decided to the store, and lets
    /// out what is durable.
    pub fn turn(&mut self, now: Timestamp, outside: &mut dyn Outside) {
        self.core.dispatch(now);
        while self.commits.len() < COMMITS_MAX
            && let Some(commit) = self.core.take_commit(now)
        {
            self.commits.push((commit.id, commit.through));
            outside.commit(commit);
            if !self.core.has_commit() {
                break;
            }
        }
        while let Some(gated) = self.core.poll_effect() {
            if let Some(effect) = self.gate.admit(gated) {
                let_out(effect, &mut self.stopping, outside);
            }
        }
        for (worker, rank) in self.core.take_ranks() {
            outside.rank(worker, rank);
        }
    }
}

fn let_out(effect: Effect, stopping: &mut bool, outside: &mut dyn Outside) {
    *stopping |= effect == Effect::Stop;
    outside.carry_out(effect);
}
