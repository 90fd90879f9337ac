//! The client's decisions, case by case, in virtual time.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::message::{
    Answer, Code, Ended, EndedJob, Enqueue, EnqueueOutcome, Enqueued, JobState, ManagerInfo,
    ManagerState, Query, QueryAnswer, Refusal,
};
use carbontube_protocol::{
    Codec, JobId, Limits, ManagerId, Message, PipelineName, Timestamp, decode, encode,
};
use fastrand::Rng;

use super::{CallId, Core, News};
use crate::{ClientError, ClientOptions, NewJob, Receipt};

/// A client, and whoever is at the other end of its links.
struct Desk {
    core: Core,
    now: Timestamp,
}

fn desk(links: u16) -> Desk {
    let addresses: Vec<_> = (0..links)
        .map(|link| {
            let address = format!("tcp://127.0.0.1:{}", 5051 + link);
            address.parse().expect("an address")
        })
        .collect();
    let options = ClientOptions {
        busy_retry: Duration::from_millis(100)..=Duration::from_millis(100),
        ..ClientOptions::default()
    };
    let now = Timestamp(1_000_000);
    Desk {
        core: Core::new(options, &addresses, Rng::with_seed(7), now),
        now,
    }
}

fn pipeline() -> PipelineName {
    PipelineName::new("video").expect("a name")
}

fn id(number: u8) -> JobId {
    JobId::new(&format!("job-{number}")).expect("an id")
}

fn jobs(numbers: &[u8]) -> Vec<NewJob> {
    let job = |number: &u8| NewJob::made_up(id(*number), Bytes::from_static(b"{}"));
    numbers.iter().map(job).collect()
}

fn ids(numbers: &[u8]) -> BTreeSet<JobId> {
    numbers.iter().copied().map(id).collect()
}

fn info(state: ManagerState) -> ManagerInfo {
    ManagerInfo {
        manager: ManagerId::from_bytes([7; 16]),
        epoch: 1,
        pipeline: pipeline(),
        phases: vec![],
        version: String::new(),
        started_at: Timestamp::ZERO,
        state,
        pull: vec![],
        subscribe: vec![],
        publish: vec![],
        storage: String::new(),
    }
}

impl Desk {
    fn later(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.core.handle_time(self.now);
    }

    fn sent(&mut self, link: usize) -> Option<Message> {
        let frames = self.core.poll_message(link)?;
        Some(decode(&frames, &Limits::default()).expect("a client's message"))
    }

    fn answer(&mut self, link: usize, message: impl Into<Message>) {
        let frames = encode(&message.into(), Codec::Bincode);
        self.core.handle_message(link, &frames, self.now);
    }

    fn refuse(&mut self, link: usize, request: u64, code: Code) {
        let message = format!("because {code}");
        self.answer(
            link,
            Refusal {
                request: Some(request),
                code,
                message,
            },
        );
    }

    /// Connects a link and answers its greeting.
    fn greet(&mut self, link: usize, state: ManagerState) {
        self.core.handle_connected(link, self.now);
        let Some(Message::Query(greeting)) = self.sent(link) else {
            panic!("link {link} does not greet");
        };
        assert_eq!(greeting.query, Query::Info);
        let answer = Answer::Info(info(state));
        let request = greeting.request;
        self.answer(link, QueryAnswer { request, answer });
    }

    fn live(links: u16) -> Desk {
        let mut desk = desk(links);
        for link in 0..usize::from(links) {
            desk.greet(link, ManagerState::Running);
        }
        desk
    }

    fn lose(&mut self, link: usize) {
        let met = "cut".to_owned();
        self.core.handle_disconnected(link, met, self.now);
    }

    fn enqueue(&mut self, numbers: &[u8]) -> CallId {
        let jobs = jobs(numbers);
        let call = self.core.enqueue(&pipeline(), jobs, self.now);
        call.expect("there is an api address")
    }

    fn wait(&mut self, numbers: &[u8]) -> CallId {
        let call = self.core.wait(&pipeline(), ids(numbers), self.now);
        call.expect("there is an api address")
    }

    /// The jobs that are sent on a link now, with the request's number.
    fn sent_jobs(&mut self, link: usize) -> Option<(u64, Vec<JobId>)> {
        match self.sent(link)? {
            Message::Enqueue(Enqueue { request, jobs, .. }) => {
                Some((request, jobs.into_iter().filter_map(|job| job.id).collect()))
            }
            Message::Wait(wait) => Some((wait.request, wait.ids)),
            other => panic!("expected jobs, found {other:?}"),
        }
    }

    fn accept(&mut self, link: usize, request: u64, numbers: &[u8]) {
        let accepted = |number: &u8| EnqueueOutcome::Accepted { id: id(*number) };
        let outcomes = numbers.iter().map(accepted).collect();
        self.answer(link, Enqueued { request, outcomes });
    }

    fn end(&mut self, link: usize, request: u64, numbers: &[u8]) {
        let ended = |number: &u8| EndedJob {
            id: id(*number),
            state: Some(JobState::Success),
            error: None,
            result: Bytes::new(),
        };
        let jobs = numbers.iter().map(ended).collect();
        self.answer(link, Ended { request, jobs });
    }

    /// What callers are told, in words.
    fn told(&mut self) -> Vec<String> {
        let news = std::iter::from_fn(|| self.core.poll_news());
        news.map(|(_, news)| match news {
            News::Enqueued(receipts) => {
                let words = receipts.iter().map(|receipt| match receipt {
                    Receipt::Accepted { id } => format!("{id} accepted"),
                    Receipt::Rejected { id, code, .. } => format!("{id} {code}"),
                    other => format!("{other:?}"),
                });
                words.collect::<Vec<_>>().join(", ")
            }
            News::Answered(_) => "answered".to_owned(),
            News::Ended(jobs) => {
                let words = jobs.iter().map(|job| job.id.to_string());
                format!("ended {}", words.collect::<Vec<_>>().join(" "))
            }
            News::Failed(error) => match error {
                ClientError::NotConfirmed { .. } => "not confirmed".to_owned(),
                ClientError::NotSent { .. } => "not sent".to_owned(),
                ClientError::Absent { jobs, .. } => format!("absent for {jobs}"),
                ClientError::Refusal { code, .. } => format!("refused {code}"),
                other => other.to_string(),
            },
        })
        .collect()
    }
}

fn rejected(number: u8, code: Code) -> EnqueueOutcome {
    EnqueueOutcome::Rejected {
        id: Some(id(number)),
        code,
        message: String::new(),
    }
}

#[test]
fn only_the_active_link_is_sent_requests() {
    let mut desk = Desk::live(2);
    desk.enqueue(&[1]);
    assert_eq!(desk.sent(1), None);
    let (request, ids) = desk.sent_jobs(0).expect("the request");
    assert_eq!(ids, [id(1)]);
    assert_eq!(desk.sent(0), None, "once");
    desk.accept(0, request, &[1]);
    assert_eq!(desk.told(), ["job-1 accepted"]);
    desk.accept(0, request, &[1]);
    assert!(desk.told().is_empty(), "an answer that comes twice");
    assert_eq!(desk.core.next_time(), None);
}

#[test]
fn what_a_lost_connection_leaves_open_goes_to_the_next_in_order() {
    let mut desk = Desk::live(2);
    for number in 1..=3 {
        desk.enqueue(&[number]);
    }
    let first = desk.sent_jobs(0).expect("the first");
    let second = desk.sent_jobs(0).expect("the second");
    desk.accept(0, first.0, &[1]);
    desk.lose(0);
    assert_eq!(desk.sent_jobs(1), Some(second), "the same number and ids");
    assert_eq!(desk.sent_jobs(1).expect("the third").1, [id(3)]);
    assert_eq!(desk.sent(1), None);
}

#[test]
fn a_new_connection_is_greeted_before_anything_is_sent_again() {
    let mut desk = Desk::live(1);
    desk.enqueue(&[1]);
    let sent = desk.sent_jobs(0);
    // The end of the old connection may go unnoticed.
    desk.greet(0, ManagerState::Running);
    assert_eq!(desk.sent_jobs(0), sent);
}

#[test]
fn a_draining_manager_is_left_for_another() {
    let mut desk = Desk::live(2);
    desk.enqueue(&[1, 2]);
    let (request, _) = desk.sent_jobs(0).expect("the request");
    let outcomes = vec![
        EnqueueOutcome::Accepted { id: id(1) },
        rejected(2, Code::Draining),
    ];
    desk.answer(0, Enqueued { request, outcomes });
    assert!(desk.told().is_empty());
    let (request, ids) = desk.sent_jobs(1).expect("at once, without a pause");
    assert_eq!(ids, [id(2)]);
    desk.accept(1, request, &[2]);
    assert_eq!(desk.told(), ["job-1 accepted, job-2 accepted"]);
    desk.enqueue(&[3]);
    assert_eq!(desk.sent(0), None, "and stays left");
    assert!(desk.sent(1).is_some());
}

#[test]
fn a_draining_manager_still_answers_what_it_was_asked() {
    let mut desk = Desk::live(2);
    desk.wait(&[9]);
    let (waiting, _) = desk.sent_jobs(0).expect("the wait");
    desk.enqueue(&[1]);
    let (request, _) = desk.sent_jobs(0).expect("the request");
    desk.refuse(0, request, Code::Draining);
    assert_eq!(desk.sent_jobs(1).expect("the jobs").1, [id(1)]);
    assert_eq!(desk.sent(1), None, "the wait stays where the job is");
    desk.end(0, waiting, &[9]);
    assert_eq!(desk.told(), ["ended job-9"]);
}

#[test]
fn the_only_manager_is_asked_again_while_it_drains() {
    let mut desk = Desk::live(1);
    desk.enqueue(&[1]);
    let (request, _) = desk.sent_jobs(0).expect("the request");
    desk.refuse(0, request, Code::Draining);
    assert_eq!(desk.sent(0), None, "after a pause");
    desk.lose(0);
    desk.later(Duration::from_secs(1));
    desk.greet(0, ManagerState::Running);
    let (request, _) = desk.sent_jobs(0).expect("the request again");
    desk.accept(0, request, &[1]);
    assert_eq!(desk.told(), ["job-1 accepted"]);
}

#[test]
fn a_manager_that_drains_for_too_long_is_told() {
    let mut desk = Desk::live(1);
    desk.enqueue(&[1]);
    while let Some((request, _)) = desk.sent_jobs(0) {
        let outcomes = vec![rejected(1, Code::Draining)];
        desk.answer(0, Enqueued { request, outcomes });
        desk.later(Duration::from_millis(100));
    }
    assert_eq!(desk.told(), ["job-1 draining"]);
}

#[test]
fn a_manager_that_says_at_once_that_it_drains_is_the_last_choice() {
    let mut desk = desk(2);
    desk.greet(0, ManagerState::Draining);
    desk.enqueue(&[1]);
    desk.greet(1, ManagerState::Running);
    assert_eq!(desk.sent(0), None);
    assert!(desk.sent_jobs(1).is_some());
    desk.lose(1);
    assert!(desk.sent_jobs(0).is_some(), "better than none");
}

#[test]
fn two_draining_managers_are_not_asked_in_a_circle() {
    let mut desk = Desk::live(2);
    desk.enqueue(&[1]);
    let mut tries = 0;
    while let Some((link, (request, _))) =
        (0..2).find_map(|link| Some((link, desk.sent_jobs(link)?)))
    {
        tries += 1;
        desk.refuse(link, request, Code::Draining);
    }
    assert_eq!(tries, 2, "then there is a pause");
}

#[test]
fn a_call_out_of_time_says_whether_it_was_sent() {
    let mut desk = Desk::live(1);
    desk.enqueue(&[1]);
    assert!(desk.sent(0).is_some());
    desk.enqueue(&[2]);
    desk.lose(0);
    desk.later(Duration::from_secs(30) - Duration::from_micros(1));
    assert!(desk.told().is_empty());
    desk.later(Duration::from_micros(1));
    assert_eq!(desk.told(), ["not confirmed", "not sent"]);
    desk.greet(0, ManagerState::Running);
    assert_eq!(desk.sent(0), None, "what was given up is not sent");
}

#[test]
fn a_batch_that_was_accepted_in_part_was_not_unsent() {
    let mut desk = Desk::live(1);
    desk.enqueue(&[1, 2]);
    let (request, _) = desk.sent_jobs(0).expect("the request");
    let outcomes = vec![
        EnqueueOutcome::Accepted { id: id(1) },
        rejected(2, Code::Journal),
    ];
    desk.answer(0, Enqueued { request, outcomes });
    desk.lose(0);
    desk.later(Duration::from_secs(30));
    assert_eq!(desk.told(), ["not confirmed"]);
}

#[test]
fn a_batch_that_was_accepted_in_part_was_not_refused() {
    let mut desk = Desk::live(1);
    desk.enqueue(&[1, 2]);
    let (request, _) = desk.sent_jobs(0).expect("the request");
    let outcomes = vec![
        EnqueueOutcome::Accepted { id: id(1) },
        rejected(2, Code::Busy),
    ];
    desk.answer(0, Enqueued { request, outcomes });
    desk.later(Duration::from_millis(100));
    let (request, ids) = desk.sent_jobs(0).expect("the rest");
    assert_eq!(ids, [id(2)]);
    desk.refuse(0, request, Code::Malformed);
    assert_eq!(desk.told(), ["job-1 accepted, job-2 busy"]);
}

#[test]
fn a_wait_ends_only_when_there_was_no_manager_for_too_long_without_a_break() {
    let mut desk = Desk::live(1);
    desk.wait(&[1, 2]);
    desk.later(Duration::from_secs(3600));
    for _ in 0..3 {
        desk.lose(0);
        desk.later(Duration::from_secs(59));
        desk.greet(0, ManagerState::Running);
        let (request, ids) = desk.sent_jobs(0).expect("the wait, again");
        assert!(ids.contains(&id(2)));
        desk.end(0, request, &[1]);
        desk.later(Duration::from_secs(59));
    }
    assert_eq!(desk.told(), ["ended job-1"]);
    desk.lose(0);
    desk.later(Duration::from_secs(60));
    assert_eq!(desk.told(), ["absent for 1"]);
}

#[test]
fn a_wait_is_sent_again_only_for_what_has_not_ended() {
    let mut desk = Desk::live(1);
    desk.wait(&[1, 2, 3]);
    for ended in [1, 2] {
        let (request, _) = desk.sent_jobs(0).expect("the wait");
        desk.end(0, request, &[ended]);
        desk.lose(0);
        desk.greet(0, ManagerState::Running);
    }
    assert_eq!(desk.sent_jobs(0).expect("the wait, again").1, [id(3)]);
    assert_eq!(desk.told(), ["ended job-1", "ended job-2"]);
}

#[test]
fn a_busy_wait_asks_again_only_for_what_has_not_ended() {
    let mut desk = Desk::live(1);
    desk.wait(&[1, 2]);
    let (request, _) = desk.sent_jobs(0).expect("the wait");
    desk.end(0, request, &[1]);
    desk.refuse(0, request, Code::Busy);
    desk.later(Duration::from_millis(100));
    assert_eq!(desk.sent_jobs(0).expect("the wait again").1, [id(2)]);
    assert_eq!(desk.told(), ["ended job-1"]);
}

#[test]
fn a_forgotten_call_leaves_nothing() {
    let mut desk = Desk::live(1);
    let call = desk.enqueue(&[1]);
    let wait = desk.wait(&[2]);
    desk.core.forget(call);
    desk.core.forget(wait);
    assert_eq!(desk.sent(0), None);
    assert_eq!(desk.core.next_time(), None);
    desk.lose(0);
    assert_eq!(desk.core.next_time(), None);
}
