//! The `carbontube` binary from end to end: real processes, free ports, temporary folders.

use std::path::Path;

use carbontube_tests::{Finished, Process, Signal, run, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

const FILE: &str = r#"
[[pipeline]]
name = "letters"
phases = ["first", "second"]

[phase.first]
command = ["/bin/sh", "-c", 'cat >/dev/null; echo "a line from first" >&2; echo "{\"first\": true}"']
concurrency = 2

[phase.second]
command = ["/bin/sh", "-c", 'cat >/dev/null; echo "{\"second\": \"$CARBONTUBE_PHASE\"}"']

[[pipeline]]
name = "traced"
phases = ["tells", "streams"]

[phase.tells]
command = ["/bin/sh", "-c", 'cat >/dev/null; echo "{\"trace\": \"$TRACEPARENT\"}"']

[phase.streams]
mode = "stream"
command = ["/bin/sh", "-c", 'while read -r line; do trace=$(printf %s "$line" | sed -n "s/.*\"traceparent\":\"\([^\"]*\)\".*/\1/p"); echo "{\"ok\": true, \"output\": {\"streamed\": \"$trace\"}}"; done']

[[pipeline]]
name = "broken"
phases = ["fails"]

[phase.fails]
command = ["/bin/sh", "-c", 'echo "the reel is torn" >&2; exit 3']
attempts = 2
backoff = "10ms"

[[pipeline]]
name = "slow"
phases = ["waits"]

# Waits until the file that the instructions do not know of is there.
[phase.waits]
command = ["/bin/sh", "-c", 'echo $$ >started; while ! test -e go; do sleep 0.05; done; echo "{\"waited\": true}"']

[[pipeline]]
name = "grows"
phases = ["inflates"]

[phase.inflates]
command = ["/bin/sh", "-c", 'printf "{\"large\": \"%01000d\"}" 0']
attempts = 1
"#;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("p.toml"), FILE).expect("a file in a temporary folder");
    folder
}

fn manager(folder: &Path, pipeline: &str) -> Process {
    let arguments = [
        "pipeline",
        "p.toml",
        pipeline,
        "--pull-bind=tcp://127.0.0.1",
    ];
    Process::start(folder, &arguments)
}

fn worker(folder: &Path, phase: &str, manager: &Process) -> Process {
    let push = format!("--push-connect={}", manager.address("pull"));
    let publish = format!("--pub-connect={}", manager.address("sub"));
    let arguments = [
        "phase",
        "p.toml",
        phase,
        "--pull-bind=tcp://127.0.0.1",
        &push,
        &publish,
    ];
    Process::start(folder, &arguments)
}

fn bundle(folder: &Path, pipeline: &str) -> Process {
    Process::start(
        folder,
        &[
            "bundle",
            "p.toml",
            pipeline,
            "--storage=memory:",
            "--pull-bind=tcp://127.0.0.1",
        ],
    )
}

fn stats(folder: &Path, api: &str) -> Value {
    run(folder, &["stats", "--api", api, "--json"])
        .success()
        .json()
}

/// The error report of a finished process: exactly these lines' beginnings, somewhere.
#[track_caller]
fn complains(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:#?}");
    for part in parts {
        assert!(
            finished.stderr.contains(part),
            "no {part:?} in {finished:#?}"
        );
    }
    assert!(!finished.stderr.contains("panicked"), "{finished:#?}");
}

#[test]
fn separate_processes_take_a_job_from_enqueue_to_finished() {
    let folder = folder();
    let manager = manager(folder.path(), "letters");
    let _first = worker(folder.path(), "first", &manager);
    let _second = worker(folder.path(), "second", &manager);
    let api = manager.address("api");
    let finished = run(
        folder.path(),
        &["enqueue", &api, "letters", "{\"given\": \"x=y\"}", "--wait"],
    )
    .success();
    let expected = json!({ "given": "x=y", "first": true, "second": "second" });
    assert_eq!(finished.json(), expected);

    let job = run(folder.path(), &["jobs", "--api", &api, "--json"]).success();
    assert_eq!(job.json()["state"], "success");
    let id = job.json()["id"].as_str().expect("an id").to_owned();
    let detail = run(folder.path(), &["job", &id, "--api", &api, "--json"]).success();
    assert_eq!(detail.json()["instructions"], expected);
    let workers = run(folder.path(), &["workers", "--api", &api, "--json"]).success();
    assert_eq!(workers.json().as_array().map(Vec::len), Some(2));
}

#[test]
fn pull_address_takes_jobs_without_confirming() {
    let folder = folder();
    let manager = manager(folder.path(), "letters");
    let _first = worker(folder.path(), "first", &manager);
    let _second = worker(folder.path(), "second", &manager);
    let (pull, api) = (manager.address("pull"), manager.address("api"));
    let finished = run(folder.path(), &["enqueue", &pull, "letters"]);
    complains(&finished, 4, &["handed over, not confirmed", "hint: "]);
    assert!(finished.stdout.starts_with("handed over "), "{finished:?}");
    wait_until("finished job", || {
        (stats(folder.path(), &api)["stats"]["success"] == 1).then_some(())
    });
    let finished = run(folder.path(), &["enqueue", &pull, "letters", "--wait"]);
    complains(&finished, 2, &["--wait needs an api address"]);
}

#[test]
fn same_id_twice_is_one_job() {
    let folder = folder();
    let bundle = bundle(folder.path(), "letters");
    let api = bundle.address("api");
    let enqueue = ["enqueue", &api, "letters", "{}", "--id=order=17", "--wait"];
    run(folder.path(), &enqueue).success();
    run(folder.path(), &enqueue).success();
    assert_eq!(stats(folder.path(), &api)["stats"]["success"], 1);
}

#[test]
fn failing_job_prints_its_error_and_exits_with_its_own_code() {
    let folder = folder();
    let bundle = bundle(folder.path(), "broken");
    let api = bundle.address("api");
    let finished = run(
        folder.path(),
        &["enqueue", &api, "broken", "{}", "--id=b1", "--wait"],
    );
    complains(&finished, 6, &["error: job b1 failed", "the reel is torn"]);
    assert_eq!(finished.stdout, "");
    let job = run(folder.path(), &["job", "b1", "--api", &api, "--json"]).success();
    assert_eq!(job.json()["view"]["attempt"], 2);

    let retried = run(folder.path(), &["retry", "b1", "--api", &api]).success();
    assert_eq!(retried.stdout, "1 retried\n");
    wait_until("second failure", || {
        let jobs = run(
            folder.path(),
            &["jobs", "--state=failed", "--api", &api, "--json"],
        );
        jobs.stdout.contains("b1").then_some(())
    });
    let discarded = run(
        folder.path(),
        &["discard", "--state=failed", "--api", &api, "--json"],
    );
    assert_eq!(discarded.success().json()["count"], 1);
    complains(
        &run(folder.path(), &["job", "b1", "--api", &api]),
        5,
        &["error: ", "hint: "],
    );
}

#[test]
fn file_of_jobs_is_enqueued_and_waited_for() {
    let folder = folder();
    let bundle = bundle(folder.path(), "letters");
    let api = bundle.address("api");
    let lines = "{\"n\": 1}\n\n{\"id\": \"two\", \"instructions\": {\"n\": 2}}\n{\"n\": 3}\n";
    std::fs::write(folder.path().join("jobs.ndjson"), lines).expect("a file");
    let finished = run(
        folder.path(),
        &["enqueue", &api, "letters", "--file=jobs.ndjson", "--wait"],
    )
    .success();
    let mut numbers: Vec<i64> = finished
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"))
        .map(|ended| ended["result"]["n"].as_i64().expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);

    std::fs::write(folder.path().join("bad.ndjson"), "{}\n{}\n[3]\n{}\n").expect("a file");
    let finished = run(
        folder.path(),
        &["enqueue", &api, "letters", "--file=bad.ndjson"],
    );
    complains(
        &finished,
        2,
        &["2 accepted", "bad.ndjson:3:", "not an array", "hint: "],
    );
}

#[test]
fn paused_phase_holds_jobs_until_it_is_resumed() {
    let folder = folder();
    let bundle = bundle(folder.path(), "letters");
    let api = bundle.address("api");
    run(folder.path(), &["pause", "second", "--api", &api]).success();
    run(
        folder.path(),
        &["enqueue", &api, "letters", "{}", "--id=p1"],
    )
    .success();
    wait_until("job at the second phase", || {
        let job = run(folder.path(), &["job", "p1", "--api", &api, "--json"]).json();
        (job["view"]["job_type"] == "second" && job["view"]["state"] == "enqueued").then_some(())
    });
    let jobs = run(folder.path(), &["jobs", "--api", &api]).success();
    assert!(jobs.stdout.contains("paused"), "{jobs:?}");
    run(folder.path(), &["resume", "second", "--api", &api]).success();
    wait_until("success", || {
        let job = run(folder.path(), &["job", "p1", "--api", &api, "--json"]).json();
        (job["view"]["state"] == "success").then_some(())
    });
}

#[test]
fn first_signal_drains_and_running_jobs_finish() {
    let folder = folder();
    let manager = manager(folder.path(), "slow");
    let mut worker = worker(folder.path(), "waits", &manager);
    let api = manager.address("api");
    run(folder.path(), &["enqueue", &api, "slow", "{}", "--id=s1"]).success();
    wait_until("started job", || {
        folder.path().join("started").exists().then_some(())
    });
    worker.signal(Signal::TERM);
    wait_until("word of draining", || {
        worker.log().contains("draining:").then_some(())
    });
    std::fs::write(folder.path().join("go"), "").expect("a file");
    assert_eq!(worker.wait().code(), Some(0), "{}", worker.log());
    let job = run(folder.path(), &["job", "s1", "--api", &api, "--json"]).success();
    assert_eq!(job.json()["view"]["state"], "success", "{job:#?}");
}

#[test]
fn draining_bundle_finishes_what_runs_and_tells_who_waits() {
    let folder = folder();
    let mut bundle = bundle(folder.path(), "slow");
    let api = bundle.address("api");
    let path = folder.path().to_owned();
    let waiting =
        std::thread::spawn(move || run(&path, &["enqueue", &api, "slow", "{}", "--wait"]));
    wait_until("started job", || {
        folder.path().join("started").exists().then_some(())
    });
    bundle.signal(Signal::TERM);
    wait_until("word of draining", || {
        bundle.log().contains("draining:").then_some(())
    });
    std::fs::write(folder.path().join("go"), "").expect("a file");
    let finished = waiting
        .join()
        .expect("the enqueueing thread ends")
        .success();
    assert_eq!(finished.json(), json!({ "waited": true }));
    assert_eq!(bundle.wait().code(), Some(0), "{}", bundle.log());
}

#[test]
fn worker_on_a_taken_port_says_what_to_do() {
    let folder = folder();
    let manager = manager(folder.path(), "letters");
    let taken = format!("--pull-bind={}", manager.address("api"));
    let second = run(folder.path(), &["phase", "p.toml", "first", &taken]);
    complains(
        &second,
        1,
        &["cannot run phase first", "already in use", "--pull-bind"],
    );
}

#[test]
fn second_signal_ends_a_worker_at_once() {
    let folder = folder();
    let manager = manager(folder.path(), "slow");
    let mut worker = worker(folder.path(), "waits", &manager);
    let api = manager.address("api");
    run(folder.path(), &["enqueue", &api, "slow", "{}"]).success();
    wait_until("started job", || {
        folder.path().join("started").exists().then_some(())
    });
    worker.signal(Signal::INT);
    wait_until("word of draining", || {
        worker.log().contains("draining:").then_some(())
    });
    worker.signal(Signal::INT);
    assert_eq!(worker.wait().code(), Some(130), "{}", worker.log());
}

#[test]
fn workers_and_managers_drain_on_request() {
    let folder = folder();
    let mut manager = manager(folder.path(), "letters");
    let mut worker = worker(folder.path(), "first", &manager);
    let api = manager.address("api");
    let id = wait_until("available worker", || {
        let workers = run(folder.path(), &["workers", "--api", &api, "--json"]).json();
        let worker = workers.as_array()?.first()?;
        (worker["status"] == "available").then(|| worker["worker"].as_str().map(str::to_owned))?
    });
    run(folder.path(), &["drain", &id[..8], "--api", &api]).success();
    assert_eq!(worker.wait().code(), Some(0), "{}", worker.log());
    run(folder.path(), &["drain", "--api", &api]).success();
    assert_eq!(manager.wait().code(), Some(0), "{}", manager.log());
}

#[test]
fn idle_manager_ends_on_the_first_signal() {
    let folder = folder();
    let mut manager = manager(folder.path(), "letters");
    manager.signal(Signal::TERM);
    assert_eq!(manager.wait().code(), Some(0), "{}", manager.log());
}

#[test]
fn killed_manager_finds_confirmed_jobs_again() {
    let folder = folder();
    let mut first = manager(folder.path(), "letters");
    let api = first.address("api");
    run(
        folder.path(),
        &["enqueue", &api, "letters", "{\"kept\": 1}", "--id=k1"],
    )
    .success();
    first.kill();
    let second = manager(folder.path(), "letters");
    let api = second.address("api");
    let _workers = [
        worker(folder.path(), "first", &second),
        worker(folder.path(), "second", &second),
    ];
    wait_until("success", || {
        let job = run(folder.path(), &["job", "k1", "--api", &api, "--json"]).json();
        (job["view"]["state"] == "success").then_some(())
    });
}

#[test]
fn second_manager_on_a_journal_is_refused_and_changes_nothing() {
    let folder = folder();
    let manager = manager(folder.path(), "letters");
    let second = run(
        folder.path(),
        &[
            "pipeline",
            "p.toml",
            "letters",
            "--pull-bind=tcp://127.0.0.1",
        ],
    );
    complains(&second, 8, &["in use", "hint: "]);
    let api = manager.address("api");
    run(folder.path(), &["enqueue", &api, "letters"]).success();
    assert_eq!(stats(folder.path(), &api)["info"]["state"], "running");
}

#[test]
fn ports_in_use_are_named_with_a_way_out() {
    let folder = folder();
    let manager = manager(folder.path(), "letters");
    let taken = format!("--pull-bind={}", manager.address("pull"));
    let free = [
        "--sub-bind=tcp://127.0.0.1",
        "--api-bind=tcp://127.0.0.1",
        "--pub-bind=tcp://127.0.0.1",
    ];
    let mut arguments = vec!["pipeline", "p.toml", "broken", &taken];
    arguments.extend(free);
    let second = run(folder.path(), &arguments);
    complains(&second, 1, &["already in use", "hint: ", "--pull-bind"]);
}

#[test]
fn journal_is_verified_exported_and_imported() {
    let folder = folder();
    let mut first = manager(folder.path(), "letters");
    let api = first.address("api");
    run(
        folder.path(),
        &["enqueue", &api, "letters", "{\"n\": 7}", "--id=j1"],
    )
    .success();
    first.signal(Signal::TERM);
    assert_eq!(first.wait().code(), Some(0), "{}", first.log());
    let place = "sled:carbontube-journal/letters";
    let verified = run(
        folder.path(),
        &["journal", "verify", place, "letters", "--json"],
    )
    .success();
    assert_eq!(verified.json()["sound"], true);
    run(
        folder.path(),
        &["journal", "export", place, "letters", "out.journal"],
    )
    .success();
    run(
        folder.path(),
        &["journal", "import", "sled:copy", "letters", "out.journal"],
    )
    .success();
    let copy = Process::start(
        folder.path(),
        &[
            "pipeline",
            "p.toml",
            "letters",
            "--storage=sled:copy",
            "--pull-bind=tcp://127.0.0.1",
        ],
    );
    let api = copy.address("api");
    let job = run(folder.path(), &["job", "j1", "--api", &api, "--json"]).success();
    assert_eq!(job.json()["instructions"], json!({ "n": 7 }));
    complains(
        &run(
            folder.path(),
            &["journal", "verify", "sled:nowhere", "letters"],
        ),
        8,
        &["there is no journal"],
    );
}

#[test]
fn tail_shows_logs_and_events() {
    let folder = folder();
    let bundle = bundle(folder.path(), "letters");
    let api = bundle.address("api");
    let output = folder.path().join("tail.ndjson");
    let file = std::fs::File::create(&output).expect("a file");
    let mut tail = std::process::Command::new(carbontube_tests::binary())
        .args(["tail", "--json", "--api", &api])
        .stdout(file)
        .spawn()
        .expect("tail starts");
    // Whether the subscription has arrived shows only in what comes.
    wait_until("log line and success in the tail", || {
        run(folder.path(), &["enqueue", &api, "letters", "--wait"]).success();
        let seen = std::fs::read_to_string(&output).unwrap_or_default();
        (seen.contains("a line from first") && seen.contains("\"success\"")).then_some(())
    });
    tail.kill().expect("tail can be killed");
    tail.wait().expect("tail can be waited for");
}

#[test]
fn trace_travels_with_its_job_and_no_other_does() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let folder = folder();
    let bundle = bundle(folder.path(), "traced");
    let api = bundle.address("api");
    let enqueue = |more: &[&str]| {
        let mut arguments = vec!["enqueue", &api, "traced", "--wait"];
        arguments.extend(more);
        run(folder.path(), &arguments)
    };
    let with = enqueue(&["--traceparent", TRACE, "--id=a"])
        .success()
        .json();
    assert_eq!(with, json!({ "trace": TRACE, "streamed": TRACE }));
    let without = enqueue(&[]).success().json();
    assert_eq!(without, json!({ "trace": "", "streamed": "" }));
    let job = run(folder.path(), &["job", "a", "--api", &api, "--json"]).success();
    assert_eq!(job.json()["traceparent"], TRACE);
    let lines = format!("{{\"traceparent\":\"{TRACE}\",\"instructions\":{{}}}}\n");
    std::fs::write(folder.path().join("jobs"), lines).expect("a file");
    let arguments = ["enqueue", &api, "traced", "--file=jobs", "--wait"];
    let of_file = run(folder.path(), &arguments).success();
    assert!(of_file.stdout.contains(TRACE), "{of_file:#?}");
    let wrong = enqueue(&["--traceparent=00-1-2-3"]);
    complains(&wrong, 2, &["is no W3C traceparent", "hint:"]);
}

#[test]
fn tail_shows_what_its_filters_take() {
    let folder = folder();
    let bundle = bundle(folder.path(), "letters");
    let api = bundle.address("api");
    let id = |job_type: &str| {
        wait_until("the worker", || {
            let workers = run(folder.path(), &["workers", "--api", &api, "--json"]).success();
            let workers = workers.json();
            let worker = workers
                .as_array()?
                .iter()
                .find(|w| w["job_type"] == job_type)?;
            worker["worker"].as_str().map(str::to_owned)
        })
    };
    let (first, second) = (id("first"), id("second"));
    let watch = |name: &str, filters: &[&str]| {
        let file = std::fs::File::create(folder.path().join(name)).expect("a file");
        std::process::Command::new(carbontube_tests::binary())
            .args(["tail", "--json", "--api", &api])
            .args(filters)
            .stdout(file)
            .spawn()
            .expect("tail starts")
    };
    let tails = [
        watch("text", &["--text", "A LINE"]),
        watch("worker", &["--only=log", "--worker", &first[..8]]),
        watch("other", &["--only=log", "--worker", &second[..8]]),
        watch("loud", &["--only=log", "--level=warn"]),
        watch("all", &[]),
    ];
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    wait_until("the line in each tail that takes it", || {
        run(folder.path(), &["enqueue", &api, "letters", "--wait"]).success();
        let all = ["text", "worker", "all"];
        all.iter()
            .all(|name| read(name).contains("a line from first"))
            .then_some(())
    });
    assert!(
        read("text")
            .lines()
            .all(|line| line.contains("a line from first"))
    );
    assert_eq!(
        (read("other"), read("loud")),
        (String::new(), String::new())
    );
    for mut tail in tails {
        tail.kill().expect("tail can be killed");
        tail.wait().expect("tail can be waited for");
    }
    let wrong = run(folder.path(), &["tail", "--level=wran", "--api", &api]);
    complains(&wrong, 2, &["there is no level", "warn"]);
}

#[test]
fn bad_input_is_refused_clearly() {
    let folder = folder();
    let bundle = bundle(folder.path(), "letters");
    let api = bundle.address("api");
    let enqueue =
        |instructions: &str| run(folder.path(), &["enqueue", &api, "letters", instructions]);
    complains(&enqueue("{x"), 2, &["not valid JSON", "hint: "]);
    complains(&enqueue("[1]"), 2, &["not an array", "hint: "]);
    let other = run(folder.path(), &["enqueue", &api, "numbers"]);
    complains(&other, 5, &["numbers", "hint: "]);
    let trace = "--traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let both = run(
        folder.path(),
        &["enqueue", &api, "letters", "--file=-", trace],
    );
    complains(&both, 2, &["--traceparent", "--file"]);
    let phase = run(folder.path(), &["pause", "thrid", "--api", &api]);
    complains(&phase, 5, &["thrid", "hint: "]);
    let unknown = run(folder.path(), &["pipeline", "p.toml", "leters"]);
    complains(&unknown, 3, &["has no pipeline", "did you mean `letters`?"]);
    let unknown = run(folder.path(), &["phase", "p.toml", "frist"]);
    complains(&unknown, 3, &["has no phase", "first, inflates, second"]);
    let nobody = run(
        folder.path(),
        &["jobs", "--api=tcp://127.0.0.1:1", "--timeout=1"],
    );
    complains(&nobody, 7, &["no manager answered", "hint: "]);
    // After all that it still serves.
    run(folder.path(), &["enqueue", &api, "letters", "--wait"]).success();
}

#[test]
fn instructions_over_the_limit_are_refused() {
    let folder = folder();
    let bundle = Process::start(
        folder.path(),
        &[
            "bundle",
            "p.toml",
            "grows",
            "--storage=memory:",
            "--pull-bind=tcp://127.0.0.1",
            "--instructions-bytes-max=1000",
        ],
    );
    let api = bundle.address("api");
    let large = format!("{{\"large\": \"{}\"}}", "x".repeat(1000));
    let finished = run(
        folder.path(),
        &["enqueue", &api, "grows", &large, "--timeout=5"],
    );
    complains(&finished, 5, &["1000"]);
    // Nor may a phase make larger ones: its job fails with that reason.
    let finished = run(
        folder.path(),
        &["enqueue", &api, "grows", "{}", "--id=g1", "--wait"],
    );
    complains(&finished, 6, &["error: job g1 failed", "1000"]);
}
