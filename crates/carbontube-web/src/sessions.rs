//! Who showed the token: browsers keep a session in a cookie instead, since an event
//! stream of a page cannot send a header.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// The most sessions; the oldest makes room.
const SESSIONS_MAX: usize = 1000;

/// The sessions that are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<VecDeque<String>>);

impl Sessions {
    /// Opens a session and gives its secret.
    pub(crate) fn open(&self) -> String {
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == SESSIONS_MAX {
            open.pop_front();
        }
        open.push_back(secret.clone());
        secret
    }

    pub(crate) fn is_open(&self, secret: &str) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // All of them, so that the time says nothing.
        open.iter().filter(|known| same(known, secret)).count() > 0
    }

    pub(crate) fn close(&self, secret: &str) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|known| !same(known, secret));
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
        let first = sessions.open();
        assert!(sessions.is_open(&first) && !sessions.is_open("") && !sessions.is_open("x"));
        let second = sessions.open();
        sessions.close(&second);
        assert!(!sessions.is_open(&second) && sessions.is_open(&first));
        for _ in 0..SESSIONS_MAX {
            sessions.open();
        }
        assert!(!sessions.is_open(&first));
    }
}
