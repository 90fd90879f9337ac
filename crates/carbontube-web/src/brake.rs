//! Wrong tokens: each host that gives some waits ever longer for its answers.
//!
//! Only wrong ones wait: who shows the right token is never held up by others, not even by
//! those behind the same proxy. With the connections that a host may have, this bounds how
//! often it can guess.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use carbontube_transport::Complaints;

/// How long the first wrong token waits for its answer; each later one twice as long.
const FIRST: Duration = Duration::from_millis(500);
/// The longest that one waits.
const LONGEST: Duration = Duration::from_secs(8);
/// A host that gave no wrong token for so long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// The most hosts remembered; one more takes the place of the one that was silent longest.
const HOSTS_MAX: usize = 1024;

/// Who gave wrong tokens.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    hosts: Mutex<BTreeMap<IpAddr, Wrong>>,
    all: AtomicU64,
    complaints: Complaints,
}

#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    last: Instant,
}

impl Brake {
    /// How many wrong tokens were given.
    pub(crate) fn count(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Notes a wrong token; tells how long its answer has to wait.
    pub(crate) fn wrong(&self, peer: IpAddr) -> Duration {
        let count = self.note(peer, Instant::now());
        // The 1st, 2nd, 4th, 8th …: the more there are, the longer until the next line.
        if count.is_power_of_two()
            && let Some(hidden) = self.complaints.admit(&peer.to_string())
        {
            log::warn!(
                "a wrong token was given by {peer}, {count} by now from there ({hidden} lines not shown)"
            );
        }
        FIRST.saturating_mul(1 << (count - 1).min(16)).min(LONGEST)
    }

    fn note(&self, peer: IpAddr, now: Instant) -> u32 {
        self.all.fetch_add(1, Ordering::Relaxed);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = network(peer);
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(&host) {
            let oldest = hosts.iter().min_by_key(|(_, wrong)| wrong.last);
            let oldest = oldest.map(|(host, _)| *host);
            oldest.map(|oldest| hosts.remove(&oldest));
        }
        let fresh = Wrong {
            count: 0,
            last: now,
        };
        let wrong = hosts.entry(host).or_insert(fresh);
        if now.saturating_duration_since(wrong.last) >= FORGIVEN_AFTER {
            wrong.count = 0;
        }
        wrong.count = wrong.count.saturating_add(1);
        wrong.last = now;
        wrong.count
    }
}

/// What counts as one host: of IPv6 a network of 64 bits, which one machine can have whole.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) if !peer.is_loopback() => {
            let bits = u128::from(peer) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn wrong_tokens_of_one_host_wait_ever_longer_and_those_of_others_do_not() {
        let brake = Brake::default();
        let waits: Vec<u128> = (0..7).map(|_| brake.wrong(host(1)).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(brake.wrong(host(2)), FIRST);
        assert_eq!(brake.count(), 8);
        let (one, other) = ("2001:db8::1", "2001:db8::2:3");
        assert_eq!(brake.wrong(one.parse().expect("an address")), FIRST);
        assert_eq!(brake.wrong(other.parse().expect("an address")), 2 * FIRST);
    }

    #[test]
    fn hosts_are_forgiven_and_few_are_remembered() {
        let brake = Brake::default();
        let start = Instant::now();
        assert_eq!(brake.note(host(1), start), 1);
        assert_eq!(brake.note(host(1), start), 2);
        assert_eq!(brake.note(host(1), start + FORGIVEN_AFTER), 1);
        for n in 0..5000 {
            brake.note(host(n), start + FORGIVEN_AFTER);
        }
        let hosts = brake.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(hosts.len() <= HOSTS_MAX);
    }
}
