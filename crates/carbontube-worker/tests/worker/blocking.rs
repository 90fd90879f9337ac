//! Phases on threads of their own.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use carbontube_protocol::message::Outcome;
use carbontube_worker::{AnyPhase, BlockingPhase, FailureKind, JobContext, PhaseError, Worker};

use crate::scripted::{Manager, attempt, failure, reached, run, work};

/// Waits for a word for each job that says so.
struct Waits(Mutex<Receiver<()>>);

#[derive(serde::Deserialize)]
struct Given {
    #[serde(default)]
    wait: bool,
    #[serde(default)]
    panic: bool,
}

impl BlockingPhase for Waits {
    type Instructions = Given;
    type Output = serde_json::Value;

    fn execute(&self, job: &JobContext, given: Given) -> Result<serde_json::Value, PhaseError> {
        if given.wait {
            self.0.lock().map_err(|_| "poisoned")?.recv()?;
        }
        assert!(!given.panic, "on purpose");
        Ok(serde_json::json!({ "cancelled": job.is_cancelled() }))
    }
}

#[test]
fn blocking_attempt_that_ignores_its_timeout_is_reported_and_keeps_its_slot() {
    run(async {
        let mut manager = Manager::open().await;
        let (go, gate) = channel();
        let phase = AnyPhase::from_blocking(Waits(Mutex::new(gate)));
        let worker = Worker::start(manager.options(), phase)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        let mut late = work(1, r#"{"wait":true}"#);
        late.timeout_ms = 30;
        manager.dispatch(vec![late, work(2, "{}")]).await;
        let result = manager.result().await;
        assert_eq!(result.attempt, attempt(1));
        assert_eq!(failure(&result).0, FailureKind::Timeout);
        // Its thread is busy still, so the second waits.
        assert_eq!(worker.counters().queued, 1);
        go.send(()).expect("it waits");
        let result = manager.result().await;
        assert_eq!(
            (result.attempt, result.outcome),
            (attempt(2), Outcome::Success)
        );
        assert_eq!(worker.counters().failed, 1);
    });
}

#[test]
fn blocking_panic_is_contained_and_the_thread_goes_on() {
    run(async {
        let mut manager = Manager::open().await;
        let (_go, gate) = channel();
        let phase = AnyPhase::from_blocking(Waits(Mutex::new(gate)));
        let worker = Worker::start(manager.options(), phase)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager
            .dispatch(vec![work(1, r#"{"panic":true}"#), work(2, "{}")])
            .await;
        let results = manager.results(2).await;
        let (kind, message, detail, _) = failure(&results[0]);
        assert_eq!((kind, message), (FailureKind::Panic, "on purpose"));
        assert!(detail.contains("blocking.rs"), "{detail}");
        assert_eq!(results[1].outcome, Outcome::Success);
        reached("counted", || worker.counters().failed == 1).await;
    });
}
