//! Lines for people, on stderr: writing one never fails and never panics, and in a
//! process that serves it never waits either.
//!
//! Stderr may be a pipe whose reader is gone or stopped, a closed terminal, a full disk.
//! None of that may hold up or end a manager or a worker, so once [`serve`] was called a
//! thread of its own writes, out of a bounded queue; what does not fit is dropped and
//! counted.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// The most bytes that wait for stderr.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long the end of the process waits for stderr to take what was said.
const FLUSH: Duration = Duration::from_millis(500);

/// The queue of a process that serves.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Writes a line.
pub(crate) fn say(line: impl Display) {
    write(format!("{line}\n").into_bytes());
}

/// Writes bytes as they are.
pub(crate) fn write(bytes: Vec<u8>) {
    match QUEUE.get() {
        Some(queue) => queue.put(bytes),
        None => write_now(&bytes),
    }
}

/// From now on a thread of its own writes, and whoever speaks does not wait.
pub(crate) fn serve() {
    let started = std::thread::Builder::new()
        .name("stderr".to_owned())
        .spawn(|| QUEUE.get_or_init(Queue::default).write_for_ever(write_now));
    // Without the thread lines are written as in any other command: late, maybe, not lost.
    if started.is_ok() {
        QUEUE.get_or_init(Queue::default);
    }
}

/// Waits until all is written, for a short time at most.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH);
    }
}

fn write_now(bytes: &[u8]) {
    // Whoever closed stderr does not want to know.
    let _ = io::stderr().write_all(bytes);
}

#[derive(Default)]
struct Queue {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// Whether the thread writes something that it has taken out.
    is_writing: bool,
}

impl Queue {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn put(&self, line: Vec<u8>) {
        let mut lines = self.lines();
        if lines.bytes + line.len() > WAITING_BYTES_MAX {
            lines.dropped += 1;
            return;
        }
        lines.bytes += line.len();
        lines.waiting.push_back(line);
        self.changed.notify_all();
    }

    fn write_for_ever(&self, write: impl Fn(&[u8])) {
        loop {
            let line = self.take();
            write(&line);
            let mut lines = self.lines();
            lines.is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Takes the next line out, or how many were dropped when all others are written.
    fn take(&self) -> Vec<u8> {
        let mut lines = self.lines();
        loop {
            let next = lines.waiting.pop_front();
            let next = next.or_else(|| match std::mem::take(&mut lines.dropped) {
                0 => None,
                count => Some(format!("{count} lines could not be written here\n").into_bytes()),
            });
            if let Some(line) = next {
                lines.bytes = lines.bytes.saturating_sub(line.len());
                lines.is_writing = true;
                return line;
            }
            lines = self
                .changed
                .wait(lines)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut lines = self.lines();
        while lines.is_writing || !lines.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            lines = self
                .changed
                .wait_timeout(lines, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }
}

/// Stderr for the logger: each record is one write.
pub(crate) struct LogLines;

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what was said when the command ends, however it ends.
pub(crate) struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

/// Has panics of this process told in the same way: the usual hook would wait for stderr.
pub(crate) fn tell_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        say(format_args!("thread {name:?} {info}{trace}"));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{channel, sync_channel};

    #[test]
    fn line_waits_for_nobody_while_stderr_takes_nothing() {
        let queue = Arc::new(Queue::default());
        let (entered, enters) = channel();
        let (release, released) = sync_channel::<()>(0);
        let (written, receives) = channel();
        let writer = queue.clone();
        std::thread::spawn(move || {
            writer.write_for_ever(|bytes| {
                let _ = entered.send(());
                let _ = released.recv();
                let _ = written.send(bytes.to_vec());
            });
        });
        queue.put(b"first\n".to_vec());
        enters.recv().expect("the thread writes");
        // The thread hangs in its write: all that follows returns at once.
        queue.put(vec![b'x'; WAITING_BYTES_MAX]);
        queue.put(b"too much\n".to_vec());
        queue.put(b"too much as well\n".to_vec());
        queue.flush(Duration::from_millis(1));
        drop(release);
        let lines: Vec<Vec<u8>> = receives.iter().take(3).collect();
        assert_eq!(lines[0], b"first\n");
        assert_eq!(lines[1].len(), WAITING_BYTES_MAX);
        assert_eq!(lines[2], b"2 lines could not be written here\n");
        queue.flush(Duration::from_secs(60));
        assert_eq!(queue.lines().bytes, 0);
    }
}
