//! What views missed before they came: the latest log lines, changes of workers and notes
//! about the manager, in bounded memory. It begins anew with the process.

use std::collections::VecDeque;

use carbontube_protocol::message::{Event, EventKind, Recent};

use crate::publisher::text_bytes;

/// The most log lines that are kept, and the bytes of their text.
const LINES_MAX: usize = 10_000;
const LINE_BYTES_MAX: usize = 4 << 20;
/// The most other events that are kept, and the bytes of their text.
const CHANGES_MAX: usize = 5_000;
const CHANGE_BYTES_MAX: usize = 1 << 20;
/// The most events in one answer, and the bytes of their text, unless a single event has
/// more.
const ANSWER_MAX: usize = 1_000;
const ANSWER_BYTES_MAX: usize = 512 << 10;

/// Events with numbers, the oldest first, of which the oldest make room.
#[derive(Debug)]
struct Ring {
    events: VecDeque<(u64, Event)>,
    bytes: usize,
    most: usize,
    bytes_most: usize,
}

impl Ring {
    fn new(most: usize, bytes_most: usize) -> Ring {
        Ring {
            events: VecDeque::new(),
            bytes: 0,
            most,
            bytes_most,
        }
    }

    fn push(&mut self, number: u64, event: Event) {
        self.bytes += text_bytes(&event.kind);
        self.events.push_back((number, event));
        while (self.events.len() > self.most || self.bytes > self.bytes_most)
            && let Some((_, oldest)) = self.events.pop_front()
        {
            self.bytes -= text_bytes(&oldest.kind);
        }
    }

    /// Those after a number.
    fn after(&self, after: u64) -> impl Iterator<Item = &(u64, Event)> {
        let from = self.events.partition_point(|(number, _)| *number <= after);
        self.events.range(from..)
    }
}

/// The record. Lines have room of their own: a flood of them pushes no worker out.
#[derive(Debug)]
pub(crate) struct Record {
    last: u64,
    lines: Ring,
    changes: Ring,
}

impl Default for Record {
    fn default() -> Record {
        Record {
            last: 0,
            lines: Ring::new(LINES_MAX, LINE_BYTES_MAX),
            changes: Ring::new(CHANGES_MAX, CHANGE_BYTES_MAX),
        }
    }
}

impl Record {
    /// Keeps an event, if it is of those that views would miss: the state of jobs and their
    /// progress can be asked for.
    pub(crate) fn keep(&mut self, event: &Event) {
        let ring = match &event.kind {
            EventKind::Log { .. } => &mut self.lines,
            EventKind::Worker { .. } | EventKind::Manager { .. } | EventKind::Action { .. } => {
                &mut self.changes
            }
            EventKind::Job { .. } | EventKind::Progress { .. } => return,
        };
        self.last += 1;
        ring.push(self.last, event.clone());
    }

    /// The next events after a number, as many as fit into an answer.
    pub(crate) fn read(&self, after: u64) -> Recent {
        let (mut lines, mut changes) = (self.lines.after(after), self.changes.after(after));
        let (mut line, mut change) = (lines.next(), changes.next());
        let mut recent = Recent {
            events: Vec::new(),
            next: None,
        };
        let (mut bytes, mut number) = (0, after);
        loop {
            let is_line = match (line, change) {
                (Some((line, _)), Some((change, _))) => line < change,
                (line, _) => line.is_some(),
            };
            let Some((this, event)) = (if is_line { line } else { change }) else {
                return recent;
            };
            bytes += text_bytes(&event.kind);
            let is_full = recent.events.len() >= ANSWER_MAX || bytes > ANSWER_BYTES_MAX;
            if is_full && !recent.events.is_empty() {
                recent.next = Some(number);
                return recent;
            }
            number = *this;
            recent.events.push(event.clone());
            if is_line {
                line = lines.next();
            } else {
                change = changes.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use carbontube_protocol::message::{JobState, LogLevel, LogLine, ManagerState};
    use carbontube_protocol::{AttemptId, JobId, JobType, Timestamp, WorkerId};

    use super::*;

    fn event(at: u64, kind: EventKind) -> Event {
        Event {
            at: Timestamp(at),
            kind,
        }
    }

    fn line(at: u64, text: &str) -> Event {
        let line = LogLine {
            job: JobId::from_uuid_bytes([2; 16]),
            attempt: AttemptId {
                epoch: 1,
                counter: 1,
            },
            at: Timestamp(at),
            level: LogLevel::Info,
            text: text.to_owned(),
        };
        let kind = EventKind::Log {
            worker: WorkerId::from_bytes([1; 16]),
            job_type: JobType::new("one").expect("a name"),
            line,
        };
        event(at, kind)
    }

    fn note(at: u64) -> Event {
        let kind = EventKind::Manager {
            state: ManagerState::Running,
            reason: "all is well".to_owned(),
        };
        event(at, kind)
    }

    fn all(record: &Record) -> Vec<Event> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let recent = record.read(after);
            assert!(recent.events.len() <= ANSWER_MAX);
            all.extend(recent.events);
            match recent.next {
                Some(next) => after = next,
                None => return all,
            }
        }
    }

    #[test]
    fn lines_and_changes_come_in_the_order_in_which_they_happened() {
        let mut record = Record::default();
        assert_eq!(record.read(0).events, []);
        let events = [line(1, "a"), note(2), note(3), line(4, "b"), line(5, "c")];
        for event in &events {
            record.keep(event);
        }
        let job = EventKind::Job {
            job: JobId::from_uuid_bytes([2; 16]),
            state: JobState::Running,
            job_type: JobType::new("one").expect("a name"),
            worker: None,
            error: None,
        };
        record.keep(&event(6, job));
        assert_eq!(all(&record), events);
    }

    #[test]
    fn flood_of_lines_pushes_older_lines_out_and_no_change() {
        let mut record = Record::default();
        record.keep(&note(1));
        let most = LINES_MAX as u64;
        for at in 0..most + 5 {
            record.keep(&line(at + 2, "x"));
        }
        let all = all(&record);
        assert_eq!(all.len(), LINES_MAX + 1);
        assert_eq!((&all[0], &all[1]), (&note(1), &line(7, "x")));
        assert_eq!(all[LINES_MAX].at, Timestamp(most + 6));
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes_and_read_in_parts() {
        let mut record = Record::default();
        let long = "y".repeat(300 << 10);
        for at in 0..40 {
            record.keep(&line(at, &long));
        }
        assert!(record.lines.bytes <= LINE_BYTES_MAX);
        let first = record.read(0);
        assert_eq!(first.events.len(), 1);
        assert!(first.next.is_some());
        assert_eq!(all(&record).len(), LINE_BYTES_MAX / (300 << 10));
    }
}
