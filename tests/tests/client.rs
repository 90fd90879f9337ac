//! The Rust client against real managers that are killed under it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use async_std::task::block_on;
use carbontube_client::{Address, ClientOptions, NewJob, PipelineClient, PipelineName, Receipt};
use carbontube_protocol::JobId;
use carbontube_tests::Process;

const FILE: &str = r#"
[[pipeline]]
name = "numbers"
phases = ["double"]

[phase.double]
command = ["/bin/sh", "-c", "echo '{\"doubled\": true}'"]
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("numbers.toml"), FILE).expect("a file can be written");
    folder
}

/// Starts the manager; `addresses` are those of pull, sub, api and pub.
fn start(folder: &Path, addresses: &[String; 4]) -> Process {
    let [pull, sub, api, publish] = addresses;
    let arguments = [
        "pipeline".to_owned(),
        "numbers.toml".to_owned(),
        "numbers".to_owned(),
        format!("--pull-bind={pull}"),
        format!("--sub-bind={sub}"),
        format!("--api-bind={api}"),
        format!("--pub-bind={publish}"),
        "--storage=sled:journal".to_owned(),
    ];
    Process::start(folder, &arguments)
}

fn anywhere() -> [String; 4] {
    std::array::from_fn(|_| "tcp://127.0.0.1".to_owned())
}

fn addresses(manager: &Process) -> [String; 4] {
    ["pull", "sub", "api", "pub"].map(|kind| manager.address(kind))
}

fn pipeline() -> PipelineName {
    PipelineName::new("numbers").expect("a name")
}

fn connect(manager: &Process, kind: &str) -> PipelineClient {
    let address: Address = manager.address(kind).parse().expect("an address");
    block_on(PipelineClient::connect(
        &[address],
        ClientOptions::default(),
    ))
    .expect("the manager answers")
}

fn job(number: usize) -> NewJob {
    NewJob::from_json(format!("{{\"number\": {number}}}"))
}

#[test]
fn every_job_is_accepted_once_although_the_manager_is_killed_again_and_again() {
    const JOBS: usize = 6000;
    const KILLS: usize = 3;
    let folder = folder();
    let mut manager = start(folder.path(), &anywhere());
    let places = addresses(&manager);
    let client = connect(&manager, "api");
    let mut enqueuer = client.enqueuer(&pipeline());
    let mut receipts: Vec<Receipt> = Vec::new();
    for number in 0..JOBS {
        block_on(enqueuer.add(job(number))).expect("the manager comes back in time");
        if number % (JOBS / KILLS) == JOBS / KILLS / 2 {
            // Batches are under way: some are journaled, answered or neither.
            manager.kill();
            manager = start(folder.path(), &places);
        }
    }
    block_on(enqueuer.flush()).expect("the manager comes back in time");
    receipts.extend(enqueuer.take_receipts());
    assert!(receipts.iter().all(Receipt::is_confirmed));
    let ids: BTreeSet<&JobId> = receipts.iter().map(Receipt::id).collect();
    assert_eq!(ids.len(), JOBS);
    let stats = block_on(client.stats()).expect("answered");
    let jobs = u64::try_from(JOBS).expect("few");
    assert_eq!((stats.enqueued, stats.live), (jobs, jobs));
    let info = block_on(client.info()).expect("answered");
    assert_eq!(info.epoch, 1 + u64::try_from(KILLS).expect("few"));
}

#[test]
fn a_wait_survives_the_managers_restart() {
    let folder = folder();
    let mut manager = start(folder.path(), &anywhere());
    let places = addresses(&manager);
    let client = connect(&manager, "api");
    let jobs: Vec<NewJob> = (0..20).map(job).collect();
    let receipts = block_on(client.enqueue_batch(&pipeline(), jobs)).expect("accepted");
    let ids = receipts.iter().map(|receipt| receipt.id().clone());
    let mut stream = client.wait_all(&pipeline(), ids).expect("an api address");
    manager.kill();
    let manager = start(folder.path(), &places);
    let worker = Process::start(
        folder.path(),
        &[
            "phase".to_owned(),
            "numbers.toml".to_owned(),
            "double".to_owned(),
            format!("--push-connect={}", manager.address("pull")),
            format!("--pub-connect={}", manager.address("sub")),
            "--pull-bind=tcp://127.0.0.1".to_owned(),
        ],
    );
    let mut ended = BTreeSet::new();
    while let Some(job) = block_on(stream.next()) {
        let job = job.expect("the manager comes back in time");
        assert!(job.error.is_none(), "{job:?}");
        let result: serde_json::Value = serde_json::from_slice(&job.result).expect("JSON");
        assert_eq!(result["doubled"], true);
        ended.insert(job.id);
    }
    assert_eq!(ended.len(), 20);
    drop(worker);
}

#[test]
fn jobs_handed_over_to_a_pull_address_arrive_before_the_client_is_gone() {
    let folder = folder();
    let manager = start(folder.path(), &anywhere());
    let pushing = connect(&manager, "pull");
    assert!(!pushing.is_confirmed());
    let receipts = block_on(pushing.enqueue_batch(&pipeline(), (0..1000).map(job)));
    let handed = |receipt: &Receipt| matches!(receipt, Receipt::HandedOver { .. });
    assert!(receipts.expect("handed over").iter().all(handed));
    block_on(pushing.close(Duration::from_secs(30))).expect("written");
    let asking = connect(&manager, "api");
    let started = Instant::now();
    while block_on(asking.stats()).expect("answered").live < 1000 {
        assert!(
            started.elapsed() < carbontube_tests::DEADLINE,
            "some are missing"
        );
    }
}
