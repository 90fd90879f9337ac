//! Writers to be killed and disks to be cut off, with the check of what is left.
//!
//! A writer's pages are a function of their sequence numbers, so whoever finds
//! them later can tell whether they are right without having seen them before.

mod disk;

use std::io::{self, BufRead, Write};
use std::ops::ControlFlow;

pub use self::disk::{Cut, Filled, fill_disk, power_cut};
use crate::error::StoreError;
use crate::page::{Log, PageSeq};
use crate::store::{Commit, Store};

/// Pages the writer keeps before it removes the oldest.
const PAGES_KEPT: u64 = 150;

/// The page a writer puts at a place.
#[must_use]
pub fn page(log: Log, seq: PageSeq) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seq.0 << 8 | u64::from(log.tag()));
    let most = if seq.0.is_multiple_of(16) {
        60_000
    } else {
        3_000
    };
    let mut page = vec![0; random.usize(1..most)];
    random.fill(&mut page);
    page
}

/// The commit a writer makes next.
#[must_use]
pub fn next_commit(store: &dyn Store) -> Commit {
    let mut commit = Commit::new();
    let mut next = store.bounds(Log::Journal).next;
    for _ in 0..=next.0 % 3 {
        commit.put(Log::Journal, next, page(Log::Journal, next));
        next = next.next();
    }
    if next.0.is_multiple_of(2) {
        let seq = store.bounds(Log::History).next;
        commit.put(Log::History, seq, page(Log::History, seq));
    }
    if next.0 > PAGES_KEPT {
        commit.truncate_before(Log::Journal, PageSeq(next.0 - PAGES_KEPT));
    }
    commit
}

/// Commits again and again; after each commit writes the number of the next
/// journal page to `acknowledge`, on a line of its own.
///
/// Each commit waits for a line from `go`, and its end ends the writer; so
/// whoever holds the other end knows that nothing is under way when it has
/// read an answer.
///
/// # Errors
///
/// When a commit fails or nobody listens any more.
pub fn write_acknowledged(
    store: &mut dyn Store,
    go: impl BufRead,
    mut acknowledge: impl Write,
) -> io::Result<()> {
    for line in go.lines() {
        line?;
        let commit = next_commit(store);
        store.commit(&commit).map_err(io::Error::other)?;
        writeln!(acknowledge, "{}", store.bounds(Log::Journal).next)?;
        acknowledge.flush()?;
    }
    Ok(())
}

/// Checks that a writer's store holds all that was acknowledged, and every page as it was.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_acknowledged(store: &mut dyn Store, acknowledged: PageSeq) -> Result<(), String> {
    let next = store.bounds(Log::Journal).next;
    if next < acknowledged {
        return Err(format!(
            "the journal ends before page {next}, acknowledged was everything before {acknowledged}"
        ));
    }
    for log in Log::ALL {
        let mut wrong = None;
        let scanned = store.scan(log, PageSeq(0), &mut |seq, bytes| {
            if bytes == page(log, seq) {
                return ControlFlow::Continue(());
            }
            wrong = Some(format!(
                "page {seq} of the {log} is not the one that was put there"
            ));
            ControlFlow::Break(())
        });
        scanned.map_err(|error: StoreError| error.to_string())?;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
    }
    Ok(())
}
