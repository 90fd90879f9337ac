//! What happens at each maximum, and when a page cannot be read.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    Answer, Code, EnqueueOutcome, ErrorReport, FailureKind, JobState, Message, Outcome, Query, Wait,
};
use carbontube_protocol::original::OriginalEvent;
use carbontube_protocol::{JobType, PipelineName};
use carbontube_storage::Log;

use super::bed::{Bed, CLIENT, address_of, id, new_job, pipeline, worker_id};
use crate::core::{ClientId, CoreOptions, Effect, Input, StoreFault};
use crate::{PhaseDefinition, PipelineDefinition};

fn wait(bed: &mut Bed, client: ClientId, ids: &[&str]) {
    let request = Wait {
        request: 9,
        pipeline: bed.definition.name().clone(),
        ids: ids.iter().map(|text| id(text)).collect(),
    };
    bed.to_client.clear();
    bed.input(Input::Wait { client, request });
}

fn refused(bed: &Bed) -> Option<Code> {
    match bed.to_client.last() {
        Some(Message::Refusal(refusal)) => Some(refusal.code),
        _ => None,
    }
}

#[test]
fn waits_are_bounded_for_a_client_and_for_all() {
    let options = CoreOptions {
        waits_max: (2, 3),
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    bed.enqueue(&["a", "b", "c"]);
    wait(&mut bed, CLIENT, &["a", "b", "c"]);
    assert_eq!(refused(&bed), Some(Code::Busy), "more than a client may");
    wait(&mut bed, CLIENT, &["a", "b"]);
    assert_eq!(refused(&bed), None);
    wait(&mut bed, ClientId(2), &["a", "b"]);
    assert_eq!(refused(&bed), Some(Code::Busy), "more than all may");
    bed.input(Input::ClientGone { client: CLIENT });
    wait(&mut bed, ClientId(2), &["a", "b"]);
    assert_eq!(refused(&bed), None, "places come back");
    let worker = bed.add_worker(1, "one", 3);
    bed.to_client.clear();
    for job in ["a", "b"] {
        bed.finish(worker, job, Outcome::Success, "");
    }
    assert_eq!(bed.to_client.len(), 2);
    assert_eq!(bed.core.waits.total, 0);
}

/// What was told of ended jobs so far, as (messages, jobs, bytes of reports).
fn told(bed: &Bed) -> (usize, usize, usize) {
    let mut told = (0, 0, 0);
    for message in &bed.to_client {
        if let Message::Ended(ended) = message {
            let errors = ended.jobs.iter().filter_map(|job| job.error.as_ref());
            told.0 += 1;
            told.1 += ended.jobs.len();
            told.2 += errors
                .map(|it| it.message.len() + it.detail.len())
                .sum::<usize>();
        }
    }
    told
}

fn report(bytes: usize) -> Outcome {
    let error = ErrorReport {
        message: "it broke".to_owned(),
        detail: "x".repeat(bytes),
    };
    let kind = FailureKind::Error;
    Outcome::Failure {
        kind,
        error,
        retry: false,
    }
}

/// A few bytes would ask for as many megabytes as somebody likes.
#[test]
fn job_that_is_asked_for_again_and_again_in_one_wait_is_told_once() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.finish(worker, "a", report(16 << 10), "");
    wait(&mut bed, CLIENT, &["a"; 1000]);
    assert_eq!(told(&bed).1, 1);
    assert_eq!(bed.core.waits.total, 0);
}

/// As many messages as jobs would fill what may wait for a client, which then counts as one
/// that does not read.
#[test]
fn jobs_that_ended_before_they_were_asked_for_are_told_together() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        bed.finish(worker, name, report(10), "");
    }
    wait(&mut bed, CLIENT, &["a", "b", "c", "unknown"]);
    assert_eq!(told(&bed).1, 4);
    assert_eq!(bed.to_client.len(), 1);
}

/// Neither the memory nor the time of the manager is at the command of who waits.
#[test]
fn dead_letters_are_told_piece_by_piece_and_each_client_has_its_turn() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    let names: Vec<String> = (0..300).map(|n| format!("j{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bed.enqueue(&names);
    for name in &names {
        bed.finish(worker, name, report(16 << 10), "");
    }
    wait(&mut bed, CLIENT, &names);
    let (_, jobs, bytes) = told(&bed);
    assert!(
        jobs < 100 && bytes < 2 << 20,
        "{jobs} jobs, {bytes} bytes at once"
    );
    assert_eq!(bed.core.waits.total, 300 - jobs, "the rest is counted");
    bed.core.hold_waits(true);
    bed.pass(Duration::from_secs(1));
    assert_eq!(told(&bed).1, jobs, "the network has not sent it yet");
    bed.core.hold_waits(false);
    let before = bed.to_client.len();
    bed.input(Input::Wait {
        client: ClientId(2),
        request: Wait {
            request: 10,
            pipeline: bed.definition.name().clone(),
            ids: vec![id("j0")],
        },
    });
    bed.pass(Duration::from_millis(5));
    let mut new = bed.to_client[before..].iter();
    let is_others = |message: &Message| matches!(message, Message::Ended(it) if it.request == 10);
    assert!(
        new.any(is_others),
        "it does not wait for the first client's"
    );
    bed.pass(Duration::from_secs(1));
    assert_eq!(told(&bed).1, 301, "all are told in the end");
    assert_eq!(bed.core.waits.total, 0);
}

/// A page can hold a megabyte, and a wait can ask for thousands.
#[test]
fn pages_of_ended_jobs_are_read_a_few_at_a_time_and_once_each() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    let names: Vec<String> = (0..100).map(|n| format!("j{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bed.enqueue(&names);
    for name in &names {
        bed.finish(worker, name, Outcome::Success, "{\"b\":2}");
    }
    bed.restart();
    let pages: BTreeSet<_> = names
        .iter()
        .map(|name| bed.core.history.entry(&id(name)))
        .map(|entry| entry.expect("it ended").page)
        .collect();
    bed.core.handle(
        Input::Wait {
            client: CLIENT,
            request: Wait {
                request: 9,
                pipeline: bed.definition.name().clone(),
                ids: names.iter().map(|name| id(name)).collect(),
            },
        },
        bed.now,
    );
    bed.to_client.clear();
    let mut most = 0;
    let mut reads = 0;
    while told(&bed).1 < 100 {
        let mut inputs = Vec::new();
        bed.core.dispatch(bed.now);
        while let Some(gated) = bed.core.poll_effect() {
            match gated.effect {
                Effect::ReadPage { log, page } => {
                    let bytes = Ok(bed.disk.0.get(&(log.tag(), page.0)).cloned());
                    inputs.push(Input::PageRead { log, page, bytes });
                }
                Effect::ToClient { message, .. } => bed.to_client.push(message),
                _ => {}
            }
        }
        most = most.max(inputs.len());
        reads += inputs.len();
        assert!(reads <= pages.len(), "a page is read again");
        for input in inputs {
            bed.core.handle(input, bed.now);
        }
        bed.now = bed.now + Duration::from_millis(5);
    }
    assert_eq!(reads, pages.len());
    assert!(most <= 16, "{most} at once");
    assert_eq!(bed.core.waits.total, 0);
}

#[test]
fn live_jobs_are_bounded_and_places_come_back() {
    let options = CoreOptions {
        live_jobs_max: 2,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let worker = bed.add_worker(1, "one", 1);
    let outcomes = bed.enqueue(&["a", "b", "c"]);
    assert!(matches!(
        outcomes[2],
        EnqueueOutcome::Rejected {
            code: Code::Busy,
            ..
        }
    ));
    bed.finish(worker, "a", Outcome::Success, "");
    let outcomes = bed.enqueue(&["c"]);
    assert_eq!(outcomes, [EnqueueOutcome::Accepted { id: id("c") }]);
}

#[test]
fn page_that_cannot_be_read_for_a_while_delays_its_jobs_only_so_long() {
    let options = CoreOptions {
        payload_cache_bytes_max: 0,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    bed.enqueue_jobs(vec![new_job(id("a"))]);
    bed.restart();
    let worker = bed.add_worker(1, "one", 1);
    assert_eq!(bed.runs(worker), ["a"], "the store can be read");
    bed.finish(worker, "a", Outcome::Success, "");
    bed.enqueue_jobs(vec![new_job(id("b"))]);
    // By hand: the store's first answer is that it cannot be reached.
    let definition = bed.definition.clone();
    let mut core = bed.disk.recover(definition, bed.options.clone(), bed.now);
    let no = core.jobs.no(&id("b")).expect("it is live");
    let home = core.jobs.job(no).expect("it is live").home;
    core.read_for_compaction(home);
    let asked = |core: &mut crate::core::Core| {
        std::iter::from_fn(|| core.poll_effect())
            .filter(|gated| matches!(gated.effect, Effect::ReadPage { page, .. } if page == home))
            .count()
    };
    assert_eq!(asked(&mut core), 1);
    let fault = StoreFault::Unavailable("gone".to_owned());
    let (log, page) = (Log::Journal, home);
    let bytes = Err(fault);
    core.handle(Input::PageRead { log, page, bytes }, bed.now);
    assert_eq!(asked(&mut core), 0, "not at once");
    core.handle(Input::Tick, bed.now + Duration::from_secs(1));
    assert_eq!(asked(&mut core), 1, "asked again after a second");
    let bytes = Ok(bed.disk.0.get(&(log.tag(), home.0)).cloned());
    let later = bed.now + Duration::from_secs(1);
    core.handle(Input::PageRead { log, page, bytes }, later);
    assert_eq!(core.payload(no), Some(Bytes::from_static(b"{\"a\":1}")));
}

#[test]
fn originals_worker_that_runs_longer_than_the_phase_may_fails_the_attempt() {
    let mut phase = PhaseDefinition::new(JobType::new("one").expect("a name"));
    phase.timeout = Some(Duration::from_secs(30));
    phase.attempts = 1;
    let name = PipelineName::new("test").expect("a name");
    let definition = PipelineDefinition::new(name, vec![phase]).expect("phases");
    let mut bed = Bed::with(definition, CoreOptions::default());
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
    bed.enqueue(&["a"]);
    for _ in 0..29 {
        bed.pass(Duration::from_secs(1));
        bed.input(Input::OriginalEvent(available.clone()));
    }
    assert_eq!(bed.state("a"), Some(JobState::Running), "it lives");
    bed.pass(Duration::from_secs(1));
    bed.input(Input::OriginalEvent(available));
    bed.pass(Duration::from_secs(5));
    assert_eq!(bed.state("a"), Some(JobState::Failed));
    let carbontube_protocol::message::Answer::Job(detail) = bed.ask(Query::Job { id: id("a") })
    else {
        panic!("a job was asked");
    };
    assert_eq!(detail.failure, Some(FailureKind::Timeout));
}

/// The client would refuse a longer list, break the connection and ask again, for ever.
#[test]
fn list_of_workers_fits_a_message_and_has_those_that_live() {
    let mut options = CoreOptions::default();
    options.limits.batch_jobs_max = 3;
    let mut bed = Bed::with(pipeline(&["one"]), options);
    for n in 1..=3 {
        bed.add_worker(n, "one", 1);
    }
    bed.pass(Duration::from_secs(6));
    for n in 4..=6 {
        bed.add_worker(n, "one", 1);
    }
    let Answer::Workers(listed) = bed.ask(Query::Workers) else {
        panic!("another answer");
    };
    let listed: Vec<_> = listed.into_iter().map(|view| view.worker).collect();
    assert_eq!(listed, [4, 5, 6].map(worker_id));
}
