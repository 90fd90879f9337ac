//! Changes: retry, cancel, discard, pause, resume, drain.

use carbontube_client::{Changed, PipelineClient};
use carbontube_protocol::message::{JobFilter, Selector};
use carbontube_protocol::{JobId, JobType, WorkerId};
use serde::Deserialize;
use serde_json::json;

use super::{App, Parts, problem};
use crate::request::{Problem, Request, Response};

/// The most jobs that one change names.
const IDS_MAX: usize = 1000;
/// How many jobs of a group are changed in one go, so that no change holds up the rest.
const GROUP_STEP: u64 = 5000;

/// What a request wants changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    action: Verb,
    /// These jobs.
    #[serde(default)]
    ids: Option<Vec<JobId>>,
    /// The failed jobs of this group.
    #[serde(default)]
    group: Option<String>,
    /// So many of the group, those that failed first.
    #[serde(default)]
    limit: Option<u64>,
    /// All jobs that this takes.
    #[serde(default)]
    filter: Option<JobFilter>,
    /// The phase to pause or resume; all without.
    #[serde(default)]
    phase: Option<JobType>,
    /// The worker to drain; the manager itself without.
    #[serde(default)]
    worker: Option<WorkerId>,
    /// Says that this is meant, where more than single jobs are at stake.
    #[serde(default)]
    confirm: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Retry,
    Cancel,
    Discard,
    Pause,
    Resume,
    Drain,
}

impl Verb {
    fn past(self) -> &'static str {
        match self {
            Verb::Retry => "retried",
            Verb::Cancel => "cancelled",
            Verb::Discard => "discarded",
            Verb::Pause => "paused",
            Verb::Resume => "resumed",
            Verb::Drain => "asked to drain",
        }
    }
}

pub(super) async fn act(app: &App, request: &Request, parts: &Parts) -> Result<Response, Problem> {
    let view = app.view(parts)?;
    let action: Action = serde_json::from_slice(&request.body)
        .map_err(|error| Problem::bad(format!("the body is no action: {error}")))?;
    let client = app.client(view).await?;
    let (changed, done) = match action.action {
        Verb::Pause | Verb::Resume | Verb::Drain => change_state(&action, &client).await?,
        _ => change_jobs(&action, &client).await?,
    };
    log::info!("by {}: {done}", request.peer);
    {
        let mut state = view.lock();
        state.note("action", format!("by {}: {done}", request.peer));
    }
    view.wanted.notify(usize::MAX);
    app.hub.changed.notify(usize::MAX);
    Ok(Response::json(&json!({
        "done": done,
        "count": changed.count,
        "skipped": changed.skipped,
    })))
}

/// Whether the action names nothing that does not belong to it.
fn check(action: &Action) -> Result<(), Problem> {
    let on_jobs = matches!(action.action, Verb::Retry | Verb::Cancel | Verb::Discard);
    let selectors = [
        action.ids.is_some(),
        action.group.is_some(),
        action.filter.is_some(),
    ];
    let selected = selectors.iter().filter(|given| **given).count();
    if on_jobs && selected != 1 {
        return Err(Problem::bad("one of ids, group and filter says which jobs"));
    }
    if !on_jobs && selected != 0 {
        return Err(Problem::bad("ids, group and filter are for jobs"));
    }
    if action.limit.is_some() && action.group.is_none() {
        return Err(Problem::bad("limit is for a group"));
    }
    if action.phase.is_some() && !matches!(action.action, Verb::Pause | Verb::Resume) {
        return Err(Problem::bad(
            "phase is for pause and resume; a filter has its own",
        ));
    }
    if action.worker.is_some() && action.action != Verb::Drain {
        return Err(Problem::bad("worker is for drain"));
    }
    Ok(())
}

async fn change_state(
    action: &Action,
    client: &PipelineClient,
) -> Result<(Changed, String), Problem> {
    check(action)?;
    let what = match (&action.phase, action.worker, action.action) {
        (Some(phase), ..) => format!("phase {phase}"),
        (None, Some(worker), _) => format!("worker {}", worker.short()),
        (None, None, Verb::Drain) => "the manager".to_owned(),
        (None, None, _) => "the pipeline".to_owned(),
    };
    let wide = action.phase.is_none() && action.worker.is_none() && action.action != Verb::Resume;
    if wide && !action.confirm {
        return Err(confirm(
            format!("{what} would be {}", action.action.past()),
            None,
        ));
    }
    let changed = match action.action {
        Verb::Pause => client.pause(action.phase.clone()).await,
        Verb::Resume => client.resume(action.phase.clone()).await,
        _ => client.drain(action.worker).await,
    };
    let changed = changed.map_err(problem)?;
    let done = match changed.count {
        0 => format!("nothing to do: {what} was {} already", action.action.past()),
        _ => format!("{what} was {}", action.action.past()),
    };
    Ok((changed, done))
}

async fn change_jobs(
    action: &Action,
    client: &PipelineClient,
) -> Result<(Changed, String), Problem> {
    check(action)?;
    let verb = action.action;
    if let Some(group) = &action.group {
        if verb == Verb::Cancel {
            return Err(Problem::bad(
                "the jobs of a group have failed: retry or discard them",
            ));
        }
        return change_group(action, group, client).await;
    }
    let selector = match (&action.ids, &action.filter) {
        (Some(ids), _) => {
            if ids.len() > IDS_MAX {
                let message = format!("{} jobs are named, {IDS_MAX} are the most", ids.len());
                return Err(Problem::bad(message));
            }
            Selector::Ids(ids.clone())
        }
        (None, filter) => {
            if !action.confirm {
                let message = format!("all jobs that the filter takes would be {}", verb.past());
                return Err(confirm(message, None));
            }
            Selector::Filter(filter.clone().unwrap_or_default())
        }
    };
    let changed = send(verb, selector, client).await?;
    Ok((changed, sentence(verb, changed)))
}

async fn change_group(
    action: &Action,
    group: &str,
    client: &PipelineClient,
) -> Result<(Changed, String), Problem> {
    let verb = action.action;
    let groups = client.failures().await.map_err(problem)?;
    let held = groups.iter().find(|found| found.group == group);
    let held = held.map_or(0, |found| found.count);
    let meant = action.limit.map_or(held, |limit| limit.min(held));
    if !action.confirm && (meant > 1 || verb == Verb::Discard) {
        let message = format!("{} would be {}", jobs(meant), verb.past());
        return Err(confirm(message, Some(meant)));
    }
    let mut total = Changed {
        count: 0,
        skipped: 0,
    };
    // No more than were there: jobs that fail again meanwhile are not meant.
    while total.count + total.skipped < meant {
        let limit = (meant - total.count - total.skipped).min(GROUP_STEP);
        let selector = Selector::Group {
            group: group.to_owned(),
            limit: Some(limit),
        };
        let changed = send(verb, selector, client).await?;
        total.count += changed.count;
        total.skipped += changed.skipped;
        if changed.count == 0 {
            break;
        }
    }
    Ok((total, sentence(verb, total)))
}

async fn send(verb: Verb, selector: Selector, client: &PipelineClient) -> Result<Changed, Problem> {
    let changed = match verb {
        Verb::Retry => client.retry(selector).await,
        Verb::Cancel => client.cancel(selector).await,
        _ => client.discard(selector).await,
    };
    changed.map_err(problem)
}

fn jobs(count: u64) -> String {
    if count == 1 {
        "1 job".to_owned()
    } else {
        format!("{count} jobs")
    }
}

fn sentence(verb: Verb, changed: Changed) -> String {
    let were = if changed.count == 1 { "was" } else { "were" };
    let mut text = format!("{} {were} {}", jobs(changed.count), verb.past());
    if changed.skipped > 0 {
        let rest = match verb {
            Verb::Cancel => "had ended or are not known",
            _ => "had not failed or are not known",
        };
        text.push_str(&format!("; {} {rest}", changed.skipped));
    }
    text
}

/// Asks back: nothing was done.
fn confirm(message: String, count: Option<u64>) -> Problem {
    let problem = Problem::new(
        409,
        "confirm",
        format!("{message}; confirm it with \"confirm\": true"),
    );
    match count {
        Some(count) => problem.with("count", json!(count)),
        None => problem,
    }
}
