//! Moves bytes between a peer and our own crate socket, in both directions, as whole messages.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::Event;
use futures_lite::future;

use crate::Options;
use crate::counters::{Counters, add, bump};

use super::scanner::{Extent, Found, Scanner, Violation, first_frame, is_single_frame};
use super::topics::Topics;
use super::wire::Wire;
use super::zmtp;

/// The size of a first read, and what an idle connection keeps at most.
const READ_BYTES_MIN: usize = 8 << 10;
/// The size of reads under load.
const READ_BYTES_MAX: usize = 128 << 10;
/// Unanswered PONGs kept for a peer that does not read.
const PONG_BYTES_MAX: usize = 4 << 10;

/// Bytes of unfinished messages in this process.
static UNFINISHED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How many bytes of unfinished messages this process holds.
#[cfg(feature = "testing")]
pub(crate) fn unfinished_bytes() -> usize {
    UNFINISHED_BYTES.load(Ordering::Relaxed)
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer closed it between messages.
    PeerClosed,
    /// The peer closed it within a message.
    MidMessage,
    /// The stream broke.
    Broken(String),
    /// A length over the limits.
    Oversized,
    /// No ZMTP frames.
    Malformed,
    /// An unfinished message came too slowly.
    Stalled,
    /// Too many unfinished bytes in the process.
    OverBudget,
    /// The peer does not read what it is sent.
    NotReading,
    /// Too many or too long subscriptions.
    Topics,
    /// Our own crate socket ended its side.
    Inner(String),
    /// We closed it in order.
    Finished,
}

impl End {
    /// What the peer is told in a ZMTP ERROR, if it broke a rule.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        Some(match self {
            Self::Oversized => "a declared length is over the limit",
            Self::Malformed => "the bytes are no ZMTP frames",
            Self::Stalled => "an unfinished message came too slowly",
            Self::OverBudget => "too many bytes of unfinished messages",
            Self::NotReading => "what was sent is not read",
            Self::Topics => "too many or too long subscriptions",
            _ => return None,
        })
    }

    /// Counts itself.
    pub(crate) fn count(&self, counters: &Counters) {
        match self {
            Self::MidMessage => bump(&counters.closed_mid_message),
            Self::Oversized => bump(&counters.closed_oversized),
            Self::Malformed => bump(&counters.closed_malformed),
            Self::Stalled => bump(&counters.closed_stalled),
            Self::OverBudget => bump(&counters.closed_over_budget),
            Self::NotReading => bump(&counters.closed_not_reading),
            Self::Topics => bump(&counters.closed_topics),
            Self::Inner(_) => bump(&counters.inner_errors),
            Self::PeerClosed | Self::Broken(_) | Self::Finished => {}
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("the peer closed the connection"),
            Self::MidMessage => f.write_str("the peer closed the connection within a message"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Inner(error) => write!(f, "the inner socket failed: {error}"),
            Self::Finished => f.write_str("closed by this side"),
            other => f.write_str(other.fault().unwrap_or("closed")),
        }
    }
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Oversized => Self::Oversized,
            Violation::Malformed => Self::Malformed,
        }
    }
}

fn broken(error: io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::PeerClosed,
        _ => End::Broken(error.to_string()),
    }
}

fn inner(error: impl std::fmt::Display) -> End {
    End::Inner(error.to_string())
}

/// What both directions of one connection share.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    pongs: Mutex<Vec<u8>>,
    added: Event,
    passed: AtomicBool,
    topics: Mutex<Topics>,
    /// What our crate socket gets before each message of the peer.
    tag: Vec<u8>,
}

impl Replies {
    /// Puts a frame before each message that is passed on.
    pub(crate) fn tagging(tag: Vec<u8>) -> Self {
        Self {
            tag,
            ..Self::default()
        }
    }

    /// The messages, each with its tag before it.
    fn tagged(&self, starts: &[usize], whole: &[u8]) -> Vec<u8> {
        let mut tagged = Vec::with_capacity(whole.len() + starts.len() * self.tag.len());
        let ends = starts.iter().skip(1).copied().chain([whole.len()]);
        for (start, end) in starts.iter().zip(ends) {
            tagged.extend_from_slice(&self.tag);
            tagged.extend_from_slice(&whole[*start..end]);
        }
        tagged
    }

    /// Whether the peer sent anything that our crate socket has to read.
    pub(crate) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Acquire)
    }

    /// Whether the peer has subscribed to what a message is about.
    pub(crate) fn wants(&self, message: &[u8]) -> bool {
        self.topics().wants(first_frame(message))
    }

    /// Takes a message from a subscriber: it must be a subscription within limits.
    fn subscription(
        &self,
        message: &[u8],
        options: &Options,
        counters: &Counters,
    ) -> Result<(), End> {
        match first_frame(message).split_first() {
            Some((1, topic)) if is_single_frame(message) => return self.subscribe(topic, options),
            Some((0, topic)) if is_single_frame(message) => self.topics().cancel(topic),
            _ => bump(&counters.messages_unexpected),
        }
        Ok(())
    }

    fn subscribe(&self, topic: &[u8], options: &Options) -> Result<(), End> {
        match self.topics().subscribe(topic, options) {
            true => Ok(()),
            false => Err(End::Topics),
        }
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, pong: &[u8]) -> bool {
        let mut pongs = self.pongs.lock().unwrap_or_else(PoisonError::into_inner);
        let room = pongs.len() + pong.len() <= PONG_BYTES_MAX;
        if room {
            pongs.extend(pong);
            drop(pongs);
            self.added.notify(1);
        }
        room
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.pongs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A share of the process's budget of unfinished bytes; given back when dropped.
#[derive(Default)]
struct Share(usize);

impl Share {
    /// Makes the share `bytes` large, if the budget allows.
    fn resize(&mut self, bytes: usize, budget: usize) -> bool {
        if bytes > self.0 {
            let more = bytes - self.0;
            let before = UNFINISHED_BYTES.fetch_add(more, Ordering::Relaxed);
            if before + more > budget {
                UNFINISHED_BYTES.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else {
            UNFINISHED_BYTES.fetch_sub(self.0 - bytes, Ordering::Relaxed);
        }
        self.0 = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        UNFINISHED_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// What peers of a socket may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// Messages.
    Messages,
    /// Subscriptions, as a PUB gets them.
    Topics,
    /// Nothing, as a PUSH expects it: dropped and counted.
    Nothing,
}

/// Reads the peer, passes whole checked messages on to our crate socket.
pub(crate) async fn take_in(
    peer: &Wire,
    own: &Wire,
    rest: Vec<u8>,
    intake: Intake,
    options: &Options,
    counters: &Counters,
    replies: &Replies,
) -> End {
    let mut flow = Inflow {
        scanner: Scanner::new(options),
        buffer: rest,
        read_bytes: READ_BYTES_MIN,
        share: Share::default(),
        unfinished_since: None,
        timer: None,
    };
    match flow
        .run(peer, own, intake, options, counters, replies)
        .await
    {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

struct Inflow {
    scanner: Scanner,
    buffer: Vec<u8>,
    read_bytes: usize,
    share: Share,
    /// When the unfinished message began, and when it last grew.
    unfinished_since: Option<(Instant, Instant)>,
    timer: Option<Timer>,
}

impl Inflow {
    async fn run(
        &mut self,
        peer: &Wire,
        own: &Wire,
        intake: Intake,
        options: &Options,
        counters: &Counters,
        replies: &Replies,
    ) -> Result<std::convert::Infallible, End> {
        loop {
            let mut messages = 0;
            let mut starts = Vec::new();
            let mut verdict = Ok(());
            self.scanner.scan(&mut self.buffer, |found| match found {
                Found::Message(_, message) if intake == Intake::Topics && verdict.is_ok() => {
                    verdict = replies.subscription(message, options, counters);
                }
                Found::Message(extent, _) => {
                    messages += 1;
                    if !replies.tag.is_empty() {
                        starts.push(extent.start);
                    }
                }
                Found::Command(payload) if verdict.is_ok() => {
                    verdict = command(payload, intake, options, counters, replies);
                }
                Found::Command(_) => {}
            })?;
            verdict?;
            let complete = self.scanner.complete();
            match intake {
                Intake::Messages if complete > 0 => {
                    add(&counters.messages_in, messages);
                    replies.passed.store(true, Ordering::Release);
                    let whole = &self.buffer[..complete];
                    let written = match starts.is_empty() {
                        true => own.write_all(whole).await,
                        false => own.write_all(&replies.tagged(&starts, whole)).await,
                    };
                    written.map_err(inner)?;
                }
                Intake::Nothing => add(&counters.messages_unexpected, messages),
                Intake::Messages | Intake::Topics => {}
            }
            self.buffer.drain(..complete);
            self.scanner.removed(complete);
            self.make_room(options)?;
            let n = self.read(peer, complete > 0, options).await?;
            add(&counters.bytes_in, n as u64);
        }
    }

    /// Grows the buffer only as fast as bytes really arrive, never by what is declared.
    fn make_room(&mut self, options: &Options) -> Result<(), End> {
        let held = self.buffer.len();
        let wanted = match self.scanner.missing() {
            0 => self.read_bytes,
            missing => missing.min(held.max(READ_BYTES_MAX)).max(self.read_bytes),
        };
        if self.buffer.capacity() > 2 * (held + wanted) && self.buffer.capacity() > READ_BYTES_MAX {
            self.buffer.shrink_to(held + wanted);
        }
        if self.buffer.capacity() - held < wanted / 2 || self.buffer.capacity() == held {
            self.buffer.reserve_exact(wanted);
        }
        let charged = self.buffer.capacity().saturating_sub(READ_BYTES_MAX);
        if charged != self.share.0 && !self.share.resize(charged, options.unfinished_bytes_max) {
            return Err(End::OverBudget);
        }
        Ok(())
    }

    /// Reads at least one byte, while an unfinished message may not stall.
    async fn read(
        &mut self,
        peer: &Wire,
        progressed: bool,
        options: &Options,
    ) -> Result<usize, End> {
        let before = self.buffer.len();
        let mut spare = self.buffer.capacity() - before;
        if before == 0 {
            self.unfinished_since = None;
        } else {
            let now = Instant::now();
            let since = self
                .unfinished_since
                .filter(|_| !progressed)
                .map_or(now, |(start, _)| start);
            self.unfinished_since = Some((since, now));
        }
        let n = loop {
            match peer.try_read(&mut self.buffer) {
                Ok(n) => break n,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(broken(error));
                }
                Err(_) => {}
            }
            if before == 0 && spare > READ_BYTES_MIN && self.read_bytes <= READ_BYTES_MIN {
                // An idle connection holds no large buffer.
                self.buffer = Vec::with_capacity(READ_BYTES_MIN);
                spare = self.buffer.capacity();
                if !self.share.resize(0, options.unfinished_bytes_max) {
                    return Err(End::OverBudget);
                }
            }
            self.wait_readable(peer, options).await?;
        };
        if n == 0 {
            return Err(if before == 0 {
                End::PeerClosed
            } else {
                End::MidMessage
            });
        }
        if n >= spare {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if n < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(n)
    }

    async fn wait_readable(&mut self, peer: &Wire, options: &Options) -> Result<(), End> {
        let deadline = self.unfinished_since.map(|(start, last)| {
            let pace = options.message_bytes_per_second_min.max(1);
            let allowed = Duration::from_secs((self.buffer.len() / pace) as u64);
            (last + options.stall_timeout).min(start + options.stall_timeout + allowed)
        });
        let Some(deadline) = deadline else {
            return future::poll_fn(|cx| peer.poll_readable(cx))
                .await
                .map_err(broken);
        };
        // The timer is armed for an earlier deadline than this one at worst: it
        // is set again only when it fires, so that fast streams pay nothing.
        let timer = self.timer.get_or_insert_with(|| Timer::at(deadline));
        future::poll_fn(|cx| {
            if let Poll::Ready(ready) = peer.poll_readable(cx) {
                return Poll::Ready(ready.map_err(broken));
            }
            while Pin::new(&mut *timer).poll(cx).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(Err(End::Stalled));
                }
                timer.set_at(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

/// Handles a command after the handshake; an error ends the connection.
fn command(
    payload: &[u8],
    intake: Intake,
    options: &Options,
    counters: &Counters,
    replies: &Replies,
) -> Result<(), End> {
    match zmtp::split_command(payload) {
        Some((b"PING", body)) => match zmtp::pong(body) {
            Some(pong) if replies.add(&pong) => bump(&counters.pings_answered),
            _ => bump(&counters.commands_dropped),
        },
        // ZMTP 3.1 subscribes by command.
        Some((b"SUBSCRIBE", topic)) if intake == Intake::Topics => {
            replies.subscribe(topic, options)?;
        }
        Some((b"CANCEL", topic)) if intake == Intake::Topics => replies.topics().cancel(topic),
        Some((b"ERROR", reason)) => {
            let reason = reason.get(1..).unwrap_or_default().escape_ascii();
            return Err(End::Broken(format!("the peer reports: {reason}")));
        }
        _ => bump(&counters.commands_dropped),
    }
    Ok(())
}

/// Who is told what became of messages on their way out.
pub(crate) trait Outgoing: Send + Sync {
    /// Whole messages were written to the network.
    fn written(&self, messages: usize, bytes: usize);

    /// Decides about a whole message while `waiting` others wait for the network.
    fn judge(&self, _message: &[u8], _waiting: usize, _replies: &Replies) -> Verdict {
        Verdict::Pass
    }

    /// Whether messages keep being read, and judged, while the peer is slow.
    fn reads_on(&self) -> bool {
        false
    }
}

/// What happens to an outgoing message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// Removed; not counted as written.
    Remove,
}

/// Reads our crate socket, writes whole messages to the peer.
pub(crate) async fn give_out(
    own: &Wire,
    peer: &Wire,
    rest: Vec<u8>,
    outgoing: &dyn Outgoing,
    counters: &Counters,
    replies: &Replies,
) -> End {
    let mut flow = Outflow {
        scanner: Scanner::new(&unlimited()),
        incoming: rest,
        ready: Vec::new(),
        written: 0,
        passed: 0,
        done: 0,
        ends: VecDeque::new(),
        read_bytes: READ_BYTES_MIN,
    };
    match flow.run(own, peer, outgoing, counters, replies).await {
        Ok(never) => match never {},
        Err(end @ End::Inner(_)) => end,
        // The peer takes no more. What it sent before may still be unread: the
        // end of the connection is for the reading direction to find.
        Err(_) => future::pending().await,
    }
}

/// Our own crate socket is not our enemy: sizes were checked at `send`.
fn unlimited() -> Options {
    Options {
        frame_bytes_max: usize::MAX / 4,
        message_bytes_max: usize::MAX / 4,
        message_frames_max: usize::MAX,
        ..Options::default()
    }
}

struct Outflow {
    scanner: Scanner,
    /// Read from the crate: whole messages first, then the start of one.
    incoming: Vec<u8>,
    /// Whole messages, and PONGs between them, for the network.
    ready: Vec<u8>,
    /// How much of `ready` is written.
    written: usize,
    /// Bytes ever put into `ready`, and ever written.
    passed: u64,
    done: u64,
    /// Where in `passed` each message waiting in `ready` ends, and its size.
    ends: VecDeque<(u64, usize)>,
    read_bytes: usize,
}

impl Outflow {
    async fn run(
        &mut self,
        own: &Wire,
        peer: &Wire,
        outgoing: &dyn Outgoing,
        counters: &Counters,
        replies: &Replies,
    ) -> Result<std::convert::Infallible, End> {
        let mut listener = replies.added.listen();
        self.add_pongs(replies);
        self.pass_on(outgoing, replies)?;
        loop {
            let blocked = !self.write(peer, outgoing, counters)?;
            let reading = !blocked || outgoing.reads_on();
            if reading && self.read(own)? {
                self.pass_on(outgoing, replies)?;
                continue;
            }
            let pong = future::poll_fn(|cx| {
                if Pin::new(&mut listener).poll(cx).is_ready() {
                    return Poll::Ready(Ok(true));
                }
                if blocked && let Poll::Ready(ready) = peer.poll_writable(cx) {
                    return Poll::Ready(ready.map(|()| false).map_err(broken));
                }
                if reading && let Poll::Ready(ready) = own.poll_readable(cx) {
                    return Poll::Ready(ready.map(|()| false).map_err(inner));
                }
                Poll::Pending
            })
            .await?;
            if pong {
                listener = replies.added.listen();
                self.add_pongs(replies);
            }
        }
    }

    /// Puts PONGs behind the last whole message.
    fn add_pongs(&mut self, replies: &Replies) {
        let pongs = replies.take();
        self.passed += pongs.len() as u64;
        self.ready.extend(pongs);
    }

    /// Writes what is ready; `false` when the peer takes no more for now.
    fn write(
        &mut self,
        peer: &Wire,
        outgoing: &dyn Outgoing,
        counters: &Counters,
    ) -> Result<bool, End> {
        while self.written < self.ready.len() {
            let n = match peer.try_write(&self.ready[self.written..]) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Bytes written leave the front once they are the larger part.
                    if self.written > self.ready.len() / 2 {
                        self.ready.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(false);
                }
                Err(error) => return Err(broken(error)),
            };
            self.written += n;
            add(&counters.bytes_out, n as u64);
            self.done += n as u64;
            let messages = self.ends.partition_point(|&(end, _)| end <= self.done);
            if messages > 0 {
                let bytes = self.ends.drain(..messages).map(|(_, size)| size).sum();
                add(&counters.messages_out, messages as u64);
                outgoing.written(messages, bytes);
            }
        }
        self.ready.clear();
        self.written = 0;
        if self.ready.capacity() > 4 * READ_BYTES_MAX {
            self.ready.shrink_to(READ_BYTES_MAX);
        }
        Ok(true)
    }

    /// Reads what the crate has; `false` when there is nothing for now.
    fn read(&mut self, own: &Wire) -> Result<bool, End> {
        let wanted = self.read_bytes.max(self.scanner.missing().min(1 << 20));
        self.incoming.reserve(wanted);
        let spare = self.incoming.capacity() - self.incoming.len();
        match own.try_read(&mut self.incoming) {
            Ok(0) => Err(inner("it closed its side")),
            Ok(n) => {
                if n == spare {
                    self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
                } else if n < self.read_bytes / 4 {
                    self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(inner(error)),
        }
    }

    /// Moves whole messages from `incoming` to `ready`, as the judge says.
    fn pass_on(&mut self, outgoing: &dyn Outgoing, replies: &Replies) -> Result<(), End> {
        let mut extents: Vec<Extent> = Vec::new();
        self.scanner
            .scan(&mut self.incoming, |found| {
                if let Found::Message(extent, _) = found {
                    extents.push(extent);
                }
            })
            .map_err(|violation| inner(format!("{violation:?}")))?;
        let complete = self.scanner.complete();
        if complete == 0 {
            return Ok(());
        }
        let mut all = true;
        for extent in &extents {
            let message = &self.incoming[extent.start..extent.end];
            if outgoing.judge(message, self.ends.len(), replies) == Verdict::Pass {
                if !all {
                    put(&mut self.ready, message);
                }
                self.passed += message.len() as u64;
                self.ends.push_back((self.passed, message.len()));
                if all {
                    continue;
                }
            } else if all {
                all = false;
                put(&mut self.ready, &self.incoming[..extent.start]);
            }
        }
        if all && self.ready.is_empty() {
            // Nothing waits: the buffer changes hands instead of being copied.
            let tail = self.incoming.split_off(complete);
            self.ready = std::mem::replace(&mut self.incoming, tail);
        } else {
            if all {
                put(&mut self.ready, &self.incoming[..complete]);
            }
            self.incoming.drain(..complete);
        }
        self.scanner.removed(complete);
        Ok(())
    }
}

/// Puts bytes behind what waits for the network. What waits for a peer that does not read
/// is bounded, so the room for it grows by a quarter instead of to the double.
fn put(ready: &mut Vec<u8>, bytes: &[u8]) {
    if ready.capacity() - ready.len() < bytes.len() {
        let more = bytes.len().max(ready.len() / 4).max(READ_BYTES_MIN);
        ready.reserve_exact(more);
    }
    ready.extend_from_slice(bytes);
}

/// Ends a stream in order: the peer reads everything, then we leave.
pub(crate) async fn part(peer: &Wire, deadline: Instant) {
    super::wire::until(deadline, drain(peer)).await;
}

/// Ends our direction of a stream and discards the other one until its end.
///
/// Unread bytes at close would make the kernel reset the connection, which can
/// take what was just written with it.
pub(crate) async fn drain(wire: &Wire) {
    wire.shutdown_write();
    let mut sink = Vec::with_capacity(READ_BYTES_MIN);
    while wire.read(&mut sink).await.is_ok_and(|n| n > 0) {
        sink.clear();
    }
}
