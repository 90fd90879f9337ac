//! Finding pages in the data file of a database that sled can't open.
//!
//! sled writes values into its file as they are, and a page's frame says
//! which page it is and whether it is whole, so the frames can be found by
//! their magic. Old and removed pages are found too; the newest head tells
//! which ones count. A page may even be there twice with different bytes,
//! once from a commit that failed; what sled wrote later counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::engine::SEGMENT_BYTES;
use crate::head::{HEAD_MAGIC, Head};
use crate::page::{FRAME_MAGIC, Frame, Log, PAGE_BYTES_MAX, PageSeq};

/// Where the whole pages of a data file are.
#[derive(Debug)]
pub(crate) struct RawPages {
    file: File,
    /// The newest ones, by the number of their commit, and where they were written.
    heads: BTreeMap<u64, (Head, u64)>,
    pages: BTreeMap<(Log, PageSeq), Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    bytes: usize,
    written: u64,
}

const ENTRY_BYTES_MAX: usize = PAGE_BYTES_MAX + Frame::OVERHEAD_BYTES;
const READ_BYTES: usize = 1024 * 1024;
const HEADS_KEPT_MAX: usize = 16;

impl RawPages {
    /// Reads a data file from end to end.
    pub(crate) fn find(path: &Path) -> io::Result<RawPages> {
        let file = File::open(path)?;
        let mut found = RawPages {
            file: file.try_clone()?,
            heads: BTreeMap::new(),
            pages: BTreeMap::new(),
        };
        let mut window = Vec::new();
        let segments = segment_positions(&file)?;
        let mut window_start = 0;
        let mut next_read = 0;
        loop {
            let kept = window.len();
            window.resize(kept + READ_BYTES, 0);
            let read = file.read_at(&mut window[kept..], next_read)?;
            window.truncate(kept + read);
            next_read += read as u64;
            let at_end = read == 0;
            // An entry that begins near the end may go on in the next read.
            let end = if at_end {
                window.len()
            } else {
                window.len().saturating_sub(ENTRY_BYTES_MAX)
            };
            found.search(&window, end, window_start, &segments);
            if at_end {
                return Ok(found);
            }
            window.drain(..end);
            window_start += end as u64;
        }
    }

    /// Looks for entries that begin before `end`.
    fn search(&mut self, window: &[u8], end: usize, window_start: u64, segments: &[u64]) {
        let mut at = 0;
        while at < end {
            let Some(step) = window[at..end].iter().position(|&byte| byte == b'C') else {
                return;
            };
            at += step;
            let rest = &window[at..];
            let offset = window_start + at as u64;
            let written = written_at(segments, offset);
            if rest.starts_with(FRAME_MAGIC) {
                // Inside a page may be what looks like another one, so a whole page is
                // stepped over; anything else is searched from its second byte on.
                if let Ok((frame, bytes)) = Frame::decode_prefix(rest)
                    && bytes <= ENTRY_BYTES_MAX
                {
                    let place = Place {
                        offset,
                        bytes,
                        written,
                    };
                    let known = self.pages.entry((frame.log, frame.seq)).or_insert(place);
                    if known.written <= written {
                        *known = place;
                    }
                    at += bytes;
                    continue;
                }
            } else if rest.starts_with(HEAD_MAGIC)
                && let Some(bytes) = rest.get(..Head::BYTES)
                && let Ok(head) = Head::decode(bytes)
            {
                let known = self.heads.entry(head.commit).or_insert((head, written));
                if known.1 <= written {
                    *known = (head, written);
                }
                if self.heads.len() > HEADS_KEPT_MAX {
                    self.heads.pop_first();
                }
            }
            at += 1;
        }
    }

    /// The newest heads in the file, the last one in front.
    pub(crate) fn heads(&self) -> Vec<Head> {
        let heads = self.heads.values().rev();
        heads.map(|(head, _)| *head).collect()
    }

    /// The framed page, read and checked anew.
    pub(crate) fn frame(&self, log: Log, seq: PageSeq) -> io::Result<Option<Vec<u8>>> {
        let Some(place) = self.pages.get(&(log, seq)) else {
            return Ok(None);
        };
        let mut bytes = vec![0; place.bytes];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        Ok(Frame::expect(&bytes, log, seq).is_ok().then_some(bytes))
    }

    /// The pages of a log that were found, in order, whatever the head says.
    pub(crate) fn seqs(&self, log: Log) -> Vec<PageSeq> {
        let pages = self
            .pages
            .range((log, PageSeq(0))..=(log, PageSeq(u64::MAX)));
        pages.map(|(&(_, seq), _)| seq).collect()
    }
}

/// Where each segment of the file stands in the order of writing.
///
/// sled reuses its segments, so a later place in the file is not a later
/// write; each segment begins with its position in the log instead, after
/// a checksum of four bytes and with its bits turned around.
fn segment_positions(file: &File) -> io::Result<Vec<u64>> {
    let segments = file.metadata()?.len().div_ceil(SEGMENT_BYTES as u64);
    let mut positions = Vec::new();
    for segment in 0..segments {
        let mut header = [0; 12];
        let read = file.read_at(&mut header, segment * SEGMENT_BYTES as u64)?;
        let turned = u64::from_le_bytes(header[4..].try_into().expect("eight bytes"));
        let position = turned ^ (u64::MAX >> 1);
        let plausible = read == header.len()
            && position.is_multiple_of(SEGMENT_BYTES as u64)
            && position < u64::MAX / 2;
        // A segment whose beginning is damaged comes before all others.
        positions.push(if plausible {
            position + SEGMENT_BYTES as u64
        } else {
            0
        });
    }
    Ok(positions)
}

fn written_at(segments: &[u64], offset: u64) -> u64 {
    let segment = usize::try_from(offset / SEGMENT_BYTES as u64).ok();
    let position = segment.and_then(|segment| segments.get(segment));
    position.map_or(0, |position| position + offset % SEGMENT_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_at_any_offset_and_whole_ones_only() {
        let page = |seq: u64, bytes: usize| {
            let page = vec![b'C'; bytes];
            Frame {
                log: Log::Journal,
                seq: PageSeq(seq),
                page: &page,
            }
            .encode()
        };
        let mut file = b"CTCTPG rubbish C".to_vec();
        let mut expected = Vec::new();
        for seq in 1..60 {
            let mut entry = page(seq, PAGE_BYTES_MAX - seq as usize * 7);
            if seq % 5 == 0 {
                let middle = entry.len() / 2;
                entry[middle] ^= 1;
            } else {
                expected.push(seq);
            }
            file.extend_from_slice(&entry);
            file.extend_from_slice(&b"CTPGCTHD"[..(seq as usize % 9)]);
        }
        let mut head = Head::new([1; 16]);
        for commit in [4, 9, 7] {
            head.commit = commit;
            file.extend_from_slice(&head.encode());
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::write(&path, &file).unwrap();
        let found = RawPages::find(&path).unwrap();
        let seqs: Vec<u64> = found.seqs(Log::Journal).iter().map(|seq| seq.0).collect();
        assert_eq!(seqs, expected);
        let commits: Vec<u64> = found.heads().iter().map(|head| head.commit).collect();
        assert_eq!(commits, [9, 7, 4]);
        assert!(found.seqs(Log::History).is_empty());
        let frame = found.frame(Log::Journal, PageSeq(2)).unwrap().unwrap();
        assert_eq!(frame, page(2, PAGE_BYTES_MAX - 14));
    }

    #[test]
    fn page_that_is_there_twice_is_the_one_written_later() {
        let page = |bytes: &[u8]| {
            Frame {
                log: Log::History,
                seq: PageSeq(5),
                page: bytes,
            }
            .encode()
        };
        let segment = |position: u64, entry: &[u8]| {
            let mut bytes = vec![0; SEGMENT_BYTES];
            let turned = position ^ (u64::MAX >> 1);
            bytes[4..12].copy_from_slice(&turned.to_le_bytes());
            bytes[1000..1000 + entry.len()].copy_from_slice(entry);
            bytes
        };
        let late = segment(3 * SEGMENT_BYTES as u64, &page(b"late"));
        let early = segment(2 * SEGMENT_BYTES as u64, &page(b"early"));
        let dir = tempfile::tempdir().unwrap();
        for file in [[&late[..], &early].concat(), [&early[..], &late].concat()] {
            let path = dir.path().join("db");
            std::fs::write(&path, &file).unwrap();
            let found = RawPages::find(&path).unwrap();
            let frame = found.frame(Log::History, PageSeq(5)).unwrap();
            assert_eq!(frame, Some(page(b"late")));
        }
    }
}
