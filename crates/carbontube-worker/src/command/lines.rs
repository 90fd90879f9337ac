//! Lines of a pipe, bounded: a long line costs no more than its limit.

use std::convert::Infallible;
use std::ops::ControlFlow;

use async_channel::Receiver;
use futures_lite::{AsyncRead, AsyncReadExt, future};

use crate::context::JobContext;
use carbontube_protocol::message::LogLevel;

const CHUNK_BYTES: usize = 16 << 10;
/// As much as a pipe holds at most, by the kernel's default bound: the rest was written since.
const PIPE_BYTES_MAX: usize = 1 << 20;

/// Splits what comes from a pipe into lines.
pub(super) struct Lines<R> {
    pipe: R,
    chunk: Vec<u8>,
    from: usize,
    line: Vec<u8>,
    /// Whether the rest of a line that was too long is being read.
    skipping: bool,
    limit: usize,
    /// How many more bytes may be read, none of them waited for.
    at_hand: Option<usize>,
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
            at_hand: None,
        }
    }

    /// Takes each line until the pipe ends. When `stop` closes, only what the pipe holds by
    /// then is taken, and what stands there without a line end as the last line.
    pub(super) async fn each(
        &mut self,
        stop: &Receiver<Infallible>,
        mut take: impl FnMut(Line) -> ControlFlow<()>,
    ) {
        // Whoever holds the pipe may write faster than this reads.
        while !stop.is_closed() {
            let next = async { Some(self.next().await) };
            let stopped = async {
                let _closed = stop.recv().await;
                None
            };
            match future::or(next, stopped).await {
                Some(Some(line)) => {
                    if take(line).is_break() {
                        return;
                    }
                }
                Some(None) => return,
                None => break,
            }
        }
        self.at_hand = Some(PIPE_BYTES_MAX);
        while let Some(line) = self.next().await {
            if take(line).is_break() {
                return;
            }
        }
    }

    /// The next line; none at the end of the pipe.
    ///
    /// A line that is too long comes as soon as it is, and its rest is skipped: it may
    /// never end. Cancel-safe.
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
            // Nothing is left in the chunk, also if this is cancelled while it reads.
            self.from = CHUNK_BYTES;
            let reading = self.pipe.read(&mut self.chunk);
            let read = match &mut self.at_hand {
                None => reading.await.unwrap_or(0),
                Some(0) => 0,
                Some(left) => {
                    let read = future::poll_once(reading).await;
                    let read = read.and_then(Result::ok).unwrap_or(0);
                    *left = left.saturating_sub(read);
                    read
                }
            };
            self.from = 0;
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
    use std::pin::Pin;
    use std::task::{Context, Poll};

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

    /// Gives its bytes, then neither more nor an end: somebody holds it open.
    struct Held(Vec<u8>);

    impl AsyncRead for Held {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<std::io::Result<usize>> {
            // Something was written to the buffer's place all the same.
            buffer.fill(b'?');
            if self.0.is_empty() {
                return Poll::Pending;
            }
            let count = self.0.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Poll::Ready(Ok(count))
        }
    }

    #[test]
    fn a_stop_takes_what_is_at_hand_and_no_more() {
        let mut found = Vec::new();
        let mut lines = Lines::new(Held(b"a\nb".to_vec()), 4);
        let (stops, stop) = async_channel::bounded(1);
        let reading = async {
            let take = |line: Line| {
                found.push((line.bytes, line.cut));
                ControlFlow::Continue(())
            };
            lines.each(&stop, take).await;
        };
        block_on(future::zip(reading, async {
            // The reader waits by now.
            drop(stops);
        }));
        assert_eq!(found, [(b"a".to_vec(), false), (b"b".to_vec(), false)]);
    }

    #[test]
    fn a_stop_ends_though_the_pipe_never_does() {
        let (stops, stop) = async_channel::bounded(1);
        drop(stops);
        let mut count = 0_usize;
        let mut lines = Lines::new(futures_lite::io::repeat(b'\n'), 4);
        let take = |_: Line| {
            count += 1;
            ControlFlow::Continue(())
        };
        block_on(lines.each(&stop, take));
        assert_eq!(count, PIPE_BYTES_MAX);
    }
}
