//! The disk beneath the manager's store.

use carbontube_storage::{Faults, Memory, PagedStore, StoreError};

/// A disk that survives its manager.
#[derive(Clone, Debug)]
pub struct VirtualDisk {
    faults: Faults,
}

impl VirtualDisk {
    /// An empty disk.
    pub fn new(_seed: u64) -> VirtualDisk {
        VirtualDisk {
            faults: Faults::new(),
        }
    }

    /// Opens the store on it, or makes one.
    ///
    /// # Errors
    /// As opening a store.
    pub fn open(&self) -> Result<PagedStore<Memory>, StoreError> {
        Memory::store_on(&self.faults)
    }

    /// The machine loses power: what was not synced is lost.
    pub fn crash(&self) {
        self.faults.lose_unsynced();
    }
}
