//! The way to the core: a bounded queue of inputs that is taken in batches.
//!
//! When it is full, whoever reads a socket waits here, does not read on, and
//! TCP pushes the peer back. What the shell's own parts report is never held up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::Event;

use crate::core::Input;

/// The most inputs from peers that wait.
const INPUTS_MAX: usize = 1024;
/// The most bytes of their messages; a single larger one still passes alone.
const BYTES_MAX: usize = 64 << 20;
/// The most inputs that the core handles before it looks at commits again.
const BATCH_INPUTS_MAX: usize = 128;
/// The same in bytes.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Inputs on their way to the core.
#[derive(Debug, Default)]
pub(crate) struct InputQueue {
    state: Mutex<State>,
    arrived: Condvar,
    room: Event,
}

#[derive(Debug, Default)]
struct State {
    /// From the store, pipes and the owner: few, and the core waits for them.
    urgent: VecDeque<Input>,
    inputs: VecDeque<(Input, usize)>,
    bytes: usize,
    closed: bool,
}

/// What [`InputQueue::take`] came back for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There are inputs, or the time has come.
    Woken,
    /// Nothing more shall be handled.
    Closed,
}

/// Nobody takes inputs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueClosed;

impl InputQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, then adds what a peer sent. Cancel-safe: a cancelled call added nothing.
    pub(crate) async fn put(&self, input: Input, bytes: usize) -> Result<(), QueueClosed> {
        let mut input = input;
        loop {
            match self.try_put(input, bytes)? {
                None => return Ok(()),
                Some(back) => input = back,
            }
            let room = self.room.listen();
            match self.try_put(input, bytes)? {
                None => return Ok(()),
                Some(back) => input = back,
            }
            room.await;
        }
    }

    fn try_put(&self, input: Input, bytes: usize) -> Result<Option<Input>, QueueClosed> {
        let mut state = self.lock();
        if state.closed {
            return Err(QueueClosed);
        }
        let fits = state.inputs.is_empty()
            || state.inputs.len() < INPUTS_MAX && state.bytes + bytes <= BYTES_MAX;
        if !fits {
            return Ok(Some(input));
        }
        state.bytes += bytes;
        state.inputs.push_back((input, bytes));
        let first = state.inputs.len() == 1;
        drop(state);
        if first {
            self.arrived.notify_one();
        }
        Ok(None)
    }

    /// Adds what the shell itself reports, ahead of what peers sent.
    pub(crate) fn put_now(&self, input: Input) {
        let mut state = self.lock();
        if !state.closed {
            state.urgent.push_back(input);
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// Waits for inputs or the deadline and moves a batch of them to `batch`.
    pub(crate) fn take(&self, batch: &mut Vec<Input>, deadline: Option<Instant>) -> Taken {
        let mut state = self.lock();
        while !state.closed && state.urgent.is_empty() && state.inputs.is_empty() {
            let Some(deadline) = deadline else {
                state = self
                    .arrived
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Woken;
            }
            state = self
                .arrived
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if state.closed {
            return Taken::Closed;
        }
        batch.extend(state.urgent.drain(..));
        let mut taken = 0;
        let mut bytes = 0;
        while taken < BATCH_INPUTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some((input, size)) = state.inputs.pop_front() else {
                break;
            };
            batch.push(input);
            taken += 1;
            bytes += size;
        }
        state.bytes -= bytes;
        drop(state);
        if taken > 0 {
            self.room.notify(usize::MAX);
        }
        Taken::Woken
    }

    /// Ends it: waiting peers' readers and the core are told.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.inputs.clear();
        state.urgent.clear();
        state.bytes = 0;
        drop(state);
        self.arrived.notify_all();
        self.room.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{ClientId, PipeId};
    use futures_lite::future;

    fn gone(id: u64) -> Input {
        Input::ClientGone {
            client: ClientId(id),
        }
    }

    #[test]
    fn put_beyond_the_bytes_waits_until_the_core_took_some() {
        let queue = InputQueue::default();
        future::block_on(queue.put(gone(1), BYTES_MAX)).unwrap();
        let mut waiting = Box::pin(queue.put(gone(2), 1));
        assert!(future::block_on(future::poll_once(&mut waiting)).is_none());
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch, None), Taken::Woken);
        assert_eq!(batch.len(), 1);
        assert_eq!(future::block_on(waiting), Ok(()));
    }

    #[test]
    fn put_of_one_too_large_alone_passes() {
        let queue = InputQueue::default();
        assert_eq!(future::block_on(queue.put(gone(1), 2 * BYTES_MAX)), Ok(()));
    }

    #[test]
    fn put_cancelled_adds_nothing() {
        let queue = InputQueue::default();
        for id in 0..INPUTS_MAX as u64 {
            future::block_on(queue.put(gone(id), 1)).unwrap();
        }
        let mut waiting = Box::pin(queue.put(gone(9999), 1));
        assert!(future::block_on(future::poll_once(&mut waiting)).is_none());
        drop(waiting);
        let mut batch = Vec::new();
        while batch.len() < INPUTS_MAX {
            queue.take(&mut batch, Some(Instant::now()));
        }
        assert_eq!(queue.take(&mut batch, Some(Instant::now())), Taken::Woken);
        assert_eq!(batch.len(), INPUTS_MAX);
    }

    #[test]
    fn take_gives_the_shells_own_reports_first() {
        let queue = InputQueue::default();
        future::block_on(queue.put(gone(1), 1)).unwrap();
        queue.put_now(Input::PipeUp { pipe: PipeId(1) });
        let mut batch = Vec::new();
        queue.take(&mut batch, None);
        assert!(matches!(batch[0], Input::PipeUp { .. }), "{batch:?}");
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn close_wakes_those_that_wait_for_room() {
        let queue = InputQueue::default();
        future::block_on(queue.put(gone(1), BYTES_MAX)).unwrap();
        let mut waiting = Box::pin(queue.put(gone(2), 1));
        assert!(future::block_on(future::poll_once(&mut waiting)).is_none());
        queue.close();
        assert_eq!(future::block_on(waiting), Err(QueueClosed));
        assert_eq!(queue.take(&mut Vec::new(), None), Taken::Closed);
    }
}
