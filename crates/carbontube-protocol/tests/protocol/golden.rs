//! Golden vectors: the bytes of one message of every kind, in both codecs, both ways.

use std::fmt::Write as _;

use bytes::Bytes;
use carbontube_protocol::{Codec, Kind, Limits, decode, encode};
use expect_test::expect_file;

use crate::samples;

fn vectors(codec: Codec) -> String {
    let mut text = String::new();
    for message in samples::all() {
        writeln!(text, "{:?}", message.kind()).expect("writing to a string");
        for (index, frame) in encode(&message, codec).iter().enumerate() {
            let json = codec == Codec::Json && index > 0 || index > 1;
            let line = if json {
                String::from_utf8(frame.to_vec()).expect("JSON is text")
            } else {
                frame.iter().map(|byte| format!("{byte:02x}")).collect()
            };
            writeln!(text, "  {line}").expect("writing to a string");
        }
    }
    text
}

#[test]
fn bincode_vectors_stay_as_they_are() {
    expect_file!["../golden/bincode.txt"].assert_eq(&vectors(Codec::Bincode));
}

#[test]
fn json_vectors_stay_as_they_are() {
    expect_file!["../golden/json.txt"].assert_eq(&vectors(Codec::Json));
}

/// Reads the committed vectors, not what `encode` makes now.
fn committed(text: &str, json_body: bool) -> Vec<Vec<Bytes>> {
    let mut messages: Vec<Vec<Bytes>> = Vec::new();
    for line in text.lines() {
        let Some(frame) = line.strip_prefix("  ") else {
            messages.push(Vec::new());
            continue;
        };
        let frames = messages
            .last_mut()
            .expect("a kind stands before its frames");
        let is_hex = frames.is_empty() || (!json_body && frames.len() == 1);
        frames.push(if is_hex {
            (0..frame.len() / 2)
                .map(|i| u8::from_str_radix(&frame[2 * i..2 * i + 2], 16).expect("hex"))
                .collect::<Vec<u8>>()
                .into()
        } else {
            Bytes::copy_from_slice(frame.as_bytes())
        });
    }
    messages
}

#[test]
fn committed_vectors_of_both_codecs_decode_to_the_samples() {
    let limits = Limits::default();
    for (text, json) in [
        (include_str!("../golden/bincode.txt"), false),
        (include_str!("../golden/json.txt"), true),
    ] {
        let decoded: Vec<_> = committed(text, json)
            .iter()
            .map(|frames| decode(frames, &limits).expect("a golden vector decodes"))
            .collect();
        assert_eq!(decoded, samples::all());
    }
}

#[test]
fn samples_hold_every_kind_once() {
    let kinds: Vec<Kind> = samples::all()
        .iter()
        .map(|message| message.kind())
        .collect();
    assert_eq!(kinds, Kind::ALL);
}
