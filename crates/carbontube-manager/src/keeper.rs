//! The store's thread: commits in order, page reads, and what to do when the store fails.
//!
//! A commit that fails is never given up and never changed: see [`Persistence`]. So what
//! the core has decided stays decided, and nothing is confirmed that is not durable.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use carbontube_protocol::{ManagerId, Timestamp};
use carbontube_storage::{Commit, Log, PageSeq, Store};

use crate::core::{CommitId, Core, CoreOptions, Input, Recovery, StoreFault};
use crate::definition::PipelineDefinition;
use crate::error::{RunError, StartError};
use crate::persistence::{Persistence, Step, Told, read};
use crate::queue::InputQueue;
use crate::watchdog::Beat;

/// What the keeper is asked for.
#[derive(Debug)]
pub(crate) enum Task {
    Commit(CommitId, Commit),
    Read(Log, PageSeq),
    /// Look how much the store takes up.
    Measure,
}

/// The way to the store's thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// What the store's thread shows to others.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stopping: AtomicBool,
    pub(crate) disk_bytes: AtomicU64,
    pub(crate) beat: Arc<Beat>,
}

impl Keeper {
    /// Starts the thread.
    pub(crate) fn start(
        mut store: Box<dyn Store>,
        queue: Arc<InputQueue>,
        fatal: Sender<RunError>,
    ) -> Result<Keeper, StartError> {
        let (sender, tasks) = channel();
        let shared = Arc::new(Shared::default());
        let mine = shared.clone();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let work = || serve(store.as_mut(), &tasks, &queue, &mine);
                let error = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error,
                    Err(_) => RunError::Panicked { name: "store" },
                };
                let _ = fatal.send(error);
                queue.close();
            })
            .map_err(|source| StartError::Thread {
                name: "store",
                source,
            })?;
        Ok(Keeper {
            tasks: Some(sender),
            thread: Some(thread),
            shared,
        })
    }

    /// Asks for something; the answer comes through the input queue.
    pub(crate) fn ask(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            let _ = tasks.send(task);
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Finishes what was asked for, unless the store is in trouble, and closes the store.
    pub(crate) fn close(mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn serve(
    store: &mut dyn Store,
    tasks: &Receiver<Task>,
    queue: &InputQueue,
    shared: &Shared,
) -> Result<(), RunError> {
    measure(store, shared);
    while let Ok(task) = tasks.recv() {
        shared.beat.begin();
        match task {
            Task::Commit(id, commit) => {
                if !commit_surely(store, id, &commit, queue, shared)? {
                    return Ok(());
                }
                queue.put_now(Input::Committed { commit: id });
            }
            Task::Read(log, page) => {
                let bytes = read(store, log, page);
                queue.put_now(Input::PageRead { log, page, bytes });
            }
            Task::Measure => measure(store, shared),
        }
        shared.beat.end();
    }
    Ok(())
}

fn measure(store: &mut dyn Store, shared: &Shared) {
    if let Ok(usage) = store.usage() {
        shared.disk_bytes.store(usage.bytes, Ordering::Relaxed);
    }
}

/// Whether the commit is durable; `false` when the manager stops before it is.
fn commit_surely(
    store: &mut dyn Store,
    id: CommitId,
    commit: &Commit,
    queue: &InputQueue,
    shared: &Shared,
) -> Result<bool, RunError> {
    let mut tell = |Told { fault, hint }: Told| {
        let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
        match &fault {
            StoreFault::Broken(text) => {
                log::error!("{text}; no job is accepted until an operator has repaired it{hint}");
            }
            StoreFault::Full(text) | StoreFault::Unavailable(text) => {
                log::warn!("{text}; nothing is confirmed until it can be written again{hint}");
            }
        }
        queue.put_now(Input::CommitFailed { commit: id, fault });
    };
    let mut persistence = Persistence::default();
    loop {
        match persistence.step(store, commit, &mut tell) {
            Step::Durable => return Ok(true),
            Step::End(error) => return Err(error),
            Step::Wait(pause) => {
                shared.beat.end();
                thread::park_timeout(pause);
                if shared.stopping.load(Ordering::Acquire) {
                    return Ok(false);
                }
                shared.beat.begin();
            }
        }
    }
}

/// Builds the core from what the store holds.
pub(crate) fn recover(
    store: &mut dyn Store,
    definition: PipelineDefinition,
    options: CoreOptions,
    now: Timestamp,
) -> Result<Core, StartError> {
    let fresh = ManagerId::generate();
    recover_as(store, definition, options, now, fresh, fastrand::u64(..))
}

/// As [`recover`], with what is random given: the id of a new journal, and the jitter's seed.
pub(crate) fn recover_as(
    store: &mut dyn Store,
    definition: PipelineDefinition,
    options: CoreOptions,
    now: Timestamp,
    fresh: ManagerId,
    seed: u64,
) -> Result<Core, StartError> {
    let place = store.place().to_owned();
    let refused = |reason| StartError::Recovery {
        place: place.clone(),
        reason,
    };
    let mut recovery = Recovery::new(definition, options);
    for log in [Log::Journal, Log::History] {
        let mut result = Ok(());
        store
            .scan(log, PageSeq(0), &mut |seq, bytes| {
                // An empty page was given up when a damaged journal was imported: the
                // recovery has to know of it too.
                if bytes.is_empty() {
                    log::warn!("page {seq} of the {log} was lost before this journal was imported");
                }
                result = match log {
                    Log::Journal => recovery.journal_page(seq, bytes),
                    Log::History => recovery.history_page(seq, bytes),
                };
                if result.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
            .map_err(|source| StartError::Journal { source })?;
        result.map_err(refused)?;
    }
    recovery.finish(now, fresh, seed).map_err(refused)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::sync::mpsc;
    use std::time::Instant;

    use carbontube_storage::{Faults, Memory, NextCommit};

    use super::*;
    use crate::queue::Taken;

    struct Bench {
        faults: Faults,
        keeper: Keeper,
        queue: Arc<InputQueue>,
        fatal: mpsc::Receiver<RunError>,
        taken: RefCell<VecDeque<Input>>,
    }

    fn bench() -> Bench {
        let faults = Faults::new();
        let store = Memory::store_on(&faults).unwrap();
        let queue = Arc::new(InputQueue::default());
        let (sender, fatal) = channel();
        let keeper = Keeper::start(Box::new(store), queue.clone(), sender).unwrap();
        Bench {
            faults,
            keeper,
            queue,
            fatal,
            taken: RefCell::default(),
        }
    }

    impl Bench {
        fn commit(&self, id: u64) {
            let mut commit = Commit::new();
            commit.put(Log::Journal, PageSeq(id), b"a page".to_vec());
            self.keeper.ask(Task::Commit(CommitId(id), commit));
        }

        fn next(&self) -> Input {
            let mut taken = self.taken.borrow_mut();
            if taken.is_empty() {
                let mut batch = Vec::new();
                assert_eq!(
                    self.queue.take(&mut batch, None, Instant::now()),
                    Taken::Woken
                );
                taken.extend(batch);
            }
            taken.pop_front().expect("a woken queue has an input")
        }

        fn pages(self) -> u64 {
            self.keeper.close();
            assert!(self.fatal.try_recv().is_err(), "nothing fatal happened");
            let store = Memory::store_on(&self.faults).unwrap();
            store.bounds(Log::Journal).pages()
        }
    }

    #[test]
    fn commit_on_a_full_disk_is_told_once_and_durable_once_there_is_space() {
        let bench = bench();
        bench.faults.disk_full(true);
        bench.commit(1);
        assert!(matches!(
            bench.next(),
            Input::CommitFailed {
                commit: CommitId(1),
                fault: StoreFault::Full(_)
            }
        ));
        bench.faults.disk_full(false);
        assert!(matches!(
            bench.next(),
            Input::Committed {
                commit: CommitId(1)
            }
        ));
        assert_eq!(bench.pages(), 1);
    }

    #[test]
    fn commit_that_was_stored_unconfirmed_is_not_stored_again() {
        let bench = bench();
        bench.faults.next_commit(NextCommit::IsStoredUnconfirmed);
        bench.commit(1);
        bench.commit(2);
        assert!(matches!(bench.next(), Input::CommitFailed { .. }));
        for id in [1, 2] {
            match bench.next() {
                Input::Committed { commit } => assert_eq!(commit, CommitId(id)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bench.pages(), 2);
    }

    #[test]
    fn close_while_the_store_is_away_does_not_wait_for_it() {
        let bench = bench();
        let commits = bench.faults.commits();
        bench.faults.unavailable(true);
        bench.commit(1);
        assert!(matches!(
            bench.next(),
            Input::CommitFailed {
                fault: StoreFault::Unavailable(_),
                ..
            }
        ));
        let faults = bench.faults.clone();
        bench.keeper.close();
        assert_eq!(faults.commits(), commits);
    }

    #[test]
    fn commit_that_leaves_a_gap_ends_the_manager() {
        let bench = bench();
        bench.commit(7);
        assert!(matches!(bench.fatal.recv(), Ok(RunError::Refused { .. })));
    }
}
