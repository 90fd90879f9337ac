//! SIGTERM, SIGINT and SIGHUP: the first drains, the second ends the process at once.
//!
//! The thread that hears them waits for nothing: neither for the executor, which may be
//! dead, nor for stderr, whose reader may be gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use carbontube_transport::ExecutorProbe;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::say::{flush, say};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// How often it is looked whether a process that is to end at once may still do so in
/// order.
const LOOK: Duration = Duration::from_millis(250);
/// For how many looks it may: to kill its commands, hand back what it has and close its
/// journal. Five seconds.
const ORDERLY_LOOKS: u32 = 20;
/// For how many looks the executor may be silent: without it nothing ends in order.
const SILENT_LOOKS: u32 = 4;

/// Whether a second signal came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// The process's exit code, now that all is ended.
    pub(crate) fn exit(&self) -> Exit {
        if self.0.load(Ordering::Acquire) {
            Exit::Interrupted
        } else {
            Exit::Success
        }
    }
}

/// Calls `drain` on the first signal and `stop` on the second, after which the process
/// ends within five seconds, whatever hangs; a third ends it there and then.
pub(crate) fn on_signals(
    what: &'static str,
    drain: impl Fn() + Send + 'static,
    stop: impl Fn() + Send + 'static,
) -> Outcome<Interrupted> {
    let mut wanted = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).map_err(|error| {
        Failure::from_error(Exit::Failure, &error).context("cannot listen to signals")
    })?;
    let interrupted = Interrupted::default();
    let flag = interrupted.clone();
    let (ask, asked) = channel::<bool>();
    // What is asked for runs on a thread of its own, where it may hang.
    start("ending", move || {
        for at_once in asked {
            if at_once {
                stop();
            } else {
                drain();
            }
        }
    })?;
    start("signals", move || {
        for (count, _) in signals.forever().enumerate() {
            match count {
                0 => {
                    say(format_args!(
                        "draining: {what}; a second signal ends it at once"
                    ));
                    let _ = ask.send(false);
                }
                1 => {
                    say("ending at once");
                    flag.0.store(true, Ordering::Release);
                    let _ = ask.send(true);
                    if start("late", end_soon).is_err() {
                        end(Exit::Interrupted);
                    }
                }
                _ => end(Exit::Interrupted),
            }
        }
    })?;
    Ok(interrupted)
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Outcome {
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map(drop).map_err(|error| {
        Failure::from_error(Exit::Failure, &error).context("cannot start a thread")
    })
}

/// Ends the process when it has not ended in order for too long, or can't.
fn end_soon() {
    let mut executor = ExecutorProbe::default();
    for _ in 0..ORDERLY_LOOKS {
        thread::sleep(LOOK);
        if executor.look() >= SILENT_LOOKS {
            break;
        }
    }
    end(Exit::Interrupted)
}

/// Ends the process from any thread, with what it started.
pub(crate) fn end(exit: Exit) -> ! {
    carbontube_worker::kill_commands();
    flush();
    std::process::exit(i32::from(exit.code()))
}

/// Whether this process was started to ignore a signal, as `nohup` does with SIGHUP.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
