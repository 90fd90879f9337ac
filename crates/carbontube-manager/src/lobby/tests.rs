//! The lobby under floods.

use std::time::Duration;

use carbontube_protocol::Codec;

use super::*;
use crate::core::PipeId;

fn origin(host: u8, connection: u64) -> Origin {
    Origin {
        host: Some([10, 0, 0, host].into()),
        connection,
        is_local: false,
    }
}

fn worker(n: u128) -> WorkerId {
    WorkerId::from_bytes(n.to_be_bytes())
}

fn place(port: u16) -> Address {
    Address::tcp("10.0.0.9", port)
}

/// Stands for a heartbeat: what it is does not matter here.
fn said(port: u16) -> Input {
    Input::Codec {
        address: place(port),
        codec: Codec::Json,
    }
}

fn put(lobby: &mut Lobby, from: Origin, who: u128, port: u16) -> Put {
    lobby.put(from, worker(who), &place(port), vec![said(port)], 100)
}

fn take(lobby: &mut Lobby, now: Instant) -> Vec<u16> {
    let mut batch = Vec::new();
    lobby.take(&mut batch, 128, now);
    let ports = batch.iter().map(|input| match input {
        Input::Codec {
            address: Address::Tcp { port, .. },
            ..
        } => port.unwrap_or(0),
        other => panic!("{other:?}"),
    });
    ports.collect()
}

#[test]
fn trusted_workers_pass_all_strangers_and_only_their_newest_word_counts() {
    let mut lobby = Lobby::default();
    let trusted = Rank::Trusted(place(1), PipeId(1));
    lobby.rank(worker(1), &trusted);
    for n in 0..100_000 {
        put(&mut lobby, origin(2, 2), 1000 + n, 7);
    }
    assert_eq!(put(&mut lobby, origin(1, 1), 1, 1), Put::Waits);
    assert_eq!(put(&mut lobby, origin(1, 1), 1, 1), Put::Merged);
    // Its id from somewhere else is a stranger's.
    assert_eq!(put(&mut lobby, origin(2, 2), 1, 66), Put::Displaced(1));
    let now = Instant::now();
    let taken = take(&mut lobby, now);
    assert_eq!(taken[0], 1);
    assert_eq!(taken.iter().filter(|port| **port == 1).count(), 1);
    assert!(taken.len() <= 128);
    assert!(lobby.strangers.turns.len() <= WAITING_MAX);
}

#[test]
fn honest_newcomer_has_its_turn_with_every_source() {
    let mut lobby = Lobby::default();
    let start = Instant::now();
    // Whoever came first has used up all that comes in at once.
    let mut flood = 0;
    let mut invent = |lobby: &mut Lobby, connections: u64| {
        for n in 0..3000 {
            flood += 1;
            put(lobby, origin(2, n % connections), 1000 + flood, 7);
        }
    };
    for second in 0..10 {
        for tenth in 0..10 {
            invent(&mut lobby, 50);
            take(
                &mut lobby,
                start + Duration::from_millis(second * 1000 + tenth * 100),
            );
        }
    }
    let later = start + Duration::from_secs(10);
    put(&mut lobby, origin(1, 777), 1, 1);
    let mut waited = 0;
    while !take(&mut lobby, later + Duration::from_millis(waited)).contains(&1) {
        waited += 10;
        invent(&mut lobby, 50);
    }
    assert!(waited <= 50, "{waited} ms beside another host");
    // From the very host of the others: after each of its connections.
    put(&mut lobby, origin(2, 777), 2, 2);
    let later = later + Duration::from_secs(1);
    let mut waited = 0;
    while !take(&mut lobby, later + Duration::from_millis(waited)).contains(&2) {
        waited += 10;
        invent(&mut lobby, 50);
    }
    assert!(waited <= 1000, "{waited} ms beside 50 connections");
}

#[test]
fn strangers_are_let_in_at_a_pace() {
    let mut lobby = Lobby::default();
    let start = Instant::now();
    let mut let_in = 0;
    for tick in 0..2000_u64 {
        for n in 0..100 {
            put(&mut lobby, origin(2, 2), u128::from(tick * 100 + n), 7);
        }
        let_in += take(&mut lobby, start + Duration::from_millis(tick * 10)).len();
    }
    let most = 512 + 20 * 100;
    assert!(let_in <= most, "{let_in}");
    assert!(let_in >= most - 10, "{let_in}");
    let end = start + Duration::from_secs(20);
    let next = lobby.next(end).expect("more wait");
    assert!(next <= end + Duration::from_millis(10));
}
