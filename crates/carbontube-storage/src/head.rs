//! The head: the one record that says what a store holds, rewritten by every commit.

use crate::page::{Bounds, FORMAT_VERSION, Log, PageSeq};

/// What a store holds, format version 1.
///
/// It is stored in the same atomic commit as the pages it speaks of, so a
/// page that is missing at the end of a log is noticed like one in the middle.
///
/// ```text
/// offset  bytes  what
///      0      4  magic, `CTHD`
///      4      1  format version, 1
///      5      3  zero
///      8     16  identity of the store, random, made when it was created
///     24      8  number of the last commit, counted from 0 for creation
///     32      8  first page of the journal
///     40      8  next page of the journal
///     48      8  first page of the history
///     56      8  next page of the history
///     64      4  CRC32C of bytes 0 to 63
/// ```
///
/// All numbers are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The identity of the store.
    pub identity: [u8; 16],
    /// The number of the last commit.
    pub commit: u64,
    /// The bounds of the journal.
    pub journal: Bounds,
    /// The bounds of the history.
    pub history: Bounds,
}

pub(crate) const HEAD_MAGIC: &[u8; 4] = b"CTHD";

/// No store counts commits or pages this far; counting on from here does not overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;

impl Head {
    /// The length of a stored head.
    pub const BYTES: usize = 68;

    /// The head of a store that was just created.
    pub(crate) fn new(identity: [u8; 16]) -> Head {
        Head {
            identity,
            commit: 0,
            journal: Bounds::EMPTY,
            history: Bounds::EMPTY,
        }
    }

    /// The bounds of one log.
    #[must_use]
    pub fn bounds(&self, log: Log) -> Bounds {
        match log {
            Log::Journal => self.journal,
            Log::History => self.history,
        }
    }

    pub(crate) fn bounds_mut(&mut self, log: Log) -> &mut Bounds {
        match log {
            Log::Journal => &mut self.journal,
            Log::History => &mut self.history,
        }
    }

    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> [u8; Head::BYTES] {
        let mut bytes = [0; Head::BYTES];
        bytes[..4].copy_from_slice(HEAD_MAGIC);
        bytes[4] = FORMAT_VERSION;
        bytes[8..24].copy_from_slice(&self.identity);
        let numbers = [
            self.commit,
            self.journal.first.0,
            self.journal.next.0,
            self.history.first.0,
            self.history.next.0,
        ];
        for (place, number) in bytes[24..64].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..64]);
        bytes[64..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads a stored head.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Head, HeadError> {
        if bytes.get(..4) != Some(HEAD_MAGIC) {
            return Err(HeadError::Magic);
        }
        // The version comes before the length: another version may well have another one.
        match bytes.get(4) {
            Some(&FORMAT_VERSION) => {}
            Some(&version) => return Err(HeadError::Version(version)),
            None => return Err(HeadError::Length(bytes.len())),
        }
        if bytes.len() != Head::BYTES {
            return Err(HeadError::Length(bytes.len()));
        }
        let number = |at: usize| {
            u64::from_be_bytes(
                bytes[at..at + 8]
                    .try_into()
                    .expect("eight bytes of a checked length"),
            )
        };
        let stored = u32::from_be_bytes(bytes[64..].try_into().expect("four bytes"));
        if stored != crc32c::crc32c(&bytes[..64]) {
            return Err(HeadError::Checksum);
        }
        let bounds = |at: usize| Bounds {
            first: PageSeq(number(at)),
            next: PageSeq(number(at + 8)),
        };
        let head = Head {
            identity: bytes[8..24].try_into().expect("sixteen bytes"),
            commit: number(24),
            journal: bounds(32),
            history: bounds(48),
        };
        let sound = |bounds: Bounds| bounds.first.0 >= 1 && bounds.first <= bounds.next;
        if !sound(head.journal) || !sound(head.history) {
            return Err(HeadError::Bounds);
        }
        let highest = head
            .commit
            .max(head.journal.next.0)
            .max(head.history.next.0);
        if highest > NUMBER_MAX {
            return Err(HeadError::Number(highest));
        }
        Ok(head)
    }
}

/// What is wrong with a stored head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The bytes do not begin as a head does.
    #[error("it does not begin as it should")]
    Magic,
    /// It is of a format this program does not know.
    #[error("it is in format {0}, this program reads format {FORMAT_VERSION}")]
    Version(u8),
    /// It is of the wrong length.
    #[error("it is {0} bytes long, expected {len}", len = Head::BYTES)]
    Length(usize),
    /// The bytes are not those that were stored.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right, yet a log would end before it begins.
    #[error("it says that a log ends before it begins")]
    Bounds,
    /// The checksum is right, yet it counts further than any store has.
    #[error("it counts to {0}, which no store reaches")]
    Number(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Head {
        Head {
            identity: *b"0123456789abcdef",
            commit: 9,
            journal: Bounds {
                first: PageSeq(3),
                next: PageSeq(12),
            },
            history: Bounds::EMPTY,
        }
    }

    #[test]
    fn head_comes_back_as_it_was_stored() {
        assert_eq!(Head::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn head_cut_or_changed_is_refused() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert!(Head::decode(&bytes[..length]).is_err(), "{length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn head_with_a_log_that_ends_before_it_begins_is_refused() {
        let mut head = sample();
        head.journal.next = PageSeq(2);
        assert_eq!(Head::decode(&head.encode()), Err(HeadError::Bounds));
    }

    #[test]
    fn head_that_counts_further_than_any_store_is_refused() {
        let mut head = sample();
        head.commit = u64::MAX;
        assert_eq!(
            Head::decode(&head.encode()),
            Err(HeadError::Number(u64::MAX))
        );
        let mut head = sample();
        head.journal.next = PageSeq(NUMBER_MAX + 1);
        assert!(matches!(
            Head::decode(&head.encode()),
            Err(HeadError::Number(_))
        ));
    }
}
