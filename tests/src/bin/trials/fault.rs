//! What was done to which process or link, and when: a judge explains repeats with it.

use std::fmt;

/// Who was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Manager,
    /// The worker with this process id.
    Worker(u32),
    Client,
    Device,
}

/// What was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SIGKILL, or its own abort.
    Killed,
    /// SIGTERM: it goes in good order.
    Drained,
    /// SIGSTOP until SIGCONT.
    Suspended,
    /// The way of attempts to the worker is cut, or swallows.
    PipeCut,
    /// The way of results to the manager is.
    ResultsCut,
    /// The way of heartbeats to the manager is.
    EventsCut,
    /// The way between clients and the manager is.
    ApiCut,
    /// All ways are slower, but whole.
    Slowed,
}

/// One fault; times are in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) whom: Whom,
    pub(crate) deed: Deed,
    pub(crate) from_us: u64,
    /// When it was over: dead, continued, healed, or serving again.
    pub(crate) until_us: u64,
}

impl Fault {
    /// A fault that lasts until [`FaultLog::over`].
    pub(crate) fn beginning(whom: Whom, deed: Deed) -> Self {
        Fault {
            whom,
            deed,
            from_us: crate::cluster::now_us(),
            until_us: u64::MAX,
        }
    }

    /// A fault between two times.
    pub(crate) fn between(whom: Whom, deed: Deed, from_us: u64, until_us: u64) -> Self {
        Fault {
            whom,
            deed,
            from_us,
            until_us,
        }
    }

    /// How much of a span it covers, in microseconds, `after_us` beyond its end included.
    pub(crate) fn covers_us(&self, from_us: u64, until_us: u64, after_us: u64) -> u64 {
        let end = self.until_us.saturating_add(after_us).min(until_us);
        end.saturating_sub(self.from_us.max(from_us))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?} from {} to {}",
            self.whom, self.deed, self.from_us, self.until_us
        )
    }
}

/// All faults so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultLog {
    pub(crate) faults: Vec<Fault>,
}

impl FaultLog {
    /// Notes a fault.
    pub(crate) fn note(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Whatever of this kind lasts is over.
    pub(crate) fn over(&mut self, whom: Whom, deed: Deed) {
        let now = crate::cluster::now_us();
        for fault in &mut self.faults {
            if (fault.whom, fault.deed) == (whom, deed) && fault.until_us == u64::MAX {
                fault.until_us = now;
            }
        }
    }

    /// Whoever this is has gone, and what was done to it with it.
    pub(crate) fn gone(&mut self, whom: Whom) {
        let now = crate::cluster::now_us();
        for fault in &mut self.faults {
            if fault.whom == whom {
                fault.until_us = fault.until_us.min(now);
            }
        }
    }

    /// How many faults of a kind there were, whoever they hit.
    pub(crate) fn count(&self, deed: Deed, whom: impl Fn(Whom) -> bool) -> usize {
        let matching = |fault: &&Fault| fault.deed == deed && whom(fault.whom);
        self.faults.iter().filter(matching).count()
    }
}
