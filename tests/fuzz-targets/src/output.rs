//! What commands write: lines, progress, results, answers.

use carbontube_protocol::{Limits, check_instructions};
use carbontube_worker::testing::{last_line, lines, reply, said};

use crate::Target;
use crate::draw::Draw;

/// The target.
pub const TARGET: Target = Target {
    name: "output",
    about: "what commands write: lines, progress, results, answers of kept processes",
    run,
    seeds,
    dictionary: DICTIONARY,
    bytes_max: 4096,
};

/// The first byte is the limit of a line, the rest what a command wrote.
pub fn run(data: &[u8]) {
    let mut draw = Draw::new(data);
    let limit = 1 + usize::from(draw.byte());
    let written = draw.rest();
    let limits = Limits {
        instructions_bytes_max: limit,
        ..Limits::default()
    };
    let found = lines(written, limit);
    check_lines(written, limit, &found);
    for (line, _) in &found {
        check_said(&String::from_utf8_lossy(line));
        check_result(&last_line(line, &limits), &limits);
        match reply(line, &limits) {
            Ok(result) => check_result(&result, &limits),
            Err(error) => assert!(!error.is_empty()),
        }
    }
}

/// Lines are those of a plain split; a long one is its beginning, marked.
fn check_lines(written: &[u8], limit: usize, found: &[(Vec<u8>, bool)]) {
    let mut plain: Vec<&[u8]> = written.split(|byte| *byte == b'\n').collect();
    // The pipe's end ends a line only if there is one.
    if plain.last().is_some_and(|line| line.is_empty()) {
        plain.pop();
    }
    let expected: Vec<(Vec<u8>, bool)> = plain
        .into_iter()
        .map(|line| (line[..line.len().min(limit)].to_vec(), line.len() > limit))
        .collect();
    assert_eq!(found, expected);
}

fn check_said(line: &str) {
    match said(line) {
        Some((fraction, text)) => {
            assert!(text.len() <= line.len());
            assert!(fraction.is_none() || line.starts_with("::progress "));
        }
        None => assert!(line.trim_end().is_empty()),
    }
}

fn check_result(result: &Result<Option<Vec<u8>>, String>, limits: &Limits) {
    match result {
        Ok(Some(output)) => {
            check_instructions(output, limits).expect("an output that was taken is instructions");
        }
        Ok(None) => {}
        Err(failure) => assert!(failure.contains(": "), "{failure}"),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 7] = [
        b"{\"a\": 1}\n",
        b"frame 1\r\n::progress 0.5 half\n\nnull\n",
        b"{\"ok\": true, \"output\": {\"a\": 1}}\n{\"ok\": false, \"error\": \"no\", \"retry\": false}\n",
        b"{\"ok\": true, \"output\": [1]}\n",
        b"::progress nan\n::progress 1e999 x\n",
        b"no end of line",
        b"\xff\xfe\n",
    ];
    let with = |limit: u8, text: &[u8]| [&[limit], text].concat();
    let wide = texts.iter().map(|text| with(255, text));
    let narrow = texts.iter().map(|text| with(3, text));
    wide.chain(narrow).collect()
}

const DICTIONARY: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"::progress ",
    b"0.5 ",
    b"{\"ok\": true",
    b"{\"ok\": false",
    b", \"output\": {",
    b", \"error\": \"",
    b", \"retry\": false",
    b"}\n",
    b"null",
    b"\0",
];
