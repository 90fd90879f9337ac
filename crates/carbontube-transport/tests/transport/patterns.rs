//! Sockets together: REQ with ROUTER, dealing in turn, the two devices.

use std::io::Write;
use std::time::Duration;

use carbontube_transport::{
    CloseOutcome, Endpoint, FanOut, Forwarder, LinkState, Options, Publish, Pull, Push, Router,
    Streamer, Subscribe, add_delimiter, take_delimiter,
};

use crate::raw::{Raw, frame};
use crate::support::{any_port, free_port, heard, local, message, port, reached, run, soon, text};

#[test]
fn req_delimiter_is_kept_and_can_be_taken_and_added() {
    run(async {
        let mut router = Router::open(Options::default(), any_port()).await.unwrap();
        let mut req = Raw::meet(port(&router.local_addresses()), "REQ");
        req.send(&frame(1, b""));
        req.send(&frame(0, b"question"));
        let (peer, mut question) = soon("question", router.recv()).await.unwrap();
        assert!(take_delimiter(&mut question));
        assert!(!take_delimiter(&mut question));
        assert_eq!(text(&question), "question");
        let mut answer = message("answer");
        add_delimiter(&mut answer);
        router.sender().send(&peer, answer).unwrap();
        assert_eq!(req.read_frame().unwrap(), (1, Vec::new()));
        assert_eq!(req.read_frame().unwrap(), (0, b"answer".to_vec()));
    });
}

#[test]
fn fan_out_deals_in_turn() {
    run(async {
        let fan = FanOut::open(Options::default(), any_port()).await.unwrap();
        let at = fan.local_addresses()[0].clone();
        let mut pulls = Vec::new();
        for _ in 0..4 {
            pulls.push(
                Pull::open(Options::default(), [Endpoint::Connect(at.clone())])
                    .await
                    .unwrap(),
            );
        }
        reached("peers", || fan.peers() == 4).await;
        for n in 0..40 {
            fan.send(message(&n.to_string())).await.unwrap();
        }
        for pull in &mut pulls {
            for _ in 0..10 {
                soon("a fair share", pull.recv()).await.unwrap();
            }
        }
        assert_eq!(
            fan.close(Duration::from_secs(5)).await,
            CloseOutcome::Delivered
        );
    });
}

#[test]
fn streamer_whose_pulling_peer_does_not_read_makes_its_senders_wait() {
    run(async {
        let few = Options {
            send_hwm_messages: 4,
            ..Options::default()
        };
        let mut streamer = Streamer::open(Options::default(), any_port(), few, any_port())
            .await
            .unwrap();
        let (front, back) = streamer.local_addresses();
        let streaming = async_std::task::spawn(async move { streamer.run().await });
        let mut reader = Raw::meet(port(&back), "PULL");
        let mut sender = Raw::meet(port(&front), "PUSH");
        let whole = frame(0, &[7; 10_000]);
        let full = Some(Duration::from_millis(300));
        sender.0.set_write_timeout(full).unwrap();
        let mut written = 0;
        while let Ok(more) = sender.0.write(&whole[written % whole.len()..]) {
            written += more;
            assert!(written < 64 << 20, "nothing made the sender wait");
        }
        // All of it is there, and comes once the peer reads.
        for _ in 0..written / whole.len() {
            assert_eq!(reader.read_frame().unwrap().1.len(), 10_000);
        }
        streaming.cancel().await;
    });
}

#[test]
fn devices_relay_jobs_and_events() {
    run(async {
        let mut streamer = Streamer::open(
            Options::default(),
            any_port(),
            Options::default(),
            any_port(),
        )
        .await
        .unwrap();
        let (front, back) = streamer.local_addresses();
        let streaming = async_std::task::spawn(async move { streamer.run().await });
        let mut pull = Pull::open(Options::default(), [Endpoint::Connect(back[0].clone())])
            .await
            .unwrap();
        let push = Push::open(Options::default(), front[0].clone())
            .await
            .unwrap();
        for n in 0..1000 {
            push.send(message(&n.to_string())).await.unwrap();
        }
        for n in 0..1000 {
            assert_eq!(
                text(&soon("job", pull.recv()).await.unwrap()),
                n.to_string()
            );
        }
        drop(streaming);

        let mut forwarder = Forwarder::open(
            Options::default(),
            any_port(),
            Options::default(),
            any_port(),
        )
        .await
        .unwrap();
        let (front, back) = forwarder.local_addresses();
        let forwarding = async_std::task::spawn(async move { forwarder.run().await });
        let publish = Publish::open(Options::default(), [Endpoint::Connect(front[0].clone())])
            .await
            .unwrap();
        let mut sub = Subscribe::open(
            Options::default(),
            [Endpoint::Connect(back[0].clone())],
            ["e"],
        )
        .await
        .unwrap();
        heard(&publish, &mut sub, "event").await;
        drop(forwarding);
    });
}

#[test]
fn socket_in_a_hurry_does_not_wait_out_its_pause() {
    run(async {
        let at = free_port();
        let long = Duration::from_secs(3600);
        let options = Options {
            connect_retry: long..=long,
            ..Options::default()
        };
        let push = Push::open(options, local(at)).await.unwrap();
        let mut events = push.events();
        let refused = soon("refusal", events.changed()).await;
        assert!(
            matches!(refused, LinkState::Disconnected { refused: true, .. }),
            "{refused:?}"
        );
        let _pull = Pull::open(Options::default(), [Endpoint::Bind(local(at))])
            .await
            .unwrap();
        push.hurry().dial();
        let reached = soon("connection", events.changed()).await;
        assert_eq!(reached, LinkState::Connected { generation: 1 });
    });
}
