//! The recent history in numbers: a point for each second and for each minute, of a
//! bounded number of them. It is not journaled: it begins anew with each start.

use std::collections::VecDeque;

use carbontube_protocol::Timestamp;
use carbontube_protocol::message::{self, Latencies, PhaseLatencies, PhaseTrack, Step, Track};

use super::histogram::Histogram;
use super::machine::Core;

/// Ten minutes of seconds.
const SECONDS_MAX: usize = 600;
/// A day of minutes.
const MINUTES_MAX: usize = 1440;
/// The most points of all phases together in one answer, so that it fits a message.
const ANSWER_POINTS_MAX: usize = 40_000;

/// What is measured, of the whole pipeline and of each phase.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) total: Meter,
    pub(super) phases: Vec<Meter>,
    /// When the steps under way began.
    second: Timestamp,
    minute: Timestamp,
}

/// How many jobs wait and run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gauges {
    pub(super) backlog: u64,
    pub(super) running: u64,
}

/// One thing that is measured.
#[derive(Debug, Default)]
pub(super) struct Meter {
    second: Open,
    minute: Open,
    seconds: VecDeque<Point>,
    minutes: VecDeque<Point>,
    duration: Histogram,
    wait: Histogram,
}

/// A step under way.
#[derive(Debug, Default)]
struct Open {
    arrived: u32,
    done: u32,
    failed: u32,
    duration: Histogram,
    wait: Histogram,
}

/// A closed step.
#[derive(Clone, Copy, Debug)]
struct Point {
    arrived: u32,
    done: u32,
    failed: u32,
    backlog: u32,
    running: u32,
    duration: (u64, u64),
    wait: (u64, u64),
}

impl Open {
    fn close(&mut self, gauges: Gauges) -> Point {
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let point = Point {
            arrived: std::mem::take(&mut self.arrived),
            done: std::mem::take(&mut self.done),
            failed: std::mem::take(&mut self.failed),
            backlog: narrow(gauges.backlog),
            running: narrow(gauges.running),
            duration: (self.duration.quantile(500), self.duration.quantile(990)),
            wait: (self.wait.quantile(500), self.wait.quantile(990)),
        };
        self.duration.clear();
        self.wait.clear();
        point
    }
}

fn push(ring: &mut VecDeque<Point>, point: Point, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(point);
}

impl Meter {
    pub(super) fn arrived(&mut self) {
        self.second.arrived = self.second.arrived.saturating_add(1);
        self.minute.arrived = self.minute.arrived.saturating_add(1);
    }

    pub(super) fn done(&mut self) {
        self.second.done = self.second.done.saturating_add(1);
        self.minute.done = self.minute.done.saturating_add(1);
    }

    pub(super) fn failed(&mut self) {
        self.second.failed = self.second.failed.saturating_add(1);
        self.minute.failed = self.minute.failed.saturating_add(1);
    }

    pub(super) fn took(&mut self, micros: u64) {
        self.second.duration.record(micros);
        self.minute.duration.record(micros);
        self.duration.record(micros);
    }

    pub(super) fn waited(&mut self, micros: u64) {
        self.second.wait.record(micros);
        self.minute.wait.record(micros);
        self.wait.record(micros);
    }

    fn track(&self, step: Step, skip: usize) -> Track {
        let ring = match step {
            Step::Second => &self.seconds,
            Step::Minute => &self.minutes,
        };
        let mut track = Track::default();
        for point in ring.iter().skip(skip) {
            track.arrived.push(point.arrived);
            track.done.push(point.done);
            track.failed.push(point.failed);
            track.p50_us.push(point.duration.0);
            track.p99_us.push(point.duration.1);
            track.wait_p50_us.push(point.wait.0);
            track.wait_p99_us.push(point.wait.1);
            track.backlog.push(point.backlog);
            track.running.push(point.running);
        }
        track
    }
}

fn floor(at: Timestamp, step: Step) -> Timestamp {
    Timestamp(at.as_micros() / step.micros() * step.micros())
}

impl Series {
    pub(super) fn new(phases: usize, now: Timestamp) -> Self {
        Series {
            total: Meter::default(),
            phases: (0..phases).map(|_| Meter::default()).collect(),
            second: floor(now, Step::Second),
            minute: floor(now, Step::Minute),
        }
    }

    /// Whether a step has ended by now.
    fn is_due(&self, now: Timestamp) -> bool {
        now.as_micros() >= self.second.as_micros() + Step::Second.micros()
    }

    /// Closes the steps that have ended. Nothing happened since the last input, so what
    /// waits and runs now did so at the end of each of them.
    fn advance(&mut self, now: Timestamp, total: Gauges, phases: &[Gauges]) {
        let mut meters: Vec<(&mut Meter, Gauges)> = vec![(&mut self.total, total)];
        meters.extend(self.phases.iter_mut().zip(phases.iter().copied()));
        let seconds = steps(self.second, now, Step::Second);
        let minutes = steps(self.minute, now, Step::Minute);
        for (meter, gauges) in &mut meters {
            for _ in 0..seconds.min(SECONDS_MAX as u64 + 1) {
                let point = meter.second.close(*gauges);
                push(&mut meter.seconds, point, SECONDS_MAX);
            }
            for _ in 0..minutes.min(MINUTES_MAX as u64 + 1) {
                let point = meter.minute.close(*gauges);
                push(&mut meter.minutes, point, MINUTES_MAX);
            }
        }
        self.second = floor(now, Step::Second);
        self.minute = floor(now, Step::Minute);
    }
}

fn steps(from: Timestamp, now: Timestamp, step: Step) -> u64 {
    now.as_micros().saturating_sub(from.as_micros()) / step.micros()
}

impl Core {
    /// Closes the steps of the series that have ended: called before each input.
    pub(super) fn advance_series(&mut self, now: Timestamp) {
        if !self.series.is_due(now) {
            return;
        }
        let mut total = Gauges::default();
        let mut phases = Vec::with_capacity(self.phases.len());
        for phase in 0..self.phases.len() {
            let counts = self.jobs.counts(phase);
            let gauges = Gauges {
                backlog: counts.enqueued + counts.scheduled,
                running: counts.running,
            };
            total.backlog += gauges.backlog;
            total.running += gauges.running;
            phases.push(gauges);
        }
        self.series.advance(now, total, &phases);
    }

    pub(super) fn series_view(
        &self,
        step: Step,
        since: Option<Timestamp>,
        points: u32,
    ) -> message::Series {
        let series = &self.series;
        let (held, end) = match step {
            Step::Second => (series.total.seconds.len(), series.second),
            Step::Minute => (series.total.minutes.len(), series.minute),
        };
        let begin = end.as_micros().saturating_sub(held as u64 * step.micros());
        let early = since.map_or(0, |since| {
            let before = since.as_micros().saturating_sub(begin);
            usize::try_from(before.div_ceil(step.micros())).unwrap_or(usize::MAX)
        });
        let most = (ANSWER_POINTS_MAX / (series.phases.len() + 1)).max(1);
        let most = most.min(points as usize);
        let skip = early.min(held).max(held - held.min(most));
        let names = self.definition.phases().iter().map(|phase| &phase.job_type);
        let track = |(name, meter): (&carbontube_protocol::JobType, &Meter)| PhaseTrack {
            job_type: name.clone(),
            track: meter.track(step, skip),
        };
        message::Series {
            step,
            from: Timestamp(begin + skip as u64 * step.micros()),
            total: series.total.track(step, skip),
            phases: names.zip(&series.phases).map(track).collect(),
        }
    }

    pub(super) fn latencies_view(&self) -> Latencies {
        let names = self.definition.phases().iter().map(|phase| &phase.job_type);
        let phase = |(name, meter): (&carbontube_protocol::JobType, &Meter)| PhaseLatencies {
            job_type: name.clone(),
            duration: meter.duration.view(),
            wait: meter.wait.view(),
        };
        Latencies {
            since: self.started_at,
            total: self.series.total.duration.view(),
            phases: names.zip(&self.series.phases).map(phase).collect(),
        }
    }
}
