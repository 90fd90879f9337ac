//! What a process with a worker needs when it must end without its executor.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// The groups of the commands that live.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
/// How many threads of the executor run the code of a phase at this moment.
static POLLED: AtomicUsize = AtomicUsize::new(0);

fn groups() -> MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command's group, known here for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Listed(Pid);

impl Listed {
    pub(crate) fn new(group: Pid) -> Listed {
        groups().insert(group.as_raw_nonzero().get());
        Listed(group)
    }

    pub(crate) fn group(&self) -> Pid {
        self.0
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        groups().remove(&self.0.as_raw_nonzero().get());
    }
}

/// Kills (SIGKILL) the commands of all workers of this process, with all that they
/// started; for a process that ends at once.
///
/// It needs no executor and waits for nothing. Workers are not told: to go on after it
/// makes their attempts fail.
pub fn kill_commands() {
    for group in groups().iter() {
        if let Some(group) = Pid::from_raw(*group) {
            // It may have ended by itself meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Whether a thread of the executor runs the code of an async phase at this moment.
///
/// An executor that runs nothing else meanwhile may not be dead, but blocked by that
/// phase; [`BlockingPhase`](crate::BlockingPhase) is what such work belongs into.
pub fn is_phase_on_executor() -> bool {
    POLLED.load(Ordering::Relaxed) > 0
}

/// Marks that a phase's code runs on a thread of the executor, until it is dropped.
pub(crate) struct OnExecutor(());

impl OnExecutor {
    pub(crate) fn mark() -> OnExecutor {
        POLLED.fetch_add(1, Ordering::Relaxed);
        OnExecutor(())
    }
}

impl Drop for OnExecutor {
    fn drop(&mut self) {
        POLLED.fetch_sub(1, Ordering::Relaxed);
    }
}
