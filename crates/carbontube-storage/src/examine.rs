//! Looking at a store without changing it: what is readable, and what is not.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use crate::error::{Damage, StoreError};
use crate::head::Head;
#[cfg(feature = "redis")]
use crate::open::OpenMode;
use crate::open::OpenOptions;
#[cfg(feature = "redis")]
use crate::page::Frame;
use crate::page::{Bounds, Log, PageSeq};
#[cfg(feature = "redis")]
use crate::paged::{Backend, verify};
use crate::sled;
use crate::sled::RawPages;
use crate::uri::StoreUri;

/// What is readable of a store and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where the store is.
    pub place: String,
    /// The pipeline whose jobs are in it.
    pub pipeline: String,
    /// What would keep it from being opened; empty if nothing would.
    pub problems: Vec<String>,
    /// The number of the last commit, where that can still be told.
    pub commit: Option<u64>,
    /// How many commits that were confirmed are in none of its pages, as far as can be told:
    /// an older copy stands where a newer one did.
    pub commits_lost: u64,
    /// The journal.
    pub journal: LogReport,
    /// The history.
    pub history: LogReport,
    /// Whether everything is readable once sled's snapshot files are removed.
    pub snapshot_only: bool,
}

/// What is readable of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The pages that should be there: as stored, or as far as they were found.
    pub bounds: Bounds,
    /// Those of them that can't be read, as ranges.
    pub missing: Vec<Range<u64>>,
}

impl LogReport {
    /// How many pages can be read.
    #[must_use]
    pub fn readable(&self) -> u64 {
        self.bounds.pages() - self.lost()
    }

    /// How many pages can't be read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.missing
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }
}

impl Report {
    /// Whether the store can be opened and everything in it is there.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report on one log.
    #[must_use]
    pub fn log(&self, log: Log) -> &LogReport {
        match log {
            Log::Journal => &self.journal,
            Log::History => &self.history,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, pipeline {:?}: ", self.place, self.pipeline)?;
        f.write_str(if self.is_sound() { "sound" } else { "damaged" })?;
        for log in Log::ALL {
            let report = self.log(log);
            let Bounds { first, next } = report.bounds;
            if report.bounds.is_empty() {
                write!(f, "\n  {log}: no pages")?;
                continue;
            }
            let last = next.0 - 1;
            let readable = report.readable();
            let pages = report.bounds.pages();
            write!(
                f,
                "\n  {log}: pages {first} to {last}, {readable} of {pages} readable"
            )?;
            for range in &report.missing {
                let damage = Damage::Gap {
                    log,
                    from: PageSeq(range.start),
                    to: PageSeq(range.end),
                };
                write!(f, "\n    {damage}")?;
            }
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        if self.snapshot_only {
            f.write_str("\n  only a snapshot file of sled is damaged, which it can do without")?;
        }
        Ok(())
    }
}

/// Looks at a store and reports what is readable, changing nothing.
///
/// It takes the store for as long as it looks, so no manager may have it open.
///
/// # Errors
///
/// When there is no store, or it is in use. Damage is not an error here.
pub fn examine(uri: &str, options: &OpenOptions) -> Result<Report, StoreError> {
    Ok(Examined::of(uri, options)?.report)
}

/// A report and the pages it speaks of.
pub(crate) struct Examined {
    pub(crate) report: Report,
    pub(crate) identity: [u8; 16],
    pages: Box<dyn ReadPages>,
}

/// Where the readable pages of an examined store come from.
pub(crate) trait ReadPages {
    /// The framed page, `None` if it can't be had.
    fn frame(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError>;
}

impl Examined {
    pub(crate) fn of(uri: &str, options: &OpenOptions) -> Result<Examined, StoreError> {
        let parsed: StoreUri = uri.parse()?;
        match parsed {
            StoreUri::Memory => Err(StoreError::Missing {
                place: "memory:".to_owned(),
            }),
            StoreUri::Sled(path) => Examined::of_sled(&path, options),
            #[cfg(feature = "redis")]
            StoreUri::Redis(server) => {
                let backend =
                    crate::redis::Redis::claim(&server, &options.pipeline, OpenMode::Existing)?;
                Examined::of_backend(backend, options)
            }
            #[cfg(not(feature = "redis"))]
            StoreUri::Redis(_) => Err(StoreError::NotBuilt {
                uri: uri.to_owned(),
                feature: "redis",
            }),
        }
    }

    fn of_sled(path: &Path, options: &OpenOptions) -> Result<Examined, StoreError> {
        let place = format!("sled:{}", path.display());
        let missing = || StoreError::Missing {
            place: place.clone(),
        };
        let (folder, marker) = sled::Folder::hold(path)?.ok_or_else(missing)?;
        check_pipeline(&place, options, &marker.pipeline)?;
        let problem = sled::examine(&folder)?;
        let raw =
            RawPages::find(&folder.database().join("db")).map_err(|source| StoreError::Io {
                action: format!("read the data file of {place}"),
                source,
            })?;
        let confirmed = sled::confirmed(&folder).unwrap_or(0);
        let (head, problems, snapshot_only) = match problem {
            sled::Finding::Sound(head) => (Some(head), Vec::new(), false),
            sled::Finding::Damaged {
                reasons,
                snapshot_only,
            } => (choose_head(&raw, confirmed), reasons, snapshot_only),
        };
        let log = |log| log_report(log, head, &raw.seqs(log));
        let report = Report {
            place,
            pipeline: marker.pipeline,
            problems,
            commit: head.map(|head| head.commit),
            commits_lost: head.map_or(0, |head| confirmed.saturating_sub(head.commit)),
            journal: log(Log::Journal),
            history: log(Log::History),
            snapshot_only,
        };
        Ok(Examined {
            report,
            identity: head.map_or([0; 16], |head| head.identity),
            pages: Box::new(HeldRaw {
                raw,
                _folder: folder,
            }),
        })
    }

    /// Looks at a backend that serves what it can of what it holds.
    #[cfg(feature = "redis")]
    fn of_backend<B: Backend + 'static>(
        mut backend: B,
        options: &OpenOptions,
    ) -> Result<Examined, StoreError> {
        let mut problems = Vec::new();
        if let Err(error) = verify(&mut backend) {
            match error {
                StoreError::Damaged { damage, .. } => problems.push(damage.to_string()),
                other => return Err(other),
            }
        }
        let stored = backend.head()?;
        let head = stored.and_then(|bytes| Head::decode(&bytes).ok());
        let mut found = [Vec::new(), Vec::new()];
        for log in Log::ALL {
            let scanned = backend.pages(log, PageSeq(0), &mut |seq, frame| {
                match Frame::expect(frame, log, seq) {
                    Ok(_) => found[log.index()].push(seq),
                    Err(damage) => problems.push(damage.to_string()),
                }
                Ok(std::ops::ControlFlow::Continue(()))
            });
            match scanned {
                Ok(()) => {}
                Err(StoreError::Damaged { damage, .. }) => problems.push(damage.to_string()),
                Err(other) => return Err(other),
            }
        }
        problems.dedup();
        let [journal, history] = &found;
        let report = Report {
            place: backend.place().to_owned(),
            pipeline: options.pipeline.clone(),
            problems,
            commit: head.map(|head| head.commit),
            commits_lost: 0,
            journal: log_report(Log::Journal, head, journal),
            history: log_report(Log::History, head, history),
            snapshot_only: false,
        };
        Ok(Examined {
            report,
            identity: head.map_or([0; 16], |head| head.identity),
            pages: Box::new(backend),
        })
    }

    /// The framed page, `None` if it can't be had.
    pub(crate) fn frame(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        self.pages.frame(log, seq)
    }
}

pub(crate) fn check_pipeline(
    place: &str,
    options: &OpenOptions,
    found: &str,
) -> Result<(), StoreError> {
    if found == options.pipeline {
        return Ok(());
    }
    Err(StoreError::OtherPipeline {
        place: place.to_owned(),
        expected: options.pipeline.clone(),
        found: found.to_owned(),
    })
}

/// The head that tells what can be saved: the newest one whose pages are all there, if
/// nothing was confirmed after it, or else the newest.
///
/// Of a commit that was never confirmed there may be a part: its head, and not its pages.
fn choose_head(raw: &RawPages, confirmed: u64) -> Option<Head> {
    let heads = raw.heads();
    let is_whole = |head: &&Head| {
        let mut logs = Log::ALL.iter();
        head.commit >= confirmed
            && logs.all(|log| log_report(*log, Some(**head), &raw.seqs(*log)).lost() == 0)
    };
    heads.iter().find(is_whole).or(heads.first()).copied()
}

/// Which pages a log should hold and which of them were not found.
///
/// The work is bounded by what was found, not by what a head says.
pub(crate) fn log_report(log: Log, head: Option<Head>, found: &[PageSeq]) -> LogReport {
    let bounds = match (head, found) {
        (Some(head), _) => head.bounds(log),
        // Without a head nobody knows what was removed: everything found counts.
        (None, [first, .., last]) => Bounds {
            first: *first,
            next: last.next(),
        },
        (None, [only]) => Bounds {
            first: *only,
            next: only.next(),
        },
        (None, []) => Bounds::EMPTY,
    };
    let mut missing = Vec::new();
    let mut expected = bounds.first;
    let held = found.iter().filter(|seq| bounds.contains(**seq));
    for &seq in held.chain([&bounds.next]) {
        if expected < seq {
            missing.push(expected.0..seq.0);
        }
        expected = seq.next();
    }
    LogReport { bounds, missing }
}

struct HeldRaw {
    raw: RawPages,
    /// Nobody may write the data file while pages are read from it.
    _folder: sled::Folder,
}

impl ReadPages for HeldRaw {
    fn frame(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        self.raw
            .frame(log, seq)
            .map_err(|source: io::Error| StoreError::Io {
                action: format!("read page {seq} of the {log}"),
                source,
            })
    }
}

#[cfg(feature = "redis")]
impl<B: Backend> ReadPages for B {
    fn frame(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        self.page(log, seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Frame;

    /// A data file with the pages 1 to 5 and heads of commit 7, with pages 1 to 5, and 8, which
    /// puts page 6 that is nowhere and removes 1 to 3.
    #[test]
    fn head_whose_pages_were_never_written_gives_way_to_the_one_that_was_confirmed() {
        let mut file = Vec::new();
        for seq in 1..6 {
            let frame = Frame {
                log: Log::Journal,
                seq: PageSeq(seq),
                page: b"a page",
            };
            file.extend_from_slice(&frame.encode());
        }
        for (commit, first, next) in [(7, 1, 6), (8, 4, 7)] {
            let mut head = Head::new([1; 16]);
            head.commit = commit;
            head.journal = Bounds {
                first: PageSeq(first),
                next: PageSeq(next),
            };
            file.extend_from_slice(&head.encode());
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::write(&path, &file).unwrap();
        let raw = RawPages::find(&path).unwrap();
        let chosen = |confirmed| choose_head(&raw, confirmed).unwrap().commit;
        assert_eq!(chosen(7), 7);
        // It was confirmed: what it lacks is lost, and said to be.
        assert_eq!(chosen(8), 8);
    }
}
