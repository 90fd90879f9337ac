//! The pipes to workers: one PUSH each, in a task of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_std::task::JoinHandle;
use bytes::Bytes;
use carbontube_protocol::message::Message;
use carbontube_protocol::{Address, Codec, Harmless, encode};
use carbontube_transport::{Complaints, DialBudget, DialPass, LinkState, Options, Push, Reason};
use futures_lite::future;

use crate::codecs::WorkerCodecs;
use crate::core::{Input, PipeId};
use crate::queue::InputQueue;
use crate::tally::Tally;

/// The most messages that wait for one pipe. What is over is dropped: the worker does not
/// read, and its heartbeats show the core what did not arrive.
const WAITING_MAX: usize = 4096;
/// The most bytes of instructions that wait for one pipe, unless a single message has
/// more: anyone may announce thousands of slots and read nothing.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// How long a closing pipe may take to write what it has accepted.
const LINGER: Duration = Duration::from_secs(1);

/// The most dials to workers without proof that are under way, and that begin in each
/// second: they go where anybody says.
const DIALS_MAX: usize = 256;
const DIALS_PER_SECOND: u32 = 200;

/// Addresses that cannot be dialled at all.
static COMPLAINTS: Complaints = Complaints::new();

/// All pipes, by the core's numbers.
#[derive(Debug)]
pub(crate) struct Pipes {
    options: Options,
    codecs: Arc<WorkerCodecs>,
    queue: Arc<InputQueue>,
    tally: Arc<Tally>,
    dials: DialBudget,
    pipes: HashMap<PipeId, Pipe>,
}

/// The near end of one pipe. Dropping it closes the pipe.
#[derive(Debug)]
struct Pipe {
    address: Address,
    dials: DialPass,
    sender: Sender<Outgoing>,
    /// The instructions that wait.
    bytes: Arc<AtomicUsize>,
    /// Its end is seen even while a message waits for room.
    _open: Sender<()>,
    task: JoinHandle<()>,
}

impl Pipe {
    /// Whether there was room. Only the core's thread calls this, so the bound holds.
    fn accept(&self, outgoing: Outgoing) -> bool {
        let bytes = outgoing.bytes();
        let waiting = self.bytes.load(Ordering::Relaxed);
        let is_full = waiting > 0 && waiting + bytes > WAITING_BYTES_MAX;
        if is_full || self.sender.len() >= WAITING_MAX {
            return false;
        }
        // Counted first: the far end takes it off as soon as it has it.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sender.try_send(outgoing).is_ok()
    }
}

/// What goes down a pipe.
#[derive(Debug)]
enum Outgoing {
    Message(Box<Message>),
    Frame(Bytes),
}

impl Outgoing {
    /// How much it holds on to.
    fn bytes(&self) -> usize {
        match self {
            Outgoing::Message(message) => match message.as_ref() {
                Message::Dispatch(dispatch) => {
                    let jobs = dispatch.jobs.iter();
                    jobs.map(|job| job.instructions.len()).sum()
                }
                _ => 0,
            },
            Outgoing::Frame(frame) => frame.len(),
        }
    }
}

impl Pipes {
    pub(crate) fn new(
        options: Options,
        codecs: Arc<WorkerCodecs>,
        queue: Arc<InputQueue>,
        tally: Arc<Tally>,
    ) -> Pipes {
        Pipes {
            options,
            codecs,
            queue,
            tally,
            dials: DialBudget::new(DIALS_MAX, DIALS_PER_SECOND),
            pipes: HashMap::new(),
        }
    }

    pub(crate) fn open(&mut self, pipe: PipeId, address: Address, codec: Codec) {
        self.codecs.opened(&address, codec);
        // Bounded in `pass`: a bounded channel takes up all its room at once, about a
        // megabyte, and anyone may announce thousands of addresses.
        let (sender, receiver) = async_channel::unbounded();
        let (open, closed) = async_channel::bounded(1);
        let bytes = Arc::new(AtomicUsize::new(0));
        let far = Far {
            pipe,
            messages: receiver,
            bytes: bytes.clone(),
            closed,
            codecs: self.codecs.clone(),
            queue: self.queue.clone(),
            tally: self.tally.clone(),
        };
        let dials = self.dials.pass();
        let options = Options {
            dials: Some(dials.clone()),
            ..self.options.clone()
        };
        let task = async_std::task::spawn(far.run(address.clone(), options));
        let near = Pipe {
            address,
            dials,
            sender,
            bytes,
            _open: open,
            task,
        };
        self.pipes.insert(pipe, near);
    }

    /// The worker there has shown that it receives: it is dialled at once from now on.
    pub(crate) fn trust(&self, pipe: PipeId) {
        if let Some(near) = self.pipes.get(&pipe) {
            near.dials.trust();
        }
    }

    /// How many dials were made to workers without proof.
    pub(crate) fn dials(&self) -> u64 {
        self.dials.dials()
    }

    pub(crate) fn send(&self, pipe: PipeId, message: Message) {
        self.pass(pipe, Outgoing::Message(Box::new(message)));
    }

    pub(crate) fn send_frame(&self, pipe: PipeId, frame: Bytes) {
        self.pass(pipe, Outgoing::Frame(frame));
    }

    fn pass(&self, pipe: PipeId, outgoing: Outgoing) {
        let sent = self
            .pipes
            .get(&pipe)
            .is_some_and(|near| near.accept(outgoing));
        if !sent {
            self.tally.pipe_messages_dropped.bump();
        }
    }

    /// The task goes on until it has sent what it was given.
    pub(crate) fn close(&mut self, pipe: PipeId) {
        if let Some(near) = self.pipes.remove(&pipe) {
            self.codecs.closed(&near.address);
        }
    }

    /// Closes all and waits until each has sent what it could.
    pub(crate) async fn finish(&mut self) {
        let tasks: Vec<_> = self.pipes.drain().map(|(_, near)| near.task).collect();
        for task in tasks {
            task.await;
        }
    }
}

/// The far end of one pipe: what its task owns.
struct Far {
    pipe: PipeId,
    messages: Receiver<Outgoing>,
    bytes: Arc<AtomicUsize>,
    closed: Receiver<()>,
    codecs: Arc<WorkerCodecs>,
    queue: Arc<InputQueue>,
    tally: Arc<Tally>,
}

enum Step {
    State(LinkState),
    Send(Option<Outgoing>),
}

impl Far {
    async fn run(self, address: Address, options: Options) {
        let push = match Push::open(options, address.clone()).await {
            Ok(push) => push,
            Err(error) => {
                // A worker may announce any nonsense; its jobs go elsewhere.
                if let Some(hidden) = COMPLAINTS.admit("pipe") {
                    let (address, error) = (Harmless(&address), Harmless(&error));
                    log::warn!("cannot open a pipe to {address}: {error} ({hidden} not shown)");
                }
                return;
            }
        };
        let pipe = self.pipe;
        let mut watch = push.events();
        let mut up = false;
        loop {
            let next = future::or(async { Step::State(watch.changed().await) }, async {
                Step::Send(self.messages.recv().await.ok())
            })
            .await;
            match next {
                Step::State(LinkState::Connected { .. }) => {
                    up = true;
                    self.queue.put_now(Input::PipeUp { pipe });
                }
                Step::State(LinkState::Disconnected { refused, .. }) => {
                    if up {
                        up = false;
                        self.queue.put_now(Input::PipeDown { pipe });
                    }
                    if refused {
                        self.queue.put_now(Input::PipeRefused { pipe });
                    }
                }
                Step::State(LinkState::Closed) | Step::Send(None) => break,
                Step::Send(Some(outgoing)) => {
                    self.bytes.fetch_sub(outgoing.bytes(), Ordering::Relaxed);
                    if !self
                        .deliver(&push, self.codecs.of(&address), outgoing)
                        .await
                    {
                        self.tally.pipe_messages_dropped.bump();
                    }
                }
            }
        }
        push.close(if up { LINGER } else { Duration::ZERO }).await;
    }

    /// Whether the message was accepted; waits for room while the connection lasts and
    /// the pipe is not being closed.
    async fn deliver(&self, push: &Push, codec: Codec, outgoing: Outgoing) -> bool {
        let frames = match outgoing {
            Outgoing::Message(message) => encode(&message, codec),
            Outgoing::Frame(frame) => vec![frame],
        };
        let Err(rejected) = push.try_send(frames) else {
            return true;
        };
        if rejected.reason != Reason::Full {
            return false;
        }
        let mut watch = push.events();
        let down = async {
            while let LinkState::Connected { .. } = watch.changed().await {}
            false
        };
        let closed = async {
            let _ = self.closed.recv().await;
            false
        };
        let sent = async { push.send(rejected.message).await.is_ok() };
        future::or(sent, future::or(down, closed)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_bytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let digits: String = line.unwrap().chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap() * 1024
    }

    fn pipes() -> (Pipes, Arc<Tally>) {
        let tally = Arc::new(Tally::default());
        let pipes = Pipes::new(
            Options::default(),
            Arc::default(),
            Arc::default(),
            tally.clone(),
        );
        (pipes, tally)
    }

    #[test]
    fn pipes_to_nowhere_take_little_memory() {
        let (mut pipes, _) = pipes();
        let before = resident_bytes();
        for number in 0..500 {
            let nowhere = Address::tcp("127.0.0.1", 1);
            pipes.open(PipeId(number), nowhere, Codec::Bincode);
        }
        let each = resident_bytes().saturating_sub(before) / 500;
        assert!(each < 200 << 10, "{each} bytes for a pipe");
    }

    #[test]
    fn pipe_that_is_not_read_drops_what_is_over_its_bound() {
        let (sender, _receiver) = async_channel::unbounded();
        let (open, _closed) = async_channel::bounded(1);
        let task = async_std::task::spawn(std::future::pending());
        let near = Pipe {
            address: Address::tcp("a", 1),
            dials: DialBudget::new(1, 1).pass(),
            sender,
            bytes: Arc::default(),
            _open: open,
            task,
        };
        let (mut pipes, tally) = pipes();
        pipes.pipes.insert(PipeId(1), near);
        for _ in 0..WAITING_MAX + 3 {
            pipes.send_frame(PipeId(1), Bytes::new());
        }
        assert_eq!(tally.pipe_messages_dropped.value(), 3);
    }

    #[test]
    fn pipe_that_is_not_read_holds_few_bytes() {
        let (sender, receiver) = async_channel::unbounded();
        let (open, _closed) = async_channel::bounded(1);
        let near = Pipe {
            address: Address::tcp("a", 1),
            dials: DialBudget::new(1, 1).pass(),
            sender,
            bytes: Arc::default(),
            _open: open,
            task: async_std::task::spawn(std::future::pending()),
        };
        let (mut pipes, tally) = pipes();
        pipes.pipes.insert(PipeId(1), near);
        // The same bytes each time, so that the test itself needs few.
        let frame = Bytes::from(vec![0; 5 << 20]);
        for _ in 0..100 {
            pipes.send_frame(PipeId(1), frame.clone());
        }
        assert_eq!(receiver.len(), 12);
        assert_eq!(tally.pipe_messages_dropped.value(), 88);
    }
}
