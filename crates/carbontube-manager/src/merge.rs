//! Events beyond the pace of a topic: what is overtaken by a later one is left out, the
//! rest waits its turn.

use std::collections::BTreeMap;

use carbontube_protocol::message::{Event, EventKind};
use carbontube_protocol::{JobId, WorkerId};

/// The most events that wait; the rest is dropped.
const WAITING_MAX: usize = 4096;

/// What a later event about the same thing overtakes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Job(JobId),
    Worker(WorkerId),
    Progress(JobId),
}

impl Key {
    /// Log lines and what happens to the manager each stand for themselves.
    fn of(kind: &EventKind) -> Option<Key> {
        match kind {
            EventKind::Job { job, .. } => Some(Key::Job(job.clone())),
            EventKind::Worker { worker, .. } => Some(Key::Worker(*worker)),
            EventKind::Progress { item, .. } => Some(Key::Progress(item.job.clone())),
            EventKind::Log { .. } | EventKind::Manager { .. } | EventKind::Action { .. } => None,
        }
    }
}

/// What became of an event that came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It waits its turn.
    Waits,
    /// It took the place of an earlier one about the same thing.
    Merged,
    /// It was left out.
    Dropped,
}

/// Events that wait for their topic's next turn, the latest of each thing.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    places: BTreeMap<Key, u64>,
    waiting: BTreeMap<u64, (Key, Event)>,
    last: u64,
}

impl Merge {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn put(&mut self, event: Event) -> Put {
        let Some(key) = Key::of(&event.kind) else {
            return Put::Dropped;
        };
        if let Some(place) = self.places.get(&key) {
            // It keeps its place, or what changes often would never have its turn.
            self.waiting.insert(*place, (key, event));
            return Put::Merged;
        }
        if self.waiting.len() >= WAITING_MAX {
            return Put::Dropped;
        }
        self.last += 1;
        self.places.insert(key.clone(), self.last);
        self.waiting.insert(self.last, (key, event));
        Put::Waits
    }

    /// The event that has waited longest.
    pub(crate) fn take(&mut self) -> Option<Event> {
        let (_, (key, event)) = self.waiting.pop_first()?;
        self.places.remove(&key);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use carbontube_protocol::message::JobState;
    use carbontube_protocol::{JobType, Timestamp};

    use super::*;

    fn event(job: &str, at: u64) -> Event {
        Event {
            at: Timestamp(at),
            kind: EventKind::Job {
                job: JobId::new(job).expect("an id"),
                state: JobState::Running,
                job_type: JobType::new("one").expect("a name"),
                worker: None,
                error: None,
            },
        }
    }

    #[test]
    fn latest_event_of_each_job_is_kept_in_the_place_of_the_first() {
        let mut merge = Merge::default();
        let put = [event("a", 1), event("b", 2), event("a", 3)].map(|event| merge.put(event));
        assert_eq!(put, [Put::Waits, Put::Waits, Put::Merged]);
        let taken: Vec<u64> = std::iter::from_fn(|| merge.take())
            .map(|e| e.at.0)
            .collect();
        assert_eq!(taken, [3, 2]);
        assert_eq!(merge.put(event("a", 4)), Put::Waits);
    }

    #[test]
    fn what_waits_is_bounded_and_lines_are_not_merged() {
        let mut merge = Merge::default();
        for n in 0..WAITING_MAX {
            assert_eq!(merge.put(event(&format!("j{n}"), 1)), Put::Waits);
        }
        assert_eq!(merge.put(event("one-more", 1)), Put::Dropped);
        assert_eq!(merge.put(event("j7", 2)), Put::Merged);
        let line = Event {
            at: Timestamp(1),
            kind: EventKind::Action {
                text: String::new(),
                count: 1,
                skipped: 0,
            },
        };
        assert_eq!(Merge::default().put(line), Put::Dropped);
    }
}
