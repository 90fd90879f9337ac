//! Administrative changes to many jobs, piece by piece.
//!
//! One request can retry, cancel or discard millions of jobs. It is done in pieces of
//! bounded work, a turn for each client, with everything else between two pieces, and
//! answered when it is done. A piece begins when little waits for the disk, so the journal
//! is not flooded either.
//!
//! A change is not journaled as such: after a restart each of its jobs is changed or not.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{Answer, Code, EventKind, JobFilter, JobState, Selector};
use carbontube_protocol::{JobId, Timestamp};

use super::ClientId;
use super::job::JobNo;
use super::machine::Core;
use super::record::End;

/// The most jobs that a piece changes.
const PIECE_JOBS: usize = 1_000;
/// The most jobs that it looks at.
const PIECE_LOOKS: usize = 20_000;
/// How many bytes it journals before it ends.
const PIECE_BYTES: usize = 4 << 20;
/// The pause before the next piece.
const PIECE_PAUSE: Duration = Duration::from_millis(1);
/// No piece begins while so many bytes are not durable.
const UNDURABLE_BYTES: usize = 8 << 20;
/// The most changes of one client that are not done, and of all clients.
const CHANGES_MAX: (usize, usize) = (16, 256);

/// What is done to the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Retry,
    Cancel,
    Discard,
}

impl Verb {
    fn done(self) -> &'static str {
        match self {
            Verb::Retry => "retried",
            Verb::Cancel => "cancelled",
            Verb::Discard => "discarded",
        }
    }
}

/// A change under way.
#[derive(Debug)]
struct Change {
    request: u64,
    verb: Verb,
    selection: Selection,
    count: u64,
    skipped: u64,
}

/// The jobs that are still to be looked at: those that were there when it was asked.
#[derive(Debug)]
enum Selection {
    Ids(std::vec::IntoIter<JobId>),
    Filter {
        filter: JobFilter,
        next: JobNo,
        last: JobNo,
    },
    Group {
        group: String,
        next: (Timestamp, JobNo),
        last: (Timestamp, JobNo),
        left: u64,
    },
}

enum Next {
    Job(JobNo),
    Unknown,
    /// The piece has looked at enough.
    Pause,
    End,
}

/// The changes that are not done, by the client that asked.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: BTreeMap<ClientId, VecDeque<Change>>,
    last: Option<ClientId>,
    next_piece: Timestamp,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn has_room(&self, client: ClientId) -> bool {
        let all: usize = self.waiting.values().map(VecDeque::len).sum();
        let own = self.waiting.get(&client).map_or(0, VecDeque::len);
        own < CHANGES_MAX.0 && all < CHANGES_MAX.1
    }

    /// The client whose turn it is.
    fn turn(&mut self) -> Option<ClientId> {
        let from = self.last.map_or(Unbounded, Excluded);
        let mut later = self.waiting.range((from, Unbounded));
        let next = later.next().or_else(|| self.waiting.iter().next());
        self.last = next.map(|(client, _)| *client);
        self.last
    }
}

impl Core {
    /// Begins a change; a short one is done at once.
    pub(super) fn begin_change(
        &mut self,
        client: ClientId,
        request: u64,
        (verb, selector): (Verb, Selector),
        now: Timestamp,
    ) {
        if !self.changes.has_room(client) {
            self.count("refused_busy", 1);
            let (own, all) = CHANGES_MAX;
            let message = format!(
                "changes to jobs are under way, {own} of a client and {all} of all clients at most"
            );
            return self.refuse(client, request, Code::Busy, message);
        }
        let selection = self.select(selector);
        let change = Change {
            request,
            verb,
            selection,
            count: 0,
            skipped: 0,
        };
        let waiting = self.changes.waiting.entry(client).or_default();
        waiting.push_back(change);
        if waiting.len() == 1 && self.may_change() {
            self.change_piece(client, now);
        }
    }

    fn select(&self, selector: Selector) -> Selection {
        match selector {
            Selector::Ids(ids) => Selection::Ids(ids.into_iter()),
            Selector::Filter(filter) => Selection::Filter {
                filter,
                next: 0,
                last: self.jobs.last_no(),
            },
            Selector::Group { group, limit } => Selection::Group {
                next: (Timestamp::ZERO, 0),
                last: self.jobs.failures.last(&group).unwrap_or_default(),
                group,
                left: limit.unwrap_or(u64::MAX),
            },
        }
    }

    /// When the next piece is due; it waits for the disk without a time.
    pub(super) fn next_change(&self) -> Option<Timestamp> {
        (!self.changes.is_empty() && self.may_change()).then_some(self.changes.next_piece)
    }

    fn may_change(&self) -> bool {
        self.journal.tail.bytes() + self.journal.past.bytes() < UNDURABLE_BYTES
    }

    /// Goes on with the change of the client whose turn it is.
    pub(super) fn go_on_changing(&mut self, now: Timestamp) {
        if self.next_change().is_none_or(|at| at > now) {
            return;
        }
        if let Some(client) = self.changes.turn() {
            self.change_piece(client, now);
        }
    }

    fn change_piece(&mut self, client: ClientId, now: Timestamp) {
        self.changes.next_piece = now + PIECE_PAUSE;
        let Some(waiting) = self.changes.waiting.get_mut(&client) else {
            return;
        };
        let Some(mut change) = waiting.pop_front() else {
            return;
        };
        let done = self.change_some(&mut change, now);
        if !done {
            let waiting = self.changes.waiting.entry(client).or_default();
            return waiting.push_front(change);
        }
        if let Some(waiting) = self.changes.waiting.get(&client)
            && waiting.is_empty()
        {
            self.changes.waiting.remove(&client);
        }
        self.publish_change(&change, now);
        let (count, skipped) = (change.count, change.skipped);
        let answer = Answer::Changed { count, skipped };
        self.answer(self.journal.last, client, change.request, answer);
    }

    /// One piece. True when the change is done with it.
    fn change_some(&mut self, change: &mut Change, now: Timestamp) -> bool {
        let undurable = |core: &Core| core.journal.tail.bytes() + core.journal.past.bytes();
        let before = undurable(self);
        let mut looks = PIECE_LOOKS;
        for _ in 0..PIECE_JOBS {
            let no = match self.next_of(&mut change.selection, &mut looks) {
                Next::End => return true,
                Next::Pause => return false,
                Next::Unknown => {
                    change.skipped += 1;
                    continue;
                }
                Next::Job(no) => no,
            };
            if self.change_job(change.verb, no, now) {
                change.count += 1;
            } else {
                change.skipped += 1;
            }
            self.journal.cut();
            if undurable(self) - before >= PIECE_BYTES {
                return false;
            }
        }
        false
    }

    fn next_of(&self, selection: &mut Selection, looks: &mut usize) -> Next {
        match selection {
            Selection::Ids(ids) => match ids.next() {
                Some(id) => self.jobs.no(&id).map_or(Next::Unknown, Next::Job),
                None => Next::End,
            },
            Selection::Filter { filter, next, last } => {
                for (no, job) in self.jobs.iter_from(*next) {
                    *next = no;
                    if no > *last {
                        break;
                    }
                    if *looks == 0 {
                        return Next::Pause;
                    }
                    *looks -= 1;
                    if self.takes_job(filter, job) {
                        *next = no + 1;
                        return Next::Job(no);
                    }
                }
                Next::End
            }
            Selection::Group {
                group,
                next,
                last,
                left,
            } => {
                let found = self.jobs.failures.job_from(group, *next);
                match found.filter(|found| found <= last && *left > 0) {
                    Some((at, no)) => {
                        *next = (at, no + 1);
                        *left -= 1;
                        Next::Job(no)
                    }
                    None => Next::End,
                }
            }
        }
    }

    /// Whether the job was in a state in which it could be changed.
    fn change_job(&mut self, verb: Verb, no: JobNo, now: Timestamp) -> bool {
        let Some(state) = self.jobs.job(no).map(|job| job.state) else {
            return false;
        };
        match verb {
            Verb::Retry => self.retry_job(no, now),
            Verb::Cancel if !state.is_terminal() => {
                self.cancel_job(no, now);
                true
            }
            Verb::Discard if state == JobState::Failed => {
                self.end(no, End::Discarded, Bytes::new(), now);
                true
            }
            Verb::Cancel | Verb::Discard => false,
        }
    }

    /// The client has gone: its changes stop where they are.
    pub(super) fn forget_changes(&mut self, client: ClientId, now: Timestamp) {
        for change in self.changes.waiting.remove(&client).unwrap_or_default() {
            if change.count > 0 {
                self.count("changes_cut_short", 1);
                self.publish_change(&change, now);
            }
        }
    }

    fn publish_change(&mut self, change: &Change, now: Timestamp) {
        let (count, skipped) = (change.count, change.skipped);
        let jobs = if count == 1 { "job was" } else { "jobs were" };
        let text = format!("{count} {jobs} {} on request", change.verb.done());
        let kind = EventKind::Action {
            text,
            count,
            skipped,
        };
        self.publish(now, kind);
    }
}
