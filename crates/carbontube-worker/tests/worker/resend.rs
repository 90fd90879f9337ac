//! Results outlive managers and connections.

use std::time::Duration;

use carbontube_protocol::message::Outcome;
use carbontube_worker::Worker;
use serde_json::json;

use crate::scripted::{Manager, attempt, phase, run, within, work};

fn nothing() -> carbontube_worker::AnyPhase {
    phase(|_, _| async { Ok(json!(null)) })
}

#[test]
fn manager_that_restarts_gets_unacknowledged_results_again() {
    run(async {
        let mut manager = Manager::open().await;
        let worker = Worker::start(manager.options(), nothing())
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}"), work(2, "{}")]).await;
        assert_eq!(manager.results(2).await.len(), 2);
        manager.acknowledge(&[1]).await;

        let pull = manager.pull.local_addresses().remove(0);
        let subscribe = manager.subscribe.local_addresses().remove(0);
        manager
            .heartbeat(|heartbeat| heartbeat.managers.iter().any(|m| m.held.len() == 1))
            .await;
        manager.pull.close().await;
        manager.subscribe.close().await;
        drop(manager.pipe);

        let mut restarted = Manager::open_at(pull, subscribe).await;
        restarted.epoch = 2;
        // Heartbeats come to the new one by themselves, and list what is held.
        let heartbeat = restarted.heartbeat(|_| true).await;
        assert_eq!(heartbeat.managers[0].held[0].attempt, attempt(2));
        restarted.meet(&worker).await;
        let again = restarted.results(1).await;
        assert_eq!(again[0].attempt, attempt(2));
        assert_eq!(again[0].outcome, Outcome::Success);
        let heartbeat = restarted
            .heartbeat(|beat| beat.managers[0].epoch == 2)
            .await;
        assert_eq!(heartbeat.managers[0].sequence, 1);
    });
}

#[test]
fn hello_repeats_unacknowledged_results_and_brings_a_heartbeat() {
    run(async {
        let mut manager = Manager::open().await;
        let worker = Worker::start(manager.options(), nothing())
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        assert_eq!(manager.result().await.attempt, attempt(1));
        manager.meet(&worker).await;
        assert_eq!(manager.result().await.attempt, attempt(1));
    });
}

#[test]
fn duplicate_dispatch_of_a_held_attempt_runs_once() {
    run(async {
        let mut manager = Manager::open().await;
        let worker = Worker::start(manager.options(), nothing())
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        manager.result().await;
        manager.dispatch(vec![work(1, "{}"), work(2, "{}")]).await;
        assert_eq!(manager.result().await.attempt, attempt(2));
        assert_eq!(worker.counters().success, 2);
    });
}

#[test]
fn several_managers_each_get_their_results() {
    run(async {
        let mut first = Manager::open().await;
        let mut second = Manager::open().await;
        second.id = carbontube_protocol::ManagerId::from_bytes([8; 16]);
        let mut options = first.options();
        options.push_connect.extend(second.pull.local_addresses());
        options
            .pub_connect
            .extend(second.subscribe.local_addresses());
        let worker = Worker::start(options, nothing()).await.expect("starts");
        first.meet(&worker).await;
        second.meet(&worker).await;
        second.dispatch(vec![work(1, "{}")]).await;
        // Until an acknowledgement tells the way, both are sent it.
        assert_eq!(first.result().await.attempt, attempt(1));
        assert_eq!(second.result().await.attempt, attempt(1));
        let head = second.head();
        second
            .send(carbontube_protocol::message::Ack {
                head,
                route: 1,
                attempts: vec![attempt(1)],
            })
            .await;
        second.dispatch(vec![work(2, "{}")]).await;
        assert_eq!(second.result().await.attempt, attempt(2));
        // What the first hears next is its own.
        first.dispatch(vec![work(9, "{}")]).await;
        assert_eq!(first.result().await.attempt, attempt(9));
    });
}

#[test]
fn reconnected_link_brings_unacknowledged_results_without_a_hello() {
    run(async {
        let mut manager = Manager::open().await;
        let worker = Worker::start(manager.options(), nothing())
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        assert_eq!(manager.result().await.attempt, attempt(1));
        let pull = manager.pull.local_addresses().remove(0);
        manager.pull.close().await;
        let options = carbontube_transport::Options::default();
        let endpoint = carbontube_transport::Endpoint::Bind(pull);
        manager.pull = carbontube_transport::Pull::open(options, [endpoint])
            .await
            .expect("the port is free again");
        // Sooner than the repeat for want of an acknowledgement, which comes after 5 s.
        let again = within(Duration::from_secs(4), "the repeat", manager.result()).await;
        assert_eq!(again.attempt, attempt(1));
    });
}
