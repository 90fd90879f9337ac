//! What a review with fresh eyes found.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    AttemptResult, Code, EnqueueOutcome, ErrorReport, FailureKind, Held, HeldFor, HeldState,
    JobState, Message, NewJob, Outcome, Query, Results, Selector,
};
use carbontube_protocol::{AttemptId, Timestamp, WorkerId};
use carbontube_storage::Log;

use super::bed::{Bed, failure, id, new_job, pipeline, worker_id};
use crate::core::cause::Cause;
use crate::core::{CoreOptions, Effect, Gated, Input, StoreFault};

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

/// Strangers may have made it forget the manager: it drops what comes without a hello.
#[test]
fn worker_that_lacks_again_what_it_received_is_greeted_anew() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |_| Duration::from_secs(1000);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let mut hellos = Vec::new();
    for _ in 0..2 {
        let mut beat = bed.heartbeat(worker).expect("it lives");
        beat.managers[0].held.clear();
        bed.workers.get_mut(&worker).expect("there").running.clear();
        bed.core.handle(Input::Heartbeat(beat), bed.now);
        bed.core.dispatch(bed.now);
        let mut effects = Vec::new();
        while let Some(gated) = bed.core.poll_effect() {
            effects.push(gated);
        }
        let is_hello = |gated: &&crate::core::Gated| {
            matches!(
                &gated.effect,
                Effect::ToPipe {
                    message: Message::Hello(_),
                    ..
                }
            )
        };
        hellos.push(effects.iter().filter(is_hello).count());
        bed.waiting.extend(effects);
        bed.settle();
    }
    assert_eq!(hellos, [0, 1]);
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

/// A job that waits for its retry, and the late success of its lost first attempt.
fn late_success() -> (Bed, [WorkerId; 2], AttemptResult) {
    let options = CoreOptions {
        payload_cache_bytes_max: 0,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    bed.duration = |_| Duration::from_secs(1000);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let late = success(&bed, first);
    bed.workers.get_mut(&first).expect("there").alive = false;
    let second = bed.add_worker(2, "one", 1);
    while bed.runs(second).is_empty() {
        bed.pass(Duration::from_secs(1));
        bed.beat(second);
    }
    bed.finish(second, "a", failure(true), "");
    assert_eq!(bed.state("a"), Some(JobState::Scheduled));
    (bed, [first, second], late)
}

/// Its page was read again and again until the retry was due: what waits is not kept.
#[test]
fn late_success_of_a_job_that_waits_for_its_retry_needs_its_page_once() {
    let (mut bed, [first, _], late) = late_success();
    bed.result(first, late);
    assert_eq!(bed.state("a"), Some(JobState::Success));
}

#[test]
fn late_success_of_a_job_whose_page_is_gone_is_not_waited_for() {
    let (mut bed, [first, second], late) = late_success();
    let no = bed.core.jobs.no(&id("a")).expect("live");
    let home = bed.core.jobs.job(no).expect("live").home;
    let page = bed.disk.0.remove(&(Log::Journal.tag(), home.0));
    assert!(page.is_some());
    bed.result(first, late);
    assert_eq!(bed.state("a"), Some(JobState::Scheduled));
    for _ in 0..20 {
        bed.pass(Duration::from_secs(1));
        bed.beat(second);
    }
    assert_eq!(bed.state("a"), Some(JobState::Failed), "it cannot run");
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

/// A device gives the suspect to another worker than the one it was meant for.
#[test]
fn suspect_that_another_worker_took_leaves_no_worker_in_quarantine() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |_| Duration::from_secs(1000);
    for n in [1, 2] {
        let worker = bed.add_worker(n, "one", 1);
        bed.enqueue(&[]);
        if n == 1 {
            bed.enqueue(&["a"]);
        }
        if bed.runs(worker).is_empty() {
            continue;
        }
        bed.workers.get_mut(&worker).expect("there").alive = false;
        bed.pass(Duration::from_secs(6));
    }
    // Two workers behind one device.
    let (third, fourth) = (worker_id(3), worker_id(4));
    let _ = (third, fourth);
    let losses = |bed: &Bed| {
        let no = bed.core.jobs.no(&id("a")).expect("live");
        bed.core.jobs.job(no).expect("live").losses
    };
    while losses(&bed) < 2 {
        let holder = bed
            .workers
            .iter()
            .find(|(_, w)| w.alive && !w.running.is_empty());
        let holder = holder.map(|(id, _)| *id).expect("somebody runs it");
        bed.workers.get_mut(&holder).expect("there").alive = false;
        bed.pass(Duration::from_secs(6));
        if losses(&bed) < 2 {
            bed.add_worker(9, "one", 1);
        }
    }
    let device = super::bed::address_of(third);
    for n in [3, 4] {
        bed.add_worker_at(n, "one", 1, device.clone(), true);
        bed.beat(worker_id(n));
    }
    let meant = [third, fourth]
        .into_iter()
        .find(|worker| bed.runs(*worker) == ["a"])
        .expect("one of them got it");
    let other = if meant == third { fourth } else { third };
    // The device gave it to the other one.
    let sim = bed.workers.get_mut(&meant).expect("there");
    let running = std::mem::take(&mut sim.running);
    bed.workers.get_mut(&other).expect("there").running = running;
    bed.beat(other);
    bed.beat(meant);
    bed.finish(other, "a", Outcome::Success, "");
    bed.enqueue(&["b", "c"]);
    bed.beat(meant);
    assert_eq!(bed.runs(meant).len(), 1, "it takes work again");
}

/// Nobody knows by which connection the worker would send it.
#[test]
fn acknowledgement_without_a_result_names_no_route() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |_| Duration::from_secs(1000);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let result = success(&bed, worker);
    let attempt = result.attempt;
    let sim = bed.workers.get_mut(&worker).expect("there");
    sim.running.clear();
    sim.done.insert(attempt, result);
    bed.ask(Query::Cancel {
        selector: Selector::Ids(vec![id("a")]),
    });
    let beat = bed.heartbeat(worker).expect("it lives");
    bed.core.handle(Input::Heartbeat(beat), bed.now);
    let acks = acks(&mut bed);
    assert_eq!(acks.len(), 1);
    assert!(
        acks[0].0 > 64,
        "route {} may be another manager's",
        acks[0].0
    );
}

/// A worker that was away for so long that it was forgotten counts on.
#[test]
fn worker_that_comes_back_after_it_was_forgotten_is_sent_nothing_twice() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |_| Duration::from_secs(1000);
    let worker = bed.add_worker(1, "one", 1);
    for n in 0..20 {
        let name = format!("j{n}");
        bed.enqueue(&[&name]);
        bed.finish(worker, &name, Outcome::Success, "");
    }
    // It stands still, with its last heartbeats on the way.
    let late = bed.heartbeat(worker).expect("it lives");
    for _ in 0..80 {
        bed.pass(Duration::from_secs(1));
    }
    assert!(bed.core.workers.table.is_empty(), "it is forgotten");
    bed.deliver = false;
    bed.workers.get_mut(&worker).expect("there").pipe = None;
    bed.input(Input::Heartbeat(late.clone()));
    bed.enqueue(&["a"]);
    let attempt = |bed: &Bed| {
        let no = bed.core.jobs.no(&id("a")).expect("live");
        bed.core.jobs.job(no).expect("live").attempt.map(|(a, _)| a)
    };
    let first = attempt(&bed).expect("it is dispatched");
    // The dispatch is on its way while another heartbeat of before arrives.
    bed.input(Input::Heartbeat(late));
    assert_eq!(attempt(&bed), Some(first), "it is not lost");
}

/// What was reported as running has begun, whatever becomes of it.
#[test]
fn attempt_that_was_reported_running_and_vanished_counts_as_begun() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |_| Duration::from_secs(1000);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.beat(worker);
    let sim = bed.workers.get_mut(&worker).expect("there");
    sim.running.clear();
    bed.beat(worker);
    assert_eq!(bed.runs(worker), ["a"], "it is dispatched again");
    assert_eq!(bed.stats().reruns, 1);
}

/// The result of a job that was discarded is not that of a new one with its id.
#[test]
fn late_result_does_not_decide_a_later_job_of_the_same_id() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |_| Duration::from_secs(1000);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let old = success(&bed, worker);
    bed.workers.get_mut(&worker).expect("there").alive = false;
    bed.pass(Duration::from_secs(6));
    let second = bed.add_worker(2, "one", 1);
    bed.finish(second, "a", failure(false), "");
    bed.ask(Query::Discard {
        selector: Selector::Ids(vec![id("a")]),
    });
    bed.workers.get_mut(&second).expect("there").alive = false;
    bed.pass(Duration::from_secs(6));
    let outcomes = bed.enqueue(&["a"]);
    assert!(matches!(outcomes[..], [EnqueueOutcome::Accepted { .. }]));
    bed.result(worker, old);
    assert_eq!(bed.state("a"), Some(JobState::Enqueued), "it has not run");
}

/// One idle slot wants one attempt back, however often one looks.
#[test]
fn one_idle_slot_recalls_one_attempt() {
    let options = CoreOptions {
        prefetch_time: Duration::from_secs(1),
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let busy = bed.add_worker(1, "one", 1);
    for n in 0..5 {
        let name = format!("j{n}");
        bed.enqueue(&[&name]);
        bed.finish(busy, &name, Outcome::Success, "");
    }
    bed.duration = |_| Duration::from_secs(1000);
    let names: Vec<String> = (0..21).map(|n| format!("k{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bed.enqueue(&names);
    assert!(bed.workers[&busy].queue.len() >= 20);
    // Its pipe is slow: what it is sent stays on the way.
    bed.workers.get_mut(&busy).expect("there").pipe = None;
    bed.add_worker(2, "one", 1);
    for _ in 0..10 {
        bed.pass(Duration::from_millis(1));
    }
    let worker = &bed.core.workers.table[&busy];
    let recalled = worker.attempts.values().filter(|h| h.recalled.is_some());
    assert_eq!(recalled.count(), 1);
}

/// Attempts that are not wanted are cancelled together.
#[test]
fn heartbeat_with_many_unknown_attempts_is_answered_with_few_messages() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    let mut beat = bed.heartbeat(worker).expect("it lives");
    let held = (0..4000).map(|n| Held {
        attempt: AttemptId {
            epoch: 1,
            counter: 1_000_000 + n,
        },
        job: id("unknown"),
        phase: 0,
        state: HeldState::Running,
    });
    beat.managers = vec![HeldFor {
        manager: bed.core.manager_id(),
        epoch: 1,
        sequence: 1,
        held: held.collect(),
    }];
    bed.core.handle(Input::Heartbeat(beat), bed.now);
    bed.core.dispatch(bed.now);
    let messages = std::iter::from_fn(|| bed.core.poll_effect())
        .filter(|gated| matches!(gated.effect, Effect::ToPipe { .. }))
        .count();
    assert!(messages <= 4, "{messages} messages");
}

/// A forged result of an attempt for another job decides nothing about the attempt.
#[test]
fn result_of_a_stranger_does_not_spoil_the_attempt_of_another() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |_| Duration::from_secs(1000);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let mut forged = success(&bed, worker);
    forged.job = id("no-such-job");
    bed.result(worker_id(66), forged);
    bed.finish(worker, "a", Outcome::Success, "");
    assert_eq!(bed.state("a"), Some(JobState::Success));
}

#[test]
fn result_of_a_stranger_says_nothing_about_an_attempt_that_was_given_up() {
    let mut bed = Bed::new(&["one"]);
    bed.duration = |_| Duration::from_secs(1000);
    let slow = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let late = success(&bed, slow);
    bed.pass(Duration::from_secs(6));
    let quick = bed.add_worker(2, "one", 1);
    assert_eq!(bed.runs(quick), ["a"]);
    let mut forged = late.clone();
    forged.job = id("no-such-job");
    bed.result(worker_id(66), forged);
    assert_eq!(bed.stats().duplicates, 0, "nothing ran twice by that");
    // The word of the one that ran it still counts.
    bed.result(slow, late);
    assert_eq!(bed.state("a"), Some(JobState::Success));
}

/// A clock that is set back before a restart.
#[test]
fn retry_does_not_wait_until_a_clock_that_was_set_back_has_caught_up() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.finish(worker, "a", failure(true), "");
    bed.now = Timestamp(bed.now.0 - 600_000_000);
    bed.restart();
    let longest = bed.definition.phases()[0].backoff.longest;
    bed.pass(longest + longest / 4);
    assert_ne!(bed.state("a"), Some(JobState::Scheduled));
}

/// A worker whose attempt was cancelled for another one, and which the manager took up again
/// meanwhile: the job goes on, it does not end as if somebody had cancelled it.
#[test]
fn stopped_attempt_of_a_live_job_gives_the_job_back() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.restart();
    assert_eq!(bed.state("a"), Some(JobState::Running), "it was adopted");
    let second = bed.add_worker(2, "one", 1);
    let stopped = Outcome::Failure {
        kind: FailureKind::Cancelled,
        error: ErrorReport::default(),
        retry: false,
    };
    bed.workers.get_mut(&first).expect("there").draining = true;
    bed.beat(first);
    bed.finish(first, "a", stopped, "");
    assert_eq!(bed.runs(second), ["a"]);
    let again = bed.workers[&second].running[0].1.clone();
    assert_eq!(again.number, 1, "the stop is no try of the job's");
    let causes = bed.stats().rerun_causes;
    assert_eq!(causes, [(Cause::Abandoned.as_str().to_owned(), 1)]);
    bed.finish(second, "a", Outcome::Success, "");
    assert_eq!(bed.state("a"), Some(JobState::Success));
}

/// A worker that says so of whatever it is given must not get it again without end.
#[test]
fn attempt_that_nobody_cancelled_and_its_worker_calls_so_fails() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let stopped = Outcome::Failure {
        kind: FailureKind::Cancelled,
        error: ErrorReport::default(),
        retry: false,
    };
    bed.finish(worker, "a", stopped, "");
    assert_eq!(bed.state("a"), Some(JobState::Failed));
    assert!(bed.runs(worker).is_empty());
}

/// A worker that leaves lists what it stopped until it is gone.
#[test]
fn attempt_that_was_given_up_is_not_taken_up_while_its_job_waits_for_a_retry() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.restart();
    let second = bed.add_worker(2, "one", 1);
    let back = bed.abandonment(first);
    bed.input(Input::HandBack(back));
    bed.finish(second, "a", failure(true), "");
    assert_eq!(bed.state("a"), Some(JobState::Scheduled));
    bed.beat(first);
    assert_eq!(bed.state("a"), Some(JobState::Scheduled));
}

/// While nothing can be written, heartbeats and repeated results must not pile up
/// acknowledgements that wait for it.
#[test]
fn acknowledgements_do_not_pile_up_while_the_journal_cannot_be_written() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.store_works = false;
    let late = success(&bed, worker);
    bed.finish(worker, "a", Outcome::Success, "");
    let commit = bed.commits_undone.front().expect("it waits").id;
    let fault = StoreFault::Full("no space".to_owned());
    bed.input(Input::CommitFailed { commit, fault });
    let waiting = |bed: &Bed| {
        let is_ack = |gated: &&Gated| {
            let effect = &gated.effect;
            matches!(effect, Effect::ToPipe { message, .. } if matches!(message, Message::Ack(_)))
        };
        bed.waiting.iter().filter(is_ack).count()
    };
    assert_eq!(waiting(&bed), 1);
    for _ in 0..3 {
        bed.beat(worker);
        bed.result(worker, late.clone());
    }
    assert_eq!(waiting(&bed), 1);
    bed.store_works = true;
    bed.settle();
    assert!(bed.workers[&worker].done.is_empty(), "it was acknowledged");
}

/// Without the record of the last start the number of this one comes from elsewhere: jobs
/// must not take every new attempt for one of a former job.
#[test]
fn job_ends_after_the_record_of_the_last_start_was_lost() {
    let mut bed = Bed::new(&["one"]);
    for _ in 0..3 {
        bed.restart();
    }
    let state_pages: Vec<(u8, u64)> = bed.disk.0.keys().copied().collect();
    bed.enqueue(&["a"]);
    for page in state_pages {
        bed.disk.0.insert(page, Bytes::new());
    }
    bed.restart();
    let since = bed.core.jobs.job(bed.core.jobs.no(&id("a")).expect("live"));
    assert_eq!(since.expect("live").since.epoch, 4);
    assert!(bed.core.epoch() > 4, "{}", bed.core.epoch());
    let worker = bed.add_worker(1, "one", 1);
    bed.finish(worker, "a", Outcome::Success, "");
    assert_eq!(bed.state("a"), Some(JobState::Success));
}
