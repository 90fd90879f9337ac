//! Small file systems of our own, unmounted whatever happens. They need root.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

/// What is mounted, to be unmounted where no destructor runs.
static MOUNTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A file system that is unmounted when dropped.
pub(crate) struct Mount {
    path: PathBuf,
}

impl Mount {
    /// A file system in memory of so many MiB.
    pub(crate) fn memory(path: &Path, mib: u32) -> Result<Self> {
        let size = format!("size={mib}m");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        Mount::make(path, &arguments.map(OsStr::new))
    }

    /// The ext4 in a file.
    pub(crate) fn image(path: &Path, image: &Path) -> Result<Self> {
        let arguments = [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str()];
        Mount::make(path, &arguments)
    }

    fn make(path: &Path, arguments: &[&OsStr]) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let path = path.canonicalize()?;
        let arguments = arguments.iter().copied().chain([path.as_os_str()]);
        run("mount", arguments)?;
        mounted().push(path.clone());
        Ok(Mount { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it to the last byte with a file of this name.
    pub(crate) fn fill(&self, name: &str) -> Result<Ballast> {
        let path = self.path.join(name);
        let ballast = Ballast { path: path.clone() };
        let mut file = File::create(path)?;
        let mut bytes = vec![7; 64 << 10];
        while !bytes.is_empty() {
            match file.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    bytes.truncate(bytes.len() / 2);
                }
                Err(error) => return Err(error).context("filling the disk"),
            }
        }
        Ok(ballast)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.path);
        mounted().retain(|path| *path != self.path);
    }
}

/// A file that takes all space until it is dropped.
pub(crate) struct Ballast {
    path: PathBuf,
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// An empty ext4 in a file of so many MiB.
pub(crate) fn make_ext4(image: &Path, mib: u64) -> Result<()> {
    File::create(image)?.set_len(mib << 20)?;
    run(
        "mkfs.ext4",
        ["-q", "-F"]
            .map(OsStr::new)
            .into_iter()
            .chain([image.as_os_str()]),
    )
}

/// Copies a file as it is at this moment, holes left out.
pub(crate) fn copy_image(from: &Path, to: &Path) -> Result<()> {
    run(
        "cp",
        [
            OsStr::new("--sparse=always"),
            from.as_os_str(),
            to.as_os_str(),
        ],
    )
}

/// Unmounts all that is mounted still.
pub(crate) fn end_all() {
    for path in mounted().drain(..) {
        unmount(&path);
    }
}

fn mounted() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    MOUNTED.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// Lazily, since a process that is just dying may have files open there still.
fn unmount(path: &Path) {
    if let Err(error) = run("umount", [OsStr::new("--lazy"), path.as_os_str()]) {
        eprintln!("{} stays mounted: {error:#}", path.display());
    }
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    ensure!(
        output.status.success(),
        "{program} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
