//! Everything a store can answer instead of doing what it was asked.

use std::fmt;
use std::io;

use crate::page::{FORMAT_VERSION, FrameError, Log, PAGE_BYTES_MAX, PageSeq};

/// Why a store could not be opened or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The storage URI names no store.
    #[error(
        "storage {uri:?}: {reason}; expected memory:, sled:PATH or redis://[USER:PASSWORD@]HOST[:PORT][/DB]"
    )]
    BadUri {
        /// The URI as given, without its password.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This program was built without the store that the URI names.
    #[error("storage {uri:?}: this program was built without {feature} storage")]
    NotBuilt {
        /// The URI as given, without its password.
        uri: String,
        /// The feature that would have to be on.
        feature: &'static str,
    },
    /// There is nothing at that place and creating was not asked for.
    #[error("there is no journal at {place}")]
    Missing {
        /// Where it was looked for.
        place: String,
    },
    /// There is something at that place, but no journal of ours.
    #[error("{place} is not a carbontube journal: {found}; give a new or empty place")]
    Foreign {
        /// Where the journal should have been.
        place: String,
        /// What is there instead.
        found: String,
    },
    /// The journal belongs to another pipeline.
    #[error(
        "the journal at {place} belongs to pipeline {found:?}, it was opened for pipeline {expected:?}"
    )]
    OtherPipeline {
        /// Where the journal is.
        place: String,
        /// The pipeline it was opened for.
        expected: String,
        /// The pipeline it was created for.
        found: String,
    },
    /// Another manager holds the journal. Nothing was changed.
    #[error("the journal at {place} is in use by {holder}")]
    Locked {
        /// Where the journal is.
        place: String,
        /// Who holds it, as far as that is known.
        holder: String,
    },
    /// The journal is in a format this program does not know.
    #[error(
        "the journal at {place} is in format {found}, this program reads format {FORMAT_VERSION}"
    )]
    Format {
        /// Where the journal is.
        place: String,
        /// The format it says it is in.
        found: String,
    },
    /// The journal is damaged. Nothing in it was changed by finding out.
    #[error("the journal at {place} is damaged")]
    Damaged {
        /// Where the journal is.
        place: String,
        /// What was found.
        #[source]
        damage: Damage,
    },
    /// An exported file does not hold all of its journal, and that was not accepted.
    #[error("{file} does not hold all of its journal: {reason}")]
    Incomplete {
        /// The file.
        file: String,
        /// What is not in it.
        reason: String,
    },
    /// There is no space left to store anything. Nothing was confirmed.
    #[error("there is no space left for the journal at {place}")]
    Full {
        /// Where the journal is.
        place: String,
    },
    /// The store can't be reached at the moment; it may well be again later.
    #[error("the journal at {place} cannot be reached: {reason}")]
    Unavailable {
        /// Where the journal is.
        place: String,
        /// What happened.
        reason: String,
    },
    /// Another manager took the journal over; this one may not write any more.
    #[error("the journal at {place} was taken over by another manager: {reason}")]
    Fenced {
        /// Where the journal is.
        place: String,
        /// How that was noticed.
        reason: String,
    },
    /// An earlier commit failed, so nothing more is accepted until [`reopen`](crate::Store::reopen).
    #[error(
        "the journal takes nothing until it is reopened, because of an earlier failure: {cause}"
    )]
    Poisoned {
        /// The failure that came first.
        cause: String,
    },
    /// A page of a commit is over the limit. Nothing was stored.
    #[error("page {seq} of the {log} is {bytes} bytes, the limit is {PAGE_BYTES_MAX}")]
    PageTooLarge {
        /// The log it was for.
        log: Log,
        /// Its place in that log.
        seq: PageSeq,
        /// Its size.
        bytes: usize,
    },
    /// A page of a commit is empty, which is how a lost page is marked. Nothing was stored.
    #[error("page {seq} of the {log} is empty")]
    PageEmpty {
        /// The log it was for.
        log: Log,
        /// Its place in that log.
        seq: PageSeq,
    },
    /// A page of a commit does not follow the last one. Nothing was stored.
    #[error("the next page of the {log} is {expected}, the commit has {found}")]
    OutOfOrder {
        /// The log it was for.
        log: Log,
        /// The sequence number that had to come.
        expected: PageSeq,
        /// The one that came.
        found: PageSeq,
    },
    /// A commit would remove pages that do not exist yet. Nothing was stored.
    #[error("cannot remove the {log} up to page {found}, it ends before page {next}")]
    TruncateBeyondEnd {
        /// The log.
        log: Log,
        /// Where the log would end after this commit.
        next: PageSeq,
        /// Where it was to be cut.
        found: PageSeq,
    },
    /// The portable file of an export is not what it should be.
    #[error("{file} is no usable export: {reason}")]
    BadExport {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused something.
    #[error("cannot {action}")]
    Io {
        /// What was to be done, and to what.
        action: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The engine underneath failed in a way it should not.
    #[error("the storage engine of the journal at {place} failed: {reason}")]
    Engine {
        /// Where the journal is.
        place: String,
        /// What the engine said.
        reason: String,
    },
}

impl StoreError {
    /// Whether the store takes nothing more until it has been reopened.
    ///
    /// After such an error from a commit it is unknown whether the commit
    /// happened; [`reopen`](crate::Store::reopen) finds out.
    #[must_use]
    pub fn needs_reopen(&self) -> bool {
        !matches!(
            self,
            StoreError::PageTooLarge { .. }
                | StoreError::PageEmpty { .. }
                | StoreError::OutOfOrder { .. }
                | StoreError::TruncateBeyondEnd { .. }
                | StoreError::BadUri { .. }
                | StoreError::NotBuilt { .. }
        )
    }

    /// Whether trying again later, without anybody doing anything to the
    /// journal itself, can succeed: no space, no connection, a lock held.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            StoreError::Full { .. }
                | StoreError::Unavailable { .. }
                | StoreError::Poisoned { .. }
                | StoreError::Locked { .. }
                | StoreError::Io { .. }
                | StoreError::Engine { .. }
        )
    }

    /// A way out to show beneath the error, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StoreError::Damaged { .. } => Some(
                "`carbontube journal verify` says what is readable, `carbontube journal export` saves it",
            ),
            StoreError::Locked { .. } => Some(
                "one journal has one manager; stop the other one or give this one its own journal",
            ),
            StoreError::Full { .. } => Some("free some space; nothing confirmed is lost"),
            StoreError::Format { .. } => Some(
                "export it with the version of carbontube that wrote it, then import it with this one",
            ),
            StoreError::Incomplete { .. } => Some("--accept-loss imports what is left"),
            StoreError::NotBuilt { .. } => Some("build with `--features redis`"),
            _ => None,
        }
    }

    pub(crate) fn damaged(place: &str) -> impl Fn(Damage) -> StoreError + '_ {
        move |damage| StoreError::Damaged {
            place: place.to_owned(),
            damage,
        }
    }
}

/// One thing that is wrong with a stored journal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// The record that says what the store holds is missing.
    HeadMissing,
    /// The record that says what the store holds can't be read.
    Head {
        /// What is wrong with it.
        reason: String,
    },
    /// A page is not as it was stored.
    Page {
        /// Its log.
        log: Log,
        /// Its place in that log.
        seq: PageSeq,
        /// What is wrong with it.
        error: FrameError,
    },
    /// A page stands where another one should be.
    Misplaced {
        /// The log that was read.
        log: Log,
        /// The place that was read.
        seq: PageSeq,
        /// The log the page there belongs to.
        found_log: Log,
        /// The place the page there belongs to.
        found_seq: PageSeq,
    },
    /// Pages that must be there are not.
    Gap {
        /// Their log.
        log: Log,
        /// The first one missing.
        from: PageSeq,
        /// The first one after it that is there again, or the end of the log.
        to: PageSeq,
    },
    /// A page is there that is not in the bounds of its log.
    Stray {
        /// Its log.
        log: Log,
        /// Its sequence number.
        seq: PageSeq,
    },
    /// The store has gone back to a state older than one it confirmed.
    WentBack {
        /// The last commit that was confirmed.
        confirmed: u64,
        /// The last commit that is there.
        found: u64,
    },
    /// Something else that belongs to the store is not as it should be.
    Other {
        /// What it is.
        what: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::HeadMissing => f.write_str("the record of what it holds is missing"),
            Damage::Head { reason } => {
                write!(f, "the record of what it holds cannot be read: {reason}")
            }
            Damage::Page { log, seq, error } => {
                write!(f, "page {seq} of the {log} cannot be read: {error}")
            }
            Damage::Misplaced {
                log,
                seq,
                found_log,
                found_seq,
            } => write!(
                f,
                "in place of page {seq} of the {log} stands page {found_seq} of the {found_log}"
            ),
            Damage::Gap { log, from, to } => {
                let last = to.0.saturating_sub(1);
                if last <= from.0 {
                    write!(f, "page {from} of the {log} is missing")
                } else {
                    write!(f, "pages {from} to {last} of the {log} are missing")
                }
            }
            Damage::Stray { log, seq } => {
                write!(f, "page {seq} of the {log} is there but should not be")
            }
            Damage::WentBack { confirmed, found } => write!(
                f,
                "commit {confirmed} was confirmed, but the last one that is there is {found}"
            ),
            Damage::Other { what } => f.write_str(what),
        }
    }
}

impl std::error::Error for Damage {}
