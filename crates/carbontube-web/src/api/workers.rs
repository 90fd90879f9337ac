//! Workers, with what became of them.

use carbontube_protocol::message::WorkerView;
use serde::Serialize;
use serde_json::json;

use super::{App, Parts};
use crate::request::{Problem, Response};
use crate::state::{Availability, ViewState};

/// A worker as pages see it.
#[derive(Debug, Serialize)]
pub(crate) struct WorkerOverview<'a> {
    #[serde(flatten)]
    worker: &'a WorkerView,
    /// How many of a hundred attempts succeeded there; `None` before the first.
    score: Option<u64>,
    /// Its availability since it is watched, oldest first.
    timeline: Vec<&'a Availability>,
}

pub(crate) fn worker_view<'a>(worker: &'a WorkerView, state: &'a ViewState) -> WorkerOverview<'a> {
    let ended = worker.success_count + worker.failed_count;
    let timeline = state.timelines.get(&worker.worker);
    WorkerOverview {
        worker,
        score: (worker.success_count * 100).checked_div(ended),
        timeline: timeline.into_iter().flatten().collect(),
    }
}

pub(super) fn workers(app: &App, parts: &Parts) -> Result<Response, Problem> {
    let view = app.view(parts)?;
    let state = view.lock();
    let workers: Vec<_> = state
        .workers
        .values()
        .map(|(worker, _)| worker_view(worker, &state))
        .collect();
    Ok(Response::json(&json!({
        "at": state.stats.as_ref().map(|stats| stats.at),
        "age_ms": state.age_ms(),
        "workers": workers,
    })))
}
