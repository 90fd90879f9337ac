//! What waits for slow peers: bounded for each of them, and for all of a socket together.
//!
//! A peer may have no more waiting than is still free for all others. So one that does
//! not read keeps half of the room at most, a thousand of them share what there is, and
//! whoever reads finds some.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The room of one socket.
#[derive(Debug)]
pub(crate) struct Room {
    waiting: AtomicUsize,
    most: usize,
}

impl Room {
    /// Room for so many bytes; single messages of peers without any may take as much again.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: AtomicUsize::new(0),
            most,
        })
    }

    /// The bytes of one more peer.
    pub(crate) fn backlog(self: &Arc<Self>) -> Backlog {
        Backlog {
            room: self.clone(),
            bytes: AtomicUsize::new(0),
        }
    }
}

/// The bytes that wait for one peer; they are given back when it goes.
#[derive(Debug)]
pub(crate) struct Backlog {
    room: Arc<Room>,
    bytes: AtomicUsize,
}

impl Backlog {
    /// Adds a message, if the peer then has no more than `most`, and no more than is free.
    pub(crate) fn add(&self, size: usize, is_first: bool, most: usize) -> bool {
        let own = self.bytes.fetch_add(size, Ordering::AcqRel) + size;
        let all = self.room.waiting.fetch_add(size, Ordering::AcqRel);
        let fits = match is_first {
            true => all + size <= self.room.most.saturating_mul(2),
            false => own <= most.min(self.room.most.saturating_sub(all)),
        };
        if !fits {
            self.remove(size);
        }
        fits
    }

    /// Takes off what was written.
    pub(crate) fn remove(&self, size: usize) {
        self.bytes.fetch_sub(size, Ordering::AcqRel);
        self.room.waiting.fetch_sub(size, Ordering::AcqRel);
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        let left = *self.bytes.get_mut();
        self.room.waiting.fetch_sub(left, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_that_does_not_read_leaves_half_of_the_room() {
        let room = Room::new(1000);
        let hog = room.backlog();
        let mut kept = 0;
        while hog.add(10, kept == 0, 5000) {
            kept += 10;
        }
        assert!((490..=510).contains(&kept), "{kept}");
        let other = room.backlog();
        assert!(other.add(100, true, 5000) && other.add(100, false, 5000));
    }

    #[test]
    fn many_that_do_not_read_stay_within_the_room() {
        let room = Room::new(1 << 20);
        let hogs: Vec<Backlog> = (0..1000).map(|_| room.backlog()).collect();
        for round in 0..100 {
            for hog in &hogs {
                hog.add(500, round == 0, usize::MAX);
            }
        }
        let waiting = room.waiting.load(Ordering::Relaxed);
        assert!((900 << 10..=1 << 20).contains(&waiting), "{waiting}");
        drop(hogs);
        assert_eq!(room.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn single_large_message_of_a_peer_passes_unless_all_do_so() {
        let room = Room::new(1000);
        let peers: Vec<Backlog> = (0..5).map(|_| room.backlog()).collect();
        let passed = peers.iter().filter(|peer| peer.add(600, true, 100)).count();
        assert_eq!(passed, 3);
    }

    #[test]
    fn peer_keeps_to_its_own_limit_however_much_is_free() {
        let room = Room::new(1 << 30);
        let peer = room.backlog();
        assert!(peer.add(60, true, 100));
        assert!(!peer.add(60, false, 100));
        peer.remove(60);
        assert!(peer.add(60, false, 100));
    }
}
