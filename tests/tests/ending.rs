//! How each kind of process ends: by each signal, whatever became of its stderr, and when
//! all threads of its executor hang.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use carbontube_tests::{Process, Signal, binary, build_with, run, wait_until};

/// Every kind of process that serves, with arguments that need no other process.
const ROLES: [&[&str]; 6] = [
    &["pipeline", "sleeps", "--pull-bind=tcp://127.0.0.1"],
    &[
        "phase",
        "sleep",
        "--pull-bind=tcp://127.0.0.1",
        "--push-connect=tcp://127.0.0.1:1",
        "--pub-connect=tcp://127.0.0.1:1",
    ],
    &["bundle", "sleeps", "--pull-bind=tcp://127.0.0.1"],
    &["web", "--port=0", "--api-connect=tcp://127.0.0.1:1"],
    &[
        "streamer",
        "--pull=tcp://127.0.0.1",
        "--push=tcp://127.0.0.1",
    ],
    &[
        "forwarder",
        "--subscriber=tcp://127.0.0.1",
        "--publisher=tcp://127.0.0.1",
    ],
];

const FILE: &str = r#"
[[pipeline]]
name = "sleeps"
phases = ["sleep"]
storage = "memory:"

[phase.sleep]
command = ["/bin/sh", "-c", "sleep 1000"]
"#;

/// The program that can be made to hang.
fn hangs() -> &'static Path {
    static PROGRAM: OnceLock<std::path::PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build_with("carbontube-tests", "hangs", &["--features", "hangs"]))
}

/// A process of each role.
fn start_each(folder: &Path, change: impl Fn(&mut Command)) -> Vec<Process> {
    std::fs::write(folder.join("p.toml"), FILE).expect("a file in a temporary folder");
    let start = |role: &&[&str]| {
        let mut arguments = role.to_vec();
        if ["pipeline", "phase", "bundle"].contains(&arguments[0]) {
            arguments.insert(1, "p.toml");
        }
        Process::start_with(folder, binary(), &arguments, &change)
    };
    ROLES.iter().map(start).collect()
}

/// A process of each role whose executor hangs.
fn start_hung(folder: &Path, watchdog: &str) -> Vec<Process> {
    let start = |(index, role): (usize, &&[&str])| {
        let own = folder.join(index.to_string());
        std::fs::create_dir(&own).expect("a folder in a temporary folder");
        let process = Process::start_with(&own, hangs(), role, |command| {
            command.env("CARBONTUBE_WATCHDOG", watchdog);
        });
        process.signal(Signal::USR1);
        process
    };
    ROLES.iter().enumerate().map(start).collect()
}

fn wait_for_file(path: &Path) -> String {
    wait_until(&path.display().to_string(), || {
        std::fs::read_to_string(path)
            .ok()
            .filter(|text| path.ends_with("hangs") || text.ends_with('\n'))
    })
}

#[test]
fn process_whose_executor_is_dead_ends_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for mut process in start_hung(folder.path(), "500ms") {
        let status = process.wait();
        let log = process.log();
        assert_eq!(status.code(), Some(9), "{log}");
        assert!(log.contains("has run nothing for 500ms"), "{log}");
        assert!(log.contains("hint: start it again"), "{log}");
    }
}

#[test]
fn second_signal_ends_a_process_whose_executor_is_dead() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut processes = start_hung(folder.path(), "off");
    for (index, process) in processes.iter().enumerate() {
        wait_for_file(&folder.path().join(index.to_string()).join("hangs"));
        process.signal(Signal::TERM);
    }
    for process in &processes {
        // Two of one kind that come at once are one.
        wait_until("first signal", || {
            process.log().contains("draining: ").then_some(())
        });
        process.signal(Signal::TERM);
    }
    for process in &mut processes {
        let status = process.wait();
        assert_eq!(status.code(), Some(130), "{}", process.log());
    }
}

#[test]
fn commands_of_a_process_that_ends_itself_are_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let bundle = ["bundle", "sleeps", "--pull-bind=tcp://127.0.0.1"];
    let mut bundle = Process::start_with(folder, hangs(), &bundle, |command| {
        command.env("CARBONTUBE_WATCHDOG", "500ms");
    });
    run(folder, &["enqueue", &bundle.address("api"), "sleeps", "{}"]).success();
    let command = wait_for_file(&folder.join("started"));
    bundle.signal(Signal::USR1);
    assert_eq!(bundle.wait().code(), Some(9), "{}", bundle.log());
    let place = format!("/proc/{}/stat", command.trim());
    wait_until("end of the command", || {
        let stat = std::fs::read_to_string(&place).unwrap_or_default();
        // Whoever adopted it may not have asked how it ended.
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn worker_whose_phase_blocks_the_executor_says_so_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let manager = ["pipeline", "blocks", "--pull-bind=tcp://127.0.0.1"];
    let manager = Process::start_program(folder, hangs(), &manager);
    let push = format!("--push-connect={}", manager.address("pull"));
    let publish = format!("--pub-connect={}", manager.address("sub"));
    let worker = ["phase", "block", "--concurrency=64", &push, &publish];
    let mut worker = Process::start_with(folder, hangs(), &worker, |command| {
        command.env("CARBONTUBE_WATCHDOG", "300ms");
    });
    std::fs::write(folder.join("jobs"), "{}\n".repeat(64)).expect("a file");
    let api = manager.address("api");
    run(folder, &["enqueue", &api, "blocks", "--file=jobs"]).success();
    wait_until("complaint", || {
        worker.log().contains("BlockingPhase").then_some(())
    });
    std::fs::write(folder.join("go"), "").expect("a file");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0), "{}", worker.log());
}

#[test]
fn process_that_was_stopped_is_not_taken_for_dead() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut streamer = Process::start_with(folder.path(), binary(), ROLES[4], |command| {
        command.env("CARBONTUBE_WATCHDOG", "200ms");
    });
    for _ in 0..3 {
        streamer.signal(Signal::STOP);
        // Longer than it may be silent: this is what is tried, nothing is waited for.
        std::thread::sleep(std::time::Duration::from_millis(300));
        streamer.signal(Signal::CONT);
    }
    streamer.signal(Signal::TERM);
    assert_eq!(streamer.wait().code(), Some(0), "{}", streamer.log());
}

/// The writing end of a pipe that nobody reads and that is full.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let flags = rustix::fs::fcntl_getfl(&writer).expect("flags of a pipe");
    let nonblocking = flags | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&writer, nonblocking).expect("flags of a pipe");
    let mut file = File::from(writer);
    for size in [4096, 1] {
        while file.write(&vec![b'x'; size]).is_ok() {}
    }
    let writer = OwnedFd::from(file);
    rustix::fs::fcntl_setfl(&writer, flags).expect("flags of a pipe");
    (reader, writer)
}

/// Starts a process of each role, sends it SIGTERM, and expects it to end in order.
fn end_each(change: impl Fn(&mut Command)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut processes = start_each(folder.path(), change);
    for process in &processes {
        process.signal(Signal::TERM);
    }
    for (process, role) in processes.iter_mut().zip(ROLES) {
        assert_eq!(process.wait().code(), Some(0), "{role:?} {}", process.log());
    }
}

#[test]
fn sigterm_ends_in_order_when_the_reader_of_stderr_is_gone() {
    end_each(|command| {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        drop(reader);
        command.stderr(writer);
    });
}

#[test]
fn sigterm_ends_in_order_when_nobody_reads_stderr() {
    let (_reader, writer) = full_pipe();
    end_each(|command| {
        command.stderr(writer.try_clone().expect("a second handle of a pipe"));
    });
}

#[test]
fn sigterm_ends_in_order_when_stderr_is_a_full_disk() {
    end_each(|command| {
        let full = File::options().write(true).open("/dev/full");
        command.stderr(full.expect("the device is there"));
    });
}

#[test]
fn sighup_drains_as_sigterm_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut processes = start_each(folder.path(), |_| {});
    for process in &processes {
        process.signal(Signal::HUP);
    }
    for (process, role) in processes.iter_mut().zip(ROLES) {
        assert_eq!(process.wait().code(), Some(0), "{role:?} {}", process.log());
        assert!(process.log().contains("draining: "), "{}", process.log());
    }
}

#[test]
fn sighup_stays_ignored_under_nohup() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut arguments = vec!["-c", "trap '' HUP; exec \"$@\"", "sh"];
    arguments.push(binary().to_str().expect("a path in UTF-8"));
    arguments.extend(ROLES[4]);
    let mut streamer =
        Process::start_with(folder.path(), Path::new("/bin/sh"), &arguments, |command| {
            command.stdin(Stdio::null());
        });
    let status = std::fs::read_to_string(format!("/proc/{}/status", streamer.id()));
    let status = status.expect("the process runs");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("the mask").trim(), 16).expect("a mask");
    assert_eq!(ignored & 1, 1, "SIGHUP is bit 0 of {ignored:x}");
    streamer.signal(Signal::HUP);
    streamer.signal(Signal::TERM);
    assert_eq!(streamer.wait().code(), Some(0), "{}", streamer.log());
}
