//! Peers that connect, say something, and leave again at once, as a process of its own.
//!
//! Each speaks as the peer that the socket expects: a subscriber to a publisher, a pusher
//! to a puller. Some wait for the answer to their handshake, some leave at once, some let
//! the kernel reset the connection.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use carbontube_protocol::message::{Message, Query, QueryRequest};
use carbontube_protocol::{Codec, encode};
use carbontube_tests::{Process, Signal};
use signal_hook::consts::SIGTERM;

use crate::attackers::{connect_as_stranger, on_the_wire, opening, place};

/// How often the report is written anew.
const REPORT_PAUSE: Duration = Duration::from_millis(50);
/// How long a peer waits for an answer that it wants.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Join and leave until each target was joined often enough, or until SIGTERM.
#[derive(FromArgs)]
#[argh(subcommand, name = "churn")]
pub(crate) struct Churn {
    /// the peer to be and the socket to connect to, as in `SUB=tcp://127.0.0.1:6001`
    #[argh(option)]
    target: Vec<String>,
    /// how often to join each
    #[argh(option)]
    joins: u64,
    /// the file to report to
    #[argh(option)]
    report: PathBuf,
    /// file that appears once it is at work
    #[argh(option)]
    ready_file: PathBuf,
}

/// How often the slowest target was joined, and in how many joins no answer came that was
/// waited for.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, serde::Serialize)]
pub(crate) struct Report {
    /// Joins of the target with the fewest.
    pub(crate) joins: u64,
    /// Joins of all targets.
    pub(crate) in_all: u64,
    /// Handshakes that were not answered in time.
    pub(crate) unanswered: u64,
}

struct Target {
    place: SocketAddrV4,
    /// What a peer sends: its handshake and a first message.
    script: Vec<u8>,
    joins: AtomicU64,
    unanswered: AtomicU64,
}

impl Target {
    fn parse(text: &str) -> Result<Self> {
        let (peer, address) = text.split_once('=').context("no peer before =")?;
        let message = match peer {
            "SUB" => vec![0, 1, 1],
            "PUB" => on_the_wire(&[
                b"worker.".as_slice().into(),
                b"no heartbeat".as_slice().into(),
            ]),
            "PUSH" => on_the_wire(&[b"no result".as_slice().into()]),
            "DEALER" => {
                let question: Message = QueryRequest {
                    request: 1,
                    query: Query::Stats,
                }
                .into();
                on_the_wire(&encode(&question, Codec::Bincode))
            }
            other => bail!("{other} is no peer that churns"),
        };
        let mut script = opening(peer);
        script.extend(message);
        Ok(Self {
            place: place(address)?,
            script,
            joins: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        })
    }

    /// One join and its end; the number says which of the manners.
    fn join(&self, number: u64) {
        let Ok(mut stream) = connect_as_stranger(self.place) else {
            return;
        };
        if number.is_multiple_of(2) {
            // A reset: nothing that was sent and not read is delivered.
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
        let written = stream.write_all(&self.script).is_ok();
        if written && number % 4 < 3 && !is_answered(&mut stream) {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        }
        self.joins.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the greeting of the other side arrives.
fn is_answered(stream: &mut TcpStream) -> bool {
    let mut greeting = [0; 64];
    stream.set_nonblocking(false).is_ok()
        && stream.set_read_timeout(Some(ANSWER_TIMEOUT)).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
}

/// Runs until all is done, then until SIGTERM.
pub(crate) fn run(churn: &Churn) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, stop.clone())?;
    let targets = churn.target.iter().map(|text| Target::parse(text));
    let targets: Vec<Arc<Target>> = targets
        .map(|target| target.map(Arc::new))
        .collect::<Result<_>>()?;
    let threads: Vec<JoinHandle<()>> = targets
        .iter()
        .flat_map(|target| [target.clone(), target.clone()])
        .map(|target| {
            let (stop, joins) = (stop.clone(), churn.joins);
            std::thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) && target.joins.load(Ordering::Relaxed) < joins
                {
                    target.join(number);
                    number += 1;
                }
            })
        })
        .collect();
    std::fs::write(&churn.ready_file, "{}")?;
    while !stop.load(Ordering::Relaxed) {
        write(&churn.report, report(&targets))?;
        std::thread::sleep(REPORT_PAUSE);
    }
    for thread in threads {
        // One that panicked has nothing more to do either.
        let _ended = thread.join();
    }
    Ok(())
}

fn report(targets: &[Arc<Target>]) -> Report {
    let joins = targets.iter().map(|one| one.joins.load(Ordering::Relaxed));
    let unanswered = targets
        .iter()
        .map(|one| one.unanswered.load(Ordering::Relaxed));
    Report {
        joins: joins.clone().min().unwrap_or(0),
        in_all: joins.sum(),
        unanswered: unanswered.sum(),
    }
}

/// Replaces the report as a whole, so that no reader sees half of one.
fn write(path: &Path, report: Report) -> Result<()> {
    let aside = path.with_extension("new");
    std::fs::write(&aside, serde_json::to_vec(&report)?)?;
    Ok(std::fs::rename(&aside, path)?)
}

/// A process that churns.
pub(crate) struct Churning {
    process: Process,
    report: PathBuf,
}

impl Churning {
    /// Joins each of the targets so many times.
    pub(crate) fn start(folder: &Path, targets: &[String], joins: u64) -> Self {
        let program = std::env::current_exe().expect("a process knows its own path");
        let report = folder.join("churn.json");
        let mut arguments = vec!["churn".to_owned(), "--joins".to_owned(), joins.to_string()];
        arguments.extend(["--report".to_owned(), report.display().to_string()]);
        for target in targets {
            arguments.extend(["--target".to_owned(), target.clone()]);
        }
        Self {
            process: Process::start_program(folder, &program, &arguments),
            report,
        }
    }

    /// What was done so far.
    pub(crate) fn report(&self) -> Result<Report> {
        match std::fs::read(&self.report) {
            Ok(bytes) => serde_json::from_slice(&bytes).context("a report of churning"),
            Err(_) => Ok(Report::default()),
        }
    }

    /// Ends it.
    pub(crate) fn end(mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait();
    }
}
