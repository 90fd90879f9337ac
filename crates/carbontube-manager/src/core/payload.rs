//! Instructions: a bounded cache in front of the pages that hold them, and the reads
//! that are under way.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use carbontube_protocol::message::AttemptResult;
use carbontube_protocol::{JobId, Timestamp, WorkerId};
use carbontube_storage::{Log, PageSeq};

use super::job::JobNo;
use super::machine::Core;
use super::pages::Joiner;
use super::record::{self, Record};
use super::search::SearchStep;
use super::{ClientId, Effect, RecordSeq, StoreFault};

/// What waits for a page.
#[derive(Debug)]
pub(super) enum Reason {
    /// The page's jobs are to be dispatched or rewritten: being in the cache is enough.
    Cache,
    /// A result without instructions ends the job that keeps them.
    Result {
        worker: WorkerId,
        route: u16,
        result: Box<AttemptResult>,
    },
    /// A client asked for all about a job.
    Detail {
        client: ClientId,
        request: u64,
        id: JobId,
    },
    /// A client waits for jobs that had ended before.
    Ended {
        client: ClientId,
        request: u64,
        ids: Vec<JobId>,
        /// Whether it is one of the reads that others wait for.
        counted: bool,
    },
    /// A search looks at instructions.
    Search(Box<SearchStep>),
}

#[derive(Debug, Default)]
pub(super) struct Payloads {
    cache: BTreeMap<JobNo, Bytes>,
    bytes: usize,
    bytes_max: usize,
    pub(super) reads: BTreeMap<(Log, PageSeq), Read>,
    /// The page asked for, and the first page of the record that it belongs to.
    asked: BTreeMap<(Log, PageSeq), PageSeq>,
    failed: BTreeSet<(Log, PageSeq)>,
    /// Pages that are damaged: nobody waits for them.
    damaged: BTreeSet<(Log, PageSeq)>,
    /// What was read is kept until it could be dispatched.
    is_fresh: bool,
    /// The page that is read to be written again.
    compacting: Option<PageSeq>,
}

#[derive(Debug, Default)]
pub(super) struct Read {
    reasons: Vec<Reason>,
    joiner: Joiner,
}

impl Payloads {
    pub(super) fn new(bytes_max: usize) -> Self {
        Payloads {
            bytes_max,
            ..Payloads::default()
        }
    }

    pub(super) fn forget(&mut self, no: JobNo) {
        if let Some(bytes) = self.cache.remove(&no) {
            self.bytes -= bytes.len();
        }
    }

    /// Keeps a new job's payload if there is room: jobs leave in the order of arrival,
    /// so the newest are needed last.
    pub(super) fn offer(&mut self, no: JobNo, bytes: Bytes) {
        self.forget(no);
        if self.bytes + bytes.len() <= self.bytes_max {
            self.put(no, bytes);
        }
    }

    /// Keeps a payload that was read because it is needed now.
    fn put(&mut self, no: JobNo, bytes: Bytes) {
        self.forget(no);
        self.bytes += bytes.len();
        self.cache.insert(no, bytes);
    }

    fn make_room(&mut self) {
        while self.bytes > self.bytes_max {
            let Some((_, bytes)) = self.cache.pop_last() else {
                return;
            };
            self.bytes -= bytes.len();
        }
    }

    pub(super) fn cached(&self, no: JobNo) -> Option<Bytes> {
        self.cache.get(&no).cloned()
    }

    /// What was read had its turn.
    pub(super) fn age(&mut self) {
        self.is_fresh = false;
    }

    pub(super) fn is_damaged(&self, log: Log, page: PageSeq) -> bool {
        self.damaged.contains(&(log, page))
    }

    pub(super) fn is_reading(&self, log: Log, page: PageSeq) -> bool {
        self.reads.contains_key(&(log, page))
    }
}

impl Core {
    /// A live job's instructions, if they are in memory.
    pub(super) fn payload(&self, no: JobNo) -> Option<Bytes> {
        if let Some(bytes) = self.payloads.cached(no) {
            return Some(bytes);
        }
        let job = self.jobs.job(no)?;
        let id = job.id.clone();
        let mut joiner = Joiner::default();
        let mut seq = job.home;
        // Not durable yet: the page stands in memory.
        while let Some(page) = self.journal.tail.page(seq) {
            let (_, records) = joiner.page(seq, &page).ok()?;
            let found = records
                .iter()
                .rev()
                .find_map(|bytes| job_payload(bytes, &id));
            if found.is_some() {
                return found;
            }
            if !joiner.is_waiting() {
                return None;
            }
            seq = seq.next();
        }
        None
    }

    /// Asks for a page; the reason is served when it is there.
    pub(super) fn read_page(&mut self, log: Log, page: PageSeq, reason: Reason) {
        let new = !self.payloads.is_reading(log, page);
        let read = self.payloads.reads.entry((log, page)).or_default();
        let cache = matches!(reason, Reason::Cache);
        if !cache || !read.reasons.iter().any(|r| matches!(r, Reason::Cache)) {
            read.reasons.push(reason);
        }
        if new {
            self.ask(log, page, page);
        }
    }

    pub(super) fn read_for_compaction(&mut self, page: PageSeq) {
        self.payloads.compacting = Some(page);
        self.read_page(Log::Journal, page, Reason::Cache);
    }

    fn ask(&mut self, log: Log, home: PageSeq, page: PageSeq) {
        self.payloads.asked.insert((log, page), home);
        // A page is read only after it is durable, but need not wait for anything else.
        self.effect(RecordSeq(0), Effect::ReadPage { log, page });
    }

    /// Asks again for the pages whose reads failed.
    pub(super) fn retry_reads(&mut self) {
        for (log, page) in std::mem::take(&mut self.payloads.failed) {
            if let Some(home) = self.payloads.asked.get(&(log, page)).copied() {
                self.ask(log, home, page);
            }
        }
    }

    pub(super) fn handle_page_read(
        &mut self,
        log: Log,
        page: PageSeq,
        bytes: Result<Option<Bytes>, StoreFault>,
        now: Timestamp,
    ) {
        let bytes = match bytes {
            Ok(bytes) => bytes.filter(|bytes| !bytes.is_empty()),
            Err(fault) => {
                self.count("page_reads_failed", 1);
                self.payloads.failed.insert((log, page));
                let home = self.payloads.asked.get(&(log, page)).copied();
                let read = home.and_then(|home| self.payloads.reads.get_mut(&(log, home)));
                for reason in read.into_iter().flat_map(|read| &mut read.reasons) {
                    if let Reason::Ended { counted, .. } = reason
                        && std::mem::take(counted)
                    {
                        self.waits.read_ended();
                    }
                }
                if let (StoreFault::Broken(_), Some(home)) = (fault, home) {
                    self.payloads.damaged.insert((log, home));
                }
                self.wake_at(now + std::time::Duration::from_secs(1));
                return;
            }
        };
        let Some(home) = self.payloads.asked.remove(&(log, page)) else {
            return;
        };
        let Some(read) = self.payloads.reads.get_mut(&(log, home)) else {
            return;
        };
        let records = match &bytes {
            Some(bytes) => match read.joiner.page(page, bytes) {
                Ok((_, records)) => records,
                Err(_) => Vec::new(),
            },
            None => Vec::new(),
        };
        if bytes.is_some() && read.joiner.is_waiting() {
            self.ask(log, home, page.next());
            return;
        }
        let reasons = std::mem::take(&mut read.reasons);
        self.payloads.reads.remove(&(log, home));
        self.payloads.damaged.remove(&(log, home));
        match log {
            Log::Journal => self.journal_page_read(home, &records, &reasons, now),
            Log::History => {}
        }
        for reason in reasons {
            match reason {
                Reason::Cache => {}
                Reason::Result {
                    worker,
                    route,
                    result,
                } => self.handle_result_read(worker, route, *result, home, now),
                Reason::Detail {
                    client,
                    request,
                    id,
                } => self.answer_detail(client, request, &id, &records),
                Reason::Ended {
                    client,
                    request,
                    ids,
                    counted,
                } => {
                    if counted {
                        self.waits.read_ended();
                    }
                    self.past_read(client, request, ids, &records);
                }
                Reason::Search(step) => self.search_on(step, Some(&records)),
            }
        }
    }

    fn journal_page_read(
        &mut self,
        home: PageSeq,
        records: &[Bytes],
        reasons: &[Reason],
        now: Timestamp,
    ) {
        // What is read stays until it could be dispatched at least, whatever else is read
        // meanwhile, or it could be read for ever.
        if !std::mem::replace(&mut self.payloads.is_fresh, true) {
            self.payloads.make_room();
        }
        let all = self.payloads.compacting.take_if(|page| *page == home);
        // Even what waits for no worker: a late result may end it.
        let has_result = |job: &JobId| {
            let mut reasons = reasons.iter();
            reasons
                .any(|reason| matches!(reason, Reason::Result { result, .. } if result.job == *job))
        };
        for bytes in records {
            if let Ok((record, payload)) = record::decode::<Record>(bytes)
                && let Some(record) = record.into_job()
                && let Some(no) = self.jobs.no(&record.change.id)
                && self.jobs.job(no).is_some_and(|job| {
                    let is_needed = !job.waits_for_no_worker() || has_result(&job.id);
                    job.home == home && (all.is_some() || is_needed)
                })
            {
                self.payloads.put(no, Core::payload_copy(&payload));
            }
        }
        // What should be there and is not was lost with its page: the job cannot run.
        let jobs = self.journal.pages.get(&home).map(|page| page.jobs.clone());
        let held: BTreeSet<JobId> = records
            .iter()
            .filter_map(|bytes| record::decode::<Record>(bytes).ok()?.0.into_job())
            .map(|record| record.change.id)
            .collect();
        for no in jobs.unwrap_or_default() {
            let job = self.jobs.job(no).filter(|job| job.home == home);
            if job.is_some_and(|job| !held.contains(&job.id)) {
                self.fail_without_payload(no, now);
            }
        }
    }
}

/// The payload of a record, if that is all about this job.
pub(super) fn job_payload(bytes: &Bytes, id: &JobId) -> Option<Bytes> {
    let (record, payload) = record::decode::<Record>(bytes).ok()?;
    (record.into_job()?.change.id == *id).then_some(payload)
}
