//! A disk for tests and the simulator, on which a memory store can fail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::StoreError;
use crate::memory::Stored;
use crate::paged::Batch;

/// A simulated disk and the switches that make it fail.
///
/// Clones share the disk: a test keeps one, the store has the other. What
/// is on the disk stays when the store is dropped, so a manager that was
/// killed is one whose store is dropped and opened again with
/// [`Memory::store_on`](crate::Memory::store_on).
#[derive(Clone, Debug, Default)]
pub struct Faults {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    durable: Stored,
    /// To be read though not durable: confirmed while the disk lies, or after a failed sync.
    unsynced: VecDeque<Batch>,
    next: Option<NextCommit>,
    full: bool,
    unavailable: bool,
    lying: bool,
    attached: bool,
    commits: u64,
}

/// What is to happen to the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextCommit {
    /// It fails and nothing of it is stored.
    Fails,
    /// It is stored but the store says that it failed.
    IsStoredUnconfirmed,
    /// Its sync fails: it can be read but is lost with the power, until the
    /// store is reopened, which has to write it again.
    IsVisibleNotDurable,
}

/// What the store does instead of committing.
pub(crate) enum Fault {
    Refused(StoreError),
    Unconfirmed(StoreError),
}

impl Faults {
    /// A new, empty disk without faults.
    #[must_use]
    pub fn new() -> Faults {
        Faults::default()
    }

    /// Makes the next commit fail, once.
    pub fn next_commit(&self, next: NextCommit) {
        self.lock().next = Some(next);
    }

    /// Makes every commit fail with [`StoreError::Full`] for as long as it is set.
    pub fn disk_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Makes everything fail with [`StoreError::Unavailable`], opening and
    /// reopening too, for as long as it is set.
    pub fn unavailable(&self, unavailable: bool) {
        self.lock().unavailable = unavailable;
    }

    /// Makes the disk confirm without storing, as one with a careless cache does.
    ///
    /// [`Faults::lose_unsynced`] is the power cut that shows it.
    pub fn lie_about_syncs(&self, lying: bool) {
        let mut disk = self.lock();
        disk.lying = lying;
        if !lying {
            disk.sync();
        }
    }

    /// Cuts the power: what can be read but is not durable is gone.
    ///
    /// A store that is open does not notice before it is reopened.
    pub fn lose_unsynced(&self) {
        self.lock().unsynced.clear();
    }

    /// Changes one byte of the oldest stored page; false if there is none.
    pub fn damage_a_page(&self) -> bool {
        let mut disk = self.lock();
        let mut pages = disk
            .durable
            .pages
            .iter_mut()
            .flat_map(|log| log.values_mut());
        match pages.next().and_then(|frame| frame.last_mut()) {
            Some(byte) => {
                *byte ^= 0x10;
                true
            }
            None => false,
        }
    }

    /// How many commits were confirmed on this disk.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attach(&self) -> Result<Stored, StoreError> {
        let mut disk = self.lock();
        if disk.attached {
            return Err(StoreError::Locked {
                place: "memory:".to_owned(),
                holder: "another store on the same simulated disk".to_owned(),
            });
        }
        disk.check_available()?;
        disk.attached = true;
        Ok(disk.visible())
    }

    pub(crate) fn detach(&self) {
        self.lock().attached = false;
    }

    pub(crate) fn before_commit(&self, batch: &Batch) -> Option<Fault> {
        let mut disk = self.lock();
        if let Err(error) = disk.check_available() {
            return Some(Fault::Refused(error));
        }
        if disk.full {
            return Some(Fault::Refused(StoreError::Full {
                place: "memory:".to_owned(),
            }));
        }
        let failed = || StoreError::Engine {
            place: "memory:".to_owned(),
            reason: "a fault was asked for".to_owned(),
        };
        match disk.next.take() {
            Some(NextCommit::Fails) => Some(Fault::Refused(failed())),
            Some(NextCommit::IsStoredUnconfirmed) => {
                disk.store(batch);
                Some(Fault::Unconfirmed(failed()))
            }
            Some(NextCommit::IsVisibleNotDurable) => {
                disk.unsynced.push_back(batch.clone());
                Some(Fault::Unconfirmed(failed()))
            }
            None => {
                disk.store(batch);
                disk.commits += 1;
                None
            }
        }
    }

    /// What a store that starts over finds.
    pub(crate) fn reopen(&self) -> Result<Option<Stored>, StoreError> {
        let mut disk = self.lock();
        disk.check_available()?;
        // A sync alone would find nothing to do for what an earlier one failed on.
        disk.write_again();
        // A store without a disk of its own never attached to this one.
        Ok(disk.attached.then(|| disk.visible()))
    }
}

impl Disk {
    fn check_available(&self) -> Result<(), StoreError> {
        if self.unavailable {
            return Err(StoreError::Unavailable {
                place: "memory:".to_owned(),
                reason: "a fault was asked for".to_owned(),
            });
        }
        Ok(())
    }

    fn store(&mut self, batch: &Batch) {
        self.unsynced.push_back(batch.clone());
        if !self.lying {
            self.sync();
        }
    }

    /// Makes durable what can be read, as far as this disk does what it says.
    fn write_again(&mut self) {
        if !self.lying {
            self.sync();
        }
    }

    fn sync(&mut self) {
        for batch in self.unsynced.drain(..) {
            self.durable.apply(&batch);
        }
    }

    fn visible(&self) -> Stored {
        let mut stored = self.durable.clone();
        for batch in &self.unsynced {
            stored.apply(batch);
        }
        stored
    }
}
