//! Shared parts of the multi-process tests: starting `carbontube` processes, waiting
//! for them with a deadline, and ending them whatever happens.

pub mod browser;
pub mod fixture;
pub mod studio;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use serde_json::Value;

/// How long anything in a test may take before it counts as hanging.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The `carbontube` binary, freshly built in the profile that the tests were built in;
/// or what `CARBONTUBE_BIN` names.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("CARBONTUBE_BIN") {
        Some(path) => path.into(),
        None => build("carbontube", "carbontube"),
    })
}

/// Builds a binary of the workspace and tells where it is.
pub fn build(package: &str, binary: &str) -> PathBuf {
    build_with(package, binary, &[])
}

/// As [`build`], with more arguments for cargo.
pub fn build_with(package: &str, binary: &str, more: &[&str]) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let folder = own
        .ancestors()
        .find(|folder| folder.file_name() == Some(OsStr::new("deps")))
        .and_then(Path::parent)
        .expect("a test binary is in target/PROFILE/deps");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--bin", binary]);
    cargo.args(more);
    match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => {}
        Some(profile) => {
            cargo.args(["--profile", profile]);
        }
    }
    let status = cargo
        .current_dir(workspace())
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "cannot build {binary}");
    folder.join(binary)
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are in a folder of the workspace")
}

/// Tries until there is something, or panics after [`DEADLINE`] with what was waited for.
pub fn wait_until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(
            started.elapsed() < DEADLINE,
            "no {what} within {DEADLINE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process groups that live, for [`kill_all`].
static GROUPS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Kills (SIGKILL) every process that was started here and all that those started: for
/// a program that is told to end where no destructor runs.
pub fn kill_all() {
    let groups = GROUPS.lock().unwrap_or_else(|broken| broken.into_inner());
    for id in groups.iter() {
        kill_group(*id);
    }
}

fn kill_group(id: u32) {
    let id = i32::try_from(id).expect("a process id is positive");
    if let Some(id) = rustix::process::Pid::from_raw(id) {
        let _ = rustix::process::kill_process_group(id, Signal::KILL);
    }
}

/// Has [`kill_all`] kill the group of a process that was started in another way, or no
/// longer.
pub fn note_group(id: u32, lives: bool) {
    let mut groups = GROUPS.lock().unwrap_or_else(|broken| broken.into_inner());
    if lives {
        groups.insert(id);
    } else {
        groups.remove(&id);
    }
}

/// A running process. It and all it started are killed (SIGKILL) when this is dropped.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ready: Value,
    kept: bool,
}

/// What a finished process left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// The same, if it exited with 0; panics with all it wrote otherwise.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Stdout as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }
}

fn command<S: AsRef<OsStr>>(folder: &Path, program: &Path, arguments: &[S]) -> Command {
    use std::os::unix::process::CommandExt;

    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        // A group of its own, so that what it starts can be killed with it.
        .process_group(0);
    command
}

/// Runs `carbontube` in `folder` to its end, at most for [`DEADLINE`].
pub fn run<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Finished {
    run_program(folder, binary(), arguments)
}

/// Runs any program in `folder` to its end, at most for [`DEADLINE`].
pub fn run_program<S: AsRef<OsStr>>(folder: &Path, program: &Path, arguments: &[S]) -> Finished {
    run_command(command(folder, program, arguments))
}

/// Runs a prepared command to its end, at most for [`DEADLINE`].
pub fn run_command(mut command: Command) -> Finished {
    let outputs = tempfile::tempdir().expect("a temporary folder");
    let (stdout, stderr) = (outputs.path().join("stdout"), outputs.path().join("stderr"));
    let mut child = command
        .stdout(File::create(&stdout).expect("a file in a temporary folder"))
        .stderr(File::create(&stderr).expect("a file in a temporary folder"))
        .spawn()
        .expect("the program can be started");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if started.elapsed() > DEADLINE {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
            panic!(
                "{command:?} did not end within {DEADLINE:?}:\n{}\n{}",
                read(&stdout),
                read(&stderr)
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Finished {
        code: status.code(),
        stdout: read(&stdout),
        stderr: read(&stderr),
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

impl Process {
    /// Starts `carbontube ARGUMENTS` in `folder` and waits until it serves.
    ///
    /// It adds `--ready-file`; use port 0 (`tcp://127.0.0.1`) in the arguments and ask
    /// [`Process::address`] for what was bound.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Self {
        Self::start_program(folder, binary(), arguments)
    }

    /// As [`Process::start`], for another program with the same subcommands.
    #[track_caller]
    pub fn start_program<S: AsRef<OsStr>>(folder: &Path, program: &Path, arguments: &[S]) -> Self {
        Self::start_with(folder, program, arguments, |_| {})
    }

    /// As [`Process::start_program`], with a command that is changed before it starts: its
    /// environment, where its stderr goes.
    #[track_caller]
    pub fn start_with<S: AsRef<OsStr>>(
        folder: &Path,
        program: &Path,
        arguments: &[S],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let ready = folder.join(format!(".ready-{number}.json"));
        let log = folder.join(format!(".log-{number}.txt"));
        let mut command = command(folder, program, arguments);
        let file = File::create(&log).expect("a log file in the test's folder");
        command
            .arg("--ready-file")
            .arg(&ready)
            .stdout(file.try_clone().expect("a second handle of a file"))
            .stderr(file);
        change(&mut command);
        let child = command.spawn().expect("the program can be started");
        note_group(child.id(), true);
        let name = format!("{command:?}");
        let mut process = Process {
            child,
            name,
            log,
            ready: Value::Null,
            kept: false,
        };
        process.ready = wait_until("ready file", || {
            if let Some(status) = process.child.try_wait().expect("a child can be waited for") {
                panic!("{} ended ({status}):\n{}", process.name, process.log());
            }
            std::fs::read(&ready)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        });
        process
    }

    /// The first address of one kind, as the ready file has it: `pull`, `sub`, `api`,
    /// `pub` of a manager, `address` of a worker, `push` of a streamer.
    #[track_caller]
    pub fn address(&self, kind: &str) -> String {
        let value = &self.ready[kind];
        value
            .as_str()
            .or_else(|| value[0].as_str())
            .unwrap_or_else(|| panic!("no {kind} in {}", self.ready))
            .to_owned()
    }

    /// A text of its ready file, if it has it.
    pub fn told(&self, kind: &str) -> Option<String> {
        self.ready[kind].as_str().map(str::to_owned)
    }

    /// All that it wrote so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id is positive");
        let id = rustix::process::Pid::from_raw(id).expect("a process id is not 0");
        // It may have ended just now; whoever waits for it sees that.
        let _ = rustix::process::kill_process(id, signal);
    }

    /// Ends it at once (SIGKILL) and waits for that.
    pub fn kill(&mut self) {
        self.kill_group();
        self.child.wait().expect("a child can be waited for");
        note_group(self.child.id(), false);
    }

    /// Lets it live on after this is dropped.
    pub fn keep(mut self) {
        note_group(self.child.id(), false);
        self.kept = true;
    }

    /// Waits for its end, at most for [`DEADLINE`].
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(
                started.elapsed() < DEADLINE,
                "{} did not end within {DEADLINE:?}:\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill_group(&self) {
        kill_group(self.child.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // After the process was waited for its number may belong to somebody else.
        if self.is_running() {
            self.kill_group();
            let _ = self.child.wait();
        }
        note_group(self.child.id(), false);
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.log());
        }
    }
}
