//! Complaints about peers, of which no flood of names makes a flood of lines.
//!
//! A complaint about the same host is shown once in [`INTERVAL`], and all of them together
//! [`SHOWN_MAX`] times: whoever comes under ever new names gets no line for each.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Complaints about one host are shown once in this time.
const INTERVAL: Duration = Duration::from_secs(10);
/// The most complaints that are shown in this time, whomever they are about.
const SHOWN_MAX: u32 = 10;
/// Hosts whose complaints are remembered.
const HOSTS_MAX: usize = 1024;

/// What was complained about lately. One for each subject: what is shown of one takes
/// nothing from another.
#[derive(Debug)]
pub struct Complaints {
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    hosts: HashMap<String, Instant>,
    since: Instant,
    shown: u32,
    hidden: u64,
}

impl Complaints {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(None),
        }
    }

    /// Whether a complaint about `host` is to be shown now: if so, how many were not
    /// shown since the last one that was.
    pub fn admit(&self, host: &str) -> Option<u64> {
        self.admit_at(host, Instant::now())
    }

    fn admit_at(&self, host: &str, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.get_or_insert_with(|| State {
            hosts: HashMap::new(),
            since: now,
            shown: 0,
            hidden: 0,
        });
        if now.saturating_duration_since(state.since) >= INTERVAL {
            state.since = now;
            state.shown = 0;
        }
        let is_fresh = |at: &Instant| now.saturating_duration_since(*at) < INTERVAL;
        if state.shown >= SHOWN_MAX || state.hosts.get(host).is_some_and(is_fresh) {
            state.hidden += 1;
            return None;
        }
        if state.hosts.len() >= HOSTS_MAX {
            state.hosts.retain(|_, at| is_fresh(at));
        }
        state.hosts.insert(host.to_owned(), now);
        state.shown += 1;
        Some(std::mem::take(&mut state.hidden))
    }
}

impl Default for Complaints {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_complained_about_once_in_a_while() {
        let complaints = Complaints::new();
        let start = Instant::now();
        assert_eq!(complaints.admit_at("a", start), Some(0));
        assert_eq!(complaints.admit_at("a", start), None);
        assert_eq!(complaints.admit_at("b", start), Some(1));
        assert_eq!(complaints.admit_at("a", start + INTERVAL), Some(0));
    }

    #[test]
    fn ever_new_hosts_get_few_lines_and_are_counted() {
        let complaints = Complaints::new();
        let start = Instant::now();
        let mut shown = 0;
        for n in 0..100_000 {
            let at = start + Duration::from_micros(300) * n;
            shown += u64::from(complaints.admit_at(&format!("h{n}"), at).is_some());
        }
        // 30 seconds and the beginning of three intervals.
        assert_eq!(shown, 3 * u64::from(SHOWN_MAX));
        let later = start + Duration::from_secs(40);
        let hidden = complaints.admit_at("z", later).expect("shown");
        assert!(hidden > 30_000, "{hidden}");
        let state = complaints
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            state
                .as_ref()
                .is_some_and(|state| state.hosts.len() <= HOSTS_MAX)
        );
    }
}
