//! Clients that wait for jobs to end.

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::JobId;
use carbontube_protocol::message::{Code, Ended, EndedJob, ErrorReport, JobState, Refusal, Wait};
use carbontube_storage::{Log, PageSeq};

use super::job::JobNo;
use super::machine::Core;
use super::payload::Reason;
use super::record::{self, PastRecord};
use super::{ClientId, RecordSeq};

impl Core {
    pub(super) fn handle_wait(&mut self, client: ClientId, request: Wait) {
        let number = request.request;
        let refusal = |code, message| Refusal {
            request: Some(number),
            code,
            message,
        };
        if request.pipeline != *self.definition.name() {
            let message = self.other_pipeline(&request.pipeline);
            let refusal = refusal(Code::UnknownPipeline, message);
            return self.answer_client(RecordSeq(0), client, refusal.into());
        }
        let (client_max, all_max) = self.options.waits_max;
        let held = self.waits.by_client.get(&client).map_or(0, |set| set.len());
        if held + request.ids.len() > client_max || self.waits.total + request.ids.len() > all_max {
            let message = format!(
                "a client may wait for {client_max} jobs and all together for {all_max}; this \
                 would be more"
            );
            let refusal = refusal(Code::Busy, message);
            return self.answer_client(RecordSeq(0), client, refusal.into());
        }
        for id in request.ids {
            match self.state_of(&id) {
                None => self.tell_client(client, number, id, None, None, Bytes::new()),
                Some(state) if !state.is_terminal() => {
                    let new = self
                        .waits
                        .by_client
                        .entry(client)
                        .or_default()
                        .insert((id.clone(), number));
                    if new {
                        self.waits.total += 1;
                        let waits = self.waits.by_job.entry(id).or_default();
                        waits.insert((client, number));
                    }
                }
                Some(JobState::Failed) if self.jobs.no(&id).is_some() => {
                    let no = self.jobs.no(&id);
                    let error = no.and_then(|no| self.error_of(no));
                    let state = Some(JobState::Failed);
                    self.tell_client(client, number, id, state, error, Bytes::new());
                }
                Some(_) => self.answer_past(Reason::Ended {
                    client,
                    request: number,
                    id,
                }),
            }
        }
    }

    /// Serves a question about an ended job from memory or from its page.
    pub(super) fn answer_past(&mut self, reason: Reason) {
        let (Reason::Ended { id, .. } | Reason::Detail { id, .. }) = &reason else {
            return;
        };
        let Some(home) = self.history.entry(id).map(|entry| entry.page) else {
            return;
        };
        let records = self.past_in_memory(home);
        if records.is_empty() {
            return self.read_page(Log::History, home, reason);
        }
        match reason {
            Reason::Ended {
                client,
                request,
                id,
            } => self.past_read(client, request, &id, &records),
            Reason::Detail {
                client,
                request,
                id,
            } => self.answer_detail(client, request, &id, &records),
            Reason::Cache | Reason::Result { .. } | Reason::Search(_) => {}
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

    pub(super) fn past_read(
        &mut self,
        client: ClientId,
        request: u64,
        id: &JobId,
        records: &[Bytes],
    ) {
        let state = self.history.entry(id).map(|entry| entry.state);
        let (error, result) = match find_past(records, id) {
            Some((past, result)) => (past.failure.map(|failure| failure.error), result),
            None => (None, Bytes::new()),
        };
        self.tell_client(client, request, id.clone(), state, error, result);
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
            self.waits.total = self.waits.total.saturating_sub(1);
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
        error: Option<ErrorReport>,
        result: Bytes,
    ) {
        let last = self.journal.last;
        let (after, jobs) = self.waits.ended.entry((client, request)).or_default();
        *after = last;
        jobs.push(EndedJob {
            id,
            state,
            error,
            result,
        });
    }

    pub(super) fn send_ended(&mut self) {
        let limits = &self.options.limits;
        let jobs_max = limits.batch_jobs_max.clamp(1, 1024);
        let bytes_max = limits.message_bytes_max.min(4 << 20);
        for ((client, request), (after, ended)) in std::mem::take(&mut self.waits.ended) {
            let mut jobs = Vec::new();
            let mut bytes = 0;
            for job in ended {
                let detail = job
                    .error
                    .as_ref()
                    .map_or(0, |e| e.message.len() + e.detail.len());
                let size = job.result.len() + detail + 256;
                if !jobs.is_empty() && (jobs.len() == jobs_max || bytes + size > bytes_max) {
                    let jobs = std::mem::take(&mut jobs);
                    self.answer_client(after, client, Ended { request, jobs }.into());
                    bytes = 0;
                }
                bytes += size;
                jobs.push(job);
            }
            self.answer_client(after, client, Ended { request, jobs }.into());
        }
    }

    pub(super) fn forget_client(&mut self, client: ClientId) {
        for (id, request) in self.waits.by_client.remove(&client).unwrap_or_default() {
            self.waits.total = self.waits.total.saturating_sub(1);
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
