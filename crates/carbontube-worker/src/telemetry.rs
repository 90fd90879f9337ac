//! Log lines and progress on their way out: bounded, merged, counted when dropped.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carbontube_protocol::message::{LogLine, ProgressItem};
use carbontube_protocol::{AttemptId, Limits};

/// The pause between two rounds: what came meanwhile goes out together.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// Lines sent in one round; more are dropped.
const LINES_MAX: usize = 1000;
/// Bytes of lines sent in one round.
const LINES_BYTES_MAX: usize = 512 << 10;
/// Attempts whose progress is sent in one round.
const PROGRESS_MAX: usize = 1000;

/// What attempts said since the last round.
#[derive(Debug)]
pub(crate) struct Telemetry {
    line_bytes_max: usize,
    lines_max: usize,
    state: Mutex<Round>,
}

/// What goes out together.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) lines: Vec<LogLine>,
    pub(crate) dropped: u64,
    pub(crate) progress: BTreeMap<AttemptId, ProgressItem>,
    bytes: usize,
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0 && self.progress.is_empty()
    }
}

impl Telemetry {
    pub(crate) fn new(limits: &Limits) -> Self {
        Telemetry {
            line_bytes_max: limits.log_line_bytes_max,
            lines_max: LINES_MAX.min(limits.batch_jobs_max),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn line_bytes_max(&self) -> usize {
        self.line_bytes_max
    }

    pub(crate) fn log(&self, line: LogLine) {
        {
            let mut round = self.lock();
            if round.lines.len() >= self.lines_max || round.bytes >= LINES_BYTES_MAX {
                round.dropped += 1;
                return;
            }
            round.bytes += line.text.len();
            round.lines.push(line);
        }
    }

    pub(crate) fn progress(&self, item: ProgressItem) {
        {
            let mut round = self.lock();
            let known = round.progress.contains_key(&item.attempt);
            if !known && round.progress.len() >= PROGRESS_MAX {
                return;
            }
            round.progress.insert(item.attempt, item);
        }
    }

    /// Takes what came since the last time.
    pub(crate) fn take(&self) -> Round {
        std::mem::take(&mut *self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carbontube_protocol::{JobId, Timestamp, message::LogLevel};

    fn attempt(counter: u64) -> AttemptId {
        AttemptId { epoch: 1, counter }
    }

    #[test]
    fn lines_over_the_bound_are_dropped_and_counted() {
        let telemetry = Telemetry::new(&Limits::default());
        for _ in 0..LINES_MAX + 5 {
            telemetry.log(LogLine {
                job: JobId::from_uuid_bytes([1; 16]),
                attempt: attempt(1),
                at: Timestamp::ZERO,
                level: LogLevel::Info,
                text: "x".to_owned(),
            });
        }
        let round = telemetry.take();
        assert_eq!((round.lines.len(), round.dropped), (LINES_MAX, 5));
        assert!(telemetry.take().is_empty());
    }

    #[test]
    fn progress_keeps_the_latest_of_each_attempt() {
        let telemetry = Telemetry::new(&Limits::default());
        for (counter, fraction) in [(1, 0.1), (2, 0.5), (1, 0.3)] {
            telemetry.progress(ProgressItem {
                job: JobId::from_uuid_bytes([1; 16]),
                attempt: attempt(counter),
                fraction,
                text: String::new(),
            });
        }
        let fractions: Vec<f32> = telemetry
            .take()
            .progress
            .values()
            .map(|item| item.fraction)
            .collect();
        assert_eq!(fractions, [0.3, 0.5]);
    }
}
