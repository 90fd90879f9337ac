//! What was accepted is written before a socket closes, and before a process exits.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use carbontube_transport::{
    CloseOutcome, Dealer, Endpoint, Message, Options, Publish, Pull, Push, Router, Subscribe,
};

use crate::raw::Raw;
use crate::support::{any_port, free_port, local, message, port, reached, run, soon, text};

/// Names the role and the port for the child process.
const CHILD: &str = "CARBONTUBE_TEST_CHILD";
const COUNT: usize = 1000;

fn job(n: usize) -> Message {
    vec![Bytes::from(n.to_string()), Bytes::from(vec![0; 1000])]
}

/// Runs as a child of the tests below; without its variable there is nothing to do.
#[test]
fn child_entry() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    let (kind, at) = role.split_once(' ').unwrap();
    let to = local(at.parse().unwrap());
    async_std::task::block_on(async {
        let outcome = if kind == "push" {
            let push = Push::open(Options::default(), to).await.unwrap();
            for n in 0..COUNT {
                push.send(job(n)).await.unwrap();
            }
            push.close(Duration::from_secs(10)).await
        } else {
            let dealer = Dealer::open(Options::default(), to).await.unwrap();
            for n in 0..COUNT {
                dealer.send(job(n)).await.unwrap();
            }
            dealer.close(Duration::from_secs(10)).await
        };
        std::process::exit(i32::from(outcome != CloseOutcome::Delivered));
    });
}

fn child(kind: &str, at: u16) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "linger::child_entry", "--test-threads=1"])
        .env(CHILD, format!("{kind} {at}"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn trap_4_process_that_exits_right_after_close_loses_nothing() {
    run(async {
        for _ in 0..3 {
            let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
            let mut pushing = child("push", port(&pull.local_addresses()));
            // The receiver starts late: everything has to wait for it somewhere.
            for n in 0..COUNT {
                let got = soon("job", pull.recv()).await.unwrap();
                assert_eq!(got[0], n.to_string());
            }
            assert!(pushing.wait().unwrap().success());

            let mut router = Router::open(Options::default(), any_port()).await.unwrap();
            let sender = router.sender();
            let mut dealing = child("dealer", port(&router.local_addresses()));
            for n in 0..COUNT {
                let (peer, got) = soon("request", router.recv()).await.unwrap();
                assert_eq!(got[0], n.to_string());
                // Replies that nobody reads must not reset what is on its way.
                let _ = sender.send(&peer, message("reply"));
            }
            assert!(dealing.wait().unwrap().success());
        }
    });
}

#[test]
fn closing_without_a_reading_peer_hands_the_unwritten_messages_back() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().port();
        let options = Options {
            send_hwm_messages: 1000,
            ..Options::default()
        };
        let push = Push::open(options, local(at)).await.unwrap();
        let deaf = async_std::task::spawn_blocking(move || Raw::accept(&listener, "PULL")).await;
        push.connected(Duration::from_secs(5)).await.unwrap();
        let mut accepted = 0_u32;
        let body = Bytes::from(vec![0; 60_000]);
        while push
            .try_send(vec![
                Bytes::copy_from_slice(&accepted.to_be_bytes()),
                body.clone(),
            ])
            .is_ok()
        {
            accepted += 1;
        }
        match push.close(Duration::from_millis(100)).await {
            CloseOutcome::Undelivered { messages } => {
                let numbers: Vec<u32> = messages
                    .iter()
                    .map(|message| u32::from_be_bytes(message[0][..].try_into().unwrap()))
                    .collect();
                let first = numbers[0];
                assert_eq!(numbers, (first..accepted).collect::<Vec<_>>());
            }
            CloseOutcome::Delivered => panic!("nobody read it"),
        }
        drop(deaf);
        let push = Push::open(Options::default(), local(free_port()))
            .await
            .unwrap();
        assert_eq!(
            push.close(Duration::from_secs(5)).await,
            CloseOutcome::Delivered,
            "nothing was accepted"
        );
    });
}

#[test]
fn router_and_publisher_write_everything_before_they_close() {
    run(async {
        let mut router = Router::open(Options::default(), any_port()).await.unwrap();
        let dealer = Dealer::open(Options::default(), router.local_addresses()[0].clone())
            .await
            .unwrap();
        dealer.send(message("hi")).await.unwrap();
        let (peer, _) = soon("hi", router.recv()).await.unwrap();
        let sender = router.sender();
        for n in 0..COUNT {
            sender.send(&peer, job(n)).unwrap();
        }
        assert!(router.close(Duration::from_secs(10)).await);
        for n in 0..COUNT {
            assert_eq!(
                soon("reply", dealer.recv()).await.unwrap()[0],
                n.to_string()
            );
        }

        let publish = Publish::open(Options::default(), any_port()).await.unwrap();
        let at = publish.local_addresses()[0].clone();
        let mut sub = Subscribe::open(Options::default(), [Endpoint::Connect(at)], [""])
            .await
            .unwrap();
        reached("subscribed", || {
            publish.send(message("sync"));
            publish.counters().messages_out > 0
        })
        .await;
        for n in 0..COUNT {
            publish.send(job(n));
        }
        let closing = async_std::task::spawn(publish.close(Duration::from_secs(10)));
        let mut next = 0;
        while next < COUNT {
            let got = soon("event", sub.recv()).await.unwrap();
            if text(&got) != "sync" {
                assert_eq!(got[0], next.to_string());
                next += 1;
            }
        }
        assert!(closing.await);
    });
}

#[test]
fn sockets_closed_and_dropped_leave_no_files_and_no_descriptors() {
    run(async {
        let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let nooks = || {
            let prefix = format!("carbontube-{}-", std::process::id());
            std::fs::read_dir(std::env::temp_dir())
                .unwrap()
                .filter(|entry| {
                    entry
                        .as_ref()
                        .unwrap()
                        .file_name()
                        .to_string_lossy()
                        .starts_with(&prefix)
                })
                .count()
        };
        let before = open_files();
        for round in 0..50 {
            let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
            let push = Push::open(Options::default(), pull.local_addresses()[0].clone())
                .await
                .unwrap();
            push.send(message("x")).await.unwrap();
            soon("x", pull.recv()).await.unwrap();
            let publish = Publish::open(Options::default(), any_port()).await.unwrap();
            if round % 2 == 0 {
                push.close(Duration::from_secs(1)).await;
                pull.close().await;
                publish.close(Duration::ZERO).await;
            }
        }
        // Other tests of this process open files of their own meanwhile.
        reached("descriptors given back", || open_files() < before + 200).await;
        reached("no file left", || nooks() == 0).await;
    });
}
