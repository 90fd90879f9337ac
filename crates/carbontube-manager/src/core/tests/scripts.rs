//! One short script for each rule about a job's life.

use std::time::Duration;

use carbontube_protocol::message::{
    Answer, Code, EnqueueOutcome, FailureKind, JobFilter, JobState, ManagerState, Message, Outcome,
    Query, Selector, Wait,
};

use super::bed::{Bed, CLIENT, failure, id};
use crate::core::{CommitId, Input, StoreFault};

#[test]
fn job_runs_through_two_phases_and_ends_in_the_history() {
    let mut bed = Bed::new(&["one", "two"]);
    let first = bed.add_worker(1, "one", 1);
    let second = bed.add_worker(2, "two", 1);
    let outcomes = bed.enqueue(&["a"]);
    assert_eq!(outcomes, [EnqueueOutcome::Accepted { id: id("a") }]);
    assert_eq!(bed.runs(first), ["a"]);
    bed.finish(first, "a", Outcome::Success, "{\"b\":2}");
    assert!(
        bed.workers[&first].done.is_empty(),
        "the result was acknowledged"
    );
    assert_eq!(bed.runs(second), ["a"]);
    assert_eq!(
        &bed.workers[&second].running[0].1.instructions[..],
        b"{\"b\":2}"
    );
    bed.finish(second, "a", Outcome::Success, "");
    assert_eq!(bed.state("a"), Some(JobState::Success));
    let Answer::Job(detail) = bed.ask(Query::Job { id: id("a") }) else {
        panic!("a job was asked");
    };
    assert_eq!(&detail.instructions[..], b"{\"b\":2}");
    assert_eq!(detail.attempts.len(), 2);
    let stats = bed.stats();
    assert_eq!((stats.enqueued, stats.success, stats.live), (1, 1, 0));
}

#[test]
fn nothing_is_confirmed_or_dispatched_before_it_is_durable() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.store_works = false;
    assert_eq!(bed.enqueue(&["a"]), []);
    assert!(bed.runs(worker).is_empty());
    bed.store_works = true;
    bed.settle();
    assert!(matches!(bed.to_client[..], [Message::Enqueued(_)]));
    assert_eq!(bed.runs(worker), ["a"]);
}

#[test]
fn acknowledgement_waits_for_the_record_of_the_result() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.store_works = false;
    bed.finish(worker, "a", Outcome::Success, "");
    assert_eq!(bed.workers[&worker].done.len(), 1);
    bed.store_works = true;
    bed.settle();
    assert!(bed.workers[&worker].done.is_empty());
}

#[test]
fn same_id_is_one_job_live_or_ended() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let state = JobState::Running;
    assert_eq!(
        bed.enqueue(&["a"]),
        [EnqueueOutcome::Duplicate { id: id("a"), state }]
    );
    bed.finish(worker, "a", Outcome::Success, "");
    let state = JobState::Success;
    assert_eq!(
        bed.enqueue(&["a"]),
        [EnqueueOutcome::Duplicate { id: id("a"), state }]
    );
    bed.restart();
    assert_eq!(
        bed.enqueue(&["a"]),
        [EnqueueOutcome::Duplicate { id: id("a"), state }]
    );
}

#[test]
fn failure_is_tried_again_until_attempts_are_used_up() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    for _ in 0..2 {
        bed.finish(worker, "a", failure(true), "");
        assert_eq!(bed.state("a"), Some(JobState::Scheduled));
        bed.pass(Duration::from_secs(3));
        assert_eq!(bed.runs(worker), ["a"]);
    }
    bed.finish(worker, "a", failure(true), "");
    assert_eq!(bed.state("a"), Some(JobState::Failed));
    bed.restart();
    assert_eq!(bed.state("a"), Some(JobState::Failed));
    let all = Selector::Filter(JobFilter::default());
    let answer = bed.ask(Query::Retry { selector: all });
    assert_eq!(
        answer,
        Answer::Changed {
            count: 1,
            skipped: 0
        }
    );
    assert_eq!(bed.state("a"), Some(JobState::Running));
}

#[test]
fn failure_that_says_so_is_not_tried_again() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.finish(worker, "a", failure(false), "");
    assert_eq!(bed.state("a"), Some(JobState::Failed));
    let selector = Selector::Ids(vec![id("a"), id("b")]);
    let answer = bed.ask(Query::Discard { selector });
    assert_eq!(
        answer,
        Answer::Changed {
            count: 1,
            skipped: 1
        }
    );
    assert_eq!(bed.state("a"), None);
    bed.restart();
    assert_eq!(bed.state("a"), None);
}

#[test]
fn result_that_is_sent_again_counts_once() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.deliver = false;
    bed.finish(worker, "a", failure(true), "");
    let result = bed.workers[&worker].done.values().next().cloned();
    let result = result.expect("it was not acknowledged");
    bed.result(worker, result.clone());
    let tries = |bed: &Bed| bed.core.jobs.iter_from(0).next().map(|(_, job)| job.tries);
    assert_eq!(tries(&bed), Some(1));
    bed.restart();
    bed.deliver = true;
    bed.beat(worker);
    bed.result(worker, result);
    assert_eq!(tries(&bed), Some(1));
    assert!(bed.workers[&worker].done.is_empty());
    assert_eq!(bed.stats().duplicates, 0);
}

#[test]
fn running_job_is_cancelled_at_once_and_the_worker_told() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let selector = Selector::Ids(vec![id("a")]);
    bed.ask(Query::Cancel { selector });
    assert_eq!(bed.state("a"), Some(JobState::Cancelled));
    assert_eq!(bed.sent, ["cancel [1-1]"]);
    assert!(bed.runs(worker).is_empty());
}

#[test]
fn wait_is_answered_when_the_job_ends_and_for_what_ended_before() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.to_client.clear();
    let pipeline = bed.definition.name().clone();
    let ids = vec![id("a"), id("unknown")];
    let request = Wait {
        request: 3,
        pipeline,
        ids,
    };
    bed.input(Input::Wait {
        client: CLIENT,
        request: request.clone(),
    });
    let ended = |bed: &mut Bed| match bed.to_client.pop() {
        Some(Message::Ended(ended)) => ended.jobs,
        other => panic!("expected an end, found {other:?}"),
    };
    assert_eq!(ended(&mut bed)[0].state, None);
    bed.finish(worker, "a", Outcome::Success, "{\"c\":3}");
    let jobs = ended(&mut bed);
    assert_eq!(jobs[0].state, Some(JobState::Success));
    assert_eq!(&jobs[0].result[..], b"{\"c\":3}");
    bed.input(Input::Wait {
        client: CLIENT,
        request,
    });
    let jobs: Vec<_> = std::iter::from_fn(|| bed.to_client.pop()).collect();
    assert!(format!("{jobs:?}").contains("Success"), "{jobs:?}");
}

#[test]
fn pause_survives_a_restart_and_holds_dispatch() {
    let mut bed = Bed::new(&["one"]);
    bed.ask(Query::Pause { phase: None });
    bed.restart();
    assert_eq!(bed.core.state(), ManagerState::Paused);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    assert!(bed.runs(worker).is_empty());
    bed.ask(Query::Resume { phase: None });
    assert_eq!(bed.runs(worker), ["a"]);
}

#[test]
fn failed_commit_stops_intake_until_one_succeeds() {
    let mut bed = Bed::new(&["one"]);
    bed.store_works = false;
    bed.enqueue(&["a"]);
    let fault = StoreFault::Full("no space".to_owned());
    bed.input(Input::CommitFailed {
        commit: CommitId(2),
        fault,
    });
    assert_eq!(bed.core.state(), ManagerState::Impaired);
    let outcomes = bed.enqueue(&["b"]);
    assert!(matches!(
        outcomes[..],
        [EnqueueOutcome::Rejected {
            code: Code::Journal,
            ..
        }]
    ));
    bed.store_works = true;
    bed.settle();
    assert_eq!(bed.core.state(), ManagerState::Running);
    assert_eq!(bed.state("a"), Some(JobState::Enqueued));
}

#[test]
fn draining_manager_refuses_jobs_and_stops_after_what_runs() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a", "b"]);
    bed.input(Input::Drain);
    assert!(!bed.stopped);
    let outcomes = bed.enqueue(&["c"]);
    assert!(matches!(
        outcomes[..],
        [EnqueueOutcome::Rejected {
            code: Code::Draining,
            ..
        }]
    ));
    bed.finish(worker, "a", Outcome::Success, "");
    assert!(bed.stopped);
    assert!(bed.runs(worker).is_empty());
}

#[test]
fn worker_whose_drain_was_lost_is_asked_again_and_gets_no_work() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    // As when its pipe is not up: nothing reaches the worker.
    bed.deliver = false;
    bed.ask(Query::Drain {
        worker: Some(worker),
    });
    bed.deliver = true;
    assert!(!bed.workers[&worker].draining);
    bed.beat(worker);
    assert!(bed.workers[&worker].draining);
    bed.enqueue(&["a"]);
    assert_eq!(bed.state("a"), Some(JobState::Enqueued));
    bed.beat(worker);
    assert!(bed.runs(worker).is_empty());
}

#[test]
fn lost_attempt_began_when_it_was_given_though_the_manager_slept_meanwhile() {
    let mut bed = Bed::new(&["one"]);
    bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let given_at = bed.now;
    bed.sleep(Duration::from_secs(60));
    bed.pass(Duration::from_secs(6));
    let Answer::Job(detail) = bed.ask(Query::Job { id: id("a") }) else {
        panic!("a job was asked");
    };
    let began: Vec<_> = detail.attempts.iter().map(|view| view.started_at).collect();
    assert_eq!(began, [given_at]);
}

#[test]
fn job_that_takes_workers_down_is_poison() {
    let mut bed = Bed::new(&["one"]);
    bed.enqueue(&["a"]);
    let mut taken = Vec::new();
    for n in 1..=3 {
        let worker = bed.add_worker(n, "one", 4);
        taken.push((Some(worker), Some(FailureKind::WorkerLost)));
        assert_eq!(bed.runs(worker), ["a"], "worker {n}");
        if let Some(worker) = bed.workers.get_mut(&worker) {
            worker.alive = false;
        }
        bed.pass(Duration::from_secs(6));
    }
    assert_eq!(bed.state("a"), Some(JobState::Failed));
    let Answer::Job(detail) = bed.ask(Query::Job { id: id("a") }) else {
        panic!("a job was asked");
    };
    assert_eq!(detail.failure, Some(FailureKind::Poison));
    // Each of them is told, and by whom it was had.
    let told = detail.attempts.iter();
    let told: Vec<_> = told.map(|each| (each.worker, each.failure)).collect();
    assert_eq!(told, taken);
}

#[test]
fn worker_that_said_goodbye_does_not_come_back_with_a_late_heartbeat() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.input(Input::Goodbye(carbontube_protocol::message::Goodbye {
        worker,
    }));
    // Results and goodbyes travel on another socket than heartbeats, which may be later.
    bed.beat(worker);
    assert_eq!(bed.ask(Query::Workers), Answer::Workers(Vec::new()));
    bed.add_worker(2, "one", 1);
    let Answer::Workers(workers) = bed.ask(Query::Workers) else {
        panic!("workers were asked");
    };
    assert_eq!(workers.len(), 1);
}
