//! Bytes that are not as they should be: each is a clear error, never a panic.

use bytes::Bytes;
use carbontube_protocol::message::{Enqueue, NewJob};
use carbontube_protocol::original::{decode_event, decode_message};
use carbontube_protocol::{
    Codec, DecodeError, Limits, Message, PipelineName, check_instructions, decode, encode,
    merge_instructions,
};
use proptest::prelude::*;

use crate::samples;

#[test]
fn every_truncation_of_every_body_is_an_error() {
    let limits = Limits::default();
    for codec in [Codec::Bincode, Codec::Json] {
        for message in samples::all() {
            let frames = encode(&message, codec);
            for length in 0..frames[1].len() {
                let mut cut = frames.clone();
                cut[1] = cut[1].slice(..length);
                assert!(
                    decode(&cut, &limits).is_err(),
                    "{:?} cut to {length}",
                    message.kind()
                );
            }
        }
    }
}

#[test]
fn every_extension_of_every_body_is_an_error() {
    let limits = Limits::default();
    for codec in [Codec::Bincode, Codec::Json] {
        for message in samples::all() {
            let mut frames = encode(&message, codec);
            let mut longer = frames[1].to_vec();
            longer.push(b'1');
            frames[1] = longer.into();
            let error = decode(&frames, &limits).expect_err("a longer body is an error");
            assert!(matches!(error, DecodeError::Body { .. }), "{error}");
        }
    }
}

#[test]
fn a_missing_or_extra_payload_frame_is_an_error() {
    let limits = Limits::default();
    for message in samples::all() {
        let frames = encode(&message, Codec::Json);
        let mut extra = frames.clone();
        extra.push(Bytes::from_static(b"{}"));
        assert!(matches!(
            decode(&extra, &limits),
            Err(DecodeError::Payloads { .. })
        ));
        if frames.len() > 2 {
            let fewer = &frames[..frames.len() - 1];
            assert!(matches!(
                decode(fewer, &limits),
                Err(DecodeError::Payloads { .. })
            ));
        }
    }
}

#[test]
fn headers_are_refused_by_the_first_wrong_byte() {
    let limits = Limits::default();
    let check = |header: &'static [u8], expected: DecodeError| {
        let frames = [Bytes::from_static(header), Bytes::from_static(b"{}")];
        assert_eq!(decode(&frames, &limits), Err(expected));
    };
    check(
        b"HTTP/1.1",
        DecodeError::Signature {
            found: b"HTTP/1.1".to_vec(),
        },
    );
    check(
        b"CT",
        DecodeError::Signature {
            found: b"CT".to_vec(),
        },
    );
    check(b"CTB\x02EJ", DecodeError::Version { found: 2 });
    check(b"CTB\x01EJJ", DecodeError::HeaderLength { found: 7 });
    check(b"CTB\x01zJ", DecodeError::Kind { found: b'z' });
    check(b"CTB\x01EX", DecodeError::Codec { found: b'X' });
    assert_eq!(decode(&[], &limits), Err(DecodeError::Frames { frames: 0 }));
    let only_header = [Bytes::from_static(b"CTB\x01EJ")];
    assert_eq!(
        decode(&only_header, &limits),
        Err(DecodeError::Frames { frames: 1 })
    );
}

#[test]
fn a_json_array_of_the_fields_in_order_is_no_body() {
    let frames = [
        Bytes::from_static(b"CTB\x01EJ"),
        Bytes::from_static(b"[1, \"p\", []]"),
    ];
    let error = decode(&frames, &Limits::default()).expect_err("an array is no body");
    assert!(
        error.to_string().contains("an array, not a JSON object"),
        "{error}"
    );
}

#[test]
fn a_bincode_length_beyond_the_frame_allocates_nothing() {
    // request 1, then a pipeline name that claims 2^62 bytes.
    let mut body = vec![1u8, 253];
    body.extend_from_slice(&(1u64 << 62).to_le_bytes());
    let frames = [Bytes::from_static(b"CTB\x01EB"), Bytes::from(body)];
    let error = decode(&frames, &Limits::default()).expect_err("it cannot be read");
    assert!(matches!(error, DecodeError::Body { .. }), "{error}");
}

#[test]
fn each_limit_is_held() {
    let limits = Limits {
        instructions_bytes_max: 16,
        body_bytes_max: 256,
        batch_jobs_max: 2,
        ..Limits::default()
    };
    let enqueue = |jobs: usize, instructions: &'static [u8]| {
        let job = NewJob {
            id: None,
            delay_ms: 0,
            traceparent: None,
            instructions: Bytes::from_static(instructions),
        };
        let pipeline = "p".parse().expect("a name");
        encode(
            &Enqueue {
                request: 1,
                pipeline,
                jobs: vec![job; jobs],
            }
            .into(),
            Codec::Bincode,
        )
    };
    assert!(decode(&enqueue(2, b"{}"), &limits).is_ok());
    for frames in [enqueue(3, b"{}"), enqueue(1, b"{\"a\":\"0123456789\"}")] {
        assert!(matches!(
            decode(&frames, &limits),
            Err(DecodeError::Limit { .. })
        ));
    }
    let mut large = enqueue(0, b"");
    large[1] = vec![0; 257].into();
    assert!(matches!(
        decode(&large, &limits),
        Err(DecodeError::Limit { .. })
    ));
}

fn frames() -> impl Strategy<Value = Vec<Bytes>> {
    let frame = proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    proptest::collection::vec(frame, 0..6)
}

proptest! {
    #[test]
    fn random_frames_never_panic(frames in frames(), kind in 0..20usize, json in any::<bool>()) {
        let limits = Limits::default();
        let _ = decode(&frames, &limits);
        let kind = carbontube_protocol::Kind::ALL[kind].byte();
        let codec = if json { b'J' } else { b'B' };
        let mut headed = vec![Bytes::from(vec![b'C', b'T', b'B', 1, kind, codec])];
        headed.extend(frames.iter().cloned());
        let _ = decode(&headed, &limits);
    }

    #[test]
    fn a_changed_byte_never_panics_and_never_changes_the_kind(
        which in 0..20usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), json in any::<bool>()
    ) {
        let message = &samples::all()[which];
        let codec = if json { Codec::Json } else { Codec::Bincode };
        let mut frames = encode(message, codec);
        let mut body = frames[1].to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        frames[1] = body.into();
        if let Ok(read) = decode(&frames, &Limits::default()) {
            prop_assert_eq!(read.kind(), message.kind());
        }
    }

    #[test]
    fn random_bytes_are_no_panic_for_the_original_messages(
        topic in proptest::collection::vec(any::<u8>(), 0..40),
        frame in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let limits = Limits::default();
        let _ = decode_message(&frame, &limits);
        let _ = decode_event(&topic, &frame, &limits);
        let _ = decode_event(b"available", &frame, &limits);
    }

    #[test]
    fn what_passes_the_check_is_an_object_for_serde_json_too(
        bytes in proptest::collection::vec(any::<u8>(), 0..60)
    ) {
        let ours = check_instructions(&bytes, &Limits::default()).is_ok();
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes)
            .is_ok_and(|value| value.is_object());
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn enqueue_survives_both_codecs(
        request in any::<u64>(),
        jobs in proptest::collection::vec((any::<u64>(), "[!-~]{1,128}", "[a-z]{0,40}"), 0..20)
    ) {
        let jobs = jobs.into_iter().map(|(delay_ms, id, text)| NewJob {
            id: Some(samples::job(&id)),
            delay_ms,
            traceparent: None,
            instructions: Bytes::from(serde_json::json!({"text": text}).to_string()),
        }).collect();
        let message: Message = Enqueue { request, pipeline: "p".parse().expect("a name"), jobs }.into();
        for codec in [Codec::Bincode, Codec::Json] {
            let read = decode(&encode(&message, codec), &Limits::default());
            prop_assert_eq!(read.as_ref(), Ok(&message));
        }
    }

    #[test]
    fn merging_is_what_serde_json_would_do(
        a in proptest::collection::btree_map("[a-d]", any::<i32>(), 0..4),
        b in proptest::collection::btree_map("[a-d]", any::<i32>(), 0..4),
    ) {
        let text = |map| serde_json::to_vec(map).expect("a map of numbers");
        let merged = merge_instructions(&text(&a), &text(&b), &Limits::default());
        let mut expected = a.clone();
        expected.extend(b.clone());
        prop_assert_eq!(merged.map(|bytes| bytes.to_vec()), Ok(text(&expected)));
    }
}

#[test]
fn progress_beyond_its_ends_is_not_read_in_either_codec() {
    let attempt = carbontube_protocol::AttemptId {
        epoch: 1,
        counter: 1,
    };
    let of = |fraction: f32| {
        Message::Progress(carbontube_protocol::message::Progress {
            worker: carbontube_protocol::WorkerId::from_bytes([1; 16]),
            sequence: 1,
            job_type: "encode".parse().expect("a name"),
            items: vec![carbontube_protocol::message::ProgressItem {
                job: "a".parse().expect("an id"),
                attempt,
                fraction,
                text: String::new(),
            }],
        })
    };
    let limits = Limits::default();
    for fraction in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.1, 1.1] {
        let error =
            decode(&encode(&of(fraction), Codec::Bincode), &limits).expect_err("no fraction");
        assert!(
            error.to_string().contains("a fraction is from 0 to 1"),
            "{error}"
        );
    }
    let mut far = encode(&of(0.5), Codec::Json);
    let text = String::from_utf8_lossy(&far[1]).replace("0.5", "1e39");
    far[1] = Bytes::from(text);
    assert!(decode(&far, &limits).is_err());
    for fraction in [0.0, 0.4, 1.0] {
        let message = of(fraction);
        for codec in [Codec::Bincode, Codec::Json] {
            assert_eq!(
                decode(&encode(&message, codec), &limits).as_ref(),
                Ok(&message)
            );
        }
    }
}

#[test]
fn error_about_a_long_text_quotes_its_beginning_alone() {
    let long = "x".repeat(100_000);
    let header = carbontube_protocol::Header {
        kind: carbontube_protocol::Kind::Query,
        codec: Codec::Json,
    };
    let body = format!(r#"{{"request": 1, "query": "{long}"}}"#);
    let frames = [
        Bytes::copy_from_slice(&header.to_bytes()),
        Bytes::from(body),
    ];
    let error = decode(&frames, &Limits::default()).expect_err("no query has this name");
    let text = error.to_string();
    assert!(
        text.contains("unknown variant") && text.len() < 700,
        "{text}"
    );
    let original = format!(r#"{{"id": "a", "success": "{long}", "instructions": {{}}}}"#);
    let error = decode_message(original.as_bytes(), &Limits::default()).expect_err("no boolean");
    assert!(error.to_string().len() < 700, "{error}");
}

/// A body of three bytes for each job would become hundreds of megabytes: reading ends at
/// the first job too many, before what comes behind it is looked at.
#[test]
fn list_too_long_ends_the_reading_at_its_first_item_too_many() {
    let limits = Limits::default();
    let job = NewJob {
        id: None,
        delay_ms: 0,
        traceparent: None,
        instructions: Bytes::from_static(b"{}"),
    };
    for codec in [Codec::Bincode, Codec::Json] {
        let mut frames = encode(
            &Enqueue {
                request: 1,
                pipeline: PipelineName::new("p").expect("a name"),
                jobs: vec![job.clone(); limits.batch_jobs_max + 1],
            }
            .into(),
            codec,
        );
        frames.truncate(2);
        // What stands behind the first item too many cannot be read.
        let whole = frames[1].len();
        frames[1].truncate(whole - 2);
        let error = decode(&frames, &limits).expect_err("one too many");
        assert!(
            matches!(
                error,
                DecodeError::Limit {
                    limit: 4096,
                    found: 4097,
                    ..
                }
            ),
            "{codec:?}: {error}"
        );
    }
}
