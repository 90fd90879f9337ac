//! Which workers speak JSON, so that their pipes do as well (protocol.md §3).

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carbontube_protocol::{Address, Codec};

/// The most addresses remembered: more would be hostile, and get bincode.
const ADDRESSES_MAX: usize = 16_384;

/// The codec of each worker's address, as its last heartbeat had it.
#[derive(Debug, Default)]
pub(crate) struct WorkerCodecs {
    json: Mutex<BTreeSet<Address>>,
}

impl WorkerCodecs {
    /// Notes in which codec a heartbeat came. The shell does so before the core sees the
    /// heartbeat, so that the first message on a new pipe is in the right one already.
    /// Tells whether it is another one than before.
    pub(crate) fn heard(&self, address: &Address, codec: Codec) -> bool {
        let mut json = self.lock();
        match codec {
            Codec::Json if json.contains(address) || json.len() >= ADDRESSES_MAX => false,
            Codec::Json => json.insert(address.clone()),
            Codec::Bincode => json.remove(address),
        }
    }

    /// The codec for a pipe to an address.
    pub(crate) fn of(&self, address: &Address) -> Codec {
        match self.lock().contains(address) {
            true => Codec::Json,
            false => Codec::Bincode,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Address>> {
        self.json.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn no_more_than_the_maximum_is_remembered() {
        let codecs = WorkerCodecs::default();
        for number in 0..=ADDRESSES_MAX {
            let port = u16::try_from(number % 60_000).expect("fits");
            codecs.heard(&Address::tcp("a", port), Codec::Json);
        }
        assert_eq!(codecs.lock().len(), ADDRESSES_MAX);
    }
}
