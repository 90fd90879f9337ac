//! One test for each thing that the zeromq crate does not do, or does wrong.

use std::time::{Duration, Instant};

use bytes::Bytes;
use carbontube_transport::{
    CloseOutcome, Dealer, Dialled, Endpoint, FanOut, LinkState, Options, Publish, Pull, Push,
    Reason, RouteError, Router, Subscribe, dial,
};

use crate::raw::{Raw, frame};
use crate::support::{
    any_port, free_port, heard, local, message, port, quick, reached, resident_mib, run, soon, text,
};

#[test]
fn trap_1_push_reconnects_within_a_second() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let push = Push::open(Options::default(), local(at)).await.unwrap();
        push.connected(Duration::from_secs(5)).await.unwrap();
        push.send(message("before")).await.unwrap();
        assert_eq!(text(&soon("first", pull.recv()).await.unwrap()), "before");
        let mut events = push.events();
        assert_eq!(
            soon("state", events.changed()).await,
            LinkState::Connected { generation: 1 }
        );
        pull.close().await;
        let lost = soon("loss", events.changed()).await;
        assert!(matches!(lost, LinkState::Disconnected { .. }), "{lost:?}");

        let again = Instant::now();
        let mut pull = Pull::open(Options::default(), [Endpoint::Bind(local(at))])
            .await
            .unwrap();
        push.send(message("after")).await.unwrap();
        assert_eq!(text(&soon("second", pull.recv()).await.unwrap()), "after");
        assert!(
            again.elapsed() < Duration::from_secs(1),
            "took {:?}",
            again.elapsed()
        );
        assert_eq!(push.state(), LinkState::Connected { generation: 2 });
        assert_eq!(push.counters().connections_lost, 1);
    });
}

#[test]
fn trap_1_starting_order_does_not_matter() {
    run(async {
        let at = free_port();
        let push = Push::open(Options::default(), local(at)).await.unwrap();
        let dealer_at = free_port();
        let dealer = Dealer::open(Options::default(), local(dealer_at))
            .await
            .unwrap();
        let missing = push
            .connected(Duration::from_millis(150))
            .await
            .unwrap_err();
        assert!(missing.last_error.unwrap().contains("refused"));
        let mut pull = Pull::open(Options::default(), [Endpoint::Bind(local(at))])
            .await
            .unwrap();
        let mut router = Router::open(Options::default(), [Endpoint::Bind(local(dealer_at))])
            .await
            .unwrap();
        push.send(message("hello")).await.unwrap();
        dealer.send(message("question")).await.unwrap();
        assert_eq!(text(&soon("job", pull.recv()).await.unwrap()), "hello");
        let (peer, question) = soon("question", router.recv()).await.unwrap();
        assert_eq!(text(&question), "question");
        router.sender().send(&peer, message("answer")).unwrap();
        assert_eq!(
            text(&soon("answer", dealer.recv()).await.unwrap()),
            "answer"
        );
    });
}

#[test]
fn trap_1_publish_and_subscribe_reconnect_from_either_side() {
    run(async {
        let at = free_port();
        let mut sub = Subscribe::open(Options::default(), [Endpoint::Bind(local(at))], ["t"])
            .await
            .unwrap();
        let publish = Publish::open(Options::default(), [Endpoint::Connect(local(at))])
            .await
            .unwrap();
        heard(&publish, &mut sub, "t1").await;
        sub.close().await;
        let mut sub = Subscribe::open(Options::default(), [Endpoint::Bind(local(at))], ["t"])
            .await
            .unwrap();
        heard(&publish, &mut sub, "t2").await;
        publish.close(Duration::from_secs(1)).await;

        let publish = Publish::open(Options::default(), any_port()).await.unwrap();
        let at = port(&publish.local_addresses());
        let mut sub = Subscribe::open(Options::default(), [Endpoint::Connect(local(at))], ["t"])
            .await
            .unwrap();
        heard(&publish, &mut sub, "t3").await;
        publish.close(Duration::from_secs(1)).await;
        let publish = Publish::open(Options::default(), [Endpoint::Bind(local(at))])
            .await
            .unwrap();
        heard(&publish, &mut sub, "t4").await;
    });
}

#[test]
fn trap_2_idle_push_notices_that_its_peer_has_gone() {
    run(async {
        let pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let push = Push::open(Options::default(), pull.local_addresses()[0].clone())
            .await
            .unwrap();
        push.connected(Duration::from_secs(5)).await.unwrap();
        drop(pull);
        let mut events = push.events();
        soon("notice", async {
            while !matches!(
                events.changed().await,
                LinkState::Disconnected {
                    last_error: Some(_),
                    ..
                }
            ) {}
        })
        .await;
        let rejected = push.try_send(message("kept")).unwrap_err();
        assert_eq!(rejected.reason, Reason::Disconnected);
        assert_eq!(text(&rejected.message), "kept");
    });
}

#[test]
fn trap_2_unwritten_messages_are_sent_again_in_order() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().port();
        let options = Options {
            send_hwm_messages: 400,
            send_hwm_bytes: 64 << 20,
            ..Options::default()
        };
        let push = Push::open(options, local(at)).await.unwrap();
        let stuck = async_std::task::spawn_blocking(move || {
            let raw = Raw::accept(&listener, "PULL");
            (raw, listener)
        })
        .await;
        let mut numbers = 0_u32;
        // Larger than the kernel's buffers, so that some stay unwritten.
        loop {
            let body = Bytes::from(vec![0; 100_000]);
            let number = Bytes::copy_from_slice(&numbers.to_be_bytes());
            match push.try_send(vec![number, body]) {
                Ok(()) => numbers += 1,
                Err(rejected) if rejected.reason == Reason::Full => break,
                Err(rejected) if rejected.reason == Reason::Disconnected => {
                    push.connected(Duration::from_secs(5)).await.unwrap();
                }
                Err(rejected) => panic!("{rejected}"),
            }
        }
        // Some are written, one is most likely cut in the middle, the rest waits.
        reached("some written", || push.counters().messages_out > 0).await;
        assert!(push.pending() > 50, "pending {}", push.pending());
        drop(stuck);
        let mut pull = Pull::open(Options::default(), [Endpoint::Bind(local(at))])
            .await
            .unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&(numbers - 1)) {
            let got = soon("message", pull.recv()).await.unwrap();
            assert_eq!(got[1].len(), 100_000);
            seen.push(u32::from_be_bytes(got[0][..].try_into().unwrap()));
        }
        let expected: Vec<u32> = (seen[0]..numbers).collect();
        assert_eq!(
            seen,
            expected,
            "unwritten messages come first, in order, without a gap: {}",
            push.counters()
        );
        assert!(push.counters().connections_lost >= 1);
    });
}

#[test]
fn trap_3_sending_without_peers_says_so_and_hands_the_message_back() {
    run(async {
        let push = Push::open(Options::default(), local(free_port()))
            .await
            .unwrap();
        let rejected = push.try_send(message("mine")).unwrap_err();
        assert_eq!(
            (rejected.reason, text(&rejected.message)),
            (Reason::Disconnected, "mine".into())
        );
        let fan = FanOut::open(Options::default(), any_port()).await.unwrap();
        assert_eq!(
            fan.try_send(message("x")).unwrap_err().reason,
            Reason::Disconnected
        );
        let mut router = Router::open(Options::default(), any_port()).await.unwrap();
        let dealer = Dealer::open(Options::default(), router.local_addresses()[0].clone())
            .await
            .unwrap();
        dealer.send(message("hi")).await.unwrap();
        let (peer, _) = soon("hi", router.recv()).await.unwrap();
        let sender = router.sender();
        assert!(sender.is_connected(&peer));
        drop(dealer);
        reached("gone", || !sender.is_connected(&peer)).await;
        assert_eq!(sender.send(&peer, message("x")), Err(RouteError::Gone));
        let invalid = push.try_send(Vec::new()).unwrap_err();
        assert_eq!(invalid.reason, Reason::Invalid);
    });
}

#[test]
fn trap_5_mismatched_types_are_a_clear_error() {
    run(async {
        let publish = Publish::open(Options::default(), any_port()).await.unwrap();
        let at = publish.local_addresses()[0].clone();
        let push = Push::open(Options::default(), at.clone()).await.unwrap();
        let error = push.connected(Duration::from_secs(1)).await.unwrap_err();
        assert!(error.to_string().contains("PUB socket"), "{error}");
        reached("counted", || publish.counters().handshakes_incompatible > 0).await;
        let error = dial(Options::default(), at, Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is a PUB socket, expected ROUTER or PULL"),
            "{error}"
        );
    });
}

#[test]
fn trap_5_dial_becomes_what_suits_the_peer() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let mut router = Router::open(Options::default(), any_port()).await.unwrap();
        let wait = Duration::from_secs(5);
        match dial(Options::default(), pull.local_addresses()[0].clone(), wait)
            .await
            .unwrap()
        {
            Dialled::Push(push) => {
                push.send(message("job")).await.unwrap();
                assert_eq!(text(&soon("job", pull.recv()).await.unwrap()), "job");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(
            pull.counters().connections_accepted,
            1,
            "one connection is enough"
        );
        match dial(
            Options::default(),
            router.local_addresses()[0].clone(),
            wait,
        )
        .await
        .unwrap()
        {
            Dialled::Dealer(dealer) => {
                dealer.send(message("ask")).await.unwrap();
                assert_eq!(text(&soon("ask", router.recv()).await.unwrap().1), "ask");
            }
            other => panic!("{other:?}"),
        }
        let nobody = local(free_port());
        let error = dial(Options::default(), nobody, Duration::from_millis(200))
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no connection to tcp://127.0.0.1:"),
            "{error}"
        );
    });
}

#[test]
fn trap_6_closed_pull_frees_its_port_and_its_connections() {
    run(async {
        let pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let mut raw = Raw::meet(at, "PUSH");
        raw.send(&frame(0, b"x"));
        reached("connected", || pull.peers() == 1).await;
        pull.close().await;
        raw.expect_closed();
        let pull = Pull::open(Options::default(), [Endpoint::Bind(local(at))])
            .await
            .unwrap();
        assert_eq!(port(&pull.local_addresses()), at);
    });
}

#[test]
fn trap_7_equal_identities_do_not_disturb_each_other() {
    run(async {
        let mut router = Router::open(Options::default(), any_port()).await.unwrap();
        let at = port(&router.local_addresses());
        let sender = router.sender();
        let with_identity = || {
            let mut raw = Raw::connect(at);
            raw.send(&crate::raw::greeting());
            let mut body =
                b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x04same".to_vec();
            let mut bytes = vec![4, body.len() as u8];
            bytes.append(&mut body);
            raw.send(&bytes);
            std::io::Read::read_exact(&mut raw.0, &mut [0; 64]).unwrap();
            raw.read_frame().unwrap();
            raw
        };
        let (mut one, mut two) = (with_identity(), with_identity());
        one.send(&frame(0, b"one"));
        let (first, got) = soon("one", router.recv()).await.unwrap();
        assert_eq!(text(&got), "one");
        two.send(&frame(0, b"two"));
        let (second, got) = soon("two", router.recv()).await.unwrap();
        assert_eq!(text(&got), "two");
        assert_ne!(first, second);
        sender.send(&first, message("for one")).unwrap();
        sender.send(&second, message("for two")).unwrap();
        assert_eq!(one.read_frame().unwrap().1, b"for one");
        assert_eq!(two.read_frame().unwrap().1, b"for two");
    });
}

#[test]
fn trap_8_peer_gone_in_mid_frame_disturbs_nobody() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let mut broken = Raw::meet(at, "PUSH");
        let mut whole = frame(1, b"first part");
        whole.extend(frame(0, &[1; 5000]));
        broken.send(&whole[..600]);
        drop(broken);
        reached("counted", || pull.counters().closed_mid_message == 1).await;
        let mut good = Raw::meet(at, "PUSH");
        good.send(&frame(0, b"good"));
        assert_eq!(text(&soon("good", pull.recv()).await.unwrap()), "good");
        assert_eq!(pull.counters().messages_in, 1);

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dealer = Dealer::open(
            Options::default(),
            local(listener.local_addr().unwrap().port()),
        )
        .await
        .unwrap();
        let (mut server, listener) =
            async_std::task::spawn_blocking(move || (Raw::accept(&listener, "ROUTER"), listener))
                .await;
        server.send(&whole[..600]);
        drop(server);
        let mut server =
            async_std::task::spawn_blocking(move || Raw::accept(&listener, "ROUTER")).await;
        server.send(&frame(0, b"whole"));
        assert_eq!(text(&soon("whole", dealer.recv()).await.unwrap()), "whole");
    });
}

#[test]
fn trap_10_cancelled_receives_lose_nothing() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let push = Push::open(Options::default(), pull.local_addresses()[0].clone())
            .await
            .unwrap();
        let sending = async_std::task::spawn(async move {
            for n in 0..2000 {
                push.send(message(&n.to_string())).await.unwrap();
            }
            push.close(Duration::from_secs(10)).await
        });
        let mut expected = 0;
        while expected < 2000 {
            let got = soon(
                "any",
                futures_lite::future::or(async { Some(pull.recv().await.unwrap()) }, async {
                    futures_lite::future::yield_now().await;
                    None
                }),
            )
            .await;
            if let Some(got) = got {
                assert_eq!(text(&got), expected.to_string());
                expected += 1;
            }
        }
        assert_eq!(sending.await, CloseOutcome::Delivered);
    });
}

#[test]
fn trap_11_router_client_that_never_reads_is_closed_and_others_go_on() {
    run(async {
        let options = Options {
            send_hwm_messages: 2000,
            ..Options::default()
        };
        let mut router = Router::open(options, any_port()).await.unwrap();
        let at = port(&router.local_addresses());
        let sender = router.sender();
        let mut deaf = Raw::meet(at, "DEALER");
        deaf.send(&frame(0, b"hello"));
        let (deaf_id, _) = soon("hello", router.recv()).await.unwrap();
        let good = Dealer::open(Options::default(), local(at)).await.unwrap();
        good.send(message("me")).await.unwrap();
        let (good_id, _) = soon("me", router.recv()).await.unwrap();

        let big = vec![Bytes::from(vec![0; 4096])];
        let mut accepted = 0_u32;
        let refusal = loop {
            match sender.send(&deaf_id, big.clone()) {
                Ok(()) => accepted += 1,
                Err(refusal) => break refusal,
            }
            assert!(accepted < 200_000, "the cap was never reached");
            if accepted.is_multiple_of(1000) {
                futures_lite::future::yield_now().await;
            }
        };
        assert_eq!(refusal, RouteError::Full);
        reached("closed", || !sender.is_connected(&deaf_id)).await;
        reached("counted", || {
            let counters = router.counters();
            counters.closed_not_reading == 1 && counters.messages_abandoned > 0
        })
        .await;
        for n in 0..100 {
            sender.send(&good_id, message(&n.to_string())).unwrap();
            assert_eq!(
                text(&soon("reply", good.recv()).await.unwrap()),
                n.to_string()
            );
        }
    });
}

#[test]
fn trap_11_stuck_peers_of_a_fan_out_do_not_freeze_the_executor() {
    run(async {
        let options = Options {
            send_hwm_messages: 3000,
            send_hwm_bytes: 64 << 20,
            ..Options::default()
        };
        let fan = FanOut::open(options, any_port()).await.unwrap();
        let at = port(&fan.local_addresses());
        let stuck: Vec<Raw> = (0..3).map(|_| Raw::meet(at, "PULL")).collect();
        reached("peers", || fan.peers() == 3).await;
        let job = vec![Bytes::from(vec![0; 4096])];
        while fan.try_send(job.clone()).is_ok() {}
        assert!(fan.pending() > 3000);
        let mut pull = Pull::open(Options::default(), [Endpoint::Connect(local(at))])
            .await
            .unwrap();
        reached("a fourth", || fan.peers() == 4).await;
        // The kernel may still take some for the stuck ones, but no more than one
        // in turn for each that the fourth gets.
        for _ in 0..400 {
            soon("room at the fourth", fan.send(message("for all")))
                .await
                .unwrap();
        }
        for _ in 0..100 {
            assert_eq!(text(&soon("served", pull.recv()).await.unwrap()), "for all");
        }
        drop(stuck);
        // What the dead ones had not been written goes to the living one.
        soon("handed over", async {
            while pull.recv().await.unwrap()[0].len() != 4096 {}
        })
        .await;
    });
}

#[test]
fn trap_12_full_push_says_full_and_has_room_again_later() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let options = Options {
            send_hwm_messages: 100,
            ..Options::default()
        };
        let push = Push::open(options, pull.local_addresses()[0].clone())
            .await
            .unwrap();
        push.connected(Duration::from_secs(5)).await.unwrap();
        let job = vec![Bytes::from(vec![0; 64 << 10])];
        let mut accepted = 0;
        let full = loop {
            match push.try_send(job.clone()) {
                Ok(()) => accepted += 1,
                Err(rejected) => break rejected,
            }
            assert!(push.pending() <= 100, "pending {}", push.pending());
            if push.pending() < 50 {
                futures_lite::future::yield_now().await;
            }
        };
        assert_eq!(full.reason, Reason::Full);
        assert_eq!(full.message, job);
        // The kernel may have taken some more in the meantime.
        assert!(
            (1..=100).contains(&push.pending()),
            "pending {}",
            push.pending()
        );
        assert!(push.counters().rejected_full > 0);
        let waiting = push.send(job.clone());
        let draining = async {
            for _ in 0..accepted {
                pull.recv().await.unwrap();
            }
        };
        let (sent, ()) = soon("room", futures_lite::future::zip(waiting, draining)).await;
        sent.unwrap();
        assert_eq!(soon("last", pull.recv()).await.unwrap(), job);
    });
}

#[test]
fn trap_12_publisher_drops_whole_messages_for_a_stalled_subscriber_only() {
    run(async {
        let options = Options {
            send_hwm_bytes: 1 << 20,
            ..Options::default()
        };
        let publish = Publish::open(options, any_port()).await.unwrap();
        let at = port(&publish.local_addresses());
        let mut stalled = Raw::meet(at, "SUB");
        stalled.send(&frame(0, b"\x01"));
        let mut sub = Subscribe::open(Options::default(), [Endpoint::Connect(local(at))], [""])
            .await
            .unwrap();
        heard(&publish, &mut sub, "ready").await;
        let before = resident_mib();
        let body = Bytes::from(vec![7; 10_000]);
        let count = 10_000_u32;
        let mut received = 0;
        for n in 0..count {
            publish.send(vec![Bytes::copy_from_slice(&n.to_be_bytes()), body.clone()]);
            // Paced by the good subscriber, so that nothing has to be dropped for it.
            loop {
                let got = soon("event", sub.recv()).await.unwrap();
                if got.len() == 2 {
                    assert_eq!(got[0][..], n.to_be_bytes());
                    received += 1;
                    break;
                }
            }
        }
        assert_eq!(received, count);
        let counters = publish.counters();
        assert!(counters.publish_dropped_peer > 1000, "{counters}");
        assert!(
            resident_mib() < before + 64,
            "grew from {before} to {} MiB",
            resident_mib()
        );
        // What the stalled one gets is whole messages, in order, with gaps.
        let mut last = None;
        for _ in 0..50 {
            let (flags, number) = stalled.read_frame().unwrap();
            if flags & 1 == 0 {
                continue;
            }
            let (flags, got) = stalled.read_frame().unwrap();
            assert_eq!((flags & 1, got.len()), (0, 10_000));
            let number = u32::from_be_bytes(number[..].try_into().unwrap());
            assert!(last < Some(number));
            last = Some(number);
        }
    });
}

#[test]
fn trap_12_publisher_in_a_tight_loop_accounts_for_every_message() {
    run(async {
        let publish = Publish::open(Options::default(), any_port()).await.unwrap();
        let mut sub = Subscribe::open(
            Options::default(),
            [Endpoint::Connect(publish.local_addresses()[0].clone())],
            ["n"],
        )
        .await
        .unwrap();
        heard(&publish, &mut sub, "n-ready").await;
        let receiving = async_std::task::spawn(async move {
            let mut received = 0_u64;
            loop {
                match text(&sub.recv().await.unwrap()).as_str() {
                    "n-end" => return received,
                    "n" => received += 1,
                    _ => {}
                }
            }
        });
        let total = 300_000_u64;
        for _ in 0..total {
            publish.send(message("n"));
        }
        let ending = async {
            loop {
                publish.send(message("n-end"));
                async_io::Timer::after(Duration::from_millis(20)).await;
            }
        };
        let ends_before = publish.counters();
        let received = soon("end", futures_lite::future::or(receiving, ending)).await;
        let dropped = ends_before.publish_dropped_queue + publish.counters().publish_dropped_peer;
        assert_eq!(received + dropped, total, "{}", publish.counters());
    });
}

#[test]
fn trap_13_cancelled_sends_are_not_sent_and_keep_the_order() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let options = Options {
            send_hwm_messages: 4,
            ..Options::default()
        };
        let push = Push::open(options, pull.local_addresses()[0].clone())
            .await
            .unwrap();
        push.connected(Duration::from_secs(5)).await.unwrap();
        let mut accepted = Vec::new();
        for n in 0..500 {
            let body = vec![Bytes::from(n.to_string()), Bytes::from(vec![0; 50_000])];
            let sent = futures_lite::future::or(async { push.send(body).await.is_ok() }, async {
                futures_lite::future::yield_now().await;
                false
            })
            .await;
            if sent {
                accepted.push(n.to_string());
            }
        }
        assert!(accepted.len() < 500, "nothing was cancelled");
        let closing = async_std::task::spawn(push.close(Duration::from_secs(10)));
        for expected in &accepted {
            let got = soon("accepted", pull.recv()).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&got[0]), expected.as_str());
        }
        assert_eq!(closing.await, CloseOutcome::Delivered);
        assert_eq!(pull.counters().messages_in, accepted.len() as u64);
    });
}

#[test]
fn trap_14_kept_small_frames_do_not_pin_their_read_buffers() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let push = Push::open(Options::default(), pull.local_addresses()[0].clone())
            .await
            .unwrap();
        let sending = async_std::task::spawn(async move {
            for _ in 0..60_000 {
                push.send(vec![
                    Bytes::from_static(b"keep"),
                    Bytes::from(vec![0; 4000]),
                ])
                .await
                .unwrap();
            }
            push.close(Duration::from_secs(10)).await
        });
        let before = resident_mib();
        let mut kept = Vec::new();
        for n in 0..60_000 {
            let got = soon("message", pull.recv()).await.unwrap();
            if n % 20 == 0 {
                kept.push(got[0].clone());
            }
        }
        assert_eq!(sending.await, CloseOutcome::Delivered);
        // 3,000 kept frames: 12 MiB with their messages, 240 MiB with read buffers.
        assert!(
            resident_mib() < before + 120,
            "grew from {before} to {} MiB",
            resident_mib()
        );
        assert_eq!(kept.len(), 3000);
    });
}

#[test]
fn trap_16_silent_connections_are_closed_after_the_deadline() {
    run(async {
        let pull = Pull::open(quick(), any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let silent: Vec<Raw> = (0..20).map(|_| Raw::connect(at)).collect();
        let mut half = Raw::connect(at);
        half.send(&crate::raw::greeting()[..20]);
        for raw in silent {
            raw.expect_closed();
        }
        half.expect_closed();
        assert_eq!(pull.counters().handshakes_timed_out, 21);
    });
}

#[test]
fn trap_16_connections_over_the_limits_are_refused_and_places_come_back() {
    run(async {
        let options = Options {
            connections_max: 3,
            ..Options::default()
        };
        let mut pull = Pull::open(options, any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let held: Vec<Raw> = (0..3).map(|_| Raw::meet(at, "PUSH")).collect();
        Raw::connect(at).expect_closed();
        assert_eq!(pull.counters().connections_refused, 1);
        drop(held);
        reached("room", || pull.peers() == 0).await;
        let push = Push::open(Options::default(), local(at)).await.unwrap();
        push.send(message("in")).await.unwrap();
        assert_eq!(text(&soon("in", pull.recv()).await.unwrap()), "in");

        let options = Options {
            connections_per_host_max: 2,
            ..Options::default()
        };
        let pull = Pull::open(options, any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let _held: Vec<Raw> = (0..2).map(|_| Raw::meet(at, "PUSH")).collect();
        Raw::connect(at).expect_closed();
        assert_eq!(pull.counters().connections_refused, 1);
    });
}

#[test]
fn trap_17_other_mechanisms_and_versions_are_refused() {
    run(async {
        let pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let at = port(&pull.local_addresses());
        let mut plain = crate::raw::greeting();
        plain[12..17].copy_from_slice(b"PLAIN");
        let mut old = crate::raw::greeting();
        old[10] = 1;
        for greeting in [plain, old, b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
            let mut raw = Raw::connect(at);
            raw.send(&greeting);
            raw.expect_closed();
        }
        assert_eq!(pull.counters().handshakes_malformed, 3);
    });
}

#[test]
fn trap_18_ping_is_answered_and_other_commands_are_dropped() {
    run(async {
        let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
        let mut raw = Raw::meet(port(&pull.local_addresses()), "PUSH");
        raw.send(&frame(4, b"\x04PING\x00\x0actx"));
        assert_eq!(raw.read_frame().unwrap(), (4, b"\x04PONGctx".to_vec()));
        raw.send(&frame(1, b"a"));
        raw.send(&frame(4, b"\x04PING\x00\x0amid"));
        raw.send(&frame(4, b"\x05WEIRDstuff"));
        raw.send(&frame(0, b"b"));
        assert_eq!(text(&soon("message", pull.recv()).await.unwrap()), "a|b");
        assert_eq!(raw.read_frame().unwrap(), (4, b"\x04PONGmid".to_vec()));
        let counters = pull.counters();
        assert_eq!((counters.pings_answered, counters.commands_dropped), (2, 1));
    });
}
