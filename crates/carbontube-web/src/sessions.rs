//! Who showed the token: browsers keep a session in a cookie instead, since an event
//! stream of a page cannot send a header.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The most sessions; the oldest makes room.
const SESSIONS_MAX: usize = 1000;

/// How long a session lasts: a cookie that was carried off opens nothing for ever.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The sessions that are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<VecDeque<Session>>);

#[derive(Debug)]
struct Session {
    secret: String,
    lease: Lease,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.lease.is_open.store(false, Ordering::Release);
    }
}

/// What an event stream has of the session that opened it.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    is_open: Arc<AtomicBool>,
    until: Instant,
}

impl Lease {
    /// Whether the session is there still.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open_at(Instant::now())
    }

    fn is_open_at(&self, now: Instant) -> bool {
        now < self.until && self.is_open.load(Ordering::Acquire)
    }
}

impl Sessions {
    /// Opens a session and gives its secret.
    pub(crate) fn open(&self) -> String {
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut open = self.lock();
        if open.len() == SESSIONS_MAX {
            open.pop_front();
        }
        open.push_back(Session {
            secret: secret.clone(),
            lease: Lease {
                is_open: Arc::new(AtomicBool::new(true)),
                until: Instant::now() + AGE_MAX,
            },
        });
        secret
    }

    /// The session of a secret, if it is open.
    pub(crate) fn lease(&self, secret: &str) -> Option<Lease> {
        let open = self.lock();
        // All of them are looked at, so that the time says nothing.
        let known = open
            .iter()
            .fold(None, |known, session| match same(&session.secret, secret) {
                true => Some(session),
                false => known,
            });
        known
            .map(|session| session.lease.clone())
            .filter(Lease::is_open)
    }

    pub(crate) fn close(&self, secret: &str) {
        self.lock().retain(|session| !same(&session.secret, secret));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares secrets in a time that does not say where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let differing = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_open_close_and_make_room() {
        let sessions = Sessions::default();
        let is_open = |secret: &str| sessions.lease(secret).is_some();
        let first = sessions.open();
        assert!(is_open(&first) && !is_open("") && !is_open("x"));
        let second = sessions.open();
        sessions.close(&second);
        assert!(!is_open(&second) && is_open(&first));
        for _ in 0..SESSIONS_MAX {
            sessions.open();
        }
        assert!(!is_open(&first));
    }

    #[test]
    fn leases_end_with_their_session_or_its_age() {
        let sessions = Sessions::default();
        let secret = sessions.open();
        let lease = sessions.lease(&secret).expect("it is open");
        let now = Instant::now();
        assert!(lease.is_open_at(now + AGE_MAX - Duration::from_secs(60)));
        assert!(!lease.is_open_at(now + AGE_MAX));
        sessions.close(&secret);
        assert!(!lease.is_open() && sessions.lease(&secret).is_none());
    }
}
