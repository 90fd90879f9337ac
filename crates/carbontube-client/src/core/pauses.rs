//! How long to pause before the next try.

use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;

/// Pauses that double from the low to the high end of a range, with jitter.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// Begins at the low end.
    pub fn new(range: &RangeInclusive<Duration>) -> Self {
        Pauses {
            next: *range.start(),
            longest: *range.end(),
        }
    }

    /// The next pause: between half and all of what its turn allows, so that clients
    /// that were refused together do not come back together.
    pub fn take(&mut self, rng: &mut Rng) -> Duration {
        let pause = self.next.mul_f64(0.5 + rng.f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}
