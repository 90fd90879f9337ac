//! The single cases of the conformance suite.

use std::ops::ControlFlow;

use super::Place;
use crate::error::StoreError;
use crate::page::{Bounds, Log, PAGE_BYTES_MAX, PageSeq};
use crate::store::{Commit, Store};

type Case = fn(&dyn Place);

pub(super) const CASES: [(&str, Case); 13] = [
    ("new_store_is_empty", new_store_is_empty),
    (
        "commit_is_there_after_reopening",
        commit_is_there_after_reopening,
    ),
    ("empty_commit_does_nothing", empty_commit_does_nothing),
    (
        "both_logs_change_in_one_commit",
        both_logs_change_in_one_commit,
    ),
    (
        "truncation_frees_the_front_for_good",
        truncation_frees_the_front_for_good,
    ),
    ("emptied_log_goes_on_counting", emptied_log_goes_on_counting),
    (
        "commit_may_remove_what_it_puts",
        commit_may_remove_what_it_puts,
    ),
    (
        "bad_commits_are_refused_and_change_nothing",
        bad_commits_are_refused_and_change_nothing,
    ),
    (
        "pages_of_any_bytes_and_sizes_come_back",
        pages_of_any_bytes_and_sizes_come_back,
    ),
    (
        "scan_begins_where_it_is_told_and_stops",
        scan_begins_where_it_is_told_and_stops,
    ),
    ("large_commit_is_one_commit", large_commit_is_one_commit),
    (
        "many_largest_pages_come_and_go",
        many_largest_pages_come_and_go,
    ),
    ("second_opening_is_refused", second_opening_is_refused),
];

fn open(place: &dyn Place) -> Box<dyn Store> {
    place.open().expect("the store opens")
}

fn put(store: &mut dyn Store, log: Log, seq: u64, bytes: &[u8]) {
    store
        .commit(Commit::new().put(log, PageSeq(seq), bytes.to_vec()))
        .expect("a plain commit succeeds");
}

fn all(store: &mut dyn Store, log: Log) -> Vec<(u64, Vec<u8>)> {
    let mut pages = Vec::new();
    store
        .scan(log, PageSeq::FIRST, &mut |seq, page| {
            pages.push((seq.0, page.to_vec()));
            ControlFlow::Continue(())
        })
        .expect("a whole store can be scanned");
    pages
}

fn bounds(first: u64, next: u64) -> Bounds {
    Bounds {
        first: PageSeq(first),
        next: PageSeq(next),
    }
}

fn new_store_is_empty(place: &dyn Place) {
    let mut store = open(place);
    for log in Log::ALL {
        assert_eq!(store.bounds(log), Bounds::EMPTY);
        assert_eq!(all(store.as_mut(), log), []);
        assert_eq!(store.read(log, PageSeq::FIRST).expect("read"), None);
    }
    assert_eq!(store.usage().expect("usage").pages(), 0);
    assert_eq!(store.reopen().expect("reopen"), None);
}

fn commit_is_there_after_reopening(place: &dyn Place) {
    let mut store = open(place);
    put(store.as_mut(), Log::Journal, 1, b"one");
    put(store.as_mut(), Log::Journal, 2, b"two");
    let expected = [(1, b"one".to_vec()), (2, b"two".to_vec())];
    assert_eq!(all(store.as_mut(), Log::Journal), expected);
    assert_eq!(store.reopen().expect("reopen"), None);
    assert_eq!(all(store.as_mut(), Log::Journal), expected);
    drop(store);
    let mut store = open(place);
    assert_eq!(all(store.as_mut(), Log::Journal), expected);
    assert_eq!(store.bounds(Log::Journal), bounds(1, 3));
    let usage = store.usage().expect("usage");
    assert_eq!(
        (usage.journal, usage.history),
        (bounds(1, 3), Bounds::EMPTY)
    );
    put(store.as_mut(), Log::Journal, 3, b"three");
    assert_eq!(all(store.as_mut(), Log::Journal).len(), 3);
}

fn empty_commit_does_nothing(place: &dyn Place) {
    let mut store = open(place);
    store.commit(&Commit::new()).expect("nothing to do");
    assert_eq!(store.bounds(Log::Journal), Bounds::EMPTY);
}

fn both_logs_change_in_one_commit(place: &dyn Place) {
    let mut store = open(place);
    let mut commit = Commit::new();
    commit
        .put(Log::Journal, PageSeq(1), b"j1".to_vec())
        .put(Log::History, PageSeq(1), b"h1".to_vec())
        .put(Log::Journal, PageSeq(2), b"j2".to_vec())
        .truncate_before(Log::Journal, PageSeq(2));
    store.commit(&commit).expect("both at once");
    drop(store);
    let mut store = open(place);
    assert_eq!(all(store.as_mut(), Log::Journal), [(2, b"j2".to_vec())]);
    assert_eq!(all(store.as_mut(), Log::History), [(1, b"h1".to_vec())]);
}

fn truncation_frees_the_front_for_good(place: &dyn Place) {
    let mut store = open(place);
    for seq in 1..=40 {
        put(store.as_mut(), Log::Journal, seq, &[seq as u8; 100]);
    }
    store
        .commit(Commit::new().truncate_before(Log::Journal, PageSeq(31)))
        .expect("truncating alone is a commit");
    store
        .commit(Commit::new().truncate_before(Log::Journal, PageSeq(5)))
        .expect("truncating what is gone is nothing");
    assert_eq!(store.bounds(Log::Journal), bounds(31, 41));
    assert_eq!(store.read(Log::Journal, PageSeq(30)).expect("read"), None);
    drop(store);
    let mut store = open(place);
    assert_eq!(store.bounds(Log::Journal), bounds(31, 41));
    let seqs: Vec<u64> = all(store.as_mut(), Log::Journal)
        .into_iter()
        .map(|(seq, _)| seq)
        .collect();
    assert_eq!(seqs, (31..=40).collect::<Vec<_>>());
}

fn emptied_log_goes_on_counting(place: &dyn Place) {
    let mut store = open(place);
    for seq in 1..=3 {
        put(store.as_mut(), Log::History, seq, b"x");
    }
    store
        .commit(Commit::new().truncate_before(Log::History, PageSeq(4)))
        .expect("a log may be emptied");
    drop(store);
    let mut store = open(place);
    assert_eq!(store.bounds(Log::History), bounds(4, 4));
    assert!(store.bounds(Log::History).is_empty());
    put(store.as_mut(), Log::History, 4, b"four");
    assert_eq!(all(store.as_mut(), Log::History), [(4, b"four".to_vec())]);
}

fn commit_may_remove_what_it_puts(place: &dyn Place) {
    let mut store = open(place);
    let mut commit = Commit::new();
    for seq in 1..=3 {
        commit.put(Log::Journal, PageSeq(seq), vec![seq as u8]);
    }
    commit.truncate_before(Log::Journal, PageSeq(3));
    store.commit(&commit).expect("put and removed at once");
    store.reopen().expect("reopen");
    assert_eq!(all(store.as_mut(), Log::Journal), [(3, vec![3])]);
}

fn bad_commits_are_refused_and_change_nothing(place: &dyn Place) {
    let mut store = open(place);
    put(store.as_mut(), Log::Journal, 1, b"one");
    let refused = |store: &mut dyn Store, commit: &Commit| {
        let error = store.commit(commit).expect_err("a bad commit");
        assert!(!error.needs_reopen(), "{error}");
        error
    };
    for seq in [0, 1, 3, u64::MAX] {
        let mut commit = Commit::new();
        commit.put(Log::History, PageSeq(1), b"good".to_vec()).put(
            Log::Journal,
            PageSeq(seq),
            b"bad".to_vec(),
        );
        assert!(matches!(
            refused(store.as_mut(), &commit),
            StoreError::OutOfOrder {
                expected: PageSeq(2),
                ..
            }
        ));
    }
    let too_large = vec![0; PAGE_BYTES_MAX + 1];
    assert!(matches!(
        refused(
            store.as_mut(),
            Commit::new().put(Log::Journal, PageSeq(2), too_large)
        ),
        StoreError::PageTooLarge { .. }
    ));
    assert!(matches!(
        refused(
            store.as_mut(),
            Commit::new().put(Log::Journal, PageSeq(2), Vec::new())
        ),
        StoreError::PageEmpty { .. }
    ));
    assert!(matches!(
        refused(
            store.as_mut(),
            Commit::new().truncate_before(Log::Journal, PageSeq(3))
        ),
        StoreError::TruncateBeyondEnd { .. }
    ));
    put(store.as_mut(), Log::Journal, 2, b"two");
    drop(store);
    let mut store = open(place);
    assert_eq!(all(store.as_mut(), Log::Journal).len(), 2);
    assert_eq!(all(store.as_mut(), Log::History), []);
}

fn pages_of_any_bytes_and_sizes_come_back(place: &dyn Place) {
    let mut store = open(place);
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut written = Vec::new();
    for (seq, size) in (1..).zip([1, 2, 23, 24, 25, 255, 4096, 65_536, PAGE_BYTES_MAX]) {
        let page: Vec<u8> = every_byte
            .iter()
            .copied()
            .cycle()
            .skip(seq)
            .take(size)
            .collect();
        put(store.as_mut(), Log::Journal, seq as u64, &page);
        written.push((seq as u64, page));
    }
    drop(store);
    let mut store = open(place);
    assert_eq!(all(store.as_mut(), Log::Journal), written);
    for (seq, page) in written {
        let read = store.read(Log::Journal, PageSeq(seq)).expect("read");
        assert_eq!(read, Some(page));
    }
}

fn scan_begins_where_it_is_told_and_stops(place: &dyn Place) {
    let mut store = open(place);
    for seq in 1..=20 {
        put(store.as_mut(), Log::Journal, seq, &[seq as u8]);
    }
    store
        .commit(Commit::new().truncate_before(Log::Journal, PageSeq(4)))
        .expect("truncate");
    for (from, expected) in [(0, 4..9), (4, 4..9), (6, 6..11), (19, 19..21), (21, 21..21)] {
        let mut seen = Vec::new();
        store
            .scan(Log::Journal, PageSeq(from), &mut |seq, page| {
                assert_eq!(page, [seq.0 as u8]);
                seen.push(seq.0);
                match seen.len() {
                    5 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })
            .expect("scan");
        assert_eq!(seen, expected.collect::<Vec<_>>(), "from {from}");
    }
}

fn large_commit_is_one_commit(place: &dyn Place) {
    let mut store = open(place);
    let mut commit = Commit::new();
    for seq in 1..=256 {
        commit.put(Log::Journal, PageSeq(seq), vec![seq as u8; 64 * 1024]);
    }
    store.commit(&commit).expect("16 MiB at once");
    drop(store);
    let mut store = open(place);
    assert_eq!(store.bounds(Log::Journal), bounds(1, 257));
    let last = store.read(Log::Journal, PageSeq(256)).expect("read");
    assert_eq!(last, Some(vec![0; 64 * 1024]));
}

fn many_largest_pages_come_and_go(place: &dyn Place) {
    let mut store = open(place);
    for round in 0..60_u64 {
        let mut commit = Commit::new();
        for page in 1..=4 {
            for log in Log::ALL {
                let seq = PageSeq(round * 4 + page);
                commit.put(log, seq, vec![seq.0 as u8; PAGE_BYTES_MAX]);
            }
        }
        let first = (round * 4).saturating_sub(40).max(1);
        for log in Log::ALL {
            commit.truncate_before(log, PageSeq(first));
        }
        store.commit(&commit).expect("a commit of largest pages");
    }
    drop(store);
    let mut store = open(place);
    for log in Log::ALL {
        assert_eq!(store.bounds(log), bounds(196, 241));
        assert_eq!(all(store.as_mut(), log).len(), 45);
    }
}

fn second_opening_is_refused(place: &dyn Place) {
    if !place.is_exclusive() {
        return;
    }
    let mut store = open(place);
    put(store.as_mut(), Log::Journal, 1, b"mine");
    match place.open() {
        Err(StoreError::Locked { .. }) => {}
        Err(other) => panic!("the second opening failed otherwise: {other}"),
        Ok(_) => panic!("the store was opened twice"),
    }
    put(store.as_mut(), Log::Journal, 2, b"still mine");
    drop(store);
    let mut store = open(place);
    assert_eq!(all(store.as_mut(), Log::Journal).len(), 2);
}
