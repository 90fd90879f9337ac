//! Pages, payloads and recovery.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{JobState, NewJob, Outcome};
use carbontube_protocol::{JobType, ManagerId, PipelineName, Timestamp};
use carbontube_storage::{Log, PageSeq};

use super::bed::{Bed, Disk, id, new_job, pipeline};
use crate::core::pages::{Content, Tail, unpack};
use crate::core::record::{self, Record};
use crate::core::{CoreOptions, RecoverError, Recovery};
use crate::{PhaseDefinition, PipelineDefinition};

fn large(name: &str, bytes: usize) -> NewJob {
    NewJob {
        instructions: Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(bytes))),
        ..new_job(id(name))
    }
}

#[test]
fn record_larger_than_a_page_is_split_and_read_back() {
    let mut bed = Bed::new(&["one"]);
    let job = large("a", 300_000);
    let sent = job.instructions.clone();
    bed.enqueue_jobs(vec![job, new_job(id("b"))]);
    assert!(bed.disk.0.len() > 4);
    bed.restart();
    let worker = bed.add_worker(1, "one", 2);
    bed.pass(Duration::from_secs(4));
    bed.beat(worker);
    assert_eq!(bed.runs(worker), ["a", "b"]);
    assert_eq!(bed.workers[&worker].running[0].1.instructions, sent);
}

#[test]
fn payloads_beyond_the_cache_are_read_when_dispatched_in_order() {
    let options = CoreOptions {
        payload_cache_bytes_max: 5_000,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one", "two"]), options);
    bed.enqueue_jobs(
        (0..100)
            .map(|n| large(&format!("j{n:03}"), 1_000))
            .collect(),
    );
    let worker = bed.add_worker(1, "one", 3);
    bed.add_worker(2, "two", 3);
    bed.run(Duration::from_secs(60));
    let ran = &bed.workers[&worker].ran;
    let ran: Vec<String> = ran.iter().map(|(_, job, _)| job.to_string()).collect();
    assert_eq!(ran.len(), 100);
    let mut sorted = ran.clone();
    sorted.sort();
    assert_eq!(ran, sorted);
    assert_eq!(bed.stats().success, 100);
}

#[test]
fn journal_stays_small_while_one_old_job_lives() {
    let mut bed = Bed::new(&["one", "two"]);
    let worker = bed.add_worker(1, "one", 1000);
    bed.duration = |job| match job.to_string().as_str() {
        "old" => Duration::from_secs(100_000),
        _ => Duration::from_millis(1),
    };
    bed.add_worker(2, "two", 1000);
    bed.enqueue(&["old"]);
    for round in 0..40 {
        bed.enqueue_jobs(
            (0..40)
                .map(|n| large(&format!("{round}-{n}"), 20_000))
                .collect(),
        );
        bed.run(Duration::from_millis(50));
    }
    let journal: usize = bed
        .disk
        .0
        .iter()
        .filter(|((log, _), _)| *log == Log::Journal.tag())
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert!(journal < 8 << 20, "{journal} bytes for one job");
    bed.restart();
    let stats = bed.stats();
    assert_eq!((stats.live, stats.enqueued, stats.success), (1, 1601, 1600));
    bed.beat(worker);
    assert_eq!(bed.state("old"), Some(JobState::Running));
}

#[test]
fn compaction_writes_each_live_job_once_in_a_commit() {
    let options = CoreOptions {
        page_bytes: 1024,
        journal_garbage_bytes_min: 1,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let worker = bed.add_worker(1, "one", 100);
    let live = (0..10).map(|n| large(&format!("live{n}"), 700)).collect();
    let mut ended: Vec<NewJob> = (0..100).map(|n| large(&format!("j{n}"), 700)).collect();
    bed.duration = |job| match job.to_string().starts_with("live") {
        true => Duration::from_secs(100_000),
        false => Duration::from_millis(1),
    };
    bed.enqueue_jobs(live);
    for jobs in ended.chunks_mut(20) {
        bed.enqueue_jobs(jobs.to_vec());
        bed.run(Duration::from_millis(100));
    }
    assert_eq!(bed.runs(worker).len(), 10);
    let pages = bed.disk.0.keys();
    let journal = pages.filter(|(log, _)| *log == Log::Journal.tag()).count();
    assert!(journal < 60, "{journal} pages for 10 jobs");
}

#[test]
fn history_is_bounded_by_count() {
    let options = CoreOptions {
        history_jobs_max: 10,
        page_bytes: 1024,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    bed.add_worker(1, "one", 1);
    bed.enqueue_jobs((0..200).map(|n| new_job(id(&format!("j{n:03}")))).collect());
    bed.run(Duration::from_secs(60));
    assert_eq!(bed.state("j000"), None);
    assert_eq!(bed.state("j199"), Some(JobState::Success));
    let pages = bed
        .disk
        .0
        .keys()
        .filter(|(log, _)| *log == Log::History.tag())
        .count();
    assert!(pages < 12, "{pages} pages for 10 jobs");
    bed.restart();
    assert_eq!(bed.state("j199"), Some(JobState::Success));
}

fn recover(disk: &Disk, definition: PipelineDefinition) -> Result<(), RecoverError> {
    let mut recovery = Recovery::new(definition, CoreOptions::default());
    for ((log, seq), bytes) in &disk.0 {
        if *log == Log::Journal.tag() {
            recovery.journal_page(PageSeq(*seq), bytes)?;
        }
    }
    let fresh = ManagerId::from_bytes([1; 16]);
    recovery.finish(Timestamp(1), fresh, 1).map(|_| ())
}

#[test]
fn journal_of_another_pipeline_is_refused() {
    let bed = Bed::new(&["one"]);
    let name = PipelineName::new("other").expect("a name");
    let phase = PhaseDefinition::new(JobType::new("one").expect("a name"));
    let other = PipelineDefinition::new(name, vec![phase]).expect("phases");
    let error = recover(&bed.disk, other).expect_err("it is another's");
    assert_eq!(
        error.to_string(),
        "the journal belongs to pipeline test, this manager is for pipeline other"
    );
}

#[test]
fn phases_may_be_added_and_moved_but_not_taken_from_jobs() {
    let mut bed = Bed::new(&["one", "two"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.finish(worker, "a", Outcome::Success, "");
    let gone = recover(&bed.disk, pipeline(&["one"])).expect_err("two is gone");
    assert_eq!(
        gone.to_string(),
        "the journal has jobs at phase two, which pipeline test no longer has"
    );
    bed.definition = pipeline(&["zero", "one", "two"]);
    bed.restart();
    let job = bed.core.jobs.iter_from(0).next().map(|(_, job)| job.phase);
    assert_eq!(job, Some(2));
}

#[test]
fn epoch_grows_with_each_start_and_the_id_stays() {
    let mut bed = Bed::new(&["one"]);
    let manager = bed.core.manager_id();
    assert_eq!(bed.core.epoch(), 1);
    bed.restart();
    assert_eq!((bed.core.epoch(), bed.core.manager_id()), (2, manager));
}

#[test]
fn journal_that_counts_beyond_all_managers_is_refused_by_name() {
    let bed = Bed::new(&["one"]);
    let first = (Log::Journal.tag(), PageSeq::FIRST.0);
    let Content::Records(records) = unpack(&bed.disk.0[&first]).expect("a page of ours") else {
        panic!("the first page holds whole records");
    };
    let (record, _) = record::decode::<Record>(&records[0]).expect("a record of ours");
    let Record::State(mut state) = record else {
        panic!("the first record is the journal's own, not {record:?}");
    };
    state.epoch = u64::MAX;
    let forged = record::encode(&Record::State(state), b"");
    let mut tail = Tail::new(PageSeq::FIRST, 1 << 12);
    tail.append(&forged);
    tail.cut();
    let (_, page) = tail.take(tail.next()).remove(0);
    let mut disk = Disk::default();
    disk.0.insert(first, page);
    let error = recover(&disk, pipeline(&["one"])).expect_err("no manager started so often");
    assert_eq!(
        error.to_string(),
        "journal page 1 is not readable: it says an epoch that none reaches: 18446744073709551615"
    );
}
