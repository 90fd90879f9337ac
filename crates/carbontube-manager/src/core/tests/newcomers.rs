//! Floods of workers that nobody has.

use std::time::Duration;

use carbontube_protocol::message::Heartbeat;
use carbontube_protocol::{Address, WorkerId};

use super::bed::{Bed, pipeline, worker_id};
use crate::core::{CoreOptions, Input, Rank};

/// A heartbeat of the nth invented worker, at an address of its own.
fn invented(bed: &mut Bed, n: u32) -> Heartbeat {
    let real = *bed.workers.keys().next().expect("a real worker is there");
    let mut beat = bed.heartbeat(real).expect("it lives");
    let mut id = [7; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    beat.worker = WorkerId::from_bytes(id);
    beat.address = Address::tcp(&format!("10.{}.{}.1", n / 250, n % 250), 7000);
    beat.managers.clear();
    beat
}

fn counted(bed: &mut Bed, name: &str) -> u64 {
    let counters = bed.stats().counters;
    let found = counters.iter().find(|(found, _)| found == name);
    found.map_or(0, |(_, count)| *count)
}

fn is_proven(bed: &Bed, id: WorkerId) -> bool {
    let worker = bed.core.workers.table.get(&id);
    worker.is_some_and(|worker| worker.proven)
}

#[test]
fn flood_of_newcomers_fills_neither_the_table_nor_the_network() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    bed.beat(real);
    let (most, pace) = (512, 100);
    let mut n = 0;
    for _ in 0..200 {
        // Thousands in a second.
        for _ in 0..30 {
            n += 1;
            let beat = invented(&mut bed, n);
            bed.input(Input::Heartbeat(beat));
            assert!(bed.core.newcomers() <= most);
            assert!(bed.core.workers.pipes.len() <= most + 1);
        }
        bed.beat(real);
        bed.pass(Duration::from_millis(10));
    }
    let dialled = bed.opened.len() - 1;
    assert!(dialled <= most + 2 * pace, "{dialled}");
    assert!(dialled >= most, "{dialled}");
    assert!(counted(&mut bed, "newcomers_refused") > 5000);
    assert!(is_proven(&bed, real));
}

#[test]
fn honest_worker_is_proven_soon_amid_a_flood_that_comes_at_the_lobbys_pace() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    let mut n = 0;
    let mut invent = |bed: &mut Bed| {
        // As the lobby lets them in: others have a turn in between.
        n += 1;
        let beat = invented(bed, n);
        bed.input(Input::Heartbeat(beat));
        bed.pass(Duration::from_millis(20));
    };
    for _ in 0..1000 {
        invent(&mut bed);
    }
    bed.beat(real);
    let honest = bed.add_worker(2, "one", 1);
    let started = bed.now;
    while !is_proven(&bed, honest) {
        invent(&mut bed);
        bed.beat(honest);
        assert!(bed.now.since(started) < Duration::from_secs(5));
    }
}

#[test]
fn newcomer_whose_address_answers_stays_when_others_have_to_go() {
    let options = CoreOptions {
        newcomers_max: 4,
        ..CoreOptions::default()
    };
    let mut bed = Bed::with(pipeline(&["one"]), options);
    let real = bed.add_worker(1, "one", 1);
    bed.beat(real);
    bed.pass(Duration::from_millis(100));
    let mut all = Vec::new();
    for n in 0..4 {
        let beat = invented(&mut bed, n);
        all.push(beat.worker);
        bed.input(Input::Heartbeat(beat));
    }
    let pipe = bed.core.workers.table[&all[0]].pipe;
    bed.input(Input::PipeUp { pipe });
    let late = invented(&mut bed, 50);
    bed.input(Input::Heartbeat(late));
    assert_eq!(
        counted(&mut bed, "newcomers_refused"),
        1,
        "all have had no time"
    );
    for _ in 0..3 {
        bed.pass(Duration::from_secs(1));
        bed.beat(real);
        for n in 0..4 {
            let beat = invented(&mut bed, n);
            bed.input(Input::Heartbeat(beat));
        }
    }
    let late = invented(&mut bed, 50);
    let new = late.worker;
    bed.input(Input::Heartbeat(late));
    let table = &bed.core.workers.table;
    assert!(table.contains_key(&new) && table.contains_key(&all[0]));
    assert!(
        !table.contains_key(&all[1]),
        "the oldest that nobody answers for"
    );
    assert_eq!(bed.core.newcomers(), 4);
}

#[test]
fn proven_worker_is_not_moved_by_whoever_knows_its_id() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    bed.beat(real);
    assert!(is_proven(&bed, real));
    let opened = bed.opened.len();
    for n in 0..100 {
        let mut beat = invented(&mut bed, n);
        beat.worker = real;
        bed.input(Input::Heartbeat(beat));
    }
    assert_eq!(bed.opened.len(), opened, "nobody is dialled");
    assert!(is_proven(&bed, real));
    assert_eq!(counted(&mut bed, "heartbeats_from_elsewhere"), 100);
    // One whose pipe is down may be elsewhere now.
    let pipe = bed.core.workers.table[&real].pipe;
    bed.input(Input::PipeDown { pipe });
    let mut beat = invented(&mut bed, 1);
    beat.worker = real;
    bed.input(Input::Heartbeat(beat));
    assert_eq!(bed.opened.len(), opened + 1);
    assert_eq!(bed.core.newcomers(), 1);
}

#[test]
fn ranks_follow_what_a_worker_has_shown() {
    let mut bed = Bed::new(&["one"]);
    let real = bed.add_worker(1, "one", 1);
    bed.core.take_ranks();
    let beat = invented(&mut bed, 1);
    let stranger = beat.worker;
    bed.input(Input::Heartbeat(beat));
    assert_eq!(bed.core.take_ranks(), [(stranger, Rank::Newcomer)]);
    bed.beat(real);
    let ranks = bed.core.take_ranks();
    let address = super::bed::address_of(worker_id(1));
    assert!(
        matches!(&ranks[..], [(id, Rank::Trusted(at, _))] if *id == real && *at == address),
        "{ranks:?}"
    );
    for _ in 0..6 {
        bed.pass(Duration::from_secs(1));
        bed.beat(real);
    }
    let ranks = bed.core.take_ranks();
    assert!(ranks.contains(&(stranger, Rank::Stranger)), "{ranks:?}");
}
