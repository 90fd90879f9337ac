//! What commands write, read as the worker reads it; opened for fuzzing.

use carbontube_protocol::Limits;
use futures_lite::future::block_on;
use futures_lite::io::Cursor;

use super::lines::{Lines, Said, read_said};
use super::{output, stream};
use crate::phase::Ended;

/// A failure in words.
fn told(ended: Ended) -> Result<Option<Vec<u8>>, String> {
    ended
        .map(|output| output.map(|bytes| bytes.to_vec()))
        .map_err(|failure| format!("{}: {}", failure.kind, failure.message))
}

/// The lines of a pipe, each with whether it was cut at the limit.
pub fn lines(pipe: &[u8], limit: usize) -> Vec<(Vec<u8>, bool)> {
    let mut lines = Lines::new(Cursor::new(pipe), limit);
    let mut all = Vec::new();
    while let Some(line) = block_on(lines.next()) {
        all.push((line.bytes, line.cut));
    }
    all
}

/// What a line of stderr says: a fraction if it is progress, and the text.
pub fn said(line: &str) -> Option<(Option<f32>, String)> {
    Some(match read_said(line)? {
        Said::Progress(fraction, text) => (Some(fraction), text.to_owned()),
        Said::Log(text) => (None, text.to_owned()),
    })
}

/// The result of a command that ran once, out of its last line.
///
/// # Errors
/// How the attempt failed.
pub fn last_line(line: &[u8], limits: &Limits) -> Result<Option<Vec<u8>>, String> {
    told(output(line, limits))
}

/// The result of one attempt, out of the answer of a process that is kept alive.
///
/// # Errors
/// How the attempt failed; the outer one says that the answer cannot be read.
pub fn reply(line: &[u8], limits: &Limits) -> Result<Result<Option<Vec<u8>>, String>, String> {
    stream::read_reply(line, limits)
        .map(told)
        .map_err(|error| error.to_string())
}
