//! Questions to a manager and changes of its jobs.

use std::time::{Duration, SystemTime};

use carbontube_client::{Changed, ClientError, ClientOptions, JobType, PipelineClient};
use carbontube_protocol::message::{JobFilter, JobState, JobView, Selector, WorkerView};
use carbontube_protocol::{Address, Timestamp, WorkerId};
use serde_json::json;
use serde_json::value::RawValue;

use super::arguments::{
    CancelArguments, DiscardArguments, DrainArguments, JobArguments, JobsArguments, PauseArguments,
    ResumeArguments, RetryArguments, StatsArguments, WorkersArguments,
};
use super::enqueue::job_id;
use super::style::harmless;
use super::table::{table, text};
use super::words::{attempt_of, soon};
use super::{Style, block_on, client_failure, print, print_json};
use crate::duration::format_duration;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, suggestion};

const TIMEOUT: Duration = Duration::from_secs(10);
/// What a manager gives at once.
const PAGE: u32 = 1000;

pub(crate) async fn connect(api: &[Address], timeout: Option<Duration>) -> Outcome<PipelineClient> {
    let default = [Address::tcp("127.0.0.1", 5051)];
    let addresses = if api.is_empty() { &default[..] } else { api };
    let timeout = timeout.unwrap_or(TIMEOUT);
    let options = ClientOptions {
        connect_timeout: timeout,
        timeout,
        ..ClientOptions::default()
    };
    PipelineClient::connect(addresses, options)
        .await
        .map_err(|error| client_failure(&error))
}

fn say(error: ClientError) -> Failure {
    client_failure(&error)
}

pub(crate) fn state(text: &str) -> Outcome<JobState> {
    JobState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| {
            let known = JobState::ALL.iter().map(|state| state.as_str());
            Failure::usage(format!("--state: there is no job state {text:?}"))
                .hint(suggestion(text, "a job", known))
        })
}

pub(crate) fn job_type(text: &str) -> Outcome<JobType> {
    JobType::new(text).map_err(|error| Failure::from_error(Exit::Usage, &error))
}

fn filter(
    state_text: Option<&str>,
    phase: Option<&str>,
    error: Option<String>,
    id_prefix: Option<String>,
) -> Outcome<JobFilter> {
    Ok(JobFilter {
        state: state_text.map(state).transpose()?,
        phase: phase.map(job_type).transpose()?,
        error,
        id_prefix,
    })
}

fn paint(style: &Style, state: JobState) -> String {
    match state {
        JobState::Success => style.good(state),
        JobState::Failed => style.bad(state),
        JobState::Scheduled | JobState::Cancelled => style.odd(state),
        JobState::Enqueued | JobState::Running => state.to_string(),
    }
}

/// How long ago, by this box's clock.
fn ago(at: Timestamp) -> String {
    format_duration(now().since(at))
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// Why a job is not running.
fn reason(job: &JobView) -> String {
    soon(&harmless(&job.reason), now(), format_duration)
}

pub(crate) fn jobs(arguments: JobsArguments) -> Outcome<Exit> {
    let filter = filter(
        arguments.state.as_deref(),
        arguments.phase.as_deref(),
        arguments.error,
        arguments.id,
    )?;
    block_on(async {
        let client = connect(&arguments.api, arguments.timeout).await?;
        let style = Style::stdout();
        let mut rows = table(&["id", "state", "phase", "attempt", "for", "why"]);
        let (mut left, mut after, mut shown) = (arguments.limit, None, 0_u32);
        while left > 0 {
            let page = client
                .jobs(filter.clone(), after, left.min(PAGE))
                .await
                .map_err(say)?;
            for job in page.jobs.iter().take(left as usize) {
                shown += 1;
                if arguments.json {
                    print_json(job)?;
                    continue;
                }
                let why = match job.error.as_deref() {
                    Some(error) => harmless(error),
                    None => reason(job),
                };
                rows.add_row([
                    job.id.to_string(),
                    paint(&style, job.state),
                    job.job_type.to_string(),
                    attempt_of(job).to_string(),
                    ago(job.changed_at),
                    short(&why, 60),
                ]);
            }
            left = left.saturating_sub(u32::try_from(page.jobs.len()).unwrap_or(u32::MAX));
            after = page.next;
            if after.is_none() || page.jobs.is_empty() {
                break;
            }
        }
        if arguments.json {
            return Ok(Exit::Success);
        }
        if shown == 0 {
            super::say::say("no such jobs");
            return Ok(Exit::Success);
        }
        print(&text(&rows))?;
        if after.is_some() {
            super::say::say(style.faint("there are more; --limit shows more"));
        }
        Ok(Exit::Success)
    })
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most - 1).collect();
    cut.push('…');
    cut
}

pub(crate) fn job(arguments: JobArguments) -> Outcome<Exit> {
    let id = job_id(&arguments.id)?;
    block_on(async {
        let client = connect(&arguments.api, arguments.timeout).await?;
        let detail = client.job(&id).await.map_err(say)?;
        let instructions: Option<&RawValue> = serde_json::from_slice(&detail.instructions).ok();
        if arguments.json {
            let mut value = serde_json::to_value(&detail).map_err(|error| {
                Failure::from_error(Exit::Failure, &error).context("cannot write the answer")
            })?;
            value["instructions"] = json!(instructions);
            print_json(&value)?;
            return Ok(Exit::Success);
        }
        let style = Style::stdout();
        let view = &detail.view;
        let mut lines = vec![
            ("job", view.id.to_string()),
            ("state", paint(&style, view.state)),
            (
                "phase",
                format!("{} (number {})", view.job_type, view.phase + 1),
            ),
            ("attempt", attempt_of(view).to_string()),
            ("enqueued", format!("{} ago", ago(view.enqueued_at))),
            ("changed", format!("{} ago", ago(view.changed_at))),
        ];
        if !view.reason.is_empty() {
            lines.push(("why", reason(view)));
        }
        if let Some(worker) = &view.worker {
            lines.push(("worker", worker.to_string()));
        }
        if let Some(kind) = &detail.failure {
            lines.push(("failure", kind.to_string()));
        }
        if let Some(error) = &detail.error {
            lines.push(("error", harmless(&error.message)));
        }
        let mut out = String::new();
        for (name, value) in lines {
            out.push_str(&format!("{name:<14}{value}\n"));
        }
        if let Some(error) = &detail.error {
            for line in error.detail.lines() {
                out.push_str(&format!("{:<14}{}\n", "", style.faint(harmless(line))));
            }
        }
        match instructions {
            Some(instructions) => out.push_str(&format!(
                "{:<14}{}\n",
                "instructions",
                harmless(instructions.get())
            )),
            None => out.push_str(&format!(
                "{:<14}{}\n",
                "instructions",
                style.faint("not kept")
            )),
        }
        for attempt in &detail.attempts {
            let took = format_duration(attempt.finished_at.since(attempt.started_at));
            let how = match attempt.failure {
                None => style.good("success"),
                Some(kind) => format!("{}: {}", style.bad(kind), harmless(&attempt.error)),
            };
            out.push_str(&format!(
                "{:<14}phase {} took {took}: {how}\n",
                "attempted",
                attempt.phase + 1
            ));
        }
        print(&out)?;
        Ok(Exit::Success)
    })
}

pub(crate) fn workers(arguments: WorkersArguments) -> Outcome<Exit> {
    block_on(async {
        let client = connect(&arguments.api, arguments.timeout).await?;
        let workers = client.workers().await.map_err(say)?;
        if arguments.json {
            print_json(&workers)?;
            return Ok(Exit::Success);
        }
        if workers.is_empty() {
            super::say::say("no workers");
            return Ok(Exit::Success);
        }
        let headings = [
            "worker", "phase", "status", "running", "held", "slots", "done", "failed", "seen",
            "host", "address",
        ];
        let mut rows = table(&headings);
        for worker in &workers {
            rows.add_row(row(worker));
        }
        print(&text(&rows))?;
        Ok(Exit::Success)
    })
}

/// A worker as the table shows it.
pub(super) fn row(worker: &WorkerView) -> [String; 11] {
    [
        worker.worker.short(),
        worker.job_type.to_string(),
        status(worker),
        worker.running.to_string(),
        worker.held.to_string(),
        worker.slots.to_string(),
        worker.success_count.to_string(),
        worker.failed_count.to_string(),
        format!("{} ago", ago(worker.last_seen_at)),
        short(&harmless(&worker.host), 30),
        harmless(&worker.address.to_string()),
    ]
}

fn status(worker: &WorkerView) -> String {
    name_of(&worker.status)
}

/// The name that a value without data has in JSON.
pub(crate) fn name_of(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

pub(crate) fn stats(arguments: StatsArguments) -> Outcome<Exit> {
    block_on(async {
        let client = connect(&arguments.api, arguments.timeout).await?;
        let stats = client.stats().await.map_err(say)?;
        let info = client.info().await.map_err(say)?;
        if arguments.json {
            print_json(&json!({ "info": info, "stats": stats }))?;
            return Ok(Exit::Success);
        }
        let style = Style::stdout();
        let mut out = format!(
            "{}: {}\n{} succeeded, {} failed, {} cancelled, {} may have run twice, {} certainly did\n",
            style.strong(format!("pipeline {}", info.pipeline)),
            name_of(&info.state),
            stats.success,
            stats.failed,
            stats.cancelled,
            stats.reruns,
            stats.duplicates,
        );
        let mut rows = table(&[
            "phase",
            "enqueued",
            "scheduled",
            "running",
            "failed",
            "done",
            "workers",
            "slots",
            "usual time",
            "",
        ]);
        for phase in &stats.phases {
            rows.add_row([
                phase.job_type.to_string(),
                phase.enqueued.to_string(),
                phase.scheduled.to_string(),
                phase.running.to_string(),
                phase.failed.to_string(),
                phase.done.to_string(),
                phase.workers.to_string(),
                phase.slots.to_string(),
                match phase.duration_us {
                    0 => "-".to_owned(),
                    us => format_duration(Duration::from_micros(us)),
                },
                if phase.paused { "paused" } else { "" }.to_owned(),
            ]);
        }
        out.push_str(&text(&rows));
        out.push_str(&format!(
            "journal {} ({} pages, {} on disk)\n",
            harmless(&info.storage),
            stats.journal.pages,
            indicatif::HumanBytes(stats.journal.disk_bytes),
        ));
        if let Some(trouble) = &stats.journal.trouble {
            out.push_str(&format!(
                "{} {}\n",
                style.bad("journal trouble:"),
                harmless(trouble)
            ));
        }
        for (cause, count) in &stats.rerun_causes {
            let line = format!("may have run twice: {count} ({})\n", harmless(cause));
            out.push_str(&line);
        }
        for (cause, count) in &stats.duplicate_causes {
            out.push_str(&format!("ran twice: {count} ({})\n", harmless(cause)));
        }
        for (name, count) in stats.counters.iter().filter(|counter| tells(counter)) {
            let line = format!("{}: {count}", harmless(name));
            out.push_str(&format!("{}\n", style.faint(line)));
        }
        print(&out)?;
        Ok(Exit::Success)
    })
}

/// Whether a counter tells of something lost or refused; ordinary traffic is in `--json`.
fn tells((name, count): &(String, u64)) -> bool {
    const TRAFFIC: [&str; 7] = [
        "messages_in",
        "messages_out",
        "bytes_in",
        "bytes_out",
        "connections_open",
        "connections_accepted",
        "events_published",
    ];
    *count > 0 && !TRAFFIC.iter().any(|traffic| name.ends_with(traffic))
}

fn selector(ids: &[String], filter: JobFilter, all: bool, verb: &str) -> Outcome<Selector> {
    let filtered = filter != JobFilter::default();
    match (ids.is_empty(), filtered || all) {
        (false, false) => {
            let ids = ids.iter().map(|id| job_id(id)).collect::<Outcome<_>>()?;
            Ok(Selector::Ids(ids))
        }
        (true, true) => Ok(Selector::Filter(filter)),
        (true, false) => Err(Failure::usage(format!("say which jobs to {verb}"))
            .hint("give ids, a filter such as --state failed, or --all")),
        (false, true) => Err(Failure::usage("ids and filters cannot stand together")),
    }
}

fn tell_changed(changed: &Changed, json: bool, verb: &str, named: bool) -> Outcome<Exit> {
    if json {
        print_json(&json!({ "count": changed.count, "skipped": changed.skipped }))?;
    } else {
        let skipped = match changed.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} could not be"),
        };
        print(&format!("{} {verb}{skipped}\n", changed.count))?;
    }
    Ok(if named && changed.count == 0 && changed.skipped > 0 {
        Exit::Refused
    } else {
        Exit::Success
    })
}

macro_rules! change_jobs {
    ($name:ident, $arguments:ident, $done:literal) => {
        pub(crate) fn $name(arguments: $arguments) -> Outcome<Exit> {
            let filter = filter(
                arguments.state.as_deref(),
                arguments.phase.as_deref(),
                arguments.error,
                None,
            )?;
            let selector = selector(&arguments.ids, filter, arguments.all, stringify!($name))?;
            block_on(async {
                let client = connect(&arguments.api, arguments.timeout).await?;
                let changed = client.$name(selector).await.map_err(say)?;
                tell_changed(&changed, arguments.json, $done, !arguments.ids.is_empty())
            })
        }
    };
}

change_jobs!(retry, RetryArguments, "retried");
change_jobs!(cancel, CancelArguments, "cancelled");
change_jobs!(discard, DiscardArguments, "discarded");

macro_rules! change_phases {
    ($name:ident, $arguments:ident, $done:literal) => {
        pub(crate) fn $name(arguments: $arguments) -> Outcome<Exit> {
            let phase = arguments.phase.as_deref().map(job_type).transpose()?;
            block_on(async {
                let client = connect(&arguments.api, arguments.timeout).await?;
                client.$name(phase.clone()).await.map_err(say)?;
                let what = phase.map_or_else(|| "the pipeline".to_owned(), |p| p.to_string());
                if arguments.json {
                    print_json(&json!({ $done: what }))?;
                } else {
                    print(&format!("{what} {}\n", $done))?;
                }
                Ok(Exit::Success)
            })
        }
    };
}

change_phases!(pause, PauseArguments, "paused");
change_phases!(resume, ResumeArguments, "resumed");

pub(crate) fn drain(arguments: DrainArguments) -> Outcome<Exit> {
    block_on(async {
        let client = connect(&arguments.api, arguments.timeout).await?;
        let worker = match &arguments.worker {
            None => None,
            Some(prefix) => Some(find_worker(&client, prefix).await?),
        };
        let changed = client.drain(worker).await.map_err(say)?;
        if arguments.json {
            print_json(&json!({ "count": changed.count, "skipped": changed.skipped }))?;
        } else {
            match worker {
                Some(worker) => print(&format!("worker {worker} drains\n"))?,
                None => print("the manager drains\n")?,
            }
        }
        Ok(Exit::Success)
    })
}

async fn find_worker(client: &PipelineClient, prefix: &str) -> Outcome<WorkerId> {
    let workers = client.workers().await.map_err(say)?;
    let mut found = workers
        .iter()
        .map(|worker| worker.worker)
        .filter(|worker| worker.to_string().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(worker), None) => Ok(worker),
        (Some(_), Some(_)) => Err(Failure::new(
            Exit::Refused,
            format!("several workers' ids start with {prefix:?}"),
        )
        .hint("`carbontube workers --json` shows the whole ids")),
        (None, _) => Err(Failure::new(
            Exit::Refused,
            format!("no worker's id starts with {prefix:?}"),
        )
        .hint("`carbontube workers` lists the workers")),
    }
}
