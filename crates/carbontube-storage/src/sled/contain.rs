//! Keeps panics of the engine away from the process and from the terminal.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Threads that sled starts: a panic there reaches us as an error of the
/// call that waits for them, so it need not reach the terminal as well.
const ENGINE_THREADS: [&str; 2] = ["sled-io-", "log flusher"];

/// Runs something that may panic and returns what it said if it did.
///
/// The panic hook of the process stays as it is for everything else; what it
/// would have printed is logged instead.
pub(crate) fn contain<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    quieten_engine_panics();
    let outer = CONTAINED.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    CONTAINED.set(outer);
    outcome.map_err(|payload| panic_text(payload.as_ref()))
}

/// Runs something that may also never end, on a thread of its own.
///
/// A thread that is still busy after `patience` is left behind: there is no
/// way to stop it, and waiting for it would hang its caller too.
pub(crate) fn contain_within<T: Send + 'static>(
    patience: Duration,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let spawned = thread::Builder::new()
        .name("carbontube-store".to_owned())
        .spawn(move || {
            // A send fails only when nobody waits any more.
            let _ = sender.send(contain(run));
        });
    if let Err(error) = spawned {
        return Err(format!("no thread could be started: {error}"));
    }
    match receiver.recv_timeout(patience) {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("it did not end within {patience:?}")),
    }
}

fn quieten_engine_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let current = thread::current();
            let engine = current
                .name()
                .is_some_and(|name| ENGINE_THREADS.iter().any(|own| name.starts_with(own)));
            if engine || CONTAINED.get() {
                log::debug!("contained in the storage engine: {info}");
            } else {
                before(info);
            }
        }));
    });
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked without a text".to_owned());
    // Some of sled's texts go over many lines or hold whole pages.
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_contained_becomes_its_text() {
        assert_eq!(contain(|| 3), Ok(3));
        let number = 4;
        assert_eq!(
            contain(|| panic!("page {number}\n   is odd")),
            Err::<(), _>("page 4 is odd".to_owned())
        );
    }

    #[test]
    fn panic_longer_than_a_line_is_cut() {
        let text = contain(|| panic!("{}", "é".repeat(10_000))).expect_err("a panic");
        assert_eq!(text.chars().count(), 301);
    }

    #[test]
    fn call_that_never_ends_is_left_behind() {
        let (_keep, never) = mpsc::channel::<()>();
        let outcome = contain_within(Duration::from_millis(20), move || never.recv().is_ok());
        assert!(outcome.expect_err("a timeout").contains("did not end"));
    }
}
