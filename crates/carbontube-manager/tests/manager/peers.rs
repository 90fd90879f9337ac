//! Peers of every kind and manner: JSON, REQ, the original's, strangers and garbage.

use std::io::Write;
use std::net::TcpStream;

use bytes::Bytes;
use carbontube_protocol::message::{Answer, Code, Message, Query, QueryRequest};
use carbontube_protocol::{Address, Codec, Limits, decode, encode};
use carbontube_transport::{Endpoint, Options, Publish, Push, take_delimiter};

use crate::support::{Client, Running, Worker, counter, id, options, run};

fn query(request: u64) -> Message {
    QueryRequest {
        request,
        query: Query::Info,
    }
    .into()
}

#[test]
fn client_that_speaks_json_is_answered_in_json() {
    run(async {
        let manager = Running::start(options()).await;
        let mut client = Client::connect(&manager, Codec::Json).await;
        client.enqueue(&["film-1"]).await;
        match client.ask(Query::Info).await {
            Answer::Info(info) => {
                assert_eq!(info.pull, manager.addresses.pull);
                assert_eq!(info.subscribe, manager.addresses.subscribe);
                assert_eq!(info.publish, manager.addresses.publish);
                assert_eq!(info.storage, "memory:");
            }
            other => panic!("{other:?}"),
        }
        manager.stop().await;
    });
}

#[test]
fn waits_that_were_answered_leave_room_for_more_requests() {
    run(async {
        let manager = Running::start(options()).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        for _ in 0..1100 {
            client.start_wait("nobody").await;
            match client.next().await {
                Message::Ended(ended) => assert_eq!(ended.jobs[0].state, None),
                other => panic!("{other:?}"),
            }
        }
        client.enqueue(&["film-1"]).await;
        manager.stop().await;
    });
}

#[test]
fn questions_without_end_are_each_answered_or_refused_and_hold_up_no_job() {
    run(async {
        let manager = Running::start(options()).await;
        let curious = Client::connect(&manager, Codec::Bincode).await;
        let mut other = Client::connect(&manager, Codec::Bincode).await;
        // More than one client may have without an answer, in all.
        for round in 0..4_u64 {
            for request in 0..400 {
                curious.send(query(round * 400 + request)).await;
            }
            other.enqueue(&[&format!("film-{round}")]).await;
            for _ in 0..400 {
                match curious.next().await {
                    Message::Answer(_) => {}
                    Message::Refusal(refusal) => assert_eq!(refusal.code, Code::Busy),
                    message => panic!("{message:?}"),
                }
            }
        }
        curious.send(query(2000)).await;
        match curious.next().await {
            Message::Answer(answer) => assert_eq!(answer.request, 2000),
            message => panic!("{message:?}"),
        }
        manager.stop().await;
    });
}

#[test]
fn req_client_gets_its_delimiter_back() {
    run(async {
        let manager = Running::start(options()).await;
        let client = Client::connect(&manager, Codec::Json).await;
        let mut frames = encode(&query(7), Codec::Json);
        frames.insert(0, Bytes::new());
        client.dealer.send(frames).await.unwrap();
        let mut answer = client.frames().await;
        assert!(take_delimiter(&mut answer), "{answer:?}");
        match decode(&answer, &Limits::default()).unwrap() {
            Message::Answer(answer) => assert_eq!(answer.request, 7),
            other => panic!("{other:?}"),
        }
        manager.stop().await;
    });
}

#[test]
fn request_that_cannot_be_understood_is_refused_by_its_number() {
    run(async {
        let manager = Running::start(options()).await;
        let client = Client::connect(&manager, Codec::Json).await;
        let header = |kind: u8, version: u8| {
            Bytes::copy_from_slice(&[b'C', b'T', b'B', version, kind, b'J'])
        };
        let body = |text: &'static str| Bytes::from_static(text.as_bytes());
        let cases = [
            (vec![header(b'Q', 9), body("{}")], Code::Version, None),
            (
                vec![
                    header(b'Q', 1),
                    body("{\"request\":5,\"query\":\"nonsense\"}"),
                ],
                Code::Malformed,
                Some(5),
            ),
            (vec![header(b'Q', 1), body("}{")], Code::Malformed, None),
            (vec![header(b'Q', 1)], Code::Malformed, None),
            (vec![body("hello")], Code::Malformed, None),
        ];
        for (frames, code, request) in cases {
            client.dealer.send(frames.clone()).await.unwrap();
            match client.next().await {
                Message::Refusal(refusal) => {
                    assert_eq!(
                        (refusal.code, refusal.request),
                        (code, request),
                        "{frames:?}"
                    );
                    assert!(!refusal.message.is_empty());
                }
                other => panic!("{frames:?}: {other:?}"),
            }
        }
        client
            .send(carbontube_protocol::message::Goodbye {
                worker: carbontube_protocol::WorkerId::generate(),
            })
            .await;
        match client.next().await {
            Message::Refusal(refusal) => assert_eq!(refusal.code, Code::Unexpected),
            other => panic!("{other:?}"),
        }
        manager.stop().await;
    });
}

#[test]
fn job_of_the_originals_client_is_run() {
    run(async {
        let manager = Running::start(options()).await;
        let push = Push::open(Options::default(), manager.addresses.pull[0].clone())
            .await
            .unwrap();
        let job = br#"{"id":"film-1","pipeline":true,"instructions":{"name":"films","instructions":{"film":1}}}"#;
        push.send(vec![Bytes::from_static(job)]).await.unwrap();
        let mut cutter = Worker::start(&manager, "cut").await;
        let cut = cutter.work("{}").await;
        assert_eq!(cut.job, id("film-1"));
        assert_eq!(&cut.instructions[..], b"{\"film\":1}");
        manager.stop().await;
    });
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Tcp {
            port: Some(port), ..
        } => *port,
        other => panic!("{other} has no port"),
    }
}

#[test]
fn garbage_on_every_socket_is_counted_and_changes_nothing() {
    run(async {
        let manager = Running::start(options()).await;
        let addresses = &manager.addresses;
        let all = [
            &addresses.pull[0],
            &addresses.subscribe[0],
            &addresses.api[0],
            &addresses.publish[0],
        ];
        for address in all {
            let mut stream = TcpStream::connect(("127.0.0.1", port(address))).unwrap();
            // The peer may be closed before all of it is written.
            let _ = stream.write_all(&[0xd5; 4096]);
        }
        let junk = || vec![Bytes::from_static(b"worker"), Bytes::from_static(b"CTB?")];
        let push = Push::open(Options::default(), addresses.pull[0].clone())
            .await
            .unwrap();
        push.send(junk()).await.unwrap();
        push.send(vec![Bytes::from_static(b"not json")])
            .await
            .unwrap();
        push.send(encode(&query(1), Codec::Bincode)).await.unwrap();
        let endpoint = Endpoint::Connect(addresses.subscribe[0].clone());
        let publish = Publish::open(Options::default(), [endpoint]).await.unwrap();
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        client
            .stats_until("the garbage to be counted", |stats| {
                // What is published before the subscription has come goes nowhere.
                publish.send(junk());
                let strangers = ["pull", "sub", "api", "pub"]
                    .map(|role| counter(stats, &format!("{role}_socket.handshakes_malformed")));
                strangers == [1; 4]
                    && counter(stats, "pull_malformed") == 2
                    && counter(stats, "pull_unexpected") == 1
                    && counter(stats, "sub_malformed") > 0
            })
            .await;
        client.enqueue(&["film-1"]).await;
        let mut cutter = Worker::start(&manager, "cut").await;
        cutter.work("{}").await;
        manager.stop().await;
    });
}
