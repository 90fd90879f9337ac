//! The time that the core is given: never backwards, whatever is done to the system's clock.

use std::time::{Duration, Instant, SystemTime};

use carbontube_protocol::Timestamp;

/// Wall-clock time at the start, carried on by the monotonic clock.
///
/// A clock that jumps forward would make every worker seem silent at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock {
            base: Timestamp::from_system(SystemTime::now()),
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }

    /// The instant of a point in time; `None` when it is too far away to wait for.
    pub(crate) fn instant(&self, at: Timestamp) -> Option<Instant> {
        let after: Duration = at.since(self.base);
        self.started.checked_add(after)
    }
}
