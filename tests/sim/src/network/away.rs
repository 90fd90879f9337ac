//! When the manager was suspended: what waited for it then was not late for that.

use std::time::Duration;

use carbontube_protocol::Timestamp;

/// From when until when the manager was suspended; no end while it is.
#[derive(Debug, Default)]
pub(super) struct Away(Vec<(Timestamp, Option<Timestamp>)>);

impl Away {
    /// It goes, or is back.
    pub(super) fn note(&mut self, goes: bool, now: Timestamp) {
        match self.0.last_mut() {
            Some((_, until @ None)) if !goes => *until = Some(now),
            _ if goes => self.0.push((now, None)),
            _ => {}
        }
    }

    /// How long something has waited, without that time.
    pub(super) fn waited(&self, since: Timestamp, now: Timestamp) -> Duration {
        let away = self.0.iter().map(|(from, until)| {
            let until = until.unwrap_or(now).min(now);
            until.since((*from).max(since))
        });
        now.since(since).saturating_sub(away.sum())
    }
}
