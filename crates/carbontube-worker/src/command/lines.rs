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
    /// Whether the rest of a line that was too long is being read.
    skipping: bool,
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
            skipping: false,
            limit,
        }
    }

    /// The next line; none at the end of the pipe.
    ///
    /// A line that is too long comes as soon as it is, and its rest is skipped: it may
    /// never end.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            let rest = &self.chunk[self.from..];
            let end = rest.iter().position(|&byte| byte == b'\n');
            let part = &rest[..end.unwrap_or(rest.len())];
            let skipping = self.skipping;
            if !skipping {
                let room = self.limit.saturating_sub(self.line.len());
                self.skipping = part.len() > room;
                self.line.extend_from_slice(&part[..part.len().min(room)]);
            }
            let cut = !skipping && self.skipping;
            match end {
                Some(end) => {
                    self.from += end + 1;
                    self.skipping = false;
                }
                None => self.from = self.chunk.len(),
            }
            if cut || (end.is_some() && !skipping) {
                let bytes = std::mem::take(&mut self.line);
                return Some(Line { bytes, cut });
            }
            if end.is_some() {
                continue;
            }
            self.chunk.resize(CHUNK_BYTES, 0);
            self.from = 0;
            let read = self.pipe.read(&mut self.chunk).await.unwrap_or(0);
            self.chunk.truncate(read);
            if read == 0 {
                let bytes = std::mem::take(&mut self.line);
                return (!bytes.is_empty()).then_some(Line { bytes, cut: false });
            }
        }
    }
}

/// What a line of a command's stderr says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said<'a> {
    /// `::progress FRACTION TEXT`.
    Progress(f32, &'a str),
    /// Anything else.
    Log(&'a str),
}

/// Reads a line of a command's stderr; an empty one says nothing.
pub(super) fn read_said(text: &str) -> Option<Said<'_>> {
    let text = text.trim_end();
    if let Some(rest) = text.strip_prefix("::progress ") {
        let (number, words) = rest
            .trim_start()
            .split_once(' ')
            .unwrap_or((rest.trim(), ""));
        if let Ok(fraction) = number.parse::<f32>() {
            return Some(Said::Progress(fraction, words.trim()));
        }
    }
    (!text.is_empty()).then_some(Said::Log(text))
}

/// Takes a line of a command's stderr: progress, or a log line.
pub(super) fn say(job: &JobContext, line: &[u8]) {
    match read_said(&String::from_utf8_lossy(line)) {
        Some(Said::Progress(fraction, words)) => job.progress(fraction, words),
        Some(Said::Log(text)) => job.log(LogLevel::Info, text),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use futures_lite::io::Cursor;

    fn split(text: &str, limit: usize) -> Vec<(String, bool)> {
        let mut lines = Lines::new(Cursor::new(text.as_bytes().to_vec()), limit);
        let mut found = Vec::new();
        while let Some(line) = block_on(lines.next()) {
            found.push((String::from_utf8_lossy(&line.bytes).into_owned(), line.cut));
        }
        found
    }

    #[test]
    fn lines_end_with_the_pipe_and_long_ones_are_cut() {
        let line = |text: &str, cut| (text.to_owned(), cut);
        assert_eq!(split("", 4), []);
        assert_eq!(
            split("a\n\nb", 4),
            [line("a", false), line("", false), line("b", false)]
        );
        assert_eq!(split("abcd\n", 4), [line("abcd", false)]);
        assert_eq!(
            split("abcdefg\nx\n", 4),
            [line("abcd", true), line("x", false)]
        );
        let long = "y".repeat(3 * CHUNK_BYTES);
        assert_eq!(
            split(&format!("{long}\nz"), 4),
            [line("yyyy", true), line("z", false)]
        );
    }
}
