//! What a socket is allowed to do: sizes, queues, times, connections.

use std::ops::RangeInclusive;
use std::time::Duration;

use carbontube_protocol::{Address, Limits};

use crate::{DialPass, Resolver};

/// One place where a socket meets the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Listens here; `*`, port 0 and a missing port are resolved when the socket opens.
    Bind(Address),
    /// Dials there, and again for ever whenever the connection is lost.
    Connect(Address),
}

/// Limits and times of one socket; the defaults suit every Carbontube role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The largest frame taken from or sent to a peer.
    pub frame_bytes_max: usize,
    /// The largest message, all its frames with their headers together.
    pub message_bytes_max: usize,
    /// The most frames in one message.
    pub message_frames_max: usize,
    /// The longest subscription taken from a subscriber.
    pub topic_bytes_max: usize,
    /// The most subscriptions of one subscriber.
    pub topics_max: usize,
    /// Bytes of unfinished messages that the whole process may hold; a peer that needs more is closed.
    pub unfinished_bytes_max: usize,

    /// Messages accepted for sending and not yet written to the network, for each peer.
    ///
    /// Values above [`Options::SEND_HWM_MESSAGES_CEILING`] are lowered to it.
    pub send_hwm_messages: usize,
    /// Bytes accepted for sending and not yet written to the network, for each peer.
    ///
    /// One message larger than this is still accepted when nothing else waits.
    pub send_hwm_bytes: usize,
    /// The same for all peers of a ROUTER or PUB together. Each may have no more than is
    /// still free, so that those who do not read leave room for those who do; single
    /// messages of peers that nothing waits for may take as much again.
    pub send_all_bytes_max: usize,
    /// Bytes of all connections of a socket together that were received and not yet asked
    /// for, before peers have to wait. A larger message passes alone; a connection of which
    /// nothing waits may always pass 16 KiB on.
    pub receive_hwm_bytes: usize,

    /// How long a peer may take for its whole handshake.
    pub handshake_timeout: Duration,
    /// How long one attempt to reach a dialled address may take.
    pub connect_timeout: Duration,
    /// The pause before dialling again: it starts at the low end and doubles to the high end.
    pub connect_retry: RangeInclusive<Duration>,
    /// How long an unfinished message may go without a single further byte.
    pub stall_timeout: Duration,
    /// The slowest pace, in bytes a second, at which an unfinished message may arrive.
    pub message_bytes_per_second_min: usize,

    /// The most accepted connections at once.
    pub connections_max: usize,
    /// The most accepted connections at once from one IP address.
    pub connections_per_host_max: usize,
    /// The idle time before TCP keepalive probes, and the pause between them.
    pub keepalive: Duration,
    /// How long written data may stay unacknowledged by the peer's kernel before the connection is given up.
    pub user_timeout: Duration,

    /// What looks up the names of hosts. Default: the system's, one for the process.
    pub resolver: Resolver,
    /// Within which budget a dialling socket dials; none for peers that were configured.
    pub dials: Option<DialPass>,
}

/// Room for the frame headers of a message on top of its payload.
const HEADERS_BYTES: usize = 64 << 10;

impl Options {
    /// Options with the sizes that the protocol's limits ask for, all else by default.
    #[must_use]
    pub fn with_limits(limits: &Limits) -> Self {
        Self {
            frame_bytes_max: limits.frame_bytes_max(),
            message_bytes_max: limits.message_bytes_max + HEADERS_BYTES,
            message_frames_max: limits.message_frames_max(),
            topic_bytes_max: 255,
            topics_max: 1024,
            unfinished_bytes_max: 512 << 20,
            send_hwm_messages: 10_000,
            send_hwm_bytes: 16 << 20,
            send_all_bytes_max: 32 << 20,
            receive_hwm_bytes: 16 << 20,
            handshake_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            connect_retry: Duration::from_millis(50)..=Duration::from_secs(1),
            stall_timeout: Duration::from_secs(30),
            message_bytes_per_second_min: 16 << 10,
            connections_max: 4096,
            connections_per_host_max: 2048,
            keepalive: Duration::from_secs(10),
            user_timeout: Duration::from_secs(20),
            resolver: Resolver::default(),
            dials: None,
        }
    }

    /// Whether a message may be sent at all.
    pub(crate) fn allows(&self, message: &[bytes::Bytes]) -> bool {
        !message.is_empty()
            && message.len() <= self.message_frames_max
            && message
                .iter()
                .all(|frame| frame.len() <= self.frame_bytes_max)
            && crate::message::wire_bytes(message) <= self.message_bytes_max
    }

    /// The ceiling of [`send_hwm_messages`](Self::send_hwm_messages).
    ///
    /// Below the queue length of the zeromq crate (100,000), so that its queues never fill.
    pub const SEND_HWM_MESSAGES_CEILING: usize = 50_000;

    pub(crate) fn hwm_messages(&self) -> usize {
        self.send_hwm_messages
            .clamp(1, Self::SEND_HWM_MESSAGES_CEILING)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::with_limits(&Limits::default())
    }
}
