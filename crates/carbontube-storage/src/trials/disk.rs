//! Trials on file systems of their own, which need root.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{check_acknowledged, next_commit};
use crate::error::StoreError;
use crate::open::{OpenOptions, open};
use crate::page::{Log, PageSeq};
use crate::store::InDoubt;

const IMAGE_BYTES: u64 = 192 * 1024 * 1024;

/// How one power cut ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The journal page up to which everything had been acknowledged.
    pub acknowledged: u64,
    /// What was wrong with the journal afterwards, if anything was.
    pub failure: Option<String>,
}

/// Cuts the power of a writer's disk once, after a number of commits.
///
/// The disk is ext4 on a loop file. `writer` gives the command that writes at
/// a path as [`write_acknowledged`](super::write_acknowledged) does; right
/// after it has acknowledged its last commit the loop file is copied, which
/// is what a disk would hold if the power went at that moment. The copy is
/// mounted, and `check` looks at the journal there.
///
/// # Errors
///
/// When the trial itself can't be made; needs root.
pub fn power_cut(
    folder: &Path,
    commits: u64,
    writer: &mut dyn FnMut(&Path) -> Command,
    check: &mut dyn FnMut(&Path, PageSeq) -> Result<(), String>,
) -> io::Result<Cut> {
    let image = folder.join("disk.img");
    let cut = folder.join("cut.img");
    make_file_system(&image)?;
    let acknowledged = {
        let mount = Mount::of_image(&image, &folder.join("disk"))?;
        let mut writer = Writer::start(writer(&mount.path.join("journal")))?;
        let mut acknowledged = 0;
        for _ in 0..commits {
            acknowledged = writer.commit()?;
        }
        run(
            "cp",
            [
                OsStr::new("--sparse=always"),
                image.as_os_str(),
                cut.as_os_str(),
            ],
        )?;
        writer.kill()?;
        acknowledged
    };
    fs::remove_file(&image)?;
    let mount = Mount::of_image(&cut, &folder.join("cut"))?;
    let failure = check(&mount.path.join("journal"), PageSeq(acknowledged)).err();
    drop(mount);
    fs::remove_file(&cut)?;
    Ok(Cut {
        acknowledged,
        failure,
    })
}

/// What a full disk did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// How many times the disk was full.
    pub times_full: u32,
    /// How many of the commits that failed had been stored all the same.
    pub applied: u32,
    /// The journal page up to which everything was confirmed in the end.
    pub confirmed: u64,
}

/// Fills a small disk under a journal, makes room again and goes on, several times.
///
/// # Errors
///
/// When the trial can't be made, or with what the store did wrong; needs root.
pub fn fill_disk(folder: &Path, times: u32) -> io::Result<Filled> {
    let mount = Mount::tmpfs(&folder.join("small"), "120m")?;
    let place = mount.path.join("journal");
    let ballast = mount.path.join("ballast");
    let uri = format!("sled:{}", place.display());
    let options = OpenOptions::new("trial");
    let mut store = open(&uri, &options).map_err(io::Error::other)?;
    let mut applied = 0;
    for _ in 0..times {
        for _ in 0..40 {
            let commit = next_commit(store.as_ref());
            store.commit(&commit).map_err(io::Error::other)?;
        }
        fill(&ballast)?;
        let error = loop {
            let commit = next_commit(store.as_ref());
            if let Err(error) = store.commit(&commit) {
                break error;
            }
        };
        expect_full(&error)?;
        let confirmed = store.bounds(Log::Journal).next;
        // It may come back even now, for there is another place to check it at.
        if let Err(error) = store.reopen() {
            expect_full(&error)?;
            fs::remove_file(&ballast)?;
            if store.reopen().map_err(io::Error::other)? == Some(InDoubt::Applied) {
                applied += 1;
            }
        } else {
            fs::remove_file(&ballast)?;
        }
        check_acknowledged(store.as_mut(), confirmed).map_err(io::Error::other)?;
    }
    let confirmed = store.bounds(Log::Journal).next;
    drop(store);
    let mut store = open(&uri, &options).map_err(io::Error::other)?;
    check_acknowledged(store.as_mut(), confirmed).map_err(io::Error::other)?;
    Ok(Filled {
        times_full: times,
        applied,
        confirmed: confirmed.0,
    })
}

fn expect_full(error: &StoreError) -> io::Result<()> {
    match error {
        StoreError::Full { .. } => Ok(()),
        other => Err(io::Error::other(format!(
            "a full disk was reported as: {other}"
        ))),
    }
}

/// Writes a file until there is no space left.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut bytes = vec![7; 64 * 1024];
    while !bytes.is_empty() {
        match file.write(&bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                bytes.truncate(bytes.len() / 2);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn make_file_system(image: &Path) -> io::Result<()> {
    File::create(image)?.set_len(IMAGE_BYTES)?;
    run(
        "mkfs.ext4",
        [OsStr::new("-q"), OsStr::new("-F"), image.as_os_str()],
    )
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> io::Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program} failed, {status}")))
}

/// A file system that is unmounted when dropped.
struct Mount {
    path: PathBuf,
}

impl Mount {
    fn of_image(image: &Path, path: &Path) -> io::Result<Mount> {
        Mount::make(
            path,
            [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str()],
        )
    }

    fn tmpfs(path: &Path, size: &str) -> io::Result<Mount> {
        let size = format!("size={size}");
        let options = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        Mount::make(path, options.map(OsStr::new))
    }

    fn make<'a>(path: &'a Path, what: impl IntoIterator<Item = &'a OsStr>) -> io::Result<Mount> {
        fs::create_dir_all(path)?;
        run("mount", what.into_iter().chain([path.as_os_str()]))?;
        Ok(Mount {
            path: path.to_owned(),
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = run("umount", [self.path.as_os_str()]) {
            log::warn!("cannot unmount {}: {error}", self.path.display());
        }
    }
}

/// A writer in a process of its own, killed when dropped.
struct Writer {
    process: Child,
    go: ChildStdin,
    acknowledged: BufReader<ChildStdout>,
}

impl Writer {
    fn start(mut command: Command) -> io::Result<Writer> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("the writer has no pipes");
        Ok(Writer {
            go: process.stdin.take().ok_or_else(missing)?,
            acknowledged: BufReader::new(process.stdout.take().ok_or_else(missing)?),
            process,
        })
    }

    /// Lets it commit once and returns what it acknowledges.
    fn commit(&mut self) -> io::Result<u64> {
        self.go.write_all(b"go\n")?;
        let mut line = String::new();
        self.acknowledged.read_line(&mut line)?;
        line.trim()
            .parse()
            .map_err(|_| io::Error::other(format!("the writer said {line:?}")))
    }

    fn kill(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(|_| ())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.kill();
    }
}
