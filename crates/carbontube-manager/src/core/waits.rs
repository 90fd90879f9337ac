//! Clients that wait for jobs to end.
//!
//! A few bytes ask for megabytes: what jobs that ended long ago have to tell is looked up,
//! and told, piece by piece, a turn for each client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{Code, Ended, EndedJob, ErrorReport, JobState, Refusal, Wait};
use carbontube_protocol::{JobId, Timestamp};
use carbontube_storage::{Log, PageSeq};

use super::job::JobNo;
use super::machine::Core;
use super::payload::Reason;
use super::record::{self, PastRecord};
use super::{ClientId, RecordSeq};

/// The most bytes that are told at once, but for a single job that has more.
const PIECE_BYTES: usize = 1 << 20;
/// The pause before the next piece.
const PIECE_PAUSE: Duration = Duration::from_millis(5);
/// The most pages that are read at once for those who wait.
const READS_MAX: usize = 16;
/// What a job without result and error counts, in bytes.
const TOLD_BYTES: usize = 256;

/// Who waits for which jobs.
#[derive(Debug, Default)]
pub(super) struct Waits {
    by_job: BTreeMap<JobId, BTreeSet<(ClientId, u64)>>,
    by_client: BTreeMap<ClientId, BTreeSet<(JobId, u64)>>,
    /// The jobs that were asked for and not told of, of each client and of all.
    counts: BTreeMap<ClientId, usize>,
    pub(super) total: usize,
    /// Jobs that have ended, to be looked up.
    asked: BTreeMap<ClientId, VecDeque<Asked>>,
    /// What is to be told.
    ended: BTreeMap<(ClientId, u64), (RecordSeq, VecDeque<Told>)>,
    /// How many bytes that is.
    ended_bytes: usize,
    /// Whose turn it was last.
    asked_last: Option<ClientId>,
    told_last: Option<(ClientId, u64)>,
    /// The pages that are being read.
    reads: usize,
    /// How many bytes may still be told before the next piece, and when that begins.
    left: usize,
    next_piece: Timestamp,
    /// The network has not taken yet what was told.
    is_held: bool,
    refused: u64,
}

/// Ended jobs that a client asked for: those of one page of the history, or any others.
#[derive(Debug)]
struct Asked {
    request: u64,
    page: Option<PageSeq>,
    ids: Vec<JobId>,
}

#[derive(Debug)]
struct Told {
    id: JobId,
    state: Option<JobState>,
    /// Shared by all who wait for the job.
    error: Option<Arc<ErrorReport>>,
    result: Bytes,
}

impl Told {
    fn bytes(&self) -> usize {
        let error = self.error.as_ref();
        let error = error.map_or(0, |error| error.message.len() + error.detail.len());
        self.result.len() + error + TOLD_BYTES
    }
}

impl Waits {
    fn may_look_up(&self) -> bool {
        self.reads < READS_MAX && !self.asked.is_empty()
    }

    /// When the next piece is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        (!self.ended.is_empty() || self.may_look_up()).then_some(self.next_piece)
    }

    /// Whether all that is known was told.
    pub(super) fn is_told(&self) -> bool {
        self.ended.is_empty()
    }

    /// One job less is waited for by the client; false when it is gone.
    fn uncount(&mut self, client: ClientId) -> bool {
        let Some(count) = self.counts.get_mut(&client) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&client);
        }
        self.total = self.total.saturating_sub(1);
        true
    }

    /// A page that was asked for came, or cannot be read for now.
    pub(super) fn read_ended(&mut self) {
        self.reads = self.reads.saturating_sub(1);
    }
}

impl Core {
    /// Waits that were refused since the start.
    pub fn waits_refused(&self) -> u64 {
        self.waits.refused
    }

    /// Whether to tell nothing more to those who wait, as the network has to send first
    /// what they were told.
    pub fn hold_waits(&mut self, hold: bool) {
        self.waits.is_held = hold;
    }

    pub(super) fn handle_wait(&mut self, client: ClientId, request: Wait) {
        let number = request.request;
        let refusal = |code, message| Refusal {
            request: Some(number),
            code,
            message,
        };
        if request.pipeline != *self.definition.name() {
            self.waits.refused += 1;
            let message = self.other_pipeline(&request.pipeline);
            let refusal = refusal(Code::UnknownPipeline, message);
            return self.answer_client(RecordSeq(0), client, refusal.into());
        }
        let ids: BTreeSet<JobId> = request.ids.into_iter().collect();
        let (client_max, all_max) = self.options.waits_max;
        let held = self.waits.counts.get(&client).copied().unwrap_or(0);
        if held + ids.len() > client_max || self.waits.total + ids.len() > all_max {
            self.waits.refused += 1;
            let message = format!(
                "a client may wait for {client_max} jobs and all together for {all_max}; this \
                 would be more"
            );
            let refusal = refusal(Code::Busy, message);
            return self.answer_client(RecordSeq(0), client, refusal.into());
        }
        let mut pages: BTreeMap<Option<PageSeq>, Vec<JobId>> = BTreeMap::new();
        for id in ids {
            let state = self.state_of(&id);
            if state.is_some_and(|state| !state.is_terminal()) {
                self.wait_on(client, number, id, true);
                continue;
            }
            let is_live = self.jobs.no(&id).is_some();
            let entry = self.history.entry(&id).filter(|_| !is_live);
            let page = entry.map(|entry| entry.page);
            pages.entry(page).or_default().push(id);
            *self.waits.counts.entry(client).or_default() += 1;
            self.waits.total += 1;
        }
        let asked = pages.into_iter().map(|(page, ids)| Asked {
            request: number,
            page,
            ids,
        });
        let mut asked = asked.peekable();
        if asked.peek().is_some() {
            self.waits.asked.entry(client).or_default().extend(asked);
        }
    }

    /// The client is told when the job ends.
    fn wait_on(&mut self, client: ClientId, request: u64, id: JobId, count: bool) {
        let waits = self.waits.by_client.entry(client).or_default();
        let new = waits.insert((id.clone(), request));
        if new {
            let waits = self.waits.by_job.entry(id).or_default();
            waits.insert((client, request));
        }
        match (new, count) {
            (true, true) => {
                *self.waits.counts.entry(client).or_default() += 1;
                self.waits.total += 1;
            }
            (false, false) => {
                self.waits.uncount(client);
            }
            _ => {}
        }
    }

    /// Looks up some of what a client asked for, each client in its turn. False when there
    /// is nothing to look up now.
    fn look_up(&mut self) -> bool {
        if !self.waits.may_look_up() {
            return false;
        }
        let from = self.waits.asked_last.map_or(Unbounded, Excluded);
        let mut later = self.waits.asked.range((from, Unbounded));
        let next = later.next().or_else(|| self.waits.asked.iter().next());
        let Some(client) = next.map(|(client, _)| *client) else {
            return false;
        };
        self.waits.asked_last = Some(client);
        let Some(all) = self.waits.asked.get_mut(&client) else {
            return false;
        };
        let single = match all.front_mut() {
            Some(Asked {
                request,
                page: None,
                ids,
            }) => ids.pop().map(|id| (*request, id)),
            _ => None,
        };
        let whole = match (&single, all.front()) {
            (None, _) => all.pop_front(),
            (Some(_), Some(asked)) if asked.ids.is_empty() => {
                all.pop_front();
                None
            }
            _ => None,
        };
        if all.is_empty() {
            self.waits.asked.remove(&client);
        }
        if let Some((request, id)) = single {
            self.answer_one(client, request, id);
        } else if let Some(Asked {
            request,
            page: Some(page),
            ids,
        }) = whole
        {
            let records = self.past_in_memory(page);
            if !records.is_empty() {
                self.past_read(client, request, ids, &records);
                return true;
            }
            // Nobody else waits for a page that cannot be read.
            let counted = !self.payloads.is_damaged(Log::History, page);
            self.waits.reads += usize::from(counted);
            let reason = Reason::Ended {
                client,
                request,
                ids,
                counted,
            };
            self.read_page(Log::History, page, reason);
        }
        true
    }

    /// Tells of a job that stands in no page, as far as was known when it was asked for.
    fn answer_one(&mut self, client: ClientId, request: u64, id: JobId) {
        match self.state_of(&id) {
            Some(state) if !state.is_terminal() => self.wait_on(client, request, id, false),
            Some(JobState::Failed) if self.jobs.no(&id).is_some() => {
                let error = self.jobs.no(&id).and_then(|no| self.error_of(no));
                let state = Some(JobState::Failed);
                self.tell_client(
                    client,
                    request,
                    id,
                    state,
                    error.map(Arc::new),
                    Bytes::new(),
                );
            }
            None => self.tell_client(client, request, id, None, None, Bytes::new()),
            Some(_) => {
                let page = self.history.entry(&id).map(|entry| entry.page);
                let ids = vec![id];
                let asked = self.waits.asked.entry(client).or_default();
                asked.push_back(Asked { request, page, ids });
            }
        }
    }

    /// Serves a question about an ended job from memory or from its page.
    pub(super) fn answer_past(&mut self, reason: Reason) {
        let Reason::Detail { id, .. } = &reason else {
            return;
        };
        let Some(home) = self.history.entry(id).map(|entry| entry.page) else {
            return;
        };
        let records = self.past_in_memory(home);
        if records.is_empty() {
            return self.read_page(Log::History, home, reason);
        }
        if let Reason::Detail {
            client,
            request,
            id,
        } = reason
        {
            self.answer_detail(client, request, &id, &records);
        }
    }

    /// The records of a page of the history that is not on disk yet.
    pub(super) fn past_in_memory(&self, home: PageSeq) -> Vec<Bytes> {
        let mut joiner = super::pages::Joiner::default();
        let mut seq = home;
        let mut records = Vec::new();
        while let Some(page) = self.journal.past.page(seq) {
            if let Ok((_, found)) = joiner.page(seq, &page) {
                records = found;
            }
            seq = seq.next();
            if !joiner.is_waiting() {
                break;
            }
        }
        records
    }

    /// Tells of the ended jobs that stand in a page: each of its records is looked at once,
    /// however many are asked for.
    pub(super) fn past_read(
        &mut self,
        client: ClientId,
        request: u64,
        ids: Vec<JobId>,
        records: &[Bytes],
    ) {
        let mut wanted: BTreeSet<JobId> = ids.into_iter().collect();
        for bytes in records.iter().rev() {
            if wanted.is_empty() {
                break;
            }
            let Ok((past, result)) = record::decode::<PastRecord>(bytes) else {
                continue;
            };
            // Looking costs about as much as telling.
            let looked = bytes.len() - result.len();
            self.waits.left = self.waits.left.saturating_sub(looked);
            if let Some(id) = wanted.take(&past.id) {
                let state = self.history.entry(&id).map(|entry| entry.state);
                let error = past.failure.map(|failure| Arc::new(failure.error));
                self.tell_client(client, request, id, state, error, result);
            }
        }
        for id in wanted {
            let state = self.history.entry(&id).map(|entry| entry.state);
            self.tell_client(client, request, id, state, None, Bytes::new());
        }
    }

    fn error_of(&self, no: JobNo) -> Option<ErrorReport> {
        let failure = self.jobs.job(no)?.rare.as_ref()?.failure.as_ref()?;
        Some(failure.error.clone())
    }

    /// A dead letter ends the waiting, too.
    pub(super) fn tell_waiting(&mut self, no: JobNo) {
        if let Some(job) = self.jobs.job(no) {
            let id = job.id.clone();
            let error = self.error_of(no);
            self.tell_ended(&id, Some(JobState::Failed), error, Bytes::new());
        }
    }

    pub(super) fn tell_ended(
        &mut self,
        id: &JobId,
        state: Option<JobState>,
        error: Option<ErrorReport>,
        result: Bytes,
    ) {
        let waiting = self.waits.by_job.remove(id).unwrap_or_default();
        let error = error.map(Arc::new);
        for (client, request) in waiting {
            if mutation::is(Mutation::LoseWait) {
                continue;
            }
            if let Some(waits) = self.waits.by_client.get_mut(&client) {
                waits.remove(&(id.clone(), request));
                if waits.is_empty() {
                    self.waits.by_client.remove(&client);
                }
            }
            let (error, result) = (error.clone(), result.clone());
            self.tell_client(client, request, id.clone(), state, error, result);
        }
    }

    fn tell_client(
        &mut self,
        client: ClientId,
        request: u64,
        id: JobId,
        state: Option<JobState>,
        error: Option<Arc<ErrorReport>>,
        result: Bytes,
    ) {
        if !self.waits.counts.contains_key(&client) {
            return;
        }
        let last = self.journal.last;
        let told = Told {
            id,
            state,
            error,
            result,
        };
        self.waits.ended_bytes += told.bytes();
        let (after, jobs) = self.waits.ended.entry((client, request)).or_default();
        *after = last;
        jobs.push_back(told);
    }

    /// Tells a piece of what is to be told.
    pub(super) fn send_ended(&mut self, now: Timestamp) {
        if self.waits.next().is_none() {
            return;
        }
        if self.waits.next_piece <= now {
            self.waits.left = PIECE_BYTES;
            self.waits.next_piece = now + PIECE_PAUSE;
        }
        while self.waits.left > 0 && !self.waits.is_held {
            // A whole piece is found before it is told: in few messages, as each takes a
            // place in what may wait for a client.
            let mut found = false;
            while self.waits.ended_bytes < self.waits.left && self.look_up() {
                found = true;
            }
            if !self.tell_next() && !found {
                return;
            }
        }
    }

    /// Tells the next client in turn as much as fits. False when there is nothing to tell.
    fn tell_next(&mut self) -> bool {
        let limits = &self.options.limits;
        let jobs_max = limits.batch_jobs_max.clamp(1, 1024);
        let bytes_max = limits.message_bytes_max.min(4 << 20);
        let from = self.waits.told_last.map_or(Unbounded, Excluded);
        let mut later = self.waits.ended.range((from, Unbounded));
        let next = later.next().or_else(|| self.waits.ended.iter().next());
        let Some(key) = next.map(|(key, _)| *key) else {
            return false;
        };
        self.waits.told_last = Some(key);
        let (client, request) = key;
        let Some((after, ended)) = self.waits.ended.get_mut(&key) else {
            return false;
        };
        let after = *after;
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while let Some(job) = ended.front()
            && (jobs.is_empty()
                || jobs.len() < jobs_max
                    && bytes + job.bytes() <= bytes_max
                    && bytes < self.waits.left)
            && let Some(job) = ended.pop_front()
        {
            bytes += job.bytes();
            jobs.push(EndedJob {
                id: job.id,
                state: job.state,
                error: job.error.map(Arc::unwrap_or_clone),
                result: job.result,
            });
        }
        if ended.is_empty() {
            self.waits.ended.remove(&key);
        }
        self.waits.left = self.waits.left.saturating_sub(bytes);
        self.waits.ended_bytes = self.waits.ended_bytes.saturating_sub(bytes);
        for _ in &jobs {
            self.waits.uncount(client);
        }
        self.answer_client(after, client, Ended { request, jobs }.into());
        true
    }

    pub(super) fn forget_client(&mut self, client: ClientId) {
        let count = self.waits.counts.remove(&client).unwrap_or(0);
        self.waits.total = self.waits.total.saturating_sub(count);
        self.waits.asked.remove(&client);
        let all = (client, 0)..=(client, u64::MAX);
        let keys: Vec<_> = self.waits.ended.range(all).map(|(key, _)| *key).collect();
        for (_, ended) in keys.iter().filter_map(|key| self.waits.ended.remove(key)) {
            let bytes: usize = ended.iter().map(Told::bytes).sum();
            self.waits.ended_bytes = self.waits.ended_bytes.saturating_sub(bytes);
        }
        for (id, request) in self.waits.by_client.remove(&client).unwrap_or_default() {
            if let Some(waits) = self.waits.by_job.get_mut(&id) {
                waits.remove(&(client, request));
                if waits.is_empty() {
                    self.waits.by_job.remove(&id);
                }
            }
        }
    }
}

pub(super) fn find_past(records: &[Bytes], id: &JobId) -> Option<(PastRecord, Bytes)> {
    let past = |bytes| record::decode::<PastRecord>(bytes).ok();
    let mut found = records.iter().rev().filter_map(past);
    found.find(|(past, _)| past.id == *id)
}
