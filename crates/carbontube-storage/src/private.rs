//! Files and folders that only their owner may read, from the moment they are there.
//!
//! A journal holds the instructions and results of all jobs. The mode is given when a
//! file is made, not changed afterwards, so that there is no moment in which others can
//! open it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The mode of a folder.
const FOLDER: u32 = 0o700;
/// The mode of a file.
const FILE: u32 = 0o600;
/// What others may do.
const OTHERS: u32 = 0o077;

/// How a file is made or opened; one that is made belongs to its owner alone.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE);
    options
}

/// Makes a file, or empties the one that is there.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// Makes a folder.
///
/// # Errors
/// Also when there is anything at the path, be it a link.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER).create(path)
}

/// Makes a folder with a name that nobody can guess in one that others may write to.
pub(crate) fn create_folder_in(shared: &Path, prefix: &str) -> io::Result<PathBuf> {
    let mut random = fastrand::Rng::new();
    loop {
        let path = shared.join(format!("{prefix}-{:016x}", random.u64(..)));
        match create_folder(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
}

/// Takes away what others may do with a folder and all that is in it.
///
/// Returns the mode that the folder had, when others could have entered it.
pub(crate) fn close(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    let was_open = mode & OTHERS != 0;
    if was_open {
        fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))?;
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if entry.file_name() == "lost+found" {
                continue;
            }
            close(&entry.path())?;
        } else if kind.is_file() {
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            if mode & OTHERS != 0 {
                let closed = Permissions::from_mode(mode & !OTHERS);
                fs::set_permissions(entry.path(), closed)?;
            }
        }
    }
    Ok(was_open.then_some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{OpenOptions as StoreOptions, new_identity, open};
    use crate::paged::PagedStore;
    use crate::portable::{LostPages, export, import};

    const NONE: [PathBuf; 0] = [];

    /// Every path in a folder, itself among them, that others may do anything with; but of
    /// sled's own files only the data file, for it makes the rest behind a closed door.
    fn open_to_others(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut paths = vec![folder.to_owned()];
        while let Some(path) = paths.pop() {
            let metadata = fs::metadata(&path).unwrap();
            let is_sleds = path.parent().is_some_and(|parent| parent.ends_with("db"));
            if metadata.permissions().mode() & OTHERS != 0 && (!is_sleds || path.ends_with("db")) {
                found.push(path.clone());
            }
            if metadata.is_dir() {
                let entries = fs::read_dir(&path).unwrap();
                paths.extend(entries.map(|entry| entry.unwrap().path()));
            }
        }
        found
    }

    #[test]
    fn journal_is_closed_to_others_while_it_is_made_and_afterwards() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("above/journal");
        let identity = new_identity();
        let store = crate::sled::create(&path, "p", identity, |backend| {
            assert_eq!(open_to_others(&path), NONE);
            PagedStore::create(backend, identity)
        })
        .unwrap();
        assert_eq!(open_to_others(&temporary.path().join("above")), NONE);
        drop(store);
        let uri = format!("sled:{}", path.display());
        drop(open(&uri, &StoreOptions::new("p")).unwrap());
        assert_eq!(open_to_others(&path), NONE);
    }

    #[test]
    fn journal_that_was_open_to_others_is_closed() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("journal");
        // As somebody makes it by hand, for a manager to use.
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let uri = format!("sled:{}", path.display());
        drop(open(&uri, &StoreOptions::new("p")).unwrap());
        assert_eq!(open_to_others(&path), NONE);
        for (place, mode) in [
            ("", 0o755),
            ("db", 0o755),
            ("db/db", 0o644),
            ("witness", 0o644),
        ] {
            fs::set_permissions(path.join(place), Permissions::from_mode(mode)).unwrap();
        }
        drop(open(&uri, &StoreOptions::new("p")).unwrap());
        assert_eq!(open_to_others(&path), NONE);
    }

    #[test]
    fn export_and_import_are_closed_to_others() {
        let temporary = tempfile::tempdir().unwrap();
        let place = |name: &str| temporary.path().join(name);
        let uri = |name: &str| format!("sled:{}", place(name).display());
        let options = StoreOptions::new("p");
        drop(open(&uri("old"), &options).unwrap());
        export(&uri("old"), &options, &place("file")).unwrap();
        import(&place("file"), &uri("new"), &options, LostPages::Refuse).unwrap();
        for name in ["file", "new"] {
            assert_eq!(open_to_others(&place(name)), NONE);
        }
    }

    #[test]
    fn folder_among_those_of_others_has_a_name_of_its_own() {
        let temporary = tempfile::tempdir().unwrap();
        let make = || create_folder_in(temporary.path(), "copy").unwrap();
        let (first, second) = (make(), make());
        assert_ne!(first, second);
        assert_eq!(open_to_others(&first), NONE);
    }
}
