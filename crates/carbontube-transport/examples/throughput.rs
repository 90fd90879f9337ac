//! Measures our sockets beside the bare zeromq crate, over loopback TCP, in one run.
//!
//! Run with `cargo run --release -p carbontube-transport --example throughput`.
//! Sender and receiver are two threads of one process.

use std::time::{Duration, Instant};

use bytes::Bytes;
use carbontube_transport::{
    Address, Dealer, Endpoint, Message, Options, Pull, Push, Router, init_runtime,
};
use futures_lite::future::block_on;
use zeromq::{Socket, SocketRecv, SocketSend, ZmqMessage};

/// Rounds of each measurement; the median is shown.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    init_runtime();
    println!("PUSH to PULL, thousand messages/s (jobs/s for 256 a message), median of {ROUNDS}");
    println!("{:<22}{:>10}{:>10}{:>8}", "", "bare", "ours", "ratio");
    for (name, frames, size, count) in [
        ("64 B", 1, 64, 600_000),
        ("256 B", 1, 256, 600_000),
        ("4 KiB", 1, 4096, 100_000),
        ("256 jobs x 256 B", 256, 256, 12_000),
    ] {
        let message: Message = vec![Bytes::from(vec![7; size]); frames];
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(rate(frames * count, bare_push(&message, count)?));
            ours.push(rate(frames * count, our_push(&message, count)?));
        }
        let (bare, ours) = (median(bare), median(ours));
        println!("{name:<22}{bare:>10.0}{ours:>10.0}{:>8.2}", ours / bare);
    }
    println!("\nDEALER to ROUTER and back, microseconds (256 B, one at a time)");
    println!("{:<22}{:>10}{:>10}", "", "p50", "p99");
    let (p50, p99) = percentiles(bare_round_trips(5000)?);
    println!("{:<22}{p50:>10}{p99:>10}", "bare");
    let (p50, p99) = percentiles(our_round_trips(5000)?);
    println!("{:<22}{p50:>10}{p99:>10}", "ours");
    Ok(())
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64() / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentiles(mut times: Vec<Duration>) -> (u128, u128) {
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_micros();
    (at(50), at(99))
}

fn any_port() -> Result<[Endpoint; 1], Box<dyn std::error::Error>> {
    Ok([Endpoint::Bind("tcp://127.0.0.1:0".parse::<Address>()?)])
}

fn our_push(message: &Message, count: usize) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut pull = block_on(Pull::open(Options::default(), any_port()?))?;
    let push = block_on(Push::open(
        Options::default(),
        pull.local_addresses()[0].clone(),
    ))?;
    block_on(push.connected(Duration::from_secs(5)))?;
    let message = message.clone();
    let start = Instant::now();
    let sender = std::thread::spawn(move || {
        block_on(async {
            for _ in 0..count {
                push.send(message.clone()).await?;
            }
            Ok::<_, carbontube_transport::Rejected>(push)
        })
    });
    for _ in 0..count {
        block_on(pull.recv())?;
    }
    let took = start.elapsed();
    let push = sender.join().map_err(|_| "the sender panicked")??;
    block_on(push.close(Duration::from_secs(1)));
    block_on(pull.close());
    Ok(took)
}

fn bare_push(message: &Message, count: usize) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut pull = zeromq::PullSocket::new();
    let at = block_on(pull.bind("tcp://127.0.0.1:0"))?;
    let mut push = zeromq::PushSocket::new();
    block_on(push.connect(&at.to_string()))?;
    let message = ZmqMessage::try_from(message.clone()).map_err(|error| error.to_string())?;
    let start = Instant::now();
    let sender = std::thread::spawn(move || {
        block_on(async {
            for _ in 0..count {
                push.send(message.clone()).await?;
            }
            Ok::<_, zeromq::ZmqError>(push)
        })
    });
    for _ in 0..count {
        block_on(pull.recv())?;
    }
    let took = start.elapsed();
    drop(sender.join().map_err(|_| "the sender panicked")??);
    Ok(took)
}

fn our_round_trips(count: usize) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let mut router = block_on(Router::open(Options::default(), any_port()?))?;
    let to = router.local_addresses()[0].clone();
    let sender = router.sender();
    std::thread::spawn(move || {
        while let Ok((peer, message)) = block_on(router.recv()) {
            if sender.send(&peer, message).is_err() {
                return;
            }
        }
    });
    let dealer = block_on(Dealer::open(Options::default(), to))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        block_on(dealer.send(vec![Bytes::from_static(&[7; 256])]))?;
        block_on(dealer.recv())?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn bare_round_trips(count: usize) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let mut router = zeromq::RouterSocket::new();
    let at = block_on(router.bind("tcp://127.0.0.1:0"))?;
    std::thread::spawn(move || {
        while let Ok(message) = block_on(router.recv()) {
            if block_on(router.send(message)).is_err() {
                return;
            }
        }
    });
    let mut dealer = zeromq::DealerSocket::new();
    block_on(dealer.connect(&at.to_string()))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        block_on(dealer.send(ZmqMessage::from(Bytes::from_static(&[7; 256]))))?;
        block_on(dealer.recv())?;
        times.push(start.elapsed());
    }
    Ok(times)
}
