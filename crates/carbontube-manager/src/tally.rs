//! Counts of everything that the shell refused or dropped, shown in the statistics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use carbontube_transport::CountersSnapshot;

use crate::error::SocketRole;

macro_rules! tally {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// What the shell counts.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $($(#[doc = $doc])+ pub(crate) $name: Count,)+
            sockets: Mutex<Vec<(SocketRole, CountersSnapshot)>>,
        }

        impl Tally {
            fn own(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.value()),)+]
            }
        }
    };
}

tally! {
    /// Messages on PULL that could not be read.
    pull_malformed,
    /// Messages on PULL of a kind that does not belong there.
    pull_unexpected,
    /// Events on SUB that could not be read.
    sub_malformed,
    /// Events on SUB of a kind that does not belong there.
    sub_unexpected,
    /// Log lines and progress of workers without proof, left out for want of room.
    strangers_events_dropped,
    /// Heartbeats left out because a later one of the same worker says more.
    heartbeats_merged,
    /// Heartbeats of workers without proof, left out because their source sent too many.
    heartbeats_displaced,
    /// Heartbeats left out because the name of the worker's host was not looked up in time.
    heartbeats_unresolved,
    /// Heartbeats that announce an address which is not believed.
    addresses_not_believed,
    /// Dials to workers without proof.
    newcomers_dialled,
    /// Requests that could not be read.
    api_malformed,
    /// Requests of a kind that does not belong there.
    api_unexpected,
    /// Requests refused because the client had too many without an answer.
    api_busy,
    /// Answers for clients that were gone.
    answers_dropped,
    /// Messages for workers whose pipe was down or stuck.
    pipe_messages_dropped,
    /// Events left out because there were too many.
    events_dropped,
    /// Events left out because a later one about the same thing says more.
    events_merged,
    /// Events published.
    events_published,
}

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn bump(&self) {
        self.add(1);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// Shows what others count of such dials.
    pub(crate) fn note_dials(&self, dials: u64) {
        self.newcomers_dialled.0.store(dials, Ordering::Relaxed);
    }

    /// Keeps what a socket has counted by now.
    pub(crate) fn note(&self, role: SocketRole, counters: CountersSnapshot) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        match sockets.iter_mut().find(|(known, _)| *known == role) {
            Some((_, kept)) => *kept = counters,
            None => sockets.push((role, counters)),
        }
    }

    /// Every count that is not zero, by name.
    pub(crate) fn counters(&self) -> Vec<(String, u64)> {
        let own = self
            .own()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = sockets.iter().flat_map(|(role, counters)| {
            let fields = counters.fields().into_iter();
            fields.map(move |(name, value)| (format!("{role}_socket.{name}"), value))
        });
        own.chain(theirs).filter(|(_, value)| *value > 0).collect()
    }
}
