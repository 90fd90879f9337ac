//! The way of a job: confirmed, through both phases, ended; over a restart as well.

use carbontube_manager::ManagerOptions;
use carbontube_protocol::Codec;
use carbontube_protocol::message::{EnqueueOutcome, JobState, Message};

use crate::support::{Client, Running, Worker, id, options, run};

async fn a_job_goes_through(options: ManagerOptions) {
    let manager = Running::start(options).await;
    let mut client = Client::connect(&manager, Codec::Bincode).await;
    client.enqueue(&["film-1"]).await;
    client.start_wait("film-1").await;

    let mut cutter = Worker::start(&manager, "cut").await;
    let cut = cutter.work("{\"film\":1,\"cut\":true}").await;
    assert_eq!((cut.job, cut.phase, cut.number), (id("film-1"), 0, 1));
    assert_eq!(&cut.instructions[..], b"{\"film\":1}");

    let mut joiner = Worker::start(&manager, "join").await;
    let join = joiner.work("{\"film\":1,\"joined\":true}").await;
    assert_eq!((join.job, join.phase), (id("film-1"), 1));
    assert_eq!(&join.instructions[..], b"{\"film\":1,\"cut\":true}");

    match client.next().await {
        Message::Ended(ended) => {
            assert_eq!(ended.jobs[0].id, id("film-1"));
            assert_eq!(ended.jobs[0].state, Some(JobState::Success));
            assert_eq!(&ended.jobs[0].result[..], b"{\"film\":1,\"joined\":true}");
        }
        other => panic!("expected the end, found {other:?}"),
    }
    let stats = client.stats().await;
    assert_eq!((stats.success, stats.live, stats.duplicates), (1, 0, 0));
    manager.stop().await;
}

#[test]
fn job_goes_through_both_phases_in_memory() {
    run(a_job_goes_through(options()));
}

#[test]
fn job_goes_through_both_phases_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    options.storage = format!("sled:{}", folder.path().join("journal").display());
    run(a_job_goes_through(options));
}

#[test]
fn job_enqueued_twice_is_one_job() {
    run(async {
        let manager = Running::start(options()).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        client.enqueue(&["film-1"]).await;
        let request = client.start_enqueue(&["film-1"]).await;
        let duplicate = EnqueueOutcome::Duplicate {
            id: id("film-1"),
            state: JobState::Enqueued,
        };
        assert_eq!(client.outcomes(request).await, [duplicate]);
        manager.stop().await;
    });
}

#[test]
fn restarted_manager_adopts_what_runs_and_repeats_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options();
        options.storage = format!("sled:{}", folder.path().join("journal").display());
        let manager = Running::start(options.clone()).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        client.enqueue(&["film-1", "film-2"]).await;
        let mut cutter = Worker::start(&manager, "cut").await;
        let running = cutter.job().await;
        manager.places(&mut options);
        manager.stop().await;

        let manager = Running::start(options).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        // The worker comes back by itself, and nobody gives it the job again.
        while !matches!(cutter.next().await, Message::Hello(_)) {}
        cutter.succeed(&running, "{\"cut\":1}").await;
        cutter.acknowledged(&running).await;
        let second = cutter.work("{\"cut\":2}").await;
        assert_ne!(second.job, running.job, "each job once");

        let mut joiner = Worker::start(&manager, "join").await;
        for _ in 0..2 {
            joiner.work("{\"joined\":true}").await;
        }
        client
            .stats_until("both jobs to succeed", |stats| stats.success == 2)
            .await;
        assert_eq!(client.stats().await.duplicates, 0);
        manager.stop().await;
    });
}
