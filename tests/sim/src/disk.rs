//! A disk in memory with the product's own store on it, and everything a disk can do wrong.
//!
//! Beneath the real [`PagedStore`], with its heads, frames and checks, stands a small
//! database of the simulator's own: a log with a record for each commit, and a witness
//! that says which commit somebody was told of. Both are files whose sectors become
//! durable by a sync and otherwise by chance, so that a record can be torn, have holes, or
//! be whole though nobody knows.
//!
//! What the database promises is what [`Backend`] asks: a commit is all there or not at
//! all, durable when it returns, and after a failure its fate is known once
//! [`Backend::reopen`] has returned. It trusts neither the cache nor a failed sync: what it
//! finds unconfirmed at the end of its log it writes once more and syncs before it counts.
//!
//! Damage (a flipped bit, a cut tail) is put on a disk at rest. The store then has to
//! refuse by name, or serve exactly what was stored because the damage hit nothing that
//! matters: [`VirtualDisk::audit`] compares every page with what was given. A world goes on
//! after a refusal as an operator would who has a copy: [`VirtualDisk::restore`] puts the
//! intact bytes back.

mod file;
mod log;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carbontube_storage::{
    Backend, Batch, Bounds, Damage, Frame, Head, Log, PageSeq, PagedStore, StoreError, VisitFrame,
};
use fastrand::Rng;

pub use file::DiskFaults;
use file::{SECTOR_BYTES, VirtualFile};

const PLACE: &str = "virtual:disk";
/// A log that is larger, and mostly of no use any more, is written anew.
const LOG_BYTES_MIN: usize = 256 << 10;

/// Where a commit is when the machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Its record is written but not synced.
    BeforeSync,
    /// Its record is synced, nobody is told.
    AfterSync,
    /// All is done but the answer.
    BeforeAnswer,
}

/// See the file's description. Clones share the disk.
#[derive(Clone, Debug)]
pub struct VirtualDisk {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
struct Disk {
    faults: DiskFaults,
    random: Rng,
    log: VirtualFile,
    witness: VirtualFile,
    /// The store that is open; another's calls fail.
    open: Option<u64>,
    opened: u64,
    full: bool,
    failing_syncs: u32,
    interrupt: Option<Interrupt>,
    /// What the last operator's copy of the log looks like, while there is damage.
    intact: Option<Vec<u8>>,
    truth: Truth,
    audit: Option<String>,
    syncs: u64,
}

/// What was given to the disk, kept apart from its bytes.
#[derive(Debug, Default)]
struct Truth {
    head: Option<Vec<u8>>,
    pages: BTreeMap<(Log, PageSeq), Vec<u8>>,
    in_doubt: Option<Batch>,
}

/// The database on a [`VirtualDisk`] that a [`PagedStore`] works with.
#[derive(Debug)]
pub struct DiskBackend {
    disk: VirtualDisk,
    opened: u64,
    index: log::Index,
    last: Option<u64>,
}

impl VirtualDisk {
    /// An empty disk; its luck comes from the seed.
    pub fn new(seed: u64, faults: DiskFaults) -> VirtualDisk {
        VirtualDisk {
            disk: Arc::new(Mutex::new(Disk {
                faults,
                random: Rng::with_seed(seed),
                log: VirtualFile::default(),
                witness: VirtualFile::default(),
                open: None,
                opened: 0,
                full: false,
                failing_syncs: 0,
                interrupt: None,
                intact: None,
                truth: Truth::default(),
                audit: None,
                syncs: 0,
            })),
        }
    }

    /// Opens the store on it, or makes one where there is none.
    ///
    /// # Errors
    /// As opening any store; [`StoreError::Locked`] while another one has it open.
    pub fn open(&self) -> Result<PagedStore<DiskBackend>, StoreError> {
        let mut disk = self.lock();
        if disk.open.is_some() {
            return Err(StoreError::Locked {
                place: PLACE.to_owned(),
                holder: "another store".to_owned(),
            });
        }
        disk.opened += 1;
        disk.open = Some(disk.opened);
        // It was for a process that is gone.
        disk.interrupt = None;
        let mut backend = DiskBackend {
            disk: self.clone(),
            opened: disk.opened,
            index: log::Index::default(),
            last: None,
        };
        drop(disk);
        backend.load()?;
        let store = match backend.index.head {
            None => PagedStore::create(backend, *b"a virtual store!")?,
            Some(_) => PagedStore::open(backend)?,
        };
        let mut disk = self.lock();
        disk.intact = None;
        disk.audit(&store.backend().index);
        drop(disk);
        Ok(store)
    }

    /// The power goes: what was not synced is lost, torn or kept by chance. A store that is
    /// still open is cut off.
    pub fn crash(&self) {
        let mut disk = self.lock();
        let Disk {
            faults,
            random,
            log,
            witness,
            ..
        } = &mut *disk;
        log.crash(faults, random);
        witness.crash(faults, random);
        disk.open = None;
        disk.interrupt = None;
    }

    /// Whether the disk is full.
    pub fn full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Lets the next syncs fail.
    pub fn fail_next_syncs(&self, syncs: u32) {
        self.lock().failing_syncs = syncs;
    }

    /// Stops the next commit at a place, as if its process ended there.
    pub fn interrupt_next_commit(&self, at: Interrupt) {
        self.lock().interrupt = Some(at);
    }

    /// Changes one bit of the log at rest; false when there is nothing yet.
    pub fn flip_bit(&self) -> bool {
        self.damage(|bytes, random| {
            let bit = random.usize(..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        })
    }

    /// Cuts some bytes off the end of the log at rest; false when there is nothing yet.
    pub fn cut_tail(&self) -> bool {
        self.damage(|bytes, random| {
            let cut = random.usize(1..=bytes.len().min(4 * SECTOR_BYTES));
            bytes.truncate(bytes.len() - cut);
        })
    }

    fn damage(&self, harm: impl FnOnce(&mut Vec<u8>, &mut Rng)) -> bool {
        let mut disk = self.lock();
        // At rest nothing is on its way any more.
        disk.log.sync();
        disk.witness.sync();
        let intact = disk.log.bytes().to_vec();
        if intact.is_empty() {
            return false;
        }
        let mut harmed = intact.clone();
        harm(&mut harmed, &mut disk.random);
        disk.log.replace(harmed);
        disk.intact.get_or_insert(intact);
        true
    }

    /// Puts back what was there before the damage; false when there was none.
    pub fn restore(&self) -> bool {
        let mut disk = self.lock();
        let intact = disk.intact.take();
        let found = intact.is_some();
        if let Some(intact) = intact {
            disk.log.replace(intact);
        }
        found
    }

    /// What was once served other than it was stored, if anything.
    pub fn audit(&self) -> Option<String> {
        self.lock().audit.clone()
    }

    /// The pages that a log was given, whatever their bytes on the disk are.
    ///
    /// # Errors
    /// When the disk was given something that is no page.
    pub fn pages(&self, log: Log) -> Result<Vec<(PageSeq, Vec<u8>)>, String> {
        let disk = self.lock();
        let range = (log, PageSeq(0))..=(log, PageSeq(u64::MAX));
        let pages = disk.truth.pages.range(range);
        pages
            .map(|((_, seq), bytes)| {
                let frame = Frame::decode(bytes).map_err(|error| format!("page {seq}: {error}"))?;
                Ok((*seq, frame.page.to_vec()))
            })
            .collect()
    }

    /// The range of pages that the journal was given; none before it is made.
    pub fn journal_bounds(&self) -> Option<Bounds> {
        let disk = self.lock();
        let head = Head::decode(disk.truth.head.as_ref()?).ok()?;
        Some(head.journal)
    }

    /// Whether nobody knows what became of the last commit.
    pub fn is_in_doubt(&self) -> bool {
        self.lock().truth.in_doubt.is_some()
    }

    /// How many syncs the disk was asked for.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn sync(&mut self, which: impl Fn(&mut Disk) -> &mut VirtualFile) -> Result<(), StoreError> {
        self.syncs += 1;
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            let (faults, mut random) = (self.faults, self.random.fork());
            which(self).fail_sync(&faults, &mut random);
            return Err(StoreError::Io {
                action: format!("sync {PLACE}"),
                source: io::Error::other("a fault was asked for"),
            });
        }
        which(self).sync();
        Ok(())
    }

    fn audit(&mut self, index: &log::Index) {
        let found = self.truth.differs(index, self.log.bytes());
        if let Some(found) = found {
            self.audit.get_or_insert(found);
        }
    }

    fn confirmed(&self) -> Option<u64> {
        let slots = self.witness.bytes().chunks(SECTOR_BYTES);
        slots.filter_map(read_witness).max()
    }

    fn confirm(&mut self, commit: u64) -> Result<(), StoreError> {
        let mut slot = commit.to_be_bytes().to_vec();
        slot.extend_from_slice(&crc32c::crc32c(&slot).to_be_bytes());
        // In turn, so that one of them is whole whatever happens to the other.
        let at = SECTOR_BYTES * usize::from(commit % 2 == 1);
        let length = self.witness.bytes().len();
        if length < 2 * SECTOR_BYTES {
            let missing = vec![0; 2 * SECTOR_BYTES - length];
            self.witness.write(length, &missing);
        }
        self.witness.write(at, &slot);
        self.sync(|disk| &mut disk.witness)
    }

    /// Stops here if that was asked for.
    fn interrupt(&mut self, at: Interrupt) -> Result<(), StoreError> {
        if self.interrupt == Some(at) {
            self.interrupt = None;
            self.open = None;
            return Err(unavailable());
        }
        Ok(())
    }
}

fn read_witness(slot: &[u8]) -> Option<u64> {
    let commit: [u8; 8] = slot.get(..8)?.try_into().ok()?;
    let crc = u32::from_be_bytes(slot.get(8..12)?.try_into().ok()?);
    (crc == crc32c::crc32c(&commit)).then(|| u64::from_be_bytes(commit))
}

fn unavailable() -> StoreError {
    StoreError::Unavailable {
        place: PLACE.to_owned(),
        reason: "the machine has stopped".to_owned(),
    }
}

impl Truth {
    fn apply(&mut self, batch: Batch) {
        for (log, seq, frame) in batch.put {
            self.pages.insert((log, seq), frame);
        }
        for (log, range) in batch.remove {
            self.pages
                .retain(|(found, seq), _| *found != log || !range.contains(&seq.0));
        }
        self.head = Some(batch.head);
    }

    /// What differs between what was given and what is served, in words.
    fn differs(&self, index: &log::Index, bytes: &[u8]) -> Option<String> {
        let at = |place: &log::Place| bytes.get(place.clone());
        if index.head.as_ref().map(at) != self.head.as_ref().map(|head| Some(head.as_slice())) {
            return Some("its head is not the one that was stored".to_owned());
        }
        for key in self.pages.keys().chain(index.pages.keys()) {
            let (stored, served) = (self.pages.get(key), index.pages.get(key).map(at));
            if stored.map(|frame| Some(frame.as_slice())) != served {
                let (log, seq) = key;
                return Some(format!(
                    "page {seq} of the {log} is not the one that was stored"
                ));
            }
        }
        None
    }
}

impl DiskBackend {
    fn disk(&self) -> Result<MutexGuard<'_, Disk>, StoreError> {
        let disk = self.disk.lock();
        if disk.open == Some(self.opened) {
            Ok(disk)
        } else {
            Err(unavailable())
        }
    }

    /// Reads the log, and makes durable what it finds whole at its end.
    fn load(&mut self) -> Result<(), StoreError> {
        let mut disk = self.disk()?;
        let confirmed = disk.confirmed();
        let bytes = disk.log.bytes().to_vec();
        let scan = log::scan(&bytes, confirmed);
        if let Some(confirmed) = confirmed
            && scan.last.is_none_or(|last| last < confirmed)
        {
            let damage = match scan.end < bytes.len() {
                true => Damage::Other {
                    what: format!("its log cannot be read at byte {}", scan.end),
                },
                false => Damage::WentBack {
                    confirmed,
                    found: scan.last.unwrap_or(0),
                },
            };
            return Err(StoreError::Damaged {
                place: PLACE.to_owned(),
                damage,
            });
        }
        // The cache may show what the disk does not have.
        disk.log
            .write(scan.confirmed_end, &bytes[scan.confirmed_end..scan.end]);
        disk.log.truncate(scan.end);
        disk.sync(|disk| &mut disk.log)?;
        if let Some(last) = scan.last {
            disk.confirm(last)?;
        }
        if let Some(batch) = disk.truth.in_doubt.take()
            && scan.last == Some(batch.commit)
        {
            disk.truth.apply(batch);
        }
        // What is damaged may yet be refused by the store above.
        if disk.intact.is_none() {
            disk.audit(&scan.index);
        }
        drop(disk);
        self.index = scan.index;
        self.last = scan.last;
        Ok(())
    }

    /// A log of mostly dead records gives way to one with a single record.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        let disk = self.disk()?;
        let bytes = disk.log.bytes();
        if bytes.len() < LOG_BYTES_MIN || bytes.len() < 3 * self.index.live_bytes() {
            return Ok(());
        }
        let (Some(head), Some(commit)) = (&self.index.head, self.last) else {
            return Ok(());
        };
        let pages = self.index.pages.iter();
        let batch = Batch {
            commit,
            put: pages
                .map(|((log, seq), place)| (*log, *seq, bytes[place.clone()].to_vec()))
                .collect(),
            remove: Vec::new(),
            head: bytes[head.clone()].to_vec(),
        };
        drop(disk);
        let record = log::encode(&batch);
        // As writing another file, syncing it and giving it the name does: all or nothing.
        self.disk()?.log.replace(record.clone());
        self.index = log::scan(&record, Some(commit)).index;
        Ok(())
    }
}

impl Backend for DiskBackend {
    fn head(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let disk = self.disk()?;
        let head = self.index.head.clone();
        Ok(head.map(|place| disk.log.bytes()[place].to_vec()))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let record = log::encode(batch);
        let mut disk = self.disk()?;
        disk.truth.in_doubt = Some(batch.clone());
        let end = disk.log.bytes().len();
        if disk.full {
            let written = disk.random.usize(..record.len());
            disk.log.write(end, &record[..written]);
            return Err(StoreError::Full {
                place: PLACE.to_owned(),
            });
        }
        disk.log.write(end, &record);
        disk.interrupt(Interrupt::BeforeSync)?;
        disk.sync(|disk| &mut disk.log)?;
        disk.interrupt(Interrupt::AfterSync)?;
        disk.confirm(batch.commit)?;
        disk.interrupt(Interrupt::BeforeAnswer)?;
        if let Some(batch) = disk.truth.in_doubt.take() {
            disk.truth.apply(batch);
        }
        drop(disk);
        log::take_in(&mut self.index, &record, end)
            .expect("a record can be read where it was written");
        self.last = Some(batch.commit);
        self.rewrite()
    }

    fn page(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        let disk = self.disk()?;
        let place = self.index.pages.get(&(log, seq)).cloned();
        Ok(place.map(|place| disk.log.bytes()[place].to_vec()))
    }

    fn pages(
        &mut self,
        log: Log,
        from: PageSeq,
        visit: &mut VisitFrame<'_>,
    ) -> Result<(), StoreError> {
        let disk = self.disk()?;
        let range = (log, from)..=(log, PageSeq(u64::MAX));
        for ((_, seq), place) in self.index.pages.range(range) {
            if let ControlFlow::Break(()) = visit(*seq, &disk.log.bytes()[place.clone()])? {
                break;
            }
        }
        Ok(())
    }

    fn bytes(&mut self) -> Result<u64, StoreError> {
        Ok(self.disk()?.log.bytes().len() as u64)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.load()
    }

    fn place(&self) -> &str {
        PLACE
    }
}

impl Drop for DiskBackend {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.open == Some(self.opened) {
            disk.open = None;
        }
    }
}
