//! The event stream of one page: what differs from what it was sent before, at a bounded
//! pace. There is no queue: a page that reads slowly is told the latest state later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_io::Timer;
use carbontube_protocol::{JobId, Timestamp};
use futures_lite::future;
use serde::Serialize;
use serde_json::json;

use crate::api::overview::pipeline_view;
use crate::api::workers::worker_view;
use crate::logs::LogFilter;
use crate::sessions::Lease;
use crate::state::{Hub, ViewState, wall};

/// How often a page hears at least how old its picture is.
const CLOCK: Duration = Duration::from_secs(1);
/// The most jobs' changes, log lines and progress in one message.
const JOBS_MAX: usize = 100;
const LINES_MAX: usize = 200;
const PROGRESS_MAX: usize = 200;

/// What a page may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Pipelines,
    Workers,
    Points,
    Jobs,
    Progress,
    Logs,
    Notes,
}

impl Topic {
    pub(crate) const ALL: [(&'static str, Topic); 7] = [
        ("pipelines", Topic::Pipelines),
        ("workers", Topic::Workers),
        ("points", Topic::Points),
        ("jobs", Topic::Jobs),
        ("progress", Topic::Progress),
        ("logs", Topic::Logs),
        ("notes", Topic::Notes),
    ];
}

/// What one page follows.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) topics: BTreeSet<Topic>,
    /// One pipeline's key; all without.
    pub(crate) pipeline: Option<String>,
    /// Only changes and progress of this job.
    pub(crate) job: Option<JobId>,
    pub(crate) logs: LogFilter,
    /// The last log line that the page has.
    pub(crate) logs_after: Option<u64>,
}

/// Counts what is open at once: pages, large answers.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Seat {
    /// One more, if there is room.
    pub(crate) fn take(count: &Arc<AtomicUsize>, most: usize) -> Option<Seat> {
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < most).then_some(n + 1)
        });
        taken.ok().map(|_| Seat(count.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far a page is with one manager.
#[derive(Clone, Debug, Default)]
struct Seen {
    version: u64,
    point: Timestamp,
}

/// A page and what it was sent.
#[derive(Debug)]
pub(crate) struct Page {
    hub: Arc<Hub>,
    wish: Wish,
    hello: Option<serde_json::Value>,
    pace: Duration,
    seen: BTreeMap<usize, Seen>,
    log_seen: u64,
    sent: Option<Instant>,
    clock: Option<Instant>,
    /// The session that it must not outlive.
    lease: Option<Lease>,
    _seat: Seat,
}

impl Page {
    pub(crate) fn new(
        hub: Arc<Hub>,
        wish: Wish,
        hello: serde_json::Value,
        pace: Duration,
        lease: Option<Lease>,
        seat: Seat,
    ) -> Page {
        let last = hub.logs().last();
        // Only this process's numbers mean anything; a page of another one begins anew.
        let log_seen = wish.logs_after.filter(|after| *after <= last).unwrap_or(0);
        Page {
            hub,
            wish,
            hello: Some(hello),
            pace,
            seen: BTreeMap::new(),
            log_seen,
            sent: None,
            clock: None,
            lease,
            _seat: seat,
        }
    }
}

fn put(out: &mut Vec<u8>, event: &str, data: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    // JSON has no line ends of its own, so the data is one line.
    if serde_json::to_writer(&mut *out, data).is_err() {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b"\n\n");
}

impl Page {
    /// Waits for news and puts them into bytes; `None` once nobody may have them any more.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        if let Some(hello) = self.hello.take() {
            out.extend_from_slice(b"retry: 1000\n");
            put(&mut out, "hello", &hello);
        }
        loop {
            let changed = self.hub.changed.listen();
            if let Some(sent) = self.sent {
                Timer::at(sent + self.pace).await;
            }
            self.gather(&mut out);
            let due = self.clock.is_none_or(|clock| clock.elapsed() >= CLOCK);
            if due {
                self.clock = Some(Instant::now());
                self.put_clock(&mut out);
            }
            if !out.is_empty() {
                self.sent = Some(Instant::now());
                return self.is_allowed().then_some(out);
            }
            let next = self.clock.map_or_else(Instant::now, |clock| clock + CLOCK);
            let tick = async {
                Timer::at(next).await;
            };
            future::or(changed, tick).await;
        }
    }

    fn is_allowed(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_open)
    }

    fn wants(&self, topic: Topic) -> bool {
        self.wish.topics.contains(&topic)
    }

    fn put_clock(&self, out: &mut Vec<u8>) {
        let mut pipelines = serde_json::Map::new();
        for view in &self.hub.views {
            let mut state = view.lock();
            state.look();
            let name = if state.key.is_empty() {
                view.address.to_string()
            } else {
                state.key.clone()
            };
            let told = json!({ "reach": state.reach(), "age_ms": state.age_ms() });
            pipelines.insert(name, told);
        }
        put(
            out,
            "clock",
            &json!({ "now": wall(), "pipelines": pipelines }),
        );
    }

    fn gather(&mut self, out: &mut Vec<u8>) {
        let hub = self.hub.clone();
        let mut overviews = Vec::new();
        for (index, view) in hub.views.iter().enumerate() {
            let seen = self.seen.get(&index).cloned().unwrap_or_default();
            let fresh = !self.seen.contains_key(&index);
            let state = view.lock();
            let wanted = self.wish.pipeline.as_ref();
            if wanted.is_some_and(|wanted| *wanted != state.key) {
                continue;
            }
            if !fresh && state.version == seen.version {
                continue;
            }
            let mut now = Seen {
                version: state.version,
                point: seen.point,
            };
            if self.wants(Topic::Pipelines) && (fresh || state.overview_at > seen.version) {
                overviews.push(pipeline_view(view, &state));
            }
            if self.wants(Topic::Workers) {
                put_workers(out, &state, &seen, fresh);
            }
            if self.wants(Topic::Points) {
                now.point = put_points(out, &state, &seen, fresh);
            }
            if self.wants(Topic::Jobs) {
                self.put_jobs(out, &state, &seen);
            }
            if self.wants(Topic::Progress) {
                self.put_progress(out, &state, &seen);
            }
            if self.wants(Topic::Notes) {
                put_notes(out, &state, &seen);
            }
            self.seen.insert(index, now);
        }
        if !overviews.is_empty() {
            let data = json!({ "now": wall(), "pipelines": overviews });
            put(out, "pipelines", &data);
        }
        if self.wants(Topic::Logs) {
            let lines = hub.logs().latest(&self.wish.logs, self.log_seen, LINES_MAX);
            self.log_seen = lines.next;
            if !lines.lines.is_empty() || lines.left_out > 0 {
                out.extend_from_slice(format!("id: {}\n", lines.next).as_bytes());
                put(out, "logs", &lines);
            }
        }
    }

    fn put_jobs(&self, out: &mut Vec<u8>, state: &ViewState, seen: &Seen) {
        let mut latest = BTreeMap::new();
        let mut left_out: u64 = 0;
        for (version, news) in state.jobs.iter().rev() {
            if *version <= seen.version {
                break;
            }
            if self.wish.job.as_ref().is_some_and(|job| *job != news.id) {
                continue;
            }
            if latest.contains_key(&news.id) {
                continue;
            }
            if latest.len() < JOBS_MAX {
                latest.insert(news.id.clone(), news);
            } else {
                left_out += 1;
            }
        }
        let dropped = state.jobs_left_out.iter();
        let dropped = dropped.filter(|(version, _)| *version > seen.version);
        left_out += dropped.map(|(_, count)| count).sum::<u64>();
        if latest.is_empty() && (left_out == 0 || self.wish.job.is_some()) {
            return;
        }
        let jobs: Vec<_> = latest.values().collect();
        let data = json!({ "pipeline": state.key, "jobs": jobs, "left_out": left_out });
        put(out, "jobs", &data);
    }

    fn put_progress(&self, out: &mut Vec<u8>, state: &ViewState, seen: &Seen) {
        let news = state.progress.values();
        let news = news.filter(|(version, item)| {
            *version > seen.version && self.wish.job.as_ref().is_none_or(|job| *job == item.job)
        });
        let items: Vec<_> = news.map(|(_, item)| item).take(PROGRESS_MAX).collect();
        if !items.is_empty() {
            let data = json!({ "pipeline": state.key, "items": items });
            put(out, "progress", &data);
        }
    }
}

fn put_workers(out: &mut Vec<u8>, state: &ViewState, seen: &Seen, fresh: bool) {
    let full = fresh || seen.version < state.gone_from;
    let changed = state.workers.values();
    let changed: Vec<_> = changed
        .filter(|(_, version)| full || *version > seen.version)
        .map(|(worker, _)| worker_view(worker, state))
        .collect();
    let gone = state
        .gone
        .iter()
        .filter(|(_, version)| *version > seen.version);
    let gone: Vec<_> = gone.map(|(id, _)| id).collect();
    if !full && changed.is_empty() && gone.is_empty() {
        return;
    }
    let data = json!({
        "pipeline": state.key,
        "full": full,
        "workers": changed,
        "gone": if full { Vec::new() } else { gone },
    });
    put(out, "workers", &data);
}

fn put_points(out: &mut Vec<u8>, state: &ViewState, seen: &Seen, fresh: bool) -> Timestamp {
    let last = state.points.back().map_or(seen.point, |last| last.at);
    // The page asks for the past by itself; the stream goes on from now.
    if !fresh && last > seen.point {
        let points = state.points.iter().filter(|points| points.at > seen.point);
        let points: Vec<_> = points.collect();
        put(
            out,
            "points",
            &json!({ "pipeline": state.key, "points": points }),
        );
    }
    last
}

fn put_notes(out: &mut Vec<u8>, state: &ViewState, seen: &Seen) {
    let notes = state
        .notes
        .iter()
        .filter(|(version, _)| *version > seen.version);
    let notes: Vec<_> = notes.map(|(_, note)| note).collect();
    if !notes.is_empty() {
        put(
            out,
            "notes",
            &json!({ "pipeline": state.key, "notes": notes }),
        );
    }
}
