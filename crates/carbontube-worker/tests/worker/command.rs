//! Phases that are commands, as small shell scripts.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use carbontube_protocol::Message;
use carbontube_protocol::message::{AttemptResult, HandBack, HandBackReason, Outcome, WorkerState};
use carbontube_worker::{
    CommandMode, CommandOptions, CommandPhase, FailureKind, StartError, Worker, WorkerOptions,
};

use crate::scripted::{Manager, attempt, failure, reached, run, soon, work};

fn shell(script: &str, mode: CommandMode) -> CommandOptions {
    CommandOptions {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        mode,
        ..CommandOptions::default()
    }
}

async fn start(manager: &mut Manager, options: CommandOptions) -> Worker {
    let phase = CommandPhase::new(options).into_any();
    let worker = Worker::start(manager.options(), phase)
        .await
        .expect("starts");
    manager.meet(&worker).await;
    worker
}

/// Runs one job through a script of mode `once`.
fn once(script: &str, instructions: &str) -> AttemptResult {
    run(async {
        let mut manager = Manager::open().await;
        let _worker = start(&mut manager, shell(script, CommandMode::Once)).await;
        manager.dispatch(vec![work(1, instructions)]).await;
        manager.result().await
    })
}

#[test]
fn once_reads_stdin_and_its_last_line_is_merged() {
    let result = once(
        r#"echo working; read given; echo "{\"given\":$given}"; echo"#,
        r#"{"a":1}"#,
    );
    assert_eq!(result.outcome, Outcome::Success);
    assert_eq!(
        result.instructions,
        Bytes::from_static(br#"{"a":1,"given":{"a":1}}"#)
    );
}

#[test]
fn once_is_told_the_attempt_in_its_environment() {
    let script = r#"echo "{\"who\":\"$CARBONTUBE_JOB_ID $CARBONTUBE_ATTEMPT $CARBONTUBE_PHASE $CARBONTUBE_PIPELINE\"}""#;
    let result = once(script, "{}");
    let expected = Bytes::from_static(br#"{"who":"job-1 1 test-phase test"}"#);
    assert_eq!(result.instructions, expected);
}

#[test]
fn once_without_output_leaves_instructions_unchanged_though_stdin_is_not_read() {
    let big = format!(r#"{{"text":"{}"}}"#, "x".repeat(1 << 20));
    let result = once("exec <&-; exit 0", &big);
    assert_eq!(
        (result.outcome, result.instructions),
        (Outcome::Success, Bytes::new())
    );
}

#[test]
fn once_exit_status_fails_with_the_tail_of_stderr() {
    let result = once("echo first >&2; echo 'disk is full' >&2; exit 3", "{}");
    let (kind, message, detail, retry) = failure(&result);
    assert_eq!(
        (kind, message, retry),
        (FailureKind::Error, "exited with status 3", true)
    );
    assert_eq!(detail, "first\ndisk is full\n");
}

#[test]
fn once_killed_by_a_signal_is_a_panic() {
    let result = once("kill -SEGV $$", "{}");
    let (kind, message, _, _) = failure(&result);
    assert_eq!(
        (kind, message),
        (FailureKind::Panic, "killed by signal SIGSEGV")
    );
}

#[test]
fn once_killed_by_sigterm_is_a_panic_while_the_worker_stays() {
    let result = once("kill -TERM $$", "{}");
    let (kind, message, _, retry) = failure(&result);
    assert_eq!(
        (kind, message, retry),
        (FailureKind::Panic, "killed by signal SIGTERM", true)
    );
}

#[test]
fn once_output_that_is_no_object_is_bad_output() {
    let result = once("echo done", "{}");
    let (kind, message, detail, _) = failure(&result);
    assert_eq!(kind, FailureKind::Output);
    assert!(message.contains("not valid JSON"), "{message}");
    assert!(detail.contains("it begins: done"), "{detail}");
}

#[test]
fn once_endless_line_is_bad_output_and_killed() {
    run(async {
        let mut manager = Manager::open().await;
        let mut options = shell("exec cat /dev/zero", CommandMode::Once);
        options.limits.instructions_bytes_max = 64 << 10;
        let _worker = start(&mut manager, options).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        let result = manager.result().await;
        let (kind, message, _, _) = failure(&result);
        assert_eq!(kind, FailureKind::Output);
        assert!(message.contains("65536 bytes"), "{message}");
    });
}

#[test]
fn once_grandchild_that_holds_the_pipes_does_not_hang_the_attempt() {
    let begun = Instant::now();
    let result = once("sleep 600 & echo '{\"ok\":1}'", "{}");
    assert_eq!(result.instructions, Bytes::from_static(br#"{"ok":1}"#));
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn once_words_without_a_line_end_count_though_a_grandchild_holds_the_pipes() {
    let result = once("sleep 600 & echo working; printf '{\"a\":1}'", "{}");
    assert_eq!(result.instructions, Bytes::from_static(br#"{"a":1}"#));
    let result = once("sleep 600 & printf 'disk is full' >&2; exit 3", "{}");
    assert_eq!(failure(&result).2, "disk is full\n");
}

#[test]
fn once_timeout_kills_the_whole_group_even_if_it_ignores_sigterm() {
    run(async {
        let mut manager = Manager::open().await;
        let script = "trap '' TERM; sleep 600 & echo $! >&2; echo $$ >&2; wait; sleep 600";
        let mut options = manager.options();
        options.timeout = Some(Duration::from_millis(300));
        let phase = CommandPhase::new(shell(script, CommandMode::Once)).into_any();
        let worker = Worker::start(options, phase).await.expect("starts");
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        let result = manager.result().await;
        let (kind, _, detail, _) = failure(&result);
        assert_eq!(kind, FailureKind::Timeout);
        let pids: Vec<&str> = detail.lines().collect();
        assert_eq!(pids.len(), 2, "{detail}");
        for pid in pids {
            reached("the process is gone", || !alive(pid)).await;
        }
    });
}

/// Whether a process is there and no zombie.
fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[test]
fn once_cancel_ends_the_process() {
    run(async {
        let mut manager = Manager::open().await;
        let worker = start(&mut manager, shell("exec sleep 600", CommandMode::Once)).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        reached("it runs", || worker.counters().running == 1).await;
        manager.cancel(&[1]).await;
        let result = manager.result().await;
        assert_eq!(failure(&result).0, FailureKind::Cancelled);
    });
}

#[test]
fn stop_now_leaves_no_process_behind() {
    run(async {
        let mut manager = Manager::open().await;
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("pid");
        let script = format!(
            "echo $$ > {}.new; mv {0}.new {0}; exec sleep 600",
            file.display()
        );
        let worker = start(&mut manager, shell(&script, CommandMode::Once)).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        reached("it runs", || file.exists()).await;
        let pid = std::fs::read_to_string(&file).expect("written");
        assert!(alive(pid.trim()));
        worker.handle().stop_now();
        worker.run().await;
        assert!(!alive(pid.trim()));
    });
}

/// A script that writes its process's id to a file, then does something.
fn telling(file: &Path, before: &str, after: &str) -> String {
    let file = file.display();
    format!("{before}; echo $$ > {file}.new; mv {file}.new {file}; {after}")
}

/// Waits until a script of [`telling`] has begun, for its process's id.
async fn told(file: &Path) -> String {
    reached("the script has begun", || file.exists()).await;
    let pid = std::fs::read_to_string(file).expect("written");
    pid.trim().to_owned()
}

fn kill(signal: &str, pid: &str) {
    let killed = std::process::Command::new("kill")
        .args([signal, pid])
        .status();
    assert!(killed.expect("it can be executed").success());
}

#[test]
fn command_that_outlasts_the_grace_period_is_handed_back_once_it_has_ended() {
    run(async {
        let mut manager = Manager::open().await;
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("pid");
        let script = telling(&file, "trap '' TERM", "while :; do sleep 1; done");
        let mut options = manager.options();
        options.grace = Duration::from_millis(1);
        let phase = CommandPhase::new(shell(&script, CommandMode::Once)).into_any();
        let worker = Worker::start(options, phase).await.expect("starts");
        let handle = worker.handle();
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        let pid = told(&file).await;
        let end = async_std::task::spawn(worker.run());
        handle.drain();
        let hand_back = manager.hand_back().await;
        assert!(!alive(&pid), "it runs still, and may begin elsewhere");
        assert_eq!(hand_back.reason, HandBackReason::Abandoned);
        assert_eq!(hand_back.attempts[0].attempt, attempt(1));
        assert!(matches!(manager.received().await, Message::Goodbye(_)));
        soon("the end", end).await;
        assert_eq!(handle.counters().failed, 0);
    });
}

#[test]
fn stop_now_begins_nothing_more_and_hands_everything_back() {
    run(async {
        let mut manager = Manager::open().await;
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("begun");
        let script = format!("echo $$ >> {}; exec sleep 600", file.display());
        let worker = start(&mut manager, shell(&script, CommandMode::Once)).await;
        let handle = worker.handle();
        manager
            .dispatch(vec![work(1, "{}"), work(2, "{}"), work(3, "{}")])
            .await;
        let begun = || std::fs::read_to_string(&file).unwrap_or_default();
        reached("all are there, one runs", || {
            handle.counters().queued == 2 && begun().ends_with('\n')
        })
        .await;
        handle.stop_now();
        worker.run().await;
        let attempts = |back: HandBack| -> Vec<_> {
            let all = back.attempts.iter();
            all.map(|back| back.attempt.counter).collect()
        };
        let queued = manager.hand_back().await;
        assert_eq!(queued.reason, HandBackReason::Draining);
        assert_eq!(attempts(queued), [2, 3]);
        let running = manager.hand_back().await;
        assert_eq!(running.reason, HandBackReason::Abandoned);
        assert_eq!(attempts(running), [1]);
        assert_eq!(begun().lines().count(), 1);
        assert!(!alive(begun().trim()));
        assert_eq!(handle.counters().failed, 0);
    });
}

#[test]
fn sigterm_of_another_while_the_worker_drains_costs_no_attempt() {
    for (before, after) in [
        (":", "exec sleep 600"),
        // As a shell says that SIGTERM ended what it waited for.
        ("trap 'exit 143' TERM", "while :; do sleep 0.01; done"),
    ] {
        run(async {
            let mut manager = Manager::open().await;
            let dir = tempfile::tempdir().expect("a folder");
            let file = dir.path().join("pid");
            let script = telling(&file, before, after);
            let worker = start(&mut manager, shell(&script, CommandMode::Once)).await;
            let handle = worker.handle();
            manager.heartbeat(|_| true).await;
            manager.dispatch(vec![work(1, "{}")]).await;
            let pid = told(&file).await;
            let end = async_std::task::spawn(worker.run());
            handle.drain();
            manager
                .heartbeat(|beat| beat.state == WorkerState::Draining)
                .await;
            kill("-TERM", &pid);
            let hand_back = manager.hand_back().await;
            assert_eq!(hand_back.reason, HandBackReason::Abandoned);
            assert!(matches!(manager.received().await, Message::Goodbye(_)));
            soon("the end", end).await;
        });
    }
}

#[test]
fn once_stderr_lines_are_live_logs_and_progress() {
    run(async {
        let mut manager = Manager::open().await;
        let script = "echo '::progress 0.25 a quarter' >&2; echo hello >&2; exec sleep 600";
        let _worker = start(&mut manager, shell(script, CommandMode::Once)).await;
        manager.heartbeat(|_| true).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        let (mut logged, mut progress) = (None, None);
        manager
            .event(|_, message| {
                match message {
                    Message::Logs(logs) => logged = Some(logs.lines[0].text.clone()),
                    Message::Progress(items) => progress = Some(items.items[0].clone()),
                    _ => {}
                }
                (logged.is_some() && progress.is_some()).then_some(())
            })
            .await;
        assert_eq!(logged.as_deref(), Some("hello"));
        let progress = progress.expect("waited for");
        assert_eq!(
            (progress.fraction, progress.text.as_str()),
            (0.25, "a quarter")
        );
    });
}

#[test]
fn stream_keeps_one_process_for_many_jobs() {
    run(async {
        let mut manager = Manager::open().await;
        let script = r#"while read line; do echo "{\"ok\":true,\"output\":{\"pid\":$$}}"; done"#;
        let _worker = start(&mut manager, shell(script, CommandMode::Stream)).await;
        manager
            .dispatch(vec![work(1, "{}"), work(2, "{\n}"), work(3, "{}")])
            .await;
        let results = manager.results(3).await;
        assert!(
            results
                .iter()
                .all(|result| result.outcome == Outcome::Success)
        );
        assert!(!results[0].instructions.is_empty());
        assert!(
            results
                .iter()
                .all(|result| result.instructions == results[0].instructions)
        );
    });
}

#[test]
fn stream_process_that_ended_while_idle_fails_no_job() {
    run(async {
        let mut manager = Manager::open().await;
        let script = r#"while read line; do echo "{\"ok\":true,\"output\":{\"pid\":$$}}"; done"#;
        let _worker = start(&mut manager, shell(script, CommandMode::Stream)).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        let result = manager.result().await;
        let output: serde_json::Value =
            serde_json::from_slice(&result.instructions).expect("an object");
        let pid = output["pid"].to_string();
        kill("-KILL", &pid);
        reached("it has ended", || !alive(&pid)).await;
        manager.dispatch(vec![work(2, "{}")]).await;
        let result = manager.result().await;
        assert_eq!(result.outcome, Outcome::Success);
    });
}

#[test]
fn stream_processes_may_end_by_themselves_when_the_worker_leaves() {
    run(async {
        let mut manager = Manager::open().await;
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("left");
        let script = format!(
            r#"while read line; do echo '{{"ok":true}}'; done; echo left > {}"#,
            file.display()
        );
        let worker = start(&mut manager, shell(&script, CommandMode::Stream)).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        manager.result().await;
        manager.acknowledge(&[1]).await;
        worker.handle().drain();
        worker.run().await;
        let left = std::fs::read_to_string(&file);
        assert_eq!(left.expect("it saw the end of its stdin"), "left\n");
    });
}

#[test]
fn stream_failures_death_and_restart() {
    run(async {
        let mut manager = Manager::open().await;
        let script = r#"while read line; do case "$line" in
            *'"job":"job-1"'*) echo '{"ok":false,"error":"no","retry":false}';;
            *'"job":"job-2"'*) kill -KILL $$;;
            *'"job":"job-3"'*) echo 'what?';;
            *) echo '{"ok":true}';;
        esac; done"#;
        let _worker = start(&mut manager, shell(script, CommandMode::Stream)).await;
        manager
            .dispatch((1..=4).map(|n| work(n, "{}")).collect())
            .await;
        let results = manager.results(4).await;
        let (kind, message, _, retry) = failure(&results[0]);
        assert_eq!((kind, message, retry), (FailureKind::Error, "no", false));
        let (kind, message, _, _) = failure(&results[1]);
        assert_eq!(kind, FailureKind::Panic);
        assert!(message.ends_with("killed by signal SIGKILL"), "{message}");
        assert_eq!(failure(&results[2]).0, FailureKind::Output);
        assert_eq!(results[3].attempt, attempt(4));
        assert_eq!(results[3].outcome, Outcome::Success);
    });
}

#[test]
fn stream_timeout_kills_the_process() {
    run(async {
        let mut manager = Manager::open().await;
        let script = r#"read line; echo '{"ok":true}'; read line; exec sleep 600"#;
        let _worker = start(&mut manager, shell(script, CommandMode::Stream)).await;
        let mut late = work(2, "{}");
        late.timeout_ms = 200;
        manager
            .dispatch(vec![work(1, "{}"), late, work(3, "{}")])
            .await;
        let results = manager.results(3).await;
        assert_eq!(results[0].outcome, Outcome::Success);
        assert_eq!(failure(&results[1]).0, FailureKind::Timeout);
        assert_eq!(results[2].outcome, Outcome::Success);
    });
}

async fn start_error(options: CommandOptions) -> StartError {
    let manager = Manager::open().await;
    let options_of_worker: WorkerOptions = manager.options();
    let phase = CommandPhase::new(options).into_any();
    Worker::start(options_of_worker, phase)
        .await
        .expect_err("it cannot start")
}

#[test]
fn command_that_cannot_be_executed_keeps_the_worker_from_starting() {
    run(async {
        let command = |program: &str| CommandOptions {
            command: vec![program.to_owned()],
            ..CommandOptions::default()
        };
        let error = start_error(command("no-such-program-anywhere")).await;
        assert!(
            error.to_string().contains("no-such-program-anywhere"),
            "{error}"
        );
        let error = start_error(command("/etc/passwd")).await;
        assert!(
            error.to_string().contains("no execute permission"),
            "{error}"
        );
        let error = start_error(CommandOptions::default()).await;
        assert!(matches!(error, StartError::CommandEmpty));
    });
}
