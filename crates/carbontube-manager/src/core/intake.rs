//! New jobs: checked, journaled, confirmed.

use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{
    Code, Enqueue, EnqueueOutcome, Enqueued, JobState, NewJob, Refusal,
};
use carbontube_protocol::{JobId, PipelineName, Timestamp};
use carbontube_storage::PageSeq;

use super::job::{Job, Rare};
use super::machine::Core;
use super::{ClientId, RecordSeq};

/// It stays in memory as long as its job; version 00 has 55 bytes.
const TRACEPARENT_BYTES_MAX: usize = 512;

impl Core {
    pub(super) fn handle_enqueue(&mut self, client: ClientId, request: Enqueue, now: Timestamp) {
        if request.pipeline != *self.definition.name() {
            self.count("refused_unknown_pipeline", 1);
            let message = self.other_pipeline(&request.pipeline);
            let refusal = Refusal {
                request: Some(request.request),
                code: Code::UnknownPipeline,
                message,
            };
            return self.answer_client(RecordSeq(0), client, refusal.into());
        }
        let outcomes: Vec<EnqueueOutcome> = request
            .jobs
            .into_iter()
            .map(|job| self.accept(job, now))
            .collect();
        // A rejection promises nothing, and must reach the client while nothing is durable.
        let promises = outcomes
            .iter()
            .any(|outcome| !matches!(outcome, EnqueueOutcome::Rejected { .. }));
        let after = if promises {
            self.journal.last
        } else {
            RecordSeq(0)
        };
        let answer = Enqueued {
            request: request.request,
            outcomes,
        };
        self.answer_client(after, client, answer.into());
    }

    pub(super) fn other_pipeline(&self, found: &PipelineName) -> String {
        format!(
            "this manager is for pipeline {}, not for {found}",
            self.definition.name()
        )
    }

    pub(super) fn handle_unconfirmed(
        &mut self,
        pipeline: Option<&PipelineName>,
        jobs: Vec<NewJob>,
        now: Timestamp,
    ) {
        if pipeline.is_some_and(|pipeline| pipeline != self.definition.name()) {
            return self.count("dropped_unknown_pipeline", jobs.len() as u64);
        }
        for job in jobs {
            if let EnqueueOutcome::Rejected { .. } = self.accept(job, now) {
                self.count("dropped_unconfirmed", 1);
            }
        }
    }

    fn accept(&mut self, new: NewJob, now: Timestamp) -> EnqueueOutcome {
        let reject = |id: Option<JobId>, code, message: String| EnqueueOutcome::Rejected {
            id,
            code,
            message,
        };
        let Some(id) = new.id else {
            return reject(None, Code::Malformed, "the job has no id".to_owned());
        };
        if let Some(state) = self.state_of(&id)
            && !mutation::is(Mutation::AcceptKnownId)
        {
            return EnqueueOutcome::Duplicate { id, state };
        }
        if self.draining {
            let message = "the manager is draining and takes no more jobs".to_owned();
            return reject(Some(id), Code::Draining, message);
        }
        if let Some((code, message)) = self.no_room(new.instructions.len()) {
            return reject(Some(id), code, message);
        }
        if let Err(error) = self.options.check_instructions(&new.instructions) {
            self.count("refused_instructions", 1);
            return reject(Some(id), Code::Instructions, error.to_string());
        }
        if let Some(found) = &new.traceparent
            && found.len() > TRACEPARENT_BYTES_MAX
        {
            let bytes = found.len();
            let message =
                format!("the traceparent has {bytes} bytes, {TRACEPARENT_BYTES_MAX} at most");
            return reject(Some(id), Code::Malformed, message);
        }
        let until =
            (new.delay_ms > 0).then(|| now + std::time::Duration::from_millis(new.delay_ms));
        let rare = (until.is_some() || new.traceparent.is_some()).then(|| {
            Box::new(Rare {
                until,
                traceparent: new.traceparent,
                ..Rare::default()
            })
        });
        let ticket = self.jobs.take_ticket();
        let since = self.next_attempt();
        let no = self.jobs.insert(Job {
            id: id.clone(),
            state: if until.is_some() {
                JobState::Scheduled
            } else {
                JobState::Enqueued
            },
            phase: 0,
            tries: 0,
            losses: 0,
            ticket,
            enqueued_at: now,
            changed_at: now,
            home: PageSeq::FIRST,
            bytes: 0,
            since,
            after: RecordSeq(0),
            attempt: None,
            rare,
        });
        let payload = Core::payload_copy(&new.instructions);
        self.journal_job(no, &payload, true);
        if until.is_none() {
            self.payloads.offer(no, payload);
        }
        self.totals.enqueued += 1;
        self.series.total.arrived();
        self.series.phases[0].arrived();
        self.publish_job(no, now, None);
        self.journal.cut();
        EnqueueOutcome::Accepted { id }
    }

    /// Why the journal takes no job with so many bytes of instructions now.
    fn no_room(&mut self, bytes: usize) -> Option<(Code, String)> {
        if let Some(trouble) = &self.journal.trouble {
            return Some((Code::Journal, trouble.clone()));
        }
        let options = &self.options;
        let live_bytes = self.journal.live_bytes;
        // A disk that hangs tells of no trouble.
        let undurable = self.journal.tail.bytes();
        let message = if undurable >= options.undurable_bytes_max {
            format!("{} MiB wait for the journal's disk", undurable >> 20)
        } else if self.jobs.len() as u64 >= options.live_jobs_max {
            format!("{} jobs have not ended, which is the most", self.jobs.len())
        } else if live_bytes + bytes as u64 > options.live_bytes_max {
            let most = options.live_bytes_max;
            self.count("refused_live_bytes", 1);
            format!(
                "jobs that have not ended hold {live_bytes} bytes, and {most} is the most; this \
                 one has {bytes}"
            )
        } else {
            return None;
        };
        self.count("refused_busy", 1);
        Some((Code::Busy, message))
    }

    pub(super) fn state_of(&self, id: &JobId) -> Option<JobState> {
        match self.jobs.no(id) {
            Some(no) => self.jobs.job(no).map(|job| job.state),
            None => self.history.entry(id).map(|entry| entry.state),
        }
    }
}
