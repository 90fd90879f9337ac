//! A restarted manager: whom it waits for, and for how long.

use std::time::Duration;

use carbontube_protocol::message::{AttemptResult, Goodbye, JobState, ManagerState, Outcome};
use carbontube_protocol::{JobType, ManagerId, WorkerId};
use carbontube_storage::Log;

use super::bed::{Bed, Disk, failure, id, pipeline};
use crate::core::pages::Tail;
use crate::core::record::{self, ChangeRecord, JobRecord, Record, Standing, StateRecord, Totals};
use crate::core::{CoreOptions, Input};

#[test]
fn manager_serves_at_once_when_every_known_worker_has_answered() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 2);
    let second = bed.add_worker(2, "one", 1);
    bed.enqueue(&["a", "b", "c", "d", "e"]);
    bed.workers.get_mut(&second).expect("it is there").slots = 3;
    bed.restart();
    assert_eq!(
        bed.core.state(),
        ManagerState::Running,
        "no time has passed"
    );
    assert_eq!(bed.runs(first).len(), 2);
    assert_eq!(bed.runs(second).len(), 3, "its new slots are used at once");
    let stats = bed.stats();
    assert_eq!((stats.duplicates, stats.reruns), (0, 0));
}

#[test]
fn recovered_jobs_wait_for_the_last_known_worker_of_their_phase_only() {
    let mut bed = Bed::new(&["one", "two"]);
    let slow = bed.add_worker(1, "one", 1);
    let two = bed.add_worker(2, "two", 1);
    bed.enqueue(&["a"]);
    bed.finish(slow, "a", Outcome::Success, "");
    assert_eq!(bed.runs(two), ["a"]);
    bed.workers
        .get_mut(&two)
        .expect("it is there")
        .running
        .clear();
    bed.enqueue(&["b"]);
    bed.answers = false;
    bed.restart();
    let other = bed.add_worker(3, "one", 4);
    bed.beat(two);
    assert_eq!(bed.runs(two), ["a"], "all of its phase have answered");
    assert!(bed.runs(other).is_empty(), "b may run at the first");
    bed.beat(slow);
    assert_eq!(bed.state("b"), Some(JobState::Running));
    assert!(bed.runs(other).is_empty(), "b runs at the first");
    assert_eq!(bed.core.state(), ManagerState::Running);
}

#[test]
fn word_from_before_the_hello_does_not_end_the_wait() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let mut early = bed.heartbeat(worker).expect("it lives");
    early.managers[0].held.clear();
    bed.answers = false;
    bed.restart();
    // The dispatch of the former epoch may still stand in the worker's socket.
    bed.input(Input::Heartbeat(early));
    let other = bed.add_worker(2, "one", 1);
    assert!(bed.runs(other).is_empty());
    bed.beat(worker);
    assert!(bed.runs(other).is_empty(), "it is where it was");
    assert_eq!(bed.stats().reruns, 0);
}

#[test]
fn worker_that_does_not_answer_costs_the_grace_and_is_counted() {
    let mut bed = Bed::new(&["one"]);
    let gone = bed.add_worker(1, "one", 2);
    bed.enqueue(&["a", "b", "c", "d", "e"]);
    bed.workers.get_mut(&gone).expect("it is there").alive = false;
    bed.restart();
    let other = bed.add_worker(2, "one", 5);
    bed.pass(Duration::from_millis(2999));
    assert!(bed.runs(other).is_empty());
    bed.pass(Duration::from_millis(1));
    assert_eq!(bed.runs(other).len(), 5);
    let stats = bed.stats();
    let cause = "worker did not report after a restart".to_owned();
    assert_eq!(stats.rerun_causes, [(cause.clone(), 2)], "it had two slots");
    // It was only cut off: what it ran does not count a second time.
    for job in ["a", "b"] {
        bed.finish(gone, job, Outcome::Success, "");
        assert!(
            !bed.runs(other).contains(&job.to_owned()),
            "it is cancelled"
        );
    }
    let stats = bed.stats();
    assert_eq!(stats.rerun_causes, [(cause.clone(), 2)]);
    assert_eq!(stats.success, 2);
    bed.restart();
    assert_eq!(bed.stats().rerun_causes, [(cause, 2)], "counts survive");
}

#[test]
fn time_for_answers_begins_when_workers_can_be_asked() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    // A full disk: nothing that names the new epoch may leave.
    bed.store_works = false;
    bed.restart();
    for _ in 0..20 {
        bed.beat(worker);
        bed.pass(Duration::from_secs(1));
    }
    bed.store_works = true;
    bed.settle();
    bed.finish(worker, "a", Outcome::Success, "");
    let stats = bed.stats();
    assert_eq!((stats.success, stats.reruns), (1, 0));
    let unanswered = stats
        .counters
        .iter()
        .any(|(name, _)| name == "workers_unanswered");
    assert!(!unanswered, "{:?}", stats.counters);
}

#[test]
fn phase_without_known_workers_does_not_wait() {
    let mut bed = Bed::new(&["one"]);
    bed.enqueue(&["a"]);
    bed.restart();
    let worker = bed.add_worker(1, "one", 1);
    assert_eq!(bed.runs(worker), ["a"]);
}

#[test]
fn workers_that_left_or_were_lost_are_not_waited_for() {
    let mut bed = Bed::new(&["one"]);
    let left = bed.add_worker(1, "one", 1);
    let lost = bed.add_worker(2, "one", 1);
    bed.enqueue(&["a", "b", "c"]);
    bed.finish(left, "a", Outcome::Success, "");
    bed.workers.get_mut(&lost).expect("it is there").alive = false;
    for _ in 0..6 {
        bed.beat(left);
        bed.pass(Duration::from_secs(1));
    }
    bed.finish(left, "c", Outcome::Success, "");
    bed.finish(left, "b", Outcome::Success, "");
    bed.input(Input::Goodbye(Goodbye { worker: left }));
    bed.enqueue(&["d"]);
    bed.workers.get_mut(&left).expect("it is there").alive = false;
    bed.restart();
    let worker = bed.add_worker(3, "one", 1);
    assert_eq!(bed.runs(worker), ["d"]);
}

#[test]
fn worker_is_written_down_before_it_is_handed_anything() {
    let mut bed = Bed::new(&["one"]);
    bed.enqueue(&["a"]);
    bed.store_works = false;
    let worker = bed.add_worker(1, "one", 1);
    assert!(bed.runs(worker).is_empty());
    bed.store_works = true;
    bed.settle();
    assert_eq!(bed.runs(worker), ["a"]);
    bed.store_works = false;
    bed.finish(worker, "a", Outcome::Success, "");
    bed.beat(worker);
    assert_eq!(bed.runs(worker).len(), 0);
}

#[test]
fn known_workers_outlive_many_pages() {
    let options = CoreOptions {
        page_bytes: 1024,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one", "two"]), options);
    bed.duration = |job| match job.to_string().as_str() {
        "a" => Duration::from_secs(1_000_000),
        _ => Duration::from_millis(1),
    };
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let second = bed.add_worker(2, "two", 1);
    let helper = bed.add_worker(3, "one", 1);
    for round in 0..300 {
        bed.enqueue(&[&format!("j{round}")]);
        bed.run(Duration::from_secs(1));
    }
    assert_eq!(bed.runs(first), ["a"]);
    bed.answers = false;
    for worker in [second, helper] {
        bed.workers.get_mut(&worker).expect("it is there").alive = false;
    }
    bed.restart();
    let other = bed.add_worker(4, "one", 1);
    assert!(bed.runs(other).is_empty(), "a may run at the first");
    bed.beat(first);
    assert_eq!(bed.state("a"), Some(JobState::Running));
    let pages = bed
        .disk
        .0
        .keys()
        .filter(|(log, _)| *log == Log::Journal.tag());
    assert!(pages.count() < 1000);
}

#[test]
fn shared_address_is_waited_for_to_the_end() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.workers.get_mut(&worker).expect("it is there").shared = true;
    bed.beat(worker);
    bed.enqueue(&["a"]);
    let sim = bed.workers.get_mut(&worker).expect("it is there");
    sim.running.clear();
    bed.restart();
    bed.beat(worker);
    assert_eq!(bed.core.state(), ManagerState::Adopting);
    assert!(bed.runs(worker).is_empty(), "a device may still hold it");
    bed.pass(Duration::from_secs(3));
    assert_eq!(bed.runs(worker), ["a"]);
}

#[test]
fn journal_of_version_one_is_read_and_waited_for_in_full() {
    let job_type = JobType::new("one").expect("a name");
    let mut tail = Tail::new(carbontube_storage::PageSeq::FIRST, 1024);
    let manager = ManagerId::from_bytes([3; 16]);
    let state = Record::State(StateRecord {
        manager,
        epoch: 4,
        pipeline: pipeline(&["one"]).name().clone(),
        phases: vec![job_type.clone()],
        paused_all: false,
        paused: Vec::new(),
        totals: Totals::default(),
    });
    tail.append(&record::encode(&state, &[]));
    let job = Record::Job(JobRecord {
        accepted: true,
        enqueued_at: carbontube_protocol::Timestamp(1),
        traceparent: None,
        attempts: Vec::new(),
        change: ChangeRecord {
            id: id("a"),
            job_type,
            standing: Standing::Ready,
            tries: 0,
            losses: 0,
            ticket: 1,
            changed_at: carbontube_protocol::Timestamp(1),
            settled: None,
            failure: None,
            attempt: None,
        },
    });
    tail.append(&record::encode(&job, b"{}"));
    let mut disk = Disk::default();
    tail.cut();
    for (seq, page) in tail.take(tail.next()) {
        let mut page = page.to_vec();
        page[0] = 1;
        disk.0.insert((Log::Journal.tag(), seq.0), page.into());
    }
    let mut bed = Bed::new(&["one"]);
    bed.disk = disk;
    bed.restart();
    assert_eq!((bed.core.manager_id(), bed.core.epoch()), (manager, 5));
    assert_eq!(bed.core.state(), ManagerState::Adopting);
    let worker = bed.add_worker(1, "one", 1);
    assert!(bed.runs(worker).is_empty(), "nobody knows who holds it");
    bed.pass(Duration::from_secs(3));
    assert_eq!(bed.runs(worker), ["a"]);
    assert_eq!(bed.stats().enqueued, 1);
    bed.restart();
    assert_eq!(bed.core.state(), ManagerState::Running);
    assert_eq!(bed.runs(worker), ["a"]);
}

#[test]
fn worker_at_whose_address_nobody_listens_costs_a_third_of_the_grace() {
    let mut bed = Bed::new(&["one"]);
    let gone = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.workers.get_mut(&gone).expect("it is there").alive = false;
    bed.restart();
    let pipe = *bed.opened.last().expect("it was dialled");
    bed.input(Input::PipeRefused { pipe });
    let other = bed.add_worker(2, "one", 1);
    bed.pass(Duration::from_millis(999));
    bed.input(Input::PipeRefused { pipe });
    assert!(bed.runs(other).is_empty());
    bed.pass(Duration::from_millis(1));
    assert_eq!(bed.runs(other), ["a"]);
    assert_eq!(bed.stats().reruns, 1);
}

#[test]
fn relay_that_comes_up_late_does_not_end_the_wait() {
    let mut bed = Bed::new(&["one"]);
    let slow = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.answers = false;
    bed.restart();
    let pipe = *bed.opened.last().expect("it was dialled");
    bed.input(Input::PipeRefused { pipe });
    bed.pass(Duration::from_millis(500));
    bed.input(Input::PipeUp { pipe });
    let other = bed.add_worker(2, "one", 1);
    bed.pass(Duration::from_millis(1500));
    assert!(bed.runs(other).is_empty());
    bed.beat(slow);
    assert_eq!(bed.runs(slow), ["a"]);
    assert_eq!(bed.stats().reruns, 0);
}

/// A job whose first attempt failed, and its worker.
fn job_with_a_retry() -> (Bed, WorkerId) {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.finish(first, "a", failure(true), "");
    assert_eq!(bed.state("a"), Some(JobState::Scheduled));
    (bed, first)
}

/// The manager is started again with a clock by which the retry is still to come, while it
/// runs at the worker.
fn is_waited_for_whatever_the_clock_says(mut bed: Bed, first: WorkerId) {
    assert_eq!(bed.runs(first), ["a"], "its second attempt");
    bed.answers = false;
    bed.now = carbontube_protocol::Timestamp(bed.now.0 - 2_500_000);
    bed.restart();
    let other = bed.add_worker(2, "one", 1);
    for _ in 0..29 {
        bed.pass(Duration::from_millis(100));
    }
    assert!(bed.runs(other).is_empty(), "a runs at the first");
    bed.beat(first);
    assert_eq!(bed.state("a"), Some(JobState::Running));
    bed.pass(Duration::from_secs(1));
    assert!(bed.runs(other).is_empty());
    assert_eq!(bed.stats().reruns, 0);
}

/// Found by the simulator, seed 1047.
#[test]
fn retry_that_was_handed_out_is_waited_for_whatever_the_clock_says_after_a_restart() {
    let (mut bed, first) = job_with_a_retry();
    for _ in 0..3 {
        bed.pass(Duration::from_secs(1));
        bed.beat(first);
    }
    is_waited_for_whatever_the_clock_says(bed, first);
}

/// The retry became due while no manager ran. Found by the simulator, seed 28591.
#[test]
fn retry_that_was_due_at_a_restart_is_waited_for_after_the_next_whatever_the_clock_says() {
    let (mut bed, first) = job_with_a_retry();
    bed.now = bed.now + Duration::from_secs(3);
    bed.restart();
    bed.beat(first);
    is_waited_for_whatever_the_clock_says(bed, first);
}

/// Found by the simulator, seed 1310.
#[test]
fn results_that_are_not_durable_count_as_held_by_a_worker_that_is_gone_after_a_restart() {
    let options = CoreOptions {
        prefetch_time: Duration::ZERO,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a", "b", "c", "d"]);
    bed.store_works = false;
    for job in ["a", "b", "c", "d"] {
        if bed.runs(worker) == [job] {
            bed.finish(worker, job, Outcome::Success, "");
            bed.beat(worker);
        }
    }
    let ended = bed.workers[&worker].done.len();
    let begun = ended + bed.runs(worker).len();
    bed.store_works = true;
    bed.workers.get_mut(&worker).expect("it is there").alive = false;
    bed.restart();
    for _ in 0..6 {
        bed.pass(Duration::from_secs(1));
    }
    let other = bed.add_worker(2, "one", 4);
    assert_eq!(bed.runs(other).len(), 4, "none of it was durable");
    let counted = bed.stats().reruns;
    assert!(
        counted >= begun as u64,
        "{begun} began before, {counted} are counted"
    );
}

/// Found by the simulator, seed 1525.
/// A worker repeats a result of a former job of an id; `before` and `after` are how often the
/// manager is started again before and after the id is used again.
fn result_of_a_former_job_decides_nothing(before: usize, after: usize) {
    let options = CoreOptions {
        history_jobs_max: 0,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let attempt = bed.workers[&worker].running[0].1.attempt;
    bed.finish(worker, "a", Outcome::Success, "{\"old\":1}");
    bed.enqueue(&["b"]);
    bed.finish(worker, "b", Outcome::Success, "");
    for _ in 0..before {
        bed.restart();
    }
    bed.enqueue(&["a"]);
    for _ in 0..after {
        bed.restart();
        bed.beat(worker);
    }
    assert_eq!(bed.runs(worker), ["a"], "it is a job of its own");
    bed.result(
        worker,
        AttemptResult {
            attempt,
            job: id("a"),
            phase: 0,
            started_at: bed.now,
            finished_at: bed.now,
            outcome: Outcome::Success,
            instructions: bytes::Bytes::from_static(b"{\"old\":1}"),
        },
    );
    assert_eq!(bed.state("a"), Some(JobState::Running));
    assert_eq!(bed.stats().reruns, 0);
}

#[test]
fn result_of_a_job_of_an_earlier_life_decides_nothing_about_a_new_one_of_its_id() {
    result_of_a_former_job_decides_nothing(1, 0);
}

#[test]
fn result_of_a_former_job_decides_nothing_about_one_of_its_id_that_was_recovered() {
    // Of the same life, of the one before, and of one long before.
    for (before, after) in [(0, 0), (0, 1), (1, 1), (2, 3)] {
        result_of_a_former_job_decides_nothing(before, after);
    }
}

#[test]
fn results_that_are_durable_are_not_kept_in_mind_for_a_worker_that_is_handed_nothing_more() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 20);
    let jobs: Vec<String> = (0..20).map(|n| format!("j{n}")).collect();
    bed.enqueue(&jobs.iter().map(String::as_str).collect::<Vec<_>>());
    for job in &jobs {
        bed.finish(worker, job, Outcome::Success, "");
    }
    assert_eq!(bed.core.workers.table[&worker].decided.len(), 1);
}
