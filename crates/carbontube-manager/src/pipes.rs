//! The pipes to workers: one PUSH each, in a task of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_std::task::JoinHandle;
use bytes::Bytes;
use carbontube_protocol::message::Message;
use carbontube_protocol::{Address, Codec, encode};
use carbontube_transport::{LinkState, Options, Push, Reason};
use futures_lite::future;

use crate::codecs::WorkerCodecs;
use crate::core::{Input, PipeId};
use crate::queue::InputQueue;
use crate::tally::Tally;

/// The most messages that wait for one pipe. What is over is dropped: the worker does not
/// read, and its heartbeats show the core what did not arrive.
const WAITING_MAX: usize = 4096;
/// How long a closing pipe may take to write what it has accepted.
const LINGER: Duration = Duration::from_secs(1);

/// All pipes, by the core's numbers.
#[derive(Debug)]
pub(crate) struct Pipes {
    options: Options,
    codecs: Arc<WorkerCodecs>,
    queue: Arc<InputQueue>,
    tally: Arc<Tally>,
    pipes: HashMap<PipeId, (Sender<Outgoing>, JoinHandle<()>)>,
}

/// What goes down a pipe.
#[derive(Debug)]
enum Outgoing {
    Message(Message),
    Frame(Bytes),
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
            pipes: HashMap::new(),
        }
    }

    pub(crate) fn open(&mut self, pipe: PipeId, address: Address) {
        let (sender, receiver) = async_channel::bounded(WAITING_MAX);
        let task = run(
            pipe,
            address,
            self.options.clone(),
            receiver,
            self.codecs.clone(),
            self.queue.clone(),
            self.tally.clone(),
        );
        self.pipes
            .insert(pipe, (sender, async_std::task::spawn(task)));
    }

    pub(crate) fn send(&self, pipe: PipeId, message: Message) {
        self.pass(pipe, Outgoing::Message(message));
    }

    pub(crate) fn send_frame(&self, pipe: PipeId, frame: Bytes) {
        self.pass(pipe, Outgoing::Frame(frame));
    }

    fn pass(&self, pipe: PipeId, outgoing: Outgoing) {
        let sent = self
            .pipes
            .get(&pipe)
            .is_some_and(|(sender, _)| sender.try_send(outgoing).is_ok());
        if !sent {
            self.tally.pipe_messages_dropped.bump();
        }
    }

    /// The task goes on until it has sent what it was given.
    pub(crate) fn close(&mut self, pipe: PipeId) {
        if let Some((sender, _)) = self.pipes.remove(&pipe) {
            sender.close();
        }
    }

    /// Closes all and waits until each has sent what it could.
    pub(crate) async fn finish(&mut self) {
        let tasks: Vec<_> = self
            .pipes
            .drain()
            .map(|(_, (sender, task))| {
                sender.close();
                task
            })
            .collect();
        for task in tasks {
            task.await;
        }
    }
}

async fn run(
    pipe: PipeId,
    address: Address,
    options: Options,
    messages: Receiver<Outgoing>,
    codecs: Arc<WorkerCodecs>,
    queue: Arc<InputQueue>,
    tally: Arc<Tally>,
) {
    let push = match Push::open(options, address.clone()).await {
        Ok(push) => push,
        Err(error) => {
            // A worker may announce any nonsense; its jobs go elsewhere.
            log::warn!("cannot open a pipe to {address}: {error}");
            return;
        }
    };
    let mut watch = push.events();
    let mut up = false;
    loop {
        let next = future::or(async { Step::State(watch.changed().await) }, async {
            Step::Send(messages.recv().await.ok())
        })
        .await;
        match next {
            Step::State(LinkState::Connected { .. }) => {
                up = true;
                queue.put_now(Input::PipeUp { pipe });
            }
            Step::State(LinkState::Disconnected { .. }) => {
                if up {
                    up = false;
                    queue.put_now(Input::PipeDown { pipe });
                }
            }
            Step::State(LinkState::Closed) | Step::Send(None) => break,
            Step::Send(Some(outgoing)) => {
                if !deliver(&push, codecs.of(&address), outgoing).await {
                    tally.pipe_messages_dropped.bump();
                }
            }
        }
    }
    push.close(if up { LINGER } else { Duration::ZERO }).await;
}

enum Step {
    State(LinkState),
    Send(Option<Outgoing>),
}

/// Whether the message was accepted; waits for room as long as the connection lasts.
async fn deliver(push: &Push, codec: Codec, outgoing: Outgoing) -> bool {
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
    future::or(async { push.send(rejected.message).await.is_ok() }, down).await
}
