//! Peers that send what no peer should.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use file_catalogue::read_ledgers;

use super::{Figures, PHASES, Size, cluster, judge, order, settle};
use crate::feeder::{feed, joined};
use crate::process::resident_kib;

/// How much a process may grow, in KiB.
const GROWTH_MAX_KIB: u64 = 64 << 10;

/// Every kind of garbage on every socket, while the pipeline goes on.
pub(super) fn garbage_peer(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster(folder.path(), "", 2, 4)?;
    let count = size.of(500, 2000);
    let jobs = |count| vec![order("sleep", 2); count];
    // Memory is compared after everything has been used once.
    let (_, warm) = feed(cluster.client()?, cluster.pipeline(), jobs(200), 200, 64);
    joined(warm)?;
    settle(&mut cluster)?;
    let mut targets: Vec<String> = ["pull", "sub", "api", "pub"]
        .iter()
        .map(|kind| cluster.address(kind))
        .collect();
    for index in 0..cluster.workers() {
        targets.push(cluster.worker(index).address("address"));
    }
    let mut processes: Vec<u32> = vec![cluster.manager().id()];
    processes.extend((0..cluster.workers()).map(|index| cluster.worker(index).id()));
    let before: Vec<u64> = processes
        .iter()
        .map(|id| resident_kib(*id))
        .collect::<Result<_>>()?;
    let (told, feeder) = feed(
        cluster.client()?,
        cluster.pipeline(),
        jobs(count),
        count,
        16,
    );
    let rounds = size.of(10, 50);
    let mut random = fastrand::Rng::with_seed(7);
    let mut sent = 0;
    for _ in 0..rounds {
        for target in &targets {
            for garbage in garbage(&mut random) {
                sent += usize::from(attack(target, &garbage)?);
            }
        }
    }
    joined(feeder)?;
    settle(&mut cluster)?;
    let after: Vec<u64> = processes
        .iter()
        .map(|id| resident_kib(*id))
        .collect::<Result<_>>()?;
    let grown = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.saturating_sub(*before))
        .max()
        .unwrap_or(0);
    ensure!(grown < GROWTH_MAX_KIB, "a process grew by {grown} KiB");
    ensure!(cluster.manager().is_running(), "the manager ended");
    for index in 0..cluster.workers() {
        ensure!(cluster.worker(index).is_running(), "a worker ended");
    }
    let server = hostile_server(&mut cluster)?;
    let figures = judge(&mut cluster, &told)?;
    ensure!(
        read_ledgers(folder.path())?
            .keys()
            .any(|(phase, _)| phase == PHASES[1]),
        "no ledger of the second phase"
    );
    Ok(figures.saying(format!(
        "{sent} attacks on {} sockets, {server} on a dialling worker, most growth {grown} KiB",
        targets.len()
    )))
}

/// A worker that dials a hostile server lives on; how often the server was dialled.
fn hostile_server(cluster: &mut crate::cluster::Cluster) -> Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("tcp://{}", listener.local_addr()?);
    listener.set_nonblocking(true)?;
    let index = cluster.add_worker_dialling(PHASES[0], &address);
    let mut random = fastrand::Rng::with_seed(8);
    let mut dialled = 0;
    super::wait_for("three dials of the hostile server", || {
        if let Ok((mut stream, _)) = listener.accept() {
            let garbage = garbage(&mut random);
            let _refused = stream.write_all(&garbage[dialled % garbage.len()]);
            dialled += 1;
        }
        Ok(dialled >= 3)
    })?;
    ensure!(
        cluster.worker(index).is_running(),
        "a worker that dialled a hostile server ended"
    );
    Ok(dialled)
}

/// What to send, before, in and after a handshake.
pub(crate) fn garbage(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut noise = vec![0; 4096];
    random.fill(&mut noise);
    // ZMTP 3.0: signature, version, mechanism NULL, as-server, filler.
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend(b"NULL");
    greeting.resize(64, 0);
    let ready = |kind: &str| {
        let mut body = b"\x05READY\x0bSocket-Type".to_vec();
        body.extend((kind.len() as u32).to_be_bytes());
        body.extend(kind.as_bytes());
        let mut frame = vec![4, body.len() as u8];
        frame.extend(body);
        frame
    };
    let huge = |flags: u8, length: u64| {
        let mut frame = vec![flags];
        frame.extend(length.to_be_bytes());
        frame.extend([7; 64]);
        frame
    };
    let mut all = vec![
        noise.clone(),
        huge(2, 1 << 62),
        [greeting.clone(), huge(2, 1 << 62)].concat(),
        [greeting.clone(), huge(6, u64::MAX)].concat(),
        greeting[..20].to_vec(),
        [greeting.clone(), noise.clone()].concat(),
    ];
    for kind in ["PUSH", "PUB", "SUB", "DEALER", "REQ"] {
        let shaken = [greeting.clone(), ready(kind)].concat();
        all.push([shaken.clone(), huge(2, 1 << 62)].concat());
        all.push([shaken.clone(), huge(3, 1 << 31)].concat());
        let mut message = shaken;
        for _ in 0..8 {
            let body: Vec<u8> = (0..random.usize(..200)).map(|_| random.u8(..)).collect();
            message.push(0);
            message.push(body.len() as u8);
            message.extend(body);
        }
        all.push(message);
    }
    all
}

/// Sends garbage, reads what comes for a moment, and goes; whether it got through.
fn attack(target: &str, garbage: &[u8]) -> Result<bool> {
    let place = target
        .strip_prefix("tcp://")
        .with_context(|| format!("{target} is no tcp address"))?;
    let mut stream =
        TcpStream::connect(place).with_context(|| format!("{target} takes no connection"))?;
    stream.set_read_timeout(Some(Duration::from_millis(2)))?;
    let written = stream.write_all(garbage).is_ok();
    let _answer = stream.read(&mut [0; 256]);
    Ok(written)
}
