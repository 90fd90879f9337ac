//! The end of a manager: at once, or when what runs is done.

use carbontube_protocol::Codec;
use carbontube_protocol::message::{Code, EnqueueOutcome, ManagerState, Message};

use crate::support::{Client, Running, Worker, options, run};

#[test]
fn drained_manager_waits_for_what_runs_and_acknowledges_it() {
    run(async {
        let manager = Running::start(options()).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        client.enqueue(&["film-1"]).await;
        let mut cutter = Worker::start(&manager, "cut").await;
        let job = cutter.job().await;
        manager.handle.drain();
        client
            .stats_until("draining to show", |stats| {
                stats.state == ManagerState::Draining
            })
            .await;
        let request = client.start_enqueue(&["film-2"]).await;
        match &client.outcomes(request).await[..] {
            [EnqueueOutcome::Rejected { code, .. }] => assert_eq!(*code, Code::Draining),
            found => panic!("expected a rejection, found {found:?}"),
        }
        cutter.succeed(&job, "{}").await;
        cutter.acknowledged(&job).await;
        manager.end().await.expect("it ends in order");
    });
}

#[test]
fn idle_manager_drains_at_once() {
    run(async {
        let manager = Running::start(options()).await;
        manager.handle.drain();
        manager.end().await.expect("it ends in order");
    });
}

#[test]
fn worker_that_said_goodbye_is_not_given_anything() {
    run(async {
        let manager = Running::start(options()).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        let mut cutter = Worker::start(&manager, "cut").await;
        while !matches!(cutter.next().await, Message::Hello(_)) {}
        cutter.goodbye().await;
        client
            .stats_until("the worker to go", |stats| stats.phases[0].workers == 0)
            .await;
        client.enqueue(&["film-1"]).await;
        let stats = client.stats().await;
        assert_eq!((stats.phases[0].enqueued, stats.phases[0].running), (1, 0));
        manager.stop().await;
    });
}
