//! Workers behind a device that spreads work over them.

use carbontube_protocol::message::Outcome;
use carbontube_transport::{Endpoint, Options, Streamer};
use carbontube_worker::{StartError, Worker};
use serde_json::json;

use crate::scripted::{Manager, address, attempt, phase, reached, run, work};

#[test]
fn worker_behind_a_streamer_announces_it_and_works() {
    run(async {
        let mut manager = Manager::open().await;
        let free = || [Endpoint::Bind(address("tcp://127.0.0.1:0"))];
        let options = Options::default();
        let mut streamer = Streamer::open(options.clone(), free(), options, free())
            .await
            .expect("opens");
        let (pull, push) = streamer.local_addresses();
        let relay = async_std::task::spawn(async move { streamer.run().await });

        let mut options = manager.options();
        options.pull = vec![Endpoint::Connect(push[0].clone())];
        let nothing = phase(|_, _| async { Ok(json!(null)) });
        let refused = Worker::start(options.clone(), nothing.clone()).await;
        assert!(matches!(refused, Err(StartError::NoAdvertise)));

        options.advertise = Some(pull[0].clone());
        let worker = Worker::start(options, nothing).await.expect("starts");
        let heartbeat = manager.heartbeat(|_| true).await;
        assert!(heartbeat.shared_address);
        assert_eq!(heartbeat.address, pull[0]);
        manager.dial(&heartbeat.address).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        let result = manager.result().await;
        assert_eq!(
            (result.attempt, result.outcome),
            (attempt(1), Outcome::Success)
        );
        manager.acknowledge(&[1]).await;
        reached("acknowledged", || worker.counters().unacknowledged == 0).await;
        relay.cancel().await;
    });
}
