//! How the files of a database become durable, also after a sync that failed.
//!
//! When a sync fails the kernel may take the pages it could not write for
//! written: they are there to be read, the next sync has nothing to do and
//! succeeds, and they are gone when the power is. So after a failure nothing
//! counts that was not written again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const CHUNK_BYTES: usize = 256 * 1024;

/// The disk beneath a database.
#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: faults::SyncFaults,
}

impl Disk {
    /// Syncs the data file of a database.
    pub(super) fn sync(&self, data: &File, database: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.faults.sync(database)?;
        #[cfg(not(test))]
        let _ = database;
        data.sync_data()
    }

    /// Writes every file of a closed database again as it reads, and syncs it.
    ///
    /// It needs no space, for nothing grows, and no memory to speak of. A
    /// power cut meanwhile finds of each block either what it would have
    /// found before or what was there to be read.
    pub(super) fn write_again(&self, database: &Path) -> io::Result<()> {
        for entry in fs::read_dir(database)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                write_file_again(&entry.path())?;
            }
        }
        #[cfg(test)]
        self.faults.written_again(database)?;
        File::open(database)?.sync_all()
    }
}

fn write_file_again(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut chunk, at)?;
        if read == 0 {
            return file.sync_all();
        }
        file.write_all_at(&chunk[..read], at)?;
        at += read as u64;
    }
}

/// A disk whose syncs fail as those of a real one do.
#[cfg(test)]
pub(super) mod faults {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::fs;
    use std::io;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    const BLOCK_BYTES: usize = 4096;

    type Files = BTreeMap<OsString, Vec<u8>>;

    /// The switches; clones are of the same disk.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct SyncFaults(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        fail_next_sync: bool,
        fail_writing_again: bool,
        durable: Files,
        /// What could be read when a sync failed, which the kernel takes for written.
        taken_for_written: Option<Files>,
    }

    impl SyncFaults {
        /// The next sync fails; its bytes can be read and are not durable.
        pub(crate) fn fail_next_sync(&self) {
            self.0.lock().unwrap().fail_next_sync = true;
        }

        pub(crate) fn fail_writing_again(&self, fail: bool) {
            self.0.lock().unwrap().fail_writing_again = fail;
        }

        /// Puts in place of a closed database what a power cut leaves of it.
        pub(crate) fn cut_power(&self, database: &Path) {
            for entry in fs::read_dir(database).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
            for (name, bytes) in &self.0.lock().unwrap().durable {
                fs::write(database.join(name), bytes).unwrap();
            }
        }

        pub(super) fn sync(&self, database: &Path) -> io::Result<()> {
            let mut state = self.0.lock().unwrap();
            let visible = files(database)?;
            if std::mem::take(&mut state.fail_next_sync) {
                state.taken_for_written = Some(visible);
                return Err(failed());
            }
            match &state.taken_for_written {
                None => state.durable = visible,
                Some(clean) => {
                    let durable = visible.iter().map(|(name, bytes)| {
                        let none = Vec::new();
                        let old = state.durable.get(name).unwrap_or(&none);
                        let clean = clean.get(name).unwrap_or(&none);
                        (name.clone(), without_lost_blocks(bytes, clean, old))
                    });
                    state.durable = durable.collect();
                }
            }
            Ok(())
        }

        pub(super) fn written_again(&self, database: &Path) -> io::Result<()> {
            let mut state = self.0.lock().unwrap();
            if state.fail_writing_again {
                return Err(failed());
            }
            state.taken_for_written = None;
            state.durable = files(database)?;
            Ok(())
        }
    }

    /// Blocks that nobody wrote since the sync that failed are as they were before it.
    fn without_lost_blocks(visible: &[u8], clean: &[u8], old: &[u8]) -> Vec<u8> {
        let mut durable = visible.to_vec();
        for (number, block) in durable.chunks_mut(BLOCK_BYTES).enumerate() {
            let at = number * BLOCK_BYTES;
            if clean.get(at..at + block.len()) != Some(&*block) {
                continue;
            }
            for (byte, at) in block.iter_mut().zip(at..) {
                *byte = old.get(at).copied().unwrap_or(0);
            }
        }
        durable
    }

    fn files(database: &Path) -> io::Result<Files> {
        let mut files = Files::new();
        for entry in fs::read_dir(database)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                match fs::read(entry.path()) {
                    // sled replaces its snapshot files whenever it likes.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    bytes => files.insert(entry.file_name(), bytes?),
                };
            }
        }
        Ok(files)
    }

    fn failed() -> io::Error {
        io::Error::other("a fault was asked for")
    }
}
