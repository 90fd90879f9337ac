//! Jobs: search, one job with all about it, its instructions, failures in groups.

use std::time::{Duration, Instant};

use bytes::Bytes;
use carbontube_protocol::message::{Found, JobSearch, JobState};
use carbontube_protocol::{JobId, JobType, Timestamp, WorkerId};
use serde_json::json;

use super::overview::number;
use super::{App, Parts, problem};
use crate::logs::LogFilter;
use crate::preview::Preview;
use crate::request::{Problem, Request, Response, ResponseBody, encode};

/// How many jobs a page gets when it does not say.
const JOBS_DEFAULT: u64 = 50;
const JOBS_MAX: u64 = 500;
/// How long one request goes on searching before it hands back what it has.
const SEARCH_MAX: Duration = Duration::from_millis(1500);
/// How many log lines stand on a job's page.
const JOB_LINES_MAX: usize = 200;

/// What a request looks for.
fn search_of(request: &Request) -> Result<JobSearch, Problem> {
    let text = |name| request.parameter(name).map(str::to_owned);
    let mut states = Vec::new();
    for name in request.parameter("state").unwrap_or("").split(',') {
        match JobState::ALL
            .into_iter()
            .find(|state| state.as_str() == name)
        {
            Some(state) => states.push(state),
            None if name.is_empty() => {}
            None => {
                let known: Vec<&str> = JobState::ALL.iter().map(|s| s.as_str()).collect();
                let message = format!("{name:?} is no state; states are {}", known.join(", "));
                return Err(Problem::bad(message));
            }
        }
    }
    Ok(JobSearch {
        states,
        phase: phase(request)?,
        id_prefix: text("id"),
        error: text("error"),
        text: text("text"),
        group: text("group"),
        worker: worker(request)?,
        enqueued_from: number(request, "enqueued_from")?.map(Timestamp),
        enqueued_before: number(request, "enqueued_before")?.map(Timestamp),
        changed_from: number(request, "changed_from")?.map(Timestamp),
        changed_before: number(request, "changed_before")?.map(Timestamp),
    })
}

/// The phase that the query names.
pub(super) fn phase(request: &Request) -> Result<Option<JobType>, Problem> {
    let name = request.parameter("phase");
    let phase = name.map(JobType::new).transpose();
    phase.map_err(|error| Problem::bad(error.to_string()))
}

/// The worker that the query names.
pub(super) fn worker(request: &Request) -> Result<Option<WorkerId>, Problem> {
    let Some(text) = request.parameter("worker") else {
        return Ok(None);
    };
    let worker = text.parse().map(Some);
    worker.map_err(|_| Problem::bad(format!("{text:?} is no worker's id")))
}

pub(super) async fn search(
    app: &App,
    request: &Request,
    parts: &Parts,
) -> Result<Response, Problem> {
    let view = app.view(parts)?;
    let search = search_of(request)?;
    let limit = number(request, "limit")?
        .unwrap_or(JOBS_DEFAULT)
        .clamp(1, JOBS_MAX);
    let client = app.client(view).await?;
    let began = Instant::now();
    let mut all = Found::default();
    let mut after = request.parameter("after").map(str::to_owned);
    loop {
        let left = limit - all.jobs.len() as u64;
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let found = client
            .search(search.clone(), after, left)
            .await
            .map_err(problem)?;
        all.looked_at += found.looked_at;
        all.jobs.extend(found.jobs);
        all.next = found.next;
        let done = all.next.is_none() || all.jobs.len() as u64 >= limit;
        if done || began.elapsed() > SEARCH_MAX {
            return Ok(Response::json(&all));
        }
        after = all.next.clone();
    }
}

/// The job that the path names.
fn id(parts: &Parts) -> Result<JobId, Problem> {
    let text = parts.get("job").map_or("", String::as_str);
    JobId::new(text).map_err(|error| Problem::bad(error.to_string()))
}

pub(super) async fn job(app: &App, parts: &Parts) -> Result<Response, Problem> {
    let view = app.view(parts)?;
    let id = id(parts)?;
    let client = app.client(view).await?;
    let detail = client.job(&id).await.map_err(problem)?;
    let (key, progress, phases) = {
        let state = view.lock();
        let progress = state.progress.get(&id).map(|(_, news)| news.clone());
        let phases = state.info.as_ref().map(|info| info.phases.clone());
        (state.key.clone(), progress, phases.unwrap_or_default())
    };
    let filter = LogFilter {
        pipeline: Some(key.clone()),
        job: Some(id.clone()),
        ..LogFilter::default()
    };
    let logs = app.hub.logs().latest(&filter, 0, JOB_LINES_MAX);
    let id = encode(&id.to_string());
    let href = format!("/api/v1/pipelines/{}/jobs/{id}/instructions", encode(&key));
    let attempts: Vec<_> = detail
        .attempts
        .iter()
        .map(|attempt| {
            let took = attempt.finished_at.since(attempt.started_at).as_micros();
            let is_timed = attempt.started_at > Timestamp::ZERO;
            json!({
                "phase": attempt.phase,
                "job_type": phases.get(usize::from(attempt.phase)),
                "worker": attempt.worker,
                "started_at": attempt.started_at,
                "finished_at": attempt.finished_at,
                "duration_us": is_timed.then_some(took),
                "failure": attempt.failure,
                "error": attempt.error,
            })
        })
        .collect();
    Ok(Response::json(&json!({
        "job": detail.view,
        "phases": phases,
        "error": detail.error,
        "failure": detail.failure,
        "not_before": detail.not_before,
        "traceparent": detail.traceparent,
        "attempts": attempts,
        "progress": progress,
        "instructions": Preview::of(&detail.instructions, href),
        "logs": logs,
    })))
}

pub(super) async fn instructions(app: &App, parts: &Parts) -> Result<Response, Problem> {
    let view = app.view(parts)?;
    let id = id(parts)?;
    let client = app.client(view).await?;
    let detail = client.job(&id).await.map_err(problem)?;
    let name: String = id
        .to_string()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let body: Bytes = detail.instructions;
    let response = Response {
        status: 200,
        content_type: "application/json",
        headers: Vec::new(),
        body: ResponseBody::Shared(body),
    };
    // Never shown as a page, whatever is in it.
    let disposition = format!("attachment; filename=\"{name}.json\"");
    Ok(response.header("content-disposition", disposition))
}

pub(super) async fn failures(app: &App, parts: &Parts) -> Result<Response, Problem> {
    let client = app.client(app.view(parts)?).await?;
    let groups = client.failures().await.map_err(problem)?;
    Ok(Response::json(&json!({ "groups": groups })))
}
