//! Log lines: the latest ones, and as a file.

use std::fmt::Write;

use carbontube_protocol::message::LogLevel;
use carbontube_protocol::{Harmless, JobId};

use super::App;
use super::jobs::{phase, worker};
use super::overview::number;
use crate::logs::LogFilter;
use crate::request::{Problem, Request, Response};

const LINES_DEFAULT: u64 = 200;
const LINES_MAX: u64 = 5000;
/// A file may have all that are kept.
const FILE_LINES_MAX: u64 = 50_000;

/// Which lines the query asks for.
pub(super) fn filter(request: &Request) -> Result<LogFilter, Problem> {
    let job = request.parameter("job").map(JobId::new).transpose();
    let level = match request.parameter("level") {
        None => None,
        Some("error") => Some(LogLevel::Error),
        Some("warn") => Some(LogLevel::Warn),
        Some("info") => Some(LogLevel::Info),
        Some("debug") => Some(LogLevel::Debug),
        Some(other) => {
            let message = format!("level is error, warn, info or debug, not {other:?}");
            return Err(Problem::bad(message));
        }
    };
    Ok(LogFilter {
        pipeline: request.parameter("pipeline").map(str::to_owned),
        job: job.map_err(|error| Problem::bad(error.to_string()))?,
        worker: worker(request)?,
        phase: phase(request)?,
        level,
        text: request.parameter("text").map(str::to_lowercase),
    })
}

pub(super) fn logs(app: &App, request: &Request) -> Result<Response, Problem> {
    let filter = filter(request)?;
    let after = number(request, "after")?.unwrap_or(0);
    let file = request.parameter("download").is_some();
    let most = if file { FILE_LINES_MAX } else { LINES_MAX };
    let limit = number(request, "limit")?.unwrap_or(if file { most } else { LINES_DEFAULT });
    let limit = usize::try_from(limit.clamp(1, most)).unwrap_or(usize::MAX);
    let lines = app.hub.logs().latest(&filter, after, limit);
    if !file {
        return Ok(Response::json(&lines));
    }
    let mut text = String::new();
    if lines.left_out > 0 {
        let _ = writeln!(text, "# {} lines were left out", lines.left_out);
    }
    for line in &lines.lines {
        let level = format!("{:?}", line.level).to_lowercase();
        let _ = writeln!(
            text,
            "{} {level} {} {} {} {} | {}",
            line.at,
            line.pipeline,
            line.job_type,
            line.worker.short(),
            line.job,
            Harmless(&line.text),
        );
    }
    let response = Response::text("text/plain; charset=utf-8", text);
    let disposition = "attachment; filename=\"carbontube.log\"";
    Ok(response.header("content-disposition", disposition))
}
