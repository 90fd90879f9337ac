//! Tells every socket task that the manager ends.

use std::future::Future;

use async_channel::{Receiver, Sender};
use futures_lite::future;

/// Seen by tasks: ends their waiting.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Receiver<()>);

/// Ends all that wait with [`Stop::or`], when it is dropped at the latest.
#[derive(Debug)]
pub(crate) struct Stopper(Sender<()>);

/// A pair of both.
pub(crate) fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = async_channel::bounded(1);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    pub(crate) fn stop(&self) {
        self.0.close();
    }
}

impl Stop {
    /// Waits for the future, or for the end: then `None`. The future must be cancel-safe.
    pub(crate) async fn or<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let ended = async {
            while self.0.recv().await.is_ok() {}
            None
        };
        future::or(ended, async { Some(future.await) }).await
    }
}
