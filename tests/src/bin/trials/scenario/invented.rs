//! Workers that nobody has: thousands of forged heartbeats a second, while clients ask and
//! honest workers come.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_std::task;
use carbontube_protocol::message::{Heartbeat, WorkerState, WorkerStatus};
use carbontube_protocol::{Address, Codec, Timestamp, WorkerId, encode_event};

use super::load::{Load, sleepers};
use super::{Figures, PHASES, Size, judge, plan, settle};
use crate::attackers::{connect_as_stranger, dead_port, opening, place};
use crate::cluster::Cluster;

/// An honest worker that starts during a flood has work within this time.
const TAKEN_MAX: Duration = Duration::from_secs(5);
/// The longest that a question may take during and after a flood.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The most dials in a second to addresses that strangers announced, and some for the rest
/// that comes in at once.
const DIALS_PER_SECOND: u64 = 300;
/// The most lines that the manager may log in ten seconds.
const LINES_PER_INTERVAL: u64 = 60;
/// The most threads that a manager may have more than before.
const THREADS_MAX: u64 = 56;
/// From how many connections a flood comes, each of an address of its own.
const CONNECTIONS: usize = 4;
/// Set in the process that runs in a namespace of its own.
const INSIDE: &str = "CARBONTUBE_TRIAL_INSIDE";
/// Where a name server listens that never answers.
const MUTE_SERVER: &str = "127.0.0.77:53";

/// What a flood announces: the address of the nth invented worker.
type Places = Arc<dyn Fn(u64) -> String + Send + Sync>;

/// A flood under way.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Sends `per_second` heartbeats of ever new workers, as fast as it can without.
    fn start(sub: &str, per_second: Option<u64>, places: Places) -> Result<Flood> {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let place = place(sub)?;
        let threads = (0..CONNECTIONS).map(|_| {
            let (stop, sent, places) = (stop.clone(), sent.clone(), places.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // One that is closed comes again.
                    let _closed = announce(place, per_second, &places, &stop, &sent);
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        });
        let threads = threads.collect();
        Ok(Flood {
            stop,
            sent,
            threads,
        })
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ended = thread.join();
        }
        self.sent.load(Ordering::Relaxed)
    }
}

fn announce(
    place: SocketAddrV4,
    per_second: Option<u64>,
    places: &Places,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<()> {
    let mut stream = connect_as_stranger(place)?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(&opening("PUB"))?;
    let started = Instant::now();
    let mut here = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let mut bytes = Vec::new();
        let burst = if per_second.is_some() { 1 } else { 64 };
        for _ in 0..burst {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            bytes.extend(beat(&places(number))?);
        }
        stream.write_all(&bytes)?;
        here += burst;
        if let Some(per_second) = per_second {
            let due = Duration::from_secs_f64(here as f64 * CONNECTIONS as f64 / per_second as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    Ok(())
}

/// A heartbeat of a new worker, as it is on the wire.
fn beat(place: &str) -> Result<Vec<u8>> {
    let beat = Heartbeat {
        worker: WorkerId::generate(),
        sequence: 1,
        job_type: PHASES[1].parse()?,
        address: place.parse::<Address>()?,
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
    let topic = format!("worker.{}", PHASES[1]);
    let frames = encode_event(&topic, &beat.into(), Codec::Bincode);
    let mut bytes = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let more = u8::from(index + 1 < frames.len());
        bytes.push(more | 2);
        bytes.extend((frame.len() as u64).to_be_bytes());
        bytes.extend_from_slice(frame);
    }
    Ok(bytes)
}

/// A port on every loopback address that counts who dials it, and closes at once.
struct Dialled {
    port: u16,
    count: Arc<AtomicU64>,
}

impl Dialled {
    fn listen() -> Result<Dialled> {
        let listener = TcpListener::bind("0.0.0.0:0")?;
        let port = listener.local_addr()?.port();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                drop::<std::io::Result<TcpStream>>(stream);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Dialled { port, count })
    }

    fn places(&self) -> Places {
        let port = self.port;
        Arc::new(move |n| {
            let [_, a, b, c] = (n as u32).to_be_bytes();
            format!("tcp://127.{}.{b}.{c}:{port}", 1 + a % 250)
        })
    }
}

/// What one flood did.
struct Effects {
    sent: u64,
    seconds: f64,
    answers: usize,
    slowest: Duration,
    by_address: Duration,
    by_name: Duration,
    lines: u64,
    threads: u64,
}

impl std::fmt::Display for Effects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} heartbeats, {} answers in {:.0} s during and after, the slowest {:.2} s, an honest \
             worker taken within {:.2} s by address and {:.2} s by name, {} lines, {} threads more",
            self.sent,
            self.answers,
            self.seconds,
            self.slowest.as_secs_f64(),
            self.by_address.as_secs_f64(),
            self.by_name.as_secs_f64(),
            self.lines,
            self.threads
        )
    }
}

/// Floods for a while, asks meanwhile and as long again afterwards, and lets honest
/// workers come.
fn suffer(
    cluster: &mut Cluster,
    name: &str,
    per_second: Option<u64>,
    places: Places,
    size: Size,
) -> Result<Effects> {
    let manager = cluster.manager().id();
    let lines_before = lines(cluster);
    let threads_before = threads(manager)?;
    let flood = Flood::start(&cluster.address("sub"), per_second, places)?;
    let during = Duration::from_secs(size.of(5, 10));
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (client, stop) = (cluster.client()?, stop.clone());
        std::thread::spawn(move || {
            let (mut answers, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let answered = task::block_on(client.stats()).is_ok();
                slowest = slowest.max(asked.elapsed());
                answers += usize::from(answered);
                std::thread::sleep(Duration::from_millis(50));
            }
            (answers, slowest)
        })
    };
    let started = Instant::now();
    std::thread::sleep(during / 3);
    let by_address = newcomer(cluster, None)?;
    let by_name = newcomer(cluster, Some(name))?;
    std::thread::sleep(during.saturating_sub(started.elapsed()));
    let threads = threads(manager)?.saturating_sub(threads_before);
    let sent = flood.end();
    std::thread::sleep(during);
    stop.store(true, Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let (answers, slowest) = asking.join().ok().context("whoever asks panicked")?;
    Ok(Effects {
        sent,
        seconds,
        answers,
        slowest,
        by_address,
        by_name,
        lines: lines(cluster) - lines_before,
        threads,
    })
}

fn check(effects: &Effects, what: &str) -> Result<()> {
    let all = effects.to_string();
    ensure!(effects.by_address <= TAKEN_MAX, "{what}: taken late: {all}");
    ensure!(effects.by_name <= TAKEN_MAX, "{what}: taken late: {all}");
    ensure!(
        effects.slowest <= ANSWER_MAX,
        "{what}: answers are late: {all}"
    );
    ensure!(
        effects.threads <= THREADS_MAX,
        "{what}: many threads: {all}"
    );
    let most = (effects.seconds / 10.0 + 2.0) as u64 * LINES_PER_INTERVAL;
    ensure!(effects.lines <= most, "{what}: many lines: {all}");
    Ok(())
}

/// Starts an honest worker, named by a host name if one is given, and waits until the
/// manager has it for a worker to give work to. A minute is the most.
fn newcomer(cluster: &mut Cluster, name: Option<&str>) -> Result<Duration> {
    let port = dead_port()?;
    let address = match name {
        Some(name) => port.replace("127.0.0.1", name),
        None => port.clone(),
    };
    let started = Instant::now();
    cluster.add_worker_with(
        PHASES[1],
        &[
            format!("--pull-bind={port}"),
            format!("--advertise={address}"),
        ],
    );
    let client = cluster.client()?;
    let address: Address = address.parse()?;
    while started.elapsed() < Duration::from_secs(60) {
        let workers = task::block_on(client.workers())?;
        let is_there = |status| matches!(status, WorkerStatus::Available);
        if workers
            .iter()
            .any(|it| it.address == address && is_there(it.status))
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(started.elapsed())
}

fn lines(cluster: &mut Cluster) -> u64 {
    cluster.manager().log().lines().count() as u64
}

fn threads(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    Ok(line.context("a process has threads")?.trim().parse()?)
}

/// Floods of workers at ever new addresses, and at paths.
pub(super) fn invented_workers(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &plan("attempts = 10"))?;
    for phase in PHASES {
        cluster.add_worker(phase, 8);
    }
    let mut load = Load::start(&cluster, cluster.client()?, sleepers(size.random(), 10), 32);
    load.advance(size.of(200, 2000))?;
    let dialled = Dialled::listen()?;
    let addresses = suffer(&mut cluster, "localhost", None, dialled.places(), size)?;
    let dials = dialled.count.load(Ordering::Relaxed);
    let path = folder.path().join("nobody");
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    let path = format!("ipc://{}", path.display());
    let paths = suffer(
        &mut cluster,
        "localhost",
        None,
        Arc::new(move |_| path.clone()),
        size,
    )?;
    let reached = std::iter::from_fn(|| listener.accept().ok()).count();
    let more = format!(
        "addresses: {addresses}, {dials} dials to them; paths: {paths}, {reached} connections to them"
    );
    load.finish()?;
    settle(&mut cluster)?;
    let figures = judge(&mut cluster, &load.told)?.saying(&more);
    check(&addresses, "addresses")?;
    let most = (addresses.seconds as u64 + 2) * DIALS_PER_SECOND;
    ensure!(dials <= most, "many dials: {more}");
    check(&paths, "paths")?;
    ensure!(reached == 0, "a path from the network was believed: {more}");
    Ok(figures)
}

/// A flood of workers at names that no server resolves. It needs a file system of its
/// own, in which the name server is one that never answers.
pub(super) fn invented_names(size: Size) -> Result<Figures> {
    if std::env::var_os(INSIDE).is_none() {
        return inside_a_namespace(size);
    }
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &plan("attempts = 10"))?;
    for phase in PHASES {
        cluster.add_worker(phase, 8);
    }
    let mut load = Load::start(&cluster, cluster.client()?, sleepers(size.random(), 10), 32);
    load.advance(size.of(200, 2000))?;
    let places: Places = Arc::new(|n| format!("tcp://worker-{n}.nowhere.test:7000"));
    let names = suffer(&mut cluster, "honest-worker", Some(300), places, size)?;
    load.finish()?;
    settle(&mut cluster)?;
    let figures = judge(&mut cluster, &load.told)?.saying(names.to_string());
    check(&names, "names")?;
    Ok(figures)
}

fn inside_a_namespace(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let (servers, hosts) = (
        folder.path().join("resolv.conf"),
        folder.path().join("hosts"),
    );
    let server = MUTE_SERVER.trim_end_matches(":53");
    std::fs::write(&servers, format!("nameserver {server}\n"))?;
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.1 honest-worker\n")?;
    let mute = UdpSocket::bind(MUTE_SERVER).context("a name server that never answers")?;
    let own = std::env::current_exe()?;
    let script = "mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/hosts && shift 2 && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .args([&servers as &Path, &hosts, &own])
        .args([
            "scenario",
            "invented-names",
            "--seed",
            &size.seed().to_string(),
        ])
        .env(INSIDE, "1");
    if size.is_short() {
        command.arg("--short");
    }
    let output = command.output().context("unshare")?;
    drop(mute);
    let mut said = String::new();
    output.stdout.as_slice().read_to_string(&mut said)?;
    if !output.status.success() {
        bail!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(Figures::default().saying(said.trim().to_owned()))
}
