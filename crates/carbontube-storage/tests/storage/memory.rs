//! The memory store and the faults it can be made to have.

use carbontube_storage::conformance::{Place, conformance};
use carbontube_storage::{
    Commit, Damage, Faults, InDoubt, Log, Memory, NextCommit, PageSeq, Store, StoreError,
};

struct Disk(Faults);

impl Place for Disk {
    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(Memory::store_on(&self.0)?))
    }
}

#[test]
fn memory_conforms() {
    conformance(&mut || Box::new(Disk(Faults::new())));
}

fn page(seq: u64) -> Commit {
    let mut commit = Commit::new();
    commit.put(Log::Journal, PageSeq(seq), vec![seq as u8]);
    commit
}

#[test]
fn failed_commit_poisons_until_reopened_and_says_what_became_of_it() {
    for (next, outcome, pages) in [
        (NextCommit::Fails, InDoubt::NotApplied, 1),
        (NextCommit::IsStoredUnconfirmed, InDoubt::Applied, 2),
        (NextCommit::IsVisibleNotDurable, InDoubt::Applied, 2),
    ] {
        let faults = Faults::new();
        let mut store = Memory::store_on(&faults).unwrap();
        store.commit(&page(1)).unwrap();
        faults.next_commit(next);
        let error = store.commit(&page(2)).unwrap_err();
        assert!(error.needs_reopen(), "{error}");
        for poisoned in [
            store.commit(&page(2)).unwrap_err(),
            store.read(Log::Journal, PageSeq(1)).unwrap_err(),
            store.usage().unwrap_err(),
        ] {
            assert!(matches!(poisoned, StoreError::Poisoned { .. }));
            assert!(poisoned.to_string().contains("a fault was asked for"));
        }
        assert_eq!(store.reopen().unwrap(), Some(outcome));
        assert_eq!(store.bounds(Log::Journal).pages(), pages);
        store.commit(&page(pages + 1)).unwrap();
    }
}

#[test]
fn commit_found_after_a_failed_sync_survives_a_power_cut() {
    let faults = Faults::new();
    let mut store = Memory::store_on(&faults).unwrap();
    faults.next_commit(NextCommit::IsVisibleNotDurable);
    store.commit(&page(1)).unwrap_err();
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::Applied));
    drop(store);
    faults.lose_unsynced();
    let store = Memory::store_on(&faults).unwrap();
    assert_eq!(store.bounds(Log::Journal).pages(), 1);
}

#[test]
fn full_disk_takes_nothing_and_goes_on_when_there_is_space() {
    let faults = Faults::new();
    let mut store = Memory::store_on(&faults).unwrap();
    faults.disk_full(true);
    let error = store.commit(&page(1)).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.is_temporary());
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::NotApplied));
    assert!(store.commit(&page(1)).is_err());
    faults.disk_full(false);
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::NotApplied));
    store.commit(&page(1)).unwrap();
}

#[test]
fn store_out_of_reach_stays_in_doubt_until_it_is_back() {
    let faults = Faults::new();
    let mut store = Memory::store_on(&faults).unwrap();
    faults.next_commit(NextCommit::IsStoredUnconfirmed);
    store.commit(&page(1)).unwrap_err();
    faults.unavailable(true);
    for _ in 0..3 {
        let error = store.reopen().unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    faults.unavailable(false);
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::Applied));
}

#[test]
fn confirmed_commits_that_are_gone_are_noticed() {
    let faults = Faults::new();
    let mut store = Memory::store_on(&faults).unwrap();
    store.commit(&page(1)).unwrap();
    faults.lie_about_syncs(true);
    store.commit(&page(2)).unwrap();
    faults.lose_unsynced();
    match store.reopen().unwrap_err() {
        StoreError::Damaged { damage, .. } => assert_eq!(
            damage,
            Damage::WentBack {
                confirmed: 2,
                found: 1
            }
        ),
        other => panic!("{other}"),
    }
    assert!(store.commit(&page(3)).is_err(), "it stays poisoned");
}

#[test]
fn damaged_page_is_refused_at_opening_and_names_itself() {
    let faults = Faults::new();
    let mut store = Memory::store_on(&faults).unwrap();
    store.commit(&page(1)).unwrap();
    drop(store);
    assert!(faults.damage_a_page());
    let error = Memory::store_on(&faults).unwrap_err();
    let StoreError::Damaged { damage, .. } = &error else {
        panic!("{error}");
    };
    assert!(damage.to_string().starts_with("page 1 of the journal"));
    assert!(error.hint().unwrap().contains("journal export"));
}
