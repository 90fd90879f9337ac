//! Notices that the executor is dead, from a thread that does not need it.
//!
//! When all threads of the executor wait for ever, in a lock or in a call that never
//! returns, every socket and timer of the process is dead, and no task can tell.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Into how many ticks the patience is cut.
///
/// Silence is counted in ticks of the watching thread, not read from a clock: a process
/// that was stopped or slept has ticked as little as its executor ran, and on an
/// overloaded machine both get their turns late.
const TICKS: u32 = 20;
/// The shortest tick.
const TICK_MIN: Duration = Duration::from_millis(10);

/// Asks the executor to run something, and tells whether it did.
#[derive(Debug, Default)]
pub struct ExecutorProbe {
    asked: u64,
    ran: Arc<AtomicU64>,
    silent_ticks: u32,
}

impl ExecutorProbe {
    /// Looks whether the executor ran what it was last given, and gives it the next.
    ///
    /// Returns how many looks in a row it has not. Call it at even intervals, from a
    /// thread that is not the executor's.
    pub fn look(&mut self) -> u32 {
        if self.ran.load(Ordering::Acquire) < self.asked {
            self.silent_ticks = self.silent_ticks.saturating_add(1);
            return self.silent_ticks;
        }
        self.silent_ticks = 0;
        self.asked += 1;
        let (ran, number) = (self.ran.clone(), self.asked);
        async_global_executor::spawn(async move {
            ran.store(number, Ordering::Release);
        })
        .detach();
        0
    }
}

/// Watches the executor for as long as it is kept.
///
/// What happens when the executor is dead is its owner's choice: a program may end
/// itself, as the `carbontube` commands do, or only say so.
#[derive(Debug)]
pub struct Watchdog {
    /// Nothing is ever sent: the thread ends when this is dropped.
    _kept: Sender<()>,
}

impl Watchdog {
    /// Starts a thread that calls `on_silence` when the executor has run nothing for
    /// `patience`, and again after each further `patience` of silence.
    ///
    /// It is called on that thread, so it may end the process, and must not rely on any
    /// task or socket. Times when the whole process does not run (SIGSTOP, a machine
    /// that sleeps) do not count.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        patience: Duration,
        mut on_silence: impl FnMut() + Send + 'static,
    ) -> io::Result<Watchdog> {
        let (kept, dropped) = channel::<()>();
        let tick = (patience / TICKS).max(TICK_MIN);
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                let mut probe = ExecutorProbe::default();
                while dropped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                    let silent = probe.look();
                    if silent > 0 && silent.is_multiple_of(TICKS) {
                        on_silence();
                    }
                }
            })?;
        Ok(Watchdog { _kept: kept })
    }
}
