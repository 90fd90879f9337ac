//! Ends a process that serves when its executor is dead: nothing in it would ever go on,
//! and whoever supervises it can start it again.

use std::time::Duration;

use carbontube_transport::Watchdog;

use super::Style;
use super::say::say;
use super::signals::end;
use crate::duration::{format_duration, parse_duration};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Sets how long the executor may be silent, or `off`.
const VARIABLE: &str = "CARBONTUBE_WATCHDOG";
/// How long it may be silent by default.
const PATIENCE: Duration = Duration::from_secs(20);
/// The least that may be asked for.
const PATIENCE_MIN: Duration = Duration::from_millis(200);

/// Watches the executor until what this returns is dropped.
pub(crate) fn watch() -> Outcome<Option<Watchdog>> {
    let text = std::env::var(VARIABLE).ok();
    let Some(patience) = patience(text.as_deref())? else {
        return Ok(None);
    };
    // Before the executor's first use: the watchdog is one.
    carbontube_transport::init_runtime();
    let watchdog = Watchdog::start(patience, move || silent(patience));
    watchdog.map(Some).map_err(|error| {
        Failure::from_error(Exit::Failure, &error).context("cannot start a thread")
    })
}

fn patience(text: Option<&str>) -> Outcome<Option<Duration>> {
    let patience = match text {
        None | Some("") => PATIENCE,
        Some("off") => return Ok(None),
        Some(text) => parse_duration(text).map_err(|error| {
            Failure::usage(format!("{VARIABLE}: {error}")).hint("`off` watches nothing")
        })?,
    };
    if patience < PATIENCE_MIN {
        let least = format_duration(PATIENCE_MIN);
        return Err(Failure::usage(format!("{VARIABLE} is at least {least}")));
    }
    Ok(Some(patience))
}

/// The executor has run nothing for so long.
fn silent(patience: Duration) {
    let patience = format_duration(patience);
    let style = Style::stderr();
    if carbontube_worker::is_phase_on_executor() {
        // Ending it would run the phase again from its start, for ever.
        say(format_args!(
            "{} a phase has blocked the executor for {patience}: no heartbeat leaves, so managers think this worker lost",
            style.bad("error:"),
        ));
        say(format_args!(
            "{} work that blocks its thread belongs into a BlockingPhase",
            style.good("hint:")
        ));
        return;
    }
    say(format_args!(
        "{} the executor has run nothing for {patience}: all its threads hang, so this process ends itself",
        style.bad("error:"),
    ));
    say(format_args!(
        "{} start it again: confirmed jobs are in the journal; and please report this",
        style.good("hint:"),
    ));
    end(Exit::Hung);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_a_duration_or_off() {
        let read = |text| patience(text).map_err(|failure| failure.to_string());
        assert_eq!(read(None), Ok(Some(PATIENCE)));
        assert_eq!(read(Some("")), Ok(Some(PATIENCE)));
        assert_eq!(read(Some("off")), Ok(None));
        assert_eq!(read(Some("1m")), Ok(Some(Duration::from_secs(60))));
        assert!(read(Some("10")).is_err_and(|error| error.contains(VARIABLE)));
        assert!(read(Some("1ms")).is_err_and(|error| error.contains("at least 200")));
    }
}
