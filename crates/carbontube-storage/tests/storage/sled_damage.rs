//! Damaged journals: refused untouched, or whole; examined, exported and imported again.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use carbontube_storage::{
    Commit, Log, LostPages, OpenOptions, PageSeq, Store, StoreError, examine, export, import,
    import_with_page, open,
};

fn options() -> OpenOptions {
    OpenOptions::new("p")
}

fn uri(path: &Path) -> String {
    format!("sled:{}", path.display())
}

type Pages = BTreeMap<(Log, u64), Vec<u8>>;

fn pages(store: &mut dyn Store) -> Pages {
    let mut pages = Pages::new();
    for log in Log::ALL {
        store
            .scan(log, PageSeq(0), &mut |seq, page| {
                pages.insert((log, seq.0), page.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    pages
}

/// A closed journal of a few hundred pages, many of them removed again.
fn journal(path: &Path) -> Pages {
    let mut store = open(&uri(path), &options()).unwrap();
    for seq in 1..=200 {
        let mut commit = Commit::new();
        let size = 500 + (seq as usize * 7919) % 9000;
        commit.put(Log::Journal, PageSeq(seq), vec![seq as u8; size]);
        commit.put(Log::History, PageSeq(seq), vec![!seq as u8; 40]);
        if seq > 50 {
            commit.truncate_before(Log::Journal, PageSeq(seq - 50));
        }
        store.commit(&commit).unwrap();
    }
    pages(store.as_mut())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file and folder with its bytes, but for the lock, which names its last holder.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.insert(entry.path(), Vec::new());
            found.extend(contents(&entry.path()));
        } else if entry.file_name() != "lock" {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn files(path: &Path) -> Vec<PathBuf> {
    let all = contents(path).into_iter();
    let files = all.filter(|(path, _)| path.is_file()).map(|(path, _)| path);
    files.collect()
}

#[test]
fn damage_anywhere_is_refused_untouched_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let expected = journal(&whole);
    let mut random = fastrand::Rng::with_seed(0xDA4A6E);
    let mut refused = 0;
    let mut harmless = 0;
    for round in 0..90 {
        let place = dir.path().join(format!("damaged-{round}"));
        copy(&whole, &place);
        let all = files(&place);
        // Half of the rounds go to the data file, it is where nearly all bytes are.
        let file = match round % 2 {
            0 => place.join("db/db"),
            _ => all[random.usize(..all.len())].clone(),
        };
        let mut bytes = fs::read(&file).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let at = random.usize(..bytes.len());
        let (what, length) = match round / 2 % 4 {
            0 => ("flip", 1),
            1 => ("zero", random.usize(1..5000)),
            2 => ("rubbish", random.usize(1..200)),
            _ => ("cut", 0),
        };
        match what {
            "cut" => bytes.truncate(at),
            _ => {
                let end = (at + length).min(bytes.len());
                for byte in &mut bytes[at..end] {
                    *byte = match what {
                        "flip" => *byte ^ 1 << random.u8(..8),
                        "zero" => 0,
                        _ => random.u8(..),
                    };
                }
            }
        }
        fs::write(&file, &bytes).unwrap();
        let name = file.strip_prefix(&place).unwrap().display().to_string();
        let what = format!("round {round}: {what} {length} at {at} in {name}");
        let before = contents(&place);
        match open(&uri(&place), &options()) {
            Ok(mut store) => {
                assert_eq!(pages(store.as_mut()), expected, "{what}: opened with less");
                harmless += 1;
            }
            Err(error) => {
                assert!(
                    matches!(
                        error,
                        StoreError::Damaged { .. }
                            | StoreError::Foreign { .. }
                            | StoreError::Format { .. }
                            | StoreError::OtherPipeline { .. }
                    ),
                    "{what}: {error:?}"
                );
                assert!(
                    contents(&place) == before,
                    "{what}: refusing changed the journal"
                );
                refused += 1;
                if matches!(error, StoreError::Damaged { .. }) {
                    check_export(&place, &expected, &what);
                    assert!(contents(&place) == before, "{what}: exporting changed it");
                }
            }
        }
        fs::remove_dir_all(&place).unwrap();
    }
    assert!(refused >= 25, "only {refused} refused, {harmless} harmless");
}

/// Exports a damaged journal, imports it and compares what came through.
fn check_export(place: &Path, expected: &Pages, what: &str) {
    if fs::read(place.join("carbontube-journal"))
        .unwrap()
        .is_empty()
    {
        return;
    }
    let file = place.with_extension("export");
    let report = match export(&uri(place), &options(), &file) {
        Ok(report) => report,
        // A marker that can't be read names no pipeline to export for.
        Err(StoreError::Damaged { .. }) => return,
        Err(other) => panic!("{what}: {other:?}"),
    };
    assert!(!report.is_sound(), "{what}");
    let again = place.with_extension("imported");
    let imported = import(&file, &uri(&again), &options(), LostPages::GiveUp).unwrap();
    let mut store = open(&uri(&again), &options()).unwrap();
    let found = pages(store.as_mut());
    let mut lost = 0;
    for (key, page) in &found {
        if page.is_empty() {
            lost += 1;
        } else if let Some(written) = expected.get(key) {
            assert_eq!(page, written, "{what}: page {key:?} came back otherwise");
        }
    }
    assert_eq!(imported.lost, lost, "{what}");
    let there = expected
        .keys()
        .filter(|key| found.get(key).is_some_and(|page| !page.is_empty()));
    let saved = there.count();
    let lost_by_report = report.journal.lost() + report.history.lost();
    assert_eq!(lost_by_report, lost, "{what}");
    // One damaged spot, or a cut, takes what it touches and no more.
    if !what.contains("cut") {
        assert!(
            saved + 3 >= expected.len(),
            "{what}: saved {saved} of {}",
            expected.len()
        );
    }
    drop(store);
    fs::remove_dir_all(&again).unwrap();
    fs::remove_file(&file).unwrap();
}

#[test]
fn export_of_a_sound_journal_holds_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    let expected = journal(&place);
    let report = examine(&uri(&place), &options()).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(
        (report.journal.lost(), report.history.lost()),
        (0, 0),
        "{report}"
    );
    let file = dir.path().join("export");
    export(&uri(&place), &options(), &file).unwrap();
    let error = export(&uri(&place), &options(), &file).unwrap_err();
    assert!(error.to_string().contains("overwritten"), "{error}");
    let again = dir.path().join("again");
    let imported = import(&file, &uri(&again), &options(), LostPages::Refuse).unwrap();
    assert_eq!((imported.pages, imported.lost), (expected.len() as u64, 0));
    let mut store = open(&uri(&again), &options()).unwrap();
    assert_eq!(pages(store.as_mut()), expected);
    assert_eq!(store.bounds(Log::Journal).next, PageSeq(201));
    drop(store);
    let error = import(&file, &uri(&again), &options(), LostPages::Refuse).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    let other = OpenOptions::new("q");
    let error = import(
        &file,
        &uri(&dir.path().join("q")),
        &other,
        LostPages::Refuse,
    )
    .unwrap_err();
    assert!(matches!(error, StoreError::OtherPipeline { .. }), "{error}");
}

#[test]
fn import_puts_one_more_page_at_the_end_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    let mut expected = journal(&place);
    let file = dir.path().join("export");
    export(&uri(&place), &options(), &file).unwrap();
    let again = dir.path().join("again");
    let (to, lost) = (uri(&again), LostPages::Refuse);
    let imported = import_with_page(&file, &to, &options(), lost, b"a word").unwrap();
    assert_eq!(imported.pages, expected.len() as u64, "those of the file");
    expected.insert((Log::Journal, 201), b"a word".to_vec());
    let mut store = open(&to, &options()).unwrap();
    assert_eq!(pages(store.as_mut()), expected);
    assert_eq!(store.bounds(Log::Journal).next, PageSeq(202));
}

/// A file is imported only by who accepts that the last commits are lost, or may be.
#[track_caller]
fn lacks_commits(file: &Path, again: &Path) {
    let error = import(file, &uri(again), &options(), LostPages::Refuse).unwrap_err();
    assert!(error.to_string().contains("commits"), "{error}");
    let imported = import(file, &uri(again), &options(), LostPages::GiveUp).unwrap();
    assert!(imported.is_older, "{imported:?}");
}

#[test]
fn export_of_an_older_copy_is_not_taken_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    let expected = journal(&place);
    let (database, older) = (place.join("db"), dir.path().join("older"));
    copy(&database, &older);
    let mut store = open(&uri(&place), &options()).unwrap();
    let mut commit = Commit::new();
    commit.put(Log::Journal, PageSeq(201), vec![1; 500]);
    store.commit(&commit).unwrap();
    drop(store);
    fs::remove_dir_all(&database).unwrap();
    copy(&older, &database);
    let report = examine(&uri(&place), &options()).unwrap();
    assert_eq!(report.commits_lost, 1, "{report}");
    let file = dir.path().join("export");
    export(&uri(&place), &options(), &file).unwrap();
    let again = dir.path().join("again");
    lacks_commits(&file, &again);
    let mut store = open(&uri(&again), &options()).unwrap();
    assert_eq!(pages(store.as_mut()), expected);
}

/// Without a head nobody can tell whether the last pages that are left are the last there were.
#[test]
fn export_without_a_readable_head_is_not_taken_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    journal(&place);
    let data = place.join("db/db");
    let mut bytes = fs::read(&data).unwrap();
    let heads: Vec<usize> = (0..bytes.len() - 4)
        .filter(|at| &bytes[*at..*at + 4] == b"CTHD")
        .collect();
    assert!(!heads.is_empty());
    for at in heads {
        bytes[at] ^= 0xff;
    }
    fs::write(&data, bytes).unwrap();
    let report = examine(&uri(&place), &options()).unwrap();
    assert_eq!(report.commit, None, "{report}");
    let file = dir.path().join("export");
    export(&uri(&place), &options(), &file).unwrap();
    let again = dir.path().join("again");
    lacks_commits(&file, &again);
}

#[test]
fn export_that_is_cut_or_changed_is_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    journal(&place);
    let file = dir.path().join("export");
    export(&uri(&place), &options(), &file).unwrap();
    let whole = fs::read(&file).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let again = dir.path().join("again");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        let error = import(&file, &uri(&again), &options(), LostPages::GiveUp).expect_err(what);
        assert!(!again.exists(), "{what}: {error}");
    };
    for round in 0..60 {
        let at = match round {
            0..20 => round * 4,
            20..40 => whole.len() - 1 - (round - 20),
            _ => random.usize(..whole.len()),
        };
        let mut changed = whole.clone();
        changed[at] ^= 1 << (round % 8);
        refused(&changed, &format!("flip at {at}"));
        refused(&whole[..at], &format!("cut at {at}"));
    }
    refused(&[&whole[..], b"x"].concat(), "one byte more");
}

#[test]
fn snapshot_that_is_damaged_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    let expected = journal(&place);
    // Only opening writes a snapshot of what is there by now.
    drop(open(&uri(&place), &options()).unwrap());
    let snapshot = files(&place)
        .into_iter()
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("snap.")
        })
        .expect("sled has written a snapshot");
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&snapshot, bytes).unwrap();
    assert!(open(&uri(&place), &options()).is_err());
    let report = examine(&uri(&place), &options()).unwrap();
    assert!(report.snapshot_only, "{report}");
    assert!(report.to_string().contains("it can do without"), "{report}");
    let file = dir.path().join("export");
    export(&uri(&place), &options(), &file).unwrap();
    let again = dir.path().join("again");
    import(&file, &uri(&again), &options(), LostPages::Refuse).unwrap();
    let mut store = open(&uri(&again), &options()).unwrap();
    assert_eq!(pages(store.as_mut()), expected);
}

#[test]
fn snapshot_that_sled_could_not_finish_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    let expected = journal(&place);
    for bytes in [&b""[..], b"half of a snapshot"] {
        let unfinished = place.join("db/snap.00FFFFFFFFFFFFFF.generating");
        fs::write(&unfinished, bytes).unwrap();
        let report = examine(&uri(&place), &options()).unwrap();
        assert!(report.is_sound(), "{report}");
        let mut store = open(&uri(&place), &options()).unwrap();
        assert_eq!(pages(store.as_mut()), expected);
        assert!(!unfinished.exists());
    }
}

#[test]
fn journal_older_than_what_was_confirmed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    let mut store = open(&uri(&place), &options()).unwrap();
    store
        .commit(Commit::new().put(Log::Journal, PageSeq(1), vec![1]))
        .unwrap();
    drop(store);
    let older = dir.path().join("older");
    copy(&place.join("db"), &older);
    let mut store = open(&uri(&place), &options()).unwrap();
    store
        .commit(Commit::new().put(Log::Journal, PageSeq(2), vec![2]))
        .unwrap();
    drop(store);
    fs::remove_dir_all(place.join("db")).unwrap();
    copy(&older, &place.join("db"));
    let error = open(&uri(&place), &options()).err().unwrap();
    let StoreError::Damaged { damage, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(
        damage.to_string(),
        "commit 2 was confirmed, but the last one that is there is 1"
    );
}

/// sled reads what is older than its snapshot only when it is asked for it.
#[test]
fn damage_older_than_the_last_opening_is_found_and_the_rest_exported() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    let expected = journal(&place);
    for _ in 0..2 {
        drop(open(&uri(&place), &options()).unwrap());
    }
    let data = place.join("db/db");
    let mut bytes = fs::read(&data).unwrap();
    let page = vec![160; 500];
    let mut at = 0;
    let mut hits = 0;
    while let Some(step) = bytes[at..].windows(500).position(|bytes| bytes == page) {
        bytes[at + step + 250] ^= 1;
        at += step + 251;
        hits += 1;
    }
    assert!(hits > 0);
    fs::write(&data, bytes).unwrap();
    let error = open(&uri(&place), &options()).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    check_export(&place, &expected, "a flip in an old page");
}
