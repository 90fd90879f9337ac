//! A client that enqueues on a thread of its own and keeps what was confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use async_std::task;
use carbontube_client::{NewJob, PipelineClient, PipelineName, Receipt};

/// What the client was told so far.
#[derive(Default)]
pub(crate) struct Told {
    /// Ids that were confirmed as durable, and when, in microseconds since 1970.
    pub(crate) confirmed: Mutex<BTreeMap<String, u64>>,
    /// Ids that were sent, confirmed or not.
    pub(crate) sent: Mutex<BTreeSet<String>>,
    /// Ids whose end the client was told, and when.
    pub(crate) ended: Mutex<BTreeMap<String, u64>>,
    /// How many of them at the same time still have to end, set by whoever watches.
    pub(crate) finished: AtomicUsize,
    /// Jobs that were rejected.
    pub(crate) rejected: AtomicUsize,
    /// Ends the feeding early.
    pub(crate) stop: AtomicBool,
}

impl Told {
    /// How many are confirmed.
    pub(crate) fn count(&self) -> usize {
        let confirmed = self.confirmed.lock();
        confirmed.unwrap_or_else(|broken| broken.into_inner()).len()
    }

    /// The confirmed ids.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.confirmations().into_keys().collect()
    }

    /// The confirmed ids, and when each was.
    pub(crate) fn confirmations(&self) -> BTreeMap<String, u64> {
        let confirmed = self.confirmed.lock();
        confirmed
            .unwrap_or_else(|broken| broken.into_inner())
            .clone()
    }

    /// Takes in what a client of its own process wrote down.
    pub(crate) fn absorb(&self, written: crate::client::Written) {
        let mut confirmed = self
            .confirmed
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        confirmed.extend(written.confirmed);
        drop(confirmed);
        let mut ended = self
            .ended
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        ended.extend(written.finished);
    }

    /// The jobs whose end the client was told, and when.
    pub(crate) fn ends(&self) -> BTreeMap<String, u64> {
        let ended = self.ended.lock();
        ended.unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// The ids that were sent.
    pub(crate) fn all_sent(&self) -> BTreeSet<String> {
        let sent = self.sent.lock();
        sent.unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// Takes in what another client was told.
    pub(crate) fn merge(&self, other: &Told) {
        for id in other.all_sent() {
            self.note_sent(id);
        }
        let confirmations = other.confirmations();
        let mut confirmed = self
            .confirmed
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        confirmed.extend(confirmations);
        let rejected = other.rejected.load(Ordering::Relaxed);
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
    }

    fn note_sent(&self, id: String) {
        let sent = self.sent.lock();
        sent.unwrap_or_else(|broken| broken.into_inner()).insert(id);
    }

    fn note(&self, receipts: Vec<Receipt>) {
        let mut confirmed = self
            .confirmed
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        let now = crate::cluster::now_us();
        for receipt in receipts {
            if receipt.is_confirmed() {
                confirmed.insert(receipt.id().to_string(), now);
            } else {
                self.rejected.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Enqueues `jobs` in batches, with confirmation and at most `window` jobs that have not
/// ended (`finished` is counted by the caller).
pub(crate) fn feed(
    client: PipelineClient,
    pipeline: PipelineName,
    jobs: impl IntoIterator<Item = serde_json::Value, IntoIter: Send + 'static>,
    window: usize,
    batch: usize,
) -> (Arc<Told>, JoinHandle<Result<()>>) {
    let told = Arc::new(Told::default());
    let handle = {
        let told = told.clone();
        let jobs = jobs.into_iter();
        std::thread::spawn(move || {
            task::block_on(enqueue(client, pipeline, jobs, window, batch, &told))
        })
    };
    (told, handle)
}

async fn enqueue(
    client: PipelineClient,
    pipeline: PipelineName,
    mut jobs: impl Iterator<Item = serde_json::Value>,
    window: usize,
    batch: usize,
    told: &Told,
) -> Result<()> {
    let mut enqueuer = client.enqueuer(&pipeline);
    let mut sent = 0;
    loop {
        let jobs: Vec<_> = jobs.by_ref().take(batch).collect();
        if jobs.is_empty() || told.stop.load(Ordering::Relaxed) {
            break;
        }
        while sent > told.finished.load(Ordering::Relaxed) + window {
            if told.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            task::sleep(Duration::from_millis(1)).await;
        }
        let count = jobs.len();
        for mut job in jobs {
            if let Some(at) = job.get_mut("enqueued_us") {
                *at = crate::cluster::now_us().into();
            }
            let job = NewJob::new(&job)?;
            told.note_sent(job.id().to_string());
            enqueuer.add(job).await?;
        }
        sent += count;
        enqueuer.flush().await?;
        told.note(enqueuer.take_receipts());
    }
    match told.rejected.load(Ordering::Relaxed) {
        0 => Ok(()),
        rejected => bail!("{rejected} jobs were rejected"),
    }
}

/// What the thread of a feeder came to.
pub(crate) fn joined(handle: JoinHandle<Result<()>>) -> Result<()> {
    handle
        .join()
        .unwrap_or_else(|_| Err(anyhow!("the enqueueing thread panicked")))
}
