//! The worker's clock: wall-clock time at the start, then monotonic.

use std::time::{Instant, SystemTime};

use carbontube_protocol::Timestamp;

/// Timestamps that never go back, even when someone sets the box's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Timestamp,
    since: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock {
            base: Timestamp::from_system(SystemTime::now()),
            since: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.base + self.since.elapsed()
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.base
    }
}
