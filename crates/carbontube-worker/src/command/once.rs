//! One process for each attempt.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_std::task;
use bytes::Bytes;
use carbontube_protocol::message::FailureKind;
use futures_lite::{AsyncWriteExt, future};
use rustix::process::Signal;

use super::lines::{Line, Lines, say};
use super::process::{Running, exit_failure};
use super::{CommandOptions, output, over_limit};
use crate::context::{JobContext, Stop};
use crate::phase::{Ended, Failure};
use crate::shared::{sleep, stopped_failure};

/// How long a grandchild may hold the pipes after the process has ended.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// Waits for a task; it stays in its place until it has ended.
async fn ended(task: &mut Option<task::JoinHandle<()>>) {
    if let Some(running) = task {
        running.await;
        *task = None;
    }
}

enum Happened {
    Exited(std::io::Result<std::process::ExitStatus>),
    Stopped(Stop),
    OverLimit,
}

pub(super) async fn execute(
    options: &CommandOptions,
    job: &JobContext,
    instructions: &Bytes,
) -> Ended {
    let mut running = Running::spawn(options, job, true)?;
    let last_line = Arc::new(Mutex::new(Vec::new()));
    let (over, overs) = async_channel::bounded::<()>(1);

    // Each pipe has a task: a command that does not read, or only writes, blocks none else.
    let stdin = running.child.stdin.take();
    let instructions = instructions.clone();
    let writes = task::spawn(async move {
        if let Some(mut stdin) = stdin {
            // A command need not read its instructions: a broken pipe is no failure.
            let _unread = stdin.write_all(&instructions).await;
            let _closed = stdin.close().await;
        }
    });
    let (stdout, limit) = (
        running.child.stdout.take(),
        options.limits.instructions_bytes_max,
    );
    let last = last_line.clone();
    // Closing this tells both readers to take what is there and end.
    let (stops, stop) = async_channel::bounded::<Infallible>(1);
    let stop_reads = stop.clone();
    let reads = task::spawn(async move {
        let Some(stdout) = stdout else { return };
        let take = |line: Line| {
            if line.cut {
                let _told_once = over.try_send(());
                return ControlFlow::Break(());
            }
            if !line.bytes.trim_ascii().is_empty() {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = line.bytes;
            }
            ControlFlow::Continue(())
        };
        Lines::new(stdout, limit).each(&stop_reads, take).await;
    });
    let (stderr, limit) = (
        running.child.stderr.take(),
        options.limits.log_line_bytes_max,
    );
    let told = job.clone();
    let logs = task::spawn(async move {
        if let Some(stderr) = stderr {
            let take = |line: Line| {
                say(&told, &line.bytes);
                ControlFlow::Continue(())
            };
            Lines::new(stderr, limit).each(&stop, take).await;
        }
    });

    let exited = async { Happened::Exited(running.exit().await) };
    let stopped = async { Happened::Stopped(job.stopped().await) };
    let over_limits = async {
        match overs.recv().await {
            Ok(()) => Happened::OverLimit,
            Err(_) => future::pending().await,
        }
    };
    let happened = future::or(exited, future::or(stopped, over_limits)).await;
    if !matches!(happened, Happened::Exited(_)) {
        running.terminate(job).await;
    }
    // Whatever the process wrote is in the pipes; a grandchild may hold them open.
    let mut pipes = (Some(reads), Some(logs));
    let all_read = async {
        future::zip(ended(&mut pipes.0), ended(&mut pipes.1)).await;
        true
    };
    let left_behind = async {
        sleep(LEFT_BEHIND).await;
        false
    };
    if !future::or(all_read, left_behind).await {
        running.signal_group(Signal::KILL);
        // What the process itself wrote is in the pipes, if nobody has read it yet.
        drop(stops);
        future::zip(ended(&mut pipes.0), ended(&mut pipes.1)).await;
    }
    writes.cancel().await;
    if overs.try_recv().is_ok() && matches!(happened, Happened::Exited(_)) {
        // The process ended before this was noticed; an earlier line is not its result.
        return Err(over_limit(&options.limits));
    }
    let last_line = std::mem::take(&mut *last_line.lock().unwrap_or_else(PoisonError::into_inner));
    match happened {
        Happened::Exited(Ok(status)) if status.success() => output(&last_line, &options.limits),
        Happened::Exited(Ok(status)) => Err(exit_failure(status)),
        Happened::Exited(Err(error)) => {
            let message = format!("cannot learn how the command ended: {error}");
            Err(Failure::new(FailureKind::Error, message))
        }
        Happened::Stopped(why) => Err(stopped_failure(job, why)),
        Happened::OverLimit => Err(over_limit(&options.limits)),
    }
}
