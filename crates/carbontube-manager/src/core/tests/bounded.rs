//! Many jobs at once, in pieces: what a commit carries, and what comes in between.

use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    Answer, Code, EnqueueOutcome, JobFilter, JobState, Message, Query, QueryAnswer, QueryRequest,
    Selector,
};
use carbontube_storage::Log;

use super::bed::{Bed, CLIENT, id, new_job, pipeline};
use crate::core::{ClientId, CoreOptions, Input};

const OTHER: ClientId = ClientId(2);
/// What a commit puts and removes, by the manual.
const COMMIT_BYTES: usize = 8 << 20;

/// A bed with so many jobs of a size, which wait for a day.
fn backlog(jobs: usize, bytes: usize) -> Bed {
    let options = CoreOptions {
        payload_cache_bytes_max: 0,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let instructions = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    let instructions = Bytes::from(instructions);
    for n in 0..jobs {
        let mut job = new_job(id(&format!("job-{n}")));
        job.delay_ms = 24 * 3_600_000;
        job.instructions = instructions.clone();
        bed.enqueue_jobs(vec![job]);
    }
    bed
}

fn cancel_all() -> Query {
    Query::Cancel {
        selector: Selector::Filter(JobFilter::default()),
    }
}

fn ask(bed: &mut Bed, client: ClientId, query: Query) {
    let request = QueryRequest { request: 7, query };
    bed.input(Input::Query { client, request });
}

fn changed(bed: &mut Bed) -> Option<(u64, u64)> {
    let found = bed.to_client.iter().position(|message| {
        matches!(
            message,
            Message::Answer(QueryAnswer {
                answer: Answer::Changed { .. },
                ..
            })
        )
    });
    match bed.to_client.remove(found?) {
        Message::Answer(QueryAnswer {
            answer: Answer::Changed { count, skipped },
            ..
        }) => Some((count, skipped)),
        other => panic!("{other:?}"),
    }
}

/// Lets commits through one by one; the most bytes that one of them put, and removed.
fn commit_all(bed: &mut Bed) -> (usize, usize) {
    bed.store_works = false;
    let (mut put_most, mut removed_most) = (0, 0);
    loop {
        bed.settle();
        let Some(commit) = bed.commits_undone.pop_front() else {
            bed.store_works = true;
            return (put_most, removed_most);
        };
        let put: usize = commit.put.iter().map(|(_, _, bytes)| bytes.len()).sum();
        let held = |bed: &Bed| bed.disk.0.values().map(Bytes::len).sum::<usize>();
        let before = held(bed);
        bed.disk.apply(&commit);
        bed.durable = commit.through;
        put_most = put_most.max(put);
        removed_most = removed_most.max(before + put - held(bed));
        let commit = commit.id;
        bed.core.handle(Input::Committed { commit }, bed.now);
    }
}

#[test]
fn backlog_that_is_cancelled_leaves_the_journal_in_bounded_pieces() {
    let page = 60 << 10;
    let mut bed = backlog(40, 1 << 20);
    bed.store_works = false;
    ask(&mut bed, CLIENT, cancel_all());
    let (put, removed) = commit_all(&mut bed);
    assert!(put <= COMMIT_BYTES + page, "{put} bytes were put at once");
    assert!(
        removed <= COMMIT_BYTES + page,
        "{removed} bytes were removed at once"
    );
    assert_eq!(changed(&mut bed), Some((40, 0)));
    let journal = bed.disk.0.range((Log::Journal.tag(), 0)..);
    let left: usize = journal.map(|(_, bytes)| bytes.len()).sum();
    assert!(left < 100_000, "{left} bytes are left");
}

#[test]
fn jobs_that_come_while_the_disk_is_busy_go_to_it_in_bounded_commits() {
    let mut bed = Bed::new(&["one"]);
    bed.store_works = false;
    let instructions = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    for n in 0..40 {
        let mut job = new_job(id(&format!("job-{n}")));
        job.instructions = Bytes::from(instructions.clone());
        let request = carbontube_protocol::message::Enqueue {
            request: n,
            pipeline: bed.definition.name().clone(),
            jobs: vec![job],
        };
        bed.core.handle(
            Input::Enqueue {
                client: CLIENT,
                request,
            },
            bed.now,
        );
    }
    let (put, _) = commit_all(&mut bed);
    assert!(put > COMMIT_BYTES / 2);
    // A commit ends behind the job with which it became large.
    assert!(put <= COMMIT_BYTES + (2 << 20), "{put} bytes at once");
    bed.restart();
    assert_eq!(bed.stats().phases[0].enqueued, 40);
}

/// A crash after any of the commits leaves every job live or in the history, never
/// neither and never both.
#[test]
fn crash_between_the_commits_of_one_change_leaves_each_job_changed_or_not() {
    let mut bed = Bed::new(&["one"]);
    let instructions = format!("{{\"a\":\"{}\"}}", "x".repeat(300 << 10));
    let names: Vec<_> = (0..60).map(|n| id(&format!("job-{n}"))).collect();
    for name in &names {
        let mut job = new_job(name.clone());
        job.instructions = Bytes::from(instructions.clone());
        bed.enqueue_jobs(vec![job]);
    }
    // Instructions in memory go to the history. The oldest pages are needed longest.
    for name in names.iter().rev() {
        let no = bed.core.jobs.no(name).expect("it is live");
        bed.core.cancel_job(no, bed.now);
        bed.core.journal.cut();
    }
    assert!(bed.core.has_commit(), "it is more than one commit");
    bed.store_works = false;
    let (mut left, mut commits) = (60, 0);
    loop {
        bed.settle();
        let Some(commit) = bed.commits_undone.pop_front() else {
            break;
        };
        bed.disk.apply(&commit);
        bed.durable = commit.through;
        commits += 1;
        let after = bed
            .disk
            .recover(bed.definition.clone(), bed.options.clone(), bed.now);
        let is_live = |job| after.jobs.no(job).is_some();
        for job in &names {
            let is_past = after.history.entry(job).is_some();
            assert!(is_live(job) != is_past, "{job}: live and past {is_past}");
        }
        let live = names.iter().filter(|job| is_live(job)).count();
        assert!(live <= left);
        left = live;
        let commit = commit.id;
        bed.core.handle(Input::Committed { commit }, bed.now);
        bed.now = bed.now + Duration::from_millis(1);
    }
    assert_eq!(left, 0);
    assert!(commits > 2, "{commits} commits");
}

#[test]
fn change_of_many_jobs_is_done_in_pieces_with_others_served_between() {
    let mut bed = backlog(2_500, 1);
    ask(&mut bed, CLIENT, cancel_all());
    assert_eq!(changed(&mut bed), None);
    let cancelled = bed.stats().cancelled;
    assert_eq!(cancelled, 1_000, "one piece at once");
    // Another client's small change has its turn, and a new job is not among those chosen.
    let few = Query::Cancel {
        selector: Selector::Ids(vec![id("job-2499")]),
    };
    ask(&mut bed, OTHER, few);
    assert_eq!(changed(&mut bed), Some((1, 0)));
    let mut job = new_job(id("later"));
    job.delay_ms = 1_000_000;
    bed.enqueue_jobs(vec![job]);
    bed.pass(Duration::from_millis(50));
    assert_eq!(changed(&mut bed), Some((2_499, 0)));
    assert_eq!(bed.state("later"), Some(JobState::Scheduled));
    assert!(bed.core.changes.is_empty());
}

#[test]
fn change_waits_for_the_disk_and_ends_with_its_client() {
    let mut bed = backlog(2_500, 1);
    bed.store_works = false;
    for n in 0..12 {
        let mut job = new_job(id(&format!("large-{n}")));
        job.instructions = Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20)));
        let request = carbontube_protocol::message::Enqueue {
            request: n,
            pipeline: bed.definition.name().clone(),
            jobs: vec![job],
        };
        bed.input(Input::Enqueue {
            client: OTHER,
            request,
        });
    }
    ask(&mut bed, CLIENT, cancel_all());
    assert_eq!(bed.core.totals.cancelled, 0, "much waits for the disk");
    assert_eq!(bed.core.next_change(), None, "no time is set for it");
    commit_all(&mut bed);
    assert_eq!(bed.core.totals.cancelled, 1_000);
    bed.input(Input::ClientGone { client: CLIENT });
    bed.pass(Duration::from_millis(50));
    assert_eq!(bed.core.totals.cancelled, 1_000);
    assert_eq!(bed.core.counters["changes_cut_short"], 1);
}

#[test]
fn changes_of_one_client_are_bounded() {
    let mut bed = backlog(3_000, 1);
    for _ in 0..17 {
        ask(&mut bed, CLIENT, cancel_all());
    }
    assert!(
        matches!(bed.to_client.last(), Some(Message::Refusal(refusal)) if refusal.code == Code::Busy),
        "{:?}",
        bed.to_client.last()
    );
    bed.pass(Duration::from_millis(500));
    assert!(bed.core.changes.is_empty());
}

#[test]
fn bytes_of_live_jobs_are_bounded_also_after_a_restart_and_places_come_back() {
    let options = CoreOptions {
        live_bytes_max: 10_000,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let job = |n: u32| {
        let mut job = new_job(id(&format!("job-{n}")));
        job.delay_ms = 1_000_000;
        job.instructions = Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(3_000)));
        job
    };
    let outcomes = bed.enqueue_jobs((0..5).map(job).collect());
    let is_busy = |outcome: &EnqueueOutcome| {
        matches!(
            outcome,
            EnqueueOutcome::Rejected {
                code: Code::Busy,
                ..
            }
        )
    };
    let refused: Vec<bool> = outcomes.iter().map(is_busy).collect();
    assert_eq!(refused, [false, false, false, true, true]);
    let held = bed.core.journal.live_bytes;
    bed.restart();
    assert_eq!(bed.core.journal.live_bytes, held);
    assert!(is_busy(&bed.enqueue_jobs(vec![job(7)])[0]));
    assert_eq!(bed.core.counters["refused_live_bytes"], 1);
    bed.ask(Query::Cancel {
        selector: Selector::Ids(vec![id("job-0")]),
    });
    assert!(!is_busy(&bed.enqueue_jobs(vec![job(8)])[0]));
}
