//! Packs records into pages, and unpacks them.
//!
//! A page is a version byte, a kind byte, and either whole records, each behind its
//! length, or one piece of a record that is larger than a page. The first piece says how
//! long the whole record is.

use std::collections::BTreeMap;

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_storage::PageSeq;

/// Version 2 knows more kinds of records; pages of version 1 are read as well.
const VERSION: u8 = 2;
const VERSION_READ_MIN: u8 = 1;
const WHOLE: u8 = b'W';
const FIRST: u8 = b'F';
const NEXT: u8 = b'N';
const HEAD_BYTES: usize = 2;

/// The end of one log: pages that are filled, and those not durable yet.
#[derive(Debug)]
pub(super) struct Tail {
    next: PageSeq,
    page_bytes: usize,
    open: Vec<u8>,
    closed: Vec<(PageSeq, Bytes)>,
    /// Pages that were given to the store and are not confirmed, to be read from here.
    in_flight: BTreeMap<PageSeq, Bytes>,
    /// Of all pages that are filled and not confirmed.
    bytes: usize,
    /// How many bytes of records were added since the last [`Tail::cut`].
    since_cut: usize,
}

impl Tail {
    pub(super) fn new(next: PageSeq, page_bytes: usize) -> Self {
        Tail {
            next,
            page_bytes: page_bytes.clamp(1 << 10, carbontube_storage::PAGE_BYTES_MAX),
            open: Vec::new(),
            closed: Vec::new(),
            in_flight: BTreeMap::new(),
            bytes: 0,
            since_cut: 0,
        }
    }

    /// The page that the next record goes to at the earliest.
    pub(super) fn next(&self) -> PageSeq {
        self.next
    }

    /// The first page that the store has not been given.
    pub(super) fn first_new(&self) -> PageSeq {
        self.closed.first().map_or(self.next, |(seq, _)| *seq)
    }

    /// Adds a record; says in which page it begins.
    pub(super) fn append(&mut self, record: &[u8]) -> PageSeq {
        self.since_cut += record.len();
        let room = self.page_bytes - HEAD_BYTES - 4;
        if record.len() > room {
            return self.append_split(record, room);
        }
        if self.open.len() + 4 + record.len() > self.page_bytes {
            self.close_open();
        }
        if self.open.is_empty() {
            self.open.extend_from_slice(&[VERSION, WHOLE]);
        }
        self.open.extend_from_slice(&length(record.len()));
        self.open.extend_from_slice(record);
        self.next
    }

    fn append_split(&mut self, record: &[u8], room: usize) -> PageSeq {
        self.close_open();
        let home = self.next;
        for (index, piece) in record.chunks(room).enumerate() {
            let mut page = Vec::with_capacity(piece.len() + HEAD_BYTES + 4);
            page.extend_from_slice(&[VERSION, if index == 0 { FIRST } else { NEXT }]);
            if index == 0 {
                page.extend_from_slice(&length(record.len()));
            }
            page.extend_from_slice(piece);
            self.close(Bytes::from(page));
        }
        home
    }

    fn close_open(&mut self) {
        if mutation::is(Mutation::LoseLastRecord) {
            self.lose_last();
        }
        if !self.open.is_empty() {
            let page = Bytes::from(std::mem::take(&mut self.open));
            self.close(page);
        }
    }

    fn close(&mut self, page: Bytes) {
        self.bytes += page.len();
        self.closed.push((self.next, page));
        self.next = self.next.next();
    }

    fn lose_last(&mut self) {
        let mut records = Vec::new();
        let mut at = HEAD_BYTES;
        while let Some(bytes) = self.open.get(at..at + 4) {
            let bytes: [u8; 4] = bytes.try_into().unwrap_or_default();
            records.push(at);
            at += 4 + u32::from_le_bytes(bytes) as usize;
        }
        if let [_, .., last] = records[..] {
            self.open.truncate(last);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.closed.is_empty()
    }

    /// How many bytes of records were added since the last cut.
    pub(super) fn since_cut(&self) -> usize {
        self.since_cut
    }

    /// Ends the page that is being filled: what comes next goes to another one.
    pub(super) fn cut(&mut self) {
        self.close_open();
        self.since_cut = 0;
    }

    /// Takes the pages before one; they stay readable here until [`Tail::confirm`].
    pub(super) fn take(&mut self, before: PageSeq) -> Vec<(PageSeq, Bytes)> {
        let end = self.closed.partition_point(|(seq, _)| *seq < before);
        let pages: Vec<_> = self.closed.drain(..end).collect();
        self.in_flight.extend(pages.iter().cloned());
        pages
    }

    /// The pages before this one are durable.
    pub(super) fn confirm(&mut self, before: PageSeq) {
        let kept = self.in_flight.split_off(&before);
        let durable = std::mem::replace(&mut self.in_flight, kept);
        self.bytes -= durable.values().map(Bytes::len).sum::<usize>();
    }

    /// How many bytes are not durable yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.open.len()
    }

    /// A page that is not durable yet.
    pub(super) fn page(&self, seq: PageSeq) -> Option<Bytes> {
        if seq == self.next && !self.open.is_empty() {
            return Some(Bytes::copy_from_slice(&self.open));
        }
        // They follow on without gaps.
        let first = self.closed.first().map_or(seq, |(first, _)| *first);
        let place = seq.0.checked_sub(first.0);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let closed = place.and_then(|place| self.closed.get(place));
        closed
            .map(|(_, bytes)| bytes)
            .or_else(|| self.in_flight.get(&seq))
            .cloned()
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// What a page holds.
#[derive(Debug)]
pub(super) enum Content {
    Records(Vec<Bytes>),
    FirstPiece { total: usize, piece: Bytes },
    NextPiece(Bytes),
}

/// Unpacks a page.
pub(super) fn unpack(page: &Bytes) -> Result<Content, String> {
    let (Some(&version), Some(&kind)) = (page.first(), page.get(1)) else {
        return Err(format!("a page of {} bytes has no head", page.len()));
    };
    if !(VERSION_READ_MIN..=VERSION).contains(&version) {
        return Err(format!(
            "version {version} is not known here, {VERSION_READ_MIN} to {VERSION} are"
        ));
    }
    let mut rest = page.slice(HEAD_BYTES..);
    match kind {
        WHOLE => {
            let mut records = Vec::new();
            while !rest.is_empty() {
                let bytes = take_length(&mut rest)?;
                if bytes > rest.len() {
                    return Err(format!("a record of {bytes} bytes ends after the page"));
                }
                records.push(rest.split_to(bytes));
            }
            Ok(Content::Records(records))
        }
        FIRST => Ok(Content::FirstPiece {
            total: take_length(&mut rest)?,
            piece: rest,
        }),
        NEXT => Ok(Content::NextPiece(rest)),
        other => Err(format!("a page of kind {other} is not known here")),
    }
}

fn take_length(rest: &mut Bytes) -> Result<usize, String> {
    if rest.len() < 4 {
        return Err("a length is cut off".to_owned());
    }
    let bytes = rest.split_to(4);
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
}

/// Puts pages together in order, joining pieces.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    home: Option<PageSeq>,
    total: usize,
    pieces: Vec<u8>,
}

impl Joiner {
    /// Takes the next page and gives the records that it completes, with their home.
    pub(super) fn page(
        &mut self,
        seq: PageSeq,
        page: &Bytes,
    ) -> Result<(PageSeq, Vec<Bytes>), String> {
        match unpack(page)? {
            Content::Records(records) => {
                *self = Joiner::default();
                Ok((seq, records))
            }
            Content::FirstPiece { total, piece } => {
                self.home = Some(seq);
                self.total = total;
                self.pieces = piece.to_vec();
                Ok(self.complete())
            }
            // The front of the log can stand amid the pieces of a record that is dead.
            Content::NextPiece(_) if self.total == 0 => Ok((seq, Vec::new())),
            Content::NextPiece(piece) => {
                self.pieces.extend_from_slice(&piece);
                Ok(self.complete())
            }
        }
    }

    /// Forgets a record whose pieces were lost.
    pub(super) fn lost(&mut self) {
        *self = Joiner::default();
    }

    /// Whether more pieces are needed.
    pub(super) fn is_waiting(&self) -> bool {
        self.total > 0
    }

    fn complete(&mut self) -> (PageSeq, Vec<Bytes>) {
        if self.pieces.len() < self.total {
            return (self.home.unwrap_or(PageSeq::FIRST), Vec::new());
        }
        let joined = std::mem::take(self);
        let home = joined.home.unwrap_or(PageSeq::FIRST);
        (home, vec![Bytes::from(joined.pieces)])
    }
}
