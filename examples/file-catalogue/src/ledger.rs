//! What phases ran, in their own words: one file for each process of a phase.
//!
//! It is independent of what managers believe, so it can convict them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A process's ledger of one phase.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    phase: String,
}

/// One run of a phase for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The process that ran it.
    pub process: u32,
    /// When it began, in microseconds since 1970.
    pub began_us: u64,
    /// When it ended; `None` when it did not get there.
    pub ended_us: Option<u64>,
}

impl Ledger {
    /// Opens the ledger of this process for a phase, in `folder`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(folder: &Path, phase: &str) -> io::Result<Self> {
        let path = folder.join(format!("ledger-{phase}-{}", std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Ledger {
            file,
            phase: phase.to_owned(),
        })
    }

    /// Notes that the phase began for a job, or ended.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn note(&self, what: &str, job: &str) -> io::Result<()> {
        let phase = &self.phase;
        let process = std::process::id();
        let line = format!("{what} {phase} {job} {process} {}\n", now_us());
        (&self.file).write_all(line.as_bytes())
    }
}

/// Every run in the ledgers of `folder`: for each phase and job, in the order of time.
///
/// # Errors
/// When a ledger cannot be read. A last line without an end, left by a killed process, is
/// no error.
pub fn read_ledgers(folder: &Path) -> io::Result<BTreeMap<(String, String), Vec<Run>>> {
    let mut runs: BTreeMap<(String, String), Vec<Run>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("ledger-") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path())?;
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [what, phase, job, process, at] = fields[..] else {
                continue;
            };
            let (Ok(process), Ok(at)) = (process.parse(), at.parse()) else {
                continue;
            };
            let runs = runs.entry((phase.to_owned(), job.to_owned())).or_default();
            if what == "began" {
                runs.push(Run {
                    process,
                    began_us: at,
                    ended_us: None,
                });
            } else if let Some(run) = runs
                .iter_mut()
                .rev()
                .find(|run| run.process == process && run.ended_us.is_none())
            {
                run.ended_us = Some(at);
            }
        }
    }
    for runs in runs.values_mut() {
        runs.sort_by_key(|run| run.began_us);
    }
    Ok(runs)
}

/// The wall clock, in microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_back_with_and_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), "compress").unwrap();
        ledger.note("began", "a").unwrap();
        ledger.note("ended", "a").unwrap();
        ledger.note("began", "a").unwrap();
        ledger.note("began", "b").unwrap();
        let runs = read_ledgers(folder.path()).unwrap();
        let ended = |job: &str| -> Vec<bool> {
            let key = ("compress".to_owned(), job.to_owned());
            runs[&key]
                .iter()
                .map(|run| run.ended_us.is_some())
                .collect()
        };
        assert_eq!(ended("a"), [true, false]);
        assert_eq!(ended("b"), [false]);
    }
}
