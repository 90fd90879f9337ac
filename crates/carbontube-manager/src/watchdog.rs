//! Notices when the core, the store or the executor does not answer, and says so.
//!
//! It watches from a thread of its own, which none of them can hold up. Ending a process
//! whose executor is dead is the choice of whoever embeds the manager:
//! [`carbontube_transport::Watchdog`] calls them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use carbontube_transport::ExecutorProbe;

/// How often it looks.
const TICK: Duration = Duration::from_secs(1);
/// After how many ticks a warning is due. Ticks are counted, no clock is read: a process
/// that was stopped has not been busy meanwhile.
const SLOW_TICKS: u32 = 5;

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

/// A beat, and for how many ticks it has shown the same thing.
struct Watched {
    name: &'static str,
    beat: Arc<Beat>,
    count: u64,
    ticks: u32,
}

impl Watched {
    /// For how many ticks the thread has been busy with one thing.
    fn look(&mut self) -> u32 {
        let count = self.beat.count();
        if count == self.count && count % 2 == 1 {
            self.ticks = self.ticks.saturating_add(1);
        } else {
            (self.count, self.ticks) = (count, 0);
        }
        self.ticks
    }
}

/// Watches for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Nothing is ever sent: the thread ends when this is dropped.
    _kept: Sender<()>,
}

/// Warns, once each time, when one of the named beats stays busy with one thing, or the
/// executor runs nothing.
pub(crate) fn watch(beats: Vec<(&'static str, Arc<Beat>)>) -> io::Result<Watch> {
    let (kept, dropped) = channel::<()>();
    let mut beats: Vec<Watched> = beats
        .into_iter()
        .map(|(name, beat)| Watched {
            name,
            count: beat.count(),
            beat,
            ticks: 0,
        })
        .collect();
    let mut executor = ExecutorProbe::default();
    let seconds = TICK.as_secs() * u64::from(SLOW_TICKS);
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || {
            while dropped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                for watched in &mut beats {
                    if watched.look() == SLOW_TICKS {
                        let name = watched.name;
                        log::warn!(
                            "the {name} thread has been busy with one thing for {seconds} s"
                        );
                    }
                }
                if executor.look() == SLOW_TICKS {
                    log::error!(
                        "the executor has run nothing for {seconds} s: no socket of this process works"
                    );
                }
            }
        })?;
    Ok(Watch { _kept: kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beat_that_stays_busy_with_one_thing_is_counted_in_ticks() {
        let beat = Arc::new(Beat::default());
        let mut watched = Watched {
            name: "core",
            beat: beat.clone(),
            count: 0,
            ticks: 0,
        };
        assert_eq!(watched.look(), 0);
        beat.begin();
        assert_eq!([watched.look(), watched.look(), watched.look()], [0, 1, 2]);
        beat.end();
        assert_eq!([watched.look(), watched.look()], [0, 0]);
        beat.begin();
        beat.end();
        beat.begin();
        assert_eq!([watched.look(), watched.look()], [0, 1]);
    }
}
