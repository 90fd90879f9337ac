//! Workers that are not what they say, and new ones at an old one's address.

use std::time::Duration;

use carbontube_protocol::message::{
    HandBack, HandBackReason, HandedBack, Held, HeldState, JobState, Outcome, PipeHead,
};
use carbontube_protocol::{Address, WorkerId};

use super::bed::{Bed, address_of, id, new_job, pipeline, worker_id};
use crate::core::{CoreOptions, Input, PipeId};

/// Announces a worker whose address is listened at, but not by it.
fn invent(bed: &mut Bed, n: u8, slots: u32) -> WorkerId {
    let mut beat = match bed.workers.keys().next().copied() {
        Some(known) => bed.heartbeat(known).expect("it lives"),
        None => panic!("a real worker is there"),
    };
    beat.worker = worker_id(n);
    beat.address = address_of(worker_id(n));
    beat.slots = slots;
    beat.managers[0].held.clear();
    // It claims to have received, too.
    beat.managers[0].epoch = bed.core.epoch();
    beat.managers[0].sequence = 1;
    bed.input(Input::Heartbeat(beat));
    let pipe = *bed.opened.last().expect("a pipe is opened");
    bed.input(Input::PipeUp { pipe });
    worker_id(n)
}

fn held(bed: &Bed, worker: WorkerId) -> usize {
    let worker = bed.core.workers.table.get(&worker);
    worker.map_or(0, |worker| worker.attempts.len())
}

fn enqueue(bed: &mut Bed, count: usize) {
    let jobs = (0..count).map(|n| new_job(id(&format!("j{n:04}"))));
    bed.enqueue_jobs(jobs.collect());
}

#[test]
fn invented_workers_hold_a_handful_of_jobs_at_most() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 2);
    let invented: Vec<WorkerId> = (10..60).map(|n| invent(&mut bed, n, 65_000)).collect();
    enqueue(&mut bed, 1000);
    assert_eq!(held(&bed, real), 2, "it is not starved");
    let delayed: usize = invented.iter().map(|worker| held(&bed, *worker)).sum();
    assert_eq!(delayed, 8);
    // Once they are found out, they get nothing for a while.
    bed.duration = |_| Duration::from_secs(1000);
    for _ in 0..6 {
        bed.pass(Duration::from_secs(1));
        bed.beat(real);
        for (n, worker) in (10..60).zip(&invented) {
            invent_again(&mut bed, n, *worker);
        }
    }
    let counted = bed.stats().counters;
    let distrusted = counted
        .iter()
        .find(|(name, _)| name == "workers_distrusted");
    assert!(distrusted.is_some_and(|(_, n)| *n >= 8), "{counted:?}");
}

fn invent_again(bed: &mut Bed, n: u8, worker: WorkerId) {
    let mut beat = bed.heartbeat(worker_id(1)).expect("it lives");
    beat.worker = worker;
    beat.address = address_of(worker_id(n));
    beat.managers.clear();
    bed.input(Input::Heartbeat(beat));
}

#[test]
fn invented_worker_that_falls_silent_is_forgotten_at_once() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    for n in 10..60 {
        invent(&mut bed, n, 1);
    }
    assert_eq!(bed.core.workers.table.len(), 51);
    for _ in 0..6 {
        bed.pass(Duration::from_secs(1));
        bed.beat(real);
    }
    let left: Vec<&WorkerId> = bed.core.workers.table.keys().collect();
    assert_eq!(left, [&real]);
    assert_eq!(bed.core.workers.pipes.len(), 1, "their pipes are closed");
}

#[test]
fn real_worker_that_falls_silent_stays_in_view_for_a_while() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.beat(real);
    bed.workers.get_mut(&real).expect("there").alive = false;
    bed.pass(Duration::from_secs(6));
    assert!(bed.core.workers.table[&real].lost);
}

#[test]
fn job_that_is_lost_with_invented_workers_is_no_poison() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    bed.duration = |_| Duration::from_secs(1000);
    enqueue(&mut bed, 2);
    bed.beat(real);
    for n in 10..15 {
        let invented = invent(&mut bed, n, 1);
        bed.input(Input::Tick);
        assert_eq!(held(&bed, invented), 1, "the waiting one goes there");
        for _ in 0..6 {
            bed.pass(Duration::from_secs(1));
            bed.beat(real);
        }
        assert_eq!(bed.state("j0001"), Some(JobState::Enqueued));
    }
}

#[test]
fn job_that_takes_new_workers_down_before_they_say_anything_is_poison() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    bed.duration = |_| Duration::from_secs(1000);
    enqueue(&mut bed, 2);
    bed.beat(real);
    for n in 10..12 {
        let died = invent(&mut bed, n, 1);
        assert_eq!(held(&bed, died), 1, "the waiting one goes there");
        let pipe = bed.core.workers.table[&died].pipe;
        bed.input(Input::PipeDown { pipe });
        for _ in 0..6 {
            bed.pass(Duration::from_secs(1));
            bed.beat(real);
        }
    }
    let new = invent(&mut bed, 12, 1);
    assert_eq!(
        held(&bed, new),
        0,
        "it is not tried again where nobody knows what becomes of it"
    );
    bed.finish(real, "j0000", Outcome::Success, "");
    assert_eq!(bed.runs(real), ["j0001"]);
    bed.workers.get_mut(&real).expect("there").alive = false;
    for _ in 0..6 {
        bed.pass(Duration::from_secs(1));
    }
    assert_eq!(bed.state("j0001"), Some(JobState::Failed));
}

#[test]
fn real_worker_is_preferred_to_an_idle_invented_one() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 10);
    let invented = invent(&mut bed, 9, 10);
    enqueue(&mut bed, 10);
    assert_eq!((held(&bed, real), held(&bed, invented)), (10, 0));
}

#[test]
fn worker_that_says_it_received_and_holds_nothing_does_not_spin() {
    let mut bed = Bed::new(&["one"]);
    let liar = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    for _ in 0..20 {
        let mut beat = bed.heartbeat(liar).expect("it lives");
        beat.managers[0].held.clear();
        bed.input(Input::Heartbeat(beat));
    }
    let attempts = bed.core.next_attempt;
    assert!(attempts < 6, "{attempts} attempts of one job");
    let real = bed.add_worker(2, "one", 1);
    assert_eq!(bed.runs(real), ["a"]);
}

#[test]
fn what_went_to_an_invented_worker_at_a_real_ones_address_runs_once() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    let invented = worker_id(9);
    let mut beat = bed.heartbeat(real).expect("it lives");
    beat.worker = invented;
    beat.managers[0].held.clear();
    beat.managers[0].sequence = 1;
    bed.input(Input::Heartbeat(beat));
    bed.duration = |_| Duration::from_secs(1000);
    enqueue(&mut bed, 2);
    assert_eq!((held(&bed, real), held(&bed, invented)), (1, 1));
    assert_eq!(bed.runs(real), ["j0000"], "the other one is not for it");
    for _ in 0..6 {
        bed.pass(Duration::from_secs(1));
        bed.beat(real);
    }
    bed.finish(real, "j0000", Outcome::Success, "");
    bed.finish(real, "j0001", Outcome::Success, "");
    let stats = bed.stats();
    assert_eq!((stats.success, stats.duplicates), (2, 0));
}

#[test]
fn slots_beyond_what_a_heartbeat_can_list_are_not_used() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 60_000);
    enqueue(&mut bed, 6000);
    assert_eq!(held(&bed, worker), bed.options.limits.batch_jobs_max);
}

#[test]
fn heartbeat_that_names_anothers_attempt_takes_nothing_away() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    let liar = bed.add_worker(2, "one", 1);
    bed.enqueue(&["a"]);
    let (holder, other) = match held(&bed, real) {
        1 => (real, liar),
        _ => (liar, real),
    };
    let running = bed.workers[&holder].running[0].1.clone();
    let mut beat = bed.heartbeat(other).expect("it lives");
    beat.managers[0].held.push(Held {
        attempt: running.attempt,
        job: running.job.clone(),
        phase: 0,
        state: HeldState::Running,
    });
    bed.input(Input::Heartbeat(beat));
    assert_eq!((held(&bed, holder), held(&bed, other)), (1, 0));
    bed.input(Input::HandBack(HandBack {
        worker: other,
        reason: HandBackReason::Recalled,
        attempts: vec![HandedBack {
            attempt: running.attempt,
            job: running.job.clone(),
            phase: 0,
        }],
    }));
    assert_eq!(bed.state("a"), Some(JobState::Running));
    assert!(bed.runs(other).is_empty(), "it is not dispatched again");
    let result = carbontube_protocol::message::AttemptResult {
        attempt: running.attempt,
        job: running.job,
        phase: 0,
        started_at: carbontube_protocol::Timestamp(1),
        finished_at: carbontube_protocol::Timestamp(2),
        outcome: Outcome::Success,
        instructions: bytes::Bytes::new(),
    };
    bed.result(other, result);
    assert_eq!(bed.state("a"), Some(JobState::Running));
    bed.finish(holder, "a", Outcome::Success, "");
    assert_eq!(bed.state("a"), Some(JobState::Success));
}

#[test]
fn result_for_another_job_than_the_attempts_gives_the_job_back() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a", "b"]);
    let running = bed.workers[&worker].running[0].1.clone();
    bed.workers.get_mut(&worker).expect("there").running.clear();
    bed.result(
        worker,
        carbontube_protocol::message::AttemptResult {
            attempt: running.attempt,
            job: id("b"),
            phase: 0,
            started_at: carbontube_protocol::Timestamp(1),
            finished_at: carbontube_protocol::Timestamp(2),
            outcome: Outcome::Success,
            instructions: bytes::Bytes::new(),
        },
    );
    assert_eq!(bed.state("b"), Some(JobState::Enqueued), "it has not run");
    assert_eq!(bed.runs(worker), ["a"], "it is dispatched again");
}

#[test]
fn address_that_leads_to_the_manager_itself_is_refused() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    let invented = invent(&mut bed, 9, 4);
    enqueue(&mut bed, 3);
    assert_eq!(held(&bed, invented), 1);
    let pipe = &bed.core.workers.pipes[&bed.core.workers.table[&invented].pipe];
    let head = PipeHead {
        manager: bed.core.manager_id(),
        epoch: bed.core.epoch(),
        sequence: pipe.sequence,
    };
    bed.input(Input::Echo(head));
    assert!(!bed.core.workers.table.contains_key(&invented));
    let opened = bed.opened.len();
    invent_again(&mut bed, 9, invented);
    assert!(!bed.core.workers.table.contains_key(&invented));
    assert_eq!(bed.opened.len(), opened, "it is not dialled again");
    for job in ["j0000", "j0001", "j0002"] {
        bed.finish(real, job, Outcome::Success, "");
    }
    assert_eq!(bed.stats().success, 3);
}

#[test]
fn full_table_of_invented_workers_makes_room_for_a_real_one() {
    let options = CoreOptions {
        workers_max: 20,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let first = bed.add_worker(1, "one", 1);
    for n in 10..60 {
        invent(&mut bed, n, 1);
    }
    assert_eq!(bed.core.workers.table.len(), 20);
    assert_eq!(bed.core.workers.pipes.len(), 20, "their pipes are closed");
    let second = bed.add_worker(2, "one", 1);
    enqueue(&mut bed, 4);
    assert_eq!((held(&bed, first), held(&bed, second)), (1, 1));
}

#[test]
fn table_full_of_real_workers_takes_no_more() {
    let options = CoreOptions {
        workers_max: 3,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    for n in 1..=3 {
        bed.add_worker(n, "one", 1);
    }
    let fourth = bed.add_worker(4, "one", 1);
    enqueue(&mut bed, 10);
    assert!(bed.runs(fourth).is_empty());
    assert_eq!(bed.core.workers.table.len(), 3);
}

/// The old process at an address was killed, a new one listens there.
fn restart_worker(bed: &mut Bed, old: WorkerId, n: u8) -> (WorkerId, PipeId) {
    let sim = bed.workers.get_mut(&old).expect("it is there");
    sim.alive = false;
    let address = sim.address.clone();
    let pipe = bed.core.workers.table[&old].pipe;
    bed.input(Input::PipeDown { pipe });
    let new = bed.add_worker_at(n, "one", 1, address, false);
    (new, pipe)
}

#[test]
fn new_incarnation_at_an_address_replaces_the_old_one_at_once() {
    let mut bed = Bed::new(&["one"]);
    let old = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let (new, pipe) = restart_worker(&mut bed, old, 2);
    assert_eq!(held(&bed, old), 1, "nothing is shown yet");
    bed.input(Input::PipeUp { pipe });
    assert_eq!(bed.runs(new), ["a"], "no time has passed");
    let stats = bed.stats();
    let cause = "worker replaced at its address".to_owned();
    assert_eq!(stats.rerun_causes, [(cause, 1)]);
    bed.finish(new, "a", Outcome::Success, "");
    assert_eq!(bed.state("a"), Some(JobState::Success));
}

/// What was accepted for a connection that broke is sent first on the next one.
#[test]
fn attempt_that_a_new_incarnation_took_up_is_a_rerun() {
    let mut bed = Bed::new(&["one"]);
    let old = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.beat(old);
    let running = bed.workers[&old].running.clone();
    bed.answers = false;
    let (new, pipe) = restart_worker(&mut bed, old, 2);
    bed.workers.get_mut(&new).expect("there").running = running;
    bed.input(Input::PipeUp { pipe });
    bed.beat(new);
    assert_eq!((held(&bed, old), held(&bed, new)), (0, 1));
    let cause = "worker replaced at its address".to_owned();
    assert_eq!(bed.stats().rerun_causes, [(cause, 1)]);
    bed.finish(new, "a", Outcome::Success, "");
    assert_eq!(bed.state("a"), Some(JobState::Success));
}

#[test]
fn liar_at_a_live_workers_address_does_not_evict_it() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    let sequence = bed.workers[&real].received.1;
    for guess in [1, 2, 42, sequence / 2, u64::MAX] {
        let mut beat = bed.heartbeat(real).expect("it lives");
        beat.worker = worker_id(9);
        beat.managers[0].held.clear();
        beat.managers[0].sequence = guess;
        bed.input(Input::Heartbeat(beat));
    }
    assert_eq!(held(&bed, real), 1);
    bed.finish(real, "a", Outcome::Success, "");
    let stats = bed.stats();
    assert_eq!((stats.success, stats.reruns), (1, 0));
}

#[test]
fn two_live_workers_at_one_address_are_taken_for_shared() {
    let mut bed = Bed::new(&["one"]);
    let first = bed.add_worker(1, "one", 1);
    bed.enqueue(&["x"]);
    bed.finish(first, "x", Outcome::Success, "");
    let address = bed.workers[&first].address.clone();
    let second = bed.add_worker_at(2, "one", 1, address, false);
    bed.enqueue(&["a"]);
    for _ in 0..5 {
        bed.pass(Duration::from_secs(1));
        bed.beat(first);
        bed.beat(second);
    }
    enqueue(&mut bed, 20);
    bed.run(Duration::from_secs(60));
    assert_eq!(bed.stats().success, 22);
}

#[test]
fn pool_behind_a_shared_address_does_all_the_work_once() {
    let mut bed = Bed::new(&["one"]);
    let device: Address = "tcp://127.0.0.1:9999".parse().expect("an address");
    for n in 1..=5 {
        bed.add_worker_at(n, "one", 2, device.clone(), true);
    }
    enqueue(&mut bed, 200);
    bed.run(Duration::from_secs(120));
    let stats = bed.stats();
    assert_eq!((stats.success, stats.reruns, stats.duplicates), (200, 0, 0));
    let ran: usize = bed.workers.values().map(|worker| worker.ran.len()).sum();
    assert_eq!(ran, 200);
}

#[test]
fn worker_of_a_pool_that_dies_gives_its_attempts_back() {
    let mut bed = Bed::new(&["one"]);
    let device: Address = "tcp://127.0.0.1:9999".parse().expect("an address");
    bed.duration = |_| Duration::from_secs(20);
    for n in 1..=3 {
        bed.add_worker_at(n, "one", 1, device.clone(), true);
    }
    for n in 1..=3 {
        bed.beat(worker_id(n));
    }
    bed.enqueue(&["a", "b", "c"]);
    for n in 1..=3 {
        bed.beat(worker_id(n));
    }
    bed.workers.get_mut(&worker_id(2)).expect("there").alive = false;
    bed.run(Duration::from_secs(200));
    assert_eq!(bed.stats().success, 3);
}
