//! Ended jobs: their log of pages, and a small index of it in memory.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::JobState;
use carbontube_protocol::{JobId, Timestamp};
use carbontube_storage::PageSeq;

use super::job::Job;
use super::journal::COMMIT_BYTES;
use super::machine::Core;
use super::record::{self, PastRecord};

/// An ended job in memory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) page: PageSeq,
    pub(super) state: JobState,
    pub(super) phase: u16,
    pub(super) tries: u32,
    pub(super) enqueued_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) error: Option<Box<str>>,
}

#[derive(Debug, Default)]
struct PastPage {
    ids: Vec<JobId>,
    newest: Timestamp,
    bytes: u64,
    /// Which expiry it was given to the store after, counted from 1; 0 before this start.
    stored: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    index: HashMap<JobId, Entry>,
    pages: BTreeMap<PageSeq, PastPage>,
    jobs: u64,
    expiries: u64,
}

impl History {
    pub(super) fn entry(&self, id: &JobId) -> Option<&Entry> {
        self.index.get(id)
    }

    /// The ended jobs from a place on, oldest first, each with its place.
    pub(super) fn iter_from(
        &self,
        from: (PageSeq, usize),
    ) -> impl Iterator<Item = ((PageSeq, usize), &JobId, &Entry)> {
        let pages = self.pages.range(from.0..);
        let places = pages.flat_map(move |(seq, page)| {
            let skip = if *seq == from.0 { from.1 } else { 0 };
            let ids = page.ids.iter().enumerate().skip(skip);
            ids.map(move |(index, id)| ((*seq, index), id))
        });
        places.filter_map(|(place, id)| {
            let (id, entry) = self.index.get_key_value(id)?;
            (entry.page == place.0).then_some((place, id, entry))
        })
    }

    /// The ended jobs from a place back, newest first, each with its place.
    pub(super) fn iter_back_from(
        &self,
        from: (PageSeq, usize),
    ) -> impl Iterator<Item = ((PageSeq, usize), &JobId, &Entry)> {
        let pages = self.pages.range(..=from.0).rev();
        let places = pages.flat_map(move |(seq, page)| {
            let most = if *seq == from.0 { from.1 } else { usize::MAX };
            let ids = page.ids.iter().enumerate().rev();
            let ids = ids.skip_while(move |(index, _)| *index > most);
            ids.map(move |(index, id)| ((*seq, index), id))
        });
        places.filter_map(|(place, id)| {
            let (id, entry) = self.index.get_key_value(id)?;
            (entry.page == place.0).then_some((place, id, entry))
        })
    }

    /// How many jobs there were at the last expiry that should have gone then. A page goes
    /// as a whole, once it was stored before, and the newest stays.
    #[cfg(feature = "testing")]
    pub(super) fn overdue(&self, jobs_max: u64) -> u64 {
        let then = |page: &&PastPage| page.stored.is_some_and(|n| n <= self.expiries);
        let there = self.pages.values().filter(then);
        let jobs: u64 = there.clone().map(|page| page.ids.len() as u64).sum();
        let might_go = there.clone().any(|page| page.stored < Some(self.expiries));
        match self.expiries > 0 && might_go && there.count() > 1 {
            true => jobs.saturating_sub(jobs_max),
            false => 0,
        }
    }

    /// A page of the log exists, whatever it holds.
    pub(super) fn put(&mut self, page: PageSeq, bytes: u64) {
        let page = self.pages.entry(page).or_default();
        page.stored = Some(self.expiries);
        page.bytes = bytes;
    }

    pub(super) fn add(&mut self, id: JobId, entry: Entry) {
        let page = self.pages.entry(entry.page).or_default();
        page.ids.push(id.clone());
        page.newest = page.newest.max(entry.ended_at);
        self.jobs += 1;
        self.index.insert(id, entry);
    }

    /// The first page that is kept.
    pub(super) fn first(&self) -> Option<PageSeq> {
        self.pages.first_key_value().map(|(seq, _)| *seq)
    }

    /// Forgets the oldest pages beyond the bounds, so many bytes of them at once. The last
    /// one stays, since it says where the log goes on. Says whether there are more.
    fn expire(&mut self, jobs_max: u64, oldest: Timestamp, bytes_max: u64) -> bool {
        self.expiries += 1;
        if mutation::is(Mutation::HistoryUnbounded) {
            return false;
        }
        let mut bytes = 0;
        while self.pages.len() > 1
            && let Some(first) = self.pages.first_entry()
        {
            let over = self.jobs > jobs_max || first.get().newest < oldest;
            if !over || first.get().stored.is_none() {
                return false;
            }
            if bytes >= bytes_max {
                return true;
            }
            bytes += first.get().bytes;
            let (seq, page) = first.remove_entry();
            self.jobs -= page.ids.len() as u64;
            for id in page.ids {
                if self.index.get(&id).is_some_and(|entry| entry.page == seq) {
                    self.index.remove(&id);
                }
            }
        }
        false
    }
}

impl Core {
    /// Writes an ended job to the history.
    pub(super) fn remember(&mut self, job: &Job, state: JobState, result: &Bytes, now: Timestamp) {
        let rare = job.rare.as_deref();
        let failure = rare.and_then(|rare| rare.failure.clone());
        let past = PastRecord {
            id: job.id.clone(),
            state,
            job_type: self.job_type(job.phase).clone(),
            phase: job.phase,
            tries: job.tries,
            enqueued_at: job.enqueued_at,
            ended_at: now,
            traceparent: rare.and_then(|rare| rare.traceparent.clone()),
            failure,
            attempts: rare.map(|rare| rare.attempts.clone()).unwrap_or_default(),
        };
        let kept: &[u8] = if result.len() <= self.options.history_result_bytes_max {
            result
        } else {
            &[]
        };
        let page = self.journal.past.append(&record::encode(&past, kept));
        self.history.add(job.id.clone(), Entry::of(page, &past));
    }

    /// Says whether there is more to expire.
    pub(super) fn expire_history(&mut self, now: Timestamp) -> bool {
        let oldest = now - self.options.history_age_max;
        let jobs_max = self.options.history_jobs_max;
        self.history.expire(jobs_max, oldest, COMMIT_BYTES as u64)
    }
}

impl Entry {
    pub(super) fn of(page: PageSeq, past: &PastRecord) -> Entry {
        let error = past.failure.as_ref().map(|f| f.error.message.as_str());
        Entry {
            page,
            state: past.state,
            phase: past.phase,
            tries: past.tries,
            enqueued_at: past.enqueued_at,
            ended_at: past.ended_at,
            error: error.map(Box::from),
        }
    }
}
