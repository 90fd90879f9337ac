//! What a client may be told about times, sizes and the codec.

use std::ops::RangeInclusive;
use std::time::Duration;

use carbontube_protocol::{Codec, Limits};

/// Times and sizes of a [`PipelineClient`](crate::PipelineClient).
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long [`connect`](crate::PipelineClient::connect) waits for the first manager
    /// that answers. Default 30 s.
    pub connect_timeout: Duration,
    /// How long a request may take, with every reconnection and every retry. Default 30 s.
    pub timeout: Duration,
    /// How long a wait for jobs stays without any manager before it gives up. Default 60 s.
    pub absence_max: Duration,
    /// The pause before a request is sent again that a manager was too busy for: it
    /// starts at the low end and doubles to the high end. Default 50 ms to 1 s.
    pub busy_retry: RangeInclusive<Duration>,
    /// The most jobs in one batch. Default 256.
    pub batch_jobs_max: usize,
    /// The most bytes of instructions in one batch, unless a single job has more. Default 1 MiB.
    pub batch_bytes_max: usize,
    /// The most batches of one [`Enqueuer`](crate::Enqueuer) that wait for their answer.
    /// Default 16.
    pub window_batches_max: usize,
    /// The most bytes of instructions that wait for their answer, in one
    /// [`Enqueuer`](crate::Enqueuer). Default 16 MiB.
    pub window_bytes_max: usize,
    /// How messages are encoded. Default bincode.
    pub codec: Codec,
    /// What instructions are checked against, and what a manager may send.
    pub limits: Limits,
    /// The sockets' own options.
    pub transport: carbontube_transport::Options,
}

impl Default for ClientOptions {
    fn default() -> Self {
        let limits = Limits::default();
        ClientOptions {
            connect_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            absence_max: Duration::from_secs(60),
            busy_retry: Duration::from_millis(50)..=Duration::from_secs(1),
            batch_jobs_max: 256,
            batch_bytes_max: 1 << 20,
            window_batches_max: 16,
            window_bytes_max: 16 << 20,
            codec: Codec::Bincode,
            transport: carbontube_transport::Options::with_limits(&limits),
            limits,
        }
    }
}
