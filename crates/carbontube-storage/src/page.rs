//! Pages: the two logs, their sequence numbers, and the frame each page is stored in.
//!
//! What a page holds is the caller's business; this module never looks inside.

use std::fmt;

use carbontube_mutation::{self as mutation, Mutation};

use crate::error::Damage;

/// The size callers should aim at for one page: large enough to make a commit
/// cheap, small enough that no store puts it anywhere special.
pub const PAGE_BYTES_TARGET: usize = 64 * 1024;

/// The largest page a store accepts.
///
/// A record that does not fit is split by the caller over consecutive pages
/// of the same commit, which become durable together or not at all.
pub const PAGE_BYTES_MAX: usize = 80 * 1024;

/// One of the two page logs of a store.
///
/// Both are strictly first in, first out: pages are added at the end and
/// removed at the front, so what is stored is always one unbroken range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    /// What is needed to bring back every live job.
    Journal,
    /// Finished jobs, kept for a while so that they can be looked up.
    History,
}

impl Log {
    /// Both logs, in the order in which they are stored and verified.
    pub const ALL: [Log; 2] = [Log::Journal, Log::History];

    /// The byte that stands for this log in keys and frames.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Log::Journal => b'J',
            Log::History => b'H',
        }
    }

    /// The log a tag byte stands for.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Log> {
        match tag {
            b'J' => Some(Log::Journal),
            b'H' => Some(Log::History),
            _ => None,
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Log::Journal => 0,
            Log::History => 1,
        }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Log::Journal => "journal",
            Log::History => "history",
        })
    }
}

/// The place of a page in its log: 1, 2, 3, … without gaps and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSeq(pub u64);

impl PageSeq {
    /// The sequence number of the first page ever put into a log.
    pub const FIRST: PageSeq = PageSeq(1);

    /// The sequence number that follows this one.
    #[must_use]
    pub const fn next(self) -> PageSeq {
        PageSeq(self.0.saturating_add(1))
    }
}

impl fmt::Display for PageSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The range of pages a log holds: from `first` up to, not including, `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest page still stored, or `next` when the log is empty.
    pub first: PageSeq,
    /// The sequence number the next page put into this log must have.
    pub next: PageSeq,
}

impl Bounds {
    /// The bounds of a log nothing was ever put into.
    pub const EMPTY: Bounds = Bounds {
        first: PageSeq::FIRST,
        next: PageSeq::FIRST,
    };

    /// How many pages the log holds.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.next.0.saturating_sub(self.first.0)
    }

    /// Whether the log holds no page.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.pages() == 0
    }

    /// Whether this page is one of those the log holds.
    #[must_use]
    pub const fn contains(self, seq: PageSeq) -> bool {
        self.first.0 <= seq.0 && seq.0 < self.next.0
    }
}

/// The frame every store keeps a page in, format version 1.
///
/// ```text
/// offset  bytes  what
///      0      4  magic, `CTPG`
///      4      1  format version, 1
///      5      1  log, `J` or `H`
///      6      2  zero
///      8      8  sequence number, big-endian
///     16      4  length of the page in bytes, big-endian
///     20      4  CRC32C of bytes 0 to 19 and of the page, big-endian
///     24      …  the page
/// ```
///
/// The frame says which page it is, so a page that a store hands out under
/// another page's key, or a piece of one, is noticed; and pages can be found
/// again in a damaged file by their magic alone. A page of no bytes stands
/// for one that was lost to damage and given up in an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The log the page belongs to.
    pub log: Log,
    /// Its place in that log.
    pub seq: PageSeq,
    /// The page itself.
    pub page: &'a [u8],
}

/// The format version this crate writes, and the only one it reads so far.
pub const FORMAT_VERSION: u8 = 1;

pub(crate) const FRAME_MAGIC: &[u8; 4] = b"CTPG";
const HEADER_BYTES: usize = 24;

impl<'a> Frame<'a> {
    /// How many bytes the frame adds to a page.
    pub const OVERHEAD_BYTES: usize = HEADER_BYTES;

    /// The bytes to store.
    ///
    /// # Panics
    ///
    /// When the page is larger than [`PAGE_BYTES_MAX`], which a commit has
    /// already refused.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.page.len() <= PAGE_BYTES_MAX,
            "a page over the limit reached its frame"
        );
        let length = u32::try_from(self.page.len()).expect("bounded by PAGE_BYTES_MAX");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.page.len());
        bytes.extend_from_slice(FRAME_MAGIC);
        bytes.push(FORMAT_VERSION);
        bytes.push(self.log.tag());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.seq.0.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), self.page);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(self.page);
        bytes
    }

    /// Reads a frame that must fill `bytes` exactly.
    ///
    /// # Errors
    ///
    /// What is wrong with the frame, naming no place: the caller knows it.
    pub fn decode(bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let (frame, used) = Frame::decode_prefix(bytes)?;
        if used != bytes.len() {
            return Err(FrameError::Length {
                declared: used,
                found: bytes.len(),
            });
        }
        Ok(frame)
    }

    /// Reads a frame from the front of `bytes` and says how long it is.
    ///
    /// # Errors
    ///
    /// As [`Frame::decode`].
    pub fn decode_prefix(bytes: &'a [u8]) -> Result<(Frame<'a>, usize), FrameError> {
        let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(FrameError::Length {
                declared: HEADER_BYTES,
                found: bytes.len(),
            });
        };
        if &header[..4] != FRAME_MAGIC {
            return Err(FrameError::Magic);
        }
        if header[4] != FORMAT_VERSION {
            return Err(FrameError::Version(header[4]));
        }
        let length = u32::from_be_bytes(header[16..20].try_into().expect("four bytes")) as usize;
        let Some(page) = rest.get(..length) else {
            return Err(FrameError::Length {
                declared: HEADER_BYTES + length,
                found: bytes.len(),
            });
        };
        let stored = u32::from_be_bytes(header[20..24].try_into().expect("four bytes"));
        let computed = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), page);
        if stored != computed && !mutation::is(Mutation::SkipChecksum) {
            return Err(FrameError::Checksum { stored, computed });
        }
        let log = Log::from_tag(header[5]).ok_or(FrameError::Magic)?;
        let seq = PageSeq(u64::from_be_bytes(
            header[8..16].try_into().expect("eight bytes"),
        ));
        Ok((Frame { log, seq, page }, HEADER_BYTES + length))
    }

    /// Reads the frame stored for one particular page.
    pub(crate) fn expect(bytes: &'a [u8], log: Log, seq: PageSeq) -> Result<&'a [u8], Damage> {
        let frame = Frame::decode(bytes).map_err(|error| Damage::Page { log, seq, error })?;
        if (frame.log, frame.seq) != (log, seq) {
            return Err(Damage::Misplaced {
                log,
                seq,
                found_log: frame.log,
                found_seq: frame.seq,
            });
        }
        Ok(frame.page)
    }
}

/// What is wrong with the stored bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes do not begin as a page does.
    #[error("it does not begin as a page does")]
    Magic,
    /// The frame is of a format this program does not know.
    #[error("it is in format {0}, this program reads format {FORMAT_VERSION}")]
    Version(u8),
    /// There are fewer or more bytes than the frame says.
    #[error("it should be {declared} bytes long, found {found}")]
    Length {
        /// The length of the whole frame as its header declares it.
        declared: usize,
        /// The bytes there are.
        found: usize,
    },
    /// The bytes are not those that were stored.
    #[error("its checksum is {computed:08x}, stored with it was {stored:08x}")]
    Checksum {
        /// The checksum in the frame.
        stored: u32,
        /// The checksum of the bytes as they are.
        computed: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        Frame {
            log: Log::History,
            seq: PageSeq(7),
            page: b"seven",
        }
        .encode()
    }

    #[test]
    fn frame_of_a_page_is_the_documented_bytes() {
        let mut expected = b"CTPG\x01H\0\0\0\0\0\0\0\0\0\x07\0\0\0\x05".to_vec();
        let crc = crc32c::crc32c(&[&expected[..], b"seven"].concat());
        expected.extend_from_slice(&crc.to_be_bytes());
        expected.extend_from_slice(b"seven");
        assert_eq!(sample(), expected);
        assert_eq!(
            Frame::expect(&expected, Log::History, PageSeq(7)),
            Ok(&b"seven"[..])
        );
    }

    #[test]
    fn frame_cut_anywhere_is_refused() {
        let whole = sample();
        for length in 0..whole.len() {
            let error = Frame::decode(&whole[..length]).expect_err("a cut frame");
            assert!(
                matches!(error, FrameError::Length { .. }),
                "{length}: {error}"
            );
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(matches!(
            Frame::decode(&longer),
            Err(FrameError::Length { .. })
        ));
    }

    #[test]
    fn frame_with_any_bit_flipped_is_refused() {
        let whole = sample();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn frame_of_another_page_is_misplaced() {
        assert!(matches!(
            Frame::expect(&sample(), Log::History, PageSeq(8)),
            Err(Damage::Misplaced {
                found_seq: PageSeq(7),
                ..
            })
        ));
    }
}
