//! What a journal holds below its records: framed pages, heads, whole stores of arbitrary
//! bytes, and exported files.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use carbontube_storage::{
    Backend, Batch, Bounds, Commit, Frame, Head, Log, PAGE_BYTES_MAX, PageSeq, PagedStore, Store,
    StoreError, VisitFrame, import_bytes,
};

use crate::Target;
use crate::draw::{Draw, push_piece};

/// The target.
pub const TARGET: Target = Target {
    name: "storage",
    about: "framed pages, heads, stores of arbitrary bytes, exported files",
    run,
    seeds,
    dictionary: DICTIONARY,
    bytes_max: 4096,
};

/// The first byte says what the rest is, the second whether checksums are put right.
pub fn run(data: &[u8]) {
    let mut draw = Draw::new(data);
    let way = draw.byte() % 4;
    let mended = draw.flag();
    match way {
        0 => frame(&with_frame_sum(draw.rest(), mended)),
        1 => head(&with_head_sum(draw.rest(), mended)),
        2 => store(&mut draw, mended),
        _ => export(draw.rest(), mended),
    }
}

fn frame(bytes: &[u8]) {
    match Frame::decode(bytes) {
        Ok(frame) => {
            if frame.page.len() <= PAGE_BYTES_MAX {
                let again = frame.encode();
                let second = Frame::decode(&again).expect("a frame that was written is read");
                assert_eq!(second, frame);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok((frame, used)) = Frame::decode_prefix(bytes) {
        assert_eq!(used, Frame::OVERHEAD_BYTES + frame.page.len());
        assert!(used <= bytes.len());
    }
}

fn head(bytes: &[u8]) {
    match Head::decode(bytes) {
        Ok(head) => {
            for log in Log::ALL {
                let bounds = head.bounds(log);
                assert!(bounds.first.0 >= 1 && bounds.first <= bounds.next);
            }
            assert_eq!(Head::decode(&head.encode()), Ok(head));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A store whose backend returns arbitrary bytes: it opens or is refused by name, and
/// never shows a page that is not as it was framed.
fn store(draw: &mut Draw<'_>, mended: bool) {
    let mut raw = Raw::default();
    let head_bytes = with_head_sum(draw.piece(), mended);
    raw.head = (!head_bytes.is_empty()).then_some(head_bytes);
    while !draw.is_empty() {
        let log = *draw.one(&Log::ALL);
        let seq = PageSeq(draw.number());
        raw.pages
            .insert((log.tag(), seq), with_frame_sum(draw.piece(), mended));
    }
    let framed = raw.pages.clone();
    let mut store = match PagedStore::open(raw) {
        Ok(store) => store,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for log in Log::ALL {
        let bounds = store.bounds(log);
        assert!(
            bounds.pages() <= framed.len() as u64,
            "a store without all its pages was opened"
        );
        let mut seen = bounds.first;
        store
            .scan(log, PageSeq::FIRST, &mut |seq, page| {
                assert_eq!(seq, seen);
                seen = seen.next();
                let frame = Frame::decode(&framed[&(log.tag(), seq)]).expect("a sound frame");
                assert_eq!((frame.log, frame.seq, frame.page), (log, seq, page));
                ControlFlow::Continue(())
            })
            .expect("a store that was opened is read");
        assert_eq!(seen, bounds.next);
        go_on(&mut store, log);
    }
}

/// A store that was opened takes commits.
fn go_on<B: Backend>(store: &mut PagedStore<B>, log: Log) {
    let next = store.bounds(log).next;
    if next.0 == u64::MAX {
        return;
    }
    let mut commit = Commit::new();
    commit.put(log, next, b"more".to_vec());
    commit.truncate_before(log, next);
    store
        .commit(&commit)
        .expect("a store of bytes takes a page");
    let bounds = Bounds {
        first: next,
        next: next.next(),
    };
    assert_eq!(store.bounds(log), bounds);
    assert_eq!(
        store.read(log, next).expect("it is there"),
        Some(b"more".to_vec())
    );
}

fn export(bytes: &[u8], mended: bool) {
    let bytes = if mended {
        with_export_sums(bytes)
    } else {
        bytes.to_vec()
    };
    // Filling in lost pages one by one is bounded too, but by millions: not to be tried
    // thousands of times a second.
    if lost_declared(&bytes) > 1000 {
        return;
    }
    match import_bytes(&bytes, Raw::default()) {
        Ok((imported, pipeline, mut store)) => {
            assert!(pipeline.len() <= 1024);
            let mut pages = 0;
            for log in Log::ALL {
                pages += store.bounds(log).pages();
                let mut count = 0;
                store
                    .scan(log, PageSeq::FIRST, &mut |_, page| {
                        assert!(page.len() <= PAGE_BYTES_MAX);
                        count += 1;
                        ControlFlow::Continue(())
                    })
                    .expect("an import is read");
                assert_eq!(count, store.bounds(log).pages());
            }
            assert_eq!(imported.pages + imported.lost, pages);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// How many pages the header of an export promises.
fn lost_declared(bytes: &[u8]) -> u64 {
    let number = |at: usize| {
        let eight = bytes.get(at..at + 8)?;
        Some(u64::from_be_bytes(eight.try_into().ok()?))
    };
    let log = |at: usize| Some(number(at + 8)?.saturating_sub(number(at)?));
    log(24).unwrap_or(0).saturating_add(log(40).unwrap_or(0))
}

fn with_frame_sum(bytes: &[u8], mended: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if mended && bytes.len() >= Frame::OVERHEAD_BYTES {
        let length = u32::try_from(bytes.len() - Frame::OVERHEAD_BYTES).unwrap_or(0);
        bytes[16..20].copy_from_slice(&length.to_be_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..]);
        bytes[20..24].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

fn with_head_sum(bytes: &[u8], mended: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if mended && bytes.len() == Head::BYTES {
        let sum = crc32c::crc32c(&bytes[..64]);
        bytes[64..].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// Puts the sums of an export right, as far as its parts can be told apart.
fn with_export_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some(length) = bytes.get(56..58) else {
        return bytes;
    };
    let mut at = 58 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    let mut pages: u64 = 0;
    if bytes.len() < at + 4 {
        return bytes;
    }
    let sum = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    at += 4;
    while bytes.len() >= at + Frame::OVERHEAD_BYTES && bytes[at..].starts_with(b"CTPG") {
        let length = &bytes[at + 16..at + 20];
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let end = at + Frame::OVERHEAD_BYTES + length;
        let Some(frame) = bytes.get(at..end) else {
            return bytes;
        };
        let sum = crc32c::crc32c_append(crc32c::crc32c(&frame[..20]), &frame[24..]);
        bytes[at + 20..at + 24].copy_from_slice(&sum.to_be_bytes());
        at = end;
        pages += 1;
    }
    if bytes.len() == at + 20 {
        let sum = crc32c::crc32c(&bytes[..at]);
        bytes[at + 8..at + 16].copy_from_slice(&pages.to_be_bytes());
        bytes[at + 16..].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// Bytes under keys, whatever they are.
#[derive(Debug, Default)]
struct Raw {
    head: Option<Vec<u8>>,
    pages: BTreeMap<(u8, PageSeq), Vec<u8>>,
}

impl Backend for Raw {
    fn head(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.head.clone())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        for (log, seq, frame) in &batch.put {
            self.pages.insert((log.tag(), *seq), frame.clone());
        }
        for (log, range) in &batch.remove {
            self.pages
                .retain(|(tag, seq), _| *tag != log.tag() || !range.contains(&seq.0));
        }
        self.head = Some(batch.head.clone());
        Ok(())
    }

    fn page(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.pages.get(&(log.tag(), seq)).cloned())
    }

    fn pages(
        &mut self,
        log: Log,
        from: PageSeq,
        visit: &mut VisitFrame<'_>,
    ) -> Result<(), StoreError> {
        for ((tag, seq), frame) in &self.pages {
            if *tag == log.tag() && *seq >= from && visit(*seq, frame)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn bytes(&mut self) -> Result<u64, StoreError> {
        Ok(self.pages.values().map(|frame| frame.len() as u64).sum())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn place(&self) -> &str {
        "bytes"
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let framed = |log, seq, page: &[u8]| {
        Frame {
            log,
            seq: PageSeq(seq),
            page,
        }
        .encode()
    };
    let bounds = |first, next| Bounds {
        first: PageSeq(first),
        next: PageSeq(next),
    };
    let head = Head {
        identity: *b"0123456789abcdef",
        commit: 3,
        journal: bounds(1, 3),
        history: bounds(1, 2),
    };
    let pages = [
        (Log::Journal, 1, b"one".as_slice()),
        (Log::Journal, 2, b"two"),
        (Log::History, 1, b""),
    ];
    let mut store = vec![2, 1];
    push_piece(&mut store, &head.encode());
    for (log, seq, page) in pages {
        store.extend([u8::from(log == Log::History), seq]);
        push_piece(&mut store, &framed(log, u64::from(seq), page));
    }
    let mut export = b"CTEX\x01\0\0\0".to_vec();
    export.extend(head.identity);
    for number in [1_u64, 3, 1, 2] {
        export.extend(number.to_be_bytes());
    }
    export.extend([0, 6]);
    export.extend(b"videos\0\0\0\0");
    for (log, seq, page) in pages {
        export.extend(framed(log, u64::from(seq), page));
    }
    export.extend(b"CTEN\x01\0\0\0");
    export.extend([0; 12]);
    let without_a_page = [&export[..68], &export[95..]].concat();
    vec![
        [&[0, 1], &framed(Log::History, 7, b"seven")[..]].concat(),
        [&[0, 0], &framed(Log::Journal, 1, b"")[..]].concat(),
        [&[1, 1], &head.encode()[..]].concat(),
        store,
        [&[3, 1], &export[..]].concat(),
        [&[3, 1], &without_a_page[..]].concat(),
    ]
}

const DICTIONARY: &[&[u8]] = &[
    b"CTPG\x01J\0\0",
    b"CTPG\x01H\0\0",
    b"CTHD\x01\0\0\0",
    b"CTEX\x01\0\0\0",
    b"CTEN\x01\0\0\0",
    b"\0\0\0\0\0\0\0\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\x01\x40\0",
];
