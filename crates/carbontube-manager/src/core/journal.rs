//! The journal's writing side: records into pages, pages into commits, and which pages
//! are still needed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::AttemptView;
use carbontube_protocol::{EPOCH_STEP_MAX, Timestamp};
use carbontube_storage::{Log, PageSeq};

use super::job::{Job, JobNo};
use super::machine::Core;
use super::pages::Tail;
use super::record::{self, ChangeRecord, JobRecord, Record, Standing, StateRecord};
use super::{Commit, CommitId, RecordSeq, StoreFault};

/// How many bytes of old records one commit rewrites.
const COMPACT_BYTES_STEP: usize = 256 << 10;
/// The least step of an import, whatever the clock says.
const IMPORT_STEP_MIN: u64 = 1 << 20;
/// The largest: several imports together are still a step that workers believe at once.
const IMPORT_STEP_MAX: u64 = EPOCH_STEP_MAX >> 2;
/// After how many pages the records about no job are written again.
const STATE_PAGES_MAX: u64 = 64;
/// How many bytes of pages one commit puts, and removes, at most: a record that is larger,
/// or those that belong together, are in one commit all the same. What a store needs in
/// memory for a commit is several times that.
pub(super) const COMMIT_BYTES: usize = 8 << 20;

/// A place between two records at which a commit may end: what was decided by then does
/// not depend on what comes later.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// The last record before it.
    through: RecordSeq,
    /// The first pages after it.
    tail: PageSeq,
    past: PageSeq,
    /// The first page that was still needed.
    needed: PageSeq,
}

/// One page that the journal still holds.
#[derive(Debug, Default)]
pub(super) struct PageUse {
    pub(super) bytes: u64,
    /// Jobs whose latest full record begins here, or did.
    pub(super) jobs: Vec<JobNo>,
    /// How many of them still do.
    pub(super) live: u64,
}

#[derive(Debug)]
pub(super) struct Journal {
    pub(super) tail: Tail,
    pub(super) past: Tail,
    pub(super) pages: BTreeMap<PageSeq, PageUse>,
    pub(super) live_bytes: u64,
    pub(super) page_bytes: u64,
    pub(super) state_home: PageSeq,
    /// How long the records about no job are, and what was journaled since.
    pub(super) state_bytes: u64,
    pub(super) since_state: u64,
    pub(super) last: RecordSeq,
    pub(super) durable: RecordSeq,
    pub(super) taken: RecordSeq,
    pub(super) next_commit: u64,
    pub(super) in_flight: VecDeque<(CommitId, RecordSeq, PageSeq, PageSeq)>,
    pub(super) commits: u64,
    pub(super) trouble: Option<String>,
    /// Where the commits to be taken end, but for the last one.
    cuts: VecDeque<Cut>,
    /// Whether the journal has pages in front that no commit has removed yet, though they
    /// are not needed any more.
    has_garbage: bool,
    /// The same of the history.
    has_expired: bool,
}

impl Journal {
    pub(super) fn new(next: PageSeq, past_next: PageSeq, page_bytes: usize) -> Self {
        Journal {
            tail: Tail::new(next, page_bytes),
            past: Tail::new(past_next, page_bytes),
            pages: BTreeMap::new(),
            live_bytes: 0,
            page_bytes: 0,
            state_home: next,
            state_bytes: 0,
            since_state: 0,
            last: RecordSeq(0),
            durable: RecordSeq(0),
            taken: RecordSeq(0),
            next_commit: 1,
            in_flight: VecDeque::new(),
            commits: 0,
            trouble: None,
            cuts: VecDeque::new(),
            has_garbage: false,
            has_expired: false,
        }
    }

    /// Called between records that may be in different commits: ends a commit here when it
    /// is large.
    pub(super) fn cut(&mut self) {
        if self.tail.since_cut() + self.past.since_cut() >= COMMIT_BYTES {
            let cut = self.end_here();
            self.cuts.push_back(cut);
        }
    }

    fn end_here(&mut self) -> Cut {
        self.tail.cut();
        self.past.cut();
        Cut {
            through: self.last,
            tail: self.tail.next(),
            past: self.past.next(),
            needed: self.first_needed(),
        }
    }

    /// Adds a record; gives its home and length.
    pub(super) fn append(&mut self, record: &Record, payload: &[u8]) -> (PageSeq, u32) {
        let bytes = record::encode(record, payload);
        let home = self.tail.append(&bytes);
        self.last.0 += 1;
        self.since_state += bytes.len() as u64;
        (home, u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    /// Counts a job's latest full record at its home.
    pub(super) fn settle(&mut self, no: JobNo, home: PageSeq, bytes: u32) {
        let page = self.pages.entry(home).or_default();
        page.jobs.push(no);
        page.live += 1;
        self.live_bytes += u64::from(bytes);
    }

    /// A full record is not the latest any more.
    pub(super) fn unsettle(&mut self, home: PageSeq, bytes: u32) {
        if let Some(page) = self.pages.get_mut(&home) {
            debug_assert!(page.live > 0, "page {} has no live job", home.0);
            page.live = page.live.saturating_sub(1);
            if page.live == 0 {
                page.jobs = Vec::new();
            }
        }
        self.live_bytes = self.live_bytes.saturating_sub(u64::from(bytes));
    }

    /// The first page that is still needed.
    fn first_needed(&self) -> PageSeq {
        let live = self.pages.iter().find(|(_, page)| page.live > 0);
        let live = live.map_or(self.tail.next(), |(seq, _)| *seq);
        live.min(self.state_home)
    }
}

/// The page that an import leaves at the end of a journal made at this time, so that its
/// next manager's epoch is above all that the original's may have reached since.
///
/// It steps by the seconds since 1970: no manager starts once in each second for long, and
/// an export that is imported again later gets a higher epoch than the first time.
pub fn import_page(now: Timestamp) -> Vec<u8> {
    let epochs = (now.0 / 1_000_000).clamp(IMPORT_STEP_MIN, IMPORT_STEP_MAX);
    let record = record::encode(&Record::Step { epochs }, &[]);
    let mut tail = Tail::new(PageSeq::FIRST, 0);
    tail.append(&record);
    tail.cut();
    let mut pages = tail.take(tail.next());
    pages.pop().map_or_else(Vec::new, |(_, page)| page.to_vec())
}

/// How many of these bytes are the journal's.
fn journal_bytes(put: &[(Log, PageSeq, Bytes)]) -> u64 {
    let pages = put.iter().filter(|(log, _, _)| *log == Log::Journal);
    pages.map(|(_, _, bytes)| bytes.len() as u64).sum()
}

impl Core {
    fn change_record(&self, job: &Job, attempt: Option<AttemptView>) -> ChangeRecord {
        let rare = job.rare.as_deref();
        ChangeRecord {
            id: job.id.clone(),
            job_type: self.job_type(job.phase).clone(),
            standing: match job.state {
                carbontube_protocol::message::JobState::Failed => Standing::Failed,
                carbontube_protocol::message::JobState::Scheduled => Standing::Waiting {
                    until: rare.and_then(|rare| rare.until).unwrap_or_default(),
                },
                _ => Standing::Ready,
            },
            tries: job.tries,
            losses: job.losses,
            ticket: job.ticket,
            changed_at: job.changed_at,
            settled: rare.and_then(|rare| rare.settled),
            failure: rare.and_then(|rare| rare.failure.clone()),
            attempt,
        }
    }

    /// Journals all about a job, with its payload.
    pub(super) fn journal_job(&mut self, no: JobNo, payload: &Bytes, accepted: bool) {
        let Some(job) = self.jobs.job(no) else { return };
        let rare = job.rare.as_deref();
        let record = Record::JobSince {
            since: job.since,
            job: JobRecord {
                accepted,
                enqueued_at: job.enqueued_at,
                traceparent: rare.and_then(|rare| rare.traceparent.clone()),
                attempts: rare.map(|rare| rare.attempts.clone()).unwrap_or_default(),
                change: self.change_record(job, None),
            },
        };
        let (home, bytes) = self.journal.append(&record, payload);
        self.journal_doubt(no);
        let last = self.journal.last;
        if let Some(job) = self.jobs.job_mut(no) {
            if job.bytes > 0 {
                self.journal.unsettle(job.home, job.bytes);
            }
            job.home = home;
            job.bytes = bytes;
            job.after = last;
        }
        self.journal.settle(no, home, bytes);
        self.forget_unneeded(no);
    }

    /// What no worker gets soon does not take up room among what is to be dispatched.
    fn forget_unneeded(&mut self, no: JobNo) {
        if self.jobs.job(no).is_some_and(Job::waits_for_no_worker) {
            self.payloads.forget(no);
        }
    }

    /// Journals what changed about a job.
    pub(super) fn journal_change(&mut self, no: JobNo, attempt: Option<AttemptView>) {
        let Some(job) = self.jobs.job(no) else { return };
        let record = Record::Change(self.change_record(job, attempt));
        self.journal.append(&record, &[]);
        self.forget_unneeded(no);
        self.journal_doubt(no);
        let last = self.journal.last;
        if let Some(job) = self.jobs.job_mut(no) {
            job.after = last;
        }
    }

    /// Journals that a job does not wait any more for a time.
    pub(super) fn journal_due(&mut self, no: JobNo) {
        let Some(job) = self.jobs.job_mut(no) else {
            return;
        };
        let (id, ticket) = (job.id.clone(), job.ticket);
        self.journal.append(&Record::Due { id, ticket }, &[]);
        job.after = self.journal.last;
    }

    /// Journals the doubt about a job's last attempt, which all its other records end.
    pub(super) fn journal_doubt(&mut self, no: JobNo) {
        let Some(job) = self.jobs.job(no) else { return };
        let doubt = job.rare.as_ref().and_then(|rare| rare.doubt);
        if let Some(doubt) = doubt.filter(|doubt| doubt.may_have_begun) {
            let (id, cause) = (job.id.clone(), doubt.cause);
            self.journal.append(&Record::Doubt { id, cause }, &[]);
            let last = self.journal.last;
            if let Some(job) = self.jobs.job_mut(no) {
                job.after = last;
            }
        }
    }

    /// Removes a job from the live ones and journals that.
    pub(super) fn journal_end(&mut self, no: JobNo, end: record::End) -> Option<Job> {
        let job = self.jobs.remove(no)?;
        self.journal.unsettle(job.home, job.bytes);
        self.payloads.forget(no);
        let id = job.id.clone();
        self.journal.append(&Record::Ended { id, end }, &[]);
        Some(job)
    }

    /// Journals everything that is not about one job.
    pub(super) fn journal_state(&mut self) {
        let phases = self.definition.phases();
        let record = Record::State(StateRecord {
            manager: self.manager,
            epoch: self.epoch,
            pipeline: self.definition.name().clone(),
            phases: phases.iter().map(|phase| phase.job_type.clone()).collect(),
            paused_all: self.paused_all,
            paused: self
                .paused
                .iter()
                .map(|phase| self.job_type(*phase).clone())
                .collect(),
            totals: self.totals,
        });
        self.journal.since_state = 0;
        let (home, _) = self.journal.append(&record, &[]);
        self.journal.state_home = home;
        let workers = Record::Workers(self.holders());
        self.journal.append(&workers, &[]);
        let repeats = Record::Repeats(self.repeats.record());
        self.journal.append(&repeats, &[]);
        self.journal.state_bytes = std::mem::take(&mut self.journal.since_state);
    }

    /// Takes the records made since the last call, packed in pages: one commit. The shell
    /// hands commits to the store in this order; several may be under way. When there are
    /// many records it takes the first of them, and [`Core::has_commit`] tells that there
    /// are more.
    pub fn take_commit(&mut self, now: Timestamp) -> Option<Commit> {
        let expires = self.expire_history(now);
        if !self.journal.tail.is_empty() {
            let behind = self.journal.tail.next().0 - self.journal.state_home.0;
            let journal = &self.journal;
            if behind > STATE_PAGES_MAX && journal.since_state > journal.state_bytes {
                self.journal_state();
            }
        }
        // What is only not removed yet is no reason to write anything again.
        if !self.journal.has_garbage {
            self.compact();
        }
        let is_empty = self.journal.tail.is_empty() && self.journal.past.is_empty();
        if is_empty && !self.has_commit() {
            return None;
        }
        let cut = self.journal.cuts.pop_front();
        let cut = cut.unwrap_or_else(|| self.journal.end_here());
        let mut put = Vec::new();
        let mut put_bytes = 0;
        for (seq, bytes) in self.journal.past.take(cut.past) {
            self.history.put(seq, bytes.len() as u64);
            put_bytes += bytes.len();
            put.push((Log::History, seq, bytes));
        }
        for (seq, bytes) in self.journal.tail.take(cut.tail) {
            put_bytes += bytes.len();
            self.journal.pages.entry(seq).or_default().bytes = bytes.len() as u64;
            put.push((Log::Journal, seq, bytes));
        }
        self.journal.page_bytes += journal_bytes(&put);
        // As much as it puts, or the garbage would grow.
        let journal_from = self.remove_front(cut, COMMIT_BYTES.max(put_bytes) as u64);
        self.journal.has_expired = expires;
        let history_from = self.history.first().unwrap_or(self.journal.past.next());
        let id = CommitId(self.journal.next_commit);
        self.journal.next_commit += 1;
        self.journal.taken = cut.through;
        self.journal
            .in_flight
            .push_back((id, cut.through, cut.tail, cut.past));
        Some(Commit {
            id,
            through: cut.through,
            put,
            journal_from,
            history_from,
        })
    }

    /// Whether there is another commit to be taken at once.
    pub fn has_commit(&self) -> bool {
        let journal = &self.journal;
        !journal.cuts.is_empty() || journal.has_garbage || journal.has_expired
    }

    /// Forgets pages that are not needed any more, so many bytes of them at once; gives the
    /// first one that is left.
    fn remove_front(&mut self, cut: Cut, bytes_max: u64) -> PageSeq {
        let needed = if mutation::is(Mutation::TruncateTooEarly) {
            cut.needed.next().min(cut.tail)
        } else if mutation::is(Mutation::NeverTruncate) {
            PageSeq::FIRST
        } else {
            cut.needed
        };
        let mut bytes = 0;
        let front = self.journal.pages.range(..needed);
        let more = front.into_iter().find(|(_, page)| {
            let is_enough = bytes >= bytes_max;
            bytes += page.bytes;
            is_enough
        });
        let from = more.map_or(needed, |(seq, _)| *seq);
        self.journal.has_garbage = from < needed;
        let kept = self.journal.pages.split_off(&from);
        let gone: u64 = self.journal.pages.values().map(|page| page.bytes).sum();
        self.journal.pages = kept;
        self.journal.page_bytes = self.journal.page_bytes.saturating_sub(gone);
        from
    }

    /// Writes live records of the oldest page again when there is too much garbage.
    fn compact(&mut self) {
        // Pages go from the front: an old record about no job would hold them all.
        if self.rewrite_old_jobs() && self.journal.state_home < self.journal.tail.first_new() {
            self.journal_state();
        }
    }

    /// Whether it wrote any.
    fn rewrite_old_jobs(&mut self) -> bool {
        let mut step = 0;
        while step < COMPACT_BYTES_STEP {
            let ratio = u64::from(self.options.journal_garbage_ratio.max(2));
            let held = self.journal.page_bytes;
            if held < self.options.journal_garbage_bytes_min
                || held / ratio < self.journal.live_bytes
            {
                return step > 0;
            }
            let oldest = self.journal.pages.iter().find(|(_, page)| page.live > 0);
            let Some((&home, page)) = oldest else {
                return step > 0;
            };
            // What this very commit writes is not written again.
            if home >= self.journal.tail.first_new() {
                return step > 0;
            }
            let jobs: Vec<JobNo> = page
                .jobs
                .iter()
                .copied()
                .filter(|no| self.jobs.job(*no).is_some_and(|job| job.home == home))
                .collect();
            for no in jobs {
                let Some(payload) = self.payload(no) else {
                    self.read_for_compaction(home);
                    return step > 0;
                };
                step += payload.len() + 64;
                if mutation::is(Mutation::CompactionDropsRecord)
                    && let Some(job) = self.jobs.job_mut(no)
                {
                    let bytes = std::mem::take(&mut job.bytes);
                    self.journal.unsettle(home, bytes);
                    continue;
                }
                self.journal_job(no, &payload, false);
            }
        }
        step > 0
    }

    pub(super) fn handle_committed(&mut self, commit: CommitId, now: Timestamp) {
        while let Some(&(id, through, journal, past)) = self.journal.in_flight.front() {
            if id > commit {
                break;
            }
            self.journal.in_flight.pop_front();
            self.journal.durable = through;
            self.journal.tail.confirm(journal);
            self.journal.past.confirm(past);
            self.journal.commits += 1;
        }
        if self.journal.trouble.take().is_some() {
            self.publish_state(now, "the journal can be written again".to_owned());
        }
    }

    pub(super) fn handle_commit_failed(
        &mut self,
        _commit: CommitId,
        fault: StoreFault,
        now: Timestamp,
    ) {
        let reason = match fault {
            StoreFault::Full(text) => format!("the journal's disk is full: {text}"),
            StoreFault::Unavailable(text) => format!("the journal cannot be written: {text}"),
            StoreFault::Broken(text) => format!("the journal is damaged: {text}"),
        };
        self.count("commits_failed", 1);
        if self.journal.trouble.as_ref() != Some(&reason) {
            self.journal.trouble = Some(reason.clone());
            self.publish_state(now, reason);
        }
    }
}
