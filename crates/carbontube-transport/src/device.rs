//! Devices that relay between sockets: streamer (PULL to PUSH) and forwarder (SUB to PUB).

use crate::{Address, Closed, CountersSnapshot, Endpoint, OpenError, Options};

/// Relays jobs: what any puller side receives goes to one peer of the pushing side.
#[derive(Debug)]
pub struct Streamer {}

impl Streamer {
    /// Opens both sides; `pull` and `push` may each bind and connect.
    ///
    /// The high-water mark of the receiving side is the number of messages held
    /// inside; that of the sending side is [`Options::send_hwm_messages`] of `push_options`.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        _pull_options: Options,
        _pull: impl IntoIterator<Item = Endpoint>,
        _push_options: Options,
        _push: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// The bound addresses of the pulling and of the pushing side.
    pub fn local_addresses(&self) -> (Vec<Address>, Vec<Address>) {
        (Vec::new(), Vec::new())
    }

    /// What the pulling and the pushing side have counted.
    pub fn counters(&self) -> (CountersSnapshot, CountersSnapshot) {
        Default::default()
    }

    /// Relays for ever; a message is either still at its sender, or inside, or passed on.
    ///
    /// Cancelling loses at most the one message that is between the two sides.
    pub async fn run(&mut self) -> Closed {
        Closed
    }
}

/// Relays events: what any publisher sends goes to every subscriber.
#[derive(Debug)]
pub struct Forwarder {}

impl Forwarder {
    /// Opens both sides, subscribed to everything.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        _subscribe_options: Options,
        _subscribe: impl IntoIterator<Item = Endpoint>,
        _publish_options: Options,
        _publish: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        Err(OpenError::NoEndpoint)
    }

    /// The bound addresses of the subscribing and of the publishing side.
    pub fn local_addresses(&self) -> (Vec<Address>, Vec<Address>) {
        (Vec::new(), Vec::new())
    }

    /// What the subscribing and the publishing side have counted.
    pub fn counters(&self) -> (CountersSnapshot, CountersSnapshot) {
        Default::default()
    }

    /// Relays for ever.
    pub async fn run(&mut self) -> Closed {
        Closed
    }
}
