//! What a proxy does to bytes, seen from both of its ends.

use super::*;

/// A proxy with a connection through it: who dialled, and who was dialled.
fn connected() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let proxy = Proxy::to(&address).unwrap();
    let dialler = TcpStream::connect(proxy.at).unwrap();
    let (listening, _) = listener.accept().unwrap();
    for stream in [&dialler, &listening] {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
    }
    // The proxy knows of the connection when a byte comes through.
    let (mut sender, mut receiver) = (&dialler, &listening);
    sender.write_all(b"!").unwrap();
    receiver.read_exact(&mut [0]).unwrap();
    (proxy, dialler, listening)
}

fn next(stream: &mut TcpStream) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}

/// Whether a stream was reset, after whatever it had still to give.
fn is_reset(stream: &mut TcpStream) -> bool {
    let mut sink = Vec::new();
    let error = stream.read_to_end(&mut sink).unwrap_err();
    error.kind() == ErrorKind::ConnectionReset
}

#[test]
fn bytes_and_the_end_pass_both_ways() {
    let (_proxy, mut dialler, mut listening) = connected();
    dialler.write_all(b"ab").unwrap();
    assert_eq!((next(&mut listening), next(&mut listening)), (b'a', b'b'));
    listening.write_all(b"c").unwrap();
    assert_eq!(next(&mut dialler), b'c');
    drop(dialler);
    assert_eq!(listening.read(&mut [0]).unwrap(), 0);
}

#[test]
fn reset_reaches_both_ends() {
    let (proxy, mut dialler, mut listening) = connected();
    proxy.reset_all();
    assert!(is_reset(&mut dialler));
    assert!(is_reset(&mut listening));
}

#[test]
fn waiting_bytes_arrive_later_and_the_other_way_is_free() {
    let (proxy, mut dialler, mut listening) = connected();
    proxy.set(Weather {
        forward: Flow::Waits,
        ..Weather::default()
    });
    dialler.write_all(b"late").unwrap();
    listening.write_all(b"x").unwrap();
    assert_eq!(next(&mut dialler), b'x');
    listening.set_nonblocking(true).unwrap();
    let error = listening.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    listening.set_nonblocking(false).unwrap();
    proxy.set(Weather::default());
    assert_eq!(next(&mut listening), b'l');
}

#[test]
fn vanished_bytes_never_arrive_and_the_connection_is_reset_in_the_end() {
    let (proxy, mut dialler, mut listening) = connected();
    dialler.write_all(b"a").unwrap();
    assert_eq!(next(&mut listening), b'a');
    proxy.set(Weather::both(Flow::Vanishes));
    dialler.write_all(b"gone").unwrap();
    // Taken, though nobody gets it.
    let holed = || {
        let connections = proxy.connections();
        connections
            .iter()
            .any(|connection| connection.holed.load(Ordering::Acquire))
    };
    let started = Instant::now();
    while !holed() {
        assert!(started.elapsed() < Duration::from_secs(10), "never taken");
        std::thread::yield_now();
    }
    proxy.set(Weather::default());
    assert!(is_reset(&mut listening));
    assert!(is_reset(&mut dialler));
}

#[test]
fn refusing_proxy_resets_who_dials() {
    let (proxy, _dialler, _listening) = connected();
    proxy.set(Weather {
        refuses: true,
        ..Weather::default()
    });
    let mut refused = TcpStream::connect(proxy.at).unwrap();
    assert!(is_reset(&mut refused));
}
