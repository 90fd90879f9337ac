//! Jobs at a steady rate while something is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use async_std::task;
use carbontube_client::NewJob;

use crate::bench::instructions;
use crate::cluster::Cluster;

/// How often jobs go out.
const TICK: Duration = Duration::from_millis(20);

/// Enqueues until it is ended.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

/// How many events the manager had so far: those it published, and those it merged into
/// later ones or left out because there were too many for viewers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happened {
    at: Instant,
    events: u64,
    published: u64,
}

impl Happened {
    pub(super) fn now(cluster: &Cluster) -> Result<Happened> {
        let stats = cluster.stats()?;
        let count = |wanted: &str| -> u64 {
            let counters = stats.counters.iter();
            counters
                .filter(|(name, _)| name == wanted)
                .map(|(_, count)| count)
                .sum()
        };
        let published = count("events_published");
        Ok(Happened {
            at: Instant::now(),
            events: published + count("events_merged") + count("events_dropped"),
            published,
        })
    }

    /// Events a second since then, and how many of them were published.
    pub(super) fn rates(self, now: Happened) -> (f64, f64) {
        let seconds = now.at.duration_since(self.at).as_secs_f64();
        let rate = |from: u64, to: u64| (to.saturating_sub(from)) as f64 / seconds;
        (
            rate(self.events, now.events),
            rate(self.published, now.published),
        )
    }

    /// How many events there were.
    pub(super) fn until(self, now: Happened) -> u64 {
        now.events.saturating_sub(self.events)
    }
}

impl Load {
    /// Begins: so many jobs a second.
    pub(super) fn start(cluster: &Cluster, rate: f64) -> Result<Load> {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (client, pipeline) = (cluster.client()?, cluster.pipeline());
        let (ended, counted) = (stop.clone(), sent.clone());
        let work = async move {
            let mut enqueuer = client.enqueuer(&pipeline);
            let payload = bytes::Bytes::from(instructions());
            let began = Instant::now();
            let mut made = 0_u64;
            while !ended.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_secs_f64() * rate) as u64;
                for _ in made..due {
                    enqueuer.add(NewJob::from_json(payload.clone())).await?;
                }
                made = due;
                enqueuer.flush().await?;
                enqueuer.take_receipts();
                counted.store(made, Ordering::Relaxed);
                task::sleep(TICK).await;
            }
            Ok(())
        };
        Ok(Load {
            stop,
            sent,
            thread: std::thread::spawn(move || task::block_on(work)),
        })
    }

    /// How many jobs were taken so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub(super) fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the enqueueing thread panicked")))
    }
}
