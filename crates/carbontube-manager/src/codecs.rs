//! Which workers speak JSON, so that their pipes do as well (protocol.md §3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use carbontube_protocol::{Address, Codec};

/// The most addresses remembered: one more takes the place of one without a pipe.
const ADDRESSES_MAX: usize = 16_384;

/// The codec of each worker's address, as its last heartbeat had it.
#[derive(Debug, Default)]
pub(crate) struct WorkerCodecs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    json: BTreeSet<Address>,
    /// How many pipes lead to an address.
    pipes: BTreeMap<Address, usize>,
}

impl WorkerCodecs {
    /// Notes in which codec a heartbeat came. The shell does so before the core sees the
    /// heartbeat, so that the first message on a new pipe is in the right one already.
    /// Tells whether it is another one than before.
    pub(crate) fn heard(&self, address: &Address, codec: Codec) -> bool {
        let State { json, pipes } = &mut *self.lock();
        match codec {
            Codec::Json if json.contains(address) => false,
            Codec::Json => {
                if json.len() >= ADDRESSES_MAX {
                    let idle = json.iter().find(|it| !pipes.contains_key(it)).cloned();
                    let Some(idle) = idle else { return false };
                    json.remove(&idle);
                }
                json.insert(address.clone())
            }
            Codec::Bincode => json.remove(address),
        }
    }

    /// Notes that a pipe leads to an address, and what the core knows of its codec.
    pub(crate) fn opened(&self, address: &Address, codec: Codec) {
        *self.lock().pipes.entry(address.clone()).or_default() += 1;
        self.heard(address, codec);
    }

    /// Notes the end of a pipe. That of its successor may have begun before.
    pub(crate) fn closed(&self, address: &Address) {
        let State { json, pipes } = &mut *self.lock();
        if let Some(count) = pipes.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                pipes.remove(address);
                json.remove(address);
            }
        }
    }

    /// The codec for a pipe to an address.
    pub(crate) fn of(&self, address: &Address) -> Codec {
        match self.lock().json.contains(address) {
            true => Codec::Json,
            false => Codec::Bincode,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_heartbeat_decides() {
        let codecs = WorkerCodecs::default();
        let (one, other) = (Address::tcp("a", 1), Address::tcp("a", 2));
        assert_eq!(codecs.of(&one), Codec::Bincode);
        codecs.heard(&one, Codec::Json);
        codecs.heard(&other, Codec::Bincode);
        assert_eq!(codecs.of(&one), Codec::Json);
        assert_eq!(codecs.of(&other), Codec::Bincode);
        codecs.heard(&one, Codec::Bincode);
        assert_eq!(codecs.of(&one), Codec::Bincode);
    }

    #[test]
    fn one_more_than_the_maximum_takes_the_place_of_one_without_a_pipe() {
        let codecs = WorkerCodecs::default();
        let first = Address::tcp("a", 0);
        codecs.opened(&first, Codec::Json);
        for number in 0..=ADDRESSES_MAX {
            let port = u16::try_from(number % 60_000).expect("fits");
            codecs.heard(&Address::tcp("a", port), Codec::Json);
        }
        assert_eq!(codecs.lock().json.len(), ADDRESSES_MAX);
        let newcomer = Address::tcp("b", 1);
        assert!(codecs.heard(&newcomer, Codec::Json));
        assert_eq!(codecs.of(&newcomer), Codec::Json);
        assert_eq!(codecs.of(&first), Codec::Json, "its pipe is in use");
        assert_eq!(codecs.lock().json.len(), ADDRESSES_MAX);
    }

    #[test]
    fn address_is_forgotten_with_its_last_pipe() {
        let codecs = WorkerCodecs::default();
        let address = Address::tcp("a", 1);
        codecs.opened(&address, Codec::Json);
        codecs.opened(&address, Codec::Json);
        codecs.closed(&address);
        assert_eq!(codecs.of(&address), Codec::Json, "its successor is open");
        codecs.closed(&address);
        assert_eq!(codecs.of(&address), Codec::Bincode);
        assert!(codecs.lock().json.is_empty());
    }
}
