//! What happens at each maximum, and when a page cannot be read.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    Code, EnqueueOutcome, FailureKind, JobState, Message, Outcome, Query, Wait,
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
