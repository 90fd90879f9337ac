//! Workers that follow another life of this manager: restored journals, copies, forgeries.

use std::time::Duration;

use carbontube_protocol::message::{HeldFor, JobState, WorkerStatus};
use carbontube_protocol::{EPOCH_STEP_MAX, Timestamp, WorkerId};
use carbontube_storage::{Log, PageSeq};

use super::bed::{Bed, id};
use crate::core::epochs::EPOCH_FAR;
use crate::core::pages::Tail;
use crate::core::record::{self, Record};
use crate::core::{Input, import_page};

const SECOND: Duration = Duration::from_secs(1);

fn count(bed: &mut Bed, name: &str) -> u64 {
    let counters = bed.stats().counters;
    let found = counters.iter().find(|(found, _)| name == found.as_str());
    found.map_or(0, |(_, count)| *count)
}

/// A bed whose workers have seen `starts` more starts than the journal that it now runs on.
fn restored(starts: usize, jobs: &[&str]) -> (Bed, WorkerId) {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.duration = |_| Duration::from_millis(5);
    bed.store_works = true;
    for job in jobs {
        // They wait: nobody has room.
        bed.workers.get_mut(&worker).expect("there").draining = true;
        bed.beat(worker);
        bed.enqueue(&[job]);
    }
    let copy = bed.disk.clone();
    for _ in 0..starts {
        bed.restart();
        bed.beat(worker);
    }
    bed.workers.get_mut(&worker).expect("there").draining = false;
    bed.disk = copy;
    bed.restart();
    bed.beat(worker);
    (bed, worker)
}

/// Puts a word of another life of this manager into a worker's ears.
fn mislead(bed: &mut Bed, worker: WorkerId, epoch: u64) {
    let worker = bed.workers.get_mut(&worker).expect("it is there");
    worker.received = (epoch, 77);
    worker.rival = None;
}

#[test]
fn restored_manager_goes_above_the_epoch_that_its_workers_know() {
    let (mut bed, worker) = restored(3, &["a", "b"]);
    assert_eq!(bed.core.epoch(), 2);
    assert_eq!(bed.workers[&worker].received.0, 4);
    bed.run(Duration::from_secs(20));
    assert_eq!(bed.state("a"), Some(JobState::Success));
    assert_eq!(bed.state("b"), Some(JobState::Success));
    assert!(bed.core.epoch() > 4, "epoch {}", bed.core.epoch());
    assert_eq!(count(&mut bed, "epochs_raised"), 1);
    assert_eq!(count(&mut bed, "workers_elsewhere"), 1);
    let told = bed.warnings.join("\n");
    assert!(told.contains("follows epoch 4"), "{told}");
    assert!(told.contains("the epoch is raised from 2 to"), "{told}");
    // It is in the journal.
    let raised = bed.core.epoch();
    bed.restart();
    assert_eq!(bed.core.epoch(), raised + 1);
}

#[test]
fn worker_that_was_misled_gets_work_again_within_a_worker_timeout() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    mislead(&mut bed, worker, 2);
    bed.enqueue(&["a"]);
    let mut seconds = 0;
    while bed.state("a") != Some(JobState::Success) {
        seconds += 1;
        assert!(seconds <= 10, "it stands still");
        bed.run(SECOND);
    }
    assert!(seconds <= 7, "{seconds} s");
    assert!(
        bed.warnings[0].contains("follows epoch 2"),
        "{:?}",
        bed.warnings
    );
}

#[test]
fn worker_that_follows_another_life_is_shown_and_gets_nothing() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    mislead(&mut bed, worker, 2);
    bed.beat(worker);
    let status = |bed: &Bed| bed.core.workers.status(&bed.core.workers.table[&worker]);
    assert_eq!(status(&bed), WorkerStatus::Connecting);
    bed.enqueue(&["a"]);
    assert_eq!(bed.core.workers.table[&worker].attempts.len(), 0);
    for _ in 0..4 {
        bed.pass(SECOND);
        bed.beat(worker);
    }
    assert_eq!(status(&bed), WorkerStatus::Available);
    assert_eq!(bed.runs(worker), ["a"]);
}

#[test]
fn life_that_speaks_keeps_its_workers_and_is_told_of() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let results = bed.runs(worker);
    assert_eq!(results, ["a"]);
    mislead(&mut bed, worker, 2);
    for _ in 0..30 {
        bed.pass(SECOND);
        bed.workers.get_mut(&worker).expect("there").received.1 += 1;
        bed.beat(worker);
    }
    assert_eq!(bed.core.epoch(), 1, "two managers do not outbid each other");
    assert!(bed.warnings[0].contains("follows epoch 2"));
    // It falls silent.
    for _ in 0..6 {
        bed.pass(SECOND);
        bed.beat(worker);
    }
    assert!(bed.core.epoch() > 2);
}

#[test]
fn epoch_is_durable_before_anybody_is_greeted_with_it() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    mislead(&mut bed, worker, 2);
    for _ in 0..3 {
        bed.pass(SECOND);
        bed.beat(worker);
    }
    bed.store_works = false;
    for _ in 0..3 {
        bed.pass(SECOND);
        bed.beat(worker);
    }
    assert!(bed.core.epoch() > 2);
    assert_eq!(
        bed.workers[&worker].received.0, 2,
        "not before it is durable"
    );
    bed.store_works = true;
    bed.settle();
    assert_eq!(bed.workers[&worker].received.0, bed.core.epoch());
}

#[test]
fn heartbeat_that_proves_nothing_moves_no_epoch() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    for second in 0..60 {
        bed.pass(SECOND);
        bed.beat(worker);
        let mut forged = bed.heartbeat(worker).expect("it lives");
        forged.managers[0].epoch = 7;
        forged.managers[0].sequence = 1;
        // Guessed, or seen on a former pipe.
        let guessed = HeldFor {
            epoch: bed.core.epoch(),
            sequence: second,
            held: Vec::new(),
            ..forged.managers[0].clone()
        };
        forged.managers.push(guessed);
        bed.input(Input::Heartbeat(forged));
    }
    assert_eq!(bed.core.epoch(), 1);
    assert_eq!(bed.warnings, [] as [&str; 0]);
}

#[test]
fn proven_worker_moves_the_epoch_by_bounded_steps_a_bounded_number_of_times() {
    let mut bed = Bed::new(&["one"]);
    let honest = bed.add_worker(1, "one", 1);
    let liar = bed.add_worker(2, "one", 1);
    for claimed in [1 << 62, u64::MAX, EPOCH_STEP_MAX + 2, EPOCH_FAR + 1] {
        mislead(&mut bed, liar, claimed);
        for _ in 0..20 {
            bed.pass(SECOND);
            bed.beat(liar);
            bed.beat(honest);
        }
        assert_eq!(bed.core.epoch(), 1, "{claimed}");
        let greeted = bed.workers[&liar].rival.expect("it is greeted again").1;
        bed.pass(SECOND * 2);
        bed.beat(liar);
        bed.beat(honest);
        let again = bed.workers[&liar].rival.expect("and again").1;
        assert!(again > greeted, "until it comes back by itself");
    }
    for _ in 0..2000 {
        let next = bed.core.epoch() + EPOCH_STEP_MAX;
        if bed.workers[&liar].received.0 != next {
            mislead(&mut bed, liar, next);
        }
        bed.pass(SECOND * 4);
        bed.beat(liar);
        bed.beat(honest);
    }
    let raised = count(&mut bed, "epochs_raised");
    assert!((10..=64).contains(&raised), "{raised}");
    assert!(bed.core.epoch() <= 65 * (EPOCH_STEP_MAX + 2000));
    // The honest one has gone along, and works.
    assert_eq!(bed.workers[&honest].received.0, bed.core.epoch());
    bed.workers.get_mut(&liar).expect("there").alive = false;
    bed.enqueue(&["a"]);
    bed.run(Duration::from_secs(20));
    assert_eq!(bed.state("a"), Some(JobState::Success));
}

#[test]
fn two_lives_of_one_epoch_are_told_apart_by_their_numbers() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    let pipe = bed.core.workers.table[&worker].pipe;
    let number = bed.core.workers.pipes[&pipe].sequence;
    // A manager on a copy has greeted with the same epoch, and ended.
    let sim = bed.workers.get_mut(&worker).expect("there");
    sim.received = (1, number + (9 << 32));
    sim.rival = Some((1, number));
    bed.enqueue(&["a"]);
    for _ in 0..12 {
        bed.pass(SECOND);
        bed.beat(worker);
    }
    assert!(bed.core.epoch() > 1);
    assert_eq!(bed.workers[&worker].received.0, bed.core.epoch());
}

#[test]
fn worker_that_another_life_greets_hears_that_this_one_is_there() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    let before = bed.workers[&worker].received.1;
    bed.workers.get_mut(&worker).expect("there").rival = Some((1 << 40, 5));
    for _ in 0..100 {
        bed.beat(worker);
    }
    let answered = bed.workers[&worker].received.1 - before;
    assert_eq!(
        answered, 1,
        "as often as is needed, not with each heartbeat"
    );
    assert_eq!(bed.core.epoch(), 1);
    assert_eq!(count(&mut bed, "epochs_disputed"), 1);
    assert!(bed.warnings[0].contains("greeted with epoch 1099511627776"));
    bed.pass(SECOND);
    bed.beat(worker);
    assert_eq!(bed.workers[&worker].received.1 - before, 2);
}

#[test]
fn worker_of_a_version_that_names_no_rival_is_told_of() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    mislead(&mut bed, worker, 9);
    bed.answers = false;
    for _ in 0..10 {
        bed.pass(SECOND);
        let mut beat = bed.heartbeat(worker).expect("it lives");
        beat.managers.truncate(1);
        bed.input(Input::Heartbeat(beat));
    }
    assert_eq!(bed.core.epoch(), 1);
    let told = bed.warnings.join("\n");
    assert!(told.contains("restart the worker"), "{told}");
}

#[test]
fn attempts_of_before_the_raise_stay_those_of_this_start() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    let other = bed.add_worker(2, "one", 1);
    bed.duration = |_| Duration::from_secs(1000);
    bed.enqueue(&["a", "b"]);
    let (first, second) = (bed.runs(worker), bed.runs(other));
    mislead(&mut bed, other, 3);
    for _ in 0..10 {
        bed.pass(SECOND);
        bed.beat(worker);
        bed.beat(other);
    }
    assert!(bed.core.epoch() > 3);
    assert_eq!((bed.runs(worker), bed.runs(other)), (first.clone(), second));
    bed.finish(
        worker,
        &first[0],
        carbontube_protocol::message::Outcome::Success,
        "",
    );
    assert_eq!(bed.state(&first[0]), Some(JobState::Success));
    let stats = bed.stats();
    assert_eq!((stats.reruns, stats.duplicates), (0, 0));
    assert_eq!(count(&mut bed, "attempts_adopted"), 0);
}

#[test]
fn imported_journal_begins_above_all_that_workers_can_know() {
    let mut bed = Bed::new(&["one"]);
    bed.enqueue(&["a"]);
    let page = |disk: &super::bed::Disk| {
        let journal = disk.0.keys().filter(|(log, _)| *log == Log::Journal.tag());
        journal.map(|(_, page)| page + 1).max().expect("a page")
    };
    let imported = |bed: &mut Bed, at: u64| {
        let next = page(&bed.disk);
        let bytes = import_page(Timestamp(at * 1_000_000)).into();
        bed.disk.0.insert((Log::Journal.tag(), next), bytes);
        bed.restart();
        bed.core.epoch()
    };
    let export = bed.disk.clone();
    let first = imported(&mut bed, 1_800_000_000);
    assert_eq!(first, 1 + 1_800_000_000 + 1);
    bed.restart();
    assert_eq!(bed.core.epoch(), first + 1, "the step is taken once");
    // The same export once more, some seconds and fewer starts later.
    bed.disk = export.clone();
    assert!(imported(&mut bed, 1_800_000_060) > first + 50);
    // A clock that was never set.
    bed.disk = export;
    assert!(imported(&mut bed, 0) > 1 << 20);
    // However often and whatever the clock: the journal stays readable.
    for _ in 0..3 {
        let mut tail = Tail::new(PageSeq(page(&bed.disk)), 4096);
        let epochs = EPOCH_FAR;
        tail.append(&record::encode(&Record::Step { epochs }, &[]));
        tail.cut();
        for (page, bytes) in tail.take(tail.next()) {
            bed.disk.0.insert((Log::Journal.tag(), page.0), bytes);
        }
    }
    bed.restart();
    assert_eq!(bed.core.epoch(), EPOCH_FAR + 1);
    bed.restart();
    assert_eq!(bed.core.epoch(), EPOCH_FAR + 2);
    assert_eq!(bed.state("a"), Some(JobState::Enqueued));
    // There it is not raised any more, and workers are greeted until they come back.
    let worker = bed.add_worker(1, "one", 1);
    mislead(&mut bed, worker, EPOCH_FAR + 100);
    for _ in 0..10 {
        bed.pass(SECOND);
        bed.beat(worker);
    }
    assert_eq!(bed.core.epoch(), EPOCH_FAR + 2);
    assert!(bed.workers[&worker].rival.is_some());
}

#[test]
fn result_of_another_life_is_none_of_a_job_that_this_one_took() {
    let (mut bed, worker) = restored(3, &["a"]);
    bed.workers.get_mut(&worker).expect("there").alive = false;
    bed.enqueue(&["new"]);
    let old = bed.core.jobs.no(&id("a")).expect("it is live");
    let new = bed.core.jobs.no(&id("new")).expect("it is live");
    let theirs = carbontube_protocol::AttemptId {
        epoch: 1000,
        counter: 1,
    };
    assert!(bed.core.may_be_of(theirs, old), "it may have run there");
    assert!(!bed.core.may_be_of(theirs, new));
    let own = bed.core.next_attempt();
    assert!(bed.core.may_be_of(own, old) && bed.core.may_be_of(own, new));
}
