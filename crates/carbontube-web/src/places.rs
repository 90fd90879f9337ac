//! Places for connections: so many in all, so many for each host, and some apart for those
//! who only ask whether the process lives.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::brake::network;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 512;
/// The most of one host; whoever is on this machine may be a proxy for many.
const HOST_MAX: usize = 256;
const LOOPBACK_MAX: usize = 448;
/// The most beyond these that are served a health check and no more: of hosts in the
/// network, of each of them, and of this machine.
const BRIEF_MAX: usize = 16;
const BRIEF_HOST_MAX: usize = 4;
const BRIEF_LOOPBACK_MAX: usize = 16;

/// All places.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: usize,
    brief: usize,
    brief_loopback: usize,
    hosts: HashMap<IpAddr, Host>,
    refused: u64,
}

#[derive(Debug, Default)]
struct Host {
    open: usize,
    brief: usize,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    host: IpAddr,
    /// Only a health check is answered here.
    pub(crate) is_brief: bool,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections got no place for more than a health check.
    pub(crate) fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// A place for a connection of a host, if there is any.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let host = network(peer);
        let mut state = self.lock();
        let (open, brief) = state
            .hosts
            .get(&host)
            .map_or((0, 0), |it| (it.open, it.brief));
        let most = if host.is_loopback() {
            LOOPBACK_MAX
        } else {
            HOST_MAX
        };
        let is_brief = state.open >= CONNECTIONS_MAX || open >= most;
        if is_brief {
            state.refused += 1;
            let has_room = match host.is_loopback() {
                true => state.brief_loopback < BRIEF_LOOPBACK_MAX,
                false => state.brief < BRIEF_MAX && brief < BRIEF_HOST_MAX,
            };
            if !has_room {
                return None;
            }
        }
        state.change(host, is_brief, |count| *count += 1);
        drop(state);
        Some(Place {
            places: self.clone(),
            host,
            is_brief,
        })
    }
}

impl State {
    fn change(&mut self, host: IpAddr, is_brief: bool, by: fn(&mut usize)) {
        let entry = self.hosts.entry(host).or_default();
        match is_brief {
            true => by(&mut entry.brief),
            false => by(&mut entry.open),
        }
        if entry.open == 0 && entry.brief == 0 {
            self.hosts.remove(&host);
        }
        match (is_brief, host.is_loopback()) {
            (false, _) => by(&mut self.open),
            (true, false) => by(&mut self.brief),
            (true, true) => by(&mut self.brief_loopback),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.change(self.host, self.is_brief, |count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, host: &str, count: usize) -> Vec<Place> {
        let host: IpAddr = host.parse().expect("an address");
        (0..count).map_while(|_| places.take(host)).collect()
    }

    fn full(held: &[Place]) -> usize {
        held.iter().filter(|place| !place.is_brief).count()
    }

    #[test]
    fn one_host_leaves_places_for_others() {
        let places = Arc::new(Places::default());
        let held = take(&places, "10.0.0.1", 1000);
        assert_eq!(
            (full(&held), held.len()),
            (HOST_MAX, HOST_MAX + BRIEF_HOST_MAX)
        );
        let others = take(&places, "10.0.0.2", 10);
        assert_eq!(full(&others), 10);
        drop((held, others));
        let state = places.lock();
        assert_eq!((state.open, state.brief, state.hosts.len()), (0, 0, 0));
    }

    #[test]
    fn health_checks_have_places_when_all_others_are_taken() {
        let places = Arc::new(Places::default());
        let mut held = Vec::new();
        for n in 0..10 {
            held.extend(take(&places, &format!("10.0.0.{n}"), 1000));
        }
        assert_eq!(full(&held), CONNECTIONS_MAX);
        assert_eq!(held.len(), CONNECTIONS_MAX + BRIEF_MAX);
        let here = take(&places, "127.0.0.1", 100);
        assert_eq!((full(&here), here.len()), (0, BRIEF_LOOPBACK_MAX));
    }
}
