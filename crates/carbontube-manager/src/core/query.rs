//! Answers to questions: what clients and people see.

use bytes::Bytes;
use carbontube_protocol::message::{
    Answer, Code, Drain, JobDetail, JobFilter, JobState, JobView, JournalView, ManagerInfo,
    Message, PhaseStats, Query, QueryAnswer, QueryRequest, Recent, Refusal, Stats, WorkerStatus,
    WorkerView,
};
use carbontube_protocol::{JobId, JobType, Timestamp, WorkerId};
use carbontube_storage::{Log, PageSeq};

use super::cause::Cause;
use super::changes::Verb;
use super::history::Entry;
use super::job::{Job, JobNo};
use super::machine::Core;
use super::payload::{Reason, job_payload};
use super::waits::find_past;
use super::{ClientId, Effect, PipeId, RecordSeq};

/// How many jobs one list query looks at; a rare match is found over several pages.
const LOOKED_AT_MAX: usize = 200_000;
/// How large a list becomes, well below what a message may have.
const LIST_BYTES_MAX: usize = 2 << 20;

impl Core {
    pub(super) fn handle_query(&mut self, client: ClientId, request: QueryRequest, now: Timestamp) {
        let number = request.request;
        let at_once = RecordSeq(0);
        let (after, answer) = match request.query {
            Query::Info => (at_once, Answer::Info(self.info())),
            Query::Stats => (at_once, Answer::Stats(self.stats(now))),
            Query::Workers => (at_once, Answer::Workers(self.worker_views())),
            Query::Jobs {
                filter,
                after,
                limit,
            } => (at_once, self.list(&filter, after.as_deref(), limit)),
            Query::Job { id } => return self.query_job(client, number, id),
            Query::Retry { selector } => {
                return self.begin_change(client, number, (Verb::Retry, selector), now);
            }
            Query::Cancel { selector } => {
                return self.begin_change(client, number, (Verb::Cancel, selector), now);
            }
            Query::Discard { selector } => {
                return self.begin_change(client, number, (Verb::Discard, selector), now);
            }
            Query::Pause { phase } => match self.set_paused(phase.as_ref(), true, now) {
                Some(answer) => (self.journal.last, answer),
                None => return self.refuse_phase(client, number, phase.as_ref()),
            },
            Query::Resume { phase } => match self.set_paused(phase.as_ref(), false, now) {
                Some(answer) => (self.journal.last, answer),
                None => return self.refuse_phase(client, number, phase.as_ref()),
            },
            Query::Drain { worker: None } => {
                self.drain(now);
                (at_once, changed(1, 0))
            }
            Query::Drain { worker: Some(id) } => {
                if !self.drain_worker(id, now) {
                    let message = format!("no worker {id} is known");
                    return self.refuse(client, number, Code::UnknownWorker, message);
                }
                (at_once, changed(1, 0))
            }
            Query::Series {
                step,
                since,
                points,
            } => (
                at_once,
                Answer::Series(Box::new(self.series_view(step, since, points))),
            ),
            Query::Latencies => (at_once, Answer::Latencies(self.latencies_view())),
            Query::Search {
                search,
                after,
                limit,
            } => match self.search(client, number, search, after.as_deref(), limit) {
                Ok(()) => return,
                Err(message) => return self.refuse(client, number, Code::Malformed, message),
            },
            Query::Failures => (at_once, Answer::Failures(self.failure_groups())),
            // The core keeps no events: whoever carries the answer out adds those after.
            Query::Recent { after } => {
                let next = Some(after);
                let events = Vec::new();
                (at_once, Answer::Recent(Recent { events, next }))
            }
        };
        self.answer(after, client, number, answer);
    }

    pub(super) fn answer(
        &mut self,
        after: RecordSeq,
        client: ClientId,
        request: u64,
        answer: Answer,
    ) {
        let message = Message::Answer(QueryAnswer { request, answer });
        self.answer_client(after, client, message);
    }

    pub(super) fn refuse(&mut self, client: ClientId, request: u64, code: Code, message: String) {
        let refusal = Refusal {
            request: Some(request),
            code,
            message,
        };
        self.answer_client(RecordSeq(0), client, refusal.into());
    }

    fn refuse_phase(&mut self, client: ClientId, request: u64, phase: Option<&JobType>) {
        let phase = phase.map_or("", JobType::as_str);
        let message = format!("pipeline {} has no phase {phase}", self.definition.name());
        self.refuse(client, request, Code::UnknownPhase, message);
    }

    /// The addresses and the journal's place are the shell's to fill in.
    fn info(&self) -> ManagerInfo {
        let phases = self.definition.phases();
        ManagerInfo {
            manager: self.manager,
            epoch: self.epoch,
            pipeline: self.definition.name().clone(),
            phases: phases.iter().map(|phase| phase.job_type.clone()).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            state: self.state(),
            pull: Vec::new(),
            subscribe: Vec::new(),
            publish: Vec::new(),
            storage: String::new(),
        }
    }

    fn stats(&self, now: Timestamp) -> Stats {
        let mut phases = Vec::new();
        for (index, definition) in self.definition.phases().iter().enumerate() {
            let counts = self.jobs.counts(index);
            let phase = u16::try_from(index).unwrap_or(u16::MAX);
            let tally = &self.phases[index];
            let takers = || {
                let of_phase = self
                    .workers
                    .table
                    .values()
                    .filter(move |w| w.phase == phase);
                of_phase.filter(|w| self.workers.status(w) == WorkerStatus::Available)
            };
            let oldest = self.jobs.ready(index).first_key_value();
            phases.push(PhaseStats {
                job_type: definition.job_type.clone(),
                paused: self.paused_all || self.paused.contains(&phase),
                enqueued: counts.enqueued,
                scheduled: counts.scheduled,
                running: counts.running,
                failed: counts.failed,
                oldest_at: oldest
                    .and_then(|(_, no)| self.jobs.job(*no))
                    .map(|job| job.changed_at),
                workers: u32::try_from(takers().count()).unwrap_or(u32::MAX),
                slots: takers().fold(0, |sum, worker| sum.saturating_add(worker.slots)),
                done: tally.done,
                failures: tally.failures.iter().map(|(k, n)| (*k, *n)).collect(),
                duration_us: tally.duration_us,
            });
        }
        let failed: u64 = phases.iter().map(|phase| phase.failed).sum();
        let named = |(name, count): (&&'static str, &u64)| ((*name).to_owned(), *count);
        let caused = |(cause, count): (&Cause, &u64)| (cause.as_str().to_owned(), *count);
        Stats {
            at: now,
            pipeline: self.definition.name().clone(),
            state: self.state(),
            live: self.jobs.len() as u64 - failed,
            enqueued: self.totals.enqueued,
            success: self.totals.success,
            failed,
            cancelled: self.totals.cancelled,
            duplicates: self.repeats.duplicates.values().sum(),
            duplicate_causes: self.repeats.duplicates.iter().map(caused).collect(),
            reruns: self.repeats.reruns.values().sum(),
            rerun_causes: self.repeats.reruns.iter().map(caused).collect(),
            phases,
            journal: JournalView {
                pages: self.journal.pages.len() as u64,
                page_bytes: self.journal.page_bytes,
                disk_bytes: 0,
                commits: self.journal.commits,
                records: self.journal.last.0,
                trouble: self.journal.trouble.clone(),
            },
            counters: self.counters.iter().map(named).collect(),
        }
    }

    /// All workers or, if they are more than a message may have, those that live and were
    /// shown to receive before any others: who invents workers hides none.
    fn worker_views(&self) -> Vec<WorkerView> {
        use carbontube_protocol::message::HeldState;
        let view = |(id, worker): (&WorkerId, &super::worker::Worker)| {
            let held = worker.attempts.values();
            let running = held.filter(|held| held.reported == Some(HeldState::Running));
            WorkerView {
                worker: *id,
                job_type: self.job_type(worker.phase).clone(),
                address: worker.address.clone(),
                status: self.workers.status(worker),
                slots: worker.slots,
                held: worker.held(),
                running: u32::try_from(running.count()).unwrap_or(u32::MAX),
                success_count: worker.success_count,
                failed_count: worker.failed_count,
                last_seen_at: worker.last_seen,
                started_at: worker.started_at,
                host: worker.host.clone(),
                pid: worker.pid,
                version: worker.version.clone(),
            }
        };
        let most = self.options.limits.batch_jobs_max;
        let mut listed: Vec<_> = self.workers.table.iter().collect();
        listed.sort_by_key(|(_, worker)| (worker.lost, !self.workers.is_proven(worker)));
        listed.truncate(most);
        let mut bytes = 0;
        let fits = |view: &WorkerView| {
            bytes += 400 + view.host.len() + view.version.len() + view.address.to_string().len();
            bytes <= LIST_BYTES_MAX
        };
        let mut views: Vec<_> = listed.into_iter().map(view).take_while(fits).collect();
        views.sort_by_key(|view| view.worker);
        views
    }

    fn list(&self, filter: &JobFilter, after: Option<&str>, limit: u32) -> Answer {
        let limit = limit.clamp(1, self.options.list_jobs_max.max(1)) as usize;
        let (mut live, mut past) = (Some(0), (PageSeq::FIRST, 0));
        if let Some(after) = after {
            if let Some((page, index)) = after.strip_prefix('h').and_then(|at| at.split_once('-')) {
                live = None;
                past = (
                    PageSeq(page.parse().unwrap_or(u64::MAX)),
                    index.parse().unwrap_or(0),
                );
            } else {
                let no: JobNo = after.parse().unwrap_or(JobNo::MAX);
                live = Some(no);
            }
        }
        let mut jobs: Vec<JobView> = Vec::new();
        let mut looked_at = 0;
        // Errors may be long: a page ends early rather than outgrow a message.
        let mut bytes = 0;
        let size = |view: &JobView| 512 + view.error.as_ref().map_or(0, String::len);
        let full = |jobs: usize, looked_at, bytes| {
            jobs == limit || looked_at == LOOKED_AT_MAX || bytes >= LIST_BYTES_MAX
        };
        if let Some(from) = live {
            for (no, job) in self.jobs.iter_from(from) {
                if full(jobs.len(), looked_at, bytes) {
                    let next = Some(no.to_string());
                    return Answer::Jobs { jobs, next };
                }
                looked_at += 1;
                if self.takes_job(filter, job) {
                    let view = self.view(job);
                    bytes += size(&view);
                    jobs.push(view);
                }
            }
        }
        for (place, id, entry) in self.history.iter_from(past) {
            if full(jobs.len(), looked_at, bytes) {
                let next = Some(format!("h{}-{}", place.0.0, place.1));
                return Answer::Jobs { jobs, next };
            }
            looked_at += 1;
            if self.jobs.no(id).is_none() && self.takes_past(filter, id, entry) {
                let view = self.past_view(id, entry);
                bytes += size(&view);
                jobs.push(view);
            }
        }
        Answer::Jobs { jobs, next: None }
    }

    fn takes(
        &self,
        filter: &JobFilter,
        id: &JobId,
        state: JobState,
        phase: u16,
        error: Option<&str>,
    ) -> bool {
        let contains = |text: &String| {
            error.is_some_and(|error| error.to_lowercase().contains(&text.to_lowercase()))
        };
        filter.state.is_none_or(|wanted| wanted == state)
            && filter
                .phase
                .as_ref()
                .is_none_or(|wanted| Some(phase) == self.phase_of(wanted.as_str()))
            && filter.error.as_ref().is_none_or(contains)
            && filter
                .id_prefix
                .as_ref()
                .is_none_or(|prefix| id.to_string().starts_with(prefix.as_str()))
    }

    pub(super) fn takes_job(&self, filter: &JobFilter, job: &Job) -> bool {
        let failure = job.rare.as_ref().and_then(|rare| rare.failure.as_ref());
        let error = failure.map(|failure| failure.error.message.as_str());
        self.takes(filter, &job.id, job.state, job.phase, error)
    }

    fn takes_past(&self, filter: &JobFilter, id: &JobId, entry: &Entry) -> bool {
        self.takes(filter, id, entry.state, entry.phase, entry.error.as_deref())
    }

    pub(super) fn view(&self, job: &Job) -> JobView {
        let failure = job.rare.as_ref().and_then(|rare| rare.failure.as_ref());
        let begun = job.state == JobState::Running;
        JobView {
            id: job.id.clone(),
            state: job.state,
            job_type: self.job_type(job.phase).clone(),
            phase: job.phase,
            reason: self.reason(job),
            attempt: job.tries + u32::from(begun),
            enqueued_at: job.enqueued_at,
            changed_at: job.changed_at,
            worker: job.attempt.map(|(_, worker)| worker),
            error: failure.map(|failure| failure.error.message.clone()),
        }
    }

    pub(super) fn past_view(&self, id: &JobId, entry: &Entry) -> JobView {
        let last = self.phases.len().saturating_sub(1);
        let phase = entry.phase.min(u16::try_from(last).unwrap_or(u16::MAX));
        JobView {
            id: id.clone(),
            state: entry.state,
            job_type: self.job_type(phase).clone(),
            phase: entry.phase,
            reason: String::new(),
            attempt: entry.tries,
            enqueued_at: entry.enqueued_at,
            changed_at: entry.ended_at,
            worker: None,
            error: entry.error.as_deref().map(str::to_owned),
        }
    }

    /// Why a job is not running, in one plain sentence.
    fn reason(&self, job: &Job) -> String {
        let job_type = self.job_type(job.phase);
        if job.state == JobState::Scheduled {
            let until = job.rare.as_ref().and_then(|rare| rare.until);
            let until = until.unwrap_or_default();
            return match job.tries {
                0 => format!("waits until {until}, as it was enqueued with a delay"),
                tries => format!("waits until {until} for try {} of {job_type}", tries + 1),
            };
        }
        if job.state != JobState::Enqueued {
            return String::new();
        }
        if job.after > self.journal.durable && self.journal.trouble.is_some() {
            return "waits for the journal, which cannot be written now".to_owned();
        }
        if self.draining {
            return "the manager is draining".to_owned();
        }
        if self.paused_all {
            return "the pipeline is paused".to_owned();
        }
        if self.paused.contains(&job.phase) {
            return format!("phase {job_type} is paused");
        }
        if self.is_adopting(job.phase) && job.ticket < self.recovered_below {
            return "the manager has just started and asks workers what they hold".to_owned();
        }
        let of_phase = self.workers.table.values().filter(|w| w.phase == job.phase);
        let workers: Vec<_> = of_phase.filter(|worker| !worker.lost).collect();
        if workers.is_empty() {
            return format!("no worker runs {job_type}");
        }
        if workers
            .iter()
            .all(|worker| self.workers.status(worker) != WorkerStatus::Available)
        {
            return format!("no worker of {job_type} takes work now");
        }
        let slots = workers
            .iter()
            .fold(0, |sum: u32, w| sum.saturating_add(w.slots));
        format!("waits for a free slot: {job_type} has {slots}")
    }

    fn query_job(&mut self, client: ClientId, request: u64, id: JobId) {
        if let Some(no) = self.jobs.no(&id) {
            if let Some(payload) = self.payload(no) {
                return self.answer_live(client, request, no, payload);
            }
            if let Some(home) = self.jobs.job(no).map(|job| job.home) {
                let reason = Reason::Detail {
                    client,
                    request,
                    id,
                };
                return self.read_page(Log::Journal, home, reason);
            }
        }
        if self.history.entry(&id).is_some() {
            return self.answer_past(Reason::Detail {
                client,
                request,
                id,
            });
        }
        let message = format!("no job {id} is known");
        self.refuse(client, request, Code::UnknownJob, message);
    }

    fn answer_live(&mut self, client: ClientId, request: u64, no: JobNo, instructions: Bytes) {
        let Some(job) = self.jobs.job(no) else { return };
        let rare = job.rare.clone().unwrap_or_default();
        let detail = JobDetail {
            view: self.view(job),
            error: rare.failure.as_ref().map(|failure| failure.error.clone()),
            failure: rare.failure.map(|failure| failure.kind),
            not_before: rare.until,
            attempts: rare.attempts,
            traceparent: rare.traceparent,
            instructions,
        };
        self.answer(RecordSeq(0), client, request, Answer::Job(Box::new(detail)));
    }

    /// Answers with all about a job, once its page is read.
    pub(super) fn answer_detail(
        &mut self,
        client: ClientId,
        request: u64,
        id: &JobId,
        records: &[Bytes],
    ) {
        if let Some(no) = self.jobs.no(id) {
            let found = records.iter().find_map(|bytes| job_payload(bytes, id));
            return self.answer_live(client, request, no, found.unwrap_or_default());
        }
        let Some((past, instructions)) = find_past(records, id) else {
            if self.history.entry(id).is_some() && records.is_empty() {
                let message = format!("all about job {id} is not in the history any more");
                return self.refuse(client, request, Code::UnknownJob, message);
            }
            // It ended while its page was read.
            return self.query_job(client, request, id.clone());
        };
        let Some(entry) = self.history.entry(id) else {
            return self.query_job(client, request, id.clone());
        };
        let detail = JobDetail {
            view: JobView {
                job_type: past.job_type,
                ..self.past_view(id, entry)
            },
            error: past.failure.as_ref().map(|failure| failure.error.clone()),
            failure: past.failure.map(|failure| failure.kind),
            not_before: None,
            attempts: past.attempts,
            traceparent: past.traceparent,
            instructions,
        };
        self.answer(RecordSeq(0), client, request, Answer::Job(Box::new(detail)));
    }

    pub(super) fn retry_job(&mut self, no: JobNo, now: Timestamp) -> bool {
        if self.jobs.job(no).map(|job| job.state) != Some(JobState::Failed) {
            return false;
        }
        let ticket = self.jobs.take_ticket();
        self.jobs.transition(no, JobState::Enqueued, now, |job| {
            job.tries = 0;
            job.losses = 0;
            job.ticket = ticket;
            job.rare().doubt = None;
        });
        self.journal_change(no, None);
        self.publish_job(no, now, None);
        true
    }

    fn set_paused(&mut self, phase: Option<&JobType>, to: bool, now: Timestamp) -> Option<Answer> {
        let changes = match phase {
            None => {
                let pauses = !to && !self.paused.is_empty();
                if !to {
                    self.paused.clear();
                }
                std::mem::replace(&mut self.paused_all, to) != to || pauses
            }
            Some(phase) => {
                let phase = self.phase_of(phase.as_str())?;
                match to {
                    true => self.paused.insert(phase),
                    false => self.paused.remove(&phase),
                }
            }
        };
        if changes {
            self.journal_state();
            let what = phase.map_or("the pipeline".to_owned(), |phase| format!("phase {phase}"));
            let verb = if to { "paused" } else { "resumed" };
            self.publish_state(now, format!("{what} was {verb}"));
        }
        Some(changed(u64::from(changes), u64::from(!changes)))
    }

    fn drain_worker(&mut self, id: WorkerId, now: Timestamp) -> bool {
        let Some(worker) = self.workers.table.get_mut(&id) else {
            return false;
        };
        worker.draining = true;
        worker.drain_asked = true;
        let (pipe, original) = (worker.pipe, worker.original);
        if !original {
            self.send_drain(pipe);
        }
        self.publish_worker(id, now, WorkerStatus::Draining);
        true
    }

    pub(super) fn send_drain(&mut self, pipe: PipeId) {
        let head = self.head(pipe);
        let message = Drain { head }.into();
        self.effect(RecordSeq(0), Effect::ToPipe { pipe, message });
    }
}

fn changed(count: u64, skipped: u64) -> Answer {
    Answer::Changed { count, skipped }
}
