//! One connection: its own crate socket, both directions, and how it ends.
//!
//! Each connection has a crate socket to itself, with the front door as its only peer, and
//! the socket is dropped with the connection. The crate's sockets for many peers are not
//! used: a subscriber that leaves while another joins can stop its PUB, and with it every
//! thread of the executor, for ever, and PULL and ROUTER keep a little of each peer that
//! was ever there. On the private side a PUB is therefore a PUSH, a SUB a PULL and a ROUTER
//! a DEALER: messages look the same on the wire.
//!
//! **Invariant:** the private stream outlives its crate socket, see [`Held`]. The crate looks
//! a peer up in a map under locks that its tasks hand to each other, and blocks threads for
//! them. With one peer, which never goes while the socket lives, nothing ever waits there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use event_listener::Event;
use futures_lite::future;
use zeromq::{
    DealerSocket, PullSocket, PushSocket, Socket, SocketRecv, SocketSend, ZmqError, ZmqMessage,
};

use crate::counters::Counters;
use crate::door::private::Private;
use crate::door::splice::{End, Intake, Line, Outgoing, Replies, give_out, part, take_in};
use crate::door::wire::Wire;
use crate::door::zmtp::{Carrier, Kind};
use crate::door::{Backend, BoxFuture, Ending};
use crate::inbox::{Inbox, Source};
use crate::{Message, Options, Origin};

/// Messages delivered to the inbox at a time, when there are as many.
const DELIVER_MAX: usize = 64;

/// What all connections of a socket share.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) kind: Kind,
    pub(crate) options: Options,
    pub(crate) counters: Arc<Counters>,
    /// Where received messages go.
    pub(crate) inbox: Arc<Inbox>,
    /// What each peer is sent first.
    introduction: Vec<u8>,
    part_by: Mutex<Option<Instant>>,
    parting: Event,
}

impl Connections {
    pub(crate) fn new(kind: Kind, options: Options) -> Self {
        Self::with_introduction(kind, options, Vec::new())
    }

    /// Connections on which each peer is first sent `introduction`, whole frames.
    pub(crate) fn with_introduction(kind: Kind, options: Options, introduction: Vec<u8>) -> Self {
        Self {
            kind,
            inbox: Inbox::new(options.receive_hwm_bytes),
            options,
            counters: Arc::default(),
            introduction,
            part_by: Mutex::default(),
            parting: Event::new(),
        }
    }

    /// Asks every connection to end in order.
    pub(crate) fn part(&self, deadline: Instant) {
        *self.part_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.parting.notify(usize::MAX);
    }

    async fn parted(&self) -> Instant {
        loop {
            let parting = self.parting.listen();
            let by = *self.part_by.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(deadline) = by {
                return deadline;
            }
            parting.await;
        }
    }
}

/// A socket, as its connections see it.
pub(crate) trait Members: Send + Sync + 'static {
    type Member: Member;

    /// What its connections share.
    fn connections(&self) -> &Connections;

    /// Takes in a connection; [`Member::leave`] says when it ends.
    fn join(&self, id: u64, replies: &Arc<Replies>) -> Self::Member;

    /// Hears why a dialled connection failed or ended.
    fn unreachable(&self, _why: String, _refused: bool) {}
}

/// One connection, as its socket sees it.
pub(crate) trait Member: Outgoing + Send + Sync + 'static {
    /// Notified when there may be more to give.
    fn work(&self) -> &Event;

    /// Adds what the crate socket is to get next; nothing once the connection has left.
    fn give(&self, batch: &mut Vec<Message>);

    /// The connection has ended.
    fn leave(&self);

    /// Waits until this side wants the connection to end, for ever if it never does.
    fn dismissed(&self) -> BoxFuture<'_, End> {
        Box::pin(future::pending())
    }
}

/// A connection that is sent nothing.
pub(crate) struct Silent(Event);

impl Outgoing for Silent {
    fn written(&self, _messages: usize, _bytes: usize) {}
}

impl Member for Silent {
    fn work(&self) -> &Event {
        &self.0
    }

    fn give(&self, _batch: &mut Vec<Message>) {}

    fn leave(&self) {}
}

/// The connections of a socket that only receives.
impl Members for Arc<Connections> {
    type Member = Silent;

    fn connections(&self) -> &Connections {
        self
    }

    fn join(&self, _id: u64, _replies: &Arc<Replies>) -> Silent {
        Silent(Event::new())
    }
}

impl<M: Members> Backend for M {
    fn serve<'a>(&'a self, id: u64, wire: &'a Wire, rest: Vec<u8>) -> BoxFuture<'a, Ending> {
        Box::pin(async move {
            match Inner::attach(self.connections().kind.carrier()).await {
                Ok(inner) => serve(self, id, wire, rest, inner).await,
                Err(end) => end.into(),
            }
        })
    }

    fn unreachable(&self, why: String, refused: bool) {
        Members::unreachable(self, why, refused);
    }
}

/// A crate socket of one connection, and the private stream to it.
struct Inner {
    own: Arc<Wire>,
    /// What the crate socket has sent already.
    rest: Vec<u8>,
    sending: Option<Held<dyn SocketSend + Send>>,
    receiving: Option<Held<dyn SocketRecv + Send>>,
}

/// A crate socket, or half of one, with our end of its private stream: the fields are
/// dropped in this order, so the crate never sees its peer go.
struct Held<S: ?Sized> {
    socket: Box<S>,
    _own: Arc<Wire>,
}

impl Inner {
    async fn attach(carrier: Carrier) -> Result<Self, End> {
        type Send = Box<dyn SocketSend + std::marker::Send>;
        type Receive = Box<dyn SocketRecv + std::marker::Send>;
        let private = Private::open().map_err(|error| End::Inner(error.to_string()))?;
        let ((own, rest), sending, receiving): (_, Option<Send>, Option<Receive>) = match carrier {
            Carrier::Push => {
                let mut socket = PushSocket::new();
                let attached = private.attach(&mut socket, carrier).await?;
                (attached, Some(Box::new(socket)), None)
            }
            Carrier::Pull => {
                let mut socket = Pulling(PullSocket::new());
                let attached = private.attach(&mut socket.0, carrier).await?;
                (attached, None, Some(Box::new(socket)))
            }
            Carrier::Dealer => {
                let mut socket = DealerSocket::new();
                let attached = private.attach(&mut socket, carrier).await?;
                let (sending, receiving) = socket.split();
                (attached, Some(Box::new(sending)), Some(Box::new(receiving)))
            }
        };
        let own = Arc::new(own);
        Ok(Self {
            sending: sending.map(|socket| Held {
                socket,
                _own: own.clone(),
            }),
            receiving: receiving.map(|socket| Held {
                socket,
                _own: own.clone(),
            }),
            own,
            rest,
        })
    }
}

/// A crate PULL that ends its peer's tasks when dropped, as the crate's other sockets do.
struct Pulling(PullSocket);

impl Drop for Pulling {
    fn drop(&mut self) {
        self.0.backend().shutdown();
    }
}

// As the crate's attribute macro writes it.
impl SocketRecv for Pulling {
    fn recv<'a, 'b>(&'a mut self) -> BoxFuture<'b, zeromq::ZmqResult<ZmqMessage>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.0.recv()
    }
}

/// Serves a connection until it ends.
async fn serve<M: Members>(
    members: &M,
    id: u64,
    wire: &Wire,
    rest: Vec<u8>,
    inner: Inner,
) -> Ending {
    let connections = members.connections();
    let Inner {
        own,
        rest: mut own_rest,
        sending,
        mut receiving,
    } = inner;
    own_rest.extend_from_slice(&connections.introduction);
    let replies = Arc::new(Replies::default());
    let joined = Joined(Arc::new(members.join(id, &replies)));
    let member = &joined.0;
    let source = connections.inbox.source(Origin::of(id, wire));
    let end = {
        let line = Line {
            peer: wire,
            own: &own,
            options: &connections.options,
            counters: &connections.counters,
            replies: &replies,
        };
        let intake = match connections.kind {
            Kind::Push => Intake::Nothing,
            Kind::Publish => Intake::Topics,
            _ => Intake::Messages(&source),
        };
        let inward = take_in(&line, rest, intake);
        let outward = give_out(&line, own_rest, &**member);
        let parted = async {
            connections.parted().await;
            End::Finished
        };
        let pumping = pump(member.clone(), sending);
        let collecting = collect(receiving.as_mut(), &source);
        let aside = future::or(member.dismissed(), future::or(parted, pumping));
        future::or(future::or(inward, outward), future::or(collecting, aside)).await
    };
    if end == End::Finished {
        part(wire, connections.parted().await).await;
        return end.into();
    }
    drop(joined);
    let unread = source.expected() > 0 || !source.is_taken();
    let left = receiving.filter(|_| unread).map(|mut receiving| {
        let left: BoxFuture<'static, ()> = Box::pin(async move {
            hand_over(&mut receiving, &source).await;
        });
        left
    });
    Ending { end, left }
}

/// A connection in its socket; it leaves when dropped.
struct Joined<M: Member>(Arc<M>);

impl<M: Member> Drop for Joined<M> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Gives messages to the crate socket, for ever.
async fn pump(member: Arc<impl Member>, sending: Option<Held<dyn SocketSend + Send>>) -> End {
    let Some(sending) = sending else {
        return future::pending().await;
    };
    // A task of its own: the crate's `send` must never be cancelled while its socket lives
    // on. This one is dropped together with the socket.
    let task = async_global_executor::spawn(async move {
        // The whole value: a capture of its fields would drop them apart.
        let mut sending = sending;
        let mut batch = Vec::new();
        loop {
            let more = member.work().listen();
            member.give(&mut batch);
            if batch.is_empty() {
                more.await;
                continue;
            }
            for message in batch.drain(..) {
                let Ok(message) = ZmqMessage::try_from(message) else {
                    continue;
                };
                if let Err(error) = sending.socket.send(message).await {
                    return End::Inner(error.to_string());
                }
            }
        }
    });
    task.await
}

/// Moves what the crate socket receives to the inbox, for ever.
async fn collect(receiving: Option<&mut Held<dyn SocketRecv + Send>>, source: &Source) -> End {
    let Some(receiving) = receiving else {
        return future::pending().await;
    };
    loop {
        if let Err(end) = deliver_next(receiving, source).await {
            return end;
        }
    }
}

/// Waits for a message of the crate socket, and takes along those that are there as well.
async fn deliver_next(
    receiving: &mut Held<dyn SocketRecv + Send>,
    source: &Source,
) -> Result<(), End> {
    let socket = &mut receiving.socket;
    let failed = |error: ZmqError| End::Inner(error.to_string());
    let mut messages = vec![socket.recv().await.map_err(failed)?.into_vec()];
    let mut outcome = Ok(());
    while messages.len() < DELIVER_MAX {
        match future::poll_once(socket.recv()).await {
            Some(Ok(message)) => messages.push(message.into_vec()),
            Some(Err(error)) => {
                outcome = Err(failed(error));
                break;
            }
            None => break,
        }
    }
    source.deliver(&mut messages);
    outcome
}

/// Hands over what a lost connection had passed on, and waits until the reader has taken it.
async fn hand_over(receiving: &mut Held<dyn SocketRecv + Send>, source: &Source) {
    while source.expected() > 0 {
        if let Err(end) = deliver_next(receiving, source).await {
            log::debug!("{end}");
            break;
        }
    }
    source.taken().await;
}
