//! Phases that are commands: any executable, in any language.

mod check;
mod lines;
mod once;
mod process;
mod stream;
#[cfg(feature = "testing")]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use carbontube_protocol::message::FailureKind;
use carbontube_protocol::{Limits, check_instructions};
use futures_lite::future;

use crate::context::JobContext;
use crate::options::StartError;
use crate::phase::{AnyPhase, Ended, Erased, Failure};

/// How a command is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommandMode {
    /// One process for each attempt: instructions on stdin, the output is the last line
    /// of stdout.
    #[default]
    Once,
    /// A process is kept alive: one JSON line in, one JSON line out for each attempt.
    Stream,
}

/// A command and how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// The program and its arguments. No shell is involved.
    pub command: Vec<String>,
    /// How it is used.
    pub mode: CommandMode,
    /// Variables for its environment, besides the worker's own.
    pub env: BTreeMap<String, String>,
    /// The folder in which it runs; the worker's own by default.
    pub dir: Option<PathBuf>,
    /// Bounds of what it writes.
    pub limits: Limits,
}

/// A phase that runs a command.
///
/// Every process gets a process group of its own, and is told the attempt in
/// `CARBONTUBE_*` variables (once) or in each line (stream). Lines on stderr are live
/// logs; `::progress 0.4 text` there is progress.
/// On a timeout or a cancellation the group gets SIGTERM, and 2 s later SIGKILL.
pub struct CommandPhase {
    options: CommandOptions,
    /// Processes that wait for a job, in stream mode.
    idle: Mutex<Vec<stream::Process>>,
}

impl CommandPhase {
    /// A phase that runs a command; whether it can be executed is checked when a worker starts.
    pub fn new(options: CommandOptions) -> Self {
        CommandPhase {
            options,
            idle: Mutex::default(),
        }
    }

    /// The erased form, for a worker.
    pub fn into_any(self) -> AnyPhase {
        AnyPhase(Erased::Command(Arc::new(self)))
    }

    /// Checks that the program and its folder are there, as starting a worker does.
    ///
    /// # Errors
    /// [`StartError`] says what is missing.
    pub fn check(&self) -> Result<(), StartError> {
        check::check(&self.options)
    }

    /// Runs one attempt to its end, or to the end of its process when it is stopped.
    pub(crate) async fn execute(&self, job: &JobContext, instructions: &Bytes) -> Ended {
        match self.options.mode {
            CommandMode::Once => once::execute(&self.options, job, instructions).await,
            CommandMode::Stream => {
                let mut process = match self.take_idle() {
                    Some(process) => process,
                    None => stream::Process::start(&self.options, job)?,
                };
                let (ended, reusable) = process.execute(&self.options, job, instructions).await;
                if reusable {
                    self.idle().push(process);
                }
                ended
            }
        }
    }

    /// A process that waits for a job. One that has ended meanwhile is none.
    fn take_idle(&self) -> Option<stream::Process> {
        let mut idle = self.idle();
        while let Some(mut process) = idle.pop() {
            if process.is_running() {
                return Some(process);
            }
        }
        None
    }

    /// Ends the processes that wait for a job: they see the end of their stdin, then get
    /// SIGTERM, then SIGKILL. Dropping the future kills them.
    pub(crate) async fn end_idle(&self) {
        let processes = std::mem::take(&mut *self.idle());
        let mut ending: Vec<_> = (processes.into_iter().map(stream::Process::end))
            .map(Box::pin)
            .collect();
        // None of them has a task of its own: if this is dropped, they are killed at once.
        future::poll_fn(|context| {
            ending.retain_mut(|process| process.as_mut().poll(context).is_pending());
            match ending.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Kills the processes that wait for a job.
    pub(crate) fn kill_idle(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<stream::Process>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CommandPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.options.fmt(f)
    }
}

/// Takes what a command returned, if it is an object that fits.
fn output(bytes: &[u8], limits: &Limits) -> Ended {
    let trimmed = bytes.trim_ascii();
    if trimmed.is_empty() || trimmed == b"null" {
        return Ok(None);
    }
    check_instructions(trimmed, limits).map_err(|error| {
        let start = String::from_utf8_lossy(&trimmed[..trimmed.len().min(200)]).into_owned();
        let message = format!("the command's last line of output is no result: {error}");
        Failure::new(FailureKind::Output, message).with_detail(format!("it begins: {start}\n"))
    })?;
    Ok(Some(Bytes::copy_from_slice(trimmed)))
}

fn over_limit(limits: &Limits) -> Failure {
    let limit = limits.instructions_bytes_max;
    let message = format!("the command wrote a line of more than {limit} bytes to stdout");
    Failure::new(FailureKind::Output, message)
}
