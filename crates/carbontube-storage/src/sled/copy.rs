//! Copies of a database to look at, so that the journal itself is not touched.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::folder::{Folder, io as io_error, is_full};
use crate::error::StoreError;
use crate::private;

/// A copy of a database, removed when dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    path: PathBuf,
}

const NAME: &str = "check";

impl Copy {
    /// Copies the database of a journal into its folder or, where there is no
    /// room, to the folder for temporary files.
    ///
    /// The file system shares the blocks where it can.
    pub(crate) fn of(folder: &Folder) -> Result<Copy, StoreError> {
        let database = folder.database();
        let inside = folder.path().join(NAME);
        match Copy::inside(&inside, &database) {
            Err(error) if elsewhere_may_do(&error) => {
                let temporary = std::env::temp_dir();
                private::create_folder_in(&temporary, &format!("carbontube-{NAME}"))
                    .and_then(|path| Copy::into(path, &database))
                    .map_err(io_error(
                        folder.place(),
                        "copy the journal into",
                        &temporary,
                    ))
            }
            other => other.map_err(io_error(folder.place(), "copy the journal into", &inside)),
        }
    }

    fn inside(path: &Path, database: &Path) -> io::Result<Copy> {
        // We hold the journal, so whatever is there was left by a process long gone.
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private::create_folder(path)?;
        Copy::into(path.to_owned(), database)
    }

    /// Fills a folder that was just made.
    fn into(path: PathBuf, database: &Path) -> io::Result<Copy> {
        let copy = Copy { path };
        for entry in fs::read_dir(database)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && !is_unfinished_snapshot(&entry.file_name()) {
                fs::copy(entry.path(), copy.path.join(entry.file_name()))?;
            }
        }
        Ok(copy)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes sled's snapshot files, which it can do without.
    ///
    /// A snapshot that is damaged keeps sled from opening a database whose
    /// data is whole. Says whether there was any.
    pub(crate) fn remove_snapshots(&self) -> io::Result<bool> {
        let mut any = false;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::remove_file(entry.path())?;
                any = true;
            }
        }
        Ok(any)
    }
}

/// Whether sled was interrupted while it wrote this file, by a full disk say.
///
/// It gives a snapshot its name when it is complete, yet at the next opening
/// takes an incomplete one for a damaged one and refuses.
fn is_unfinished_snapshot(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("snap.") && name.ends_with(".generating")
}

/// Removes what sled left unfinished in a database that is whole without it.
pub(crate) fn remove_unfinished_snapshots(database: &Path) -> io::Result<()> {
    for entry in fs::read_dir(database)? {
        let entry = entry?;
        if is_unfinished_snapshot(&entry.file_name()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn elsewhere_may_do(error: &io::Error) -> bool {
    is_full(error)
        || matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}
