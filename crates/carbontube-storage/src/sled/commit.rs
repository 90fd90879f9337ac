//! The order in which a commit is written, and what an unfinished one leaves behind.
//!
//! sled's batches are not all or nothing when writing one ends in the middle: after a
//! panic or an error it marks the batch as cancelled, and whatever of it stands in the
//! log becomes durable with the next flush, of its own thread too. So nothing here relies
//! on a batch. A commit is four steps, and only the third one changes what the store holds:
//!
//! 1. the *intent*: which pages will come and which will go;
//! 2. the pages that come, behind the end that the head tells;
//! 3. the head, one key: from here on the commit has happened;
//! 4. the pages that go, before the beginning that the head tells.
//!
//! What is found outside the head's bounds, and inside an intent that fits the head, was
//! left by a commit that ended in the middle. It does not count, and opening removes it.
//! Anything else outside the bounds is damage, as it always was.

use std::borrow::Cow;
use std::ops::Range;

use crate::head::Head;
use crate::page::{FORMAT_VERSION, Log, PageSeq};
use crate::paged::Batch;

/// Behind both logs, so that it is not in the way of their growing ends.
pub(super) const HEAD_TAG: u8 = b'Z';
pub(super) const HEAD_KEY: [u8; 2] = [HEAD_TAG, b'1'];
/// Beside the head, for both are written with each commit.
const INTENT_KEY: [u8; 3] = [HEAD_TAG, b'1', b'i'];

/// sled frees what removed pages took up in memory through epochs, too slowly by itself.
const REMOVED_IN_EPOCH: usize = 16;

pub(super) fn key(log: Log, seq: PageSeq) -> [u8; 9] {
    let mut key = [log.tag(); 9];
    key[1..].copy_from_slice(&seq.0.to_be_bytes());
    key
}

/// Which pages a commit puts and removes, stored before any of them is touched.
///
/// ```text
/// offset  bytes  what
///      0      4  magic, `CTIN`
///      4      1  format version, 1
///      5      3  zero
///      8      8  number of the commit
///     16     16  first page that it puts into the journal, and the one after the last
///     32     16  the same of the history
///     48     16  first page that it removes from the journal, and the one after the last
///     64     16  the same of the history
///     80      4  CRC32C of bytes 0 to 79
/// ```
///
/// All numbers are big-endian. An empty range is two zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Intent {
    commit: u64,
    put: [Range<u64>; 2],
    remove: [Range<u64>; 2],
}

const INTENT_BYTES: usize = 84;

impl Intent {
    fn of(batch: &Batch) -> Intent {
        let mut intent = Intent {
            commit: batch.commit,
            put: [0..0, 0..0],
            remove: [0..0, 0..0],
        };
        for (log, seq, _) in &batch.put {
            extend(&mut intent.put[log.index()], seq.0..seq.next().0);
        }
        for (log, range) in &batch.remove {
            extend(&mut intent.remove[log.index()], range.clone());
        }
        intent
    }

    fn encode(&self) -> [u8; INTENT_BYTES] {
        let mut bytes = [0; INTENT_BYTES];
        bytes[..4].copy_from_slice(b"CTIN");
        bytes[4] = FORMAT_VERSION;
        let ranges = self.put.iter().chain(&self.remove);
        let numbers = ranges.flat_map(|range| [range.start, range.end]);
        let numbers = std::iter::once(self.commit).chain(numbers);
        for (place, number) in bytes[8..80].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..80]);
        bytes[80..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None` when it is not as it was stored; then nothing is excused by it.
    fn decode(bytes: &[u8]) -> Option<Intent> {
        let bytes: &[u8; INTENT_BYTES] = bytes.try_into().ok()?;
        let crc = crc32c::crc32c(&bytes[..80]).to_be_bytes();
        if bytes[..4] != *b"CTIN" || bytes[4] != FORMAT_VERSION || bytes[80..] != crc {
            return None;
        }
        let mut numbers = bytes[8..80].chunks_exact(8).map(|number| {
            u64::from_be_bytes(number.try_into().expect("eight bytes of an exact chunk"))
        });
        let mut number = || numbers.next().unwrap_or_default();
        Some(Intent {
            commit: number(),
            put: [number()..number(), number()..number()],
            remove: [number()..number(), number()..number()],
        })
    }
}

fn extend(range: &mut Range<u64>, by: Range<u64>) {
    if by.is_empty() {
        return;
    }
    *range = if range.is_empty() {
        by
    } else {
        range.start.min(by.start)..range.end.max(by.end)
    };
}

/// The pages that an unfinished commit may have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    ranges: Vec<(Log, Range<u64>)>,
}

impl Leftovers {
    /// Reads the head and the intent of a database.
    pub(super) fn of(db: &sled::Db) -> sled::Result<Leftovers> {
        let head = db.get(HEAD_KEY)?;
        let head = head.and_then(|bytes| Head::decode(&bytes).ok());
        let intent = db.get(INTENT_KEY)?;
        let intent = intent.and_then(|bytes| Intent::decode(&bytes));
        Ok(match (head, intent) {
            (Some(head), Some(intent)) => Leftovers::between(&head, &intent),
            _ => Leftovers::default(),
        })
    }

    fn between(head: &Head, intent: &Intent) -> Leftovers {
        let mut ranges = Vec::new();
        for log in Log::ALL {
            let bounds = head.bounds(log);
            let put = &intent.put[log.index()];
            let remove = &intent.remove[log.index()];
            // Its head is not there: the pages that it put do not count.
            if head.commit.checked_add(1) == Some(intent.commit) && put.start == bounds.next.0 {
                ranges.push((log, put.clone()));
            }
            // Its head is there: the pages that it removes do not count.
            if head.commit == intent.commit && remove.end == bounds.first.0 {
                ranges.push((log, remove.clone()));
            }
        }
        Leftovers { ranges }
    }

    pub(super) fn contain(&self, log: Log, seq: PageSeq) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|(of, range)| *of == log && range.contains(&seq.0))
    }

    /// Removes them from a database; says how many there were.
    pub(super) fn sweep(&self, db: &sled::Db) -> sled::Result<usize> {
        let mut removed = 0;
        for (log, range) in &self.ranges {
            let keys = key(*log, PageSeq(range.start))..key(*log, PageSeq(range.end));
            if range.is_empty() {
                continue;
            }
            for found in db.range(keys).keys() {
                remove(db, &found?, &mut removed)?;
            }
        }
        Ok(removed)
    }
}

fn remove(db: &sled::Db, key: &[u8], removed: &mut usize) -> sled::Result<()> {
    // One at a time: sled reads the whole node that a page stands in, and inside of a batch
    // it keeps every one that it has read.
    db.remove(key)?;
    *removed += 1;
    if removed.is_multiple_of(REMOVED_IN_EPOCH) {
        crossbeam_epoch::pin().flush();
    }
    Ok(())
}

/// A key and what is to stand under it, if anything.
type Write<'a> = (Vec<u8>, Option<Cow<'a, [u8]>>);

/// The steps of a commit in their order. What is in one step may be stored in any order.
fn steps(batch: &Batch) -> [Vec<Write<'_>>; 4] {
    let intent = Intent::of(batch).encode().to_vec();
    let pages = batch.put.iter().map(|(log, seq, frame)| {
        let frame = Some(Cow::Borrowed(frame.as_slice()));
        (key(*log, *seq).to_vec(), frame)
    });
    let removed = batch.remove.iter().flat_map(|(log, range)| {
        let keys = range.clone().map(|seq| key(*log, PageSeq(seq)).to_vec());
        keys.map(|key| (key, None))
    });
    let head = Some(Cow::Borrowed(batch.head.as_slice()));
    [
        vec![(INTENT_KEY.to_vec(), Some(Cow::Owned(intent)))],
        pages.collect(),
        vec![(HEAD_KEY.to_vec(), head)],
        removed.collect(),
    ]
}

/// Writes a commit, step by step; what it wrote is not durable yet.
pub(super) fn write(db: &sled::Db, batch: &Batch) -> sled::Result<()> {
    let [intent, pages, head, removed] = steps(batch);
    put(db, intent)?;
    // In a batch: a power cut in the middle of it leaves none of them, or a tear in the
    // log would be all that there is to see of it.
    let mut together = sled::Batch::default();
    for (key, frame) in pages {
        together.insert(key, frame.unwrap_or_default().as_ref());
    }
    db.apply_batch(together)?;
    put(db, head)?;
    let mut count = 0;
    for (key, _) in removed {
        remove(db, &key, &mut count)?;
    }
    Ok(())
}

fn put(db: &sled::Db, writes: Vec<Write<'_>>) -> sled::Result<()> {
    for (key, value) in writes {
        db.insert(key, value.unwrap_or_default().as_ref())?;
    }
    Ok(())
}

/// A commit that ends in the middle, for the tests.
#[cfg(test)]
pub(super) mod faults {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The switch; clones are of the same database.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct WriteFaults(Arc<Mutex<Option<Interruption>>>);

    /// After how many keys writing ends, and in which order those of a step come.
    #[derive(Clone, Copy, Debug)]
    struct Interruption {
        writes: usize,
        seed: u64,
    }

    impl WriteFaults {
        /// The next commit panics after so many keys; those are durable by then, for sled's
        /// own thread has flushed them.
        pub(crate) fn interrupt_next(&self, writes: usize, seed: u64) {
            *self.0.lock().unwrap() = Some(Interruption { writes, seed });
        }

        /// Writes a commit as [`write`](super::write) does, one key at a time.
        pub(in super::super) fn write(&self, db: &sled::Db, batch: &Batch) -> sled::Result<()> {
            let Some(at) = *self.0.lock().unwrap() else {
                return super::write(db, batch);
            };
            let mut random = fastrand::Rng::with_seed(at.seed);
            let mut written = 0;
            for mut step in steps(batch) {
                random.shuffle(&mut step);
                for (key, value) in step {
                    if written == at.writes {
                        self.0.lock().unwrap().take();
                        db.flush()?;
                        panic!("a fault was asked for");
                    }
                    match value {
                        Some(value) => db.insert(key, value.as_ref())?,
                        None => db.remove(key)?,
                    };
                    written += 1;
                }
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Bounds;

    fn head(commit: u64, first: u64, next: u64) -> Head {
        let mut head = Head::new([1; 16]);
        head.commit = commit;
        head.journal = Bounds {
            first: PageSeq(first),
            next: PageSeq(next),
        };
        head
    }

    /// Commit 8 puts pages 20 to 22 and removes 5 to 9.
    fn intent() -> Intent {
        Intent::of(&Batch {
            commit: 8,
            put: (20..23)
                .map(|seq| (Log::Journal, PageSeq(seq), Vec::new()))
                .collect(),
            remove: vec![(Log::Journal, 5..10)],
            head: Vec::new(),
        })
    }

    fn check(head: Head, expected: &[(Log, Range<u64>)]) {
        assert_eq!(Leftovers::between(&head, &intent()).ranges, expected);
    }

    #[test]
    fn leftovers_are_excused_by_the_intent_that_follows_on_from_the_head_only() {
        check(head(7, 5, 20), &[(Log::Journal, 20..23)]);
        check(head(8, 10, 23), &[(Log::Journal, 5..10)]);
        // The commits of another version, which leaves the intent as it is.
        check(head(6, 5, 20), &[]);
        check(head(9, 10, 23), &[]);
        // Other bounds than those that the commit began with, or ended with.
        check(head(7, 5, 19), &[]);
        check(head(8, 11, 23), &[]);
    }

    #[test]
    fn intent_comes_back_as_it_was_stored_and_excuses_nothing_when_changed() {
        let bytes = intent().encode();
        assert_eq!(Intent::decode(&bytes), Some(intent()));
        for length in 0..bytes.len() {
            assert_eq!(Intent::decode(&bytes[..length]), None, "{length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let found = Intent::decode(&changed);
            assert_eq!(found, None, "bit {bit}");
        }
    }
}
