//! The disk keeps what it promises, and breaks what it does not.

use std::ops::ControlFlow;

use carbontube_storage::conformance::{Place, conformance};
use carbontube_storage::{Commit, InDoubt, Store};

use super::*;

const KIND: DiskFaults = DiskFaults {
    survives: 1.0,
    tears: 0.0,
    failed_sync_keeps: 1.0,
    failed_sync_evicts: 0.0,
};
const CRUEL: DiskFaults = DiskFaults {
    survives: 0.0,
    tears: 0.0,
    failed_sync_keeps: 0.0,
    failed_sync_evicts: 0.0,
};

fn commit(seq: u64, bytes: usize) -> Commit {
    let mut commit = Commit::new();
    let page = vec![u8::try_from(seq % 251).unwrap(); bytes];
    commit.put(Log::Journal, PageSeq(seq), page);
    commit
}

fn pages(store: &mut dyn Store) -> Vec<(u64, usize)> {
    let mut found = Vec::new();
    store
        .scan(Log::Journal, PageSeq(0), &mut |seq, bytes| {
            assert!(bytes.iter().all(|byte| u64::from(*byte) == seq.0 % 251));
            found.push((seq.0, bytes.len()));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

#[test]
fn confirmed_commits_survive_any_power_cut() {
    let disk = VirtualDisk::new(1, CRUEL);
    for round in 0..20 {
        let mut store = disk.open().unwrap();
        store.commit(&commit(round + 1, 3000)).unwrap();
        assert_eq!(pages(&mut store).len() as u64, round + 1);
        disk.crash();
    }
    assert_eq!(disk.audit(), None);
}

#[test]
fn store_that_lost_its_machine_can_do_nothing_more() {
    let disk = VirtualDisk::new(1, CRUEL);
    let mut store = disk.open().unwrap();
    disk.crash();
    let mut other = disk.open().unwrap();
    assert!(store.commit(&commit(1, 10)).is_err());
    assert!(store.reopen().is_err());
    drop(store);
    other.commit(&commit(1, 10)).unwrap();
    assert!(matches!(disk.open(), Err(StoreError::Locked { .. })));
}

#[test]
fn commit_cut_short_is_all_there_or_not_at_all() {
    let mut outcomes = [0, 0];
    for seed in 0..200 {
        let mut random = Rng::with_seed(seed);
        let disk = VirtualDisk::new(seed, DiskFaults::draw(&mut random));
        let mut store = disk.open().unwrap();
        store.commit(&commit(1, 700)).unwrap();
        let at = [
            Interrupt::BeforeSync,
            Interrupt::AfterSync,
            Interrupt::BeforeAnswer,
        ][random.usize(..3)];
        disk.interrupt_next_commit(at);
        assert!(store.commit(&commit(2, 5000)).is_err());
        if random.bool() {
            disk.crash();
        }
        drop(store);
        let found = pages(&mut disk.open().unwrap());
        match &found[..] {
            [(1, 700)] => outcomes[0] += 1,
            [(1, 700), (2, 5000)] => outcomes[1] += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
        if at != Interrupt::BeforeSync {
            assert_eq!(found.len(), 2, "seed {seed}: it was synced");
        }
        assert_eq!(disk.audit(), None, "seed {seed}");
    }
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
}

#[test]
fn failed_sync_leaves_it_open_until_the_store_is_reopened() {
    let mut outcomes = [0, 0];
    for seed in 0..200 {
        let mut random = Rng::with_seed(seed);
        let disk = VirtualDisk::new(seed, DiskFaults::draw(&mut random));
        let mut store = disk.open().unwrap();
        disk.fail_next_syncs(random.u32(1..4));
        assert!(store.commit(&commit(1, 4000)).is_err());
        assert!(matches!(
            store.commit(&commit(1, 4000)),
            Err(StoreError::Poisoned { .. })
        ));
        let outcome = loop {
            if let Ok(outcome) = store.reopen() {
                break outcome;
            }
        };
        let there = usize::from(outcome == Some(InDoubt::Applied));
        outcomes[there] += 1;
        assert_eq!(pages(&mut store).len(), there, "seed {seed}");
        disk.crash();
        let mut store = disk.open().unwrap();
        assert_eq!(pages(&mut store).len(), there, "seed {seed}: for good");
        assert_eq!(disk.audit(), None, "seed {seed}");
    }
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
}

#[test]
fn full_disk_refuses_and_goes_on_once_there_is_space() {
    let disk = VirtualDisk::new(9, KIND);
    let mut store = disk.open().unwrap();
    store.commit(&commit(1, 900)).unwrap();
    disk.full(true);
    for _ in 0..5 {
        assert!(matches!(
            store.commit(&commit(2, 9000)),
            Err(StoreError::Full { .. })
        ));
        assert_eq!(store.reopen().unwrap(), Some(InDoubt::NotApplied));
    }
    disk.full(false);
    store.commit(&commit(2, 9000)).unwrap();
    assert_eq!(pages(&mut store), [(1, 900), (2, 9000)]);
    assert_eq!(disk.audit(), None);
}

#[test]
fn flipped_bit_is_refused_by_name_or_hit_nothing() {
    let mut refused = 0;
    for seed in 0..300 {
        let disk = VirtualDisk::new(seed, KIND);
        let mut store = disk.open().unwrap();
        for seq in 1..4 {
            store.commit(&commit(seq, 200)).unwrap();
        }
        drop(store);
        assert!(disk.flip_bit());
        match disk.open() {
            // One bit makes another version of a version.
            Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => refused += 1,
            Err(other) => panic!("seed {seed}: {other}"),
            Ok(mut store) => assert_eq!(pages(&mut store).len(), 3),
        }
        if disk.restore() {
            assert_eq!(pages(&mut disk.open().unwrap()).len(), 3);
        }
        assert_eq!(disk.audit(), None, "seed {seed}");
    }
    assert!(refused > 150, "{refused}");
}

#[test]
fn cut_tail_is_refused_by_name() {
    for seed in 0..100 {
        let disk = VirtualDisk::new(seed, KIND);
        let mut store = disk.open().unwrap();
        for seq in 1..6 {
            store.commit(&commit(seq, 700)).unwrap();
        }
        drop(store);
        assert!(disk.cut_tail());
        let error = disk.open().expect_err("a confirmed commit is cut");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(disk.restore());
        assert_eq!(pages(&mut disk.open().unwrap()).len(), 5);
    }
}

#[test]
fn log_of_a_long_life_stays_small() {
    let disk = VirtualDisk::new(4, KIND);
    let mut store = disk.open().unwrap();
    for seq in 1..500 {
        let mut next = commit(seq, 5000);
        next.truncate_before(Log::Journal, PageSeq(seq.saturating_sub(2).max(1)));
        store.commit(&next).unwrap();
    }
    assert_eq!(pages(&mut store).len(), 3);
    assert!(store.usage().unwrap().bytes < 2 * LOG_BYTES_MIN as u64);
    drop(store);
    disk.crash();
    assert_eq!(pages(&mut disk.open().unwrap()).len(), 3);
    assert_eq!(disk.audit(), None);
}

#[test]
fn store_over_the_disk_conforms() {
    struct Conforming(VirtualDisk);
    impl Place for Conforming {
        fn open(&self) -> Result<Box<dyn Store>, StoreError> {
            Ok(Box::new(self.0.open()?))
        }
    }
    let mut seed = 0;
    conformance(&mut || {
        seed += 1;
        Box::new(Conforming(VirtualDisk::new(seed, CRUEL)))
    });
}
