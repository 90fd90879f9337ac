//! The manager's state and its single entry for everything that happens.

use std::collections::VecDeque;

use carbontube_protocol::message::ManagerState;
use carbontube_protocol::{ManagerId, Timestamp};

use super::{Commit, CoreOptions, Effect, Gated, Input, RecordSeq};
use crate::PipelineDefinition;

/// The manager's state: who has which job, what is durable, and what to do next.
#[derive(Debug)]
pub struct Core {
    pub(crate) definition: PipelineDefinition,
    pub(crate) options: CoreOptions,
    pub(crate) manager: ManagerId,
    pub(crate) epoch: u64,
    pub(crate) effects: VecDeque<Gated>,
}

impl Core {
    /// Takes in something that happened.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        let _ = (&self.definition, &self.options, now);
        if matches!(input, Input::Drain) {
            self.effects.push_back(Gated {
                after: RecordSeq(0),
                effect: Effect::Stop,
            });
        }
    }

    /// Hands ready jobs to workers with room; called once after each batch of inputs.
    pub fn dispatch(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// Gives the next effect.
    pub fn poll_effect(&mut self) -> Option<Gated> {
        self.effects.pop_front()
    }

    /// Tells when to send [`Input::Tick`].
    pub fn next_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// Takes all records made since the last call, packed in pages.
    pub fn take_commit(&mut self, now: Timestamp) -> Option<Commit> {
        let _ = now;
        None
    }

    /// The journal's id.
    pub fn manager_id(&self) -> ManagerId {
        self.manager
    }

    /// How often a manager was started on this journal.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the manager takes and dispatches jobs.
    pub fn state(&self) -> ManagerState {
        ManagerState::Running
    }
}
