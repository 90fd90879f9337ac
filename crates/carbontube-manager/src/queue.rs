//! The way to the core: a bounded queue of inputs that is taken in batches.
//!
//! When it is full, whoever reads a socket waits here, does not read on, and
//! TCP pushes the peer back. What the shell's own parts report is never held up.
//!
//! Workers' heartbeats wait in the [lobby](crate::lobby), where nobody is held up: only the
//! newest of each worker counts.
//!
//! Questions have a way of their own: one can cost the core as much as thousands of
//! results, and whoever asks a lot shall hold up neither the jobs nor those who ask a little.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use carbontube_protocol::{Address, WorkerId};
use carbontube_transport::Origin;
use event_listener::Event;

use crate::core::{ClientId, Input, Rank};
use crate::lobby::{Lobby, Put};

/// The most inputs from peers that wait.
const INPUTS_MAX: usize = 1024;
/// The most bytes of their messages; a single larger one still passes alone.
const BYTES_MAX: usize = 64 << 20;
/// The most inputs that the core handles before it looks at commits again.
const BATCH_INPUTS_MAX: usize = 128;
/// The same in bytes.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// The most questions of one client that wait; it is told so at the next one.
const QUESTIONS_MAX: usize = 64;
/// The most bytes of all questions that wait; a client that has none may still add one.
const QUESTION_BYTES_MAX: usize = 16 << 20;

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
    questions: Questions,
    lobby: Lobby,
    closed: bool,
}

/// What clients ask, in turn: each client's oldest, then the next client's.
#[derive(Debug, Default)]
struct Questions {
    by_client: BTreeMap<ClientId, VecDeque<(Input, usize)>>,
    turns: VecDeque<ClientId>,
    bytes: usize,
}

impl Questions {
    fn add(&mut self, client: ClientId, input: Input, bytes: usize) -> bool {
        let waiting = self.by_client.entry(client).or_default();
        let is_first = waiting.is_empty();
        let fits =
            is_first || waiting.len() < QUESTIONS_MAX && self.bytes + bytes <= QUESTION_BYTES_MAX;
        if fits {
            waiting.push_back((input, bytes));
            self.bytes += bytes;
            if is_first {
                self.turns.push_back(client);
            }
        }
        fits
    }

    /// Nobody waits for the answers any more.
    fn forget(&mut self, client: ClientId) {
        if let Some(waiting) = self.by_client.remove(&client) {
            self.bytes -= waiting.iter().map(|(_, bytes)| bytes).sum::<usize>();
            self.turns.retain(|turn| *turn != client);
        }
    }

    fn next(&mut self) -> Option<Input> {
        let client = self.turns.pop_front()?;
        let waiting = self.by_client.get_mut(&client)?;
        let (input, bytes) = waiting.pop_front()?;
        self.bytes -= bytes;
        if waiting.is_empty() {
            self.by_client.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        Some(input)
    }
}

/// What [`InputQueue::take`] came back for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There are inputs, or the time has come.
    Woken,
    /// Nothing more shall be handled.
    Closed,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It waits for its turn.
    Waits,
    /// Its client has too many that wait.
    TooMany,
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

    /// Adds what a worker at an address announces; never waits.
    pub(crate) fn announce(
        &self,
        origin: Origin,
        (worker, address): (WorkerId, &Address),
        inputs: Vec<Input>,
        bytes: usize,
    ) -> Result<Put, QueueClosed> {
        let mut state = self.lock();
        if state.closed {
            return Err(QueueClosed);
        }
        let put = state.lobby.put(origin, worker, address, inputs, bytes);
        drop(state);
        if put == Put::Waits {
            self.arrived.notify_one();
        }
        Ok(put)
    }

    /// Whether a worker has shown that it receives.
    pub(crate) fn is_trusted(&self, worker: WorkerId) -> bool {
        self.lock().lobby.is_trusted(worker, None)
    }

    /// Whether it has shown so at this address.
    pub(crate) fn is_trusted_at(&self, worker: WorkerId, address: &Address) -> bool {
        self.lock().lobby.is_trusted(worker, Some(address))
    }

    /// Adds what a peer sent if at least half of the room is free; tells whether it was.
    pub(crate) fn put_if_roomy(&self, input: Input, bytes: usize) -> Result<bool, QueueClosed> {
        let state = self.lock();
        let is_roomy = state.inputs.len() < INPUTS_MAX / 2
            && state.bytes.saturating_add(bytes) <= BYTES_MAX / 2;
        drop(state);
        // Others may add some in between; then it is refused as well.
        Ok(is_roomy && self.try_put(input, bytes)?.is_none())
    }

    /// Takes note of what the core thinks of a worker.
    pub(crate) fn rank(&self, worker: WorkerId, rank: &Rank) {
        self.lock().lobby.rank(worker, rank);
    }

    /// Adds a client's question, or refuses it; never waits.
    pub(crate) fn ask(
        &self,
        client: ClientId,
        input: Input,
        bytes: usize,
    ) -> Result<Asked, QueueClosed> {
        let mut state = self.lock();
        if state.closed {
            return Err(QueueClosed);
        }
        if !state.questions.add(client, input, bytes) {
            return Ok(Asked::TooMany);
        }
        drop(state);
        self.arrived.notify_one();
        Ok(Asked::Waits)
    }

    /// Drops the questions of a client that is gone: whoever comes back under ever new
    /// numbers would otherwise have a turn for each of them.
    pub(crate) fn forget(&self, client: ClientId) {
        self.lock().questions.forget(client);
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

    /// Waits for inputs or the deadline and moves a batch of them to `batch`; one question
    /// at most, and none before `questions_from`.
    pub(crate) fn take(
        &self,
        batch: &mut Vec<Input>,
        deadline: Option<Instant>,
        questions_from: Instant,
    ) -> Taken {
        let mut state = self.lock();
        while !state.closed && state.urgent.is_empty() && state.inputs.is_empty() {
            let mut deadline = deadline;
            let now = Instant::now();
            if let Some(next) = state.lobby.next(now) {
                if next <= now {
                    break;
                }
                deadline = Some(deadline.map_or(next, |at| at.min(next)));
            }
            if !state.questions.turns.is_empty() {
                if questions_from <= Instant::now() {
                    break;
                }
                deadline = Some(deadline.map_or(questions_from, |at| at.min(questions_from)));
            }
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
        state.lobby.take(batch, BATCH_INPUTS_MAX, Instant::now());
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
        if !state.questions.turns.is_empty() && questions_from <= Instant::now() {
            batch.extend(state.questions.next());
        }
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
        state.questions = Questions::default();
        state.lobby = Lobby::default();
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

    fn take(queue: &InputQueue, batch: &mut Vec<Input>) -> Taken {
        queue.take(batch, None, Instant::now())
    }

    fn ask(queue: &InputQueue, client: u64, bytes: usize) -> Asked {
        // Whatever it is, the queue does not look into it.
        queue.ask(ClientId(client), gone(client), bytes).unwrap()
    }

    fn who(input: &Input) -> u64 {
        match input {
            Input::ClientGone { client } => client.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn take_gives_one_question_at_a_time_and_each_client_its_turn() {
        let queue = InputQueue::default();
        for client in [1, 1, 1, 2, 3] {
            assert_eq!(ask(&queue, client, 10), Asked::Waits);
        }
        let mut order = Vec::new();
        for _ in 0..5 {
            let mut batch = Vec::new();
            take(&queue, &mut batch);
            assert_eq!(batch.len(), 1, "{batch:?}");
            order.push(who(&batch[0]));
        }
        assert_eq!(order, [1, 2, 3, 1, 1]);
    }

    #[test]
    fn take_before_the_time_of_questions_gives_all_else() {
        let queue = InputQueue::default();
        ask(&queue, 1, 10);
        future::block_on(queue.put(gone(2), 1)).unwrap();
        let later = Instant::now() + std::time::Duration::from_secs(3600);
        let mut batch = Vec::new();
        queue.take(&mut batch, None, later);
        assert_eq!(batch.iter().map(who).collect::<Vec<_>>(), [2]);
        batch.clear();
        let soon = Instant::now() + std::time::Duration::from_millis(1);
        while batch.is_empty() {
            queue.take(&mut batch, None, soon);
        }
        assert_eq!(batch.iter().map(who).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn ask_beyond_what_a_client_may_have_is_refused_to_it_alone() {
        let queue = InputQueue::default();
        for _ in 0..QUESTIONS_MAX {
            assert_eq!(ask(&queue, 1, 10), Asked::Waits);
        }
        assert_eq!(ask(&queue, 1, 10), Asked::TooMany);
        assert_eq!(ask(&queue, 2, 10), Asked::Waits);
        take(&queue, &mut Vec::new());
        assert_eq!(ask(&queue, 1, 10), Asked::Waits);
    }

    #[test]
    fn questions_of_a_client_that_is_gone_take_nobodys_turn() {
        let queue = InputQueue::default();
        for client in [1, 1, 2] {
            ask(&queue, client, QUESTION_BYTES_MAX / 4);
        }
        queue.forget(ClientId(1));
        queue.forget(ClientId(7));
        let mut batch = Vec::new();
        take(&queue, &mut batch);
        assert_eq!(batch.iter().map(who).collect::<Vec<_>>(), [2]);
        assert_eq!(ask(&queue, 3, 1), Asked::Waits);
        assert_eq!(ask(&queue, 3, QUESTION_BYTES_MAX / 2), Asked::Waits);
    }

    #[test]
    fn ask_beyond_the_bytes_of_all_is_refused_to_those_who_have_some() {
        let queue = InputQueue::default();
        assert_eq!(ask(&queue, 1, QUESTION_BYTES_MAX), Asked::Waits);
        assert_eq!(ask(&queue, 1, 1), Asked::TooMany);
        assert_eq!(ask(&queue, 2, 1), Asked::Waits);
        assert_eq!(ask(&queue, 2, 1), Asked::TooMany);
    }

    #[test]
    fn put_beyond_the_bytes_waits_until_the_core_took_some() {
        let queue = InputQueue::default();
        future::block_on(queue.put(gone(1), BYTES_MAX)).unwrap();
        let mut waiting = Box::pin(queue.put(gone(2), 1));
        assert!(future::block_on(future::poll_once(&mut waiting)).is_none());
        let mut batch = Vec::new();
        assert_eq!(take(&queue, &mut batch), Taken::Woken);
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
            queue.take(&mut batch, Some(Instant::now()), Instant::now());
        }
        assert_eq!(
            queue.take(&mut batch, Some(Instant::now()), Instant::now()),
            Taken::Woken
        );
        assert_eq!(batch.len(), INPUTS_MAX);
    }

    #[test]
    fn take_gives_the_shells_own_reports_first() {
        let queue = InputQueue::default();
        future::block_on(queue.put(gone(1), 1)).unwrap();
        queue.put_now(Input::PipeUp { pipe: PipeId(1) });
        let mut batch = Vec::new();
        take(&queue, &mut batch);
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
        assert_eq!(take(&queue, &mut Vec::new()), Taken::Closed);
    }
}
