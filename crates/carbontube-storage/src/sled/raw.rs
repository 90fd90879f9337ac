//! Finding pages in the data file of a database that sled can't open.
//!
//! sled writes values into its file as they are, and a page's frame says
//! which page it is and whether it is whole, so the frames can be found by
//! their magic. Old and removed pages are found too; the newest head tells
//! which ones count.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::head::{HEAD_MAGIC, Head};
use crate::page::{FRAME_MAGIC, Frame, FrameError, Log, PAGE_BYTES_MAX, PageSeq};

/// Where the whole pages of a data file are.
#[derive(Debug)]
pub(crate) struct RawPages {
    file: File,
    head: Option<Head>,
    pages: BTreeMap<(Log, PageSeq), Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    bytes: usize,
}

const ENTRY_BYTES_MAX: usize = PAGE_BYTES_MAX + Frame::OVERHEAD_BYTES;
const READ_BYTES: usize = 1024 * 1024;

impl RawPages {
    /// Reads a data file from end to end.
    pub(crate) fn find(path: &Path) -> io::Result<RawPages> {
        let file = File::open(path)?;
        let mut found = RawPages {
            file: file.try_clone()?,
            head: None,
            pages: BTreeMap::new(),
        };
        let mut window = Vec::new();
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
            found.search(&window, end, window_start);
            if at_end {
                return Ok(found);
            }
            window.drain(..end);
            window_start += end as u64;
        }
    }

    /// Looks for entries that begin before `end`.
    fn search(&mut self, window: &[u8], end: usize, window_start: u64) {
        let mut at = 0;
        while at < end {
            let Some(step) = window[at..end].iter().position(|&byte| byte == b'C') else {
                return;
            };
            at += step;
            let rest = &window[at..];
            if rest.starts_with(FRAME_MAGIC) {
                // Inside a page may be what looks like another one, so a whole page is
                // stepped over; anything else is searched from its second byte on.
                match Frame::decode_prefix(rest) {
                    Ok((frame, bytes)) if bytes <= ENTRY_BYTES_MAX => {
                        let offset = window_start + at as u64;
                        let place = Place { offset, bytes };
                        self.pages.insert((frame.log, frame.seq), place);
                        at += bytes;
                        continue;
                    }
                    Ok(_) | Err(FrameError::Length { .. }) => {}
                    Err(_) => {}
                }
            } else if rest.starts_with(HEAD_MAGIC)
                && let Some(bytes) = rest.get(..Head::BYTES)
                && let Ok(head) = Head::decode(bytes)
                && self.head.is_none_or(|newest| newest.commit < head.commit)
            {
                self.head = Some(head);
            }
            at += 1;
        }
    }

    /// The newest head in the file.
    pub(crate) fn head(&self) -> Option<Head> {
        self.head
    }

    /// Whether a whole copy of this page is in the file.
    pub(crate) fn has(&self, log: Log, seq: PageSeq) -> bool {
        self.pages.contains_key(&(log, seq))
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

    /// The oldest and the newest page of a log found, whatever the head says.
    pub(crate) fn range(&self, log: Log) -> Option<(PageSeq, PageSeq)> {
        let mut seqs = self
            .pages
            .range((log, PageSeq(0))..=(log, PageSeq(u64::MAX)))
            .map(|(&(_, seq), _)| seq);
        let first = seqs.next()?;
        Some((first, seqs.next_back().unwrap_or(first)))
    }
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
        let seqs: Vec<u64> = found.pages.keys().map(|(_, seq)| seq.0).collect();
        assert_eq!(seqs, expected);
        assert_eq!(found.head().unwrap().commit, 9);
        assert_eq!(found.range(Log::Journal), Some((PageSeq(1), PageSeq(59))));
        assert_eq!(found.range(Log::History), None);
        let frame = found.frame(Log::Journal, PageSeq(2)).unwrap().unwrap();
        assert_eq!(frame, page(2, PAGE_BYTES_MAX - 14));
    }
}
