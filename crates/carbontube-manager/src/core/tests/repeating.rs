//! Executions that happen, or may happen, more than once: each is counted with its cause,
//! and the counts survive.

use std::time::Duration;

use carbontube_protocol::WorkerId;
use carbontube_protocol::message::{
    Goodbye, HandBack, HandBackReason, HandedBack, JobState, Outcome, Query, Selector,
};

use super::bed::{Bed, id};
use crate::core::Input;

fn reruns(bed: &mut Bed) -> Vec<(String, u64)> {
    bed.stats().rerun_causes
}

fn duplicates(bed: &mut Bed) -> Vec<(String, u64)> {
    bed.stats().duplicate_causes
}

fn once(cause: &str) -> Vec<(String, u64)> {
    vec![(cause.to_owned(), 1)]
}

fn kill(bed: &mut Bed, worker: WorkerId) {
    bed.workers.get_mut(&worker).expect("it is there").alive = false;
    bed.pass(Duration::from_secs(6));
}

#[test]
fn killed_workers_job_is_a_rerun_once_it_is_handed_out_again() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    kill(&mut bed, first);
    assert_eq!(reruns(&mut bed), [], "it has not run again yet");
    let second = bed.add_worker(2, "one", 1);
    assert_eq!(bed.runs(second), ["a"]);
    assert_eq!(reruns(&mut bed), once("worker thought lost"));
    assert_eq!(duplicates(&mut bed), []);
    bed.finish(second, "a", Outcome::Success, "");
    bed.restart();
    assert_eq!(reruns(&mut bed), once("worker thought lost"));
}

#[test]
fn doubt_about_an_attempt_survives_a_restart() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    kill(&mut bed, first);
    bed.restart();
    bed.restart();
    let second = bed.add_worker(2, "one", 1);
    assert_eq!(bed.runs(second), ["a"]);
    assert_eq!(reruns(&mut bed), once("worker thought lost"));
}

#[test]
fn rerun_is_durable_before_its_dispatch_leaves() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    let second = bed.add_worker(2, "one", 1);
    bed.enqueue(&["x", "a"]);
    bed.finish(first, "x", Outcome::Success, "");
    assert_eq!(bed.runs(second), ["a"]);
    bed.workers.get_mut(&second).expect("it is there").alive = false;
    for _ in 0..5 {
        bed.beat(first);
        bed.pass(Duration::from_millis(900));
    }
    bed.store_works = false;
    bed.beat(first);
    bed.pass(Duration::from_millis(900));
    assert!(bed.runs(first).is_empty());
    bed.store_works = true;
    bed.settle();
    assert_eq!(bed.runs(first), ["a"]);
    bed.restart();
    assert_eq!(reruns(&mut bed), once("worker thought lost"));
}

#[test]
fn both_results_make_a_duplicate_that_survives() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.pass(Duration::from_secs(6));
    let second = bed.add_worker(2, "one", 1);
    bed.finish(second, "a", Outcome::Success, "");
    bed.finish(first, "a", Outcome::Success, "");
    bed.restart();
    assert_eq!(duplicates(&mut bed), once("worker thought lost"));
    assert_eq!(reruns(&mut bed), once("worker thought lost"));
}

#[test]
fn late_result_that_comes_first_leaves_one_rerun_and_no_duplicate() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.pass(Duration::from_secs(6));
    let second = bed.add_worker(2, "one", 1);
    assert_eq!(bed.runs(second), ["a"]);
    bed.finish(first, "a", Outcome::Success, "");
    assert_eq!(bed.sent, ["cancel [1-2]"]);
    let stats = bed.stats();
    assert_eq!((stats.success, stats.duplicates), (1, 0));
    assert_eq!(reruns(&mut bed), once("worker thought lost"));
}

#[test]
fn silent_worker_that_comes_back_before_its_job_is_given_away_repeats_nothing() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.pass(Duration::from_secs(6));
    bed.beat(first);
    bed.finish(first, "a", Outcome::Success, "");
    let stats = bed.stats();
    assert_eq!((stats.success, stats.duplicates, stats.reruns), (1, 0, 0));
}

#[test]
fn what_was_lost_on_the_way_is_no_rerun() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.workers
        .get_mut(&worker)
        .expect("it is there")
        .running
        .clear();
    bed.beat(worker);
    assert_eq!(bed.runs(worker), ["a"]);
    assert_eq!(reruns(&mut bed), []);
}

#[test]
fn result_of_an_attempt_that_was_said_to_be_lost_is_a_rerun_after_all() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let mut beat = bed.heartbeat(worker).expect("it lives");
    beat.managers[0].held.clear();
    let sim = bed.workers.get_mut(&worker).expect("it is there");
    let first = sim.running.clone();
    bed.input(Input::Heartbeat(beat));
    let sim = bed.workers.get_mut(&worker).expect("it is there");
    assert_eq!(sim.queue.len(), 1, "the second attempt");
    assert_eq!(first.len(), 1);
    bed.finish(worker, "a", Outcome::Success, "");
    assert_eq!(reruns(&mut bed), once("lost on the way"));
}

#[test]
fn broken_pipe_is_a_cause() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.deliver = false;
    bed.enqueue(&["a"]);
    for _ in 0..4 {
        bed.pass(Duration::from_secs(1));
        bed.beat(worker);
    }
    bed.deliver = true;
    bed.pass(Duration::from_secs(1));
    bed.beat(worker);
    assert_eq!(bed.runs(worker), ["a"]);
    assert_eq!(reruns(&mut bed), once("the pipe was silent"));
}

#[test]
fn abandoned_attempt_is_a_rerun_and_a_handed_back_one_is_not() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 2);
    bed.enqueue(&["a", "b"]);
    let second = bed.add_worker(2, "one", 2);
    let jobs = std::mem::take(&mut bed.workers.get_mut(&first).expect("there").running);
    for ((_, job), reason) in jobs
        .into_iter()
        .zip([HandBackReason::Abandoned, HandBackReason::Draining])
    {
        bed.input(Input::HandBack(HandBack {
            worker: first,
            reason,
            attempts: vec![HandedBack {
                attempt: job.attempt,
                job: job.job,
                phase: job.phase,
            }],
        }));
    }
    assert_eq!(bed.runs(second), ["a", "b"]);
    assert_eq!(reruns(&mut bed), once("handed back after it had begun"));
}

/// The manager's former life may have ended before it wrote the hand-back down, so the worker
/// repeats it. It comes before the heartbeat or after it, and twice.
#[test]
fn attempt_that_was_abandoned_before_a_restart_is_one_rerun() {
    for heartbeat_first in [true, false] {
        let mut bed = Bed::new(&["one"]);
        let first = bed.add_worker(1, "one", 1);
        bed.enqueue(&["a"]);
        let back = bed.abandonment(first);
        bed.workers.get_mut(&first).expect("there").draining = true;
        bed.answers = heartbeat_first;
        bed.restart();
        if heartbeat_first {
            bed.beat(first);
            assert_eq!(bed.state("a"), Some(JobState::Running));
        } else {
            // Nor does any later one list it.
            bed.workers.get_mut(&first).expect("there").running.clear();
        }
        bed.input(Input::HandBack(back.clone()));
        bed.beat(first);
        bed.input(Input::HandBack(back));
        let second = bed.add_worker(2, "one", 1);
        assert_eq!(bed.runs(second), ["a"]);
        assert_eq!(reruns(&mut bed), once("handed back after it had begun"));
    }
}

#[test]
fn goodbye_with_an_attempt_held_is_a_cause() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.input(Input::Goodbye(Goodbye { worker: first }));
    bed.add_worker(2, "one", 1);
    assert_eq!(reruns(&mut bed), once("worker left"));
}

#[test]
fn retry_and_another_try_are_no_reruns() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.finish(worker, "a", super::bed::failure(true), "");
    bed.pass(Duration::from_secs(3));
    bed.finish(worker, "a", super::bed::failure(false), "");
    let selector = Selector::Ids(vec![id("a")]);
    bed.ask(Query::Retry { selector });
    assert_eq!(bed.runs(worker), ["a"]);
    assert_eq!(reruns(&mut bed), []);
}

#[test]
fn cancelled_job_that_was_not_handed_out_again_is_no_duplicate() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.pass(Duration::from_secs(6));
    let selector = Selector::Ids(vec![id("a")]);
    bed.ask(Query::Cancel { selector });
    bed.finish(first, "a", Outcome::Success, "");
    let stats = bed.stats();
    assert_eq!((stats.duplicates, stats.reruns), (0, 0));
}

/// Found by the simulator, seed 3353.
#[test]
fn dispatch_behind_an_acknowledgement_that_waits_for_a_hanging_commit_is_not_given_up() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a", "b"]);
    bed.store_works = false;
    drains(&mut bed, worker, true);
    bed.finish(worker, "a", Outcome::Success, "");
    drains(&mut bed, worker, false);
    for _ in 0..8 {
        bed.pass(Duration::from_secs(1));
        bed.beat(worker);
    }
    assert_eq!(bed.opened.len(), 1, "the pipe is not at fault");
    bed.store_works = true;
    bed.settle();
    assert_eq!(bed.runs(worker), ["b"]);
    bed.pass(Duration::from_secs(1));
    bed.beat(worker);
    let ran = &bed.workers[&worker].ran;
    assert_eq!(ran.iter().filter(|(_, job, _)| *job == id("b")).count(), 1);
    assert_eq!(reruns(&mut bed), []);
}

fn drains(bed: &mut Bed, worker: WorkerId, draining: bool) {
    bed.workers.get_mut(&worker).expect("it is there").draining = draining;
    bed.beat(worker);
}
