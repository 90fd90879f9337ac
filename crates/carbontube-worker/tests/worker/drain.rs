//! Leaving in order, and at once.

use carbontube_protocol::Message;
use carbontube_protocol::message::{HandBackReason, Outcome, WorkerState};
use carbontube_worker::{Worker, WorkerHandle};
use serde_json::json;

use crate::scripted::{Manager, attempt, endless, phase, reached, run, soon, work};

fn ends(worker: Worker) -> async_std::task::JoinHandle<()> {
    async_std::task::spawn(worker.run())
}

async fn running(handle: &WorkerHandle, count: usize) {
    reached("it runs", || handle.counters().running == count).await;
}

#[test]
fn drain_hands_back_finishes_waits_for_the_acknowledgement_and_says_goodbye() {
    run(async {
        let mut manager = Manager::open().await;
        let (go, gate) = async_channel::bounded::<()>(1);
        let gated = phase(move |_, _| {
            let gate = gate.clone();
            async move {
                gate.recv().await?;
                Ok(json!({ "done": true }))
            }
        });
        let worker = Worker::start(manager.options(), gated)
            .await
            .expect("starts");
        let handle = worker.handle();
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}"), work(2, "{}")]).await;
        running(&handle, 1).await;
        manager.heartbeat(|_| true).await;
        let end = ends(worker);
        manager.drain().await;
        let hand_back = manager.hand_back().await;
        assert_eq!(hand_back.reason, HandBackReason::Draining);
        assert_eq!(hand_back.attempts[0].attempt, attempt(2));
        manager
            .heartbeat(|beat| beat.state == WorkerState::Draining)
            .await;
        // One that was on its way comes back as well.
        manager.dispatch(vec![work(3, "{}")]).await;
        assert_eq!(manager.hand_back().await.attempts[0].attempt, attempt(3));
        go.send(()).await.expect("it waits");
        let result = manager.result().await;
        assert_eq!(result.outcome, Outcome::Success);
        assert!(handle.is_draining());
        manager.acknowledge(&[1]).await;
        assert!(matches!(manager.received().await, Message::Goodbye(_)));
        soon("the end", end).await;
    });
}

#[test]
fn drain_hands_back_what_outlasts_the_grace_period() {
    run(async {
        let mut manager = Manager::open().await;
        let mut options = manager.options();
        options.grace = std::time::Duration::from_millis(50);
        let worker = Worker::start(options, endless()).await.expect("starts");
        let handle = worker.handle();
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        running(&handle, 1).await;
        let end = ends(worker);
        handle.drain();
        let hand_back = manager.hand_back().await;
        assert_eq!(hand_back.reason, HandBackReason::Abandoned);
        assert_eq!(hand_back.attempts[0].attempt, attempt(1));
        assert!(matches!(manager.received().await, Message::Goodbye(_)));
        soon("the end", end).await;
    });
}

#[test]
fn stop_now_ends_though_an_attempt_runs() {
    run(async {
        let mut manager = Manager::open().await;
        let worker = Worker::start(manager.options(), endless())
            .await
            .expect("starts");
        let handle = worker.handle();
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        running(&handle, 1).await;
        let end = ends(worker);
        handle.stop_now();
        soon("the end", end).await;
    });
}

#[test]
fn dropped_worker_begins_nothing_more_and_hands_everything_back() {
    run(async {
        let mut manager = Manager::open().await;
        let (begun, begins) = async_channel::unbounded();
        let endless = phase(move |job, _| {
            let begun = begun.clone();
            async move {
                begun.send(job.attempt()).await?;
                futures_lite::future::pending().await
            }
        });
        let worker = Worker::start(manager.options(), endless)
            .await
            .expect("starts");
        let handle = worker.handle();
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}"), work(2, "{}")]).await;
        running(&handle, 1).await;
        reached("both are there", || handle.counters().queued == 1).await;
        drop(worker);
        let queued = manager.hand_back().await;
        assert_eq!(queued.reason, HandBackReason::Draining);
        assert_eq!(queued.attempts[0].attempt, attempt(2));
        let stopped = manager.hand_back().await;
        assert_eq!(stopped.reason, HandBackReason::Abandoned);
        assert_eq!(stopped.attempts[0].attempt, attempt(1));
        assert_eq!(begins.recv().await, Ok(attempt(1)));
        // The runner has let go of the phase: no other attempt can begin.
        assert!(begins.recv().await.is_err());
    });
}
