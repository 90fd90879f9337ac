//! The bytes of the virtual disk's log: one record for each commit, one after the other.
//!
//! ```text
//! offset  bytes  what
//!      0      4  magic, `CTVL`
//!      4      4  length of the index
//!      8      4  length of the body
//!     12      8  number of the commit
//!     20      4  CRC32C of bytes 0 to 19 and of the index
//!     24      4  CRC32C of index and body
//!     28      …  the index: length of the head; pages put; ranges removed
//!      …      …  the body: the head, then the framed pages
//! ```
//!
//! The second checksum is only looked at for a commit that nobody was told of, to find out
//! whether all of it is there. What was confirmed is checked by the product's own code,
//! in heads and frames, as it would be above any other database.

use std::collections::BTreeMap;
use std::ops::Range;

use carbontube_storage::{Batch, Log, PageSeq};

const MAGIC: &[u8; 4] = b"CTVL";
const HEADER_BYTES: usize = 28;

/// Where something stands in the log.
pub(super) type Place = Range<usize>;

/// What a log holds, by place.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    pub(super) head: Option<Place>,
    pub(super) pages: BTreeMap<(Log, PageSeq), Place>,
}

impl Index {
    /// Bytes that are still needed.
    pub(super) fn live_bytes(&self) -> usize {
        let pages = self.pages.values().map(|place| place.len());
        pages.sum::<usize>() + self.head.as_ref().map_or(0, |place| place.len())
    }

    fn apply(&mut self, entry: &Entry) {
        for (key, place) in &entry.put {
            self.pages.insert(*key, place.clone());
        }
        for (log, range) in &entry.remove {
            let gone = (*log, PageSeq(range.start))..(*log, PageSeq(range.end));
            let keys: Vec<_> = self.pages.range(gone).map(|(key, _)| *key).collect();
            for key in keys {
                self.pages.remove(&key);
            }
        }
        self.head = Some(entry.head.clone());
    }
}

/// What was found in the bytes of a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    pub(super) index: Index,
    /// The last whole commit.
    pub(super) last: Option<u64>,
    /// Where what was confirmed ends, and where what is whole ends.
    pub(super) confirmed_end: usize,
    pub(super) end: usize,
}

#[derive(Debug)]
struct Entry {
    commit: u64,
    head: Place,
    put: Vec<((Log, PageSeq), Place)>,
    remove: Vec<(Log, Range<u64>)>,
    end: usize,
}

/// Reads a log whose commits up to `confirmed` somebody was told of.
pub(super) fn scan(bytes: &[u8], confirmed: Option<u64>) -> Scan {
    let mut scan = Scan::default();
    while let Some(entry) = read(bytes, scan.end, confirmed) {
        if scan.last.is_some_and(|last| entry.commit != last + 1) {
            break;
        }
        scan.index.apply(&entry);
        scan.last = Some(entry.commit);
        scan.end = entry.end;
        if confirmed.is_some_and(|confirmed| entry.commit <= confirmed) {
            scan.confirmed_end = entry.end;
        }
    }
    scan
}

/// Takes in a record that was just written at a place in the log; none if it is no record.
pub(super) fn take_in(index: &mut Index, record: &[u8], at: usize) -> Option<()> {
    let mut entry = read(record, 0, None)?;
    let shift = |place: &mut Place| *place = place.start + at..place.end + at;
    shift(&mut entry.head);
    entry.put.iter_mut().for_each(|(_, place)| shift(place));
    index.apply(&entry);
    Some(())
}

/// The record of a batch.
pub(super) fn encode(batch: &Batch) -> Vec<u8> {
    let mut index = Vec::new();
    let mut body = batch.head.clone();
    put_u32(&mut index, batch.head.len());
    put_u32(&mut index, batch.put.len());
    for (log, seq, frame) in &batch.put {
        index.push(log.tag());
        index.extend_from_slice(&seq.0.to_be_bytes());
        put_u32(&mut index, frame.len());
        body.extend_from_slice(frame);
    }
    for (log, range) in &batch.remove {
        index.push(log.tag());
        index.extend_from_slice(&range.start.to_be_bytes());
        index.extend_from_slice(&range.end.to_be_bytes());
    }
    let mut bytes = MAGIC.to_vec();
    put_u32(&mut bytes, index.len());
    put_u32(&mut bytes, body.len());
    bytes.extend_from_slice(&batch.commit.to_be_bytes());
    let header = crc32c::crc32c_append(crc32c::crc32c(&bytes), &index);
    let whole = crc32c::crc32c_append(crc32c::crc32c(&index), &body);
    bytes.extend_from_slice(&header.to_be_bytes());
    bytes.extend_from_slice(&whole.to_be_bytes());
    bytes.extend_from_slice(&index);
    bytes.extend_from_slice(&body);
    bytes
}

fn put_u32(bytes: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).expect("a world's commits are small");
    bytes.extend_from_slice(&number.to_be_bytes());
}

/// Takes numbers off the front of bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u32(&mut self) -> Option<usize> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number) as usize)
    }

    fn u64(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    fn log(&mut self) -> Option<Log> {
        let (tag, rest) = self.0.split_first()?;
        self.0 = rest;
        Log::from_tag(*tag)
    }
}

fn read(bytes: &[u8], at: usize, confirmed: Option<u64>) -> Option<Entry> {
    let rest = &bytes[at..];
    let header = rest.get(..HEADER_BYTES)?;
    let mut reader = Reader(header.strip_prefix(MAGIC)?);
    let (index_bytes, body_bytes) = (reader.u32()?, reader.u32()?);
    let commit = reader.u64()?;
    let (header_crc, whole_crc) = (reader.u32()?, reader.u32()?);
    let index = rest.get(HEADER_BYTES..HEADER_BYTES.checked_add(index_bytes)?)?;
    let body_at = HEADER_BYTES + index_bytes;
    let found = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), index);
    if found as usize != header_crc {
        return None;
    }
    let body = rest.get(body_at..body_at.checked_add(body_bytes)?)?;
    if confirmed.is_none_or(|confirmed| commit > confirmed) {
        let found = crc32c::crc32c_append(crc32c::crc32c(index), body);
        if found as usize != whole_crc {
            return None;
        }
    }
    let mut reader = Reader(index);
    let mut place = at + body_at;
    let mut next = |length: usize| {
        let taken = place..place + length;
        place = taken.end;
        taken
    };
    let head = next(reader.u32()?);
    let mut put = Vec::new();
    for _ in 0..reader.u32()? {
        let key = (reader.log()?, PageSeq(reader.u64()?));
        put.push((key, next(reader.u32()?)));
    }
    let mut remove = Vec::new();
    while !reader.0.is_empty() {
        remove.push((reader.log()?, reader.u64()?..reader.u64()?));
    }
    Some(Entry {
        commit,
        head,
        put,
        remove,
        end: at + body_at + body_bytes,
    })
}
