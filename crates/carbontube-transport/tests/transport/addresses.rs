//! Binding: wildcards, free ports, ipc files, IPv6, and errors for people.

use std::time::Duration;

use carbontube_transport::{Address, Endpoint, OpenError, Options, Pull, Push};

use crate::support::{address, any_port, message, port, run, soon, text};

async fn round_trip(bound: Endpoint, to: impl FnOnce(&[Address]) -> Address) {
    let mut pull = Pull::open(Options::default(), [bound]).await.unwrap();
    let push = Push::open(Options::default(), to(&pull.local_addresses()))
        .await
        .unwrap();
    push.send(message("through")).await.unwrap();
    assert_eq!(
        text(&soon("message", pull.recv()).await.unwrap()),
        "through"
    );
    push.close(Duration::from_secs(1)).await;
    pull.close().await;
}

#[test]
fn wildcards_free_ports_names_and_ipv6_bind() {
    run(async {
        for bound in [
            "tcp://*:0",
            "tcp://*",
            "tcp://127.0.0.1",
            "tcp://localhost:0",
            "tcp://0.0.0.0:0",
        ] {
            round_trip(Endpoint::Bind(address(bound)), |locals| {
                address(&format!("tcp://localhost:{}", port(locals)))
            })
            .await;
        }
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            round_trip(Endpoint::Bind(address("tcp://[::1]:0")), |locals| {
                locals[0].clone()
            })
            .await;
        }
    });
}

#[test]
fn ipc_file_is_replaced_only_when_nobody_answers() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let at = address(&format!("ipc://{}", path.display()));
        round_trip(Endpoint::Bind(at.clone()), |_| at.clone()).await;
        assert!(!path.exists(), "the file goes with the socket");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a stale file");
        let pull = Pull::open(Options::default(), [Endpoint::Bind(at.clone())])
            .await
            .unwrap();
        let error = Pull::open(Options::default(), [Endpoint::Bind(at.clone())])
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), format!("{at} is already in use"));
        pull.close().await;

        std::fs::write(&path, "precious").unwrap();
        let error = Pull::open(Options::default(), [Endpoint::Bind(at)])
            .await
            .unwrap_err();
        assert!(matches!(error, OpenError::NotASocket { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    });
}

#[test]
fn taken_port_is_named_and_nothing_stays_open() {
    run(async {
        let first = Pull::open(Options::default(), any_port()).await.unwrap();
        let at = port(&first.local_addresses());
        let bound = || [Endpoint::Bind(address(&format!("tcp://127.0.0.1:{at}")))];
        let error = Pull::open(Options::default(), bound()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("port {at} is already in use"));
        first.close().await;
        Pull::open(Options::default(), bound()).await.unwrap();
    });
}

#[test]
fn addresses_that_cannot_be_dialled_are_refused_at_once() {
    run(async {
        for wrong in ["tcp://*:5050", "tcp://localhost"] {
            let error = Push::open(Options::default(), address(wrong))
                .await
                .unwrap_err();
            assert!(matches!(error, OpenError::Connect { .. }), "{error}");
        }
        let error = Pull::open(Options::default(), []).await.unwrap_err();
        assert_eq!(error.to_string(), "a socket needs at least one address");
        let error = Pull::open(
            Options::default(),
            [Endpoint::Bind(address("tcp://no.such.host.invalid:1"))],
        )
        .await;
        assert!(matches!(error, Err(OpenError::Resolve { .. })));
    });
}
