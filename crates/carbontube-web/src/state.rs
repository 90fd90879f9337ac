//! What is known of each manager, with a number on every change, so that a page can be
//! sent just what it has not seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use carbontube_protocol::message::{
    EventKind, Events, JobState, ManagerInfo, ManagerState, Series, Stats, Step, Track,
    WorkerStatus, WorkerView,
};
use carbontube_protocol::{Address, JobId, JobType, Timestamp, WorkerId};
use event_listener::Event;
use serde::Serialize;

use crate::logs::LogRing;

/// After how long without an answer a manager is shown as lost.
pub(crate) const LOST_AFTER: Duration = Duration::from_millis(3500);
/// How many recent changes of jobs are kept for pages that are behind.
const JOBS_MAX: usize = 2000;
/// How many running jobs' progress is kept.
const PROGRESS_MAX: usize = 10_000;
/// How many notes are kept of each manager.
const NOTES_MAX: usize = 500;
/// How many changes of a worker's availability are kept.
const TIMELINE_MAX: usize = 50;
/// How many workers' timelines are kept.
const TIMELINES_MAX: usize = 10_000;
/// How many points of the series are kept for pages that are behind.
const POINTS_MAX: usize = 60;
/// Over how many seconds rates are averaged.
const RATE_SECONDS: usize = 5;

/// The wall clock, for display.
pub(crate) fn wall() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// Everything that is shown, of all managers.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) views: Vec<Arc<View>>,
    pub(crate) logs: Mutex<LogRing>,
    /// Told at every change.
    pub(crate) changed: Event,
}

/// One manager.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) address: Address,
    state: Mutex<ViewState>,
    /// Told when a snapshot is wanted before its time.
    pub(crate) wanted: Event,
}

/// What is known of one manager.
#[derive(Debug, Default)]
pub(crate) struct ViewState {
    /// One more with each change.
    pub(crate) version: u64,
    /// The name in addresses of pages; empty until the manager was reached.
    pub(crate) key: String,
    pub(crate) answered: Option<Instant>,
    pub(crate) trouble: Option<String>,
    /// How many times the manager is still to be asked for events of before.
    pub(crate) past_due: u8,
    pub(crate) info: Option<ManagerInfo>,
    pub(crate) stats: Option<Stats>,
    /// The last version at which the overview changed.
    pub(crate) overview_at: u64,
    was_live: bool,
    pub(crate) workers: BTreeMap<WorkerId, (WorkerView, u64)>,
    /// Workers that went, with the version.
    pub(crate) gone: VecDeque<(WorkerId, u64)>,
    /// Pages that saw less than this get all workers.
    pub(crate) gone_from: u64,
    pub(crate) timelines: BTreeMap<WorkerId, VecDeque<Availability>>,
    pub(crate) jobs: VecDeque<(u64, JobNews)>,
    pub(crate) jobs_left_out: VecDeque<(u64, u64)>,
    pub(crate) progress: BTreeMap<JobId, (u64, ProgressNews)>,
    progress_order: BTreeSet<(u64, JobId)>,
    pub(crate) notes: VecDeque<(u64, Note)>,
    pub(crate) points: VecDeque<Points>,
    rates: BTreeMap<String, Rates>,
}

/// A worker's availability from a time on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Availability {
    pub(crate) at: Timestamp,
    pub(crate) status: WorkerStatus,
}

/// A job's state changed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobNews {
    pub(crate) id: JobId,
    pub(crate) state: JobState,
    pub(crate) job_type: JobType,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) error: Option<String>,
    pub(crate) at: Timestamp,
}

/// A running job is so far.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProgressNews {
    pub(crate) job: JobId,
    pub(crate) job_type: JobType,
    pub(crate) worker: WorkerId,
    pub(crate) fraction: f32,
    pub(crate) text: String,
    pub(crate) at: Timestamp,
}

/// Something for the event log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Note {
    pub(crate) at: Timestamp,
    /// `manager`, `worker`, `action` or `web`.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

/// One closed second of the series.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Points {
    pub(crate) at: Timestamp,
    pub(crate) total: Point,
    pub(crate) phases: Vec<PhasePoint>,
}

/// One closed second of one phase.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhasePoint {
    pub(crate) job_type: JobType,
    #[serde(flatten)]
    pub(crate) point: Point,
}

/// The numbers of one closed second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Point {
    pub(crate) arrived: u32,
    pub(crate) done: u32,
    pub(crate) failed: u32,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) wait_p50_us: u64,
    pub(crate) wait_p99_us: u64,
    pub(crate) backlog: u32,
    pub(crate) running: u32,
}

impl Point {
    fn of(track: &Track, index: usize) -> Point {
        let narrow = |column: &[u32]| column.get(index).copied().unwrap_or(0);
        let wide = |column: &[u64]| column.get(index).copied().unwrap_or(0);
        Point {
            arrived: narrow(&track.arrived),
            done: narrow(&track.done),
            failed: narrow(&track.failed),
            p50_us: wide(&track.p50_us),
            p99_us: wide(&track.p99_us),
            wait_p50_us: wide(&track.wait_p50_us),
            wait_p99_us: wide(&track.wait_p99_us),
            backlog: narrow(&track.backlog),
            running: narrow(&track.running),
        }
    }
}

/// Jobs or attempts in a second, over the last few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) arrived: f64,
    pub(crate) done: f64,
    pub(crate) failed: f64,
}

/// Whether a manager answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reach {
    /// It never did.
    Connecting,
    /// It does.
    Live,
    /// It did, and does not any more.
    Lost,
}

impl Hub {
    pub(crate) fn new(api: &[Address]) -> Self {
        let view = |address: &Address| {
            Arc::new(View {
                address: address.clone(),
                state: Mutex::default(),
                wanted: Event::new(),
            })
        };
        Hub {
            views: api.iter().map(view).collect(),
            logs: Mutex::default(),
            changed: Event::new(),
        }
    }

    pub(crate) fn logs(&self) -> MutexGuard<'_, LogRing> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manager with a key.
    pub(crate) fn view(&self, key: &str) -> Option<&Arc<View>> {
        self.views
            .iter()
            .find(|view| !key.is_empty() && view.lock().key == key)
    }

    /// Gives a newly reached manager its key: the pipeline's name, or that with a number
    /// when another one has it.
    pub(crate) fn name(&self, view: &View, pipeline: &str) {
        let taken: BTreeSet<String> = self
            .views
            .iter()
            .filter(|other| !std::ptr::eq(other.as_ref(), view))
            .map(|other| other.lock().key.clone())
            .collect();
        let mut key = pipeline.to_owned();
        let mut number = 2;
        while taken.contains(&key) {
            key = format!("{pipeline}~{number}");
            number += 1;
        }
        view.lock().key = key;
    }

    /// Takes in events from before a manager was looked at; some may have come live in the
    /// meantime.
    pub(crate) fn take_recent(
        &self,
        view: &View,
        events: Vec<carbontube_protocol::message::Event>,
    ) {
        let mut state = view.lock();
        let key = state.key.clone();
        let mut lines = Vec::new();
        for event in events {
            match event.kind {
                EventKind::Log {
                    worker,
                    job_type,
                    line,
                } => lines.push((job_type, worker, line)),
                kind => state.take_past(event.at, kind),
            }
        }
        self.logs().push_missing(&key, lines);
        drop(state);
        self.changed.notify(usize::MAX);
    }

    /// Takes in events of a manager, and asks for a snapshot where they matter.
    pub(crate) fn take_events(&self, events: Events) {
        let found = self.views.iter().find(|view| {
            let state = view.lock();
            let info = state.info.as_ref();
            info.is_some_and(|info| info.manager == events.manager)
        });
        let Some(view) = found else { return };
        let mut state = view.lock();
        let key = state.key.clone();
        let mut wanted = false;
        let is_log = matches!(
            events.events.first().map(|event| &event.kind),
            Some(EventKind::Log { .. })
        );
        if is_log {
            self.logs().miss(events.dropped);
        } else if events.dropped > 0 {
            let version = state.version + 1;
            state.jobs_left_out.push_back((version, events.dropped));
            if state.jobs_left_out.len() > JOBS_MAX {
                state.jobs_left_out.pop_front();
            }
        }
        for event in events.events {
            match event.kind {
                EventKind::Log {
                    worker,
                    job_type,
                    line,
                } => self.logs().push(&key, job_type, worker, line),
                kind => wanted |= state.take_event(event.at, kind),
            }
        }
        drop(state);
        if wanted {
            view.wanted.notify(usize::MAX);
        }
        self.changed.notify(usize::MAX);
    }
}

impl View {
    pub(crate) fn lock(&self) -> MutexGuard<'_, ViewState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ViewState {
    pub(crate) fn reach(&self) -> Reach {
        match self.answered {
            None => Reach::Connecting,
            Some(at) if at.elapsed() < LOST_AFTER => Reach::Live,
            Some(_) => Reach::Lost,
        }
    }

    /// How old the picture is, by the monotonic clock.
    pub(crate) fn age_ms(&self) -> Option<u64> {
        let age = self.answered?.elapsed().as_millis();
        Some(u64::try_from(age).unwrap_or(u64::MAX))
    }

    fn touch(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(crate) fn note(&mut self, kind: &'static str, text: String) {
        self.note_at(wall(), kind, text);
    }

    fn note_at(&mut self, at: Timestamp, kind: &'static str, text: String) {
        // Told live and again as something of before.
        if self
            .notes
            .iter()
            .any(|(_, note)| note.at == at && note.text == text)
        {
            return;
        }
        let version = self.touch();
        self.notes.push_back((version, Note { at, kind, text }));
        if self.notes.len() > NOTES_MAX {
            self.notes.pop_front();
        }
    }

    /// Notes that the manager came or went.
    pub(crate) fn look(&mut self) {
        let is_live = self.reach() == Reach::Live;
        if is_live != self.was_live {
            self.was_live = is_live;
            self.overview_at = self.touch();
            let text = match (is_live, &self.trouble) {
                (true, _) => "the manager answers".to_owned(),
                (false, None) => "the manager does not answer".to_owned(),
                (false, Some(trouble)) => format!("the manager does not answer: {trouble}"),
            };
            self.note("web", text);
        }
    }

    pub(crate) fn take_info(&mut self, info: ManagerInfo) {
        let again = self
            .info
            .as_ref()
            .is_some_and(|old| old.manager == info.manager && old.started_at != info.started_at);
        if again {
            let epoch = info.epoch;
            self.note(
                "web",
                format!("the manager was started again, epoch {epoch}"),
            );
        }
        if self.info.as_ref() != Some(&info) {
            self.info = Some(info);
            self.overview_at = self.touch();
        }
    }

    pub(crate) fn take_stats(&mut self, stats: Stats) {
        self.answered = Some(Instant::now());
        self.trouble = None;
        self.stats = Some(stats);
        self.overview_at = self.touch();
        self.look();
    }

    pub(crate) fn take_workers(&mut self, workers: Vec<WorkerView>) {
        let version = self.version + 1;
        let mut changed = false;
        let present: BTreeSet<WorkerId> = workers.iter().map(|worker| worker.worker).collect();
        let gone: Vec<WorkerId> = self
            .workers
            .keys()
            .filter(|id| !present.contains(id))
            .copied()
            .collect();
        for id in gone {
            changed = true;
            self.workers.remove(&id);
            self.gone.push_back((id, version));
            if self.gone.len() > 1000
                && let Some((_, at)) = self.gone.pop_front()
            {
                self.gone_from = at;
            }
            self.timeline(id, wall(), WorkerStatus::Gone);
        }
        for worker in workers {
            let id = worker.worker;
            let old = self.workers.get(&id).map(|(old, _)| old);
            if old.map(|old| old.status) != Some(worker.status) {
                // What happened before this was looked at began with the worker itself.
                let is_new = old.is_none() && !self.timelines.contains_key(&id);
                let at = match is_new {
                    true if worker.started_at > Timestamp::ZERO => worker.started_at.min(wall()),
                    _ => wall(),
                };
                self.timeline(id, at, worker.status);
            }
            if self.workers.get(&id).is_none_or(|(old, _)| *old != worker) {
                changed = true;
                self.workers.insert(id, (worker, version));
            }
        }
        if changed {
            self.version = version;
        }
    }

    fn timeline(&mut self, id: WorkerId, at: Timestamp, status: WorkerStatus) {
        let timeline = self.timelines.entry(id).or_default();
        if timeline.back().is_some_and(|last| last.status == status) {
            return;
        }
        timeline.push_back(Availability { at, status });
        if timeline.len() > TIMELINE_MAX {
            timeline.pop_front();
        }
        if self.timelines.len() > TIMELINES_MAX {
            let workers = &self.workers;
            self.timelines.retain(|id, _| workers.contains_key(id));
        }
    }

    pub(crate) fn take_series(&mut self, series: &Series) {
        let length = series.total.arrived.len();
        for index in 0..length {
            let at = Timestamp(series.from.as_micros() + index as u64 * Step::Second.micros());
            if self.points.back().is_some_and(|last| last.at >= at) {
                continue;
            }
            let phases = series.phases.iter().map(|phase| PhasePoint {
                job_type: phase.job_type.clone(),
                point: Point::of(&phase.track, index),
            });
            self.points.push_back(Points {
                at,
                total: Point::of(&series.total, index),
                phases: phases.collect(),
            });
            if self.points.len() > POINTS_MAX {
                self.points.pop_front();
            }
        }
        self.measure();
        self.touch();
    }

    fn measure(&mut self) {
        let mut sums: BTreeMap<String, (Rates, f64)> = BTreeMap::new();
        let mut add = |name: &str, point: &Point| {
            let (rates, seconds) = sums.entry(name.to_owned()).or_default();
            rates.arrived += f64::from(point.arrived);
            rates.done += f64::from(point.done);
            rates.failed += f64::from(point.failed);
            *seconds += 1.0;
        };
        for points in self.points.iter().rev().take(RATE_SECONDS) {
            add("", &points.total);
            for phase in &points.phases {
                add(phase.job_type.as_str(), &phase.point);
            }
        }
        let average = |(name, (sum, seconds)): (String, (Rates, f64))| {
            let rates = Rates {
                arrived: sum.arrived / seconds,
                done: sum.done / seconds,
                failed: sum.failed / seconds,
            };
            (name, rates)
        };
        self.rates = sums.into_iter().map(average).collect();
    }

    /// The rates of a phase, or of the whole pipeline for the empty name.
    pub(crate) fn rates(&self, job_type: &str) -> Rates {
        match self.reach() {
            Reach::Live => self.rates.get(job_type).copied().unwrap_or_default(),
            // Nobody knows how fast a lost manager goes.
            _ => Rates::default(),
        }
    }

    /// A manager that was started anew has series and jobs of its own.
    pub(crate) fn begin_anew(&mut self) {
        self.points.clear();
        self.progress.clear();
        self.progress_order.clear();
    }

    /// Takes in an event of before, unless it is known.
    fn take_past(&mut self, at: Timestamp, kind: EventKind) {
        if let EventKind::Worker { worker, .. } = &kind {
            let timeline = self.timelines.get(worker);
            let last = timeline.and_then(VecDeque::back);
            if last.is_some_and(|last| last.at >= at) {
                return;
            }
        }
        self.take_event(at, kind);
    }

    /// Takes in an event; whether a snapshot is wanted.
    fn take_event(&mut self, at: Timestamp, kind: EventKind) -> bool {
        let version = self.touch();
        match kind {
            EventKind::Job {
                job,
                state,
                job_type,
                worker,
                error,
            } => {
                if state != JobState::Running {
                    self.forget_progress(&job);
                }
                let news = JobNews {
                    id: job,
                    state,
                    job_type,
                    worker,
                    error: error.map(|error| error.chars().take(300).collect()),
                    at,
                };
                self.jobs.push_back((version, news));
                if self.jobs.len() > JOBS_MAX {
                    self.jobs.pop_front();
                }
                false
            }
            EventKind::Worker {
                worker,
                job_type,
                status,
                host,
                slots,
            } => {
                let short = worker.short();
                // Who was only announced has not told its host yet.
                let who = match host.as_str() {
                    "" => format!("worker {short} of {job_type}"),
                    host => format!("worker {short} of {job_type} on {host}"),
                };
                let text = match status {
                    WorkerStatus::Available => format!("{who} takes work, {slots} slots"),
                    WorkerStatus::Connecting => format!("{who} is heard; its address is dialled"),
                    WorkerStatus::Draining => format!("{who} drains"),
                    WorkerStatus::Lost => format!("{who} is lost"),
                    WorkerStatus::Gone => format!("{who} left"),
                };
                self.note_at(at, "worker", text);
                self.timeline(worker, at, status);
                true
            }
            EventKind::Progress {
                worker,
                job_type,
                item,
            } => {
                self.forget_progress(&item.job);
                let news = ProgressNews {
                    job: item.job.clone(),
                    job_type,
                    worker,
                    fraction: item.fraction,
                    text: item.text,
                    at,
                };
                self.progress_order.insert((version, item.job.clone()));
                self.progress.insert(item.job, (version, news));
                while self.progress.len() > PROGRESS_MAX
                    && let Some((_, job)) = self.progress_order.pop_first()
                {
                    self.progress.remove(&job);
                }
                false
            }
            EventKind::Manager { state, reason } => {
                let state = match state {
                    ManagerState::Adopting => "adopting",
                    ManagerState::Running => "running",
                    ManagerState::Paused => "paused",
                    ManagerState::Impaired => "impaired",
                    ManagerState::Draining => "draining",
                };
                self.note_at(at, "manager", format!("{state}: {reason}"));
                true
            }
            EventKind::Action { text, .. } => {
                self.note_at(at, "action", text);
                true
            }
            EventKind::Log { .. } => false,
        }
    }

    fn forget_progress(&mut self, job: &JobId) {
        if let Some((version, _)) = self.progress.remove(job) {
            self.progress_order.remove(&(version, job.clone()));
        }
    }
}
