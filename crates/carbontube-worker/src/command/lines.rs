//! Lines of a pipe, bounded: a long line costs no more than its limit.

use futures_lite::{AsyncRead, AsyncReadExt};

use crate::context::JobContext;
use carbontube_protocol::message::LogLevel;

const CHUNK_BYTES: usize = 16 << 10;

/// Splits what comes from a pipe into lines.
pub(super) struct Lines<R> {
    pipe: R,
    chunk: Vec<u8>,
    from: usize,
    line: Vec<u8>,
    limit: usize,
}

/// A line, without its end.
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Whether it was longer than the limit; the rest is gone.
    pub(super) cut: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(pipe: R, limit: usize) -> Self {
        Lines {
            pipe,
            chunk: Vec::new(),
            from: 0,
            line: Vec::new(),
            limit,
        }
    }

    /// The next line; none at the end of the pipe.
    pub(super) async fn next(&mut self) -> Option<Line> {
        let mut cut = false;
        loop {
            let rest = &self.chunk[self.from..];
            let end = rest.iter().position(|&byte| byte == b'\n');
            let part = &rest[..end.unwrap_or(rest.len())];
            let room = self.limit.saturating_sub(self.line.len());
            cut |= part.len() > room;
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if let Some(end) = end {
                self.from += end + 1;
                let bytes = std::mem::take(&mut self.line);
                return Some(Line { bytes, cut });
            }
            self.chunk.resize(CHUNK_BYTES, 0);
            self.from = 0;
            let read = self.pipe.read(&mut self.chunk).await.unwrap_or(0);
            self.chunk.truncate(read);
            if read == 0 {
                let bytes = std::mem::take(&mut self.line);
                return (!bytes.is_empty()).then_some(Line { bytes, cut });
            }
        }
    }
}

/// Takes a line of a command's stderr: progress, or a log line.
pub(super) fn say(job: &JobContext, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    if let Some(rest) = text.strip_prefix("::progress ") {
        let (number, words) = rest
            .trim_start()
            .split_once(' ')
            .unwrap_or((rest.trim(), ""));
        if let Ok(fraction) = number.parse::<f32>() {
            job.progress(fraction, words.trim());
            return;
        }
    }
    if !text.is_empty() {
        job.log(LogLevel::Info, text);
    }
}
