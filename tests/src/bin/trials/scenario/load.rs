//! Work that goes on for as long as a scenario does something to it.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use carbontube_client::PipelineClient;
use serde_json::{Value, json};

use super::{PHASES, wait_for};
use crate::cluster::Cluster;
use crate::feeder::{Told, feed, joined};

/// Counts in the ledgers what has ended, on a thread of its own.
pub(crate) struct Watcher {
    watched: Arc<Watched>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Watched {
    ended: AtomicUsize,
    stop: AtomicBool,
}

impl Watcher {
    /// Watches a cluster's ledgers, and tells a feeder what it counts.
    pub(crate) fn start(cluster: &Cluster, told: Arc<Told>) -> Self {
        let watched = Arc::new(Watched::default());
        let watching = watched.clone();
        let folder = cluster.folder().to_owned();
        Watcher {
            watched,
            thread: Some(std::thread::spawn(move || {
                watch(&folder, &watching, &told);
            })),
        }
    }

    /// How many jobs were through the last phase, those that ran twice counted twice.
    pub(crate) fn ended(&self) -> usize {
        self.watched.ended.load(Ordering::Relaxed)
    }

    /// Waits until so many more have ended.
    pub(crate) fn advance(&self, jobs: usize) -> Result<()> {
        let due = self.ended() + jobs;
        wait_for("progress", || Ok(self.ended() >= due))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watched.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// A client of this process that enqueues, and a watcher.
pub(crate) struct Load {
    pub(crate) told: Arc<Told>,
    feeder: Option<JoinHandle<Result<()>>>,
    pub(crate) watcher: Watcher,
}

impl Load {
    /// Enqueues without end, never more than `window` jobs ahead.
    pub(crate) fn start(
        cluster: &Cluster,
        client: PipelineClient,
        jobs: impl Iterator<Item = Value> + Send + 'static,
        window: usize,
    ) -> Self {
        let (told, feeder) = feed(client, cluster.pipeline(), jobs, window, 16);
        Load {
            watcher: Watcher::start(cluster, told.clone()),
            told,
            feeder: Some(feeder),
        }
    }

    /// How many jobs were through the last phase, those that ran twice counted twice.
    pub(crate) fn ended(&self) -> usize {
        self.watcher.ended()
    }

    /// Waits until so many more have ended.
    pub(crate) fn advance(&self, jobs: usize) -> Result<()> {
        self.watcher.advance(jobs)
    }

    /// Enqueues no more; what was enqueued still runs.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.told.stop.store(true, Ordering::Relaxed);
        self.feeder.take().map_or(Ok(()), joined)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.told.stop.store(true, Ordering::Relaxed);
    }
}

/// Jobs that sleep in each phase: mostly for `ms`, one in twenty for ten times as long.
pub(crate) fn sleepers(mut random: fastrand::Rng, ms: u64) -> impl Iterator<Item = Value> + Send {
    std::iter::repeat_with(move || {
        let mut sleep = || {
            let long = if random.u8(..20) == 0 { 10 } else { 1 };
            json!({ "do": "sleep", "ms": random.u64(..=ms) * long })
        };
        json!({ "first": sleep(), "second": sleep() })
    })
}

/// Reads what is new in the ledgers of the last phase, again and again.
fn watch(folder: &Path, watched: &Watched, told: &Told) {
    let mut read: HashMap<PathBuf, u64> = HashMap::new();
    let prefix = format!("ledger-{}-", PHASES[1]);
    while !watched.stop.load(Ordering::Relaxed) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            if !entry.file_name().to_string_lossy().starts_with(&prefix) {
                continue;
            }
            let place = read.entry(entry.path()).or_default();
            let mut text = Vec::new();
            let grown = std::fs::File::open(entry.path()).and_then(|mut file| {
                file.seek(SeekFrom::Start(*place))?;
                file.read_to_end(&mut text)
            });
            if grown.is_err() {
                continue;
            }
            let whole = text.iter().rposition(|byte| *byte == b'\n');
            let lines = &text[..whole.map_or(0, |last| last + 1)];
            *place += lines.len() as u64;
            let ended = lines
                .split(|byte| *byte == b'\n')
                .filter(|line| line.starts_with(b"ended "))
                .count();
            let all = watched.ended.fetch_add(ended, Ordering::Relaxed) + ended;
            told.finished.store(all, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
