//! Panics in phases: caught, told in one line, never a trace on the terminal.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use carbontube_protocol::message::FailureKind;

use crate::context::JobContext;
use crate::emergency::OnExecutor;
use crate::phase::{Ended, Executing, Failure};

thread_local! {
    static IN_PHASE: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Puts a hook before the process's own that keeps quiet about panics of phases.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IN_PHASE.with(Cell::get) {
                others(info);
                return;
            }
            let mut place = info
                .location()
                .map_or_else(String::new, |location| format!("at {location}\n"));
            let trace = std::backtrace::Backtrace::capture();
            if trace.status() == std::backtrace::BacktraceStatus::Captured {
                place.push_str(&trace.to_string());
            }
            PLACE.with(|cell| *cell.borrow_mut() = Some(place));
        }));
    });
}

/// Runs a piece of a phase on this thread.
pub(crate) fn caught<T>(job: &JobContext, run: impl FnOnce() -> T) -> Result<T, Failure> {
    let before = IN_PHASE.with(|cell| cell.replace(true));
    let result = catch_unwind(AssertUnwindSafe(run));
    IN_PHASE.with(|cell| cell.set(before));
    result.map_err(|panic| {
        let text = text(panic.as_ref());
        let place = PLACE.with(|cell| cell.borrow_mut().take());
        log::warn!(
            "the phase panicked: {text} job={} attempt={}",
            job.job(),
            job.attempt()
        );
        // A panic's payload may panic when it is dropped.
        std::mem::forget(panic);
        Failure::new(FailureKind::Panic, text).with_detail(place.unwrap_or_default())
    })
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// A phase's future whose panics are caught.
pub(crate) struct Caught<'a> {
    job: &'a JobContext,
    inner: Option<Executing<'a>>,
}

impl<'a> Caught<'a> {
    pub(crate) fn new(job: &'a JobContext, inner: Executing<'a>) -> Self {
        Caught {
            job,
            inner: Some(inner),
        }
    }
}

impl Future for Caught<'_> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let job = self.job;
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Pending;
        };
        let _mark = OnExecutor::mark();
        match caught(job, || inner.as_mut().poll(context)) {
            Ok(poll) => poll,
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }
}

impl Drop for Caught<'_> {
    fn drop(&mut self) {
        let inner = self.inner.take();
        let _told_in_the_log = caught(self.job, || drop(inner));
    }
}
