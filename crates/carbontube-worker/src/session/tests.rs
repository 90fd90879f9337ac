//! The session's decisions, case by case.

use super::outgoing::BATCH_RESULTS_MAX;
use super::*;
use carbontube_protocol::message::PipeHead;
use carbontube_protocol::message::{Drain, Goodbye, Hello};

mod lives;

const SECOND: u64 = 1_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * SECOND)
}

fn manager(id: u8) -> ManagerId {
    ManagerId::from_bytes([id; 16])
}

fn attempt(counter: u64) -> AttemptId {
    AttemptId { epoch: 1, counter }
}

fn attempts(counters: &[u64]) -> Vec<AttemptId> {
    counters.iter().copied().map(attempt).collect()
}

fn job_type() -> JobType {
    JobType::new("phase").expect("a valid name")
}

fn work(counter: u64) -> DispatchedJob {
    DispatchedJob {
        attempt: attempt(counter),
        job: JobId::new(&format!("job-{counter}")).expect("a valid id"),
        phase: 0,
        job_type: job_type(),
        number: 1,
        timeout_ms: 0,
        traceparent: None,
        instructions: Bytes::from_static(b"{}"),
    }
}

/// A session, with shorthand for what managers say.
struct Desk {
    session: Session,
    now: Timestamp,
    number: u64,
}

fn desk() -> Desk {
    desk_with(|_| {})
}

fn desk_with(change: impl FnOnce(&mut Profile)) -> Desk {
    let mut profile = Profile {
        worker: WorkerId::from_bytes([1; 16]),
        job_type: job_type(),
        routes: 1,
        shared_address: false,
        timeout: None,
        limits: Limits::default(),
    };
    change(&mut profile);
    Desk {
        session: Session::new(profile),
        now: at(100),
        number: 1,
    }
}

fn head(id: u8, epoch: u64, sequence: u64) -> PipeHead {
    PipeHead {
        manager: manager(id),
        epoch,
        sequence,
    }
}

impl Desk {
    fn receive(&mut self, message: impl Into<Message>) -> Effects {
        assert!(
            self.session
                .receive(message.into(), Codec::Bincode, self.now)
        );
        self.session.take_effects()
    }

    fn hello(&mut self, head: PipeHead) -> Effects {
        self.receive(Hello {
            head,
            pipeline: PipelineName::new("p").expect("a valid name"),
            worker_timeout_ms: 5000,
        })
    }

    fn dispatch(&mut self, head: PipeHead, jobs: Vec<DispatchedJob>) -> Effects {
        let known = |m: &&Manager| m.id == head.manager && m.epoch >= head.epoch && m.greeted;
        if !self.session.managers.iter().any(|m| known(&m)) {
            let sequence = head.sequence - 1;
            self.hello(PipeHead { sequence, ..head });
        }
        self.dispatch_unheralded(head, jobs)
    }

    fn dispatch_unheralded(&mut self, head: PipeHead, jobs: Vec<DispatchedJob>) -> Effects {
        self.receive(Dispatch {
            head,
            worker: None,
            pipeline: PipelineName::new("p").expect("a valid name"),
            jobs,
        })
    }

    fn give(&mut self, counters: &[u64]) -> Effects {
        let jobs = counters.iter().copied().map(work).collect();
        self.number += 1;
        self.dispatch(head(1, 1, self.number), jobs)
    }

    fn acknowledge(&mut self, route: u16, counters: &[u64]) -> Effects {
        self.number += 1;
        self.receive(Ack {
            head: head(1, 1, self.number),
            route,
            attempts: attempts(counters),
        })
    }

    fn start(&mut self) -> Option<Key> {
        Some(self.session.start_next(self.now)?.key)
    }

    fn succeed(&mut self, key: Key) {
        let finished = Finished {
            outcome: Outcome::Success,
            instructions: Bytes::new(),
            started_at: self.now,
        };
        self.session.finish(key, finished, self.now);
    }

    /// Takes in, starts and finishes attempts.
    fn complete(&mut self, counters: &[u64]) {
        self.give(counters);
        for _ in counters {
            let key = self.start().expect("it was given");
            self.succeed(key);
        }
    }

    /// What the route sends now, in short.
    fn sends(&mut self, route: usize) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(outgoing) = self.session.take_outgoing(route) {
            sent.push(match &outgoing.message {
                Message::Results(results) => {
                    let ids = results.results.iter().map(|result| result.attempt.counter);
                    format!("results {:?}", ids.collect::<Vec<_>>())
                }
                Message::HandBack(back) => {
                    let ids = back.attempts.iter().map(|back| back.attempt.counter);
                    format!("{:?} {:?}", back.reason, ids.collect::<Vec<_>>())
                }
                Message::Goodbye(_) => "goodbye".to_owned(),
                other => panic!("a worker does not send {other:?}"),
            });
            self.session.sent(&outgoing.keys, self.now);
        }
        sent
    }

    fn held(&self) -> Vec<(u64, HeldState)> {
        let lists = self.session.held();
        let all = lists.iter().flat_map(|list| &list.held);
        all.map(|held| (held.attempt.counter, held.state)).collect()
    }
}

#[test]
fn dispatched_attempts_start_in_order_and_stay_until_acknowledged() {
    let mut desk = desk();
    assert_eq!(desk.give(&[1, 2]).start, 2);
    let first = desk.start().expect("queued");
    assert_eq!(
        desk.held(),
        [(1, HeldState::Running), (2, HeldState::Queued)]
    );
    desk.succeed(first);
    assert_eq!(desk.sends(0), ["results [1]"]);
    assert_eq!(desk.held(), [(1, HeldState::Done), (2, HeldState::Queued)]);
    assert!(desk.acknowledge(0, &[1, 2]).settled);
    // An acknowledgement of what is not done means nothing.
    assert_eq!(desk.held(), [(2, HeldState::Queued)]);
}

#[test]
fn received_sequence_and_held_attempts_change_together() {
    let mut desk = desk();
    desk.hello(head(1, 1, 1));
    desk.dispatch(head(1, 1, 7), vec![work(1)]);
    let list = &desk.session.held()[0];
    assert_eq!((list.epoch, list.sequence, list.held.len()), (1, 7, 1));
}

#[test]
fn duplicate_dispatch_is_ignored_whatever_became_of_the_first() {
    let mut desk = desk();
    desk.give(&[1, 2]);
    let key = desk.start().expect("queued");
    assert_eq!(desk.give(&[1, 2]).start, 0);
    desk.succeed(key);
    assert_eq!(desk.give(&[1, 2]).start, 0);
    assert_eq!(
        desk.session.load(),
        Load {
            queued: 1,
            running: 0,
            done: 1
        }
    );
}

#[test]
fn same_attempt_id_of_two_managers_is_two_attempts() {
    let mut desk = desk();
    desk.give(&[1]);
    assert_eq!(desk.dispatch(head(2, 1, 1), vec![work(1)]).start, 1);
    assert_eq!(desk.session.load().queued, 2);
}

#[test]
fn refusals_say_why() {
    let mut desk = desk_with(|profile| profile.limits.batch_jobs_max = 2);
    let mut stray = work(9);
    stray.job_type = JobType::new("other").expect("a valid name");
    desk.dispatch(head(1, 1, 1), vec![work(1), stray, work(2), work(3)]);
    assert_eq!(desk.sends(0), ["UnknownJobType [9]", "Full [3]"]);
    desk.session.drain();
    assert_eq!(desk.sends(0), ["Draining [1, 2]"]);
    desk.give(&[4]);
    assert_eq!(desk.sends(0), ["Draining [4]"]);
}

#[test]
fn instructions_over_the_bytes_bound_are_handed_back_but_never_the_only_ones() {
    let mut desk = desk();
    let large = |counter| {
        let mut work = work(counter);
        work.instructions = Bytes::from(vec![b' '; QUEUE_BYTES_MAX / 2 + 1]);
        work
    };
    desk.dispatch(head(1, 1, 1), vec![large(1), large(2)]);
    assert_eq!(desk.sends(0), ["Full [2]"]);
    assert_eq!(desk.held(), [(1, HeldState::Queued)]);
}

#[test]
fn results_over_the_bytes_bound_keep_attempts_from_starting_until_acknowledged() {
    let mut desk = desk();
    desk.give(&[1, 2]);
    let key = desk.start().expect("queued");
    let finished = Finished {
        outcome: Outcome::Success,
        instructions: Bytes::from(vec![b' '; DONE_BYTES_MAX + 1]),
        started_at: desk.now,
    };
    desk.session.finish(key, finished, desk.now);
    assert_eq!(desk.start(), None);
    assert_eq!(desk.acknowledge(0, &[1]).start, 1);
    assert!(desk.start().is_some());
}

#[test]
fn recall_takes_only_what_has_not_started() {
    let mut desk = desk();
    desk.give(&[1, 2, 3]);
    desk.start();
    desk.receive(Recall {
        head: head(1, 1, 3),
        attempts: attempts(&[1, 3, 8]),
    });
    assert_eq!(desk.sends(0), ["Recalled [3]"]);
    let second = desk.start().expect("the second is still queued");
    assert_eq!(second.attempt, attempt(2));
    assert_eq!(desk.start(), None);
}

#[test]
fn cancel_reports_a_queued_attempt_and_stops_a_running_one() {
    let mut desk = desk();
    desk.give(&[1, 2]);
    let running = desk.start().expect("queued");
    let effects = desk.receive(Cancel {
        head: head(1, 1, 3),
        attempts: attempts(&[1, 2, 9]),
    });
    assert_eq!(effects.cancel, [running]);
    assert_eq!(desk.held(), [(1, HeldState::Running), (2, HeldState::Done)]);
    assert_eq!(desk.sends(0), ["results [2]"]);
    assert_eq!(desk.start(), None);
}

#[test]
fn hello_and_new_epoch_bring_a_heartbeat_and_all_results_again() {
    let mut desk = desk();
    desk.hello(head(1, 1, 1));
    desk.complete(&[1, 2]);
    assert_eq!(desk.sends(0), ["results [1, 2]"]);
    let effects = desk.hello(head(1, 1, 4));
    assert!(effects.heartbeat && effects.hurry, "{effects:?}");
    assert_eq!(desk.sends(0), ["results [1, 2]"]);
    assert!(desk.hello(head(1, 2, 1)).heartbeat);
    assert_eq!(desk.sends(0), ["results [1, 2]"]);
    let list = &desk.session.held()[0];
    assert_eq!((list.epoch, list.sequence), (2, 1));
}

#[test]
fn former_life_of_a_manager_is_not_listened_to() {
    let mut desk = desk();
    desk.hello(head(1, 5, 1));
    assert_eq!(desk.give(&[1]).start, 0);
    let effects = desk.receive(Drain {
        head: head(1, 1, 9),
    });
    assert!(!effects.drain);
    assert_eq!(
        (desk.session.load(), desk.session.stale_count()),
        (Load::default(), 2)
    );
}

#[test]
fn unacknowledged_results_are_sent_again_ever_more_seldom() {
    let mut desk = desk();
    desk.complete(&[1]);
    assert_eq!(desk.sends(0), ["results [1]"]);
    let mut times = Vec::new();
    for second in 0..200 {
        desk.now = at(100 + second);
        desk.session.tick(desk.now);
        if !desk.sends(0).is_empty() {
            times.push(second);
        }
    }
    assert_eq!(times, [5, 15, 35, 75, 155]);
    assert_eq!(desk.held(), [(1, HeldState::Done)]);
}

#[test]
fn behind_a_device_results_are_given_up_after_some_repeats() {
    let mut desk = desk_with(|profile| profile.shared_address = true);
    desk.complete(&[1]);
    let mut sends = 0;
    for second in 0..1000 {
        desk.now = at(100 + second);
        desk.session.tick(desk.now);
        sends += desk.sends(0).len();
    }
    assert_eq!((sends, desk.held()), (5, vec![]));
    assert_eq!(desk.session.unacknowledged_count(), 1);
}

#[test]
fn reconnected_route_sends_again_what_was_sent_and_nothing_twice() {
    let mut desk = desk();
    desk.complete(&[1]);
    desk.session.reconnected(0);
    assert_eq!(desk.sends(0), ["results [1]"]);
    desk.session.reconnected(0);
    assert_eq!(desk.sends(0), ["results [1]"]);
    desk.acknowledge(0, &[1]);
    desk.session.reconnected(0);
    assert!(desk.sends(0).is_empty());
}

#[test]
fn acknowledgement_teaches_the_route_until_the_epoch_changes() {
    let mut desk = desk_with(|profile| profile.routes = 2);
    desk.complete(&[1]);
    assert_eq!(
        (desk.sends(0), desk.sends(1)),
        (
            vec!["results [1]".to_owned()],
            vec!["results [1]".to_owned()]
        )
    );
    desk.acknowledge(1, &[1]);
    desk.complete(&[2]);
    assert_eq!(
        (desk.sends(0), desk.sends(1)),
        (vec![], vec!["results [2]".to_owned()])
    );
    desk.hello(head(1, 2, 1));
    assert_eq!(
        (desk.sends(0), desk.sends(1)),
        (
            vec!["results [2]".to_owned()],
            vec!["results [2]".to_owned()]
        )
    );
}

#[test]
fn acknowledgement_of_another_workers_results_teaches_nothing() {
    let mut desk = desk_with(|profile| profile.routes = 2);
    desk.complete(&[1]);
    desk.acknowledge(1, &[77]);
    desk.acknowledge(60_000, &[1]);
    desk.complete(&[2]);
    assert_eq!((desk.sends(0).len(), desk.sends(1).len()), (1, 1));
}

#[test]
fn results_are_batched_within_bounds() {
    let mut desk = desk();
    let counters: Vec<u64> = (1..=BATCH_RESULTS_MAX as u64 + 3).collect();
    desk.complete(&counters);
    let sizes: Vec<usize> = std::iter::from_fn(|| desk.session.take_outgoing(0))
        .map(|outgoing| outgoing.keys.len())
        .collect();
    assert_eq!(sizes, [BATCH_RESULTS_MAX, 3]);
}

#[test]
fn deadlines_expire_once_and_the_late_end_is_ignored() {
    let mut desk = desk();
    let mut late = work(1);
    late.timeout_ms = 3000;
    desk.session
        .expired(desk.now, desk.now + Duration::from_secs(60));
    desk.dispatch(head(1, 1, 1), vec![late]);
    let key = desk.start().expect("queued");
    assert!(desk.session.take_effects().deadline);
    let next = desk.now + Duration::from_secs(60);
    assert!(desk.session.expired(at(102), next).is_empty());
    assert_eq!(desk.session.looks_at(), at(103));
    assert_eq!(desk.session.expired(at(103), next), [key]);
    assert!(desk.session.expired(at(104), next).is_empty());
    let failed = Finished {
        outcome: Outcome::Failure {
            kind: FailureKind::Timeout,
            error: ErrorReport::default(),
            retry: true,
        },
        instructions: Bytes::new(),
        started_at: desk.now,
    };
    desk.session.finish(key, failed, at(103));
    desk.succeed(key);
    assert_eq!(desk.session.counts(), (0, 1));
    assert_eq!(
        desk.session.load(),
        Load {
            queued: 0,
            running: 0,
            done: 1
        }
    );
}

#[test]
fn dispatch_before_the_hello_was_meant_for_another_and_is_not_taken() {
    let mut desk = desk();
    assert_eq!(
        desk.dispatch_unheralded(head(1, 1, 7), vec![work(1)]).start,
        0
    );
    assert_eq!(desk.session.stale_count(), 1);
    desk.hello(head(1, 1, 8));
    assert_eq!(
        desk.dispatch_unheralded(head(1, 1, 9), vec![work(2)]).start,
        1
    );
    // A new epoch greets anew.
    assert_eq!(
        desk.dispatch_unheralded(head(1, 2, 1), vec![work(3)]).start,
        0
    );
}

#[test]
fn dispatch_to_another_worker_at_this_address_is_dropped() {
    let to = |worker: u8, counter: u64| Dispatch {
        head: head(1, 1, counter),
        worker: Some(WorkerId::from_bytes([worker; 16])),
        pipeline: PipelineName::new("p").expect("a valid name"),
        jobs: vec![work(counter)],
    };
    let mut desk = desk();
    desk.hello(head(1, 1, 1));
    assert_eq!(desk.receive(to(2, 2)).start, 0);
    assert_eq!(desk.session.stale_count(), 1);
    assert_eq!(desk.session.held()[0].held, [], "it is not even held");
    assert_eq!(desk.session.held()[0].sequence, 2, "but it was received");
    assert_eq!(desk.receive(to(1, 3)).start, 1);
    let mut shared = desk_with(|profile| profile.shared_address = true);
    assert_eq!(shared.receive(to(2, 2)).start, 1);
}

#[test]
fn dispatch_behind_a_device_needs_no_hello() {
    let mut desk = desk_with(|profile| profile.shared_address = true);
    assert_eq!(
        desk.dispatch_unheralded(head(1, 1, 7), vec![work(1)]).start,
        1
    );
}

#[test]
fn option_overrides_the_dispatched_timeout() {
    let mut desk = desk_with(|profile| profile.timeout = Some(Duration::from_secs(1)));
    let mut work = work(1);
    work.timeout_ms = 50_000;
    desk.dispatch(head(1, 1, 1), vec![work]);
    let key = desk.start().expect("queued");
    assert_eq!(desk.session.expired(at(101), at(200)), [key]);
}

#[test]
fn drain_hands_back_queued_then_what_outlasts_the_grace_then_says_goodbye() {
    let mut desk = desk();
    desk.give(&[1, 2]);
    let running = desk.start().expect("queued");
    desk.session.take_effects();
    desk.session.drain();
    assert!(desk.session.take_effects().heartbeat);
    desk.session.abandon_running();
    desk.session.goodbye();
    assert_eq!(desk.sends(0), ["Draining [2]", "Abandoned [1]", "goodbye"]);
    desk.succeed(running);
    assert_eq!(
        (desk.session.load(), desk.sends(0)),
        (Load::default(), vec![])
    );
}

#[test]
fn abandoned_attempts_go_back_one_by_one_and_only_while_they_run() {
    let mut desk = desk();
    desk.give(&[1, 2, 3]);
    let (first, second) = (desk.start().expect("1"), desk.start().expect("2"));
    desk.session.drain();
    assert_eq!(desk.sends(0), ["Draining [3]"]);
    desk.session.abandon(first);
    desk.session.abandon(first);
    assert_eq!(desk.sends(0), ["Abandoned [1]"]);
    desk.succeed(second);
    desk.session.abandon(second);
    desk.session.abandon_running();
    assert_eq!(desk.sends(0), ["results [2]"]);
    desk.acknowledge(0, &[2]);
    desk.hello(head(1, 2, 1));
    assert_eq!(desk.sends(0), ["Abandoned [1]"]);
    assert_eq!(desk.held(), [(1, HeldState::Running)]);
}

#[test]
fn what_was_abandoned_is_told_again_to_a_manager_that_was_started_again() {
    let mut desk = desk();
    desk.give(&[1, 2]);
    desk.start().expect("queued");
    desk.session.drain();
    desk.session.abandon_running();
    assert_eq!(desk.sends(0), ["Draining [2]", "Abandoned [1]"]);
    desk.hello(head(1, 1, 40));
    assert_eq!(desk.sends(0), [""; 0], "it has heard it in this life");
    assert_eq!(desk.session.held()[0].held, []);
    desk.hello(head(1, 2, 1));
    assert_eq!(desk.sends(0), ["Abandoned [1]"]);
    let held = &desk.session.held()[0].held;
    let listed: Vec<_> = held
        .iter()
        .map(|held| (held.attempt.counter, held.state))
        .collect();
    assert_eq!(listed, [(1, HeldState::Running)], "until it is gone");
}

#[test]
fn managers_are_bounded_and_those_with_work_stay() {
    let mut desk = desk();
    desk.give(&[1]);
    for id in 2..200 {
        desk.now = desk.now + Duration::from_secs(1);
        desk.hello(head(id, 1, 1));
    }
    let lists = desk.session.held();
    assert_eq!(lists.len(), MANAGERS_MAX);
    assert_eq!((lists[0].manager, lists[0].held.len()), (manager(1), 1));
    assert!(lists.iter().any(|list| list.manager == manager(199)));
}

/// Who was displaced would have to say hello before its work is taken again, and does not
/// know that.
#[test]
fn strangers_do_not_displace_a_manager_whose_work_was_taken() {
    let mut desk = desk();
    desk.complete(&[1]);
    desk.sends(0);
    desk.acknowledge(0, &[1]);
    for id in 2..200 {
        desk.now = desk.now + Duration::from_secs(1);
        desk.hello(head(id, 1, 1));
    }
    desk.number += 1;
    desk.dispatch_unheralded(head(1, 1, desk.number), vec![work(2)]);
    assert_eq!(desk.held(), [(2, HeldState::Queued)]);
}

#[test]
fn answers_use_each_managers_codec() {
    let mut desk = desk();
    desk.complete(&[1]);
    let json = Dispatch {
        head: head(2, 1, 2),
        worker: None,
        pipeline: PipelineName::new("p").expect("a valid name"),
        jobs: vec![work(1)],
    };
    desk.hello(head(2, 1, 1));
    desk.session.receive(json.into(), Codec::Json, desk.now);
    let key = desk.start().expect("queued");
    desk.succeed(key);
    let codecs: Vec<Codec> = std::iter::from_fn(|| desk.session.take_outgoing(0))
        .map(|outgoing| outgoing.codec)
        .collect();
    assert_eq!(codecs, [Codec::Bincode, Codec::Json]);
    assert_eq!(desk.session.codec(), Codec::Json);
}

#[test]
fn messages_that_no_manager_sends_are_refused() {
    let mut desk = desk();
    let goodbye = Goodbye {
        worker: WorkerId::from_bytes([3; 16]),
    };
    assert!(!desk.session.receive(goodbye.into(), Codec::Bincode, at(1)));
}

#[test]
fn recalled_attempts_leave_nothing_behind_while_a_long_one_runs() {
    let mut desk = desk();
    desk.give(&[1]);
    desk.start();
    for counter in 2..20_000 {
        desk.give(&[counter]);
        desk.receive(Recall {
            head: head(1, 1, 3),
            attempts: attempts(&[counter]),
        });
        desk.sends(0);
    }
    assert!(
        desk.session.queue.len() < 2000,
        "{}",
        desk.session.queue.len()
    );
    desk.give(&[30_000]);
    assert_eq!(desk.start().map(|key| key.attempt), Some(attempt(30_000)));
}

#[test]
fn dead_route_does_not_gather_what_went_by_another() {
    let mut desk = desk_with(|profile| profile.routes = 2);
    for epoch in 1..5_000 {
        // Each new epoch forgets the route, so that the dead one is tried again.
        desk.hello(head(1, epoch, 1));
        desk.dispatch(head(1, epoch, 2), vec![work(epoch)]);
        let key = desk.start().expect("queued");
        desk.succeed(key);
        desk.sends(0);
        desk.receive(Ack {
            head: head(1, epoch, 3),
            route: 0,
            attempts: attempts(&[epoch]),
        });
    }
    let waiting = desk.session.routes[1].results.len();
    assert!(waiting < 2000, "{waiting}");
}

#[test]
fn results_given_up_let_waiting_attempts_start() {
    let mut desk = desk_with(|profile| profile.shared_address = true);
    desk.give(&[1]);
    let key = desk.start().expect("queued");
    let finished = Finished {
        outcome: Outcome::Success,
        // Its pages are never touched.
        instructions: Bytes::from(vec![0; DONE_BYTES_MAX + 1]),
        started_at: desk.now,
    };
    desk.session.finish(key, finished, desk.now);
    desk.give(&[2]);
    assert_eq!(desk.start(), None, "too many results are kept");
    let mut started = 0;
    while desk.session.load().done > 0 {
        desk.session.sent(&[key], desk.now);
        desk.session.take_effects();
        desk.now = desk.now + Duration::from_secs(1000);
        desk.session.tick(desk.now);
        started += desk.session.take_effects().start;
    }
    assert_eq!(started, 1, "a runner is woken");
}

/// Found by the simulator, seed 1996.
#[test]
fn dispatch_on_a_pipe_that_was_given_up_is_not_taken() {
    let mut desk = desk();
    desk.give(&[1]);
    desk.hello(head(1, 1, (2 << 32) + 7));
    assert_eq!(
        desk.dispatch_unheralded(head(1, 1, 900), vec![work(2)])
            .start,
        0
    );
    assert_eq!(
        desk.hello(head(1, 1, 899)),
        Effects::default(),
        "its hello is late, too"
    );
    assert_eq!(
        desk.dispatch_unheralded(head(1, 1, 900), vec![work(2)])
            .start,
        0
    );
    assert_eq!(desk.session.stale_count(), 3);
    let next = head(1, 1, (2 << 32) + 8);
    assert_eq!(desk.dispatch_unheralded(next, vec![work(3)]).start, 1);
}

#[test]
fn dispatch_that_comes_twice_does_not_begin_again() {
    let mut desk = desk();
    desk.give(&[1]);
    let started = desk.session.start_next(desk.now).expect("it waits");
    let finished = Finished {
        outcome: Outcome::Success,
        instructions: Bytes::new(),
        started_at: desk.now,
    };
    desk.session.finish(started.key, finished, desk.now);
    desk.acknowledge(0, &[1]);
    assert_eq!(desk.session.load(), Load::default());
    let again = head(1, 1, desk.number);
    assert_eq!(desk.dispatch_unheralded(again, vec![work(1)]).start, 0);
    let behind_a_device = |profile: &mut Profile| profile.shared_address = true;
    let mut desk = desk_with(behind_a_device);
    desk.give(&[1]);
    let other_pipe = head(1, 1, 1);
    assert_eq!(desk.dispatch_unheralded(other_pipe, vec![work(2)]).start, 1);
}
