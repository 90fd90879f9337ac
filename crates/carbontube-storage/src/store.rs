//! The [`Store`] trait: all that a manager asks of the place its jobs live in.

use std::ops::ControlFlow;

use crate::error::StoreError;
use crate::page::{Bounds, Log, PageSeq};

/// A durable home for two page logs, with one writer.
///
/// A store keeps bytes; it never looks into a page. All calls block, so a
/// manager runs its store on a thread of its own.
///
/// # When a commit fails
///
/// Errors for which [`StoreError::needs_reopen`] is false refuse the commit
/// as it was given: nothing was stored and the store goes on. After any other
/// error nobody knows whether the commit happened: the disk may have it and
/// the confirmation been lost. The store then answers
/// [`StoreError::Poisoned`] to everything until [`Store::reopen`] succeeds,
/// and that call says which of the two it was:
///
/// ```
/// # use carbontube_storage::{Commit, InDoubt, Store, StoreError};
/// # fn wait() {}
/// fn commit_surely(store: &mut dyn Store, commit: &Commit) -> Result<(), StoreError> {
///     loop {
///         match store.commit(commit) {
///             Err(error) if error.is_temporary() => {}
///             done_or_hopeless => return done_or_hopeless,
///         }
///         loop {
///             match store.reopen() {
///                 Ok(Some(InDoubt::Applied)) => return Ok(()),
///                 Ok(_) => break,
///                 Err(error) if error.is_temporary() => wait(),
///                 Err(error) => return Err(error),
///             }
///         }
///     }
/// }
/// ```
///
/// The flow is the same for every store: a full disk, a lost connection and a
/// failed sync differ only in how long the inner loop takes.
pub trait Store: Send {
    /// Puts and removes pages: all of it or nothing, and durable when this returns `Ok`.
    ///
    /// An empty commit does nothing and touches nothing.
    ///
    /// # Errors
    ///
    /// See above, and [`Commit`] for what a commit must look like.
    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError>;

    /// Shows the pages of a log in order, beginning with `from` or the oldest after it.
    ///
    /// A page of no bytes was lost to damage and given up when the journal was imported.
    ///
    /// # Errors
    ///
    /// A page that is missing or not as it was stored is [`StoreError::Damaged`];
    /// the pages before it have been shown by then.
    fn scan(&mut self, log: Log, from: PageSeq, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Reads one page, `None` if the log does not hold it any more or yet.
    ///
    /// # Errors
    ///
    /// As [`Store::scan`].
    fn read(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError>;

    /// The range of pages a log holds. Costs nothing.
    fn bounds(&self, log: Log) -> Bounds;

    /// How much the store holds and takes up.
    ///
    /// # Errors
    ///
    /// When the store can't be asked.
    fn usage(&mut self) -> Result<Usage, StoreError>;

    /// Opens the store anew after a failure and verifies everything again.
    ///
    /// Says what became of the commit that failed, if one did. Calling it on
    /// a healthy store is allowed and answers `None`.
    ///
    /// # Errors
    ///
    /// As opening does. The store stays poisoned and the question stays open;
    /// call it again when the cause is gone.
    fn reopen(&mut self) -> Result<Option<InDoubt>, StoreError>;

    /// Where the store is, to be shown to people; never holds a password.
    fn place(&self) -> &str;

    /// What an operator should know about this store's promises, one sentence each.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// What a scan shows each page to; it says whether to go on.
pub type Visit<'a> = dyn FnMut(PageSeq, &[u8]) -> ControlFlow<()> + 'a;

/// What became of a commit that ended in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDoubt {
    /// It is stored, whole and durable, as if it had been confirmed.
    Applied,
    /// Nothing of it is stored, and nothing of it will ever be.
    NotApplied,
}

/// How much a store holds and takes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What the store takes up where it lives: on disk, or in a server's memory.
    pub bytes: u64,
    /// The pages of the journal.
    pub journal: Bounds,
    /// The pages of the history.
    pub history: Bounds,
}

impl Usage {
    /// How many pages there are in both logs.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.journal.pages() + self.history.pages()
    }
}

/// What one commit changes.
///
/// The pages of each log must follow on from its last one without a gap, each
/// at least one byte and at most [`PAGE_BYTES_MAX`](crate::PAGE_BYTES_MAX)
/// long. Pages are put first, then the fronts are removed, so a commit may
/// remove what it has put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    puts: Vec<Page>,
    first: [Option<PageSeq>; 2],
}

/// A page to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The log it goes to.
    pub log: Log,
    /// Its place in that log.
    pub seq: PageSeq,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl Commit {
    /// A commit that changes nothing yet.
    #[must_use]
    pub fn new() -> Commit {
        Commit::default()
    }

    /// Adds a page at the end of its log.
    pub fn put(&mut self, log: Log, seq: PageSeq, bytes: Vec<u8>) -> &mut Commit {
        self.puts.push(Page { log, seq, bytes });
        self
    }

    /// Removes all pages of a log before `first`, which need not exist yet.
    ///
    /// Removing what is already gone is nothing; the last call for a log counts.
    pub fn truncate_before(&mut self, log: Log, first: PageSeq) -> &mut Commit {
        self.first[log.index()] = Some(first);
        self
    }

    /// The pages to be put, in the order in which they were added.
    #[must_use]
    pub fn pages(&self) -> &[Page] {
        &self.puts
    }

    /// Where a log begins after this commit, if it removes anything from it.
    #[must_use]
    pub fn first(&self, log: Log) -> Option<PageSeq> {
        self.first[log.index()]
    }

    /// Whether the commit changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.first == [None, None]
    }
}
