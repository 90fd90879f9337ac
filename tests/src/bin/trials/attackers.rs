//! Hostile peers, each on a thread of its own until it is told to stop.
//!
//! They come from other addresses of the loopback network than the honest peers, as
//! strangers in a network would, and live in a process of their own, so that what they
//! cost can be told from what they make others spend.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_std::task;
use bytes::Bytes;
use carbontube_protocol::message::{
    Ack, AttemptResult, Cancel, Enqueue, Goodbye, HandBack, HandBackReason, HandedBack, Heartbeat,
    Held, HeldFor, HeldState, Hello, Message, NewJob, Outcome, PipeHead, Query, QueryRequest,
    Recall, Results, WorkerState,
};
use carbontube_protocol::{
    Address, AttemptId, Codec, JobId, JobType, ManagerId, PipelineName, Timestamp, WorkerId,
    encode, encode_event,
};
use carbontube_transport::{Dealer, Endpoint, Options, Publish, Pull, Push};

/// How many messages a flood sends before it rests for [`REST`].
const BURST: usize = 40;
const REST: Duration = Duration::from_millis(10);

/// Attackers that run, and what they did.
pub(crate) struct Attackers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Messages, connections or deliveries of garbage that got through.
    pub(crate) done: Arc<AtomicU64>,
}

impl Attackers {
    pub(crate) fn new() -> Self {
        Attackers {
            stop: Arc::default(),
            threads: Vec::new(),
            done: Arc::default(),
        }
    }

    /// How much was done so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn add(&mut self, work: impl FnOnce(&AtomicBool, &AtomicU64) + Send + 'static) {
        let (stop, done) = (self.stop.clone(), self.done.clone());
        self.threads
            .push(std::thread::spawn(move || work(&stop, &done)));
    }

    /// Stops all of them.
    pub(crate) fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has nothing more to do either.
            let _ended = thread.join();
        }
    }

    /// Holds `count` connections to each target that say nothing; those that are closed
    /// are opened again. With `dribble` each says one byte of a handshake now and then.
    pub(crate) fn hold(&mut self, targets: &[String], count: usize, dribble: bool) -> Result<()> {
        let places: Vec<SocketAddrV4> = targets
            .iter()
            .map(|target| place(target))
            .collect::<Result<_>>()?;
        self.add(move |stop, done| {
            let mut held: Vec<(SocketAddrV4, Option<TcpStream>, usize)> = places
                .iter()
                .flat_map(|place| (0..count).map(|_| (*place, None, 0)))
                .collect();
            let script = slow_script();
            while !stop.load(Ordering::Relaxed) {
                for (place, stream, said) in &mut held {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if stream.as_mut().is_some_and(is_closed) {
                        *stream = None;
                    }
                    if stream.is_none() {
                        *stream = connect_as_stranger(*place).ok();
                        *said = 0;
                        done.fetch_add(u64::from(stream.is_some()), Ordering::Relaxed);
                    } else if dribble && let Some(open) = stream {
                        let byte = script[*said % script.len()];
                        *said += 1;
                        if open.write(&[byte]).is_err() {
                            *stream = None;
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(())
    }

    /// Sends every kind of garbage to every target, again and again.
    pub(crate) fn throw(
        &mut self,
        targets: &[String],
        garbage: fn(&mut fastrand::Rng) -> Vec<Vec<u8>>,
    ) -> Result<()> {
        let places: Vec<SocketAddrV4> = targets
            .iter()
            .map(|target| place(target))
            .collect::<Result<_>>()?;
        self.add(move |stop, done| {
            let mut random = fastrand::Rng::with_seed(11);
            while !stop.load(Ordering::Relaxed) {
                for place in &places {
                    for piece in garbage(&mut random) {
                        let Ok(mut stream) = connect_as_stranger(*place) else {
                            continue;
                        };
                        let written = stream.write_all(&piece).is_ok();
                        done.fetch_add(u64::from(written), Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        });
        Ok(())
    }

    /// Sends valid results, hand-backs and farewells about jobs and workers that nobody
    /// knows, and jobs for another pipeline, to a manager's pull socket.
    pub(crate) fn flood_pull(&mut self, pull: &str) -> Result<()> {
        let address: Address = pull.parse()?;
        self.add(move |stop, done| {
            task::block_on(async {
                let Ok(push) = Push::open(Options::default(), address).await else {
                    return;
                };
                let mut random = fastrand::Rng::with_seed(12);
                flood(stop, done, async || {
                    let frames = encode(&stray(&mut random), Codec::Bincode);
                    push.try_send(frames).is_ok()
                })
                .await;
            });
        });
        Ok(())
    }

    /// Enqueues for another pipeline and asks for long lists, without reading answers
    /// faster than they come.
    pub(crate) fn flood_api(&mut self, api: &str) -> Result<()> {
        let address: Address = api.parse()?;
        let elsewhere: PipelineName = "elsewhere".parse()?;
        self.add(move |stop, done| {
            task::block_on(async {
                let Ok(dealer) = Dealer::open(Options::default(), address).await else {
                    return;
                };
                let mut request = 0;
                flood(stop, done, async || {
                    request += 1;
                    let message: Message = if request % 8 == 0 {
                        QueryRequest {
                            request,
                            query: Query::Workers,
                        }
                        .into()
                    } else {
                        Enqueue {
                            request,
                            pipeline: elsewhere.clone(),
                            jobs: vec![NewJob {
                                id: None,
                                delay_ms: 0,
                                traceparent: None,
                                instructions: Bytes::from_static(b"{}"),
                            }],
                        }
                        .into()
                    };
                    let sent = dealer.try_send(encode(&message, Codec::Bincode)).is_ok();
                    while async_std::future::timeout(Duration::from_micros(10), dealer.recv())
                        .await
                        .is_ok_and(|answer| answer.is_ok())
                    {}
                    sent
                })
                .await;
            });
        });
        Ok(())
    }

    /// Asks for long lists on `count` connections, and subscribes to all events on as many
    /// more, and reads nothing of it; what is closed is opened again.
    pub(crate) fn read_nothing(&mut self, api: &str, publish: &str, count: usize) -> Result<()> {
        let question: Message = QueryRequest {
            request: 1,
            query: Query::Workers,
        }
        .into();
        let asked = on_the_wire(&encode(&question, Codec::Bincode));
        let sides = [
            (place(api)?, opening("DEALER"), asked),
            (place(publish)?, opening("SUB"), vec![0, 1, 1]),
        ];
        self.add(move |stop, done| {
            let mut held: Vec<Option<TcpStream>> = (0..count * sides.len()).map(|_| None).collect();
            while !stop.load(Ordering::Relaxed) {
                for (index, stream) in held.iter_mut().enumerate() {
                    let (place, opening, message) = &sides[index % sides.len()];
                    let is_new = stream.is_none();
                    if is_new {
                        *stream = connect_as_stranger(*place).ok();
                    }
                    let Some(open) = stream else { continue };
                    let greeted = !is_new || open.write_all(opening).is_ok();
                    let said = open.write(message).map_err(|error| error.kind());
                    if !greeted || said.is_err_and(|kind| kind != ErrorKind::WouldBlock) {
                        *stream = None;
                    } else {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(())
    }

    /// Announces ever new workers at each of `places`, with four thousand million slots,
    /// that claim to run attempts which nobody gave them.
    pub(crate) fn announce(
        &mut self,
        sub: &str,
        places: Vec<String>,
        job_type: &str,
    ) -> Result<()> {
        let address: Address = sub.parse()?;
        let places: Vec<Address> = places
            .iter()
            .map(|place| place.parse())
            .collect::<Result<_, _>>()?;
        let job_type: JobType = job_type.parse()?;
        self.add(move |stop, done| {
            task::block_on(async {
                let endpoint = [Endpoint::Connect(address)];
                let Ok(publish) = Publish::open(Options::default(), endpoint).await else {
                    return;
                };
                let mut workers: Vec<WorkerId> = Vec::new();
                let mut round = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    // Some stay, some are new each time.
                    workers.truncate(places.len() * 4);
                    while workers.len() < places.len() * 8 {
                        workers.push(WorkerId::generate());
                    }
                    for (index, worker) in workers.iter().enumerate() {
                        let place = &places[index % places.len()];
                        let beat = lie(*worker, round, &job_type, place);
                        let topic = format!("worker.{job_type}");
                        publish.send(encode_event(&topic, &beat.into(), Codec::Bincode));
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    task::sleep(Duration::from_millis(100)).await;
                }
            });
        });
        Ok(())
    }

    /// A worker that takes whatever it is given, says that it has room for more, and
    /// neither runs it nor tells that it holds it. How much it took is counted in `taken`.
    pub(crate) fn swallow(
        &mut self,
        sub: &str,
        job_type: &str,
        taken: Arc<AtomicU64>,
    ) -> Result<()> {
        let address: Address = sub.parse()?;
        let job_type: JobType = job_type.parse()?;
        self.add(move |stop, done| {
            task::block_on(async {
                let bind = "tcp://127.0.0.1".parse().map(Endpoint::Bind);
                let Ok(bind) = bind else { return };
                let pull = Pull::open(Options::default(), [bind]).await;
                let publish = Publish::open(Options::default(), [Endpoint::Connect(address)]).await;
                let (Ok(mut pull), Ok(publish)) = (pull, publish) else {
                    return;
                };
                let place = pull.local_addresses()[0].clone();
                let worker = WorkerId::generate();
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let mut beat = lie(worker, round, &job_type, &place);
                    beat.managers.clear();
                    let topic = format!("worker.{job_type}");
                    publish.send(encode_event(&topic, &beat.into(), Codec::Bincode));
                    done.fetch_add(1, Ordering::Relaxed);
                    let until = Instant::now() + Duration::from_millis(200);
                    while Instant::now() < until {
                        let next =
                            async_std::future::timeout(Duration::from_millis(50), pull.recv());
                        if next.await.is_ok_and(|frames| frames.is_ok()) {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        });
        Ok(())
    }

    /// Managers that nobody knows greet a worker, and acknowledge, recall and cancel
    /// attempts that it does not have.
    pub(crate) fn pose_as_managers(&mut self, worker: &str) -> Result<()> {
        let address: Address = worker.parse()?;
        let elsewhere: PipelineName = "elsewhere".parse()?;
        self.add(move |stop, done| {
            task::block_on(async {
                let Ok(push) = Push::open(Options::default(), address).await else {
                    return;
                };
                let mut random = fastrand::Rng::with_seed(14);
                let mut sequence = 0;
                flood(stop, done, async || {
                    sequence += 1;
                    let head = PipeHead {
                        manager: ManagerId::generate(),
                        epoch: random.u64(..),
                        sequence,
                    };
                    let attempts = vec![attempt(&mut random)];
                    let message: Message = match sequence % 4 {
                        0 => Hello {
                            head,
                            pipeline: elsewhere.clone(),
                            worker_timeout_ms: 1,
                        }
                        .into(),
                        1 => Recall { head, attempts }.into(),
                        2 => Cancel { head, attempts }.into(),
                        _ => Ack {
                            head,
                            route: 0,
                            attempts,
                        }
                        .into(),
                    };
                    push.try_send(encode(&message, Codec::Bincode)).is_ok()
                })
                .await;
            });
        });
        Ok(())
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.end();
    }
}

async fn flood(stop: &AtomicBool, done: &AtomicU64, mut send: impl AsyncFnMut() -> bool) {
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            let sent = send().await;
            done.fetch_add(u64::from(sent), Ordering::Relaxed);
        }
        task::sleep(REST).await;
    }
}

fn attempt(random: &mut fastrand::Rng) -> AttemptId {
    AttemptId {
        epoch: random.u64(1..3),
        counter: random.u64(1..100_000),
    }
}

/// A message that would mean something if anybody knew what it is about.
fn stray(random: &mut fastrand::Rng) -> Message {
    let (worker, job) = (WorkerId::generate(), JobId::generate());
    let attempt = attempt(random);
    match random.u8(..4) {
        0 => HandBack {
            worker,
            reason: HandBackReason::Full,
            attempts: vec![HandedBack {
                attempt,
                job,
                phase: random.u16(..3),
            }],
        }
        .into(),
        1 => Goodbye { worker }.into(),
        _ => Results {
            worker,
            route: 0,
            results: vec![AttemptResult {
                attempt,
                job,
                phase: random.u16(..3),
                started_at: Timestamp(1),
                finished_at: Timestamp(2),
                outcome: Outcome::Success,
                instructions: Bytes::from_static(b"{\"stray\":true}"),
            }],
        }
        .into(),
    }
}

fn lie(worker: WorkerId, sequence: u64, job_type: &JobType, address: &Address) -> Heartbeat {
    let held = (1..20).map(|counter| Held {
        attempt: AttemptId { epoch: 1, counter },
        job: JobId::generate(),
        phase: 0,
        state: HeldState::Running,
    });
    Heartbeat {
        worker,
        sequence,
        job_type: job_type.clone(),
        address: address.clone(),
        shared_address: false,
        slots: u32::MAX,
        state: WorkerState::Available,
        managers: vec![HeldFor {
            manager: ManagerId::generate(),
            epoch: 1,
            sequence: u64::MAX,
            held: held.collect(),
        }],
        success_count: u64::MAX,
        failed_count: u64::MAX,
        host: "nowhere".to_owned(),
        pid: 1,
        started_at: Timestamp(1),
        version: "a lie".to_owned(),
    }
}

/// Bytes that begin as a handshake does, and never come to its end.
fn slow_script() -> Vec<u8> {
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend(b"NULL");
    greeting.resize(63, 0);
    greeting
}

/// A whole handshake of one side.
pub(crate) fn opening(kind: &str) -> Vec<u8> {
    let mut bytes = slow_script();
    bytes.push(0);
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend((kind.len() as u32).to_be_bytes());
    body.extend(kind.as_bytes());
    bytes.extend([4, body.len() as u8]);
    bytes.extend(body);
    bytes
}

/// A message as ZMTP has it; its frames are short.
fn on_the_wire(frames: &[Bytes]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let more = u8::from(index + 1 < frames.len());
        bytes.extend([more, frame.len() as u8]);
        bytes.extend_from_slice(frame);
    }
    bytes
}

pub(crate) fn place(target: &str) -> Result<SocketAddrV4> {
    let place = target.strip_prefix("tcp://");
    let place = place.with_context(|| format!("{target} is no tcp address"))?;
    Ok(place.parse()?)
}

/// Connects from another loopback address than 127.0.0.1, a different one each time.
pub(crate) fn connect_as_stranger(place: SocketAddrV4) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

    static NEXT: AtomicU8 = AtomicU8::new(0);
    let host = 2 + NEXT.fetch_add(1, Ordering::Relaxed) % 200;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    bind(
        &socket,
        &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0),
    )?;
    connect(&socket, &place)?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether the other side has closed it; what it says is thrown away.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 256];
    match stream.read(&mut bytes) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// A port where connections are taken by the kernel and nobody ever answers.
pub(crate) fn silent_port() -> Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("tcp://{}", listener.local_addr()?);
    Ok((listener, address))
}

/// A port where nobody listens.
pub(crate) fn dead_port() -> Result<String> {
    let (listener, address) = silent_port()?;
    drop(listener);
    ensure!(address.starts_with("tcp://"), "no address");
    Ok(address)
}
