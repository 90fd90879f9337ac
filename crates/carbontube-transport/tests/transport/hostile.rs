//! Peers that lie, stall, flood or talk nonsense: the process stays up and small, others notice nothing.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use carbontube_transport::{
    CountersSnapshot, Dealer, Endpoint, Options, Publish, Pull, Push, Router, Subscribe,
};

use crate::raw::{Raw, declare, frame, greeting, ready};
use crate::support::{
    any_port, local, message, port, quick, reached, resident_mib, run, soon, text,
};

/// Lengths that made the bare crate abort, and the first one over our limit.
const LENGTHS: [u64; 5] = [1 << 26, 1 << 36, 1 << 62, (1 << 63) - 1, u64::MAX];
/// How much the process may grow in a hostile test, others running beside it.
const GROWTH_MIB: usize = 96;

/// A bound socket of each kind, with a way to see that it still serves.
enum Victim {
    Pull(Pull),
    Router(Router),
    Subscribe(Subscribe),
    Publish(Publish),
}

impl Victim {
    async fn all(options: &Options) -> Vec<Self> {
        let options = || options.clone();
        vec![
            Self::Pull(Pull::open(options(), any_port()).await.unwrap()),
            Self::Router(Router::open(options(), any_port()).await.unwrap()),
            Self::Subscribe(Subscribe::open(options(), any_port(), [""]).await.unwrap()),
            Self::Publish(Publish::open(options(), any_port()).await.unwrap()),
        ]
    }

    fn port(&self) -> u16 {
        port(&match self {
            Self::Pull(socket) => socket.local_addresses(),
            Self::Router(socket) => socket.local_addresses(),
            Self::Subscribe(socket) => socket.local_addresses(),
            Self::Publish(socket) => socket.local_addresses(),
        })
    }

    fn peer_type(&self) -> &'static str {
        match self {
            Self::Pull(_) => "PUSH",
            Self::Router(_) => "DEALER",
            Self::Subscribe(_) => "PUB",
            Self::Publish(_) => "SUB",
        }
    }

    fn counters(&self) -> CountersSnapshot {
        match self {
            Self::Pull(socket) => socket.counters(),
            Self::Router(socket) => socket.counters(),
            Self::Subscribe(socket) => socket.counters(),
            Self::Publish(socket) => socket.counters(),
        }
    }

    /// A well-behaved peer is connected before and after, on one connection.
    async fn serves(&mut self, peer: &mut Raw) {
        match self {
            Self::Publish(publish) => {
                publish.send(message("hello"));
                assert_eq!(peer.read_frame().unwrap(), (0, b"hello".to_vec()));
            }
            receiver => {
                peer.send(&frame(0, b"hello"));
                let got = soon("hello", receiver.recv()).await;
                assert_eq!(got, "hello");
            }
        }
    }

    async fn recv(&mut self) -> String {
        text(&match self {
            Self::Pull(socket) => socket.recv().await.unwrap(),
            Self::Router(socket) => socket.recv().await.unwrap().1,
            Self::Subscribe(socket) => socket.recv().await.unwrap(),
            Self::Publish(_) => panic!("a publisher receives nothing"),
        })
    }

    /// Connects a good peer.
    async fn good_peer(&mut self) -> Raw {
        let mut peer = Raw::meet(self.port(), self.peer_type());
        match self {
            Self::Publish(publish) => {
                peer.send(&frame(0, b"\x01"));
                peer.0.set_nonblocking(true).unwrap();
                reached("the subscription", || {
                    publish.send(message("sync"));
                    let mut byte = [0];
                    matches!(peer.0.peek(&mut byte), Ok(1))
                })
                .await;
                peer.0.set_nonblocking(false).unwrap();
                publish.send(message("synced"));
                while peer.read_frame().unwrap().1 != b"synced" {}
            }
            Self::Subscribe(_) => {
                assert_eq!(peer.read_frame().unwrap(), (0, b"\x01".to_vec()));
            }
            _ => {}
        }
        peer
    }
}

#[test]
fn trap_15_huge_lengths_towards_bound_sockets_close_that_peer_only() {
    run(async {
        for mut victim in Victim::all(&Options::default()).await {
            let mut good = victim.good_peer().await;
            let before = resident_mib();
            for length in LENGTHS {
                for flags in [0, 1, 4] {
                    let mut early = Raw::connect(victim.port());
                    early.send(&greeting());
                    early.send(&declare(flags, length));
                    early.expect_closed();

                    let mut late = Raw::meet(victim.port(), victim.peer_type());
                    late.send(&declare(flags, length));
                    let rest = late.expect_closed();
                    let told = rest.windows(6).any(|window| window == b"\x05ERROR");
                    assert!(told, "no ERROR in {rest:?}");
                }
            }
            victim.serves(&mut good).await;
            assert_eq!(
                victim.counters().closed_oversized,
                15,
                "{}",
                victim.counters()
            );
            assert_eq!(victim.counters().handshakes_malformed, 15);
            assert!(resident_mib() < before + GROWTH_MIB);
        }
    });
}

#[test]
fn trap_15_huge_lengths_from_a_hostile_server_leave_dialling_sockets_alive() {
    run(async {
        for early in [true, false] {
            // What was written to an attacker is lost, so each says hello until it is heard.
            hostile_server("PULL", early, |at| async move {
                let push = Push::open(Options::default(), local(at)).await.unwrap();
                loop {
                    push.send(message("hello")).await.unwrap();
                    async_io::Timer::after(Duration::from_millis(5)).await;
                }
            })
            .await;
            hostile_server("ROUTER", early, |at| async move {
                let dealer = Dealer::open(Options::default(), local(at)).await.unwrap();
                loop {
                    dealer.send(message("hello")).await.unwrap();
                    async_io::Timer::after(Duration::from_millis(5)).await;
                }
            })
            .await;
            hostile_server("PUB", early, |at| async move {
                let endpoints = [Endpoint::Connect(local(at))];
                let options = Options::default();
                let mut sub = Subscribe::open(options, endpoints, ["hello"])
                    .await
                    .unwrap();
                sub.recv().await.unwrap();
            })
            .await;
        }
    });
}

/// A server that attacks with every length in turn, and then behaves.
async fn hostile_server<F>(socket_type: &'static str, early: bool, victim: impl FnOnce(u16) -> F)
where
    F: Future<Output = ()>,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().port();
    let before = resident_mib();
    let server = async_std::task::spawn_blocking(move || {
        for length in LENGTHS {
            let mut raw = if early {
                let mut raw = Raw(listener.accept().unwrap().0);
                raw.send(&greeting());
                raw
            } else {
                Raw::accept(&listener, socket_type)
            };
            raw.send(&declare(4 * u8::from(early), length));
            raw.0
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            raw.expect_closed();
        }
        let mut raw = Raw::accept(&listener, socket_type);
        loop {
            let (_, body) = raw.read_frame().unwrap();
            if body.ends_with(b"hello") {
                return;
            }
        }
    });
    let attack = futures_lite::future::or(
        async {
            server.await;
            true
        },
        async {
            victim(at).await;
            false
        },
    );
    assert!(
        soon("the end of the attack", attack).await,
        "the victim gave up"
    );
    assert!(resident_mib() < before + GROWTH_MIB);
}

#[test]
fn random_bytes_at_every_stage_harm_nobody() {
    run(async {
        for mut victim in Victim::all(&quick()).await {
            let mut good = victim.good_peer().await;
            let before = resident_mib();
            for seed in 0..120 {
                let mut random = fastrand::Rng::with_seed(seed);
                let bytes: Vec<u8> = (0..random.usize(1..3000)).map(|_| random.u8(..)).collect();
                let mut raw = Raw::connect(victim.port());
                match seed % 3 {
                    0 => {}
                    1 => raw.send(&greeting()),
                    _ => raw.shake(victim.peer_type()),
                }
                raw.send(&bytes);
                drop(raw);
            }
            reached("all gone", || victim.counters().connections_open == 1).await;
            // Garbage may contain messages by chance; the good peer's own comes through.
            if let Victim::Publish(_) = victim {
                victim.serves(&mut good).await;
            } else {
                good.send(&frame(0, b"after the noise"));
                soon("the good peer", async {
                    while victim.recv().await != "after the noise" {}
                })
                .await;
            }
            assert!(resident_mib() < before + GROWTH_MIB);
        }
    });
}

#[test]
fn streams_cut_at_any_byte_deliver_whole_messages_only() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let mut stream = greeting();
        stream.extend(ready("PUSH"));
        let handshake = stream.len();
        stream.extend(frame(1, b"a"));
        stream.extend(frame(0, &[b'b'; 300]));
        let one = stream.len();
        stream.extend(frame(0, b"c"));
        for cut in 0..=stream.len() {
            let mut raw = Raw::connect(at);
            raw.send(&stream[..cut]);
            drop(raw);
        }
        let whole = (handshake..=stream.len())
            .map(|cut| u64::from(cut >= one) + u64::from(cut == stream.len()))
            .sum();
        reached("every whole message", || {
            pull.counters().messages_in >= whole
        })
        .await;
        for _ in 0..whole {
            let got = soon("message", pull.recv()).await.unwrap();
            assert!(
                text(&got) == "c" || got.len() == 2 && got[1].len() == 300,
                "{got:?}"
            );
        }
        reached("all gone", || pull.peers() == 0).await;
        assert_eq!(pull.counters().messages_in, whole);
    });
}

#[test]
fn slow_loris_is_closed_and_an_idle_peer_is_not() {
    run(async {
        let mut pull = Pull::open(quick(), any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let mut idle = Raw::meet(at, "PUSH");
        let mut loris = Raw::meet(at, "PUSH");
        loris.send(&declare(0, 1 << 20));
        loris.send(b"a few bytes");
        loris.expect_closed();
        // Drips a byte now and then: each resets the stall, but the pace is too slow.
        let mut drip = Raw::meet(at, "PUSH");
        drip.send(&declare(0, 1 << 20));
        let dripping = async_std::task::spawn_blocking(move || {
            use std::io::{Read, Write};
            drip.0
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            for _ in 0..1000 {
                let closed = drip.0.write_all(b"x").is_err();
                let mut byte = [0];
                match drip.0.read(&mut byte) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !closed => {}
                    _ => return true,
                }
            }
            false
        });
        assert!(
            soon("the dripping peer", dripping).await,
            "the dripping peer stayed"
        );
        assert_eq!(pull.counters().closed_stalled, 2);
        idle.send(&frame(0, b"still here"));
        assert_eq!(
            text(&soon("idle", pull.recv()).await.unwrap()),
            "still here"
        );
    });
}

#[test]
fn unfinished_messages_are_bounded_for_the_whole_process() {
    run(async {
        let options = Options {
            unfinished_bytes_max: 16 << 20,
            ..Options::default()
        };
        let mut pull = Pull::open(options, any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let mut good = Raw::meet(at, "PUSH");
        let before = resident_mib();
        let mut hoarders: Vec<Raw> = (0..8).map(|_| Raw::meet(at, "PUSH")).collect();
        let sending = async_std::task::spawn_blocking(move || {
            for raw in &mut hoarders {
                raw.send(&declare(0, 15 << 20));
                raw.send(&vec![0; 6 << 20]);
            }
            hoarders
        });
        reached("some closed", || pull.counters().closed_over_budget >= 5).await;
        assert!(resident_mib() < before + GROWTH_MIB);
        good.send(&frame(0, b"good"));
        assert_eq!(text(&soon("good", pull.recv()).await.unwrap()), "good");
        drop(soon("hoarders", sending).await);
    });
}

#[test]
fn subscribers_cannot_bloat_a_publisher_with_topics() {
    run(async {
        let options = Options {
            topics_max: 10,
            ..Options::default()
        };
        let publish = Publish::open(options, any_port()).await.unwrap();
        let at = port(&publish.local_addresses());
        let mut greedy = Raw::meet(at, "SUB");
        for n in 0..11_u8 {
            greedy.send(&frame(0, &[1, n]));
        }
        greedy.expect_closed();
        let mut long = Raw::meet(at, "SUB");
        long.send(&frame(0, &[1; 300]));
        long.expect_closed();
        assert_eq!(publish.counters().closed_topics, 2);

        // Subscribing and cancelling for ever stays within bounds, by message and by command.
        let mut changing = Raw::meet(at, "SUB");
        for n in 0..100_u8 {
            changing.send(&frame(4, &[b"\x09SUBSCRIBE".as_slice(), &[n]].concat()));
            changing.send(&frame(0, &[0, n]));
        }
        changing.send(&frame(0, b"nonsense"));
        changing.send(&frame(0, b"\x01news"));
        reached("counted", || publish.counters().messages_unexpected == 1).await;
        changing.0.set_nonblocking(true).unwrap();
        reached("news", || {
            publish.send(message("\u{1}old"));
            publish.send(message("news"));
            matches!(changing.0.peek(&mut [0]), Ok(1))
        })
        .await;
        changing.0.set_nonblocking(false).unwrap();
        assert_eq!(changing.read_frame().unwrap(), (0, b"news".to_vec()));
    });
}

#[test]
fn oversized_messages_of_our_own_are_refused_before_they_leave() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let options = Options {
            frame_bytes_max: 100,
            message_frames_max: 3,
            ..Options::default()
        };
        let push = Push::open(options, pull.local_addresses()[0].clone())
            .await
            .unwrap();
        push.connected(Duration::from_secs(5)).await.unwrap();
        let over = message(&"x".repeat(101));
        let many = vec![Default::default(); 4];
        for bad in [over, many] {
            assert!(push.try_send(bad.clone()).is_err());
            assert!(push.send(bad).await.is_err());
        }
        push.send(message("fine")).await.unwrap();
        assert_eq!(text(&soon("fine", pull.recv()).await.unwrap()), "fine");
    });
}

#[test]
fn many_peers_that_do_not_read_share_the_room_of_one_socket() {
    run(async {
        let options = Options {
            send_all_bytes_max: 16 << 20,
            ..Options::default()
        };
        let mut router = Router::open(options, any_port()).await.unwrap();
        let at = port(&router.local_addresses());
        let sender = router.sender();
        let (mut deaf, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let mut peer = Raw::meet(at, "DEALER");
            peer.send(&frame(0, b"hello"));
            deaf.push(peer);
            ids.push(soon("hello", router.recv()).await.unwrap().0);
        }
        let before = resident_mib();
        let mut refused = 0;
        // Each stays below its own limit: 40 times 15 MiB.
        for _ in 0..240 {
            for id in &ids {
                let message = vec![Bytes::from(vec![1; 64 << 10])];
                refused += usize::from(sender.send(id, message).is_err());
            }
            futures_lite::future::yield_now().await;
        }
        let grown = resident_mib().saturating_sub(before);
        assert!(refused > 0 && grown < 250, "{refused} refused, {grown} MiB");
        let good = Dealer::open(Options::default(), local(at)).await.unwrap();
        good.send(message("me")).await.unwrap();
        let (good_id, _) = soon("me", router.recv()).await.unwrap();
        sender.send(&good_id, message("you")).unwrap();
        assert_eq!(text(&soon("an answer", good.recv()).await.unwrap()), "you");
        drop(deaf);
    });
}
