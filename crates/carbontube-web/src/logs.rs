//! The latest log lines of all pipelines, in a ring with numbers.

use std::collections::{BTreeSet, VecDeque};

use carbontube_protocol::message::{LogLevel, LogLine};
use carbontube_protocol::{JobId, JobType, Timestamp, WorkerId};
use serde::Serialize;

/// How many lines are kept, and how many bytes of text.
const LINES_MAX: usize = 50_000;
const BYTES_MAX: usize = 16 << 20;

/// One line, as pages get it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) seq: u64,
    pub(crate) pipeline: String,
    pub(crate) job_type: JobType,
    pub(crate) worker: WorkerId,
    pub(crate) job: JobId,
    pub(crate) at: Timestamp,
    pub(crate) level: LogLevel,
    pub(crate) text: String,
}

/// Which lines a page wants; each set field must match.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogFilter {
    pub(crate) pipeline: Option<String>,
    pub(crate) job: Option<JobId>,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) phase: Option<JobType>,
    pub(crate) level: Option<LogLevel>,
    /// In lower case.
    pub(crate) text: Option<String>,
}

impl LogFilter {
    fn takes(&self, line: &Line) -> bool {
        self.pipeline.as_ref().is_none_or(|p| *p == line.pipeline)
            && self.job.as_ref().is_none_or(|job| *job == line.job)
            && self.worker.is_none_or(|worker| worker == line.worker)
            && self.phase.as_ref().is_none_or(|p| *p == line.job_type)
            && self
                .level
                .is_none_or(|level| loudness(line.level) <= loudness(level))
            && self
                .text
                .as_ref()
                .is_none_or(|text| line.text.to_lowercase().contains(text))
    }
}

/// From loud to quiet.
fn loudness(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 0,
        LogLevel::Warn => 1,
        LogLevel::Info => 2,
        LogLevel::Debug => 3,
    }
}

/// What a page reads at once.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
    /// Where to go on: give it as `after`.
    pub(crate) next: u64,
    /// How many lines were left out, because they went by too fast.
    pub(crate) left_out: u64,
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct LogRing {
    lines: VecDeque<Line>,
    bytes: usize,
    last: u64,
    /// Lines that managers left out, at the number of the line that follows.
    missing: VecDeque<(u64, u64)>,
}

impl LogRing {
    pub(crate) fn push(
        &mut self,
        pipeline: &str,
        job_type: JobType,
        worker: WorkerId,
        line: LogLine,
    ) {
        self.last += 1;
        self.bytes += line.text.len();
        self.lines.push_back(Line {
            seq: self.last,
            pipeline: pipeline.to_owned(),
            job_type,
            worker,
            job: line.job,
            at: line.at,
            level: line.level,
            text: line.text,
        });
        while (self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX)
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.text.len();
        }
    }

    /// Puts lines of before in that are not here yet.
    pub(crate) fn push_missing(
        &mut self,
        pipeline: &str,
        lines: Vec<(JobType, WorkerId, LogLine)>,
    ) {
        let known: BTreeSet<_> = self
            .lines
            .iter()
            .filter(|line| line.pipeline == pipeline)
            .map(|line| (line.at, line.worker, line.job.clone(), line.text.clone()))
            .collect();
        for (job_type, worker, line) in lines {
            if !known.contains(&(line.at, worker, line.job.clone(), line.text.clone())) {
                self.push(pipeline, job_type, worker, line);
            }
        }
    }

    /// A manager said that it left lines out before the next one.
    pub(crate) fn miss(&mut self, count: u64) {
        if count > 0 {
            self.missing.push_back((self.last + 1, count));
            if self.missing.len() > 1000 {
                self.missing.pop_front();
            }
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    fn missed(&self, after: u64, until: u64) -> u64 {
        let told = self.missing.iter();
        let told = told.filter(|(at, _)| *at > after && *at <= until);
        told.map(|(_, count)| count).sum()
    }

    /// The latest lines after a number, oldest first: of more than `most`, the earlier
    /// ones are left out.
    pub(crate) fn latest(&self, filter: &LogFilter, after: u64, most: usize) -> Lines {
        let mut lines: Vec<Line> = Vec::new();
        let mut left_out = self.missed(after, self.last);
        let first = self.lines.front().map_or(self.last + 1, |line| line.seq);
        if after > 0 {
            left_out += first.saturating_sub(after + 1);
        }
        for line in self.lines.iter().rev().take_while(|line| line.seq > after) {
            if !filter.takes(line) {
                continue;
            }
            if lines.len() < most {
                lines.push(line.clone());
            } else {
                left_out += 1;
            }
        }
        lines.reverse();
        Lines {
            lines,
            next: self.last,
            left_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carbontube_protocol::AttemptId;

    fn ring(texts: impl IntoIterator<Item = String>) -> LogRing {
        let mut ring = LogRing::default();
        for (n, text) in texts.into_iter().enumerate() {
            let line = LogLine {
                job: JobId::new(&format!("j{}", n % 3)).expect("an id"),
                attempt: AttemptId {
                    epoch: 1,
                    counter: 1,
                },
                at: Timestamp(1),
                level: if n % 2 == 0 {
                    LogLevel::Info
                } else {
                    LogLevel::Error
                },
                text,
            };
            let job_type = JobType::new("one").expect("a name");
            ring.push("p", job_type, WorkerId::from_bytes([1; 16]), line);
        }
        ring
    }

    fn numbers(lines: &Lines) -> Vec<u64> {
        lines.lines.iter().map(|line| line.seq).collect()
    }

    #[test]
    fn latest_lines_come_in_order_and_say_what_is_left_out() {
        let ring = ring((0..10).map(|n| n.to_string()));
        let all = LogFilter::default();
        let some = ring.latest(&all, 0, 4);
        assert_eq!(
            (numbers(&some), some.next, some.left_out),
            (vec![7, 8, 9, 10], 10, 6)
        );
        let rest = ring.latest(&all, 8, 100);
        assert_eq!((numbers(&rest), rest.left_out), (vec![9, 10], 0));
        let loud = LogFilter {
            level: Some(LogLevel::Warn),
            job: Some(JobId::new("j1").expect("an id")),
            ..LogFilter::default()
        };
        assert_eq!(numbers(&ring.latest(&loud, 0, 100)), [2, 8]);
    }

    #[test]
    fn lines_that_are_known_are_not_put_in_again() {
        let mut ring = ring((0..3).map(|n| n.to_string()));
        let past = |n: u64, text: &str| {
            let job_type = JobType::new("one").expect("a name");
            let line = LogLine {
                job: JobId::new(&format!("j{n}")).expect("an id"),
                attempt: AttemptId {
                    epoch: 1,
                    counter: 1,
                },
                at: Timestamp(1),
                level: LogLevel::Info,
                text: text.to_owned(),
            };
            (job_type, WorkerId::from_bytes([1; 16]), line)
        };
        ring.push_missing("p", vec![past(0, "0"), past(0, "new"), past(2, "2")]);
        let all = ring.latest(&LogFilter::default(), 0, 10).lines;
        let texts: Vec<&str> = all.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["0", "1", "2", "new"]);
        ring.push_missing("other", vec![past(0, "0")]);
        assert_eq!(ring.last(), 5);
    }

    #[test]
    fn ring_stays_within_its_bounds_and_tells_the_loss() {
        let mut many = ring((0..LINES_MAX + 10).map(|_| "x".to_owned()));
        assert_eq!(many.lines.len(), LINES_MAX);
        let seen = many.latest(&LogFilter::default(), 5, 1);
        assert_eq!(seen.left_out, 5 + LINES_MAX as u64 - 1);
        many.miss(7);
        assert_eq!(
            many.latest(&LogFilter::default(), many.last(), 1).left_out,
            0
        );
        let long = ring((0..40).map(|_| "y".repeat(1 << 20)));
        assert!(long.bytes <= BYTES_MAX && long.lines.len() == 16);
    }
}
