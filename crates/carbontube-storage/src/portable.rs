//! A whole store in one file, to keep, to move, or to save from damage.
//!
//! ```text
//! header   magic `CTEX`, format version 1; 1 if confirmed commits are lost or may be, else 0;
//!          two zero bytes; identity, 16 bytes;
//!          first and next page of the journal and of the history, 8 bytes each;
//!          length of the pipeline's name, 2 bytes, and the name; CRC32C of it all
//! pages    the frames of all pages that could be read, journal first, in order
//! trailer  magic `CTEN`, format version 1, three zero bytes; number of pages, 8 bytes;
//!          CRC32C of every byte of the file before it
//! ```
//!
//! All numbers are big-endian. A page within the bounds that has no frame was lost.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::examine::{Examined, Report};
use crate::head::{Head, NUMBER_MAX};
#[cfg(feature = "redis")]
use crate::open::OpenMode;
use crate::open::OpenOptions;
use crate::page::{Bounds, FORMAT_VERSION, FRAME_MAGIC, Frame, Log, PAGE_BYTES_MAX, PageSeq};
use crate::paged::{Backend, Batch, PagedStore};
use crate::private;
use crate::sled;
use crate::uri::StoreUri;

const MAGIC: &[u8; 4] = b"CTEX";
const END_MAGIC: &[u8; 4] = b"CTEN";
const PIPELINE_BYTES_MAX: usize = 1024;
/// Lost pages are filled in one by one; no real journal loses this many.
const LOST_PAGES_MAX: u64 = 16 * 1024 * 1024;
const IMPORT_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Writes everything readable of a store into a new file.
///
/// The report says what could not be read and so is not in the file. The
/// file appears under its name only when it is complete and durable.
///
/// # Errors
///
/// When the store is not there or in use, when there is a file of that name,
/// or when it can't be written.
pub fn export(uri: &str, options: &OpenOptions, file: &Path) -> Result<Report, StoreError> {
    if file.exists() {
        return Err(StoreError::BadExport {
            file: file.display().to_string(),
            reason: "it is there already and would be overwritten".to_owned(),
        });
    }
    let mut examined = Examined::of(uri, options)?;
    let partial = partial_name(file);
    let written = write_all(&mut examined, &partial)
        .and_then(|()| fs::rename(&partial, file).map_err(failed("name", file)))
        .and_then(|()| sync_parent(file));
    if written.is_err() {
        // The first error is the one that matters.
        let _ = fs::remove_file(&partial);
    }
    written.map(|()| examined.report)
}

/// What to do about pages and commits that an export does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostPages {
    /// Import nothing if any page or commit is lost.
    Refuse,
    /// Put a page of no bytes in place of each.
    GiveUp,
}

/// What an import has put into the new store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Pages that were in the file.
    pub pages: u64,
    /// Pages that were lost and stand there empty.
    pub lost: u64,
    /// Whether it is older than what was confirmed, or may be: the last commits were lost, or
    /// nothing is left that would tell.
    pub is_older: bool,
}

/// Makes a new store out of an exported file.
///
/// The file is checked from end to end before the store is made, and the
/// store counts as one only when all of it is in and durable.
///
/// # Errors
///
/// When the file is damaged or not an export, when pages or commits are lost and
/// that was not accepted, or when there already is something at the store's place.
pub fn import(
    file: &Path,
    uri: &str,
    options: &OpenOptions,
    lost: LostPages,
) -> Result<Imported, StoreError> {
    import_with_page(file, uri, options, lost, &[])
}

/// As [`import`], with one more page at the end of the journal, in the same step: whoever
/// reads the journal can leave a word there for its next reader. No bytes are no page.
///
/// # Errors
///
/// As [`import`].
pub fn import_with_page(
    file: &Path,
    uri: &str,
    options: &OpenOptions,
    lost: LostPages,
    last_page: &[u8],
) -> Result<Imported, StoreError> {
    let parsed: StoreUri = uri.parse()?;
    let plan = read_all(file, None)?;
    if plan.pipeline != options.pipeline {
        return Err(StoreError::OtherPipeline {
            place: file.display().to_string(),
            expected: options.pipeline.clone(),
            found: plan.pipeline,
        });
    }
    let incomplete = |reason| StoreError::Incomplete {
        file: file.display().to_string(),
        reason,
    };
    if plan.lost > 0 && lost == LostPages::Refuse {
        let reason = format!("{} pages were lost before it was made", plan.lost);
        return Err(incomplete(reason));
    }
    if plan.is_older && lost == LostPages::Refuse {
        return Err(incomplete(
            "the last commits that were confirmed were lost before it was made, or what would tell \
             was lost"
                .to_owned(),
        ));
    }
    match parsed {
        StoreUri::Memory => Err(StoreError::BadUri {
            uri: uri.to_owned(),
            reason: "what is imported into memory is gone at once".to_owned(),
        }),
        StoreUri::Sled(path) => {
            if sled::Folder::hold(&path)?.is_some() {
                return Err(occupied(&parsed_place(&path)));
            }
            let identity = plan.identity;
            sled::create(&path, &options.pipeline, identity, |backend| {
                fill(backend, file, last_page)
            })?;
            Ok(plan.imported())
        }
        #[cfg(feature = "redis")]
        StoreUri::Redis(server) => {
            let mut backend =
                crate::redis::Redis::claim(&server, &options.pipeline, OpenMode::Create)?;
            if !backend.is_empty()? {
                return Err(occupied(backend.place()));
            }
            fill(backend, file, last_page)?;
            Ok(plan.imported())
        }
        #[cfg(not(feature = "redis"))]
        StoreUri::Redis(_) => Err(StoreError::NotBuilt {
            uri: uri.to_owned(),
            feature: "redis",
        }),
    }
}

fn parsed_place(path: &Path) -> String {
    format!("sled:{}", path.display())
}

fn occupied(place: &str) -> StoreError {
    StoreError::Foreign {
        place: place.to_owned(),
        found: "there is a journal already".to_owned(),
    }
}

fn write_all(examined: &mut Examined, path: &Path) -> Result<(), StoreError> {
    let file = private::options()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(failed("make", path))?;
    let mut out = Summing::new(BufWriter::new(file));
    let header = header(examined).map_err(|reason| bad(path, reason))?;
    out.put(&header).map_err(failed("write", path))?;
    let mut pages: u64 = 0;
    for log in Log::ALL {
        let report = examined.report.log(log).clone();
        let mut seq = report.bounds.first;
        let mut missing = report.missing.into_iter().peekable();
        while seq < report.bounds.next {
            if let Some(range) = missing.next_if(|range| range.contains(&seq.0)) {
                seq = PageSeq(range.end);
                continue;
            }
            let Some(frame) = examined.frame(log, seq)? else {
                return Err(bad(
                    path,
                    format!("page {seq} of the {log} was readable a moment ago and is not now"),
                ));
            };
            out.put(&frame).map_err(failed("write", path))?;
            pages += 1;
            seq = seq.next();
        }
    }
    let mut trailer = END_MAGIC.to_vec();
    trailer.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0]);
    trailer.extend_from_slice(&pages.to_be_bytes());
    let sum = out.sum.to_be_bytes();
    let finished = out
        .put(&trailer)
        .and_then(|()| out.put(&sum))
        .and_then(|()| {
            out.inner
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
        })
        .and_then(|file| file.sync_all());
    finished.map_err(failed("write", path))
}

fn header(examined: &Examined) -> Result<Vec<u8>, String> {
    let report = &examined.report;
    let mut bytes = MAGIC.to_vec();
    // Without a head nobody knows which page was the last one.
    let is_headless = report.commit.is_none() && !report.is_sound();
    let is_older = u8::from(report.commits_lost > 0 || is_headless);
    bytes.extend_from_slice(&[FORMAT_VERSION, is_older, 0, 0]);
    bytes.extend_from_slice(&examined.identity);
    for log in Log::ALL {
        let bounds = report.log(log).bounds;
        bytes.extend_from_slice(&bounds.first.0.to_be_bytes());
        bytes.extend_from_slice(&bounds.next.0.to_be_bytes());
    }
    let name = report.pipeline.as_bytes();
    let length = u16::try_from(name.len())
        .ok()
        .filter(|length| usize::from(*length) <= PIPELINE_BYTES_MAX)
        .ok_or("the name of the pipeline is too long")?;
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(name);
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    Ok(bytes)
}

/// What a file holds, known once it has been read to its end.
struct Plan {
    pipeline: String,
    identity: [u8; 16],
    bounds: [Bounds; 2],
    pages: u64,
    lost: u64,
    is_older: bool,
}

impl Plan {
    fn imported(&self) -> Imported {
        Imported {
            pages: self.pages,
            lost: self.lost,
            is_older: self.is_older,
        }
    }
}

/// Shown each page of a file in order, an empty one for each that is lost.
type Take<'a> = dyn FnMut(&Plan, Log, PageSeq, &[u8]) -> Result<(), StoreError> + 'a;

/// Reads a file to its end, checking all of it.
fn read_all(path: &Path, take: Option<&mut Take<'_>>) -> Result<Plan, StoreError> {
    let file = File::open(path).map_err(failed("open", path))?;
    read_from(&mut BufReader::new(file), path, take)
}

/// As [`read_all`], for what has been opened already; `path` is for errors.
fn read_from(
    input: &mut dyn Read,
    path: &Path,
    mut take: Option<&mut Take<'_>>,
) -> Result<Plan, StoreError> {
    let mut reader = Reader {
        path,
        input,
        sum: 0,
    };
    let mut plan = read_header(&mut reader)?;
    let mut place = Cursor::new(&plan);
    loop {
        let sum_before = reader.sum;
        let mut magic = [0; 4];
        reader.fill(&mut magic)?;
        if &magic == END_MAGIC {
            place.skip_to_end(&mut plan, &mut take)?;
            return read_trailer(&mut reader, plan, sum_before);
        }
        if &magic != FRAME_MAGIC {
            return Err(reader.bad("there is something else where a page should begin"));
        }
        let mut frame = magic.to_vec();
        frame.resize(Frame::OVERHEAD_BYTES, 0);
        reader.fill(&mut frame[4..])?;
        let length = u32::from_be_bytes(frame[16..20].try_into().expect("four bytes")) as usize;
        if length > PAGE_BYTES_MAX {
            return Err(reader.bad(format!(
                "a page says that it is {length} bytes long, the limit is {PAGE_BYTES_MAX}"
            )));
        }
        frame.resize(Frame::OVERHEAD_BYTES + length, 0);
        reader.fill(&mut frame[Frame::OVERHEAD_BYTES..])?;
        let frame = Frame::decode(&frame)
            .map_err(|error| reader.bad(format!("one of its pages is damaged: {error}")))?;
        if !place.advance_to(&mut plan, frame.log, frame.seq, &mut take)? {
            return Err(reader.bad(format!(
                "page {} of the {} is out of place",
                frame.seq, frame.log
            )));
        }
        plan.pages += 1;
        if let Some(take) = take.as_mut() {
            take(&plan, frame.log, frame.seq, frame.page)?;
        }
    }
}

fn read_header(reader: &mut Reader<'_>) -> Result<Plan, StoreError> {
    let mut fixed = [0; 58];
    reader.fill(&mut fixed[..8])?;
    if &fixed[..4] != MAGIC {
        return Err(reader.bad("it does not begin as one does"));
    }
    if fixed[4] != FORMAT_VERSION {
        return Err(StoreError::Format {
            place: reader.path.display().to_string(),
            found: fixed[4].to_string(),
        });
    }
    reader.fill(&mut fixed[8..])?;
    let number = |at: usize| u64::from_be_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
    let bounds = |at: usize| Bounds {
        first: PageSeq(number(at)),
        next: PageSeq(number(at + 8)),
    };
    let length = usize::from(u16::from_be_bytes([fixed[56], fixed[57]]));
    if length > PIPELINE_BYTES_MAX {
        return Err(reader.bad("the name of its pipeline is too long"));
    }
    let mut name = vec![0; length];
    reader.fill(&mut name)?;
    reader.check_sum("its header")?;
    let plan = Plan {
        pipeline: String::from_utf8(name)
            .map_err(|_| reader.bad("the name of its pipeline is not UTF-8"))?,
        identity: fixed[8..24].try_into().expect("sixteen bytes"),
        bounds: [bounds(24), bounds(40)],
        pages: 0,
        lost: 0,
        is_older: fixed[5] != 0,
    };
    let sound = |bounds: &Bounds| bounds.first.0 >= 1 && bounds.first <= bounds.next;
    if !plan.bounds.iter().all(sound) {
        return Err(reader.bad("it says that a log ends before it begins"));
    }
    if plan.bounds.iter().any(|bounds| bounds.next.0 > NUMBER_MAX) {
        return Err(reader.bad("it counts more pages than any store reaches"));
    }
    Ok(plan)
}

fn read_trailer(reader: &mut Reader<'_>, plan: Plan, sum: u32) -> Result<Plan, StoreError> {
    let mut rest = [0; 16];
    reader.fill(&mut rest)?;
    let pages = u64::from_be_bytes(rest[4..12].try_into().expect("eight bytes"));
    let stored = u32::from_be_bytes(rest[12..].try_into().expect("four bytes"));
    if rest[..4] != [FORMAT_VERSION, 0, 0, 0] || pages != plan.pages || stored != sum {
        return Err(reader.bad("it is damaged: what it says at its end does not fit the rest"));
    }
    let mut more = [0];
    match reader.input.read(&mut more) {
        Ok(0) => Ok(plan),
        Ok(_) => Err(reader.bad("something follows after its end")),
        Err(error) => Err(failed("read", reader.path)(error)),
    }
}

/// The next page a file should hold.
struct Cursor {
    log: usize,
    next: PageSeq,
}

impl Cursor {
    fn new(plan: &Plan) -> Cursor {
        Cursor {
            log: 0,
            next: plan.bounds[0].first,
        }
    }

    /// Goes on to a page, giving up those in between; false when it lies behind or outside.
    fn advance_to(
        &mut self,
        plan: &mut Plan,
        log: Log,
        seq: PageSeq,
        take: &mut Option<&mut Take<'_>>,
    ) -> Result<bool, StoreError> {
        if !plan.bounds[log.index()].contains(seq) || log.index() < self.log {
            return Ok(false);
        }
        if log.index() > self.log {
            self.lose_up_to(plan, plan.bounds[self.log].next, take)?;
            self.log = log.index();
            self.next = plan.bounds[self.log].first;
        }
        if seq < self.next {
            return Ok(false);
        }
        self.lose_up_to(plan, seq, take)?;
        self.next = seq.next();
        Ok(true)
    }

    fn skip_to_end(
        &mut self,
        plan: &mut Plan,
        take: &mut Option<&mut Take<'_>>,
    ) -> Result<(), StoreError> {
        self.lose_up_to(plan, plan.bounds[self.log].next, take)?;
        while self.log + 1 < Log::ALL.len() {
            self.log += 1;
            self.next = plan.bounds[self.log].first;
            self.lose_up_to(plan, plan.bounds[self.log].next, take)?;
        }
        Ok(())
    }

    fn lose_up_to(
        &mut self,
        plan: &mut Plan,
        end: PageSeq,
        take: &mut Option<&mut Take<'_>>,
    ) -> Result<(), StoreError> {
        plan.lost = plan.lost.saturating_add(end.0.saturating_sub(self.next.0));
        if let Some(take) = take {
            for seq in self.next.0..end.0 {
                take(plan, Log::ALL[self.log], PageSeq(seq), &[])?;
            }
        }
        self.next = self.next.max(end);
        Ok(())
    }
}

/// Fills an empty backend from an exported file in memory, as [`import`] does from one on
/// disk; also says which pipeline's it is.
///
/// # Errors
///
/// As [`import`].
#[cfg(any(test, feature = "testing"))]
pub fn import_bytes<B: Backend>(
    file: &[u8],
    backend: B,
) -> Result<(Imported, String, PagedStore<B>), StoreError> {
    let path = Path::new("export");
    let plan = read_from(&mut &*file, path, None)?;
    let store = fill_from(&mut &*file, backend, path, &[])?;
    Ok((plan.imported(), plan.pipeline, store))
}

fn fill<B: Backend>(
    backend: B,
    file: &Path,
    last_page: &[u8],
) -> Result<PagedStore<B>, StoreError> {
    let input = File::open(file).map_err(failed("open", file))?;
    fill_from(&mut BufReader::new(input), backend, file, last_page)
}

/// Puts the pages of a checked file into an empty backend, its true head last.
///
/// Until then the head speaks of no pages, so a store that is cut short here
/// is refused as damaged wherever it is not already known to be unfinished.
fn fill_from<B: Backend>(
    input: &mut dyn Read,
    mut backend: B,
    file: &Path,
    last_page: &[u8],
) -> Result<PagedStore<B>, StoreError> {
    let mut batch = Batch {
        commit: 0,
        put: Vec::new(),
        remove: Vec::new(),
        head: Vec::new(),
    };
    let mut bytes = 0;
    let plan = read_from(
        input,
        file,
        Some(&mut |plan, log, seq, page| {
            if plan.lost > LOST_PAGES_MAX {
                return Err(bad(file, format!("{} pages are lost", plan.lost)));
            }
            let frame = Frame { log, seq, page }.encode();
            bytes += frame.len();
            batch.put.push((log, seq, frame));
            if bytes >= IMPORT_BATCH_BYTES {
                batch.head = unfinished(plan, batch.commit).encode().to_vec();
                backend.apply(&batch)?;
                batch.commit += 1;
                batch.put.clear();
                bytes = 0;
            }
            Ok(())
        }),
    )?;
    let mut journal = plan.bounds[0];
    if !last_page.is_empty() {
        if journal.next.0 >= NUMBER_MAX {
            return Err(bad(file, "its journal has no room for a page".to_owned()));
        }
        let frame = Frame {
            log: Log::Journal,
            seq: journal.next,
            page: last_page,
        };
        let frame = frame.encode();
        batch.put.push((Log::Journal, journal.next, frame));
        journal.next = journal.next.next();
    }
    let head = Head {
        journal,
        history: plan.bounds[1],
        ..unfinished(&plan, batch.commit)
    };
    batch.head = head.encode().to_vec();
    backend.apply(&batch)?;
    PagedStore::open(backend)
}

fn unfinished(plan: &Plan, commit: u64) -> Head {
    Head {
        commit,
        ..Head::new(plan.identity)
    }
}

/// A file being read, with the checksum of what has been read of it.
struct Reader<'a> {
    path: &'a Path,
    input: &'a mut dyn Read,
    sum: u32,
}

impl Reader<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.input
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.bad("it ends too early"),
                _ => failed("read", self.path)(error),
            })?;
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        Ok(())
    }

    fn check_sum(&mut self, what: &str) -> Result<(), StoreError> {
        let computed = self.sum;
        let mut stored = [0; 4];
        self.fill(&mut stored)?;
        if stored != computed.to_be_bytes() {
            return Err(self.bad(format!("{what} is damaged")));
        }
        Ok(())
    }

    fn bad(&self, reason: impl Into<String>) -> StoreError {
        bad(self.path, reason.into())
    }
}

/// Something written to, with the checksum of what has been written.
struct Summing<W> {
    inner: W,
    sum: u32,
}

impl<W: Write> Summing<W> {
    fn new(inner: W) -> Summing<W> {
        Summing { inner, sum: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.inner.write_all(bytes)
    }
}

fn bad(file: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::BadExport {
        file: file.display().to_string(),
        reason: reason.into(),
    }
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io {
        action: format!("{what} {}", path.display()),
        source,
    }
}

fn partial_name(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    // In a folder that others may write to, nobody shall take the name before.
    name.push(format!(".partial-{:016x}", fastrand::u64(..)));
    file.with_file_name(name)
}

fn sync_parent(file: &Path) -> Result<(), StoreError> {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sled::sync_folder(parent),
        _ => sled::sync_folder(Path::new(".")),
    }
}
