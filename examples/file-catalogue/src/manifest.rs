//! The manifest: one line for each part, each of which can be checked by itself.
//!
//! A line is a JSON object, a tab and the first sixteen hexadecimal digits of the
//! object's SHA-256. It is written with one write to a file opened for appending, so
//! that lines of several processes never mix.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::part::{Part, hex};

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The job that catalogued the part.
    pub job: String,
    /// The part.
    #[serde(flatten)]
    pub part: Part,
    /// Its SHA-256.
    pub sha256: String,
    /// Where its compressed form is.
    pub compressed: PathBuf,
    /// When the job was enqueued, in microseconds since 1970; 0 when unknown.
    pub enqueued_us: u64,
    /// When the line was written, in microseconds since 1970.
    pub catalogued_us: u64,
}

/// A manifest, opened for appending.
#[derive(Debug)]
pub struct Manifest {
    file: File,
}

/// Why a line cannot be believed.
#[derive(Debug)]
pub struct ManifestError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {} of the manifest: {}", self.line, self.reason)
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Opens the manifest at `path`, which may exist.
    ///
    /// # Errors
    /// When it cannot be opened for appending.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Manifest { file })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When it cannot be written whole.
    pub fn append(&self, entry: &Entry) -> io::Result<()> {
        let line = line(entry)?;
        let written = (&self.file).write(line.as_bytes())?;
        if written == line.len() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::WriteZero,
            "the line could only be written in part",
        ))
    }

    /// Reads and checks every line of a manifest's text.
    pub fn check(text: &str) -> Vec<Result<Entry, ManifestError>> {
        let lines = text.split_inclusive('\n').enumerate();
        lines
            .map(|(index, line)| {
                parse(line).map_err(|reason| ManifestError {
                    line: index + 1,
                    reason,
                })
            })
            .collect()
    }
}

fn line(entry: &Entry) -> io::Result<String> {
    let json = serde_json::to_string(entry)?;
    let check = &hex(json.as_bytes())[..16];
    Ok(format!("{json}\t{check}\n"))
}

fn parse(line: &str) -> Result<Entry, String> {
    let line = line.strip_suffix('\n').ok_or("it has no end")?;
    let (json, check) = line.rsplit_once('\t').ok_or("it has no checksum")?;
    let expected = &hex(json.as_bytes())[..16];
    if check != expected {
        return Err(format!("its checksum is {check}, expected {expected}"));
    }
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            job: "7".to_owned(),
            part: Part {
                path: "/a".into(),
                offset: 1,
                length: 2,
            },
            sha256: hex(b"ab"),
            compressed: "/b".into(),
            enqueued_us: 3,
            catalogued_us: 4,
        }
    }

    #[test]
    fn written_lines_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest");
        for _ in 0..2 {
            Manifest::open(&path).unwrap().append(&entry()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let entries: Vec<Entry> = Manifest::check(&text)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(entries, [entry(), entry()]);
    }

    #[test]
    fn changed_and_cut_lines_are_found() {
        let good = line(&entry()).unwrap();
        let changed = good.replace("\"offset\":1", "\"offset\":9");
        let cut = &good[..good.len() - 4];
        let checked = Manifest::check(&format!("{good}{changed}{cut}"));
        assert!(checked[0].is_ok());
        assert_eq!(checked[1].as_ref().unwrap_err().line, 2);
        assert_eq!(checked[2].as_ref().unwrap_err().reason, "it has no end");
    }
}
