//! What views ask for: series, latencies, searches, groups of failures.

use std::time::Duration;

use carbontube_protocol::message::{
    Answer, ErrorReport, FailureGroup, FailureKind, Found, JobSearch, JobState, NewJob, Outcome,
    Query, Selector, Series, Step,
};
use carbontube_protocol::{JobId, JobType};

use super::bed::{Bed, id, new_job, pipeline};
use crate::core::CoreOptions;

fn series(bed: &mut Bed, step: Step, points: u32) -> Series {
    let query = Query::Series {
        step,
        since: None,
        points,
    };
    match bed.ask(query) {
        Answer::Series(series) => *series,
        other => panic!("series were asked, not {other:?}"),
    }
}

fn step(bed: &mut Bed, search: &JobSearch, after: Option<String>, limit: u32) -> Found {
    let query = Query::Search {
        search: Box::new(search.clone()),
        after,
        limit,
    };
    match bed.ask(query) {
        Answer::Found(found) => found,
        other => panic!("a search was asked, not {other:?}"),
    }
}

/// All steps of a search.
fn search(bed: &mut Bed, search: &JobSearch, limit: u32) -> Vec<String> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let found = step(bed, search, after, limit);
        assert!(found.jobs.len() <= limit as usize);
        ids.extend(found.jobs.iter().map(|job| job.id.to_string()));
        after = found.next;
        if after.is_none() {
            return ids;
        }
    }
}

fn fails(message: &str) -> Outcome {
    Outcome::Failure {
        kind: FailureKind::Error,
        error: ErrorReport {
            message: message.to_owned(),
            detail: String::new(),
        },
        retry: false,
    }
}

fn groups(bed: &mut Bed) -> Vec<FailureGroup> {
    match bed.ask(Query::Failures) {
        Answer::Failures(groups) => groups,
        other => panic!("failures were asked, not {other:?}"),
    }
}

#[test]
fn series_count_each_second_what_came_went_and_waits() {
    let mut bed = Bed::new(&["one", "two"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a", "b", "c"]);
    bed.pass(Duration::from_millis(200));
    bed.finish(worker, "a", Outcome::Success, "");
    bed.finish(worker, "b", fails("no"), "");
    bed.pass(Duration::from_secs(1));
    let series = series(&mut bed, Step::Second, 600);
    assert_eq!(series.total.arrived, [3]);
    assert_eq!(series.total.failed, [1]);
    assert_eq!(series.total.done, [0]);
    let one = &series.phases[0].track;
    assert_eq!(
        (&one.arrived[..], &one.done[..], &one.failed[..]),
        (&[3][..], &[1][..], &[1][..])
    );
    assert_eq!((one.backlog[0], one.running[0]), (0, 1));
    let two = &series.phases[1].track;
    assert_eq!((two.arrived[0], two.backlog[0]), (1, 1));
    assert_eq!(series.from.as_micros() % 1_000_000, 0);
}

#[test]
fn series_have_no_holes_when_nothing_happens_and_stay_bounded() {
    let mut bed = Bed::new(&["one"]);
    bed.enqueue(&["a"]);
    bed.pass(Duration::from_secs(3 * 24 * 3600));
    let seconds = series(&mut bed, Step::Second, 10_000);
    assert_eq!(seconds.total.backlog, vec![1; 600]);
    assert_eq!(seconds.total.arrived, vec![0; 600]);
    let end = seconds.from.as_micros() + 600 * 1_000_000;
    assert!(
        bed.now.as_micros() - end < 1_000_000,
        "the last second is there"
    );
    let minutes = series(&mut bed, Step::Minute, 10_000);
    assert_eq!(minutes.phases[0].track.backlog, vec![1; 1440]);
    let few = series(&mut bed, Step::Minute, 5);
    assert_eq!(few.total.backlog.len(), 5);
    let since = few.from + Duration::from_secs(61);
    let query = Query::Series {
        step: Step::Minute,
        since: Some(since),
        points: 100,
    };
    let Answer::Series(later) = bed.ask(query) else {
        panic!("series were asked");
    };
    assert_eq!(later.total.backlog.len(), 3);
    assert_eq!(later.from, few.from + Duration::from_secs(120));
}

#[test]
fn latencies_count_every_attempt_by_its_duration() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 1);
    bed.enqueue(&["a"]);
    bed.pass(Duration::from_millis(250));
    bed.finish(worker, "a", Outcome::Success, "");
    let Answer::Latencies(latencies) = bed.ask(Query::Latencies) else {
        panic!("latencies were asked");
    };
    assert_eq!(latencies.total.count, 1);
    assert_eq!(latencies.phases[0].wait.count, 1);
    let buckets = &latencies.total.buckets;
    assert!(
        buckets.len() == 1 && buckets[0].0 >= 250_000 && buckets[0].0 < 290_000,
        "{buckets:?}"
    );
}

#[test]
fn failures_are_grouped_by_what_they_have_in_common() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 5);
    bed.enqueue(&["a", "b", "c", "d", "e"]);
    for (job, message) in [
        ("a", "cannot open /tmp/1.mp4"),
        ("b", "cannot open /tmp/2.mp4"),
        ("c", "exited with status 1"),
        ("d", "cannot open /data/3.mp4"),
    ] {
        bed.pass(Duration::from_millis(10));
        bed.finish(worker, job, fails(message), "");
    }
    let found = groups(&mut bed);
    let told: Vec<_> = found
        .iter()
        .map(|g| (g.signature.as_str(), g.count))
        .collect();
    assert_eq!(told, [("cannot open #", 3), ("exited with status #", 1)]);
    assert_eq!(found[0].sample, id("d"));
    assert_eq!(found[0].message, "cannot open /data/3.mp4");
    assert!(found[0].first_at < found[0].last_at);

    bed.restart();
    assert_eq!(
        groups(&mut bed),
        found,
        "groups are the same after a restart"
    );

    let group = found[0].group.clone();
    let of_group = JobSearch {
        group: Some(group.clone()),
        ..JobSearch::default()
    };
    assert_eq!(search(&mut bed, &of_group, 2), ["d", "b", "a"]);
    let sample = Query::Retry {
        selector: Selector::Group {
            group: group.clone(),
            limit: Some(1),
        },
    };
    assert_eq!(
        bed.ask(sample),
        Answer::Changed {
            count: 1,
            skipped: 0
        }
    );
    assert_eq!(bed.state("a"), Some(JobState::Running));
    let rest = Query::Discard {
        selector: Selector::Group { group, limit: None },
    };
    assert_eq!(
        bed.ask(rest),
        Answer::Changed {
            count: 2,
            skipped: 0
        }
    );
    let left: Vec<_> = groups(&mut bed).into_iter().map(|g| g.count).collect();
    assert_eq!(left, [1]);
}

#[test]
fn command_that_failed_is_grouped_and_found_by_its_last_words() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 3);
    bed.enqueue(&["a", "b", "c"]);
    for (job, detail) in [
        ("a", "starting\ncannot open /tmp/1.mp4\n\n"),
        ("b", "cannot open /tmp/2.mp4"),
        ("c", "out of memory"),
    ] {
        let outcome = Outcome::Failure {
            kind: FailureKind::Error,
            error: ErrorReport {
                message: "exited with status 3".to_owned(),
                detail: detail.to_owned(),
            },
            retry: false,
        };
        bed.pass(Duration::from_millis(10));
        bed.finish(worker, job, outcome, "");
    }
    let found = groups(&mut bed);
    let told: Vec<_> = found
        .iter()
        .map(|g| (g.signature.as_str(), g.count))
        .collect();
    let expected = [
        ("exited with status #: cannot open #", 2),
        ("exited with status #: out of memory", 1),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        found[0].message,
        "exited with status 3: cannot open /tmp/2.mp4"
    );
    let memory = JobSearch {
        error: Some("Out of MEMORY".to_owned()),
        ..JobSearch::default()
    };
    assert_eq!(search(&mut bed, &memory, 10), ["c"]);
}

#[test]
fn search_finds_live_and_ended_jobs_newest_first_and_goes_on_where_it_was() {
    let mut bed = Bed::new(&["one"]);
    let worker = bed.add_worker(1, "one", 10);
    let names: Vec<String> = (0..10).map(|n| format!("job-{n}")).collect();
    bed.enqueue(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for n in 0..4 {
        bed.finish(worker, &format!("job-{n}"), Outcome::Success, "");
    }
    bed.finish(worker, "job-4", fails("Broken pipe"), "");
    let all = search(&mut bed, &JobSearch::default(), 3);
    let expected: Vec<String> = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
        .map(|n| format!("job-{n}"))
        .into();
    assert_eq!(all, expected);
    let ended = JobSearch {
        states: vec![JobState::Success, JobState::Failed],
        ..JobSearch::default()
    };
    assert_eq!(
        search(&mut bed, &ended, 2),
        ["job-4", "job-3", "job-2", "job-1", "job-0"]
    );
    let broken = JobSearch {
        error: Some("broken PIPE".to_owned()),
        ..JobSearch::default()
    };
    assert_eq!(search(&mut bed, &broken, 100), ["job-4"]);
    let prefix = JobSearch {
        id_prefix: Some("job-9".to_owned()),
        worker: Some(worker),
        ..JobSearch::default()
    };
    assert_eq!(search(&mut bed, &prefix, 100), ["job-9"]);
    let elsewhere = JobSearch {
        phase: Some(JobType::new("two").expect("a name")),
        ..JobSearch::default()
    };
    assert_eq!(search(&mut bed, &elsewhere, 100), Vec::<String>::new());
}

#[test]
fn search_refuses_a_place_that_it_did_not_give() {
    let mut bed = Bed::new(&["one"]);
    for place in ["", "x", "j", "h1", "h1-x", "j99999999999999999999999"] {
        let query = Query::Search {
            search: Box::default(),
            after: Some(place.to_owned()),
            limit: 10,
        };
        bed.to_client.clear();
        bed.input(crate::core::Input::Query {
            client: super::bed::CLIENT,
            request: carbontube_protocol::message::QueryRequest { request: 5, query },
        });
        let refused = matches!(
            bed.to_client[..],
            [carbontube_protocol::Message::Refusal(_)]
        );
        assert!(refused, "{place:?}: {:?}", bed.to_client);
    }
}

#[test]
fn search_reads_instructions_that_are_not_in_memory() {
    let options = CoreOptions {
        payload_cache_bytes_max: 1000,
        page_bytes: 2000,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let worker = bed.add_worker(1, "one", 300);
    let job = |n: usize| NewJob {
        instructions: format!(
            "{{\"path\":\"/video/{n:03}.mp4\",\"pad\":\"{}\"}}",
            "x".repeat(50)
        )
        .into(),
        ..new_job(JobId::new(&format!("j{n}")).expect("an id"))
    };
    bed.enqueue_jobs((0..200).map(job).collect());
    for n in 0..50 {
        bed.finish(worker, &format!("j{n}"), Outcome::Success, "");
    }
    let text = |text: &str| JobSearch {
        text: Some(text.to_owned()),
        ..JobSearch::default()
    };
    assert_eq!(search(&mut bed, &text("/video/150.mp4"), 10), ["j150"]);
    assert_eq!(
        search(&mut bed, &text("/video/007.mp4"), 10),
        ["j7"],
        "ended jobs too"
    );
    assert_eq!(search(&mut bed, &text("no such"), 10), Vec::<String>::new());
    assert_eq!(search(&mut bed, &text("/video/"), 7).len(), 200);
    bed.restart();
    assert_eq!(search(&mut bed, &text("/video/151.mp4"), 10), ["j151"]);
}

#[test]
fn one_step_of_a_search_does_bounded_work() {
    let mut bed = Bed::new(&["one"]);
    let jobs = (0..60_000).map(|n| new_job(JobId::new(&format!("j{n}")).expect("an id")));
    let mut jobs = jobs.peekable();
    while jobs.peek().is_some() {
        let some = jobs.by_ref().take(4000).collect();
        bed.enqueue_jobs(some);
    }
    let rare = JobSearch {
        id_prefix: Some("j17".to_owned()),
        states: vec![JobState::Failed],
        ..JobSearch::default()
    };
    let first = step(&mut bed, &rare, None, 10);
    assert_eq!((first.jobs.len(), first.looked_at), (0, 50_000));
    let second = step(&mut bed, &rare, first.next, 10);
    assert_eq!(
        (second.jobs.len(), second.looked_at, second.next),
        (0, 10_000, None)
    );
}
