//! Notices when the core or the store does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After how long a warning is due.
const SLOW: Duration = Duration::from_secs(5);

/// Shows since when a thread has been busy with one thing.
#[derive(Debug, Default)]
pub(crate) struct Beat {
    /// Counts beginnings and ends: odd while busy.
    count: AtomicU64,
}

impl Beat {
    pub(crate) fn begin(&self) {
        self.count.fetch_or(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store((count | 1) + 1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Warns, once each time, when one of the named beats stays busy with one thing.
pub(crate) async fn watch(beats: Vec<(&'static str, Arc<Beat>)>) {
    let mut seen: Vec<(u64, Instant, bool)> = beats
        .iter()
        .map(|(_, beat)| (beat.count(), Instant::now(), false))
        .collect();
    loop {
        async_io::Timer::after(Duration::from_secs(1)).await;
        for ((name, beat), seen) in beats.iter().zip(&mut seen) {
            let count = beat.count();
            if count != seen.0 || count % 2 == 0 {
                *seen = (count, Instant::now(), false);
            } else if !seen.2 && seen.1.elapsed() > SLOW {
                log::warn!("the {name} thread has been busy with one thing for {SLOW:?}");
                seen.2 = true;
            }
        }
    }
}
