//! Look-ups that hang, and those that do not.

use std::sync::mpsc::channel;

use futures_lite::future;

use super::*;

fn stranger(host: u8, connection: u64) -> Origin {
    Origin {
        host: Some([10, 0, 0, host].into()),
        connection,
        is_local: false,
    }
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A resolver that answers for names that begin with `good`, and hangs with all others
/// until it is let go.
struct Hanging {
    resolver: Resolver,
    _gate: std::sync::mpsc::Sender<()>,
}

fn hanging() -> Hanging {
    let (gate, hangs) = channel::<()>();
    let hangs = Mutex::new(hangs);
    let hangs = Arc::new(hangs);
    let resolver = Resolver::with(move |name| {
        if name.starts_with("good") {
            return Ok(vec![HERE]);
        }
        // Ends when the sender is dropped.
        let _ = hangs.lock().map(|hangs| hangs.recv());
        Err(io::ErrorKind::TimedOut.into())
    });
    Hanging {
        resolver,
        _gate: gate,
    }
}

fn begin(resolver: &Resolver, name: &str, origin: Origin) {
    let mut asking = Box::pin(resolver.resolve_for(name, origin));
    assert!(future::block_on(future::poll_once(&mut asking)).is_none());
}

#[test]
fn name_of_an_honest_worker_is_found_while_others_hang() {
    let Hanging { resolver, _gate } = &hanging();
    for n in 0..2000 {
        begin(resolver, &format!("bad{n}"), stranger(1, n % 5));
    }
    // Of the attackers' host or another one.
    for host in [1, 2] {
        let name = format!("good{host}");
        let found = future::block_on(resolver.resolve_for(&name, stranger(host, 77)));
        assert_eq!(found.expect("found"), [HERE]);
    }
    let ours = future::block_on(resolver.resolve("good-own"));
    assert_eq!(ours.expect("found"), [HERE]);
    assert!(resolver.threads() <= TRUSTED_MAX + STRANGERS_MAX);
    let state = resolver.0.lock();
    assert!(state.strangers.len() <= WAITING_MAX);
    assert!(state.asked.len() <= WAITING_MAX + STRANGERS_MAX);
}

#[test]
fn strangers_of_many_hosts_never_take_the_trusted_ones_threads() {
    let Hanging { resolver, _gate } = &hanging();
    for n in 0..200 {
        begin(resolver, &format!("bad{n}"), stranger(n, n.into()));
    }
    let ours = future::block_on(resolver.resolve("good"));
    assert_eq!(ours.expect("found"), [HERE]);
    assert!(resolver.0.lock().strangers_running <= STRANGERS_MAX);
}

#[test]
fn each_name_is_looked_up_once_at_a_time() {
    let (sender, calls) = channel();
    let (go, gate) = channel::<()>();
    let (sender, gate) = (Mutex::new(sender), Mutex::new(gate));
    let resolver = Resolver::with(move |name| {
        sender
            .lock()
            .expect("ours")
            .send(name.to_owned())
            .expect("heard");
        gate.lock().expect("ours").recv().expect("let go");
        Ok(vec![HERE])
    });
    let mut asking: Vec<_> = (0..5)
        .map(|n| Box::pin(resolver.resolve_for("name", stranger(n, n.into()))))
        .collect();
    for asked in &mut asking {
        assert!(future::block_on(future::poll_once(asked)).is_none());
    }
    assert_eq!(calls.recv().as_deref(), Ok("name"));
    go.send(()).expect("waits");
    for asked in asking {
        assert_eq!(future::block_on(asked).expect("found"), [HERE]);
    }
    // Remembered for strangers, asked anew for ourselves.
    let again = future::block_on(resolver.resolve_for("name", stranger(9, 9)));
    assert_eq!(again.expect("found"), [HERE]);
    go.send(()).expect("waits");
    future::block_on(resolver.resolve("name")).expect("found");
    assert_eq!(calls.try_iter().count(), 1);
}

#[test]
fn name_without_an_address_is_remembered_as_such() {
    let resolver = Resolver::with(|_| Ok(Vec::new()));
    let found = future::block_on(resolver.resolve_for("name", stranger(1, 1)));
    assert!(found.is_err());
    assert_eq!(resolver.remembered("name"), Found::Nothing);
    assert_eq!(resolver.remembered("other"), Found::Unknown);
}
