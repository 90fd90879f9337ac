//! The zeromq crate alone: PULL and ROUTER keep something of every peer that ever was.
//! docs/notes/zeromq-peer-leak.md says what. Arguments: connections to each (100,000),
//! executor threads (16; with few, docs/notes/zeromq-pub-deadlock.md comes first).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use async_global_executor::GlobalExecutorConfig;
use zeromq::{PullSocket, RouterSocket, Socket, SocketRecv};

/// How many rows each table has.
const ROWS: u64 = 5;
/// How long a socket may take to answer.
const SILENCE: Duration = Duration::from_secs(5);

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut argument = |default| arguments.next().and_then(Result::ok).unwrap_or(default);
    let (connections, threads) = (argument(100_000), argument(16));
    let config = GlobalExecutorConfig::default()
        .with_min_threads(usize::try_from(threads).expect("a number of threads"));
    async_global_executor::init_with_config(config);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pull = folder.path().join("pull");
    keep(PullSocket::new(), &pull);
    measure("PULL", &pull, "PUSH", connections);
    let router = folder.path().join("router");
    keep(RouterSocket::new(), &router);
    measure("ROUTER", &router, "DEALER", connections);
}

/// Binds a socket and receives on it for ever.
fn keep(mut socket: impl Socket + SocketRecv + 'static, path: &Path) {
    let address = format!("ipc://{}", path.display());
    async_std::task::block_on(socket.bind(&address)).expect("an address of our own");
    async_std::task::spawn(async move {
        loop {
            let _ = socket.recv().await;
        }
    });
}

fn measure(name: &str, path: &Path, peer: &str, connections: u64) {
    let step = connections / ROWS;
    // What is allocated once only is not counted.
    connect(path, peer, step);
    let mut before = resident_bytes();
    println!("{name:<8}{:>12}{:>14}", "connections", "bytes each");
    for row in 1..=ROWS {
        connect(path, peer, step);
        let now = resident_bytes();
        let each = (now - before) / i64::try_from(step).expect("a small number");
        println!("{:<8}{:>12}{each:>14}", "", row * step);
        before = now;
    }
}

/// So many peers, one after the other; none is left when this returns.
fn connect(path: &Path, peer: &str, count: u64) {
    for number in 0..count {
        if let Err(error) = come_and_go(path, peer) {
            println!("the socket has not answered connection {number} for {SILENCE:?}: {error}");
            std::process::exit(1);
        }
    }
    thread::sleep(Duration::from_millis(500));
}

fn come_and_go(path: &Path, peer: &str) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut greeting = [0; 64];
    greeting[..11].copy_from_slice(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3]);
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting)?;
    stream.read_exact(&mut greeting)?;
    let length = |text: &str| u8::try_from(text.len()).expect("a short text");
    let mut ready = vec![4, 22 + length(peer)];
    ready.extend_from_slice(b"\x05READY\x0bSocket-Type\0\0\0");
    ready.push(length(peer));
    ready.extend_from_slice(peer.as_bytes());
    stream.write_all(&ready)?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    stream.read_exact(&mut vec![0; usize::from(head[1])])
}

fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<i64>().ok());
    pages.expect("a number of pages") * 4096
}
