//! What can be set about the core.

use std::time::Duration;

use carbontube_protocol::{InstructionsError, Limits};

/// Settings of the core. Every queue and table has its maximum here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreOptions {
    /// Limits on what peers send: a message beyond them is not read at all.
    pub limits: Limits,
    /// The largest instructions that a job may come with, and that a phase may make of
    /// them, in bytes: a job beyond it is refused, a result beyond it fails its attempt.
    /// Never more than `limits` let through; they stay wide, since nobody could be told
    /// about what was not read. Default 16 MiB.
    pub instructions_bytes_max: usize,
    /// After how much silence a worker is lost. Default 5 s.
    pub worker_timeout: Duration,
    /// How long a restarted manager waits for workers to say what they still hold,
    /// before it dispatches recovered jobs anew. Default 3 s.
    pub adoption_grace: Duration,
    /// How much work, in time, a worker may have queued beyond its slots: prefetch is
    /// this over the phase's usual duration, for each slot. Default 20 ms.
    pub prefetch_time: Duration,
    /// The most attempts queued at one worker beyond its slots. Default 1,024.
    pub prefetch_max: u32,
    /// After how many lost workers a job is poison and fails. Default 3.
    pub poison_losses: u32,
    /// The most jobs that have not ended. Default 10 million.
    pub live_jobs_max: u64,
    /// The most bytes that the jobs that have not ended hold in the journal, as it keeps
    /// them. Its files take up [`journal_garbage_ratio`](Self::journal_garbage_ratio) times
    /// that, and some more. Default 16 GiB.
    pub live_bytes_max: u64,
    /// The most workers known at once. Default 10,000.
    pub workers_max: usize,
    /// The most workers known at once that have not shown yet that they receive, and how many
    /// of them come in at once after a rest. Default 512.
    pub newcomers_max: usize,
    /// How many of them come in each second at most. Default 100.
    pub newcomers_per_second: u32,
    /// The most attempts one worker may announce as slots. Default 65,536.
    pub slots_max: u32,
    /// The most jobs that one client may wait for, and all clients together. Default
    /// 100,000 and 1 million.
    pub waits_max: (usize, usize),
    /// The most ended jobs kept in the history. Default 100,000.
    pub history_jobs_max: u64,
    /// How long ended jobs are kept in the history. Default 7 days.
    pub history_age_max: Duration,
    /// The largest result or instructions that the history keeps of an ended job, in
    /// bytes; a larger one is left out of the history. Default 1 MiB.
    pub history_result_bytes_max: usize,
    /// Where a page is split, in bytes. Default 60 KiB.
    pub page_bytes: usize,
    /// The most bytes of payloads kept in memory; the rest is read back from the
    /// journal when it is dispatched. Default 64 MiB.
    pub payload_cache_bytes_max: usize,
    /// The most bytes that may wait for the disk before no more jobs are taken. Default
    /// 128 MiB.
    pub undurable_bytes_max: usize,
    /// When the journal's pages hold this many times the bytes of live records, the
    /// oldest live records are rewritten forward so that old pages can go. Default 3.
    pub journal_garbage_ratio: u32,
    /// Below this many bytes of journal pages nothing is rewritten. Default 4 MiB.
    pub journal_garbage_bytes_min: u64,
    /// How many jobs a client's one list query gets at most. Default 1,000.
    pub list_jobs_max: u32,
}

impl Default for CoreOptions {
    fn default() -> Self {
        CoreOptions {
            instructions_bytes_max: Limits::default().instructions_bytes_max,
            limits: Limits::default(),
            worker_timeout: Duration::from_secs(5),
            adoption_grace: Duration::from_secs(3),
            prefetch_time: Duration::from_millis(20),
            prefetch_max: 1024,
            poison_losses: 3,
            live_jobs_max: 10_000_000,
            live_bytes_max: 16 << 30,
            workers_max: 10_000,
            newcomers_max: 512,
            newcomers_per_second: 100,
            slots_max: 65_536,
            waits_max: (100_000, 1_000_000),
            history_jobs_max: 100_000,
            history_age_max: Duration::from_secs(7 * 24 * 3600),
            history_result_bytes_max: 1 << 20,
            page_bytes: 60 << 10,
            payload_cache_bytes_max: 64 << 20,
            undurable_bytes_max: 128 << 20,
            journal_garbage_ratio: 3,
            journal_garbage_bytes_min: 4 << 20,
            list_jobs_max: 1000,
        }
    }
}

impl CoreOptions {
    /// Whether these are instructions that jobs of this pipeline may have.
    pub(crate) fn check_instructions(&self, bytes: &[u8]) -> Result<(), InstructionsError> {
        let most = self.instructions_bytes_max;
        let limits = Limits {
            instructions_bytes_max: most.min(self.limits.instructions_bytes_max),
            ..self.limits.clone()
        };
        carbontube_protocol::check_instructions(bytes, &limits)
    }
}
