//! Tells every socket task that the manager ends.

use std::future::Future;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_io::Timer;
use futures_lite::{StreamExt, future};

/// How often a socket's task looks at what the socket has counted.
const TICK: Duration = Duration::from_millis(500);

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

/// What a socket's task woke up for.
pub(crate) enum Wake<T> {
    Came(T),
    Tick,
}

/// Wakes a socket's task now and then, also when nothing comes.
#[derive(Debug)]
pub(crate) struct Ticks(Timer);

impl Ticks {
    pub(crate) fn new() -> Ticks {
        Ticks(Timer::interval(TICK))
    }

    /// Waits for the future or the next tick. The future must be cancel-safe.
    pub(crate) async fn or<T>(&mut self, future: impl Future<Output = T>) -> Wake<T> {
        let tick = async {
            self.0.next().await;
            Wake::Tick
        };
        future::or(tick, async { Wake::Came(future.await) }).await
    }
}
