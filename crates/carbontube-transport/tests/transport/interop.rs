//! Real libzmq, through pyzmq, on the other side.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carbontube_transport::{
    Dealer, Endpoint, Options, Publish, Pull, Push, Router, Subscribe, add_delimiter,
    take_delimiter,
};

use crate::support::{any_port, free_port, local, message, port, reached, run, soon, text};

/// Whether pyzmq is there; says so when it is not.
fn pyzmq() -> bool {
    let found = Command::new("python3")
        .args(["-c", "import zmq"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        assert!(
            std::env::var("CARBONTUBE_REQUIRE_ALL").as_deref() != Ok("1"),
            "pyzmq is required here and missing"
        );
        println!("skipped: python3 with pyzmq is not installed");
    }
    found
}

/// Runs a script with `port` and a context `c` at hand.
fn python(at: u16, script: &str) -> Child {
    let script = format!(
        "import zmq\nport = {at}\nc = zmq.Context()\n\
         def sock(kind, how='connect', **options):\n\
         \x20   s = c.socket(getattr(zmq, kind))\n\
         \x20   s.RCVTIMEO = s.SNDTIMEO = 20000\n\
         \x20   s.LINGER = 20000\n\
         \x20   for name, value in options.items(): setattr(s, name, value)\n\
         \x20   getattr(s, how)(f'tcp://127.0.0.1:{{port}}')\n\
         \x20   return s\n{script}"
    );
    Command::new("python3")
        .args(["-c", &script])
        .spawn()
        .unwrap()
}

async fn succeeded(mut child: Child) {
    let status = soon(
        "python",
        async_std::task::spawn_blocking(move || child.wait()),
    )
    .await;
    assert!(status.unwrap().success());
}

#[test]
fn python_push_reaches_pull_with_and_without_heartbeats() {
    if !pyzmq() {
        return;
    }
    run(async {
        for options in ["", ", HEARTBEAT_IVL=50, HEARTBEAT_TIMEOUT=2000"] {
            let mut pull = Pull::open(Options::default(), any_port()).await.unwrap();
            let script = format!(
                "import time\ns = sock('PUSH'{options})\n\
                 for n in range(300):\n\
                 \x20   s.send_multipart([str(n).encode(), b'x' * 1000])\n\
                 \x20   if n == 150: time.sleep(0.5)\n"
            );
            let child = python(port(&pull.local_addresses()), &script);
            for n in 0..300 {
                let got = soon("job", pull.recv()).await.unwrap();
                assert_eq!(
                    (got[0].as_ref(), got[1].len()),
                    (n.to_string().as_bytes(), 1000)
                );
            }
            succeeded(child).await;
            assert_eq!(
                pull.counters().connections_accepted,
                1,
                "one connection did it all"
            );
            assert_eq!(pull.counters().pings_answered > 0, !options.is_empty());
        }
    });
}

#[test]
fn push_reaches_a_python_pull_that_comes_late() {
    if !pyzmq() {
        return;
    }
    run(async {
        let at = free_port();
        let push = Push::open(Options::default(), local(at)).await.unwrap();
        let child = python(
            at,
            "s = sock('PULL', 'bind')\n\
             for n in range(1000): assert s.recv_multipart() == [str(n).encode(), b'two'], n\n",
        );
        for n in 0..1000 {
            let mut job = message(&n.to_string());
            job.extend(message("two"));
            push.send(job).await.unwrap();
        }
        push.close(Duration::from_secs(10)).await;
        succeeded(child).await;
    });
}

#[test]
fn python_dealer_and_req_talk_to_router() {
    if !pyzmq() {
        return;
    }
    run(async {
        let mut router = Router::open(Options::default(), any_port()).await.unwrap();
        let sender = router.sender();
        let child = python(
            port(&router.local_addresses()),
            "d = sock('DEALER')\n\
             for n in range(100):\n\
             \x20   d.send_multipart([b'd', str(n).encode()])\n\
             \x20   assert d.recv_multipart() == [b'd', str(n).encode(), b'ok']\n\
             r = sock('REQ')\n\
             for n in range(100):\n\
             \x20   r.send(str(n).encode())\n\
             \x20   assert r.recv_multipart() == [str(n).encode(), b'ok']\n",
        );
        for n in 0..200 {
            let (peer, mut request) = soon("request", router.recv()).await.unwrap();
            let from_req = take_delimiter(&mut request);
            assert_eq!(from_req, n >= 100);
            request.extend(message("ok"));
            if from_req {
                add_delimiter(&mut request);
            }
            sender.send(&peer, request).unwrap();
        }
        succeeded(child).await;
    });
}

#[test]
fn dealer_talks_to_a_python_router() {
    if !pyzmq() {
        return;
    }
    run(async {
        let at = free_port();
        let dealer = Dealer::open(Options::default(), local(at)).await.unwrap();
        let child = python(
            at,
            "s = sock('ROUTER', 'bind')\n\
             for n in range(100):\n\
             \x20   who, body = s.recv_multipart()\n\
             \x20   s.send_multipart([who, b'got ' + body])\n",
        );
        for n in 0..100 {
            dealer.send(message(&n.to_string())).await.unwrap();
            assert_eq!(
                text(&soon("reply", dealer.recv()).await.unwrap()),
                format!("got {n}")
            );
        }
        succeeded(child).await;
    });
}

#[test]
fn python_pub_reaches_subscribe_bound_and_dialled() {
    if !pyzmq() {
        return;
    }
    run(async {
        for bound in [true, false] {
            let at = free_port();
            let (ours, theirs) = if bound {
                (Endpoint::Bind(local(at)), "connect")
            } else {
                (Endpoint::Connect(local(at)), "bind")
            };
            let mut sub = Subscribe::open(Options::default(), [ours], ["yes"])
                .await
                .unwrap();
            let mut child = python(
                at,
                &format!(
                    "import time\ns = sock('PUB', '{theirs}')\n\
                     for n in range(10000):\n\
                     \x20   s.send_multipart([b'no', b'x'])\n\
                     \x20   s.send_multipart([b'yes', str(n).encode()])\n\
                     \x20   time.sleep(0.002)\n"
                ),
            );
            let mut last = None;
            for _ in 0..50 {
                let got = soon("event", sub.recv()).await.unwrap();
                assert_eq!(got[0], "yes");
                let n: u32 = String::from_utf8_lossy(&got[1]).parse().unwrap();
                assert!(last.is_none_or(|last| n == last + 1), "{n} after {last:?}");
                last = Some(n);
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
}

#[test]
fn publish_reaches_a_python_sub_with_heartbeats() {
    if !pyzmq() {
        return;
    }
    run(async {
        let publish = Publish::open(Options::default(), any_port()).await.unwrap();
        let child = python(
            port(&publish.local_addresses()),
            "s = c.socket(zmq.SUB)\n\
             s.HEARTBEAT_IVL = 50\n\
             s.RCVTIMEO = 20000\n\
             s.subscribe(b'yes')\n\
             s.connect(f'tcp://127.0.0.1:{port}')\n\
             first = int(s.recv_multipart()[1])\n\
             for n in range(1, 200): assert s.recv_multipart() == [b'yes', str(first + n).encode()]\n",
        );
        let mut child = child;
        let mut n = 0;
        reached("the subscriber has enough", || {
            publish.send(message("no"));
            let mut event = message("yes");
            event.extend(message(&n.to_string()));
            publish.send(event);
            n += 1;
            child.try_wait().unwrap().is_some_and(|status| {
                assert!(status.success());
                true
            })
        })
        .await;
    });
}
