//! The event stream.

use carbontube_client::{EventStream, Notice};
use carbontube_protocol::message::{Event, EventKind, Events, ManagerState};
use carbontube_protocol::{Codec, Limits, ManagerId, Message, Timestamp, encode_event};
use carbontube_transport::{Endpoint, Options, Publish};
use futures_lite::future;

use crate::scripted::{any_port, pipeline, run};

fn events(epoch: u64, sequence: u64) -> Events {
    let kind = EventKind::Manager {
        state: ManagerState::Running,
        reason: format!("event {sequence} of {epoch}"),
    };
    Events {
        manager: ManagerId::from_bytes([7; 16]),
        epoch,
        pipeline: pipeline(),
        sequence,
        events: vec![Event {
            at: Timestamp(1),
            kind,
        }],
        dropped: 0,
    }
}

fn publish(socket: &Publish, topic: &str, events: Events) {
    socket.send(encode_event(topic, &Message::from(events), Codec::Bincode));
}

/// A publisher and a stream that hears it, with sequence 1 of topic `p.start` behind it.
async fn connected() -> (Publish, EventStream) {
    let socket = Publish::open(Options::default(), [Endpoint::Bind(any_port())])
        .await
        .expect("a free port");
    let addresses = socket.local_addresses();
    let mut stream = EventStream::subscribe(&addresses, ["p."], Limits::default())
        .await
        .expect("an address");
    let repeat = async {
        loop {
            publish(&socket, "p.start", events(1, 1));
            async_io::Timer::after(std::time::Duration::from_millis(5)).await;
        }
    };
    future::or(async { stream.next().await.expect("an event") }, repeat).await;
    (socket, stream)
}

/// The next notice that is not of the start.
async fn next(stream: &mut EventStream) -> Notice {
    loop {
        let notice = stream.next().await.expect("open");
        match &notice {
            Notice::Events { topic, .. } if topic == "p.start" => {}
            _ => return notice,
        }
    }
}

#[test]
fn a_gap_is_told_before_the_events_after_it() {
    run(async {
        let (socket, mut stream) = connected().await;
        for sequence in [5, 6, 9] {
            publish(&socket, "p.job", events(1, sequence));
        }
        let topic = || "p.job".to_owned();
        for sequence in [5, 6] {
            let (topic, events) = (topic(), events(1, sequence));
            assert_eq!(next(&mut stream).await, Notice::Events { topic, events });
        }
        let (topic, missed) = (topic(), 2);
        assert_eq!(next(&mut stream).await, Notice::Gap { topic, missed });
        assert!(
            matches!(next(&mut stream).await, Notice::Events { events, .. } if events.sequence == 9)
        );
    });
}

#[test]
fn a_restarted_manager_counts_from_one_again() {
    run(async {
        let (socket, mut stream) = connected().await;
        publish(&socket, "p.job", events(1, 70));
        publish(&socket, "p.job", events(2, 1));
        publish(&socket, "p.job", events(3, 3));
        assert!(matches!(next(&mut stream).await, Notice::Events { .. }));
        assert!(matches!(next(&mut stream).await, Notice::Events { .. }));
        assert!(matches!(
            next(&mut stream).await,
            Notice::Gap { missed: 2, .. }
        ));
    });
}

#[test]
fn topics_count_apart_and_garbage_is_passed_over() {
    run(async {
        let (socket, mut stream) = connected().await;
        publish(&socket, "p.job", events(1, 1));
        socket.send(vec!["p.job".into(), "garbage".into()]);
        publish(&socket, "p.log", events(1, 40));
        publish(&socket, "p.job", events(1, 2));
        for _ in 0..3 {
            assert!(matches!(next(&mut stream).await, Notice::Events { .. }));
        }
        assert_eq!(stream.unreadable(), 1);
    });
}
