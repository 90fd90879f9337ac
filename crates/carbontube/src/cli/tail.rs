//! `tail`: logs and events as they happen.

use carbontube_client::{EventStream, JobId, JobType, Notice};
use carbontube_protocol::message::{Event, EventKind, LogLevel};
use carbontube_protocol::{Address, Host, Limits};
use futures_lite::future;
use serde_json::json;

use super::admin::{connect, job_type, name_of};
use super::arguments::TailArguments;
use super::enqueue::job_id;
use super::say::say;
use super::style::harmless;
use super::{Style, block_on, client_failure, print, print_json};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, suggestion};

const KINDS: [&str; 5] = ["job", "worker", "log", "progress", "manager"];

/// What of the events is wanted.
struct Wanted {
    kinds: Vec<String>,
    job: Option<JobId>,
    phase: Option<JobType>,
    /// How a worker's id begins.
    worker: Option<String>,
    level: Option<LogLevel>,
    /// In lower case.
    text: Option<String>,
}

/// The levels of log lines, from loud to quiet.
const LEVELS: [(&str, LogLevel); 4] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

fn loudness(level: LogLevel) -> usize {
    LEVELS
        .iter()
        .position(|(_, known)| *known == level)
        .unwrap_or(LEVELS.len())
}

impl Wanted {
    fn takes(&self, kind: &EventKind) -> bool {
        let (job, phase) = match kind {
            EventKind::Job { job, job_type, .. } => (Some(job), Some(job_type)),
            EventKind::Worker { job_type, .. } => (None, Some(job_type)),
            EventKind::Log { job_type, line, .. } => (Some(&line.job), Some(job_type)),
            EventKind::Progress { job_type, item, .. } => (Some(&item.job), Some(job_type)),
            EventKind::Manager { .. } | EventKind::Action { .. } => (None, None),
        };
        let worker = match kind {
            EventKind::Job { worker, .. } => *worker,
            EventKind::Worker { worker, .. }
            | EventKind::Log { worker, .. }
            | EventKind::Progress { worker, .. } => Some(*worker),
            EventKind::Manager { .. } | EventKind::Action { .. } => None,
        };
        let text = match kind {
            EventKind::Job { error, .. } => error.as_deref().unwrap_or(""),
            EventKind::Worker { host, .. } => host,
            EventKind::Log { line, .. } => &line.text,
            EventKind::Progress { item, .. } => &item.text,
            EventKind::Manager { reason, .. } => reason,
            EventKind::Action { text, .. } => text,
        };
        let is_loud = match kind {
            EventKind::Log { line, .. } => self
                .level
                .is_none_or(|level| loudness(line.level) <= loudness(level)),
            _ => true,
        };
        (self.kinds.is_empty() || self.kinds.iter().any(|k| k == kind.topic()))
            && (self.job.is_none() || self.job.as_ref() == job)
            && (self.phase.is_none() || self.phase.as_ref() == phase)
            && self.worker.as_ref().is_none_or(|wanted| {
                worker.is_some_and(|worker| worker.to_string().starts_with(wanted.as_str()))
            })
            && is_loud
            && self
                .text
                .as_ref()
                .is_none_or(|wanted| text.to_lowercase().contains(wanted.as_str()))
    }
}

pub(crate) fn tail(arguments: TailArguments) -> Outcome<Exit> {
    for kind in &arguments.only {
        if !KINDS.contains(&kind.as_str()) {
            return Err(Failure::usage(format!("--only: there is no kind {kind:?}"))
                .hint(suggestion(kind, "an event", KINDS)));
        }
    }
    let level = match &arguments.level {
        None => None,
        Some(name) => match LEVELS.iter().find(|(known, _)| known == name) {
            Some((_, level)) => Some(*level),
            None => {
                let names = LEVELS.map(|(name, _)| name);
                return Err(
                    Failure::usage(format!("--level: there is no level {name:?}"))
                        .hint(suggestion(name, "a level", names)),
                );
            }
        },
    };
    let wanted = Wanted {
        worker: arguments.worker.map(|worker| worker.to_lowercase()),
        level,
        text: arguments.text.map(|text| text.to_lowercase()),
        kinds: arguments.only,
        job: arguments.job.as_deref().map(job_id).transpose()?,
        phase: arguments.phase.as_deref().map(job_type).transpose()?,
    };
    block_on(async {
        let addresses = if arguments.sub_connect.is_empty() {
            reachable(&arguments.api, arguments.timeout).await?
        } else {
            arguments.sub_connect
        };
        let mut stream = EventStream::subscribe(&addresses, [""], Limits::default())
            .await
            .map_err(|error| client_failure(&error))?;
        let style = Style::stdout();
        loop {
            match stream
                .next()
                .await
                .map_err(|error| client_failure(&error))?
            {
                Notice::Gap { topic, missed } => {
                    say(format_args!(
                        "{} {missed} messages of {topic} were missed",
                        style.odd("note:")
                    ));
                }
                Notice::Events { topic, events } => {
                    if events.dropped > 0 {
                        let dropped = events.dropped;
                        say(format_args!(
                            "{} {dropped} events of {topic} were left out",
                            style.odd("note:")
                        ));
                    }
                    for event in events.events.iter().filter(|e| wanted.takes(&e.kind)) {
                        if arguments.json {
                            let pipeline = &events.pipeline;
                            print_json(&json!({ "pipeline": pipeline, "event": event }))?;
                        } else {
                            print(&(painted(event, &style) + "\n"))?;
                        }
                    }
                }
            }
            // Lets a signal's thread and others have their turn in a flood.
            future::yield_now().await;
        }
    })
}

/// The manager's pub addresses; one that listens on every interface is reached by the
/// host of its api.
pub(super) async fn reachable(
    api: &[Address],
    timeout: Option<std::time::Duration>,
) -> Outcome<Vec<Address>> {
    let client = connect(api, timeout).await?;
    let info = client
        .info()
        .await
        .map_err(|error| client_failure(&error))?;
    let asked = match api.first() {
        Some(Address::Tcp { host, .. }) => host.clone(),
        _ => Host::Name("127.0.0.1".to_owned()),
    };
    Ok(info
        .publish
        .into_iter()
        .map(|address| match address {
            Address::Tcp { host, port }
                if host == Host::Any || host == Host::Name("0.0.0.0".to_owned()) =>
            {
                Address::Tcp {
                    host: asked.clone(),
                    port,
                }
            }
            other => other,
        })
        .collect())
}

/// An event as one line, without its time and with colours for its level.
fn painted(event: &Event, style: &Style) -> String {
    let text = line(event);
    let text = match &event.kind {
        EventKind::Log { line, .. } => match line.level {
            LogLevel::Error => style.bad(text),
            LogLevel::Warn => style.odd(text),
            LogLevel::Info => text,
            LogLevel::Debug => style.faint(text),
        },
        _ => text,
    };
    format!("{} {text}", style.faint(clock(event.at.as_micros())))
}

/// An event as one line, without its time.
pub(super) fn line(event: &Event) -> String {
    match &event.kind {
        EventKind::Job {
            job,
            state,
            job_type,
            error,
            ..
        } => {
            let error = error.as_deref().map(harmless).unwrap_or_default();
            let separator = if error.is_empty() { "" } else { ": " };
            format!("{job_type} {job} {state}{separator}{error}")
        }
        EventKind::Worker {
            worker,
            job_type,
            status,
            host,
            slots,
        } => format!(
            "{job_type} worker {} on {} {} ({slots} slots)",
            worker.short(),
            harmless(host),
            name_of(status)
        ),
        EventKind::Log { job_type, line, .. } => {
            format!("{job_type} {} | {}", line.job, harmless(&line.text))
        }
        EventKind::Progress { job_type, item, .. } => format!(
            "{job_type} {} {:.0} % {}",
            item.job,
            item.fraction * 100.0,
            harmless(&item.text)
        ),
        EventKind::Manager { state, reason } => {
            format!("manager {}: {}", name_of(state), harmless(reason))
        }
        EventKind::Action { text, .. } => format!("manager: {}", harmless(text)),
    }
}

/// The time of the day in UTC.
pub(super) fn clock(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        micros / 1000 % 1000
    )
}
