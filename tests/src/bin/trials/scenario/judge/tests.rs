//! The judge on made-up evidence: what it must convict and what it must excuse.

use super::*;

const S: u64 = 1_000_000;

/// A run in a process that began and ended at these times, in microseconds.
fn run(process: u32, began_us: u64, ended_us: Option<u64>) -> Run {
    Run {
        process,
        began_us,
        ended_us,
    }
}

fn fault(whom: Whom, deed: Deed, from_us: u64, until_us: u64) -> Fault {
    Fault::between(whom, deed, from_us, until_us)
}

/// What the judge says of one confirmed job with these runs of its phases.
fn said(first: &[Run], second: &[Run], faults: &[Fault]) -> String {
    let mut evidence = Evidence {
        confirmed: BTreeMap::from([("job".to_owned(), 0)]),
        faults: faults.to_vec(),
        worker_timeout: Duration::from_secs(2),
        history_jobs: 100_000,
        ..Evidence::default()
    };
    for (phase, runs) in PHASES.into_iter().zip([first, second]) {
        if !runs.is_empty() {
            let key = (phase.to_owned(), "job".to_owned());
            evidence.runs.insert(key, runs.to_vec());
        }
    }
    match evidence.compare() {
        Ok(figures) => figures.to_string(),
        Err(error) => format!("{error:#}"),
    }
}

/// The same for a first phase that ran twice, in processes 7 and 8.
fn said_of_repeat(first: Run, repeat: Run, faults: &[Fault]) -> String {
    let end = repeat.ended_us.max(first.ended_us).unwrap_or(0) + S;
    said(&[first, repeat], &[run(9, end, Some(end + 1))], faults)
}

#[track_caller]
fn unexplained(said: String) {
    assert!(said.starts_with("1 unexplained repeats"), "{said}");
}

#[track_caller]
fn explained(said: String, cause: &str) {
    assert!(
        said.contains(&format!("duplicates 1 (1 {cause})")),
        "{said}"
    );
}

#[test]
fn job_that_ran_once_through_both_phases_is_good() {
    assert_eq!(
        said(&[run(7, 1, Some(2))], &[run(7, 3, Some(4))], &[]),
        "confirmed 1, finished 1, lost 0, duplicates 0"
    );
}

#[test]
fn confirmed_job_that_did_not_end_is_lost() {
    let lost = "1 of 1 confirmed jobs never ran to their end, job among them";
    assert_eq!(said(&[], &[], &[]), lost);
    assert_eq!(said(&[run(7, 1, Some(2))], &[], &[]), lost);
    assert_eq!(said(&[run(7, 1, Some(2))], &[run(7, 3, None)], &[]), lost);
}

#[test]
fn phase_that_begins_too_early_is_found() {
    let early = "the second phase of job began before the first had ended";
    let second = [run(7, 3, Some(6))];
    assert_eq!(said(&[run(7, 1, Some(5))], &second, &[]), early);
    assert_eq!(said(&[run(7, 1, None)], &second, &[]), early);
    assert_eq!(said(&[], &second, &[]), early);
}

#[test]
fn cut_off_run_needs_the_kill_of_its_own_worker_while_it_ran() {
    let (first, repeat) = (run(7, S, None), run(8, 4 * S, Some(5 * S)));
    let kill = |process, at| [fault(Whom::Worker(process), Deed::Killed, at, at)];
    let of = |faults: &[Fault]| said_of_repeat(first.clone(), repeat.clone(), faults);
    unexplained(of(&[]));
    explained(of(&kill(7, 2 * S)), "cut off by a killed worker");
    unexplained(of(&kill(8, 2 * S)));
    unexplained(of(&kill(7, S / 2)));
    unexplained(of(&kill(7, 5 * S)));
    let manager = [fault(Whom::Manager, Deed::Killed, 2 * S, 3 * S)];
    unexplained(of(&manager));
}

#[test]
fn killed_worker_does_not_explain_a_result_that_had_time_to_be_journaled() {
    let repeat = run(8, 30 * S, Some(31 * S));
    let kill = fault(Whom::Worker(7), Deed::Killed, 28 * S, 28 * S);
    let unreported = "ended, but not yet reported by a killed worker";
    let first = run(7, S, Some(28 * S - S / 100));
    explained(said_of_repeat(first, repeat.clone(), &[kill]), unreported);
    let early = run(7, S, Some(10 * S));
    unexplained(said_of_repeat(early.clone(), repeat.clone(), &[kill]));
    // With the manager away all the time, it had no chance.
    let away = fault(Whom::Manager, Deed::Killed, 10 * S, 27 * S);
    explained(said_of_repeat(early, repeat, &[kill, away]), unreported);
}

#[test]
fn one_kill_explains_one_repeat_of_a_run() {
    let kill = fault(Whom::Worker(7), Deed::Killed, 2 * S, 2 * S);
    let runs = [
        run(7, S, None),
        run(8, 4 * S, Some(5 * S)),
        run(9, 6 * S, Some(7 * S)),
    ];
    unexplained(said(&runs, &[run(9, 8 * S, Some(9 * S))], &[kill]));
}

#[test]
fn suspended_worker_explains_a_repeat_only_after_the_worker_timeout() {
    let first = run(7, S, Some(9 * S));
    let pause = |until| [fault(Whom::Worker(7), Deed::Suspended, 2 * S, until)];
    let cause = "its worker was suspended for longer than the worker timeout";
    let late = run(8, 5 * S, Some(6 * S));
    explained(said_of_repeat(first.clone(), late, &pause(8 * S)), cause);
    let too_soon = run(8, 3 * S, Some(6 * S));
    unexplained(said_of_repeat(first.clone(), too_soon, &pause(8 * S)));
    let after_its_result = run(8, 12 * S, Some(13 * S));
    unexplained(said_of_repeat(first, after_its_result, &pause(8 * S)));
}

#[test]
fn suspended_worker_that_wakes_may_begin_what_another_had_got() {
    let elsewhere = run(8, 5 * S, Some(6 * S));
    let late = run(7, 9 * S, Some(10 * S));
    let pause = fault(Whom::Worker(7), Deed::Suspended, 2 * S, 9 * S - 1);
    explained(
        said_of_repeat(elsewhere.clone(), late, &[pause]),
        "begun by a worker that had been suspended and lost",
    );
    let much_later = run(7, 20 * S, Some(21 * S));
    unexplained(said_of_repeat(elsewhere, much_later, &[pause]));
}

#[test]
fn suspended_worker_that_begins_first_explains_who_had_got_the_job_meanwhile() {
    let late = run(7, 5 * S + 1, Some(5 * S + 2));
    let elsewhere = run(8, 5 * S + 3, Some(6 * S));
    let pause = fault(Whom::Worker(7), Deed::Suspended, 2 * S, 5 * S);
    explained(
        said_of_repeat(late, elsewhere, &[pause]),
        "its worker was suspended for longer than the worker timeout",
    );
}

#[test]
fn cut_pipe_explains_only_what_began_after_it_was_given_up() {
    let cut = fault(Whom::Worker(7), Deed::PipeCut, 2 * S, 5 * S);
    let cause = "delivered late over a way that had been cut";
    let elsewhere = run(8, 5 * S, Some(6 * S));
    let late = run(7, 5 * S + 9, Some(6 * S));
    explained(
        said_of_repeat(elsewhere.clone(), late.clone(), &[cut]),
        cause,
    );
    let soon_after = run(8, 5 * S + 12, Some(6 * S));
    explained(said_of_repeat(late, soon_after, &[cut]), cause);
    let before_the_cut = run(7, S, Some(6 * S));
    unexplained(said_of_repeat(before_the_cut, elsewhere, &[cut]));
}

#[test]
fn cut_way_of_results_explains_nothing() {
    let (first, repeat) = (run(7, S, Some(2 * S)), run(8, 6 * S, Some(7 * S)));
    let cut = fault(Whom::Worker(7), Deed::ResultsCut, S, 9 * S);
    unexplained(said_of_repeat(first, repeat, &[cut]));
}

#[test]
fn killed_workers_jobs_must_run_elsewhere_in_time() {
    let kill = fault(Whom::Worker(7), Deed::Killed, 2 * S, 2 * S);
    let of = |began| said_of_repeat(run(7, S, None), run(8, began, Some(began + 1)), &[kill]);
    assert!(
        of(4 * S).contains("ran elsewhere within 2.00 s"),
        "{}",
        of(4 * S)
    );
    assert_eq!(
        of(6 * S),
        "a killed worker's job job ran elsewhere after 4s, 3s is the most"
    );
}

#[test]
fn poison_needs_a_fault_for_each_lost_worker() {
    use carbontube_client::protocol::{Timestamp, WorkerId};

    let workers: Vec<WorkerId> = (1..=3).map(|_| WorkerId::generate()).collect();
    let lost = |worker: &WorkerId, at: u64| AttemptView {
        phase: 0,
        worker: Some(*worker),
        started_at: Timestamp(at),
        finished_at: Timestamp(at + 3 * S),
        failure: Some(FailureKind::WorkerLost),
        error: String::new(),
    };
    let kills = [(7, S), (8, 11 * S), (9, 21 * S)];
    let said_beside = |kills: &[(u32, u64)], more: &[Fault]| {
        let mut journal = JournalSays {
            enqueued: 1,
            ..JournalSays::default()
        };
        let poison = Standing::Failed(Some(FailureKind::Poison), String::new());
        journal.live.insert("job".to_owned(), poison);
        let attempts = workers.iter().zip([0, 10 * S, 20 * S]);
        let attempts = attempts.map(|(worker, at)| lost(worker, at)).collect();
        journal.attempts.insert("job".to_owned(), attempts);
        let evidence = Evidence {
            confirmed: BTreeMap::from([("job".to_owned(), 0)]),
            faults: kills
                .iter()
                .map(|(process, at)| fault(Whom::Worker(*process), Deed::Killed, *at, *at))
                .chain(more.iter().copied())
                .collect(),
            workers: (workers.iter().map(WorkerId::to_string)).zip(7..).collect(),
            worker_timeout: Duration::from_secs(2),
            history_jobs: 100_000,
            journal: Some(journal),
            ..Evidence::default()
        };
        evidence.compare().map(|figures| figures.failed)
    };
    let said = |kills: &[(u32, u64)]| said_beside(kills, &[]);
    assert_eq!(said(&kills).expect("it is poison"), 1);
    for missing in 0..3 {
        let mut some = kills.to_vec();
        some.remove(missing);
        said(&some).expect_err("one loss has no fault");
        // Neither has one long after it.
        some.push((kills[missing].0, kills[missing].1 + 9 * S));
        said(&some).expect_err("one loss has no fault then");
    }
    // A manager that slept when the second was killed gives it work when it wakes.
    let early = [(7, S), (8, 6 * S), (9, 21 * S)];
    said(&early).expect_err("it had been lost long before");
    let sleep = |from, until| fault(Whom::Manager, Deed::Suspended, from, until);
    let beside = |sleep| said_beside(&early, &[sleep]);
    assert_eq!(beside(sleep(6 * S, 9 * S)).expect("it is poison"), 1);
    beside(sleep(3 * S, 5 * S)).expect_err("it slept before that only");
}
