//! Processes kept alive: one JSON line in and one out for each attempt.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_process::{ChildStdin, ChildStdout};
use async_std::task;
use bytes::Bytes;
use carbontube_protocol::Limits;
use carbontube_protocol::message::FailureKind;
use futures_lite::{AsyncWriteExt, future};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::lines::{Line, Lines, say};
use super::process::{Running, exit_failure};
use super::{CommandOptions, output, over_limit};
use crate::context::{JobContext, Stop};
use crate::phase::{Ended, Failure};
use crate::shared::{sleep, stopped_failure};

/// How long a process that closed its stdout may take to end.
const ENDING: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Request<'a> {
    job: String,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    instructions: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    ok: bool,
    #[serde(default)]
    output: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default = "yes")]
    retry: bool,
}

fn yes() -> bool {
    true
}

/// A process that takes jobs.
pub(super) struct Process {
    running: Running,
    stdin: ChildStdin,
    stdout: Lines<ChildStdout>,
    /// Whose lines the process writes to stderr now.
    speaks_for: Arc<Mutex<JobContext>>,
}

enum Happened {
    Answered(Option<Line>),
    Stopped(Stop),
}

impl Process {
    pub(super) fn start(options: &CommandOptions, job: &JobContext) -> Result<Process, Failure> {
        let mut running = Running::spawn(options, job, false)?;
        let child = &mut running.child;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(Failure::new(FailureKind::Error, "the command has no pipes"));
        };
        let speaks_for = Arc::new(Mutex::new(job.clone()));
        let (speaker, limit) = (speaks_for.clone(), options.limits.log_line_bytes_max);
        task::spawn(async move {
            let mut lines = Lines::new(stderr, limit);
            while let Some(line) = lines.next().await {
                let job = speaker
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                say(&job, &line.bytes);
            }
        });
        // The reply's frame around an output of the largest size.
        let limit = options.limits.instructions_bytes_max + 1024;
        Ok(Process {
            running,
            stdin,
            stdout: Lines::new(stdout, limit),
            speaks_for,
        })
    }

    /// Whether it has not ended.
    pub(super) fn is_running(&mut self) -> bool {
        self.running.is_running()
    }

    /// Ends it: by the end of its stdin, and by signals if it does not go by itself.
    pub(super) async fn end(self) {
        let Process {
            mut running, stdin, ..
        } = self;
        drop(stdin);
        running.leave(ENDING).await;
    }

    /// Runs one attempt; tells whether the process can take another.
    pub(super) async fn execute(
        &mut self,
        options: &CommandOptions,
        job: &JobContext,
        instructions: &Bytes,
    ) -> (Ended, bool) {
        *(self.speaks_for.lock()).unwrap_or_else(PoisonError::into_inner) = job.clone();
        let line = match request(job, instructions) {
            Ok(line) => line,
            Err(failure) => return (Err(failure), true),
        };
        let (stdin, stdout) = (&mut self.stdin, &mut self.stdout);
        let written = async {
            // When the process is gone, the end of its output says so.
            let _gone = stdin.write_all(&line).await;
            let _gone = stdin.flush().await;
            future::pending::<Happened>().await
        };
        let answered = async {
            loop {
                match stdout.next().await {
                    Some(line) if line.bytes.trim_ascii().is_empty() => {}
                    line => return Happened::Answered(line),
                }
            }
        };
        let stopped = async { Happened::Stopped(job.stopped().await) };
        let happened = future::or(answered, future::or(stopped, written)).await;
        match happened {
            Happened::Answered(Some(line)) if line.cut => {
                self.running.terminate(job).await;
                (Err(over_limit(&options.limits)), false)
            }
            Happened::Answered(Some(line)) => match read_reply(&line.bytes, &options.limits) {
                Ok(ended) => (ended, true),
                Err(error) => {
                    // Request and answer may be out of step now.
                    self.running.terminate(job).await;
                    let message = format!("the command's answer cannot be read: {error}");
                    (Err(Failure::new(FailureKind::Output, message)), false)
                }
            },
            Happened::Answered(None) => (Err(self.died().await), false),
            Happened::Stopped(why) => {
                self.running.terminate(job).await;
                (Err(stopped_failure(job, why)), false)
            }
        }
    }

    async fn died(&mut self) -> Failure {
        let status = future::or(async { self.running.exit().await.ok() }, async {
            sleep(ENDING).await;
            None
        })
        .await;
        match status {
            Some(status) => {
                let mut failure = exit_failure(status);
                failure.kind = FailureKind::Panic;
                failure.message = format!("the command ended: {}", failure.message);
                failure
            }
            None => {
                self.running.signal_group(Signal::KILL);
                Failure::new(FailureKind::Panic, "the command closed its output")
            }
        }
    }
}

fn request(job: &JobContext, instructions: &Bytes) -> Result<Vec<u8>, Failure> {
    let bad = |error: serde_json::Error| {
        let message = format!("the instructions cannot be read: {error}");
        Failure::new(FailureKind::Error, message).fatal()
    };
    let raw: &RawValue = serde_json::from_slice(instructions).map_err(bad)?;
    let request = Request {
        job: job.job().to_string(),
        attempt: job.attempt_number(),
        traceparent: job.traceparent(),
        instructions: raw,
    };
    let mut line = serde_json::to_vec(&request).map_err(bad)?;
    // Instructions may be written over several lines; between JSON tokens, and nowhere
    // else, a line end may stand, where a space means the same.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    Ok(line)
}

/// Reads a process's answer to one attempt.
pub(super) fn read_reply(line: &[u8], limits: &Limits) -> serde_json::Result<Ended> {
    serde_json::from_slice::<Reply>(line).map(|reply| ended(reply, limits))
}

fn ended(reply: Reply, limits: &Limits) -> Ended {
    if reply.ok {
        let raw = reply.output.as_ref().map_or("", |output| output.get());
        return output(raw.as_bytes(), limits);
    }
    let message = reply
        .error
        .unwrap_or_else(|| "the command said no more than that it failed".to_owned());
    let failure = Failure::new(FailureKind::Error, message);
    Err(if reply.retry {
        failure
    } else {
        failure.fatal()
    })
}
