//! A command's process and its group: started, ended, never left behind.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_process::Child;
use carbontube_protocol::message::FailureKind;
use futures_lite::future;
use rustix::process::{Pid, Signal, kill_process_group};

use super::CommandOptions;
use crate::context::{JobContext, Stop};
use crate::emergency::Listed;
use crate::phase::Failure;
use crate::shared::sleep;

/// Variables of a manager in the same process that commands do not get.
const SECRETS: [&str; 2] = [
    "CARBONTUBE_REDIS_PASSWORD",
    "CARBONTUBE_REDIS_PASSWORD_FILE",
];

/// The time between SIGTERM and SIGKILL.
const TERMINATION: Duration = Duration::from_secs(2);

/// The exit status with which shells say that SIGTERM ended what they waited for.
const TERMINATED: i32 = 128 + 15;

/// A process with a group of its own; what is left of the group is killed on drop.
pub(super) struct Running {
    pub(super) child: Child,
    group: Option<Listed>,
    exited: bool,
}

impl Running {
    pub(super) fn spawn(
        options: &CommandOptions,
        job: &JobContext,
        tell_job: bool,
    ) -> Result<Running, Failure> {
        let (program, arguments) = options
            .command
            .split_first()
            .ok_or_else(|| Failure::new(FailureKind::Error, "the command is empty").fatal())?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).envs(&options.env).process_group(0);
        if let Some(dir) = &options.dir {
            command.current_dir(dir);
        }
        command
            .env("CARBONTUBE_PHASE", job.job_type().as_str())
            .env("CARBONTUBE_PIPELINE", job.pipeline().as_str());
        // The worker's own trace, if it has one, is not the job's.
        command.env_remove("TRACEPARENT");
        // Nor is the journal's password, which a bundle may have, for its commands.
        for secret in SECRETS {
            command.env_remove(secret);
        }
        if tell_job {
            command
                .env("CARBONTUBE_JOB_ID", job.job().to_string())
                .env("CARBONTUBE_ATTEMPT", job.attempt_number().to_string());
            if let Some(traceparent) = job.traceparent() {
                command
                    .env("CARBONTUBE_TRACEPARENT", traceparent)
                    .env("TRACEPARENT", traceparent);
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut command = async_process::Command::from(command);
        // The type forgets what was set above unless it is told again.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| {
            Failure::new(
                FailureKind::Error,
                format!("cannot execute {program:?}: {error}"),
            )
        })?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let group = group.map(Listed::new);
        Ok(Running {
            child,
            group,
            exited: false,
        })
    }

    pub(super) async fn exit(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.status().await;
        self.exited = true;
        status
    }

    /// Whether it has not ended, or nobody can tell.
    pub(super) fn is_running(&mut self) -> bool {
        self.exited |= matches!(self.child.try_status(), Ok(Some(_)));
        !self.exited
    }

    /// Whether it ended within so long.
    async fn ends_within(&mut self, limit: Duration) -> bool {
        let exits = async {
            let _status = self.exit().await;
        };
        future::or(exits, sleep(limit)).await;
        self.exited
    }

    /// Waits for its end for so long; then SIGTERM to the group, and at last SIGKILL.
    pub(super) async fn leave(&mut self, limit: Duration) {
        if self.ends_within(limit).await {
            return;
        }
        self.signal_group(Signal::TERM);
        if !self.ends_within(TERMINATION).await {
            self.signal_group(Signal::KILL);
            let _status = self.exit().await;
        }
    }

    pub(super) fn signal_group(&self, signal: Signal) {
        if let Some(group) = &self.group {
            // It may have ended by itself meanwhile.
            let _gone = kill_process_group(group.group(), signal);
        }
    }

    /// SIGTERM to the group, then SIGKILL; returns when the process is gone.
    pub(super) async fn terminate(&mut self, job: &JobContext) {
        let gently = job.stop_reason() != Some(Stop::Now);
        if gently {
            self.signal_group(Signal::TERM);
            let at_once = async {
                while job.stop_reason() != Some(Stop::Now) {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            let waited = future::or(sleep(TERMINATION), at_once);
            future::or(
                async {
                    let _status = self.exit().await;
                },
                waited,
            )
            .await;
        }
        self.signal_group(Signal::KILL);
        if !self.exited {
            let _status = self.exit().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.exited {
            self.signal_group(Signal::KILL);
        }
    }
}

/// What an unsuccessful exit means.
pub(super) fn exit_failure(status: ExitStatus) -> Failure {
    let mut failure = if let Some(signal) = status.signal() {
        let message = format!("killed by signal {}", signal_name(signal));
        Failure::new(FailureKind::Panic, message)
    } else {
        let code = status.code().unwrap_or(-1);
        Failure::new(FailureKind::Error, format!("exited with status {code}"))
    };
    failure.terminated =
        status.signal() == Some(Signal::TERM.as_raw()) || status.code() == Some(TERMINATED);
    failure
}

fn signal_name(signal: i32) -> String {
    let name = match Signal::from_named_raw(signal) {
        Some(Signal::HUP) => "SIGHUP",
        Some(Signal::INT) => "SIGINT",
        Some(Signal::QUIT) => "SIGQUIT",
        Some(Signal::ILL) => "SIGILL",
        Some(Signal::TRAP) => "SIGTRAP",
        Some(Signal::ABORT) => "SIGABRT",
        Some(Signal::BUS) => "SIGBUS",
        Some(Signal::FPE) => "SIGFPE",
        Some(Signal::KILL) => "SIGKILL",
        Some(Signal::USR1) => "SIGUSR1",
        Some(Signal::SEGV) => "SIGSEGV",
        Some(Signal::USR2) => "SIGUSR2",
        Some(Signal::PIPE) => "SIGPIPE",
        Some(Signal::ALARM) => "SIGALRM",
        Some(Signal::TERM) => "SIGTERM",
        Some(Signal::XCPU) => "SIGXCPU",
        Some(Signal::XFSZ) => "SIGXFSZ",
        Some(Signal::SYS) => "SIGSYS",
        _ => return signal.to_string(),
    };
    name.to_owned()
}
