//! The routes of the Carbontube of 2016, for what was built on them.

use std::collections::BTreeMap;

use carbontube_protocol::message::{JobSearch, JobState, WorkerStatus};
use serde_json::{Value, json};

use super::{App, problem};
use crate::request::{Problem, Response};
use crate::state::Reach;

/// How many jobs of one state are listed.
const JOBS_MAX: u32 = 100;

pub(super) fn pipelines(app: &App) -> Response {
    let keys = app.hub.views.iter().map(|view| view.lock().key.clone());
    let keys: Vec<String> = keys.filter(|key| !key.is_empty()).collect();
    Response::json(&keys)
}

pub(super) fn queues(app: &App) -> Response {
    let mut queues: Vec<String> = Vec::new();
    for view in &app.hub.views {
        let state = view.lock();
        for phase in state.info.iter().flat_map(|info| &info.phases) {
            if !queues.contains(&phase.to_string()) {
                queues.push(phase.to_string());
            }
        }
    }
    Response::json(&queues)
}

/// The workers that take work, those heard of first in front.
pub(super) fn workers(app: &App) -> Response {
    let mut workers = Vec::new();
    for view in &app.hub.views {
        let state = view.lock();
        if state.reach() != Reach::Live {
            continue;
        }
        for (worker, _) in state.workers.values() {
            if worker.status == WorkerStatus::Available {
                let seconds = worker.last_seen_at.as_micros() / 1_000_000;
                let view = json!({
                    "id": worker.worker,
                    "address": worker.address,
                    "job_type": worker.job_type,
                    "phase_name": worker.job_type,
                    "success_count": worker.success_count,
                    "failed_count": worker.failed_count,
                    "checkin": seconds,
                });
                workers.push((worker.last_seen_at, worker.worker, view));
            }
        }
    }
    workers.sort_by_key(|(seen, id, _)| (*seen, *id));
    let workers: Vec<Value> = workers.into_iter().map(|(_, _, view)| view).collect();
    Response::json(&workers)
}

/// The newest jobs by state, then by job type; `mainstream` are the ids of those that are
/// to run, `sink` of those that are done.
pub(super) async fn jobs(app: &App) -> Result<Response, Problem> {
    let mut by_state: BTreeMap<&str, BTreeMap<String, Vec<Value>>> = BTreeMap::new();
    let (mut mainstream, mut sink) = (Vec::new(), Vec::new());
    for view in &app.hub.views {
        if view.lock().reach() != Reach::Live {
            continue;
        }
        let client = app.client(view).await?;
        for state in JobState::ALL {
            let search = JobSearch {
                states: vec![state],
                ..JobSearch::default()
            };
            let found = client
                .search(search, None, JOBS_MAX)
                .await
                .map_err(problem)?;
            for job in found.jobs {
                match state {
                    JobState::Enqueued => mainstream.push(job.id.clone()),
                    JobState::Success => sink.push(job.id.clone()),
                    _ => {}
                }
                let of_type = by_state.entry(state.as_str()).or_default();
                let jobs = of_type.entry(job.job_type.to_string()).or_default();
                jobs.push(json!({
                    "id": job.id,
                    "job_type": job.job_type,
                    "state": job.state,
                    "enqueued_at": job.enqueued_at.as_micros() / 1_000_000,
                    "error": job.error,
                }));
            }
        }
    }
    let mut all = json!(by_state);
    all["mainstream"] = json!(mainstream);
    all["sink"] = json!(sink);
    Ok(Response::json(&all))
}
