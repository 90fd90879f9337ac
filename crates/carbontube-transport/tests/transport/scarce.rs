//! A process without descriptors to spare: `accept` fails, costs next to nothing, and goes
//! on once there are some.
//!
//! The limit is the whole process's, so the socket lives in a process of its own: this
//! test binary again, told by its environment to be the server.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use carbontube_transport::{Options, Pull};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::raw::{Raw, frame};
use crate::support::{PATIENCE, any_port, port};

const ROLE: &str = "CARBONTUBE_TEST_SCARCE";
/// Before what the server says, since the test harness speaks on the same pipe.
const MARK: &str = "scarce: ";
/// The pause of the front door after a failed `accept`.
const PAUSE: Duration = Duration::from_millis(50);
/// Descriptors that the server may have at once.
const FILES: u64 = 96;

#[test]
fn accept_without_descriptors_neither_spins_nor_ends_and_goes_on_with_some() {
    if std::env::var_os(ROLE).is_some() {
        return serve();
    }
    let mut server = Server::start();
    // The kernel takes these; the server cannot.
    let waiting: Vec<Raw> = (0..3).map(|_| Raw::connect(server.port)).collect();
    let errors = server.errors_beyond(0);
    let (began, cpu) = (Instant::now(), server.cpu());
    let later = server.errors_beyond(errors + 20);
    let (took, used) = (began.elapsed(), server.cpu() - cpu);
    let most = took.as_millis() / PAUSE.as_millis() + 2;
    assert!(
        u128::from(later - errors) <= most,
        "{} tries in {took:?}",
        later - errors
    );
    assert!(used < took / 2, "{used:?} of processor time in {took:?}");

    // One descriptor is enough to accept with, and not to serve: that peer is sent away.
    server.say("spare");
    let sent_away = waiting.into_iter().map(|mut peer| {
        peer.shake("PUSH");
        peer.expect_closed()
    });
    assert_eq!(sent_away.count(), 3);

    server.say("free");
    let mut peer = Raw::meet(server.port, "PUSH");
    peer.send(&frame(0, b"after"));
    assert_eq!(server.ask("receive"), "after");
    server.end();
}

struct Server {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start() -> Server {
        let name =
            "scarce::accept_without_descriptors_neither_spins_nor_ends_and_goes_on_with_some";
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture"])
            .env(ROLE, "server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let input = process.stdin.take().expect("a pipe");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut server = Server {
            process,
            input,
            output,
            port: 0,
        };
        server.port = server.heard().parse().expect("a port");
        server
    }

    fn say(&mut self, word: &str) {
        writeln!(self.input, "{word}").expect("the server lives");
    }

    fn heard(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.output.read_line(&mut line).expect("a pipe");
            assert!(read > 0, "the server ended");
            // The harness leaves its own line unfinished.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }

    fn ask(&mut self, word: &str) -> String {
        self.say(word);
        self.heard()
    }

    /// Waits until `accept` has failed more often than so.
    fn errors_beyond(&mut self, least: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let errors = self.ask("errors").parse().expect("a number");
            if errors > least {
                return errors;
            }
            assert!(Instant::now() < deadline, "{errors} errors of accept");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Processor time that the server has used.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))
            .expect("the server lives");
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .expect("a name in brackets")
            .1
            .split_whitespace()
            .collect();
        let ticks: u64 = [fields[11], fields[12]]
            .iter()
            .map(|field| field.parse::<u64>().expect("a number"))
            .sum();
        // Linux tells these in hundredths of a second.
        Duration::from_millis(ticks * 10)
    }

    fn end(mut self) {
        drop(self.input);
        let status = self.process.wait().expect("it is our child");
        assert!(status.success(), "the server ended with {status}");
    }
}

fn serve() {
    let tell = |text: &str| println!("{MARK}{text}");
    let mut pull = async_std::task::block_on(Pull::open(Options::default(), any_port()))
        .expect("a socket opens");
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(FILES),
        ..limit
    };
    setrlimit(Resource::Nofile, few).expect("a lower limit is allowed");
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    tell(&port(&pull.local_addresses()).to_string());
    for line in std::io::stdin().lines() {
        match line.expect("a pipe").as_str() {
            "errors" => tell(&pull.counters().accept_errors.to_string()),
            "spare" => drop(held.pop()),
            "free" => held.clear(),
            "receive" => {
                let message = async_std::task::block_on(pull.recv()).expect("it is open");
                tell(&String::from_utf8_lossy(&message[0]));
            }
            other => panic!("{other:?} is not understood"),
        }
    }
}
