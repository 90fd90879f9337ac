//! What the command line answers, as people see it.

use expect_test::{Expect, expect};

use super::*;

fn complaint(arguments: &[&str]) -> String {
    let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    match parse("carbontube", arguments, false) {
        Ok(_) => panic!("it is taken"),
        Err(failure) => failure.render(&Style::PLAIN),
    }
}

fn check(arguments: &[&str], expected: Expect) {
    expected.assert_eq(&complaint(arguments));
}

fn help(arguments: &[&str], own: bool) -> String {
    let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    match parse("carbontube", arguments, own) {
        Ok(Parsed::Help(text)) => text,
        Ok(Parsed::Command(command)) => panic!("no help: {command:?}"),
        Err(failure) => panic!("no help: {failure}"),
    }
}

#[test]
fn mistakes_are_named_with_a_way_out() {
    check(
        &["pipelin"],
        expect![[r#"
        error: there is no command "pipelin" here
        hint: did you mean `pipeline`? `carbontube --help` shows what there is
    "#]],
    );
    check(
        &["phase", "f.toml", "p", "--concurency=4"],
        expect![[r#"
        error: there is no option "--concurency" here
        hint: did you mean `--concurrency`? `carbontube phase --help` shows what it takes
    "#]],
    );
    check(
        &["phase", "f.toml"],
        expect![[r#"
        error: required positional arguments not provided: job_type
        hint: `carbontube phase --help` shows what it takes
    "#]],
    );
    check(
        &["phase", "f.toml", "p", "--concurrency=x"],
        expect![[r#"
            error: --concurrency: "x" is not a whole number
            hint: `carbontube phase --help` shows what it takes
        "#]],
    );
    check(
        &["phase", "f.toml", "p", "--concurrency"],
        expect![[r#"
        error: no value provided for option '--concurrency'
        hint: `carbontube phase --help` shows what it takes
    "#]],
    );
    check(
        &["phase", "f.toml", "p", "extra"],
        expect![[r#"
        error: there is no further argument "extra" here
        hint: `carbontube phase --help` shows what it takes
    "#]],
    );
    check(
        &["phase", "f.toml", "p", "--push-connect=http://h:1"],
        expect![[r#"
            error: --push-connect: "http://h:1" is not an address: http:// is not supported, tcp:// and ipc:// are
            hint: write tcp://HOST:PORT (such as tcp://127.0.0.1:5050), tcp://*:PORT to listen on every interface, or ipc://PATH
        "#]],
    );
    check(
        &["phase", "f.toml", "p", "--push-connect=tcp://*:1"],
        expect![[r#"
            error: --push-connect: "tcp://*:1" is not an address: `*` is for listening; name the host
            hint: write tcp://HOST:PORT (such as tcp://127.0.0.1:5050), tcp://*:PORT to listen on every interface, or ipc://PATH
        "#]],
    );
    check(
        &["phase", "f.toml", "p", "--timeout=soon"],
        expect![[r#"
        error: --timeout: "soon" is not a duration; write a number with ms, s, m, h or d, such as 10m
        hint: `carbontube phase --help` shows what it takes
    "#]],
    );
    check(
        &["enqueue", "127.0.0.1:5050", "p"],
        expect![[r#"
        error: address: "127.0.0.1:5050" is not an address: it does not start with tcp:// or ipc://
        hint: write tcp://HOST:PORT (such as tcp://127.0.0.1:5050), tcp://*:PORT to listen on every interface, or ipc://PATH
    "#]],
    );
    check(
        &["enqueue", "--wait=1"],
        expect![[r#"
        error: --wait takes no value
    "#]],
    );
}

#[test]
fn help_and_documentation_list_every_exit_code() {
    let documented = include_str!("../../../../docs/cli.md");
    let text = help(&[], false);
    for (exit, meaning) in Exit::ALL {
        let line = format!("  {:<5}{meaning}", exit.code());
        assert!(text.contains(&line), "no {line:?} in {text}");
        let row = format!("| {} | {meaning} |", exit.code());
        assert!(documented.contains(&row), "no {row:?} in docs/cli.md");
    }
}

#[test]
fn programs_of_ones_own_take_no_file() {
    assert!(help(&["phase", "--help"], false).contains("<file>"));
    let text = help(&["phase", "--help"], true);
    assert!(!text.contains("<file>"), "{text}");
    assert!(!text.contains("the TOML file"), "{text}");
    let arguments = ["phase", "encode-video", "--concurrency=4"];
    let parsed = parse(
        "tinas-pipeline",
        arguments.iter().map(|a| (*a).to_owned()).collect(),
        true,
    );
    match parsed {
        Ok(Parsed::Command(command)) => match *command {
            Command::Phase(phase) => assert_eq!(phase.job_type, "encode-video"),
            other => panic!("{other:?}"),
        },
        _ => panic!("no command"),
    }
}

#[test]
fn command_lines_of_the_original_are_taken() {
    for line in [
        "phase tinas-pipeline.toml encode-video --concurrency=4 --pull-bind=tcp://127.0.0.1:3000 --push-connect=tcp://127.0.0.1:5050 --pub-connect=tcp://127.0.0.1:6000",
        "pipeline tinas-pipeline.toml video-encoder-pipeline --pull-bind=tcp://127.0.0.1:5050 --sub-bind=tcp://127.0.0.1:6000",
        "enqueue tcp://127.0.0.1:5050 video-encoder-pipeline {}",
        "streamer --pull=tcp://0.0.0.0:4000 --push=tcp://0.0.0.0:4001 --pull-hwm=64 --push-hwm=64",
        "forwarder --subscriber=tcp://*:7000 --publisher=tcp://*:7001 --subscriber-hwm=64 --publisher-hwm=64",
        "version --json",
    ] {
        let arguments = line.split(' ').map(str::to_owned).collect();
        assert!(
            matches!(
                parse("carbontube", arguments, false),
                Ok(Parsed::Command(_))
            ),
            "{line}"
        );
    }
}

/// A peer's text that would set a terminal's title, clear it, turn the reading direction and
/// begin a line of its own.
const HOSTILE: &str =
    "a\u{1b}]0;t\u{7}\u{9b}2J\u{0}\u{202e}\u{2066}\u{200f}\u{feff}\u{2028}\r\nerror: b";

fn assert_harmless(what: &str, text: &str) {
    assert_eq!(text, carbontube_protocol::harmless(text), "{what}");
    assert!(text.contains('a') && text.contains('b'), "{what}: {text:?}");
}

#[test]
fn what_peers_write_reaches_no_terminal_as_it_is() {
    use carbontube_client::ClientError;
    use carbontube_protocol::message::{
        Code, Event, EventKind, LogLevel, LogLine, ManagerState, ProgressItem, WorkerStatus,
        WorkerView,
    };
    use carbontube_protocol::{Address, AttemptId, JobId, JobType, Timestamp, WorkerId};

    let evil = || HOSTILE.to_owned();
    let job = JobId::new("job").expect("an id");
    let job_type = JobType::new("cut").expect("a name");
    let attempt = AttemptId {
        epoch: 1,
        counter: 1,
    };
    let worker = WorkerId::from_bytes([7; 16]);
    let at = Timestamp(1);
    let kinds = [
        EventKind::Job {
            job: job.clone(),
            state: carbontube_protocol::message::JobState::Failed,
            job_type: job_type.clone(),
            worker: None,
            error: Some(evil()),
        },
        EventKind::Worker {
            worker,
            job_type: job_type.clone(),
            status: WorkerStatus::Available,
            host: evil(),
            slots: 1,
        },
        EventKind::Log {
            worker,
            job_type: job_type.clone(),
            line: LogLine {
                attempt,
                job: job.clone(),
                at,
                level: LogLevel::Info,
                text: evil(),
            },
        },
        EventKind::Progress {
            worker,
            job_type: job_type.clone(),
            item: ProgressItem {
                attempt,
                job,
                fraction: 0.5,
                text: evil(),
            },
        },
        EventKind::Manager {
            state: ManagerState::Running,
            reason: evil(),
        },
        EventKind::Action {
            text: evil(),
            count: 1,
            skipped: 0,
        },
    ];
    for kind in kinds {
        let event = Event { at, kind };
        assert_harmless("an event", &tail::line(&event));
    }
    let refusal = ClientError::Refusal {
        what: "a question",
        code: Code::Busy,
        message: evil(),
    };
    let text = client_failure(&refusal).render(&Style::PLAIN);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("error: ") && lines.len() <= 2,
        "{text:?}"
    );
    assert_harmless("a refusal", lines[0]);
    let view = WorkerView {
        worker,
        job_type,
        address: Address::Ipc {
            path: evil().replace('\0', "").into(),
        },
        status: WorkerStatus::Available,
        slots: 1,
        held: 0,
        running: 0,
        success_count: 0,
        failed_count: 0,
        last_seen_at: at,
        started_at: at,
        host: evil(),
        pid: 1,
        version: evil(),
    };
    let row = admin::row(&view);
    assert_harmless("a worker's host", &row[9]);
    assert_harmless("a worker's address", &row[10]);
}
