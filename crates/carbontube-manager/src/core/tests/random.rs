//! Random lives: workers die, managers are killed, results fail, and still every
//! confirmed job ends.

use std::collections::BTreeSet;
use std::time::Duration;

use carbontube_protocol::message::{EnqueueOutcome, JobState, Outcome};
use proptest::prelude::*;

use super::bed::{Bed, failure, id, new_job, worker_id};

#[derive(Clone, Debug)]
enum Step {
    Enqueue(u8),
    Finish(u8, bool, bool),
    Beat(u8),
    Pass(u16),
    Restart,
    StoreStops,
    StoreWorks,
    WorkerDies(u8),
    PipeEats(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..20u8).prop_map(Step::Enqueue),
        10 => (0..4u8, prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(w, ok, changed)| Step::Finish(w, ok, changed)),
        4 => (0..4u8).prop_map(Step::Beat),
        3 => (1..3000u16).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => Just(Step::StoreStops),
        2 => Just(Step::StoreWorks),
        1 => (0..4u8).prop_map(Step::WorkerDies),
        1 => any::<bool>().prop_map(Step::PipeEats),
    ]
}

fn start_worker(bed: &mut Bed, n: u8) {
    let job_type = if n.is_multiple_of(2) { "one" } else { "two" };
    bed.add_worker(n, job_type, 1 + usize::from(n % 3));
}

fn check(bed: &Bed) {
    for worker in bed.core.workers.table.values() {
        // What was adopted may exceed a credit that has shrunk, never what was sent.
        let sent = worker
            .attempts
            .values()
            .filter(|held| held.sequence > 0)
            .count();
        let most = worker.slots + bed.options.prefetch_max;
        assert!(
            sent <= most as usize,
            "{sent} attempts at {} slots",
            worker.slots
        );
    }
    for (_, job) in bed.core.jobs.iter_from(0) {
        assert_eq!(job.attempt.is_some(), job.state == JobState::Running);
    }
}

/// Takes the steps; gives the pages at the end and the jobs that were confirmed.
fn live(steps: &[Step]) -> (Bed, BTreeSet<String>) {
    let mut bed = Bed::new(&["one", "two"]);
    let mut confirmed = BTreeSet::new();
    let (mut next_job, mut next_worker) = (0, 4);
    let mut slots: Vec<u8> = (0..4).collect();
    for n in 0..4 {
        start_worker(&mut bed, n);
    }
    for step in steps {
        match step {
            Step::Enqueue(count) => {
                let first = next_job;
                let jobs = (0..*count).map(|n| new_job(id(&format!("j{}", first + u32::from(n)))));
                next_job += u32::from(*count);
                for outcome in bed.enqueue_jobs(jobs.collect()) {
                    if let EnqueueOutcome::Accepted { id } = outcome {
                        confirmed.insert(id.to_string());
                    }
                }
            }
            Step::Finish(n, ok, changed) => {
                let worker = worker_id(slots[usize::from(*n)]);
                if let Some(job) = bed.runs(worker).first().cloned() {
                    let outcome = if *ok { Outcome::Success } else { failure(true) };
                    let output = if *ok && *changed { "{\"z\":1}" } else { "" };
                    bed.finish(worker, &job, outcome, output);
                }
            }
            Step::Beat(n) => bed.beat(worker_id(slots[usize::from(*n)])),
            Step::Pass(ms) => bed.pass(Duration::from_millis(u64::from(*ms))),
            Step::Restart => bed.restart(),
            Step::StoreStops => bed.store_works = false,
            Step::StoreWorks => {
                bed.store_works = true;
                bed.settle();
            }
            Step::WorkerDies(n) => {
                let old = worker_id(slots[usize::from(*n)]);
                bed.workers.get_mut(&old).expect("it was started").alive = false;
                next_worker += 4;
                let new = n + next_worker;
                if new < 200 {
                    slots[usize::from(*n)] = new;
                    start_worker(&mut bed, new);
                }
            }
            Step::PipeEats(eats) => bed.deliver = !eats,
        }
        check(&bed);
    }
    (bed, confirmed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_confirmed_job_is_lost_and_all_end_after_the_faults(steps in prop::collection::vec(step(), 1..120)) {
        let (mut bed, confirmed) = live(&steps);
        bed.store_works = true;
        bed.deliver = true;
        bed.restart();
        for job in &confirmed {
            prop_assert!(bed.state(job).is_some(), "{} was confirmed and is gone", job);
        }
        start_worker(&mut bed, 250);
        start_worker(&mut bed, 251);
        for _ in 0..60 {
            for worker in bed.workers.keys().copied().collect::<Vec<_>>() {
                for result in bed.workers[&worker].done.values().cloned().collect::<Vec<_>>() {
                    if bed.workers[&worker].alive {
                        bed.result(worker, result);
                    }
                }
            }
            bed.run(Duration::from_secs(5));
            check(&bed);
        }
        for job in &confirmed {
            let state = bed.state(job);
            prop_assert!(state.is_some_and(JobState::is_terminal), "{} is {:?}", job, state);
        }
    }

    #[test]
    fn same_inputs_give_the_same_pages(steps in prop::collection::vec(step(), 1..80)) {
        let (first, _) = live(&steps);
        let (second, _) = live(&steps);
        prop_assert_eq!(first.disk.0, second.disk.0);
        prop_assert_eq!(first.waiting, second.waiting);
    }
}
