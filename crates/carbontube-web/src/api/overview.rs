//! Pipelines as a whole: the overview, the series, the event log, readiness.

use carbontube_protocol::Timestamp;
use carbontube_protocol::message::{
    FailureKind, JournalView, ManagerInfo, ManagerState, Step, WorkerStatus,
};
use serde::Serialize;
use serde_json::json;

use super::{App, Parts, problem};
use crate::request::{Problem, Request, Response};
use crate::state::{Rates, Reach, View, ViewState, wall};

/// A pipeline as pages see it.
#[derive(Debug, Serialize)]
pub(crate) struct PipelineOverview {
    /// The name in paths of the API.
    key: String,
    api: String,
    reach: Reach,
    age_ms: Option<u64>,
    trouble: Option<String>,
    manager: Option<ManagerInfo>,
    state: Option<ManagerState>,
    at: Option<Timestamp>,
    live: u64,
    enqueued: u64,
    success: u64,
    failed: u64,
    cancelled: u64,
    duplicates: u64,
    duplicate_causes: Vec<(String, u64)>,
    reruns: u64,
    rerun_causes: Vec<(String, u64)>,
    rates: Rates,
    workers: WorkerCounts,
    journal: Option<JournalView>,
    counters: Vec<(String, u64)>,
    phases: Vec<PhaseOverview>,
}

#[derive(Debug, Default, Serialize)]
struct WorkerCounts {
    available: u64,
    connecting: u64,
    draining: u64,
    lost: u64,
}

#[derive(Debug, Serialize)]
struct PhaseOverview {
    job_type: String,
    paused: bool,
    enqueued: u64,
    scheduled: u64,
    running: u64,
    failed: u64,
    /// How long the oldest waiting job has waited, by the manager's clock.
    oldest_wait_ms: Option<u64>,
    workers: u32,
    slots: u32,
    done: u64,
    failures: Vec<(FailureKind, u64)>,
    duration_us: u64,
    rates: Rates,
    /// How long the backlog takes at this rate; `None` when it does not shrink.
    drain_s: Option<f64>,
}

/// A pipeline as pages see it.
pub(crate) fn pipeline_view(view: &View, state: &ViewState) -> PipelineOverview {
    let mut workers = WorkerCounts::default();
    for (worker, _) in state.workers.values() {
        match worker.status {
            WorkerStatus::Available => workers.available += 1,
            WorkerStatus::Connecting => workers.connecting += 1,
            WorkerStatus::Draining => workers.draining += 1,
            WorkerStatus::Lost => workers.lost += 1,
            WorkerStatus::Gone => {}
        }
    }
    let stats = state.stats.as_ref();
    let phases = stats.map_or(Vec::new(), |stats| {
        let phases = stats.phases.iter().map(|phase| {
            let rates = state.rates(phase.job_type.as_str());
            let wait = phase.oldest_at.map(|since| stats.at.since(since));
            PhaseOverview {
                job_type: phase.job_type.to_string(),
                paused: phase.paused,
                enqueued: phase.enqueued,
                scheduled: phase.scheduled,
                running: phase.running,
                failed: phase.failed,
                oldest_wait_ms: wait
                    .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
                workers: phase.workers,
                slots: phase.slots,
                done: phase.done,
                failures: phase.failures.clone(),
                duration_us: phase.duration_us,
                rates,
                drain_s: drain_seconds(phase.enqueued + phase.scheduled, rates),
            }
        });
        phases.collect()
    });
    let count = |of: fn(&carbontube_protocol::message::Stats) -> u64| stats.map_or(0, of);
    PipelineOverview {
        key: state.key.clone(),
        api: view.address.to_string(),
        reach: state.reach(),
        age_ms: state.age_ms(),
        trouble: state.trouble.clone(),
        manager: state.info.clone(),
        state: stats.map(|stats| stats.state),
        at: stats.map(|stats| stats.at),
        live: count(|stats| stats.live),
        enqueued: count(|stats| stats.enqueued),
        success: count(|stats| stats.success),
        failed: count(|stats| stats.failed),
        cancelled: count(|stats| stats.cancelled),
        duplicates: count(|stats| stats.duplicates),
        duplicate_causes: stats.map_or(Vec::new(), |stats| stats.duplicate_causes.clone()),
        reruns: count(|stats| stats.reruns),
        rerun_causes: stats.map_or(Vec::new(), |stats| stats.rerun_causes.clone()),
        rates: state.rates(""),
        workers,
        journal: stats.map(|stats| stats.journal.clone()),
        counters: stats.map_or(Vec::new(), |stats| stats.counters.clone()),
        phases,
    }
}

fn drain_seconds(backlog: u64, rates: Rates) -> Option<f64> {
    if backlog == 0 {
        return Some(0.0);
    }
    let shrinks = rates.done - rates.arrived;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    (shrinks > 0.001).then(|| (backlog as f64 / shrinks).round())
}

pub(super) fn overview(app: &App) -> Response {
    let views = app.hub.views.iter();
    let pipelines: Vec<_> = views
        .map(|view| pipeline_view(view, &view.lock()))
        .collect();
    Response::json(&json!({
        "now": wall(),
        "version": env!("CARGO_PKG_VERSION"),
        "read_only": app.access.read_only(),
        "token": app.access.needs_token(),
        "pipelines": pipelines,
    }))
}

pub(super) fn pipeline(app: &App, parts: &Parts) -> Result<Response, Problem> {
    let view = app.view(parts)?;
    Ok(Response::json(&pipeline_view(view, &view.lock())))
}

pub(super) fn notes(app: &App, parts: &Parts) -> Result<Response, Problem> {
    let view = app.view(parts)?;
    let state = view.lock();
    let notes: Vec<_> = state.notes.iter().map(|(_, note)| note).collect();
    Ok(Response::json(&json!({ "notes": notes })))
}

pub(super) async fn series(
    app: &App,
    request: &Request,
    parts: &Parts,
) -> Result<Response, Problem> {
    let view = app.view(parts)?;
    let step = match request.parameter("step") {
        None | Some("second") => Step::Second,
        Some("minute") => Step::Minute,
        Some(other) => {
            let message = format!("step is second or minute, not {other:?}");
            return Err(Problem::bad(message));
        }
    };
    let points = number(request, "points")?.unwrap_or(1440);
    let since = number(request, "since")?.map(Timestamp);
    let client = app.client(view).await?;
    let points = u32::try_from(points).unwrap_or(u32::MAX);
    let series = client.series(step, since, points).await.map_err(problem)?;
    Ok(Response::json(&series))
}

pub(super) async fn latencies(app: &App, parts: &Parts) -> Result<Response, Problem> {
    let client = app.client(app.view(parts)?).await?;
    let latencies = client.latencies().await.map_err(problem)?;
    Ok(Response::json(&latencies))
}

/// Ready when every manager answers.
pub(super) fn ready(app: &App) -> Result<Response, Problem> {
    let mut missing = Vec::new();
    for view in &app.hub.views {
        if view.lock().reach() != Reach::Live {
            missing.push(view.address.to_string());
        }
    }
    if missing.is_empty() {
        let text = "ok\n".to_owned();
        return Ok(Response::text("text/plain; charset=utf-8", text));
    }
    let message = format!("no answer from {}", missing.join(", "));
    Err(Problem::new(503, "lost", message))
}

/// A number in the query.
pub(super) fn number(request: &Request, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = request.parameter(name) else {
        return Ok(None);
    };
    let number = text.parse().map(Some);
    number.map_err(|_| Problem::bad(format!("{name} is a whole number, not {text:?}")))
}
