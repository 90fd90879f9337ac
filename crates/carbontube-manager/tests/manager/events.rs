//! The manager's event stream: by topic, numbered.

use std::time::Duration;

use async_io::Timer;
use carbontube_protocol::message::{EventKind, Events, Message};
use carbontube_protocol::{Codec, Limits, decode_event};
use carbontube_transport::{Endpoint, Options, Subscribe};
use futures_lite::future;

use crate::support::{Client, Running, options, run};

async fn next(stream: &mut Subscribe) -> Option<Events> {
    let nothing = async {
        Timer::after(Duration::from_millis(50)).await;
        None
    };
    let frames = future::or(async { stream.recv().await.ok() }, nothing).await?;
    match decode_event(&frames, &Limits::default()).expect("an event can be read") {
        (topic, Message::Events(events)) => {
            assert_eq!(topic, b"films.job");
            Some(events)
        }
        (_, other) => panic!("{other:?} is no event"),
    }
}

#[test]
fn subscriber_hears_of_jobs_by_topic_and_in_order() {
    run(async {
        let manager = Running::start(options()).await;
        let endpoint = Endpoint::Connect(manager.addresses.publish[0].clone());
        let mut stream = Subscribe::open(Options::default(), [endpoint], ["films.job"])
            .await
            .unwrap();
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        let (mut heard, mut job) = (Vec::new(), 0);
        // A subscription takes a moment to arrive: what happens before is not heard.
        while heard.len() < 3 {
            job += 1;
            client.enqueue(&[&format!("film-{job}")]).await;
            heard.extend(next(&mut stream).await);
        }
        for pair in heard.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence + 1);
            assert_eq!(pair[0].dropped, 0);
        }
        assert!(heard.iter().flat_map(|events| &events.events).all(
            |event| matches!(&event.kind, EventKind::Job { job_type, .. } if job_type.as_str() == "cut")
        ));
        manager.stop().await;
    });
}
