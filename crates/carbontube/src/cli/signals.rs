//! SIGTERM and SIGINT: the first drains, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

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

/// Calls `drain` on the first signal, `stop` on the second; a third exits there and then.
pub(crate) fn on_signals(
    what: &'static str,
    drain: impl Fn() + Send + 'static,
    stop: impl Fn() + Send + 'static,
) -> Outcome<Interrupted> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| {
        Failure::from_error(Exit::Failure, &error).context("cannot listen to signals")
    })?;
    let interrupted = Interrupted::default();
    let flag = interrupted.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for (count, _) in signals.forever().enumerate() {
                match count {
                    0 => {
                        eprintln!("draining: {what}; a second signal ends it at once");
                        drain();
                    }
                    1 => {
                        eprintln!("ending at once");
                        flag.0.store(true, Ordering::Release);
                        stop();
                    }
                    _ => std::process::exit(i32::from(Exit::Interrupted.code())),
                }
            }
        })
        .map_err(|error| {
            Failure::from_error(Exit::Failure, &error).context("cannot start a thread")
        })?;
    Ok(interrupted)
}
