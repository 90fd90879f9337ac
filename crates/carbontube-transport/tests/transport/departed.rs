//! Peers that go while nobody receives: in order, with a reset, or without a word.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use carbontube_transport::{Message, Options, Pull, Subscribe};
use socket2::SockRef;

use crate::raw::{Raw, frame};
use crate::support::{any_port, port, reached, run, soon};

const ROLE: &str = "CARBONTUBE_TEST_VANISHED";

fn reset(raw: Raw) {
    let socket = SockRef::from(&raw.0);
    socket
        .set_linger(Some(Duration::ZERO))
        .expect("an open socket");
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message[0]).into_owned()
}

#[test]
fn pull_that_is_not_received_from_notices_departed_peers_and_keeps_what_they_sent() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let port = port(&pull.local_addresses());
        let mut peers: Vec<Raw> = (0..2).map(|_| Raw::meet(port, "PUSH")).collect();
        for (peer, word) in peers.iter_mut().zip(["first", "second"]) {
            peer.send(&frame(0, word.as_bytes()));
        }
        reached("both are there", || pull.counters().messages_in == 2).await;
        drop(peers.remove(0));
        reset(peers.remove(0));
        reached("both are gone", || pull.peers() == 0).await;
        let mut words = Vec::new();
        for _ in 0..2 {
            words.push(text(&soon("a message", pull.recv()).await.unwrap()));
        }
        words.sort();
        assert_eq!(words, ["first", "second"]);
        pull.close().await;
    });
}

#[test]
fn subscribe_that_is_not_received_from_notices_departed_peers() {
    run(async {
        let subscribe = Subscribe::open(Options::default(), any_port(), [""])
            .await
            .unwrap();
        let port = port(&subscribe.local_addresses());
        let mut orderly = Raw::meet(port, "PUB");
        let mut abrupt = Raw::meet(port, "PUB");
        for peer in [&mut orderly, &mut abrupt] {
            peer.send(&frame(0, b"event"));
        }
        reached("both are there", || subscribe.counters().messages_in == 2).await;
        drop(orderly);
        reset(abrupt);
        reached("both are gone", || subscribe.peers() == 0).await;
        subscribe.close().await;
    });
}

/// While a queue is full, what a peer sent stands in the kernel: it is kept for as long as
/// nobody receives, and so is the connection's place.
#[test]
fn peer_that_leaves_behind_a_full_queue_is_served_to_its_end() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let mut peer = Raw::meet(port(&pull.local_addresses()), "PUSH");
        let message = frame(0, &[7; 4000]);
        // Nobody reads: the writes end when all the buffers on the way are full.
        let full = Some(Duration::from_millis(300));
        peer.0.set_write_timeout(full).expect("an open socket");
        let mut written = 0;
        let sent = loop {
            match peer.0.write(&message[written % message.len()..]) {
                Ok(more) => written += more,
                Err(_) => break written / message.len(),
            }
        };
        assert!(sent > 100, "{sent} messages fill the way");
        drop(peer);
        assert_eq!(pull.peers(), 1, "there is more to read from it");
        for count in 0..sent {
            let what = format!("message {count} of {sent}");
            assert_eq!(soon(&what, pull.recv()).await.unwrap()[0].len(), 4000);
        }
        reached("it is gone", || pull.peers() == 0).await;
        pull.close().await;
    });
}

/// The wire itself breaks, so that neither side says a word: in a network of this test's
/// own, where the kernel allows one (as root, or with user namespaces).
#[test]
fn pull_notices_a_peer_that_vanished_without_a_word() {
    if std::env::var_os(ROLE).is_some() {
        return lose_the_wire();
    }
    let own_network = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", program]);
        command.args(arguments);
        command
    };
    let possible = own_network("ip", &["link", "set", "lo", "up"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("left out: no network of its own (needs unshare, ip and the right to use them)");
        return;
    }
    let name = "departed::pull_notices_a_peer_that_vanished_without_a_word";
    let program = std::env::current_exe().expect("this program");
    let program = program.to_str().expect("a path in UTF-8");
    let output = own_network(program, &["--exact", name, "--nocapture"])
        .env(ROLE, "alone")
        .output()
        .expect("this program starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("noticed after"), "{told}");
}

fn lose_the_wire() {
    let link = |state: &str| {
        let status = Command::new("ip")
            .args(["link", "set", "lo", state])
            .status()
            .expect("ip is there");
        assert!(status.success());
    };
    link("up");
    run(async {
        let options = Options {
            keepalive: Duration::from_secs(1),
            user_timeout: Duration::from_secs(3),
            ..Options::default()
        };
        let pull = Pull::open(options, any_port()).await.unwrap();
        let _peer = Raw::meet(port(&pull.local_addresses()), "PUSH");
        reached("it is there", || pull.peers() == 1).await;
        link("down");
        let began = Instant::now();
        reached("it is gone", || pull.peers() == 0).await;
        println!("noticed after {:?}", began.elapsed());
    });
}
