//! Every size that a peer can influence has a maximum (protocol.md §8).

/// The highest epoch that a peer believes; messages of a higher one are ignored.
pub const EPOCH_MAX: u64 = 1 << 48;

/// The largest step from one epoch of a manager to the next that a peer believes at once.
/// An import of a journal steps about 2^31 ahead.
pub const EPOCH_STEP_MAX: u64 = 1 << 34;

/// The limits that decoding and the front door hold peers to.
///
/// The defaults are generous for honest peers and small for hostile ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest instructions or output of one job, in bytes. Default 16 MiB.
    pub instructions_bytes_max: usize,
    /// The largest body frame, in bytes. Default 4 MiB.
    pub body_bytes_max: usize,
    /// The most jobs or results in one message. Default 4,096.
    pub batch_jobs_max: usize,
    /// The largest message, all its frames together, in bytes. Default 32 MiB.
    pub message_bytes_max: usize,
    /// The longest error message kept of a failure, in bytes. Default 4 KiB.
    pub error_bytes_max: usize,
    /// The longest error detail (traceback, log tail) kept of a failure, in bytes. Default 16 KiB.
    pub detail_bytes_max: usize,
    /// The longest log line published, in bytes; the rest is cut. Default 8 KiB.
    pub log_line_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            instructions_bytes_max: 16 << 20,
            body_bytes_max: 4 << 20,
            batch_jobs_max: 4096,
            message_bytes_max: 32 << 20,
            error_bytes_max: 4 << 10,
            detail_bytes_max: 16 << 10,
            log_line_bytes_max: 8 << 10,
        }
    }
}

impl Limits {
    /// The largest single frame, in bytes.
    pub fn frame_bytes_max(&self) -> usize {
        self.instructions_bytes_max.max(self.body_bytes_max)
    }

    /// The most frames in one message: topic, header, body and a payload for each job.
    pub fn message_frames_max(&self) -> usize {
        self.batch_jobs_max + 8
    }
}
