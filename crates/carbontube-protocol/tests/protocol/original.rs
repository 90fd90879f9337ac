//! Section 9: the messages of the original Carbontube.

use carbontube_protocol::original::{
    OriginalEvent, OriginalMessage, decode_event, decode_message, encode_job,
};
use carbontube_protocol::{Limits, Timestamp};

use crate::samples::job;

fn enqueue(text: &str) -> (Option<String>, String) {
    match decode_message(text.as_bytes(), &Limits::default()).expect("a message") {
        OriginalMessage::Enqueue {
            pipeline,
            instructions,
            ..
        } => (
            pipeline.map(|name| name.to_string()),
            String::from_utf8(instructions.to_vec()).expect("JSON is text"),
        ),
        other => panic!("expected an enqueue, found {other:?}"),
    }
}

#[test]
fn s9_nested_instructions_are_unwrapped() {
    let text =
        r#"{"id":"a1","pipeline":true,"instructions":{"name":"video","instructions":{"x":1}}}"#;
    assert_eq!(enqueue(text), (Some("video".into()), r#"{"x":1}"#.into()));
}

#[test]
fn s9_instructions_may_stand_without_nesting() {
    let text = r#"{"id":"a1","pipeline":true,"instructions":{"x":1}}"#;
    assert_eq!(enqueue(text), (None, r#"{"x":1}"#.into()));
}

#[test]
fn s9_a_finished_job_keeps_its_error_and_its_times() {
    let text = r#"{"id":"a1","job_type":"encode","success":false,"error":{"traceback":"Traceback\nValueError: no"},
        "job_started_at":1.5,"job_finished_at":2.0,"instructions":{"x":1}}"#;
    match decode_message(text.as_bytes(), &Limits::default()).expect("a message") {
        OriginalMessage::Finished {
            id,
            success,
            error,
            started_at,
            finished_at,
            ..
        } => {
            assert_eq!(id, job("a1"));
            assert!(!success);
            assert_eq!(error.message, "ValueError: no");
            assert_eq!(error.detail, "Traceback\nValueError: no");
            assert_eq!(
                (started_at, finished_at),
                (Timestamp(1_500_000), Timestamp(2_000_000))
            );
        }
        other => panic!("expected a finished job, found {other:?}"),
    }
}

#[test]
fn s9_what_is_wrong_is_named() {
    let check = |text: &str, expected: &str| {
        let error = decode_message(text.as_bytes(), &Limits::default()).expect_err("an error");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("{", "EOF");
    check("[]", "it is an array");
    check("{}", "\"instructions\"");
    check(r#"{"instructions":[1]}"#, "an array");
    check(r#"{"job_finished_at":1,"id":"a"}"#, "\"job_type\"");
    check(r#"{"id":"a b","instructions":{}}"#, "without spaces");
}

#[test]
fn s9_an_available_worker_is_read() {
    let text =
        r#"{"id":"w1","address":"tcp://127.0.0.1:3000","job_type":"encode","success_count":2}"#;
    let event = decode_event(b"available", text.as_bytes(), &Limits::default()).expect("an event");
    match event {
        OriginalEvent::Available {
            id,
            address,
            success_count,
            failed_count,
            ..
        } => {
            assert_eq!((id.as_str(), success_count, failed_count), ("w1", 2, 0));
            assert_eq!(address.to_string(), "tcp://127.0.0.1:3000");
        }
        other => panic!("expected an available worker, found {other:?}"),
    }
}

#[test]
fn s9_a_log_line_is_cut_to_its_limit() {
    let limits = Limits {
        log_line_bytes_max: 5,
        ..Limits::default()
    };
    let event = decode_event(b"encode:logs", "{\"msg\":\"abcdé\"}".as_bytes(), &limits);
    let expected = OriginalEvent::Log {
        job_type: "encode".parse().expect("a name"),
        text: "abcd".into(),
    };
    assert_eq!(event, Ok(expected));
}

#[test]
fn s9_a_job_for_an_original_worker_has_its_fields() {
    let frame = encode_job(
        &job("a1"),
        &"encode".parse().expect("a name"),
        br#"{"x":1}"#,
        Timestamp(1_500_000),
        1,
    );
    let value: serde_json::Value = serde_json::from_slice(&frame).expect("JSON");
    let expected = serde_json::json!({
        "id": "a1", "job_type": "encode", "state": "running", "enqueued_at": 1.5,
        "retries": 1, "instructions": {"x": 1}
    });
    assert_eq!(value, expected);
}
