//! Attempts that had begun and were stopped before their end, since the worker leaves.

use carbontube_protocol::message::{HandBackReason, HandedBack, Held, HeldFor, HeldState};

use super::{Session, State};

/// One of them.
#[derive(Debug)]
pub(super) struct Abandoned {
    pub(super) manager: u8,
    /// The manager's when it was handed back.
    epoch: u64,
    back: HandedBack,
}

impl Session {
    /// The grace period is over: hands back what still runs.
    pub fn abandon_running(&mut self) {
        for (key, entry) in &self.held {
            if matches!(entry.state, State::Running { .. }) {
                self.abandoned.push(Abandoned {
                    manager: key.manager,
                    epoch: self.managers[usize::from(key.manager)].epoch,
                    back: HandedBack {
                        attempt: key.attempt,
                        job: entry.job.clone(),
                        phase: entry.phase,
                    },
                });
            }
        }
        self.hand_back_all(HandBackReason::Abandoned, |state| {
            matches!(state, State::Running { .. })
        });
    }

    /// A manager that was started again hears once more what was abandoned: its former life
    /// may have ended before it wrote that down.
    pub(super) fn repeat_abandoned(&mut self, index: u8) {
        let of_manager = |abandoned: &&Abandoned| abandoned.manager == index;
        let abandoned = self.abandoned.iter().filter(of_manager);
        let attempts = abandoned.map(|abandoned| abandoned.back.clone()).collect();
        self.hand_back(index, HandBackReason::Abandoned, attempts);
    }

    /// Heartbeats and hand-backs go different ways: a manager that was started again must
    /// not take the one for all there is before it has the other.
    pub(super) fn list_abandoned(&self, lists: &mut [HeldFor]) {
        for abandoned in &self.abandoned {
            let list = &mut lists[usize::from(abandoned.manager)];
            if list.epoch > abandoned.epoch && list.held.len() < self.profile.limits.batch_jobs_max
            {
                list.held.push(Held {
                    attempt: abandoned.back.attempt,
                    job: abandoned.back.job.clone(),
                    phase: abandoned.back.phase,
                    state: HeldState::Running,
                });
            }
        }
    }
}
