//! Attempts from their dispatch to their acknowledgement.

use bytes::Bytes;
use carbontube_protocol::message::{HandBackReason, HeldState, Outcome};
use carbontube_protocol::{Codec, JobType, Message};
use carbontube_transport::{Options, Push};
use carbontube_worker::{AnyPhase, FailureKind, JobContext, LogLevel, Phase, PhaseError, Worker};
use serde_json::json;

use crate::scripted::{Manager, attempt, endless, failure, phase, reached, run, work};

#[test]
fn job_output_is_merged_and_kept_until_acknowledged() {
    run(async {
        let mut manager = Manager::open().await;
        let double = phase(|_, instructions| async move {
            Ok(json!({ "double": instructions["n"].as_i64().unwrap_or(0) * 2 }))
        });
        let worker = Worker::start(manager.options(), double)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager
            .dispatch(vec![work(1, r#"{"n":21,"keep":true}"#)])
            .await;
        let result = manager.result().await;
        assert_eq!(result.outcome, Outcome::Success);
        assert_eq!(
            result.instructions,
            Bytes::from_static(br#"{"double":42,"keep":true,"n":21}"#)
        );
        let heartbeat = manager
            .heartbeat(|heartbeat| {
                let mut held = heartbeat.managers.iter().flat_map(|manager| &manager.held);
                held.any(|held| held.state == HeldState::Done)
            })
            .await;
        let held = &heartbeat.managers[0].held[0];
        assert_eq!((held.attempt, held.state), (attempt(1), HeldState::Done));
        assert_eq!(heartbeat.managers[0].sequence, 2);
        manager.acknowledge(&[1]).await;
        let heartbeat = manager
            .heartbeat(|heartbeat| heartbeat.managers[..].iter().any(|m| m.sequence == 3))
            .await;
        assert!(heartbeat.managers[0].held.is_empty());
        assert_eq!(heartbeat.success_count, 1);
    });
}

#[test]
fn json_manager_is_answered_in_json() {
    run(async {
        let mut manager = Manager::open().await;
        manager.codec = Codec::Json;
        let nothing = phase(|_, _| async { Ok(json!(null)) });
        let worker = Worker::start(manager.options(), nothing)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, r#"{"n":1}"#)]).await;
        let frames = manager.pull.recv().await.expect("open");
        assert_eq!(frames[0][5], b'J');
        // Unchanged instructions are an empty frame.
        assert!(frames[2].is_empty());
    });
}

#[test]
fn phase_errors_panics_and_bad_output_are_told_apart() {
    run(async {
        let mut manager = Manager::open().await;
        let troubled = phase(|job: JobContext, instructions| async move {
            match instructions["do"].as_str() {
                Some("fail") => {
                    job.log(LogLevel::Warn, "about to fail");
                    Err("no such file".into())
                }
                Some("never") => Err(PhaseError::fatal("no use")),
                Some("array") => Ok(json!([1])),
                _ => panic!("on purpose: {instructions}"),
            }
        });
        let worker = Worker::start(manager.options(), troubled)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        let jobs = ["fail", "never", "array", "panic"];
        let jobs = (1..)
            .zip(jobs)
            .map(|(n, what)| work(n, &json!({ "do": what }).to_string()));
        manager.dispatch(jobs.collect()).await;
        let results = manager.results(4).await;
        let (kind, message, detail, retry) = failure(&results[0]);
        assert_eq!(
            (kind, message, retry),
            (FailureKind::Error, "no such file", true)
        );
        assert_eq!(detail, "about to fail\n");
        let (kind, message, _, retry) = failure(&results[1]);
        assert_eq!(
            (kind, message, retry),
            (FailureKind::Error, "no use", false)
        );
        let (kind, message, _, _) = failure(&results[2]);
        assert_eq!(kind, FailureKind::Output);
        assert!(message.contains("an array"), "{message}");
        let (kind, message, detail, retry) = failure(&results[3]);
        assert_eq!(kind, FailureKind::Panic);
        assert_eq!(message, r#"on purpose: {"do":"panic"}"#);
        assert!(detail.contains("run.rs"), "{detail}");
        assert!(retry);
        assert_eq!(worker.counters().failed, 4);
    });
}

struct Typed;

#[derive(serde::Deserialize)]
struct TypedInstructions {
    width: u32,
}

impl Phase for Typed {
    type Instructions = TypedInstructions;
    type Output = ();

    async fn execute(&self, _: &JobContext, given: TypedInstructions) -> Result<(), PhaseError> {
        assert!(given.width > 0);
        Ok(())
    }
}

#[test]
fn instructions_of_another_type_fail_for_good_and_name_the_field() {
    run(async {
        let mut manager = Manager::open().await;
        let typed = AnyPhase::from_async(Typed);
        let worker = Worker::start(manager.options(), typed)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager.dispatch(vec![work(1, r#"{"height":1}"#)]).await;
        let result = manager.result().await;
        let (kind, message, _, retry) = failure(&result);
        assert_eq!((kind, retry), (FailureKind::Error, false));
        assert!(message.contains("width"), "{message}");
    });
}

#[test]
fn timeout_and_cancel_end_a_running_attempt() {
    run(async {
        let mut manager = Manager::open().await;
        let mut options = manager.options();
        options.slots = 2;
        let worker = Worker::start(options, endless()).await.expect("starts");
        manager.meet(&worker).await;
        let mut late = work(1, "{}");
        late.timeout_ms = 50;
        manager
            .dispatch(vec![late, work(2, "{}"), work(3, "{}")])
            .await;
        let result = manager.result().await;
        assert_eq!(result.attempt, attempt(1));
        assert_eq!(failure(&result).0, FailureKind::Timeout);
        // The freed slot takes the third.
        reached("both run", || worker.counters().running == 2).await;
        manager.cancel(&[2, 3]).await;
        for result in manager.results(2).await {
            assert_eq!(failure(&result).0, FailureKind::Cancelled);
        }
    });
}

#[test]
fn recall_hands_back_what_has_not_started() {
    run(async {
        let mut manager = Manager::open().await;
        let worker = Worker::start(manager.options(), endless())
            .await
            .expect("starts");
        manager.meet(&worker).await;
        manager
            .dispatch(vec![work(1, "{}"), work(2, "{}"), work(3, "{}")])
            .await;
        reached("one runs", || worker.counters().running == 1).await;
        manager.recall(&[1, 2, 3]).await;
        let hand_back = manager.hand_back().await;
        assert_eq!(hand_back.reason, HandBackReason::Recalled);
        let attempts: Vec<_> = hand_back.attempts.iter().map(|back| back.attempt).collect();
        assert_eq!(attempts, [attempt(2), attempt(3)]);
        assert_eq!(worker.counters().queued, 0);
    });
}

#[test]
fn unknown_job_type_is_handed_back() {
    run(async {
        let mut manager = Manager::open().await;
        let worker = Worker::start(manager.options(), endless())
            .await
            .expect("starts");
        manager.meet(&worker).await;
        let mut stray = work(1, "{}");
        stray.job_type = JobType::new("another").expect("a valid name");
        manager.dispatch(vec![stray]).await;
        let hand_back = manager.hand_back().await;
        assert_eq!(hand_back.reason, HandBackReason::UnknownJobType);
    });
}

#[test]
fn garbage_is_counted_and_changes_nothing() {
    run(async {
        let mut manager = Manager::open().await;
        let nothing = phase(|_, _| async { Ok(json!(null)) });
        let worker = Worker::start(manager.options(), nothing)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        let stranger = Push::open(Options::default(), worker.address().clone())
            .await
            .expect("opens");
        let frames: [Vec<Bytes>; 4] = [
            vec![Bytes::from_static(b"hello?")],
            vec![Bytes::new(), Bytes::new()],
            vec![
                Bytes::from_static(b"CTB\x01DB"),
                Bytes::from_static(&[0xff; 40]),
            ],
            // A message that only workers send.
            vec![
                Bytes::from_static(b"CTB\x01LB"),
                Bytes::from_static(&[0; 16]),
            ],
        ];
        for frames in frames {
            stranger.send(frames).await.expect("sent");
        }
        reached("all counted", || worker.counters().refused == 4).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        assert_eq!(manager.result().await.outcome, Outcome::Success);
    });
}

#[test]
fn logs_and_progress_are_published_as_numbered_events() {
    run(async {
        let mut manager = Manager::open().await;
        let talks = phase(|job: JobContext, _| async move {
            // Progress of before is merged away.
            job.progress(0.1, "begun");
            job.progress(0.5, "half way");
            job.log(LogLevel::Info, "two\nlines");
            Ok(json!(null))
        });
        let worker = Worker::start(manager.options(), talks)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        // The subscription stands once a heartbeat has come.
        manager.heartbeat(|_| true).await;
        manager.dispatch(vec![work(1, "{}")]).await;
        let (mut lines, mut items, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        manager
            .event(|topic, message| {
                match message {
                    Message::Logs(logs) => {
                        assert_eq!(topic, "test-phase:logs");
                        sequences.push(logs.sequence);
                        lines.extend(logs.lines);
                    }
                    Message::Progress(progress) => {
                        assert_eq!(topic, "test-phase:progress");
                        sequences.push(progress.sequence);
                        items.extend(progress.items);
                    }
                    Message::Heartbeat(heartbeat) => sequences.push(heartbeat.sequence),
                    _ => {}
                }
                (lines.len() == 2 && !items.is_empty()).then_some(())
            })
            .await;
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["two", "lines"]);
        assert_eq!(
            (items[0].fraction, items[0].text.as_str()),
            (0.5, "half way")
        );
        assert!(
            sequences.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{sequences:?}"
        );
    });
}

#[test]
fn many_small_jobs_go_through_in_batches() {
    run(async {
        let mut manager = Manager::open().await;
        let nothing = phase(|_, _| async { Ok(json!(null)) });
        let worker = Worker::start(manager.options(), nothing)
            .await
            .expect("starts");
        manager.meet(&worker).await;
        let mut next = 1;
        for _ in 0..20 {
            manager
                .dispatch((next..next + 200).map(|n| work(n, "{}")).collect())
                .await;
            let results = manager.results(200).await;
            let counters: Vec<u64> = results
                .iter()
                .map(|result| result.attempt.counter)
                .collect();
            assert_eq!(counters, (next..next + 200).collect::<Vec<_>>());
            manager.acknowledge(&counters).await;
            next += 200;
        }
        reached("all acknowledged", || worker.counters().unacknowledged == 0).await;
        assert_eq!(worker.counters().success, 4000);
    });
}
