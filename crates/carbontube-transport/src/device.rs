//! Devices that relay between sockets: streamer (PULL to PUSH) and forwarder (SUB to PUB).

use crate::{
    Address, Closed, CountersSnapshot, Endpoint, FanOut, OpenError, Options, Publish, Pull,
    Subscribe,
};

/// Relays jobs: what any pusher sends goes to one peer of the pushing side.
#[derive(Debug)]
pub struct Streamer {
    pull: Pull,
    push: FanOut,
}

impl Streamer {
    /// Opens both sides; `pull` and `push` may each bind and connect.
    ///
    /// Nothing is taken in while no peer of the pushing side has room, so that
    /// what it holds is bounded by the high-water marks of `push_options`.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        pull_options: Options,
        pull: impl IntoIterator<Item = Endpoint>,
        push_options: Options,
        push: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        let push = FanOut::open(push_options, push).await?;
        let pull = Pull::open(pull_options, pull).await?;
        Ok(Self { pull, push })
    }

    /// The bound addresses of the pulling and of the pushing side.
    pub fn local_addresses(&self) -> (Vec<Address>, Vec<Address>) {
        (self.pull.local_addresses(), self.push.local_addresses())
    }

    /// What the pulling and the pushing side have counted.
    pub fn counters(&self) -> (CountersSnapshot, CountersSnapshot) {
        (self.pull.counters(), self.push.counters())
    }

    /// Relays for ever; a message is either still at its sender, or inside, or passed on.
    ///
    /// Cancelling loses at most the one message that is between the two sides.
    pub async fn run(&mut self) -> Closed {
        loop {
            let message = match self.pull.recv().await {
                Ok(message) => message,
                Err(closed) => return closed,
            };
            if let Err(rejected) = self.push.send(message).await {
                match rejected.reason {
                    crate::Reason::Closed => return Closed,
                    reason => log::warn!("streamer dropped a message: {reason}"),
                }
            }
        }
    }

    /// Stops taking in, passes on what is inside for at most `linger`, and closes.
    pub async fn close(self, linger: std::time::Duration) -> crate::CloseOutcome {
        self.pull.close().await;
        self.push.close(linger).await
    }
}

/// Relays events: what any publisher sends goes to every subscriber.
#[derive(Debug)]
pub struct Forwarder {
    subscribe: Subscribe,
    publish: Publish,
}

impl Forwarder {
    /// Opens both sides, subscribed to everything.
    ///
    /// # Errors
    /// When an address cannot be bound or dialled at all.
    pub async fn open(
        subscribe_options: Options,
        subscribe: impl IntoIterator<Item = Endpoint>,
        publish_options: Options,
        publish: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, OpenError> {
        let publish = Publish::open(publish_options, publish).await?;
        let subscribe = Subscribe::open(subscribe_options, subscribe, [""]).await?;
        Ok(Self { subscribe, publish })
    }

    /// The bound addresses of the subscribing and of the publishing side.
    pub fn local_addresses(&self) -> (Vec<Address>, Vec<Address>) {
        (
            self.subscribe.local_addresses(),
            self.publish.local_addresses(),
        )
    }

    /// What the subscribing and the publishing side have counted.
    pub fn counters(&self) -> (CountersSnapshot, CountersSnapshot) {
        (self.subscribe.counters(), self.publish.counters())
    }

    /// Relays for ever.
    pub async fn run(&mut self) -> Closed {
        loop {
            match self.subscribe.recv().await {
                Ok(message) => self.publish.send(message),
                Err(closed) => return closed,
            }
        }
    }

    /// Stops taking in, passes on what is inside for at most `linger`; tells whether all was written.
    pub async fn close(self, linger: std::time::Duration) -> bool {
        self.subscribe.close().await;
        self.publish.close(linger).await
    }
}
