//! A journal that fails: nothing is confirmed, nothing confirmed is lost.

use carbontube_manager::{Manager, RunError};
use carbontube_protocol::Codec;
use carbontube_protocol::message::{Code, EnqueueOutcome, ManagerState};
use carbontube_storage::{
    Bounds, Commit, Faults, InDoubt, Log, Memory, NextCommit, PageSeq, Store, StoreError, Usage,
    Visit,
};

use crate::support::{Client, Running, Worker, counter, id, options, run};

async fn on(faults: &Faults) -> Running {
    let disk = faults.clone();
    let open = move || Ok(Box::new(Memory::store_on(&disk)?) as Box<_>);
    Running::of(Manager::start_on(options(), open).await.expect("it starts"))
}

#[test]
fn full_disk_confirms_nothing_and_recovers_without_loss() {
    run(async {
        let faults = Faults::new();
        let manager = on(&faults).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        let mut other = Client::connect(&manager, Codec::Bincode).await;
        client.enqueue(&["film-1"]).await;

        faults.disk_full(true);
        let waiting = client.start_enqueue(&["film-2"]).await;
        other
            .stats_until("the full disk to show", |stats| {
                stats.state == ManagerState::Impaired
            })
            .await;
        let refused = other.start_enqueue(&["film-3"]).await;
        match &other.outcomes(refused).await[..] {
            [EnqueueOutcome::Rejected { code, message, .. }] => {
                assert_eq!(*code, Code::Journal);
                assert!(message.contains("no space left"), "{message}");
            }
            found => panic!("expected a rejection, found {found:?}"),
        }

        faults.disk_full(false);
        let accepted = EnqueueOutcome::Accepted { id: id("film-2") };
        assert_eq!(client.outcomes(waiting).await, [accepted]);
        other
            .stats_until("the manager to be well", |stats| {
                stats.state != ManagerState::Impaired
            })
            .await;
        manager.stop().await;

        let manager = on(&faults).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        assert_eq!(
            client.stats().await.live,
            2,
            "both confirmed jobs are there"
        );
        manager.stop().await;
    });
}

#[test]
fn commit_whose_confirmation_was_lost_is_found_out() {
    run(async {
        let faults = Faults::new();
        let manager = on(&faults).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        // Once a job is confirmed, the commit that begins the epoch is over too.
        client.enqueue(&["film-1"]).await;
        faults.next_commit(NextCommit::IsStoredUnconfirmed);
        client.enqueue(&["film-2"]).await;
        let mut cutter = Worker::start(&manager, "cut").await;
        assert_eq!(cutter.work("{}").await.job, id("film-1"));
        assert_eq!(cutter.work("{}").await.job, id("film-2"));
        manager.stop().await;
    });
}

/// A store that does with each commit what `commit` does, and has lost all pages that it had
/// at first where `lost` says so.
struct Altered<F> {
    store: Box<dyn Store>,
    commit: F,
    lost: bool,
}

impl<F> Store for Altered<F>
where
    F: FnMut(&mut dyn Store, &Commit) -> Result<(), StoreError> + Send,
{
    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        (self.commit)(&mut *self.store, commit)
    }

    fn scan(&mut self, log: Log, from: PageSeq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let lost = self.lost;
        let mut altered = |seq: PageSeq, bytes: &[u8]| visit(seq, if lost { &[] } else { bytes });
        self.store.scan(log, from, &mut altered)
    }

    fn read(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(log, seq)
    }

    fn bounds(&self, log: Log) -> Bounds {
        self.store.bounds(log)
    }

    fn usage(&mut self) -> Result<Usage, StoreError> {
        self.store.usage()
    }

    fn reopen(&mut self) -> Result<Option<InDoubt>, StoreError> {
        self.store.reopen()
    }

    fn place(&self) -> &str {
        self.store.place()
    }
}

async fn end_on(mut commit: impl FnMut() -> Result<(), StoreError> + Send + 'static) -> RunError {
    let altered = Altered {
        store: Box::new(Memory::store()),
        commit: move |_: &mut dyn Store, _: &Commit| commit(),
        lost: false,
    };
    let open = move || Ok(Box::new(altered) as Box<_>);
    let manager = Running::of(Manager::start_on(options(), open).await.expect("it starts"));
    // The first commit says that a new epoch begins.
    manager.end().await.expect_err("it cannot go on")
}

#[test]
fn panic_of_the_store_ends_the_manager_with_an_error() {
    run(async {
        let error = end_on(|| panic!("a bug in the store")).await;
        assert!(
            matches!(error, RunError::Panicked { name: "store" }),
            "{error:?}"
        );
    });
}

#[test]
fn journal_taken_over_by_another_manager_ends_this_one() {
    run(async {
        let error = end_on(|| {
            Err(StoreError::Fenced {
                place: "memory:".to_owned(),
                reason: "epoch 4 writes now".to_owned(),
            })
        })
        .await;
        match error {
            RunError::Fenced { reason } => assert_eq!(reason, "epoch 4 writes now"),
            other => panic!("{other:?}"),
        }
    });
}

/// What an import leaves where the last page was beyond saving.
#[test]
fn journal_whose_last_pages_were_lost_takes_new_ones() {
    run(async {
        let faults = Faults::new();
        on(&faults).await.stop().await;
        let altered = Altered {
            store: Box::new(Memory::store_on(&faults).expect("a store")),
            commit: |store: &mut dyn Store, commit: &Commit| store.commit(commit),
            lost: true,
        };
        let open = move || Ok(Box::new(altered) as Box<_>);
        let manager = Running::of(Manager::start_on(options(), open).await.expect("it starts"));
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        client.enqueue(&["a"]).await;
        let stats = client.stats().await;
        assert_ne!(counter(&stats, "pages_lost"), 0);
        manager.stop().await;
    });
}
