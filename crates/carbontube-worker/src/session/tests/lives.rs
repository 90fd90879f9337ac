//! Several lives of one manager: restored journals, copies, forged hellos.

use super::*;

/// The epochs that heartbeats name, with the numbers received in them.
fn told(desk: &Desk) -> Vec<(u64, u64)> {
    let held = desk.session.held();
    held.iter().map(|of| (of.epoch, of.sequence)).collect()
}

fn takes(desk: &mut Desk, head: PipeHead, counter: u64) -> bool {
    desk.dispatch_unheralded(head, vec![work(counter)]).start == 1
}

#[test]
fn hello_far_beyond_the_known_epoch_does_not_make_a_worker_deaf() {
    for wild in [1 << 62, u64::MAX, 1 << 47] {
        let mut desk = desk();
        desk.hello(head(1, 4, 10));
        desk.hello(head(1, wild, 1));
        assert!(takes(&mut desk, head(1, 4, 11), 1), "{wild}");
    }
}

#[test]
fn hello_of_an_epoch_that_none_reaches_is_not_believed_by_a_new_worker() {
    let mut desk = desk();
    desk.hello(head(1, 1 << 62, 1));
    assert_eq!(told(&desk), []);
    desk.hello(head(1, 4, 10));
    assert!(takes(&mut desk, head(1, 4, 11), 1));
}

#[test]
fn worker_goes_back_to_the_manager_that_greets_again_when_a_forged_life_is_silent() {
    for forged in [5, 1 << 30] {
        let mut desk = desk();
        desk.hello(head(1, 4, 10));
        desk.hello(head(1, forged, 99));
        desk.now = at(101);
        assert!(!takes(&mut desk, head(1, 4, 11), 1), "it follows {forged}");
        desk.hello(head(1, 4, 12));
        desk.now = at(105);
        desk.hello(head(1, 4, 13));
        assert!(!takes(&mut desk, head(1, 4, 14), 1), "it may still answer");
        desk.now = at(106);
        desk.hello(head(1, 4, 15));
        assert!(takes(&mut desk, head(1, 4, 16), 1));
        assert_eq!(told(&desk), [(4, 16)]);
    }
}

#[test]
fn heartbeat_names_a_rival_behind_the_life_that_is_followed() {
    let mut desk = desk();
    desk.give(&[1]);
    desk.hello(head(1, 4, 10));
    let effects = desk.hello(head(1, 2, 77));
    assert!(effects.heartbeat, "both hear of each other at once");
    assert_eq!(
        effects.notice,
        Some(Notice::Disputed {
            manager: manager(1),
            followed: 4,
            rival: 2,
        })
    );
    assert_eq!(told(&desk), [(4, 10), (2, 77)]);
    assert_eq!(desk.session.held()[0].held.len(), 1, "held by the first");
    assert_eq!(desk.session.held()[1].held, []);
    // It does not say so for ever.
    desk.now = at(111);
    desk.session.tick(desk.now);
    assert_eq!(told(&desk), [(4, 10)]);
}

#[test]
fn rival_does_not_win_while_the_followed_life_answers() {
    let mut desk = desk();
    desk.hello(head(1, 4, 10));
    for second in 1..60 {
        desk.now = at(100 + second);
        desk.hello(head(1, 3, 900 + second));
        desk.now = desk.now + Duration::from_millis(50);
        desk.hello(head(1, 4, 10 + second));
    }
    assert!(takes(&mut desk, head(1, 4, 100), 1));
    assert!(!takes(&mut desk, head(1, 3, 2000), 2));
}

#[test]
fn one_hello_of_an_earlier_life_that_was_under_way_changes_nothing() {
    let mut desk = desk();
    desk.hello(head(1, 4, 10));
    desk.hello(head(1, 5, 1));
    desk.hello(head(1, 4, 11));
    desk.now = at(200);
    assert!(!takes(&mut desk, head(1, 4, 12), 1));
    assert!(takes(&mut desk, head(1, 5, 2), 2));
}

#[test]
fn rival_waits_for_another_that_greeted_once_and_then_has_its_turn() {
    let mut desk = desk();
    desk.hello(head(1, 1 << 47, 1));
    desk.hello(head(1, 1_000_000, 1));
    for second in 1..20 {
        desk.now = at(100 + second);
        desk.hello(head(1, 4, 10 + second));
    }
    assert_eq!(told(&desk), [(4, 29)]);
}

#[test]
fn patience_is_bounded_whatever_a_hello_says() {
    let mut desk = desk();
    let mut forged = Hello {
        head: head(1, 9, 1),
        pipeline: PipelineName::new("p").expect("a valid name"),
        worker_timeout_ms: u64::MAX,
    };
    desk.receive(forged.clone());
    desk.hello(head(1, 4, 10));
    desk.now = at(105);
    desk.hello(head(1, 4, 11));
    assert_eq!(told(&desk), [(4, 11)]);
    // Nor is one in a hurry believed at once.
    forged.head = head(1, 2, 1);
    forged.worker_timeout_ms = 0;
    desk.receive(forged.clone());
    desk.receive(forged);
    assert_eq!(told(&desk)[0], (4, 11));
}

#[test]
fn what_was_abandoned_is_named_to_a_restored_life_as_well() {
    let mut desk = desk();
    desk.give(&[1]);
    let key = desk.start().expect("it waits");
    desk.hello(head(1, 4, 10));
    desk.session.abandon(key);
    desk.hello(head(1, 2, 10));
    desk.now = at(106);
    desk.hello(head(1, 2, 11));
    assert_eq!(told(&desk), [(2, 11)]);
    assert_eq!(desk.session.held()[0].held.len(), 1);
}
