//! How much a process dials for peers that have not shown yet that they are any.
//!
//! Whoever can make a process dial could use it to reach others with: so the dials that
//! strangers cause have a budget, in number at once and in each second. First attempts go
//! before repeated ones, and what belongs to peers that are trusted goes at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::Event;
use futures_lite::future;

/// How long a stranger may take for its handshake: it holds one of few places meanwhile.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);

/// The budget that strangers' dials share.
#[derive(Clone, Debug)]
pub struct DialBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    at_once_max: usize,
    per_second: u32,
    state: Mutex<State>,
    dials: AtomicU64,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    /// Dials that may begin now, in millionths.
    tokens: u64,
    filled_at: Instant,
    /// Those that wait: first attempts first, each in its turn.
    waiting: BTreeMap<(bool, u64), Arc<Event>>,
    last: u64,
}

/// A dial, in the budget's millionths.
const DIAL: u64 = 1_000_000;

impl DialBudget {
    /// At most `at_once_max` dials under way, and `per_second` begun in each second.
    #[must_use]
    pub fn new(at_once_max: usize, per_second: u32) -> Self {
        Self(Arc::new(Budget {
            at_once_max: at_once_max.max(1),
            per_second: per_second.max(1),
            state: Mutex::new(State {
                under_way: 0,
                tokens: u64::from(per_second.max(1)) * DIAL,
                filled_at: Instant::now(),
                waiting: BTreeMap::new(),
                last: 0,
            }),
            dials: AtomicU64::new(0),
        }))
    }

    /// A pass for one socket, whose peer is a stranger so far.
    #[must_use]
    pub fn pass(&self) -> DialPass {
        DialPass(Arc::new(Pass {
            budget: self.clone(),
            is_trusted: AtomicBool::new(false),
            trusted: Event::new(),
        }))
    }

    /// How many dials were made within the budget.
    pub fn dials(&self) -> u64 {
        self.0.dials.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place if it is the turn of `ticket`; otherwise tells when to look again.
    fn try_take(&self, ticket: (bool, u64), now: Instant) -> Result<(), Option<Duration>> {
        let mut state = self.lock();
        let per_second = u64::from(self.0.per_second);
        let since = now.saturating_duration_since(state.filled_at);
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        state.tokens = (state
            .tokens
            .saturating_add(micros.saturating_mul(per_second)))
        .min(per_second * DIAL);
        state.filled_at = state.filled_at.max(now);
        let is_first = state.waiting.keys().next() == Some(&ticket);
        if !is_first || state.under_way >= self.0.at_once_max {
            return Err(None);
        }
        if state.tokens < DIAL {
            let micros = (DIAL - state.tokens).div_ceil(per_second);
            return Err(Some(Duration::from_micros(micros)));
        }
        state.tokens -= DIAL;
        state.under_way += 1;
        state.leave(ticket);
        drop(state);
        self.0.dials.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl State {
    fn leave(&mut self, ticket: (bool, u64)) {
        self.waiting.remove(&ticket);
        self.wake_first();
    }

    fn wake_first(&self) {
        if let Some(event) = self.waiting.values().next() {
            event.notify(usize::MAX);
        }
    }
}

/// Lets one socket dial, within the budget until its peer is trusted.
#[derive(Clone, Debug)]
pub struct DialPass(Arc<Pass>);

#[derive(Debug)]
struct Pass {
    budget: DialBudget,
    is_trusted: AtomicBool,
    trusted: Event,
}

impl PartialEq for DialPass {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DialPass {}

impl DialPass {
    /// The peer has shown that it is one: it is dialled at once from now on.
    pub fn trust(&self) {
        self.0.is_trusted.store(true, Ordering::Release);
        self.0.trusted.notify(usize::MAX);
    }

    /// Whether the peer is trusted.
    pub fn is_trusted(&self) -> bool {
        self.0.is_trusted.load(Ordering::Acquire)
    }

    /// Dials in its turn; the dial ends early when a stranger takes its place for too long.
    pub(crate) async fn dial<T>(&self, is_first: bool, dial: impl Future<Output = T>) -> T {
        let _place = self.enter(is_first).await;
        dial.await
    }

    /// How long the peer may take for its handshake.
    pub(crate) fn handshake_timeout(&self, usual: Duration) -> Duration {
        match self.is_trusted() {
            true => usual,
            false => usual.min(HANDSHAKE_MAX),
        }
    }

    /// Waits for a place; gives none to trusted peers, who need none.
    async fn enter(&self, is_first: bool) -> Option<Place> {
        if self.is_trusted() {
            return None;
        }
        let budget = &self.0.budget;
        let event = Arc::new(Event::new());
        let ticket = {
            let mut state = budget.lock();
            state.last += 1;
            let ticket = (!is_first, state.last);
            state.waiting.insert(ticket, event.clone());
            ticket
        };
        let waits = Waits(budget, ticket);
        loop {
            let (turn, trusted) = (event.listen(), self.0.trusted.listen());
            if self.is_trusted() {
                return None;
            }
            match budget.try_take(ticket, Instant::now()) {
                Ok(()) => {
                    drop(waits);
                    return Some(Place(budget.clone()));
                }
                Err(Some(pause)) => {
                    let timer = async {
                        Timer::after(pause).await;
                    };
                    future::or(timer, future::or(turn, trusted)).await;
                }
                Err(None) => future::or(turn, trusted).await,
            }
        }
    }
}

/// Someone who waits for a place; leaves the queue however the wait ends.
struct Waits<'a>(&'a DialBudget, (bool, u64));

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.lock().leave(self.1);
    }
}

/// A dial under way.
struct Place(DialBudget);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        state.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(pass: &DialPass, is_first: bool) -> impl Future<Output = Option<Place>> + '_ {
        pass.enter(is_first)
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        future::block_on(future::poll_once(future))
    }

    #[test]
    fn no_more_than_the_maximum_are_under_way() {
        let budget = DialBudget::new(2, 1000);
        let passes: Vec<DialPass> = (0..3).map(|_| budget.pass()).collect();
        let first = future::block_on(enter(&passes[0], true));
        let _second = future::block_on(enter(&passes[1], true));
        let mut third = Box::pin(enter(&passes[2], true));
        assert!(poll(&mut third).is_none());
        drop(first);
        assert!(poll(&mut third).is_some());
        assert_eq!(budget.dials(), 3);
    }

    #[test]
    fn first_attempts_go_before_repeated_ones() {
        let budget = DialBudget::new(1, 1000);
        let passes: Vec<DialPass> = (0..3).map(|_| budget.pass()).collect();
        let place = future::block_on(enter(&passes[0], true));
        let mut again = Box::pin(enter(&passes[1], false));
        let mut first = Box::pin(enter(&passes[2], true));
        assert!(poll(&mut again).is_none());
        assert!(poll(&mut first).is_none());
        drop(place);
        assert!(poll(&mut again).is_none());
        let place = poll(&mut first).expect("its turn");
        drop(place);
        assert!(poll(&mut again).is_some());
    }

    #[test]
    fn dials_in_a_second_are_bounded() {
        let budget = DialBudget::new(1000, 10);
        for _ in 0..10 {
            assert!(future::block_on(enter(&budget.pass(), true)).is_some());
        }
        let pass = budget.pass();
        let mut over = Box::pin(enter(&pass, true));
        assert!(poll(&mut over).is_none());
        drop(over);
        assert!(budget.lock().waiting.is_empty(), "it left the queue");
        let later = Instant::now() + Duration::from_secs(100);
        let ticket = (false, 99);
        budget.lock().waiting.insert(ticket, Arc::new(Event::new()));
        assert_eq!(budget.try_take(ticket, later), Ok(()));
        assert!(budget.lock().tokens <= 9 * DIAL, "no more than a second's");
    }

    #[test]
    fn one_that_becomes_trusted_does_not_wait_any_more() {
        let budget = DialBudget::new(1, 1000);
        let (stranger, friend) = (budget.pass(), budget.pass());
        let _place = future::block_on(enter(&stranger, true));
        let mut waiting = Box::pin(enter(&friend, true));
        assert!(poll(&mut waiting).is_none());
        friend.trust();
        assert!(poll(&mut waiting).is_some_and(|place| place.is_none()));
    }
}
