//! The folder around the database: who it belongs to, who holds it, what was confirmed.
//!
//! ```text
//! carbontube-journal   the marker: that this is a journal, its format, its pipeline
//! lock                 held by the manager that has it open; holds its process id
//! witness              the last commit that was confirmed
//! db/                  the database, as sled made it
//! unsynced             there while a sync has failed and nothing was written again since
//! ```
//!
//! While a journal is being made its marker is called `creating`; it gets its
//! name last, so a creation that was cut short is known as one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Damage, StoreError};
use crate::page::FORMAT_VERSION;
use crate::private;

const MARKER: &str = "carbontube-journal";
const CREATING: &str = "creating";
const LOCK: &str = "lock";
const WITNESS: &str = "witness";
const DATABASE: &str = "db";
const UNSYNCED: &str = "unsynced";
const FIRST_LINE: &str = "carbontube journal";
const MARKER_BYTES_MAX: u64 = 4096;

/// What the marker of a folder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) pipeline: String,
}

impl Marker {
    fn text(&self) -> String {
        format!(
            "{FIRST_LINE}\nformat {FORMAT_VERSION}\nengine sled-0.34\npipeline {}\n",
            self.pipeline
        )
    }

    fn parse(place: &str, text: &str) -> Result<Marker, StoreError> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(StoreError::damaged(place)(Damage::Other {
                what: format!("its file {MARKER} does not begin with {FIRST_LINE:?}"),
            }));
        }
        let format = lines.next().and_then(|line| line.strip_prefix("format "));
        if format != Some(FORMAT_VERSION.to_string().as_str()) {
            return Err(StoreError::Format {
                place: place.to_owned(),
                found: format.unwrap_or("unknown").to_owned(),
            });
        }
        let mut field = |name: &str| {
            lines
                .next()
                .and_then(|line| line.strip_prefix(name))
                .map(str::to_owned)
                .ok_or_else(|| {
                    StoreError::damaged(place)(Damage::Other {
                        what: format!("its file {MARKER} has no line {name:?}"),
                    })
                })
        };
        let engine = field("engine ")?;
        if engine != "sled-0.34" {
            return Err(StoreError::Format {
                place: place.to_owned(),
                found: format!("{FORMAT_VERSION} of {engine}"),
            });
        }
        Ok(Marker {
            pipeline: field("pipeline ")?,
        })
    }
}

/// What is at a path.
enum Found {
    Nothing,
    Empty,
    Unfinished,
    Journal(Marker),
}

/// A journal's folder, held by this process until dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    place: String,
    lock: File,
    unsynced: AtomicBool,
}

impl Folder {
    /// Takes hold of an existing journal; `None` when there is none yet.
    pub(crate) fn hold(path: &Path) -> Result<Option<(Folder, Marker)>, StoreError> {
        let place = format!("sled:{}", path.display());
        let path = &absolute(path, &place)?;
        let Found::Journal(marker) = look(path, &place)? else {
            return Ok(None);
        };
        let lock = lock(path, &place)?;
        let folder = Folder {
            unsynced: AtomicBool::new(path.join(UNSYNCED).exists()),
            path: path.to_owned(),
            place,
            lock,
        };
        folder.sign()?;
        folder.close_to_others();
        Ok(Some((folder, marker)))
    }

    /// Makes the folder for a new journal and takes hold of it.
    ///
    /// It is a journal only after [`Folder::finish`]. What an unfinished
    /// creation left is removed.
    pub(crate) fn begin(path: &Path, marker: &Marker) -> Result<Folder, StoreError> {
        let place = format!("sled:{}", path.display());
        let path = &absolute(path, &place)?;
        make_folders(path)?;
        let lock = lock(path, &place)?;
        // Another process may have made a journal here before we got the lock.
        match look(path, &place)? {
            Found::Journal(_) => {
                return Err(StoreError::Locked {
                    place,
                    holder: "another manager that is just starting".to_owned(),
                });
            }
            Found::Unfinished => {
                // Nothing was ever confirmed from here: confirming comes after the marker.
                remove_if_there(&path.join(WITNESS), |path| fs::remove_file(path))?;
                remove_if_there(&path.join(DATABASE), |path| fs::remove_dir_all(path))?;
            }
            Found::Nothing | Found::Empty => {}
        }
        let folder = Folder {
            path: path.to_owned(),
            place,
            lock,
            unsynced: AtomicBool::new(false),
        };
        folder.sign()?;
        folder.close_to_others();
        let creating = path.join(CREATING);
        let mut file = private::create(&creating).map_err(io(&folder.place, "write", &creating))?;
        file.write_all(marker.text().as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io(&folder.place, "write", &creating))?;
        sync_folder(path)?;
        Ok(folder)
    }

    /// Makes everything in the folder durable, then makes it a journal.
    pub(crate) fn finish(&self) -> Result<(), StoreError> {
        sync_tree(&self.path)?;
        let marker = self.path.join(MARKER);
        fs::rename(self.path.join(CREATING), &marker).map_err(io(&self.place, "name", &marker))?;
        sync_folder(&self.path)
    }

    /// Where the journal is, for people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where sled keeps its files.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The file that tells the last confirmed commit.
    pub(crate) fn witness(&self) -> PathBuf {
        self.path.join(WITNESS)
    }

    /// Notes that what can be read in the database may not be durable.
    ///
    /// The file is for another process, should this one end: the kernel, which
    /// holds what is not durable, shows it for as long as that.
    pub(crate) fn mark_unsynced(&self) {
        self.unsynced.store(true, Ordering::Relaxed);
        let mark = self.path.join(UNSYNCED);
        if let Err(error) = private::create(&mark) {
            log::warn!("cannot make {}: {error}", mark.display());
        }
    }

    pub(crate) fn is_marked_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Relaxed)
    }

    pub(crate) fn unmark_unsynced(&self) -> Result<(), StoreError> {
        self.unsynced.store(false, Ordering::Relaxed);
        remove_if_there(&self.path.join(UNSYNCED), |path| fs::remove_file(path))
    }

    /// Takes from others what they may do here: the folder may have been made by hand, or
    /// by a version that did not mind.
    fn close_to_others(&self) {
        match private::close(&self.path) {
            Ok(None) => {}
            Ok(Some(mode)) => log::warn!(
                "the journal at {} was open to other users (mode {mode:03o}); now it is not",
                self.place
            ),
            // It may belong to somebody else, who lets us use it.
            Err(error) => log::warn!(
                "cannot close the journal at {} to other users: {error}",
                self.place
            ),
        }
    }

    /// Leaves our process id for whoever finds the folder locked.
    fn sign(&self) -> Result<(), StoreError> {
        let text = format!("{:<20}\n", std::process::id());
        match self.lock.write_all_at(text.as_bytes(), 0) {
            // The id is a courtesy; a full disk must not keep a journal from being read.
            Err(error) if is_full(&error) => Ok(()),
            other => other.map_err(io(&self.place, "write", &self.path.join(LOCK))),
        }
    }
}

/// A journal is reopened by its path, wherever its process has gone meanwhile.
fn absolute(path: &Path, place: &str) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(io(place, "find", path))
}

fn look(path: &Path, place: &str) -> Result<Found, StoreError> {
    let foreign = |found: String| StoreError::Foreign {
        place: place.to_owned(),
        found,
    };
    let kind = match fs::metadata(path) {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(io(place, "look at", path)(error)),
    };
    if !kind.is_dir() {
        return Err(foreign("it is not a folder".to_owned()));
    }
    let marker = path.join(MARKER);
    match File::open(&marker) {
        Ok(file) => {
            let mut text = Vec::new();
            file.take(MARKER_BYTES_MAX)
                .read_to_end(&mut text)
                .map_err(io(place, "read", &marker))?;
            let text = String::from_utf8_lossy(&text);
            return Marker::parse(place, &text).map(Found::Journal);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(place, "read", &marker)(error)),
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(io(place, "list", path))? {
        let entry = entry.map_err(io(place, "list", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let unfinished = names.iter().any(|name| name == CREATING);
    let own = |name: &str| match name {
        LOCK | "lost+found" => true,
        CREATING | WITNESS | DATABASE => unfinished,
        _ => false,
    };
    if let Some(other) = names.iter().find(|name| !own(name)) {
        let what = match other.as_str() {
            "blobs" | "conf" | "db" => "a sled database of something else",
            _ => "other files",
        };
        return Err(foreign(format!(
            "the folder holds {what}, such as {other:?}"
        )));
    }
    Ok(if unfinished {
        Found::Unfinished
    } else {
        Found::Empty
    })
}

fn lock(path: &Path, place: &str) -> Result<File, StoreError> {
    let lock = path.join(LOCK);
    let mut file = private::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock)
        .map_err(io(place, "open", &lock))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file
                .seek(SeekFrom::Start(0))
                .and_then(|_| (&file).take(20).read_to_string(&mut text));
            let holder = match text.trim().parse::<u32>() {
                Ok(id) if read.is_ok() && id == std::process::id() => "this process".to_owned(),
                Ok(id) if read.is_ok() => format!("process {id}"),
                _ => "another process".to_owned(),
            };
            Err(StoreError::Locked {
                place: place.to_owned(),
                holder,
            })
        }
        Err(TryLockError::Error(error)) => Err(io(place, "lock", &lock)(error)),
    }
}

/// Makes a folder and those above it, each known to the one above it for good.
fn make_folders(path: &Path) -> Result<(), StoreError> {
    let place = format!("sled:{}", path.display());
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.exists() {
        missing.push(at);
        match at.parent() {
            Some(above) => at = above,
            None => break,
        }
    }
    for folder in missing.into_iter().rev() {
        match private::create_folder(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io(&place, "make the folder", folder)(error));
            }
            _ => {}
        }
        match folder.parent() {
            Some(above) if !above.as_os_str().is_empty() => sync_folder(above)?,
            _ => sync_folder(Path::new("."))?,
        }
    }
    Ok(())
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let place = format!("sled:{}", path.display());
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(io(&place, "sync the folder", path))
}

fn sync_tree(path: &Path) -> Result<(), StoreError> {
    let place = format!("sled:{}", path.display());
    for entry in fs::read_dir(path).map_err(io(&place, "list", path))? {
        let entry = entry.map_err(io(&place, "list", path))?;
        let kind = entry.file_type().map_err(io(&place, "look at", path))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())
                .and_then(|file| file.sync_all())
                .map_err(io(&place, "sync", &entry.path()))?;
        }
    }
    sync_folder(path)
}

fn remove_if_there(
    path: &Path,
    remove: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), StoreError> {
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io(&path.display().to_string(), "remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Turns an error of the operating system into ours, a full disk among them.
pub(crate) fn io<'a>(
    place: &'a str,
    what: &'a str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| {
        if is_full(&source) {
            return StoreError::Full {
                place: place.to_owned(),
            };
        }
        StoreError::Io {
            action: format!("{what} {}", path.display()),
            source,
        }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The last confirmed commit, kept beside the database.
///
/// It is written after a commit is durable and before it is confirmed, and
/// not synced: after a power cut it may be behind, never ahead. In all other
/// cases it is exact, and a database that has lost its newest commits, which
/// looks just like one that never had them, is told apart from that.
///
/// ```text
/// offset  bytes  what
///      0      4  magic, `CTWT`
///      4      1  format version, 1
///      5      3  zero
///      8     16  identity of the store
///     24      8  number of the last confirmed commit, big-endian
///     32      4  CRC32C of bytes 0 to 31, big-endian
/// ```
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
    identity: [u8; 16],
}

const WITNESS_BYTES: usize = 36;

impl Witness {
    pub(crate) fn create(folder: &Folder, identity: [u8; 16]) -> Result<Witness, StoreError> {
        let path = folder.witness();
        let file = private::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(io(folder.place(), "make", &path))?;
        Ok(Witness { file, identity })
    }

    /// Opens the witness and says which commit it saw last.
    pub(crate) fn open(folder: &Folder) -> Result<(Witness, u64), StoreError> {
        let path = folder.witness();
        let damaged = |what: &str| {
            StoreError::damaged(folder.place())(Damage::Other {
                what: format!("the record of the last confirmed commit {what}"),
            })
        };
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("is missing"));
            }
            other => other.map_err(io(folder.place(), "open", &path))?,
        };
        let mut bytes = Vec::new();
        (&file)
            .take(WITNESS_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(io(folder.place(), "read", &path))?;
        let bytes: [u8; WITNESS_BYTES] = bytes
            .try_into()
            .map_err(|_| damaged("has the wrong length"))?;
        let crc = crc32c::crc32c(&bytes[..32]).to_be_bytes();
        if bytes[..4] != *b"CTWT" || bytes[32..] != crc {
            return Err(damaged("cannot be read"));
        }
        if bytes[4] != FORMAT_VERSION {
            return Err(StoreError::Format {
                place: folder.place().to_owned(),
                found: bytes[4].to_string(),
            });
        }
        let identity = bytes[8..24].try_into().expect("sixteen bytes");
        let commit = u64::from_be_bytes(bytes[24..32].try_into().expect("eight bytes"));
        Ok((Witness { file, identity }, commit))
    }

    pub(crate) fn identity(&self) -> [u8; 16] {
        self.identity
    }

    pub(crate) fn record(&self, folder: &Folder, commit: u64) -> Result<(), StoreError> {
        let mut bytes = [0; WITNESS_BYTES];
        bytes[..4].copy_from_slice(b"CTWT");
        bytes[4] = FORMAT_VERSION;
        bytes[8..24].copy_from_slice(&self.identity);
        bytes[24..32].copy_from_slice(&commit.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..32]).to_be_bytes();
        bytes[32..].copy_from_slice(&crc);
        self.file
            .write_all_at(&bytes, 0)
            .map_err(io(folder.place(), "write", &folder.witness()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            pipeline: "videos".to_owned(),
        }
    }

    #[test]
    fn folder_that_was_begun_but_not_finished_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/journal");
        let folder = Folder::begin(&path, &marker()).unwrap();
        fs::create_dir(folder.database()).unwrap();
        fs::write(folder.database().join("db"), b"half").unwrap();
        drop(folder);
        assert!(Folder::hold(&path).unwrap().is_none());
        let folder = Folder::begin(&path, &marker()).unwrap();
        assert!(!folder.database().exists());
        folder.finish().unwrap();
        drop(folder);
        assert_eq!(Folder::hold(&path).unwrap().unwrap().1, marker());
    }

    #[test]
    fn folder_of_something_else_is_refused_and_left_alone() {
        for (name, expected) in [
            ("notes.txt", "other files"),
            ("conf", "a sled database of something else"),
            ("witness", "other files"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), b"precious").unwrap();
            let error = Folder::hold(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::hold(file.path()).unwrap_err();
        assert!(error.to_string().contains("not a folder"), "{error}");
    }

    #[test]
    fn folder_held_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::begin(dir.path(), &marker()).unwrap();
        folder.finish().unwrap();
        let error = Folder::hold(dir.path()).unwrap_err();
        assert!(
            error.to_string().ends_with("in use by this process"),
            "{error}"
        );
    }

    #[test]
    fn marker_of_another_format_is_refused_by_name() {
        let future = marker().text().replace("format 1", "format 2");
        let error = Marker::parse("x", &future).unwrap_err();
        assert!(error.to_string().contains("is in format 2"), "{error}");
        let engine = marker().text().replace("sled-0.34", "sled-1");
        assert!(matches!(
            Marker::parse("x", &engine),
            Err(StoreError::Format { .. })
        ));
        assert!(matches!(
            Marker::parse("x", "hello"),
            Err(StoreError::Damaged { .. })
        ));
        assert_eq!(Marker::parse("x", &marker().text()).unwrap(), marker());
    }

    #[test]
    fn witness_that_is_changed_or_cut_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::begin(dir.path(), &marker()).unwrap();
        let witness = Witness::create(&folder, [7; 16]).unwrap();
        witness.record(&folder, 12).unwrap();
        let (again, commit) = Witness::open(&folder).unwrap();
        assert_eq!((again.identity(), commit), ([7; 16], 12));
        let whole = fs::read(folder.witness()).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.witness(), &bytes).unwrap();
            assert!(Witness::open(&folder).is_err(), "bit {bit}");
        }
        for length in 0..whole.len() {
            fs::write(folder.witness(), &whole[..length]).unwrap();
            assert!(Witness::open(&folder).is_err(), "length {length}");
        }
    }
}
