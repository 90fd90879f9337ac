//! Jobs gathered into batches, and how many batches may wait for their answer.

use std::collections::VecDeque;

use crate::{ClientOptions, NewJob};

/// The batch that is being gathered, and the sizes of those under way.
#[derive(Debug, Default)]
pub struct Window {
    batch: Vec<NewJob>,
    batch_bytes: usize,
    sent: VecDeque<usize>,
    sent_bytes: usize,
}

impl Window {
    /// Whether a job of this size is too much for the batch, so that the batch has to
    /// go first.
    pub fn is_too_small_for(&self, bytes: usize, options: &ClientOptions) -> bool {
        !self.batch.is_empty() && self.batch_bytes + bytes > options.batch_bytes_max
    }

    /// Adds a job to the batch; says whether the batch is full.
    pub fn add(&mut self, job: NewJob, options: &ClientOptions) -> bool {
        self.batch_bytes += job.instructions_bytes();
        self.batch.push(job);
        let jobs_max = options
            .batch_jobs_max
            .clamp(1, options.limits.batch_jobs_max);
        self.batch.len() >= jobs_max
    }

    /// The jobs of the batch.
    pub fn batch(&self) -> &[NewJob] {
        &self.batch
    }

    /// Whether the batch may go now. One batch always may, however large.
    pub fn has_room(&self, options: &ClientOptions) -> bool {
        self.sent.is_empty()
            || (self.sent.len() < options.window_batches_max.max(1)
                && self.sent_bytes + self.batch_bytes <= options.window_bytes_max)
    }

    /// Takes the batch; it counts as under way until it is [`settled`](Self::settled).
    pub fn send(&mut self) -> Vec<NewJob> {
        self.sent.push_back(self.batch_bytes);
        self.sent_bytes += self.batch_bytes;
        self.batch_bytes = 0;
        std::mem::take(&mut self.batch)
    }

    /// The oldest batch under way has its answer.
    pub fn settled(&mut self) {
        self.sent_bytes -= self.sent.pop_front().unwrap_or(0);
    }
}
