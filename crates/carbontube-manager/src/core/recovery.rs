//! Builds a core from the journal's pages.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::JobState;
use carbontube_protocol::{
    AttemptId, JobId, JobType, ManagerId, PipelineName, Timestamp, WorkerId,
};
use carbontube_storage::PageSeq;

use super::cause::{Doubt, Repeats};
use super::epochs::{EPOCH_FAR, Epochs};
use super::history::{Entry, History};
use super::job::{Job, Jobs, Rare};
use super::journal::{Journal, PageUse};
use super::machine::{Core, PhaseTally, Random};
use super::pages::Joiner;
use super::payload::Payloads;
use super::record::{
    self, ChangeRecord, End, JobRecord, KnownRecord, PastRecord, Record, Standing, StateRecord,
};
use super::series::Series;
use super::{CoreOptions, RecordSeq};
use crate::PipelineDefinition;

/// Why a core cannot be built from a journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The journal holds another pipeline's jobs.
    #[error("the journal belongs to pipeline {found}, this manager is for pipeline {expected}")]
    OtherPipeline {
        /// Whose journal it is.
        found: PipelineName,
        /// Whose journal it should be.
        expected: PipelineName,
    },
    /// Jobs stand at a phase that the pipeline does not have any more.
    #[error("the journal has jobs at phase {job_type}, which pipeline {pipeline} no longer has")]
    VanishedPhase {
        /// The phase.
        job_type: JobType,
        /// The pipeline.
        pipeline: PipelineName,
    },
    /// A page could not be read as records.
    #[error("{log} page {} is not readable: {reason}", page.0)]
    Unreadable {
        /// `journal` or `history`.
        log: &'static str,
        /// The page.
        page: PageSeq,
        /// What is wrong with it.
        reason: String,
    },
}

/// Builds a [`Core`] from pages: all of the journal, then all of the history, each in
/// order. A page of no bytes was lost to damage and is skipped.
#[derive(Debug)]
pub struct Recovery {
    definition: PipelineDefinition,
    options: CoreOptions,
    state: Option<(StateRecord, PageSeq)>,
    jobs: BTreeMap<u64, Found>,
    ids: HashMap<JobId, u64>,
    next_found: u64,
    pages: BTreeMap<PageSeq, u64>,
    next: PageSeq,
    past_next: PageSeq,
    joiner: Joiner,
    past_joiner: Joiner,
    history: History,
    pages_lost: u64,
    records_unmatched: u64,
    /// The workers that may hold attempts; none in a journal that does not tell.
    known: Option<BTreeMap<WorkerId, KnownRecord>>,
    repeats: Repeats,
    /// By how much the next epoch is higher, since the journal was imported.
    stepped: u64,
}

/// Any attempt may be one of a job whose first attempt its record does not tell.
const SINCE_UNKNOWN: AttemptId = AttemptId {
    epoch: 0,
    counter: 0,
};

/// More starts of a manager than one page can tell of.
const STARTS_IN_PAGE_MAX: u64 = 4096;

/// A live job as the records so far tell it.
#[derive(Debug)]
struct Found {
    home: PageSeq,
    bytes: u32,
    since: AttemptId,
    enqueued_at: Timestamp,
    change: ChangeRecord,
    rare: Rare,
}

impl Recovery {
    /// Begins with nothing: finishing at once gives the core of a new journal.
    pub fn new(definition: PipelineDefinition, options: CoreOptions) -> Self {
        Recovery {
            definition,
            options,
            state: None,
            jobs: BTreeMap::new(),
            ids: HashMap::new(),
            next_found: 1,
            pages: BTreeMap::new(),
            next: PageSeq::FIRST,
            past_next: PageSeq::FIRST,
            joiner: Joiner::default(),
            past_joiner: Joiner::default(),
            history: History::default(),
            pages_lost: 0,
            records_unmatched: 0,
            known: None,
            repeats: Repeats::default(),
            stepped: 0,
        }
    }

    /// Takes in the journal's next page.
    ///
    /// # Errors
    /// [`RecoverError`] when it belongs to another pipeline or cannot be read.
    pub fn journal_page(&mut self, seq: PageSeq, bytes: &[u8]) -> Result<(), RecoverError> {
        let unreadable = |reason| RecoverError::Unreadable {
            log: "journal",
            page: seq,
            reason,
        };
        record::check_page_number(seq).map_err(unreadable)?;
        self.next = seq.next();
        self.pages.insert(seq, bytes.len() as u64);
        if bytes.is_empty() {
            self.pages_lost += 1;
            self.joiner.lost();
            return Ok(());
        }
        let page = Bytes::copy_from_slice(bytes);
        let (home, records) = self.joiner.page(seq, &page).map_err(unreadable)?;
        for bytes in records {
            let (record, _) = record::decode::<Record>(&bytes).map_err(unreadable)?;
            record.check_numbers().map_err(unreadable)?;
            self.record(home, bytes.len(), record)?;
        }
        Ok(())
    }

    fn record(&mut self, home: PageSeq, bytes: usize, record: Record) -> Result<(), RecoverError> {
        match record {
            Record::State(state) => {
                if state.pipeline != *self.definition.name() {
                    return Err(RecoverError::OtherPipeline {
                        found: state.pipeline,
                        expected: self.definition.name().clone(),
                    });
                }
                self.state = Some((state, home));
                // A later start has taken it.
                self.stepped = 0;
            }
            Record::Job(job) => self.job_found(home, bytes, SINCE_UNKNOWN, job),
            Record::JobSince { job, .. } if mutation::is(Mutation::ForgetSince) => {
                self.job_found(home, bytes, SINCE_UNKNOWN, job);
            }
            Record::JobSince { since, job } => self.job_found(home, bytes, since, job),
            Record::Change(_) if mutation::is(Mutation::ForgetChangesAtRecovery) => {}
            Record::Change(mut change) => {
                let no = self.ids.get(&change.id);
                let Some(found) = no.and_then(|no| self.jobs.get_mut(no)) else {
                    self.records_unmatched += 1;
                    return Ok(());
                };
                found.rare.attempts.extend(change.attempt.take());
                let over = found
                    .rare
                    .attempts
                    .len()
                    .saturating_sub(super::job::ATTEMPTS_KEPT_MAX);
                found.rare.attempts.drain(..over);
                found.rare.doubt = None;
                found.change = change;
            }
            Record::Ended { id, end } => {
                if let Some(no) = self.ids.remove(&id) {
                    self.jobs.remove(&no);
                }
                if let Some((state, _)) = &mut self.state {
                    match end {
                        End::Finished => state.totals.success += 1,
                        End::Cancelled => state.totals.cancelled += 1,
                        End::Discarded => {}
                    }
                }
            }
            Record::Workers(known) => {
                let known = known.into_iter().map(|known| (known.worker, known));
                self.known = Some(known.collect());
            }
            Record::Known(known) => {
                if let Some(all) = &mut self.known {
                    all.insert(known.worker, known);
                }
            }
            Record::Unknown { worker } => {
                if let Some(all) = &mut self.known {
                    all.remove(&worker);
                }
            }
            Record::Repeats(repeats) => self.repeats = Repeats::of(repeats),
            Record::Doubt { id, cause } => {
                if let Some(found) = self.found(&id) {
                    found.rare.doubt = Some(Doubt {
                        attempt: None,
                        cause,
                        may_have_begun: true,
                    });
                }
            }
            Record::Rerun { cause, jobs, id } => {
                *self.repeats.reruns.entry(cause).or_default() += jobs;
                if let Some(found) = id.and_then(|id| self.found(&id)) {
                    found.rare.doubt = None;
                }
            }
            Record::Due { id, ticket } => {
                if let Some(found) = self.found(&id) {
                    found.change.standing = Standing::Ready;
                    found.change.ticket = ticket;
                }
            }
            Record::Step { epochs } => self.stepped = self.stepped.saturating_add(epochs),
            Record::Duplicate { cause } => {
                *self.repeats.duplicates.entry(cause).or_default() += 1;
            }
        }
        Ok(())
    }

    fn job_found(&mut self, home: PageSeq, bytes: usize, since: AttemptId, job: JobRecord) {
        if job.accepted
            && let Some((state, _)) = &mut self.state
        {
            state.totals.enqueued += 1;
        }
        let no = match self.ids.get(&job.change.id) {
            Some(no) => *no,
            None => {
                let no = self.next_found;
                self.next_found += 1;
                self.ids.insert(job.change.id.clone(), no);
                no
            }
        };
        let rare = Rare {
            attempts: job.attempts,
            traceparent: job.traceparent,
            ..Rare::default()
        };
        let found = Found {
            home,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            since,
            enqueued_at: job.enqueued_at,
            change: job.change,
            rare,
        };
        self.jobs.insert(no, found);
    }

    fn found(&mut self, id: &JobId) -> Option<&mut Found> {
        let no = self.ids.get(id)?;
        self.jobs.get_mut(no)
    }

    /// Takes in the history's next page.
    ///
    /// # Errors
    /// [`RecoverError`] when it cannot be read.
    pub fn history_page(&mut self, seq: PageSeq, bytes: &[u8]) -> Result<(), RecoverError> {
        let unreadable = |reason| RecoverError::Unreadable {
            log: "history",
            page: seq,
            reason,
        };
        record::check_page_number(seq).map_err(unreadable)?;
        self.past_next = seq.next();
        self.history.put(seq, bytes.len() as u64);
        if bytes.is_empty() {
            self.pages_lost += 1;
            self.past_joiner.lost();
            return Ok(());
        }
        let page = Bytes::copy_from_slice(bytes);
        let (home, records) = self.past_joiner.page(seq, &page).map_err(unreadable)?;
        for bytes in records {
            let (past, _) = record::decode::<PastRecord>(&bytes).map_err(unreadable)?;
            self.history.add(past.id.clone(), Entry::of(home, &past));
        }
        Ok(())
    }

    /// Ends recovery. `fresh` becomes the journal's id if it is new, `seed` is where the
    /// jitter of retries begins.
    ///
    /// # Errors
    /// [`RecoverError`] when jobs stand at a phase that is gone.
    pub fn finish(self, now: Timestamp, fresh: ManagerId, seed: u64) -> Result<Core, RecoverError> {
        let definition = self.definition;
        let options = self.options;
        let phase_of = |job_type: &JobType| {
            let phases = definition.phases();
            let index = phases.iter().position(|phase| phase.job_type == *job_type);
            index.and_then(|index| u16::try_from(index).ok())
        };
        let phases = definition.phases().len();
        let mut jobs = Jobs::new(phases);
        let names = definition.phases().iter().map(|p| p.job_type.clone());
        jobs.failures.name_phases(names.collect());
        let mut journal = Journal::new(self.next, self.past_next, options.page_bytes);
        for (seq, bytes) in self.pages {
            journal.page_bytes += bytes;
            let page = PageUse {
                bytes,
                ..PageUse::default()
            };
            journal.pages.insert(seq, page);
        }
        // The record of the last start tells; where it may be lost, jobs tell of an epoch
        // that was, and those that no record is left of are stepped over.
        let last_epoch = self.state.as_ref().map_or(0, |(state, _)| state.epoch);
        let told = self.jobs.values().map(|found| found.since.epoch).max();
        let lost = self.pages_lost.saturating_mul(STARTS_IN_PAGE_MAX);
        let last_epoch = last_epoch.max(told.unwrap_or(0));
        let stepped = last_epoch.saturating_add(lost).saturating_add(self.stepped);
        // Beyond, it only goes up by one: the next start must be able to read it.
        let last_epoch = stepped.min(EPOCH_FAR).max(last_epoch);
        let mut tickets = BTreeSet::new();
        let mut due = Vec::new();
        for (_, found) in self.jobs {
            let change = found.change;
            let Some(phase) = phase_of(&change.job_type) else {
                return Err(RecoverError::VanishedPhase {
                    job_type: change.job_type,
                    pipeline: definition.name().clone(),
                });
            };
            tickets.insert(change.ticket);
            let mut rare = found.rare;
            rare.failure = change.failure;
            rare.settled = change.settled;
            let state = match change.standing {
                Standing::Ready => JobState::Enqueued,
                Standing::Failed => JobState::Failed,
                // It has been due already, and may have been handed out since: it is like
                // any other that a worker may hold.
                Standing::Waiting { until } if until <= now => JobState::Enqueued,
                Standing::Waiting { until } => {
                    // A clock that was set back must not make a retry wait for that long;
                    // a delay is the client's, and may be any.
                    let longest = definition.phases()[usize::from(phase)].backoff.longest;
                    let latest = match change.tries {
                        0 => Timestamp::MAX,
                        _ => now + longest + longest / 4,
                    };
                    rare.until = Some(until.min(latest));
                    JobState::Scheduled
                }
            };
            let is_due =
                matches!(change.standing, Standing::Waiting { .. }) && state == JobState::Enqueued;
            let is_rare = rare.until.is_some()
                || rare.failure.is_some()
                || rare.settled.is_some()
                || rare.doubt.is_some()
                || rare.traceparent.is_some()
                || !rare.attempts.is_empty();
            let no = jobs.insert(Job {
                id: change.id,
                state,
                phase,
                tries: change.tries,
                losses: change.losses,
                ticket: change.ticket,
                enqueued_at: found.enqueued_at,
                changed_at: change.changed_at,
                home: found.home,
                bytes: found.bytes,
                since: found.since,
                after: RecordSeq(0),
                attempt: None,
                rare: is_rare.then(|| Box::new(rare)),
            });
            journal.settle(no, found.home, found.bytes);
            if is_due {
                due.push(no);
            }
        }
        let last_ticket = tickets.last().copied().unwrap_or(0);
        jobs.next_ticket = last_ticket + 1;
        let is_new = self.state.is_none();
        let state = self.state.map(|(state, _)| state);
        let manager = state.as_ref().map_or(fresh, |state| state.manager);
        let epoch = match last_epoch {
            0 => 1,
            last if mutation::is(Mutation::ReuseEpoch) => last,
            last => (last + 1).min(record::NUMBER_MAX),
        };
        let phase_map = state.as_ref().map_or(Vec::new(), |state| {
            state.phases.iter().map(phase_of).collect()
        });
        let paused = state.as_ref().map_or(BTreeSet::new(), |state| {
            state.paused.iter().filter_map(phase_of).collect()
        });
        let mut core = Core {
            payloads: Payloads::new(options.payload_cache_bytes_max),
            definition,
            manager,
            epoch,
            epochs: Epochs::new(epoch),
            started_at: now,
            effects: Default::default(),
            recovered_below: jobs.next_ticket,
            jobs,
            workers: Default::default(),
            newcomers: Default::default(),
            journal,
            history: self.history,
            settled: Default::default(),
            waits: Default::default(),
            changes: Default::default(),
            phases: vec![PhaseTally::default(); phases],
            series: Series::new(phases, now),
            totals: state.as_ref().map(|state| state.totals).unwrap_or_default(),
            paused_all: state.as_ref().is_some_and(|state| state.paused_all),
            paused,
            draining: false,
            stopped: false,
            adoption: None,
            recovered_after: RecordSeq(0),
            recovered_doubted: BTreeMap::new(),
            phase_map,
            next_attempt: 1,
            acks: BTreeMap::new(),
            cancels: BTreeMap::new(),
            looks_up_at: None,
            counters: BTreeMap::new(),
            repeats: self.repeats,
            housekeeping_at: None,
            random: Random(seed),
            options,
        };
        core.count("pages_lost", self.pages_lost);
        core.count("records_unmatched", self.records_unmatched);
        let is_told = self.known.is_some() || is_new;
        core.begin_adoption(self.known.unwrap_or_default(), is_told, now);
        core.journal_state();
        // By the clock of now: one that is set back must not make them wait once more, which
        // nobody would take for handed out.
        for no in due {
            core.journal_due(no);
        }
        let reason = match core.adoption {
            Some(_) => "has started, and asks workers what they hold",
            None => "has started",
        };
        core.publish_state(now, reason.to_owned());
        Ok(core)
    }
}
