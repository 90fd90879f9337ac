//! A store in memory: for tests and for pipelines that may forget.
//!
//! It promises everything the others do except to survive its process.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::error::StoreError;
use crate::page::{Log, PageSeq};
use crate::paged::{Backend, Batch, PagedStore, VisitFrame};

/// Pages and head in memory.
#[derive(Debug, Default)]
pub struct Memory {
    head: Option<Vec<u8>>,
    pages: [BTreeMap<PageSeq, Vec<u8>>; 2],
    warnings: Vec<String>,
}

impl Memory {
    /// A new, empty store.
    #[must_use]
    pub fn store() -> PagedStore<Memory> {
        let memory = Memory {
            warnings: vec![
                "the journal is kept in memory: no job survives the end of the manager".to_owned(),
            ],
            ..Memory::default()
        };
        PagedStore::create(memory, [0; 16]).expect("memory without faults takes the first head")
    }
}

impl Backend for Memory {
    fn head(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.head.clone())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        for (log, seq, frame) in &batch.put {
            self.pages[log.index()].insert(*seq, frame.clone());
        }
        for (log, range) in &batch.remove {
            let kept = self.pages[log.index()].split_off(&PageSeq(range.end));
            self.pages[log.index()] = kept;
        }
        self.head = Some(batch.head.clone());
        Ok(())
    }

    fn page(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.pages[log.index()].get(&seq).cloned())
    }

    fn pages(
        &mut self,
        log: Log,
        from: PageSeq,
        visit: &mut VisitFrame<'_>,
    ) -> Result<(), StoreError> {
        for (seq, frame) in self.pages[log.index()].range(from..) {
            if let ControlFlow::Break(()) = visit(*seq, frame)? {
                break;
            }
        }
        Ok(())
    }

    fn bytes(&mut self) -> Result<u64, StoreError> {
        let pages = self.pages.iter().flat_map(BTreeMap::values);
        Ok(pages.map(|frame| frame.len() as u64).sum())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn place(&self) -> &str {
        "memory:"
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
