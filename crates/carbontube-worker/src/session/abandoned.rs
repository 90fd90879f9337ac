//! Attempts that had begun and were stopped before their end, since the worker leaves.

use carbontube_protocol::JobId;
use carbontube_protocol::message::{HandBackReason, HandedBack, Held, HeldFor, HeldState};

use super::{Entry, Key, Session, State};

/// One of them.
#[derive(Debug)]
pub(super) struct Abandoned {
    pub(super) manager: u8,
    /// The manager's when it was handed back.
    epoch: u64,
    back: HandedBack,
}

impl Session {
    /// A running attempt was stopped, since the worker leaves: hands it back. One that was
    /// already reported or handed back is ignored.
    pub fn abandon(&mut self, key: Key) {
        self.effects.settled = true;
        let Some(entry) = self.held.get(&key) else {
            return;
        };
        if !matches!(entry.state, State::Running { .. }) {
            return;
        }
        let back = self.note_abandoned(key, entry.job.clone(), entry.phase);
        self.forget(key);
        self.hand_back(key.manager, HandBackReason::Abandoned, vec![back]);
    }

    fn note_abandoned(&mut self, key: Key, job: JobId, phase: u16) -> HandedBack {
        let back = HandedBack {
            attempt: key.attempt,
            job,
            phase,
        };
        self.abandoned.push(Abandoned {
            manager: key.manager,
            epoch: self.managers[usize::from(key.manager)].epoch,
            back: back.clone(),
        });
        back
    }

    /// Hands back all that still runs: it was stopped, or cannot be.
    pub fn abandon_running(&mut self) {
        let running = |(key, entry): (&Key, &Entry)| {
            let runs = matches!(entry.state, State::Running { .. });
            runs.then(|| (*key, entry.job.clone(), entry.phase))
        };
        let running: Vec<_> = self.held.iter().filter_map(running).collect();
        for (key, job, phase) in running {
            self.note_abandoned(key, job, phase);
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
            if list.epoch != abandoned.epoch && list.held.len() < self.profile.limits.batch_jobs_max
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
