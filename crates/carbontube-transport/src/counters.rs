//! What a socket has counted: traffic, and everything that it dropped, refused or closed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)+
        }

        /// What a socket had counted at one moment; all but `connections_open` only grow.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct CountersSnapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot {
                    $($name: self.$name.load(Ordering::Relaxed),)+
                }
            }
        }

        impl CountersSnapshot {
            /// Lists every counter with its name, in the order of the fields.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Whole messages passed on from peers.
    messages_in,
    /// Bytes read from peers.
    bytes_in,
    /// Whole messages written to peers.
    messages_out,
    /// Bytes written to peers.
    bytes_out,
    /// Connections with a finished handshake at this moment.
    connections_open,
    /// Connections accepted by listeners, whatever became of them.
    connections_accepted,
    /// Dialled connections that reached a finished handshake.
    connections_dialled,
    /// Dialled connections that were lost after their handshake.
    connections_lost,
    /// Attempts to dial that failed.
    dial_failures,
    /// Connections closed at once because too many were open.
    connections_refused,
    /// Errors of `accept`, such as running out of file descriptors.
    accept_errors,
    /// Peers closed because their handshake took too long.
    handshakes_timed_out,
    /// Peers closed because their handshake was no ZMTP 3 with NULL security.
    handshakes_malformed,
    /// Peers closed because their socket type does not fit ours.
    handshakes_incompatible,
    /// Peers closed because a frame or message declared more than the limits allow.
    closed_oversized,
    /// Peers closed because their bytes were no ZMTP frames.
    closed_malformed,
    /// Peers closed because they left a message unfinished for too long.
    closed_stalled,
    /// Peers closed because the process held too many bytes of unfinished messages.
    closed_over_budget,
    /// Peers closed in the middle of a message by their own side.
    closed_mid_message,
    /// ROUTER peers closed because they did not read what was sent to them.
    closed_not_reading,
    /// Subscribers closed because they asked for too many or too long topics.
    closed_topics,
    /// PINGs answered.
    pings_answered,
    /// Other commands after the handshake, dropped.
    commands_dropped,
    /// Messages from subscribers that are no subscription, dropped.
    messages_unexpected,
    /// Published messages dropped because the publisher's own queue was full.
    publish_dropped_queue,
    /// Published messages dropped for one slow subscriber.
    publish_dropped_peer,
    /// Messages not accepted for sending: the queue was full.
    rejected_full,
    /// Messages not accepted for sending: no connection, or the peer is gone.
    rejected_disconnected,
    /// Messages not accepted for sending: empty or over the limits.
    rejected_invalid,
    /// Messages sent again on a new connection because the old one broke before they were written.
    messages_resent,
    /// Messages for a peer that went before they were written.
    messages_abandoned,
    /// Errors reported by the sockets behind the front door.
    inner_errors,
}

impl fmt::Display for CountersSnapshot {
    /// Writes `name=value` for every counter that is not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, value) in self.fields() {
            if value != 0 {
                write!(f, "{separator}{name}={value}")?;
                separator = " ";
            }
        }
        if separator.is_empty() {
            f.write_str("nothing counted")?;
        }
        Ok(())
    }
}

/// Adds to a counter that nothing is synchronised on.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Adds one.
pub(crate) fn bump(counter: &AtomicU64) {
    add(counter, 1);
}
