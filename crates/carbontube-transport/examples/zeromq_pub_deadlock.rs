//! The zeromq crate alone: a PUB whose subscribers come and go stops the executor for ever.
//! docs/notes/zeromq-pub-deadlock.md says why. Arguments: executor threads (2), seconds (60).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_global_executor::GlobalExecutorConfig;
use zeromq::{PubSocket, Socket, SocketSend};

/// How long no task may run before the executor counts as stopped.
const SILENCE: Duration = Duration::from_secs(5);
/// Threads that join and leave.
const VIEWERS: usize = 2;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut argument = |default| arguments.next().and_then(Result::ok).unwrap_or(default);
    let (threads, seconds) = (argument(2), argument(60));
    let config = GlobalExecutorConfig::default()
        .with_min_threads(usize::try_from(threads).expect("a number of threads"));
    async_global_executor::init_with_config(config);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pub");
    let mut socket = PubSocket::new();
    let address = format!("ipc://{}", path.display());
    async_std::task::block_on(socket.bind(&address)).expect("an address of our own");

    let joins = Arc::new(AtomicU64::new(0));
    for _ in 0..VIEWERS {
        let (path, joins) = (path.clone(), joins.clone());
        thread::spawn(move || {
            while join_and_leave(&path).is_ok() {
                joins.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Sends only put messages into the socket's queue, so a thread of its own can.
    thread::spawn(move || {
        loop {
            for _ in 0..10 {
                let _ = async_std::task::block_on(socket.send(vec![b'x'; 200].into()));
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    watch(&joins, Duration::from_secs(seconds));
}

/// Ends the process when no task runs any more, or after some time.
fn watch(joins: &AtomicU64, limit: Duration) {
    let began = Instant::now();
    let ran = Arc::new(AtomicU64::new(0));
    let (mut asked, mut since) = (0, Instant::now());
    while began.elapsed() < limit {
        if ran.load(Ordering::Acquire) == asked {
            (asked, since) = (asked + 1, Instant::now());
            let ran = ran.clone();
            async_std::task::spawn(async move {
                ran.fetch_add(1, Ordering::Release);
            });
        } else if since.elapsed() > SILENCE {
            let (joins, after) = (joins.load(Ordering::Relaxed), since - began);
            println!(
                "stopped after {after:.1?} and {joins} joins: no task has run for {SILENCE:?}"
            );
            std::process::exit(1);
        }
        thread::sleep(Duration::from_millis(50));
    }
    let joins = joins.load(Ordering::Relaxed);
    println!("did not stop within {limit:?} and {joins} joins");
    std::process::exit(0);
}

/// One SUB that subscribes to everything and goes at once.
fn join_and_leave(path: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    let mut greeting = [0; 64];
    greeting[..11].copy_from_slice(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3]);
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting)?;
    stream.read_exact(&mut greeting)?;
    stream.write_all(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB")?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    stream.read_exact(&mut vec![0; usize::from(head[1])])?;
    stream.write_all(b"\0\x01\x01")
}
