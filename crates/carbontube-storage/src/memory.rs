//! A store in memory: for tests and for pipelines that may forget.
//!
//! It promises everything the others do except to survive its process.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::error::StoreError;
#[cfg(any(test, feature = "testing"))]
use crate::faults::{Fault, Faults};
use crate::page::{Log, PageSeq};
use crate::paged::{Backend, Batch, PagedStore, VisitFrame};

/// Pages and head in memory.
#[derive(Debug, Default)]
pub struct Memory {
    stored: Stored,
    warnings: Vec<String>,
    #[cfg(any(test, feature = "testing"))]
    faults: Faults,
}

/// All that a memory store holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) head: Option<Vec<u8>>,
    pub(crate) pages: [BTreeMap<PageSeq, Vec<u8>>; 2],
}

impl Stored {
    pub(crate) fn apply(&mut self, batch: &Batch) {
        for (log, seq, frame) in &batch.put {
            self.pages[log.index()].insert(*seq, frame.clone());
        }
        for (log, range) in &batch.remove {
            let kept = self.pages[log.index()].split_off(&PageSeq(range.end));
            self.pages[log.index()] = kept;
        }
        self.head = Some(batch.head.clone());
    }
}

impl Memory {
    /// A new, empty store.
    #[must_use]
    pub fn store() -> PagedStore<Memory> {
        Memory::create(Memory::default())
    }

    /// A store on a disk of the simulator: new, or as it was left there.
    ///
    /// # Errors
    ///
    /// As opening any store, and [`StoreError::Locked`] while another store
    /// has the same disk open.
    #[cfg(any(test, feature = "testing"))]
    pub fn store_on(faults: &Faults) -> Result<PagedStore<Memory>, StoreError> {
        let memory = Memory {
            stored: faults.attach()?,
            warnings: Vec::new(),
            faults: faults.clone(),
        };
        match memory.stored.head {
            None => PagedStore::create(memory, [0; 16]),
            Some(_) => PagedStore::open(memory),
        }
    }

    fn create(mut memory: Memory) -> PagedStore<Memory> {
        memory.warnings = vec![
            "the journal is kept in memory: no job survives the end of the manager".to_owned(),
        ];
        PagedStore::create(memory, [0; 16]).expect("memory without faults takes the first head")
    }
}

impl Backend for Memory {
    fn head(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.stored.head.clone())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        match self.faults.before_commit(batch) {
            None => {}
            Some(Fault::Refused(error)) => return Err(error),
            Some(Fault::Unconfirmed(error)) => {
                self.stored.apply(batch);
                return Err(error);
            }
        }
        self.stored.apply(batch);
        Ok(())
    }

    fn page(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.stored.pages[log.index()].get(&seq).cloned())
    }

    fn pages(
        &mut self,
        log: Log,
        from: PageSeq,
        visit: &mut VisitFrame<'_>,
    ) -> Result<(), StoreError> {
        for (seq, frame) in self.stored.pages[log.index()].range(from..) {
            if let ControlFlow::Break(()) = visit(*seq, frame)? {
                break;
            }
        }
        Ok(())
    }

    fn bytes(&mut self) -> Result<u64, StoreError> {
        let pages = self.stored.pages.iter().flat_map(BTreeMap::values);
        Ok(pages.map(|frame| frame.len() as u64).sum())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(durable) = self.faults.reopen()? {
            self.stored = durable;
        }
        Ok(())
    }

    fn place(&self) -> &str {
        "memory:"
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

#[cfg(any(test, feature = "testing"))]
impl Drop for Memory {
    fn drop(&mut self) {
        self.faults.detach();
    }
}
