//! Connecting, refusals, failover.

use std::time::Duration;

use carbontube_client::{ClientError, ClientOptions, PipelineClient, Receipt};
use carbontube_protocol::message::Code;
use carbontube_protocol::{Codec, Header, Kind};
use carbontube_transport::{Endpoint, Options, Publish, Pull};
use futures_lite::future;

use crate::scripted::{Scripted, any_port, job, patient, pipeline, run};

fn soon() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_millis(300),
        ..patient()
    }
}

#[test]
fn nobody_at_the_address_is_an_error_that_names_it() {
    run(async {
        let address = Scripted::start().await.leave().await;
        let error = PipelineClient::connect(std::slice::from_ref(&address), soon())
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::NotConnected { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(error.hint().is_some());
    });
}

#[test]
fn no_address_and_a_listening_address_are_errors_at_once() {
    run(async {
        let error = PipelineClient::connect(&[], patient()).await.unwrap_err();
        assert!(matches!(error, ClientError::NoAddress));
        let everywhere = "tcp://*:5051".parse().expect("an address");
        let error = PipelineClient::connect(&[everywhere], patient()).await;
        assert!(matches!(error, Err(ClientError::Open(_))));
    });
}

#[test]
fn a_manager_that_never_answers_is_told_from_one_that_is_not_there() {
    run(async {
        let manager = Scripted::start().await;
        let error = PipelineClient::connect(std::slice::from_ref(&manager.address), soon())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
    });
}

#[test]
fn a_version_that_the_manager_refuses_ends_the_connecting() {
    run(async {
        let mut manager = Scripted::start().await;
        let addresses = [manager.address.clone()];
        let script = async {
            let (peer, _) = manager.frames().await;
            // It cannot read the request, so that it cannot give its number.
            manager.refuse(&peer, None, Code::Version);
            manager
        };
        let connect = PipelineClient::connect(&addresses, patient());
        let (client, _manager) = future::zip(connect, script).await;
        let error = client.unwrap_err();
        assert_eq!(error.code(), Some(Code::Version), "{error}");
        assert!(error.hint().expect("a hint").contains("version"));
    });
}

#[test]
fn a_manager_that_answers_in_another_version_ends_the_connecting() {
    run(async {
        let mut manager = Scripted::start().await;
        let addresses = [manager.address.clone()];
        let script = async {
            let (peer, _) = manager.frames().await;
            let (kind, codec) = (Kind::Answer, Codec::Bincode);
            let mut header = Header { kind, codec }.to_bytes().to_vec();
            header[3] = 9;
            manager.send_frames(&peer, vec![header.into(), "of the future".into()]);
            manager
        };
        let connect = PipelineClient::connect(&addresses, patient());
        let (client, _manager) = future::zip(connect, script).await;
        let error = client.unwrap_err();
        assert_eq!(error.code(), Some(Code::Version), "{error}");
        assert!(error.to_string().contains('9'), "{error}");
    });
}

#[test]
fn an_address_of_another_socket_is_refused() {
    run(async {
        let publish = Publish::open(Options::default(), [Endpoint::Bind(any_port())])
            .await
            .expect("a free port");
        let error = PipelineClient::connect(&publish.local_addresses(), patient())
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("PUB"), "{error}");
    });
}

#[test]
fn the_first_manager_that_answers_is_used() {
    run(async {
        let silent = Scripted::start().await;
        let mut answering = Scripted::start().await;
        let addresses = [silent.address.clone(), answering.address.clone()];
        let connect = PipelineClient::connect(&addresses, patient());
        let (client, _) = future::zip(connect, answering.greet()).await;
        let client = client.expect("one of them answers");
        let script = async {
            let (peer, enqueue) = answering.next_enqueue().await;
            answering.accept(&peer, &enqueue);
        };
        let pipeline = pipeline();
        let (receipt, ()) = future::zip(client.enqueue(&pipeline, job(1)), script).await;
        assert!(receipt.expect("accepted").is_confirmed());
    });
}

#[test]
fn another_manager_takes_over_what_was_not_answered() {
    run(async {
        let mut first = Scripted::start().await;
        let mut second = Scripted::start().await;
        let addresses = [first.address.clone(), second.address.clone()];
        let connect = PipelineClient::connect(&addresses, patient());
        let (client, _) = future::zip(connect, first.greet()).await;
        let client = client.expect("the first answers");
        let script = async {
            let (_, lost) = first.next_enqueue().await;
            // The second has been greeted meanwhile or will be: `next` answers that.
            first.leave().await;
            let (peer, enqueue) = second.next_enqueue().await;
            assert_eq!(enqueue.jobs, lost.jobs, "the same ids");
            second.accept(&peer, &enqueue);
        };
        let pipeline = pipeline();
        let (receipt, ()) = future::zip(client.enqueue(&pipeline, job(1)), script).await;
        assert!(receipt.expect("accepted").is_confirmed());
    });
}

#[test]
fn a_pull_address_is_enough_beside_one_that_does_not_answer() {
    run(async {
        let pull = Pull::open(Options::default(), [Endpoint::Bind(any_port())])
            .await
            .expect("a free port");
        let silent = Scripted::start().await;
        let addresses = [silent.address.clone(), pull.local_addresses()[0].clone()];
        let client = PipelineClient::connect(&addresses, soon())
            .await
            .expect("the pull address is there");
        assert!(!client.is_confirmed());
        let receipt = client.enqueue(&pipeline(), job(1)).await;
        assert!(
            matches!(receipt, Ok(Receipt::HandedOver { .. })),
            "{receipt:?}"
        );
    });
}

#[test]
fn garbage_from_the_manager_is_passed_over() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let script = async {
            let (peer, enqueue) = manager.next_enqueue().await;
            manager.send_frames(&peer, vec!["garbage".into()]);
            manager.send_frames(&peer, vec!["CTB".into(), "more".into()]);
            manager.refuse(&peer, None, Code::Malformed);
            manager.refuse(&peer, Some(enqueue.request + 1000), Code::Busy);
            manager.accept(&peer, &enqueue);
        };
        let pipeline = pipeline();
        let (receipt, ()) = future::zip(client.enqueue(&pipeline, job(1)), script).await;
        assert!(receipt.expect("accepted").is_confirmed());
    });
}

#[test]
fn a_dropped_client_leaves_no_connection() {
    run(async {
        let (manager, client) = Scripted::with_client(patient()).await;
        let other = client.clone();
        drop(client);
        assert!(other.is_connected(), "a clone keeps the connection");
        drop(other);
        while manager.peers() > 0 {
            future::yield_now().await;
        }
    });
}
