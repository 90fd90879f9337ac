//! What changed since the step before, found once for all invariants.

use std::collections::{BTreeMap, BTreeSet};

use carbontube_manager::core::RecordSeq;
use carbontube_protocol::message::JobState;
use carbontube_protocol::{AttemptId, JobId, Timestamp, WorkerId};

use crate::oracle::{Event, Execution, Known};
use crate::parameters::Parameters;
use crate::view::View;

/// A live job as the manager had it after the last step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its state.
    pub state: JobState,
    /// Its phase.
    pub phase: u16,
    /// The attempt that runs it.
    pub attempt: Option<AttemptId>,
    /// That it is at this phase is durable once this record is.
    pub known_by: RecordSeq,
}

/// What invariants remember.
#[derive(Debug)]
pub struct Watch {
    /// The index of the last phase.
    pub last_phase: u16,
    /// The manager's life that the rest is about.
    pub life: u64,
    /// Whether the manager did anything in this step.
    pub acted: bool,
    acts: u64,
    /// Live jobs after this step.
    pub jobs: BTreeMap<JobId, Seen>,
    /// Live jobs before this step that are different now: as they were.
    pub before: BTreeMap<JobId, Option<Seen>>,
    /// For jobs that left in this life: that is durable once this record is.
    pub gone: BTreeMap<JobId, RecordSeq>,
    /// For each phase that a job has done in this life: durable once this record is.
    pub done: BTreeMap<JobId, Vec<RecordSeq>>,
    /// For jobs of this life: that they, or the first of their id, are there at all is durable
    /// once this record is.
    pub first: BTreeMap<JobId, RecordSeq>,
    /// For ids that were used again after their job had ended: the executions before that.
    pub former: BTreeMap<JobId, usize>,
    /// For the same: the newest attempt that was made before. It may run as late as now.
    pub former_attempt: BTreeMap<JobId, AttemptId>,
    /// What was before each job, by its id and when it arrived.
    births: BTreeMap<(JobId, Timestamp), (usize, Option<AttemptId>)>,
    /// Ids that have another job since the last step.
    pub renewed: BTreeSet<JobId>,
    /// When the job of each id arrived, which tells it from a former one of this id.
    arrivals: BTreeMap<JobId, Timestamp>,
    /// The newest attempt of each job, over all lives.
    newest: BTreeMap<JobId, AttemptId>,
    /// Executions, by their index, that began when their attempt had been given up already.
    pub belated: BTreeSet<(JobId, usize)>,
    /// What happened in this step by the oracle.
    pub events: Vec<(JobId, Event)>,
    read_events: usize,
    /// Attempts that each worker held before this step.
    pub held: BTreeMap<WorkerId, BTreeSet<AttemptId>>,
    /// Results whose acknowledgement was let out: the attempt, and the phase it decided.
    pub acknowledged: BTreeMap<JobId, u16>,
    /// Attempts and where they ran.
    pub attempts: BTreeMap<(AttemptId, WorkerId), JobId>,
    /// Executions that were more than needed.
    pub repeats: u64,
    /// The same, for each job, phase, and number of executions before the id was used again.
    pub repeats_of: BTreeMap<(JobId, u16, usize), u64>,
    commits: u64,
    /// The most pages that one commit has put.
    pub pages_of_a_commit_max: u64,
    pages_next: u64,
}

impl Watch {
    /// For a new world.
    pub fn new(parameters: &Parameters) -> Watch {
        let phases = parameters.definition.phases().len();
        Watch {
            last_phase: u16::try_from(phases.saturating_sub(1)).unwrap_or(u16::MAX),
            life: 0,
            acted: false,
            acts: 0,
            jobs: BTreeMap::new(),
            before: BTreeMap::new(),
            gone: BTreeMap::new(),
            done: BTreeMap::new(),
            first: BTreeMap::new(),
            former: BTreeMap::new(),
            former_attempt: BTreeMap::new(),
            births: BTreeMap::new(),
            renewed: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            newest: BTreeMap::new(),
            belated: BTreeSet::new(),
            events: Vec::new(),
            read_events: 0,
            held: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            attempts: BTreeMap::new(),
            repeats: 0,
            repeats_of: BTreeMap::new(),
            commits: 0,
            pages_of_a_commit_max: 0,
            pages_next: 1,
        }
    }

    /// Compares the world with the step before.
    pub fn look(&mut self, view: &View<'_>) {
        let events = view.oracle.events_from(self.read_events);
        self.read_events += events.len();
        self.events = events.to_vec();
        let acts = view.manager.acts();
        self.acted = acts != self.acts || view.started;
        self.acts = acts;
        self.before.clear();
        self.renewed.clear();
        if view.started || view.manager.life() != self.life {
            self.life = view.manager.life();
            self.jobs.clear();
            self.gone.clear();
            // A life whose first record was not durable let no attempt out, and its numbers
            // are used again.
            if let Some(core) = view.manager.core() {
                let epoch = core.epoch();
                self.newest.retain(|_, attempt| attempt.epoch < epoch);
            }
            self.done.clear();
            self.first.clear();
            self.held.clear();
        }
        if self.acted {
            self.look_at_jobs(view);
        }
        self.look_at_executions(view);
        if view.committed {
            self.commits += 1;
            let next = view.disk.journal_bounds().map_or(1, |bounds| bounds.next.0);
            let pages = next.saturating_sub(self.pages_next);
            self.pages_of_a_commit_max = self.pages_of_a_commit_max.max(pages);
            self.pages_next = next;
        }
    }

    /// The executions of the present job of an id, and none of a former one.
    pub fn executions<'a>(
        &self,
        id: &JobId,
        known: &'a Known,
    ) -> impl Iterator<Item = &'a Execution> {
        let former = self.former.get(id).copied().unwrap_or_default();
        let last = self.former_attempt.get(id).copied();
        let all = known.executions.iter().skip(former);
        all.filter(move |execution| last.is_none_or(|last| execution.attempt > last))
    }

    fn look_at_executions(&mut self, view: &View<'_>) {
        for (id, event) in &self.events {
            let Event::Started(index) = event else {
                continue;
            };
            let known = view.oracle.job(id);
            let execution = known.and_then(|known| known.executions.get(*index));
            let newest = self.newest.get(id);
            if execution
                .zip(newest)
                .is_some_and(|(e, newest)| e.attempt < *newest)
            {
                self.belated.insert((id.clone(), *index));
            }
        }
    }

    fn look_at_jobs(&mut self, view: &View<'_>) {
        let Some(core) = view.manager.core() else {
            return;
        };
        let (last, _) = core.records();
        let mut here = 0;
        for job in core.live_jobs() {
            let found = self.jobs.get(job.id);
            here += 1;
            let is_new = self.arrivals.get(job.id) != Some(&job.enqueued_at);
            if !is_new
                && found.is_some_and(|seen| {
                    (seen.state, seen.phase, seen.attempt)
                        == (
                            job.state,
                            job.phase,
                            job.attempt.map(|(attempt, _)| attempt),
                        )
                })
            {
                continue;
            }
            let known_by = match found {
                // Neither a dispatch nor writing the record again makes it less known.
                Some(seen) if seen.phase == job.phase && !is_new => seen.known_by.min(job.after),
                None if view.started => RecordSeq(0),
                _ => job.after,
            };
            let done = self.done.entry(job.id.clone()).or_default();
            if found.is_none() || is_new {
                done.clear();
                // An answer about a former job of this id may be let out as late as now.
                self.first.entry(job.id.clone()).or_insert(known_by);
            }
            if is_new {
                // A restart can bring back the job before, when the end of that one was not
                // durable: what was noted of it then holds.
                let known = view.oracle.job(job.id);
                let here = (
                    known.map_or(0, |known| known.executions.len()),
                    self.newest.get(job.id).copied(),
                );
                let birth = (job.id.clone(), job.enqueued_at);
                let (former, last) = *self.births.entry(birth).or_insert(here);
                self.former.insert(job.id.clone(), former);
                match last {
                    Some(last) => self.former_attempt.insert(job.id.clone(), last),
                    None => self.former_attempt.remove(job.id),
                };
            }
            if let Some((attempt, _)) = job.attempt {
                let newest = self.newest.entry(job.id.clone()).or_insert(attempt);
                *newest = (*newest).max(attempt);
            }
            if is_new {
                self.renewed.insert(job.id.clone());
                self.arrivals.insert(job.id.clone(), job.enqueued_at);
                self.acknowledged.remove(job.id);
            }
            done.resize(usize::from(job.phase).max(done.len()), known_by);
            let now = Seen {
                state: job.state,
                phase: job.phase,
                attempt: job.attempt.map(|(attempt, _)| attempt),
                known_by,
            };
            let before = self.jobs.insert(job.id.clone(), now);
            self.before.insert(job.id.clone(), before);
        }
        if here == self.jobs.len() {
            return;
        }
        let gone: Vec<JobId> = self
            .jobs
            .keys()
            .filter(|id| core.live_job(id).is_none())
            .cloned()
            .collect();
        for id in gone {
            let before = self.jobs.remove(&id);
            self.before.insert(id.clone(), before);
            // What is told late may be of a former job of this id.
            self.gone.entry(id).or_insert(last);
        }
    }

    /// Whether this is a step after which the whole journal is read: it must hold all that
    /// the manager knows, and be there as a whole.
    pub fn reads_journal(&self, view: &View<'_>) -> bool {
        let due =
            view.started || view.committed && self.commits.is_multiple_of(super::COMMITS_BETWEEN);
        due && is_at_rest(view)
    }
}

/// Whether the disk has all that the manager knows.
pub fn is_at_rest(view: &View<'_>) -> bool {
    let core = view.manager.core();
    core.is_some_and(|core| core.records().0 == view.synced) && !view.disk.is_in_doubt()
}
