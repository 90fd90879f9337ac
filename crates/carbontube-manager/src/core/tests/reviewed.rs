//! What a review with fresh eyes found.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    AttemptResult, Code, EnqueueOutcome, ErrorReport, FailureKind, JobState, Message, NewJob,
    Outcome, Results,
};
use carbontube_protocol::{AttemptId, Timestamp, WorkerId};

use super::bed::{Bed, failure, id, new_job, pipeline, worker_id};
use crate::core::{CoreOptions, Effect, Input};

fn large(text: &str, bytes: usize) -> NewJob {
    NewJob {
        instructions: Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(bytes))),
        ..new_job(id(text))
    }
}

/// The acknowledgements among the effects that wait to be taken.
fn acks(bed: &mut Bed) -> Vec<(u16, Vec<AttemptId>)> {
    bed.core.dispatch(bed.now);
    let mut found = Vec::new();
    while let Some(gated) = bed.core.poll_effect() {
        if let Effect::ToPipe {
            message: Message::Ack(ack),
            ..
        } = gated.effect
        {
            found.push((ack.route, ack.attempts));
        }
    }
    found
}

fn success(bed: &Bed, worker: WorkerId) -> AttemptResult {
    let job = &bed.workers[&worker].running[0].1;
    AttemptResult {
        attempt: job.attempt,
        job: job.job.clone(),
        phase: job.phase,
        started_at: Timestamp(bed.now.0 - 1000),
        finished_at: bed.now,
        outcome: Outcome::Success,
        instructions: Bytes::new(),
    }
}

/// A retry that was due, and dispatched, before the restart is like any recovered job.
#[test]
fn retry_that_ran_before_a_restart_waits_for_its_worker_after_it() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.finish(first, "a", failure(true), "");
    bed.duration = |_| Duration::from_secs(100);
    bed.pass(Duration::from_secs(10));
    bed.beat(first);
    assert_eq!(bed.runs(first), ["a"], "its second try");
    bed.answers = false;
    bed.restart();
    bed.answers = true;
    bed.add_worker(2, "one", 1);
    assert!(
        bed.runs(worker_id(2)).is_empty(),
        "the first worker still runs it"
    );
    bed.beat(first);
    bed.pass(Duration::from_secs(1));
    assert_eq!(bed.workers[&worker_id(2)].ran.len(), 0);
}

/// Jobs that do not wait for a worker must not keep others' instructions out of memory.
#[test]
fn dead_letters_do_not_keep_the_queue_from_being_read() {
    let options = CoreOptions {
        payload_cache_bytes_max: 8000,
        page_bytes: 1024,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let worker = bed.add_worker(1, "one", 4);
    // They fill the cache.
    for n in 0..10 {
        let name = format!("dead{n}");
        bed.enqueue_jobs(vec![large(&name, 900)]);
        bed.finish(worker, &name, failure(false), "");
    }
    bed.core.handle(
        Input::Enqueue {
            client: super::bed::CLIENT,
            request: carbontube_protocol::message::Enqueue {
                request: 1,
                pipeline: bed.definition.name().clone(),
                jobs: (0..4).map(|n| large(&format!("live{n}"), 900)).collect(),
            },
        },
        bed.now,
    );
    // Nothing is dispatched before all is durable, so that it has to be read.
    let mut reads = 0;
    for _ in 0..40 {
        // All that the store has read is handled in one batch, as under load.
        if let Some(commit) = bed.core.take_commit(bed.now) {
            bed.disk.apply(&commit);
            bed.core
                .handle(Input::Committed { commit: commit.id }, bed.now);
        }
        let mut pages = Vec::new();
        bed.core.dispatch(bed.now);
        while let Some(gated) = bed.core.poll_effect() {
            if let Effect::ReadPage { log, page } = gated.effect {
                pages.push((log, page));
            }
        }
        reads += pages.len();
        for (log, page) in pages {
            let bytes = bed.disk.0.get(&(log.tag(), page.0)).cloned();
            bed.core.handle(
                Input::PageRead {
                    log,
                    page,
                    bytes: Ok(bytes),
                },
                bed.now,
            );
        }
    }
    let running: u64 = bed.core.jobs.counts(0).running;
    assert_eq!(running, 4, "{reads} pages were read");
}

/// The worker learns from the route which connection leads to this manager.
#[test]
fn result_that_waited_for_a_page_is_acknowledged_on_its_own_route() {
    let options = CoreOptions {
        payload_cache_bytes_max: 0,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    bed.duration = |_| Duration::from_secs(1000);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let result = success(&bed, worker);
    let attempt = result.attempt;
    bed.core.handle(
        Input::Results(Results {
            worker,
            route: 3,
            results: vec![result],
        }),
        bed.now,
    );
    let mut pages = Vec::new();
    while let Some(gated) = bed.core.poll_effect() {
        if let Effect::ReadPage { log, page } = gated.effect {
            pages.push((log, page));
        }
    }
    assert_eq!(pages.len(), 1, "its instructions have to be read");
    for (log, page) in pages {
        let bytes = Ok(bed.disk.0.get(&(log.tag(), page.0)).cloned());
        bed.core
            .handle(Input::PageRead { log, page, bytes }, bed.now);
    }
    assert_eq!(acks(&mut bed), [(3, vec![attempt])]);
}

/// While the disk takes nothing, what is taken in must not fill the memory.
#[test]
fn slow_journal_makes_clients_wait_before_the_memory_is_full() {
    let options = CoreOptions {
        undurable_bytes_max: 1 << 20,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    bed.store_works = false;
    // Answers wait for the disk as well: the table tells what was taken.
    for n in 0..40 {
        bed.enqueue_jobs(vec![large(&format!("j{n}"), 100 << 10)]);
    }
    assert_eq!(bed.core.jobs.len(), 11);
    bed.store_works = true;
    bed.settle();
    let outcomes = bed.enqueue(&["later"]);
    assert!(matches!(outcomes[..], [EnqueueOutcome::Accepted { .. }]));
}

/// What travels with a job stays in memory as long as the job.
#[test]
fn traceparent_that_is_none_is_rejected() {
    let mut bed = Bed::new(&["one"]);
    let job = NewJob {
        traceparent: Some("x".repeat(1 << 20)),
        ..new_job(id("a"))
    };
    let outcomes = bed.enqueue_jobs(vec![job]);
    assert!(matches!(
        outcomes[..],
        [EnqueueOutcome::Rejected {
            code: Code::Malformed,
            ..
        }]
    ));
}

/// A worker's report is cut to what the limits allow, whoever wrote it.
#[test]
fn report_of_a_failure_is_cut_to_the_limits() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let outcome = Outcome::Failure {
        kind: FailureKind::Error,
        error: ErrorReport {
            message: "x".repeat(3 << 20),
            detail: "y".repeat(1 << 20),
        },
        retry: false,
    };
    bed.finish(worker, "a", outcome, "");
    let no = bed.core.jobs.no(&id("a")).expect("live");
    let rare = bed.core.jobs.job(no).and_then(|job| job.rare.as_ref());
    let report = rare.and_then(|rare| rare.failure.as_ref()).expect("failed");
    let limits = &bed.options.limits;
    assert!(report.error.message.len() <= limits.error_bytes_max);
    assert!(report.error.detail.len() <= limits.detail_bytes_max);
}

/// A page that cannot be read keeps its own jobs from running, and no others.
#[test]
fn unreadable_page_does_not_stop_the_whole_phase() {
    let options = CoreOptions {
        payload_cache_bytes_max: 0,
        page_bytes: 1024,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    bed.enqueue_jobs(vec![large("a", 900), large("b", 900)]);
    let state = |bed: &Bed, job: &str| {
        let no = bed.core.jobs.no(&id(job)).expect("live");
        let job = bed.core.jobs.job(no).expect("live");
        (job.home, job.state)
    };
    let bad = state(&bed, "a").0;
    bed.duration = |_| Duration::from_secs(1000);
    bed.damaged = Some(bad);
    bed.add_worker(1, "one", 4);
    for _ in 0..3 {
        bed.pass(Duration::from_secs(1));
        bed.beat(worker_id(1));
    }
    assert_eq!(state(&bed, "a").1, JobState::Enqueued);
    assert_eq!(state(&bed, "b").1, JobState::Running);
    // Somebody has repaired the disk.
    bed.damaged = None;
    bed.pass(Duration::from_secs(1));
    assert_eq!(state(&bed, "a").1, JobState::Running);
}

/// Pages that came in one batch all serve the next dispatch, however little is kept.
#[test]
fn pages_read_together_do_not_push_each_other_out() {
    let options = CoreOptions {
        payload_cache_bytes_max: 0,
        page_bytes: 1024,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    bed.duration = |_| Duration::from_secs(1000);
    bed.enqueue_jobs((0..4).map(|n| large(&format!("j{n}"), 900)).collect());
    // The bed gives all pages that were asked for in one batch.
    let worker = bed.add_worker(1, "one", 4);
    assert_eq!(bed.runs(worker).len(), 4);
}
