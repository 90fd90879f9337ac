//! What a phase knows about the attempt that it runs, and how it speaks to the outside.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use carbontube_protocol::message::{LogLevel, LogLine, ProgressItem};
use carbontube_protocol::{AttemptId, JobId, JobType, PipelineName, Timestamp};
use event_listener::Event;

use crate::clock::Clock;
use crate::telemetry::Telemetry;

/// How much of an attempt's log is kept for the details of its failure.
const TAIL_BYTES_MAX: usize = 4 << 10;

/// One attempt, as the phase that runs it sees it. Cheap to clone.
#[derive(Clone)]
pub struct JobContext {
    inner: Arc<Inner>,
}

struct Inner {
    about: About,
    output: Output,
    stop: AtomicU8,
    stopped: Event,
    tail: Mutex<String>,
}

/// What the attempt is.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptId,
    pub(crate) number: u32,
    pub(crate) phase: u16,
    pub(crate) pipeline: PipelineName,
    pub(crate) traceparent: Option<String>,
    pub(crate) started_at: Timestamp,
}

/// Where its words go.
#[derive(Clone)]
pub(crate) struct Output {
    pub(crate) job_type: JobType,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) clock: Clock,
}

/// Why an attempt shall stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The manager wants it.
    Cancelled,
    /// Its time is over.
    TimedOut,
    /// The worker's grace period is over; the attempt is handed back when it has ended.
    GraceOver,
    /// The worker ends at once; the attempt is handed back likewise.
    Now,
}

const RUNNING: u8 = 0;

impl Stop {
    fn code(self) -> u8 {
        match self {
            Stop::Cancelled => 1,
            Stop::TimedOut => 2,
            Stop::GraceOver => 3,
            Stop::Now => 4,
        }
    }

    fn from_code(code: u8) -> Option<Stop> {
        match code {
            1 => Some(Stop::Cancelled),
            2 => Some(Stop::TimedOut),
            3 => Some(Stop::GraceOver),
            4 => Some(Stop::Now),
            _ => None,
        }
    }
}

impl JobContext {
    pub(crate) fn new(about: About, output: Output) -> Self {
        JobContext {
            inner: Arc::new(Inner {
                about,
                output,
                stop: AtomicU8::new(RUNNING),
                stopped: Event::new(),
                tail: Mutex::default(),
            }),
        }
    }

    /// The job.
    pub fn job(&self) -> &JobId {
        &self.inner.about.job
    }

    /// This attempt's id: no other attempt of any job has it.
    pub fn attempt(&self) -> AttemptId {
        self.inner.about.attempt
    }

    /// Which try of this phase it is, from 1.
    pub fn attempt_number(&self) -> u32 {
        self.inner.about.number
    }

    /// The phase's place in the pipeline, from 0.
    pub fn phase_index(&self) -> u16 {
        self.inner.about.phase
    }

    /// The phase.
    pub fn job_type(&self) -> &JobType {
        &self.inner.output.job_type
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &PipelineName {
        &self.inner.about.pipeline
    }

    /// The W3C `traceparent` that came with the job.
    pub fn traceparent(&self) -> Option<&str> {
        self.inner.about.traceparent.as_deref()
    }

    /// Writes a log line that everyone can follow live.
    ///
    /// The last lines also become the details of a failure. Lines beyond a generous
    /// rate are dropped and counted; a long one is cut.
    pub fn log(&self, level: LogLevel, text: impl fmt::Display) {
        let text = text.to_string();
        for line in text.lines() {
            self.log_line(level, line);
        }
    }

    fn log_line(&self, level: LogLevel, line: &str) {
        let telemetry = &self.inner.output.telemetry;
        let line = cut(line, telemetry.line_bytes_max());
        self.remember(line);
        telemetry.log(LogLine {
            job: self.job().clone(),
            attempt: self.attempt(),
            at: self.now(),
            level,
            text: line.to_owned(),
        });
    }

    /// Tells how far the attempt is, from 0 to 1, and what it is doing.
    ///
    /// May be called as often as one likes: only the latest is sent, some times a second.
    pub fn progress(&self, fraction: f32, text: impl fmt::Display) {
        let telemetry = &self.inner.output.telemetry;
        let fraction = if fraction.is_nan() { 0.0 } else { fraction };
        let text = text.to_string();
        telemetry.progress(ProgressItem {
            job: self.job().clone(),
            attempt: self.attempt(),
            fraction: fraction.clamp(0.0, 1.0),
            text: cut(&text, telemetry.line_bytes_max()).to_owned(),
        });
    }

    /// Whether the attempt shall end: it was cancelled, took too long, or the worker goes.
    pub fn is_cancelled(&self) -> bool {
        self.inner.stop.load(Ordering::Acquire) != RUNNING
    }

    /// Waits until the attempt shall end.
    pub async fn cancelled(&self) {
        self.stopped().await;
    }

    /// Waits until the attempt shall end, and says why.
    pub(crate) async fn stopped(&self) -> Stop {
        loop {
            if let Some(stop) = self.stop_reason() {
                return stop;
            }
            let stopped = self.inner.stopped.listen();
            if let Some(stop) = self.stop_reason() {
                return stop;
            }
            stopped.await;
        }
    }

    pub(crate) fn stop_reason(&self) -> Option<Stop> {
        Stop::from_code(self.inner.stop.load(Ordering::Acquire))
    }

    /// Asks the attempt to end. The first reason stays, except that `Now` always counts.
    pub(crate) fn stop(&self, why: Stop) {
        let set = |old| (old == RUNNING || why == Stop::Now).then(|| why.code());
        let order = Ordering::AcqRel;
        if (self.inner.stop.fetch_update(order, Ordering::Acquire, set)).is_ok() {
            self.inner.stopped.notify(usize::MAX);
        }
    }

    /// The last of what was logged.
    pub(crate) fn tail(&self) -> String {
        self.inner
            .tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn remember(&self, line: &str) {
        let mut tail = (self.inner.tail.lock()).unwrap_or_else(PoisonError::into_inner);
        tail.push_str(line);
        tail.push('\n');
        // Twice the size before cutting, so that a line does not move the whole tail.
        if tail.len() > 2 * TAIL_BYTES_MAX {
            let from = (tail.len() - TAIL_BYTES_MAX..)
                .find(|&index| tail.is_char_boundary(index))
                .unwrap_or(0);
            tail.drain(..from);
        }
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.inner.about.started_at
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.output.clock.now()
    }
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext")
            .field("about", &self.inner.about)
            .field("stop", &self.stop_reason())
            .finish_non_exhaustive()
    }
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max)
        .rev()
        .find(|&index| text.is_char_boundary(index))
        .unwrap_or(0);
    &text[..end]
}

/// The end of a text, of at most so many bytes.
pub(crate) fn cut_front(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let from = (text.len() - bytes_max..=text.len())
        .find(|&index| text.is_char_boundary(index))
        .unwrap_or(text.len());
    &text[from..]
}
