//! What the tests share: deadlines, endpoints, memory readings.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use carbontube_transport::{Address, Endpoint, Message, Options, Publish, Subscribe};
use futures_lite::future;

/// The longest that any single wait may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test with a deadline over all of it.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    carbontube_transport::init_runtime();
    // Debug builds copy a future at each layer; a large test would overflow its stack.
    let test = Box::pin(test);
    async_std::task::block_on(async {
        within(Duration::from_secs(120), "the whole test", test).await
    })
}

/// Waits for a future, but not for ever.
pub(crate) async fn within<T>(time: Duration, what: &str, work: impl Future<Output = T>) -> T {
    let work = Box::pin(work);
    future::or(async { Some(work.await) }, async {
        async_io::Timer::after(time).await;
        None
    })
    .await
    .unwrap_or_else(|| panic!("{what}: not within {time:?}"))
}

/// Waits for a future within the usual patience.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    within(PATIENCE, what, work).await
}

/// Waits until a state is reached.
pub(crate) async fn reached(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !state() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        async_io::Timer::after(Duration::from_millis(2)).await;
    }
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().expect("a test's own address")
}

/// Any free port of the loopback interface.
pub(crate) fn any_port() -> [Endpoint; 1] {
    [Endpoint::Bind(address("tcp://127.0.0.1:0"))]
}

/// The port of a bound address.
pub(crate) fn port(addresses: &[Address]) -> u16 {
    match &addresses[0] {
        Address::Tcp {
            port: Some(port), ..
        } => *port,
        other => panic!("no port in {other}"),
    }
}

pub(crate) fn local(port: u16) -> Address {
    address(&format!("tcp://127.0.0.1:{port}"))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

pub(crate) fn message(text: &str) -> Message {
    vec![Bytes::copy_from_slice(text.as_bytes())]
}

pub(crate) fn text(message: &Message) -> String {
    let parts: Vec<_> = message
        .iter()
        .map(|frame| String::from_utf8_lossy(frame))
        .collect();
    parts.join("|")
}

/// Options for tests that wait for timeouts.
pub(crate) fn quick() -> Options {
    Options {
        handshake_timeout: Duration::from_millis(300),
        stall_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_secs(1),
        ..Options::default()
    }
}

/// The resident memory of this process, in MiB.
pub(crate) fn resident_mib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: usize = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("statm has the resident pages");
    (pages * 4096) >> 20
}

/// Publishes until it is heard: a publisher's first messages go nowhere.
pub(crate) async fn heard(publish: &Publish, sub: &mut Subscribe, what: &str) {
    let sending = async {
        loop {
            publish.send(message("unheard"));
            publish.send(message(what));
            async_io::Timer::after(Duration::from_millis(5)).await;
        }
    };
    let hearing = async { while text(&sub.recv().await.unwrap()) != what {} };
    soon(what, future::or(sending, hearing)).await;
}
