//! Workers that nobody has, announced to a manager on real sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use carbontube_protocol::message::{Heartbeat, WorkerState};
use carbontube_protocol::{Address, Codec, Timestamp, WorkerId, encode_event};
use carbontube_transport::{Endpoint, Options, Publish, Resolver};

use crate::support::{Client, Running, Worker, counter, job_type, options, run};

/// Who announces workers.
struct Liar(Publish);

impl Liar {
    async fn start(manager: &Running) -> Liar {
        let sub = Endpoint::Connect(manager.addresses.subscribe[0].clone());
        Liar(Publish::open(Options::default(), [sub]).await.unwrap())
    }

    /// Announces a new worker.
    fn announce(&self, address: &Address) {
        let heartbeat = Heartbeat {
            worker: WorkerId::generate(),
            sequence: 1,
            job_type: job_type("cut"),
            address: address.clone(),
            shared_address: false,
            slots: 4,
            state: WorkerState::Available,
            managers: Vec::new(),
            success_count: 0,
            failed_count: 0,
            host: "nowhere".to_owned(),
            pid: 1,
            started_at: Timestamp(1),
            version: "a lie".to_owned(),
        };
        let frames = encode_event("worker.cut", &heartbeat.into(), Codec::Bincode);
        self.0.send(frames);
    }
}

#[test]
fn path_that_came_over_the_network_is_not_connected_to() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let manager = Running::start(options()).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        let liar = Liar::start(&manager).await;
        let address = Address::Ipc { path };
        loop {
            liar.announce(&address);
            let stats = client.stats().await;
            if counter(&stats, "addresses_not_believed") >= 10 {
                break;
            }
        }
        // Whoever was believed would have been dialled before this one.
        client.enqueue(&["film-1"]).await;
        let mut worker = Worker::start(&manager, "cut").await;
        worker.work("{}").await;
        assert!(listener.accept().is_err(), "it was dialled");
        manager.stop().await;
    });
}

#[test]
fn worker_named_by_a_host_name_is_served_while_all_other_names_hang() {
    run(async {
        let (_gate, hangs) = channel::<()>();
        let hangs = Mutex::new(hangs);
        let mut options = options();
        let resolver = Resolver::with(move |name| {
            if name == "honest" {
                return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
            }
            // Until the test is over.
            let _ = hangs.lock().map(|hangs| hangs.recv());
            Err(std::io::ErrorKind::TimedOut.into())
        });
        options.transport.resolver = resolver.clone();
        let manager = Running::start(options).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        let liar = Liar::start(&manager).await;
        let mut n = 0;
        loop {
            for _ in 0..50 {
                n += 1;
                liar.announce(&Address::tcp(&format!("no-{n}.test"), 7000));
            }
            // So many that some of them are given up already.
            let stats = client.stats().await;
            if counter(&stats, "heartbeats_unresolved") >= 100 {
                break;
            }
        }
        client.enqueue(&["film-1"]).await;
        let mut worker = Worker::start(&manager, "cut").await;
        worker.name = Some("honest");
        worker.work("{}").await;
        assert!(resolver.threads() <= 48, "{}", resolver.threads());
        manager.stop().await;
    });
}

#[test]
fn flood_of_invented_workers_is_dialled_and_shown_in_part_and_holds_up_nobody() {
    run(async {
        let manager = Running::start(options()).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        let liar = Liar::start(&manager).await;
        let mut n = 0_u32;
        // Ports of loopback addresses where nobody listens.
        let mut flood = |count: u32| {
            for _ in 0..count {
                n += 1;
                let [_, a, b, c] = n.to_be_bytes();
                let host = format!("127.{}.{b}.{c}", 100 + a % 100);
                liar.announce(&Address::tcp(&host, 9));
            }
        };
        loop {
            flood(2000);
            let stats = client.stats().await;
            if counter(&stats, "heartbeats_displaced") > 5000 {
                break;
            }
        }
        client.enqueue(&["film-1"]).await;
        let mut worker = Worker::start(&manager, "cut").await;
        flood(5000);
        worker.work("{}").await;
        let stats = client.stats().await;
        assert!(counter(&stats, "newcomers_dialled") > 0);
        let shown: u32 = stats.phases.iter().map(|phase| phase.workers).sum();
        assert!(shown <= 513, "{shown} workers");
        manager.stop().await;
    });
}
