//! Fairness, credit, stealing, loss and adoption, with workers in virtual time.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    Answer, AttemptResult, EnqueueOutcome, Goodbye, JobState, Outcome, Query, Selector,
};
use carbontube_protocol::original::{OriginalEvent, OriginalMessage};
use carbontube_protocol::{Address, Codec, JobType, Timestamp};

use super::bed::{Bed, address_of, failure, id, new_job, worker_id};
use crate::core::Input;

fn many(bed: &mut Bed, prefix: &str, count: usize) {
    let jobs = (0..count).map(|n| new_job(id(&format!("{prefix}{n:05}"))));
    let outcomes = bed.enqueue_jobs(jobs.collect());
    let accepted = |outcome: &EnqueueOutcome| matches!(outcome, EnqueueOutcome::Accepted { .. });
    assert!(outcomes.iter().all(accepted));
}

#[test]
fn two_equal_workers_get_equal_work() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    let second = bed.add_worker(2, "one", 1);
    many(&mut bed, "j", 1000);
    bed.run(Duration::from_secs(60));
    let counts = [
        bed.workers[&first].ran.len(),
        bed.workers[&second].ran.len(),
    ];
    assert_eq!(counts.iter().sum::<usize>(), 1000);
    assert!(
        counts.iter().all(|count| (490..=510).contains(count)),
        "{counts:?}"
    );
    let end = |worker| bed.workers[&worker].ran.last().expect("it ran").0;
    let apart = end(first)
        .since(end(second))
        .max(end(second).since(end(first)));
    assert!(apart <= Duration::from_millis(50), "{apart:?} of 2.5 s");
    assert_eq!(bed.stats().duplicates, 0);
}

#[test]
fn no_short_job_waits_for_a_long_one() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |job| match job.to_string().as_str() {
        "j00100" => Duration::from_secs(10),
        _ => Duration::from_millis(5),
    };
    let first = bed.add_worker(1, "one", 1);
    let second = bed.add_worker(2, "one", 1);
    let began = bed.now;
    many(&mut bed, "j", 201);
    bed.run(Duration::from_secs(60));
    let mut ran: Vec<_> = bed.workers[&first].ran.clone();
    ran.extend(bed.workers[&second].ran.clone());
    assert_eq!(ran.len(), 201, "each ran once");
    let last = ran.iter().map(|(at, _, _)| *at).max().expect("they ran");
    assert!(
        last.since(began) < Duration::from_secs(2),
        "{:?}",
        last.since(began)
    );
}

#[test]
fn jobs_of_one_phase_start_in_order() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    many(&mut bed, "j", 100);
    bed.run(Duration::from_secs(10));
    let ran: Vec<String> = bed.workers[&worker]
        .ran
        .iter()
        .map(|(_, job, _)| job.to_string())
        .collect();
    let mut sorted = ran.clone();
    sorted.sort();
    assert_eq!(ran, sorted);
}

#[test]
fn unknown_duration_means_no_prefetch() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 2);
    many(&mut bed, "j", 10);
    assert_eq!(bed.runs(worker).len(), 2);
    assert!(bed.workers[&worker].queue.is_empty());
}

#[test]
fn attempt_that_was_received_and_is_not_held_is_dispatched_again_at_once() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let sim = bed.workers.get_mut(&worker).expect("it is there");
    sim.running.clear();
    bed.beat(worker);
    assert_eq!(bed.runs(worker), ["a"]);
    let attempt = bed.workers[&worker].running[0].1.attempt;
    assert_eq!(attempt.to_string(), "1-2");
    assert_eq!(bed.workers[&worker].running[0].1.number, 1);
}

#[test]
fn silent_pipe_is_opened_anew_and_its_attempts_dispatched_again() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.deliver = false;
    bed.enqueue(&["a"]);
    for _ in 0..4 {
        bed.pass(Duration::from_secs(1));
        bed.beat(worker);
    }
    assert_eq!(bed.opened.len(), 1);
    bed.deliver = true;
    bed.pass(Duration::from_secs(1));
    bed.beat(worker);
    assert_eq!(bed.opened.len(), 2);
    assert_eq!(bed.runs(worker), ["a"]);
}

#[test]
fn restarted_manager_adopts_what_runs_and_runs_nothing_twice() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 2);
    bed.enqueue(&["a", "b", "c"]);
    bed.answers = false;
    bed.restart();
    bed.answers = true;
    bed.add_worker(2, "one", 4);
    assert!(
        bed.runs(worker_id(2)).is_empty(),
        "recovered jobs wait for the grace"
    );
    bed.enqueue(&["d"]);
    assert_eq!(bed.runs(worker_id(2)), ["d"], "new ones do not");
    bed.beat(worker);
    bed.pass(Duration::from_secs(4));
    assert_eq!(bed.runs(worker), ["a", "b"]);
    assert_eq!(bed.runs(worker_id(2)), ["d", "c"]);
    bed.finish(worker, "a", Outcome::Success, "");
    assert_eq!(bed.state("a"), Some(JobState::Success));
    assert!(bed.workers[&worker].done.is_empty());
    assert_eq!(bed.stats().duplicates, 0);
}

#[test]
fn result_finished_in_the_managers_absence_is_taken() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.restart();
    bed.finish(worker, "a", Outcome::Success, "");
    bed.beat(worker);
    let result = bed.workers[&worker].done.values().next().cloned();
    if let Some(result) = result {
        bed.result(worker, result);
    }
    assert_eq!(bed.state("a"), Some(JobState::Success));
    assert!(bed.workers[&worker].done.is_empty());
}

#[test]
fn lost_workers_jobs_go_to_another_and_its_late_result_is_a_duplicate() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.pass(Duration::from_secs(6));
    let second = bed.add_worker(2, "one", 1);
    assert_eq!(bed.runs(second), ["a"]);
    bed.finish(second, "a", Outcome::Success, "");
    bed.finish(first, "a", Outcome::Success, "");
    let stats = bed.stats();
    assert_eq!((stats.success, stats.duplicates), (1, 1));
    assert_eq!(
        stats.duplicate_causes,
        [("worker thought lost".to_owned(), 1)]
    );
    assert!(bed.workers[&first].done.is_empty());
}

#[test]
fn manager_that_was_asleep_listens_before_it_takes_workers_for_lost() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.sleep(Duration::from_secs(60));
    bed.beat(first);
    let second = bed.add_worker(2, "one", 1);
    assert!(bed.runs(second).is_empty());
    bed.finish(first, "a", Outcome::Success, "");
    let stats = bed.stats();
    assert_eq!((stats.success, stats.duplicates), (1, 0));
}

#[test]
fn manager_that_slept_until_just_after_a_workers_time_listens_as_well() {
    for asleep in [2600, 4900, 5000, 5100, 6200, 6300] {
        let mut bed = Bed::new(&["one"]);
        let first = bed.add_worker(1, "one", 1);
        bed.enqueue(&["a"]);
        bed.sleep(Duration::from_millis(asleep));
        let second = bed.add_worker(2, "one", 1);
        bed.pass(Duration::from_secs(2));
        bed.beat(first);
        assert!(bed.runs(second).is_empty(), "after {asleep} ms");
    }
}

#[test]
fn worker_still_silent_after_the_managers_sleep_is_lost() {
    let mut bed = Bed::new(&["one"]);
    bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.sleep(Duration::from_secs(60));
    bed.pass(Duration::from_millis(2600));
    let second = bed.add_worker(2, "one", 1);
    assert_eq!(bed.runs(second), ["a"]);
}

#[test]
fn result_that_names_another_phase_does_not_leave_its_job_with_nobody() {
    let mut bed = Bed::new(&["one", "two"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    assert_eq!(bed.runs(worker), ["a"]);
    let held = bed.workers[&worker].running[0].1.clone();
    bed.workers
        .get_mut(&worker)
        .expect("it is there")
        .running
        .clear();
    bed.result(
        worker,
        AttemptResult {
            attempt: held.attempt,
            job: held.job,
            phase: 1,
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            outcome: Outcome::Success,
            instructions: Bytes::new(),
        },
    );
    assert_eq!(bed.runs(worker), ["a"], "it is dispatched again");
    bed.finish(worker, "a", Outcome::Success, "");
    assert_eq!(
        bed.state("a"),
        Some(JobState::Enqueued),
        "waits for phase two"
    );
}

#[test]
fn late_success_with_garbage_decides_no_more_than_a_late_failure() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let held = bed.workers[&worker].running[0].1.clone();
    bed.finish(worker, "a", failure(true), "");
    assert_eq!(bed.state("a"), Some(JobState::Scheduled));
    let mut other = held.attempt;
    other.counter += 17;
    bed.result(
        worker,
        AttemptResult {
            attempt: other,
            job: held.job,
            phase: 0,
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            outcome: Outcome::Success,
            instructions: Bytes::from_static(b"[no object]"),
        },
    );
    assert_eq!(
        bed.state("a"),
        Some(JobState::Scheduled),
        "its try is not taken twice"
    );
}

#[test]
fn suspect_runs_alone() {
    let mut bed = Bed::new(&["one"]);
    bed.enqueue(&["a"]);
    for n in 1..=2 {
        let worker = bed.add_worker(n, "one", 4);
        assert_eq!(bed.runs(worker), ["a"]);
        bed.workers.get_mut(&worker).expect("it is there").alive = false;
        bed.pass(Duration::from_secs(6));
    }
    bed.enqueue(&["b"]);
    let worker = bed.add_worker(3, "one", 4);
    assert_eq!(bed.runs(worker), ["a"], "nothing beside it");
    bed.finish(worker, "a", Outcome::Success, "");
    assert_eq!(bed.runs(worker), ["b"]);
}

#[test]
fn draining_worker_gets_nothing_more() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.workers.get_mut(&worker).expect("it is there").draining = true;
    bed.beat(worker);
    bed.enqueue(&["a"]);
    assert!(bed.runs(worker).is_empty());
    let Answer::Job(detail) = bed.ask(Query::Job { id: id("a") }) else {
        panic!("a job was asked");
    };
    assert_eq!(detail.view.reason, "no worker of one takes work now");
}

fn finished(job: &str) -> Input {
    Input::Original(OriginalMessage::Finished {
        id: id(job),
        job_type: JobType::new("one").expect("a name"),
        success: true,
        error: Default::default(),
        started_at: Timestamp(1),
        finished_at: Timestamp(2),
        instructions: bytes::Bytes::from_static(b"{}"),
    })
}

fn available() -> Input {
    Input::OriginalEvent(OriginalEvent::Available {
        id: "old".to_owned(),
        address: address_of(worker_id(1)),
        job_type: JobType::new("one").expect("a name"),
        success_count: 0,
        failed_count: 0,
    })
}

/// Nothing stops it there, so its end is when the slot is free again.
#[test]
fn originals_worker_whose_job_was_cancelled_takes_work_once_it_is_done() {
    let mut bed = Bed::new(&["one"]);
    bed.input(available());
    let pipe = bed.opened[0];
    bed.input(Input::PipeUp { pipe });
    bed.enqueue(&["a", "b"]);
    let selector = Selector::Ids(vec![id("a")]);
    bed.ask(Query::Cancel { selector });
    assert_eq!(bed.state("a"), Some(JobState::Cancelled));
    assert_eq!(bed.state("b"), Some(JobState::Enqueued), "it still runs a");
    bed.input(finished("a"));
    assert_eq!(bed.state("b"), Some(JobState::Running));
}

/// Without a hello it would drop whatever is dispatched to it.
#[test]
fn worker_at_the_address_of_an_original_one_is_greeted() {
    for up_first in [true, false] {
        let mut bed = Bed::new(&["one"]);
        bed.input(available());
        let pipe = bed.opened[0];
        if up_first {
            bed.input(Input::PipeUp { pipe });
        }
        let worker = bed.add_worker(1, "one", 1);
        if !up_first {
            bed.input(Input::PipeUp { pipe });
        }
        assert!(bed.workers[&worker].received.1 > 0, "up first: {up_first}");
        assert!(bed.core.workers.table[&worker].proven);
    }
}

#[test]
fn workers_that_speak_json_find_room_whoever_spoke_it_before() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    let address = bed.workers[&worker].address.clone();
    let codec = Codec::Json;
    let speak = |bed: &mut Bed, address| bed.input(Input::Codec { address, codec });
    speak(&mut bed, address.clone());
    for number in 0..20_000 {
        speak(&mut bed, Address::tcp("a", number));
    }
    let newcomer = Address::tcp("b", 1);
    speak(&mut bed, newcomer.clone());
    assert_eq!(bed.core.workers.codec(&newcomer), Codec::Json);
    assert_eq!(
        bed.core.workers.codec(&address),
        Codec::Json,
        "it has a pipe"
    );
    bed.input(Input::Goodbye(Goodbye { worker }));
    assert_eq!(
        bed.core.workers.codec(&address),
        Codec::Bincode,
        "it has none"
    );
}

#[test]
fn originals_worker_runs_a_job_and_loses_it_by_silence() {
    let mut bed = Bed::new(&["one"]);
    let available = OriginalEvent::Available {
        id: "old".to_owned(),
        address: address_of(worker_id(1)),
        job_type: JobType::new("one").expect("a name"),
        success_count: 0,
        failed_count: 0,
    };
    bed.input(Input::OriginalEvent(available.clone()));
    let pipe = bed.opened[0];
    bed.input(Input::PipeUp { pipe });
    bed.enqueue(&["a", "b"]);
    assert_eq!(bed.sent.len(), 1, "one slot: {:?}", bed.sent);
    assert!(bed.sent[0].contains("\"id\":\"a\""));
    bed.input(Input::Original(OriginalMessage::Finished {
        id: id("a"),
        job_type: JobType::new("one").expect("a name"),
        success: true,
        error: Default::default(),
        started_at: Timestamp(1),
        finished_at: Timestamp(2),
        instructions: bytes::Bytes::from_static(b"{}"),
    }));
    assert_eq!(bed.state("a"), Some(JobState::Success));
    assert!(bed.sent[1].contains("\"id\":\"b\""));
    bed.pass(Duration::from_secs(6));
    assert_eq!(bed.state("b"), Some(JobState::Enqueued));
}
