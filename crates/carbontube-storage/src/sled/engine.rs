//! The sled database itself: how it is opened, written, looked at and given up.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::commit::{self, HEAD_KEY, HEAD_TAG, Leftovers, key};
use super::contain::{contain, contain_within};
use super::copy::{Copy, remove_unfinished_snapshots};
use super::disk::Disk;
use super::folder::{Folder, Marker, Witness, io as io_error, is_full};
use crate::error::{Damage, StoreError};
use crate::head::Head;
use crate::page::{Log, PageSeq};
use crate::paged::{Backend, Batch, PagedStore, VisitFrame, verify, with_sources};
use crate::private;

/// A node over a quarter of this goes to a file that is never synced; 8 MiB
/// keep every node of pages well below that. It is stored in the database
/// and can't be changed for an existing one.
pub(super) const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// The journal is written and hardly ever read, so there is little to cache.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// sled frees its memory through epochs, too slowly for large commits.
const EPOCH_FLUSHES: usize = 4;

/// sled waits for its threads without end when one of them has died.
const CLOSING_PATIENCE: Duration = Duration::from_secs(20);

/// Its lock outlives the database by a moment, until its threads let go.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// A page store in a sled database.
#[derive(Debug)]
pub struct Sled {
    folder: Folder,
    witness: Witness,
    open: Option<Database>,
    disk: Disk,
    #[cfg(test)]
    writes: commit::faults::WriteFaults,
}

#[derive(Debug)]
struct Database {
    db: sled::Db,
    /// The data file through a descriptor of our own, to sync it.
    data: File,
}

/// Opens an existing journal; `None` when there is none.
pub(crate) fn open(path: &Path, pipeline: &str) -> Result<Option<PagedStore<Sled>>, StoreError> {
    let Some((folder, marker)) = Folder::hold(path)? else {
        return Ok(None);
    };
    if marker.pipeline != pipeline {
        return Err(StoreError::OtherPipeline {
            place: folder.place().to_owned(),
            expected: pipeline.to_owned(),
            found: marker.pipeline,
        });
    }
    let (witness, _) = Witness::open(&folder)?;
    let mut sled = Sled {
        folder,
        witness,
        open: None,
        disk: Disk::default(),
        #[cfg(test)]
        writes: Default::default(),
    };
    sled.start()?;
    PagedStore::open(sled).map(Some)
}

/// Makes a new journal; `fill` puts into it what it begins with.
///
/// Only when that has succeeded, and all of it is durable, is it a journal.
pub(crate) fn create(
    path: &Path,
    pipeline: &str,
    identity: [u8; 16],
    fill: impl FnOnce(Sled) -> Result<PagedStore<Sled>, StoreError>,
) -> Result<PagedStore<Sled>, StoreError> {
    let marker = Marker {
        pipeline: pipeline.to_owned(),
    };
    let folder = Folder::begin(path, &marker)?;
    let witness = Witness::create(&folder, identity)?;
    let database = folder.database();
    private::create_folder(&database).map_err(io_error(
        folder.place(),
        "make the folder",
        &database,
    ))?;
    // sled would make its data file for everybody; one that is there and empty it takes.
    let data = database.join("db");
    private::create(&data).map_err(io_error(folder.place(), "make", &data))?;
    let open = Database::open(&folder)?;
    open.pad(&folder)?;
    let store = fill(Sled {
        folder,
        witness,
        open: Some(open),
        disk: Disk::default(),
        #[cfg(test)]
        writes: Default::default(),
    })?;
    store.backend().folder.finish()?;
    Ok(store)
}

impl Sled {
    /// Opens the database, having seen that it is whole.
    fn start(&mut self) -> Result<(), StoreError> {
        check_no_blobs(&self.folder)?;
        let copy = Copy::of(&self.folder)?;
        let head = verify_copy(&copy, self.folder.place())?;
        drop(copy);
        let (witness, confirmed) = check_witness(&self.folder, &head)?;
        self.witness = witness;
        let path = self.folder.database();
        remove_unfinished_snapshots(&path).map_err(io_error(
            self.folder.place(),
            "remove unfinished snapshots from",
            &path,
        ))?;
        // A process that ended between a failed sync and its reopening left the mark, or
        // a commit that nobody confirmed.
        let unsynced = self.folder.is_marked_unsynced() || head.commit > confirmed;
        if unsynced {
            self.disk.write_again(&path).map_err(io_error(
                self.folder.place(),
                "write again, because a sync failed or was cut short,",
                &path,
            ))?;
        }
        let database = Database::open(&self.folder)?;
        self.sweep(&database)?;
        // Opening may have moved things about; what comes next relies on them.
        if let Err(error) = database.sync(&self.folder, &self.disk) {
            self.folder.mark_unsynced();
            close(database);
            return Err(error);
        }
        self.open = Some(database);
        self.witness.record(&self.folder, head.commit)?;
        self.folder.unmark_unsynced()
    }

    /// Removes what a commit that ended in the middle has left.
    fn sweep(&self, database: &Database) -> Result<(), StoreError> {
        let swept = on_engine(self.folder.place(), || {
            Leftovers::of(&database.db)?.sweep(&database.db)
        })?;
        if swept > 0 {
            let place = self.folder.place();
            log::info!("{place}: removed {swept} pages of a commit that was cut short");
        }
        Ok(())
    }

    fn apply_and_sync(&self, batch: &Batch) -> Result<(), StoreError> {
        let database = self.database()?;
        on_engine(self.folder.place(), || {
            #[cfg(test)]
            return self.writes.write(&database.db, batch);
            #[cfg(not(test))]
            commit::write(&database.db, batch)
        })?;
        database.sync(&self.folder, &self.disk)
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.open.as_ref().ok_or_else(|| StoreError::Poisoned {
            cause: "its database is closed".to_owned(),
        })
    }
}

/// The witness of a journal, which must know of nothing newer than its head.
fn check_witness(folder: &Folder, head: &Head) -> Result<(Witness, u64), StoreError> {
    let damaged = StoreError::damaged(folder.place());
    let (witness, confirmed) = Witness::open(folder)?;
    if head.identity != witness.identity() {
        return Err(damaged(Damage::Other {
            what: "the record of the last confirmed commit is another journal's".to_owned(),
        }));
    }
    if head.commit < confirmed {
        return Err(damaged(Damage::WentBack {
            confirmed,
            found: head.commit,
        }));
    }
    Ok((witness, confirmed))
}

/// The last commit that was confirmed, where that can be told.
pub(crate) fn confirmed(folder: &Folder) -> Option<u64> {
    let (_, commit) = Witness::open(folder).ok()?;
    Some(commit)
}

/// What looking at a journal has found.
pub(crate) enum Finding {
    /// It can be opened, everything is there.
    Sound(Head),
    /// It would be refused.
    Damaged {
        reasons: Vec<String>,
        /// Without sled's snapshot files everything is there.
        snapshot_only: bool,
    },
}

/// Looks at a journal as opening does, and goes on where that would stop.
pub(crate) fn examine(folder: &Folder) -> Result<Finding, StoreError> {
    let mut reasons = Vec::new();
    // Damage is what is being looked for; anything else ends the search.
    let mut note = |error: StoreError| match error {
        StoreError::Damaged { damage, .. } => {
            reasons.push(damage.to_string());
            Ok(())
        }
        other => Err(other),
    };
    check_no_blobs(folder).or_else(&mut note)?;
    let mut verified = verify_copy(&Copy::of(folder)?, folder.place());
    let mut snapshot_only = false;
    if let Err(error) = verified {
        note(error)?;
        let copy = Copy::of(folder)?;
        let removed = copy.remove_snapshots().map_err(io_error(
            folder.place(),
            "remove the snapshot files in",
            copy.path(),
        ))?;
        verified = verify_copy(&copy, folder.place());
        snapshot_only = removed && verified.is_ok();
    }
    match &verified {
        Ok(head) => {
            if let Err(error) = check_witness(folder, head) {
                snapshot_only = false;
                note(error)?;
            }
        }
        Err(_) => {
            if let Err(error) = Witness::open(folder) {
                note(error)?;
            }
        }
    }
    match verified {
        Ok(head) if reasons.is_empty() => Ok(Finding::Sound(head)),
        _ => Ok(Finding::Damaged {
            reasons,
            snapshot_only,
        }),
    }
}

fn verify_copy(copy: &Copy, place: &str) -> Result<Head, StoreError> {
    let bytes = folder_bytes(copy.path()).unwrap_or(0);
    // A thousandth of the speed of any disk met; only a search without end is that slow.
    let patience = Duration::from_secs(60 + bytes / 1_000_000);
    let path = copy.path().to_owned();
    let at = place.to_owned();
    let outcome = contain_within(patience, move || {
        let db = config(&path).flush_every_ms(None).open();
        let db = db.map_err(|error| damage_or_trouble(&at, error))?;
        let leftovers = on_engine(&at, || Leftovers::of(&db))?;
        verify(&mut CopyReader {
            db,
            leftovers,
            place: at,
        })
    });
    outcome.unwrap_or_else(|reason| {
        Err(StoreError::damaged(place)(Damage::Other {
            what: format!("sled cannot open it: {reason}"),
        }))
    })
}

fn config(path: &Path) -> sled::Config {
    sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(500))
}

impl Database {
    fn open(folder: &Folder) -> Result<Database, StoreError> {
        let path = folder.database();
        let deadline = Instant::now() + RELEASE_PATIENCE;
        let db = loop {
            let opened = contain(|| config(&path).open())
                .map_err(|reason| engine_error(folder.place(), reason))?;
            match opened {
                Ok(db) => break db,
                Err(error) if is_lock(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) if is_lock(&error) => {
                    return Err(StoreError::Locked {
                        place: folder.place().to_owned(),
                        holder: "a database of this process that could not be closed".to_owned(),
                    });
                }
                Err(error) => return Err(trouble(folder.place(), error)),
            }
        };
        let data = File::open(path.join("db")).map_err(io_error(
            folder.place(),
            "open the data file in",
            &path,
        ))?;
        Ok(Database { db, data })
    }

    fn sync(&self, folder: &Folder, disk: &Disk) -> Result<(), StoreError> {
        on_engine(folder.place(), || self.db.flush())?;
        let path = folder.database();
        disk.sync(&self.data, &path).map_err(io_error(
            folder.place(),
            "sync the data file in",
            &path,
        ))
    }

    /// Surrounds the head with keys that never change.
    ///
    /// sled rewrites a whole node every few changes of any key in it. The
    /// head changes with each commit; in a node with pages it would have
    /// hundreds of kilobytes rewritten all the time.
    fn pad(&self, folder: &Folder) -> Result<(), StoreError> {
        on_engine(folder.place(), || {
            let mut batch = sled::Batch::default();
            for number in 0..2 * PADS_EACH_SIDE {
                let side = if number < PADS_EACH_SIDE { b'0' } else { b'2' };
                batch.insert(&[HEAD_TAG, side, number], &[]);
            }
            self.db.apply_batch(batch)
        })
    }
}

/// A node holds at most 16 keys before it is split in two.
const PADS_EACH_SIDE: u8 = 24;

impl Backend for Sled {
    fn head(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        read_head(&self.database()?.db, self.folder.place())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.apply_and_sync(batch)
            .inspect_err(|_| self.folder.mark_unsynced())?;
        check_no_blobs(&self.folder)?;
        self.witness.record(&self.folder, batch.commit)?;
        for _ in 0..EPOCH_FLUSHES {
            crossbeam_epoch::pin().flush();
        }
        Ok(())
    }

    fn page(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        read_page(&self.database()?.db, self.folder.place(), log, seq)
    }

    fn pages(
        &mut self,
        log: Log,
        from: PageSeq,
        visit: &mut VisitFrame<'_>,
    ) -> Result<(), StoreError> {
        read_pages(&self.database()?.db, self.folder.place(), log, from, visit)
    }

    fn bytes(&mut self) -> Result<u64, StoreError> {
        let database = self.folder.database();
        folder_bytes(&database).map_err(io_error(self.folder.place(), "list", &database))
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        // Whatever failed, sled may have met a failed sync that it did not tell of.
        self.folder.mark_unsynced();
        if let Some(database) = self.open.take() {
            close(database);
        }
        self.start()
    }

    fn place(&self) -> &str {
        self.folder.place()
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        if let Some(database) = self.open.take() {
            close(database);
        }
    }
}

fn close(database: Database) {
    if let Err(reason) = contain_within(CLOSING_PATIENCE, move || drop(database)) {
        log::warn!("sled could not be closed: {reason}");
    }
}

/// A database that is only looked at.
struct CopyReader {
    db: sled::Db,
    leftovers: Leftovers,
    place: String,
}

impl Backend for CopyReader {
    fn head(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        read_head(&self.db, &self.place)
    }

    fn apply(&mut self, _: &Batch) -> Result<(), StoreError> {
        Err(engine_error(&self.place, "a copy takes nothing".to_owned()))
    }

    fn page(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        read_page(&self.db, &self.place, log, seq)
    }

    fn pages(
        &mut self,
        log: Log,
        from: PageSeq,
        visit: &mut VisitFrame<'_>,
    ) -> Result<(), StoreError> {
        let leftovers = &self.leftovers;
        read_pages(&self.db, &self.place, log, from, &mut |seq, frame| {
            if leftovers.contain(log, seq) {
                return Ok(ControlFlow::Continue(()));
            }
            visit(seq, frame)
        })
    }

    fn bytes(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn place(&self) -> &str {
        &self.place
    }
}

fn read_head(db: &sled::Db, place: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let stored = on_engine(place, || db.get(HEAD_KEY))?;
    Ok(stored.map(|bytes| bytes.to_vec()))
}

fn read_page(
    db: &sled::Db,
    place: &str,
    log: Log,
    seq: PageSeq,
) -> Result<Option<Vec<u8>>, StoreError> {
    let stored = on_engine(place, || db.get(key(log, seq)))?;
    Ok(stored.map(|bytes| bytes.to_vec()))
}

fn read_pages(
    db: &sled::Db,
    place: &str,
    log: Log,
    from: PageSeq,
    visit: &mut VisitFrame<'_>,
) -> Result<(), StoreError> {
    let mut pages = db.range(key(log, from)..=key(log, PageSeq(u64::MAX)));
    // Only the engine is contained: a panic of the visitor is its caller's.
    while let Some((key, frame)) = on_engine(place, || pages.next().transpose())? {
        let seq = key.get(1..).and_then(|seq| seq.try_into().ok());
        let Some(seq) = seq.map(u64::from_be_bytes) else {
            return Err(StoreError::damaged(place)(Damage::Other {
                what: format!("there is an entry of no page among the pages of the {log}"),
            }));
        };
        if let ControlFlow::Break(()) = visit(PageSeq(seq), &frame)? {
            break;
        }
    }
    Ok(())
}

fn on_engine<T>(place: &str, run: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    contain(run)
        .map_err(|reason| engine_error(place, reason))?
        .map_err(|error| trouble(place, error))
}

fn engine_error(place: &str, reason: String) -> StoreError {
    StoreError::Engine {
        place: place.to_owned(),
        reason,
    }
}

/// What an error means on a journal that was whole when it was opened.
fn trouble(place: &str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) if is_full(&error) => StoreError::Full {
            place: place.to_owned(),
        },
        sled::Error::Io(source) => StoreError::Io {
            action: format!("read or write the journal at {place}"),
            source,
        },
        other => engine_error(place, with_sources(&other)),
    }
}

/// What an error means while a copy is opened to see whether it is whole.
fn damage_or_trouble(place: &str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error)
            if is_full(&error) || error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            trouble(place, sled::Error::Io(error))
        }
        other => StoreError::damaged(place)(Damage::Other {
            what: format!("sled cannot open it: {}", with_sources(&other)),
        }),
    }
}

fn is_lock(error: &sled::Error) -> bool {
    // sled has no error of its own for this.
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// Files in this folder are never synced by sled; none must ever be needed.
fn check_no_blobs(folder: &Folder) -> Result<(), StoreError> {
    let blobs = folder.database().join("blobs");
    match fs::read_dir(&blobs) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(StoreError::damaged(folder.place())(Damage::Other {
                what: format!(
                    "{} is not empty, and nothing in it would survive a power cut",
                    blobs.display()
                ),
            })),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(folder.place(), "list", &blobs)(error)),
    }
}

fn folder_bytes(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let kind = match entry?.metadata() {
            Ok(kind) => kind,
            // sled replaces its snapshot files whenever it likes.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if kind.is_file() {
            bytes += kind.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::disk::faults::SyncFaults;
    use super::*;
    use crate::open::{OpenOptions, open as open_uri};
    use crate::store::{Commit, InDoubt, Store};

    fn journal(path: &Path) -> PagedStore<Sled> {
        drop(open_uri(&format!("sled:{}", path.display()), &OpenOptions::new("p")).unwrap());
        open(path, "p").unwrap().unwrap()
    }

    fn faults(store: &PagedStore<Sled>) -> SyncFaults {
        store.backend().disk.faults.clone()
    }

    fn page(seq: u64) -> Commit {
        let mut commit = Commit::new();
        commit.put(Log::Journal, PageSeq(seq), vec![seq as u8; 30_000]);
        commit
    }

    #[test]
    fn commit_found_after_a_failed_sync_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = journal(dir.path());
        let faults = faults(&store);
        store.commit(&page(1)).unwrap();
        faults.fail_next_sync();
        let error = store.commit(&page(2)).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert_eq!(store.reopen().unwrap(), Some(InDoubt::Applied));
        store.commit(&page(3)).unwrap();
        let database = store.backend().folder.database();
        drop(store);
        faults.cut_power(&database);
        let mut store = open(dir.path(), "p").unwrap().unwrap();
        for seq in 1..=3 {
            let read = store.read(Log::Journal, PageSeq(seq)).unwrap();
            assert_eq!(read, Some(vec![seq as u8; 30_000]));
        }
        assert!(!dir.path().join("unsynced").exists());
    }

    #[test]
    fn journal_that_cannot_be_written_again_after_a_failed_sync_stays_closed() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = journal(dir.path());
        let faults = faults(&store);
        faults.fail_next_sync();
        store.commit(&page(1)).unwrap_err();
        faults.fail_writing_again(true);
        for _ in 0..2 {
            let error = with_sources(&store.reopen().unwrap_err());
            assert!(
                error.contains("write again, because a sync failed"),
                "{error}"
            );
            let error = store.commit(&page(1)).unwrap_err();
            assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
            assert!(error.to_string().contains("write again"), "{error}");
        }
        faults.fail_writing_again(false);
        assert_eq!(store.reopen().unwrap(), Some(InDoubt::Applied));
    }

    /// The process ends between the sync that failed and reopening.
    #[test]
    fn journal_left_by_a_process_whose_sync_failed_is_written_again() {
        for marked in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = journal(dir.path());
            let faults = faults(&store);
            faults.fail_next_sync();
            store.commit(&page(1)).unwrap_err();
            let database = store.backend().folder.database();
            drop(store);
            let mark = dir.path().join("unsynced");
            assert!(mark.exists());
            if !marked {
                // What it wrote is ahead of what was confirmed, and that is enough.
                fs::remove_file(&mark).unwrap();
            }
            let (folder, _) = Folder::hold(dir.path()).unwrap().unwrap();
            let (witness, _) = Witness::open(&folder).unwrap();
            let mut sled = Sled {
                folder,
                witness,
                open: None,
                disk: Disk {
                    faults: faults.clone(),
                },
                writes: Default::default(),
            };
            sled.start().unwrap();
            drop(sled);
            assert!(!mark.exists());
            faults.cut_power(&database);
            let mut store = open(dir.path(), "p").unwrap().unwrap();
            let read = store.read(Log::Journal, PageSeq(1)).unwrap();
            assert_eq!(read, Some(vec![1; 30_000]));
        }
    }

    /// What a store holds: the bounds of both logs and every page.
    fn contents(store: &mut PagedStore<Sled>) -> Vec<(Log, PageSeq, Vec<u8>)> {
        let mut all = Vec::new();
        for log in Log::ALL {
            all.push((log, store.bounds(log).first, Vec::new()));
            let scanned = store.scan(log, PageSeq(0), &mut |seq, page| {
                all.push((log, seq, page.to_vec()));
                ControlFlow::Continue(())
            });
            scanned.unwrap();
        }
        all
    }

    /// Three pages come, two go: with intent and head seven keys.
    fn interrupted_commit() -> (Commit, usize) {
        let mut commit = Commit::new();
        commit
            .put(Log::Journal, PageSeq(4), vec![4; 20_000])
            .put(Log::Journal, PageSeq(5), vec![5; 20_000])
            .put(Log::History, PageSeq(1), vec![6; 20_000])
            .truncate_before(Log::Journal, PageSeq(3));
        (commit, 7)
    }

    #[test]
    fn commit_interrupted_after_any_key_is_there_whole_or_not_at_all() {
        let (commit, keys) = interrupted_commit();
        for (writes, seed) in (0..keys).flat_map(|n| [(n, 1), (n, 2)]) {
            let dir = tempfile::tempdir().unwrap();
            let mut store = journal(dir.path());
            for seq in 1..=3 {
                store.commit(&page(seq)).unwrap();
            }
            let before = contents(&mut store);
            store.backend().writes.interrupt_next(writes, seed);
            let error = store.commit(&commit).unwrap_err();
            assert!(
                error.to_string().contains("a fault was asked for"),
                "{error}"
            );
            if seed == 1 {
                // The process ends there, and the next one finds it.
                drop(store);
                store = open(dir.path(), "p")
                    .unwrap_or_else(|error| {
                        panic!("after {writes} keys: {error}");
                    })
                    .unwrap();
                let found = contents(&mut store);
                if found == before {
                    store.commit(&commit).unwrap();
                }
            } else {
                let outcome = store.reopen().unwrap_or_else(|error| {
                    panic!("after {writes} keys: {error}");
                });
                match outcome.unwrap() {
                    InDoubt::Applied => {}
                    InDoubt::NotApplied => {
                        assert_eq!(contents(&mut store), before);
                        store.commit(&commit).unwrap();
                    }
                }
            }
            let after = contents(&mut store);
            assert_eq!(after.len(), 2 + 4, "after {writes} keys");
            drop(store);
            let mut store = open(dir.path(), "p").unwrap().unwrap();
            assert_eq!(contents(&mut store), after);
        }
    }
}
