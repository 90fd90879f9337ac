//! What Pull, Subscribe, Publish and Router share: one crate socket behind many private streams.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::future;
use zeromq::Socket;

use crate::counters::Counters;
use crate::door::handshake::meet_inner;
use crate::door::private::InnerListener;
use crate::door::splice::{End, Intake, Outgoing, Replies, give_out, part, take_in};
use crate::door::wire::{Wire, until};
use crate::door::zmtp::Kind;
use crate::door::{Backend, BoxFuture, Ending};
use crate::{OpenError, Options, Origin};

/// How long our own crate socket may take for its handshake.
const INNER_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of one socket, as that socket sees them.
pub(crate) trait Members: Send + Sync + 'static {
    /// What peers may send.
    const INTAKE: Intake;

    /// Whether each message is to say where it came from.
    const TAGGED: bool = false;

    type Member: Member;

    /// Takes in a connection; it leaves when the member is dropped.
    fn join(&self, id: u64) -> Self::Member;

    /// What the crate socket is told first about a new connection.
    fn introduction(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// One connection.
pub(crate) trait Member: Outgoing {
    /// Waits until this side wants the connection to end, for ever if it never does.
    fn dismissed(&self) -> BoxFuture<'_, End> {
        Box::pin(future::pending())
    }
}

/// Members of whom nothing is to be known.
pub(crate) struct Anybody;

/// One of them.
pub(crate) struct Somebody;

impl Outgoing for Somebody {
    fn written(&self, _messages: usize, _bytes: usize) {}
}

impl Member for Somebody {}

impl Members for Anybody {
    const INTAKE: Intake = Intake::Messages;

    type Member = Somebody;

    fn join(&self, _id: u64) -> Somebody {
        Somebody
    }
}

/// The backend of a socket with many peers.
pub(crate) struct Hub<M> {
    kind: Kind,
    options: Options,
    counters: Arc<Counters>,
    inner: InnerListener,
    part_by: Mutex<Option<Instant>>,
    parting: Event,
    pub(crate) members: M,
}

impl<M: Members> Hub<M> {
    /// Puts the crate socket behind the door.
    pub(crate) async fn new(
        kind: Kind,
        options: Options,
        counters: Arc<Counters>,
        socket: &mut impl Socket,
        members: M,
    ) -> Result<Arc<Self>, OpenError> {
        let inner = InnerListener::bind(socket).await.map_err(private_side)?;
        Ok(Arc::new(Self {
            kind,
            options,
            counters,
            inner,
            part_by: Mutex::default(),
            parting: Event::new(),
            members,
        }))
    }

    /// Asks every connection to end in order.
    pub(crate) fn part(&self, deadline: Instant) {
        *self.part_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.parting.notify(usize::MAX);
    }

    /// Ends the crate socket; every connection must be closed before.
    pub(crate) async fn retire(&self, mut socket: impl Socket) {
        // Without `shutdown` the crate's writer tasks keep their streams open.
        socket.backend().shutdown();
        let unbind = async {
            for error in socket.unbind_all().await {
                log::debug!("{} inner socket: {error}", self.kind);
            }
        };
        self.inner.retire(unbind).await;
    }

    /// Lets the crate take away its listener; for a socket that was split, `ending` drops the halves.
    pub(crate) async fn retire_split(&self, ending: impl FnOnce()) {
        self.inner.retire_dropped(ending).await;
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

    async fn attach(&self, id: u64) -> Result<(Wire, Vec<u8>), End> {
        let fail = |error: &dyn std::fmt::Display| End::Inner(error.to_string());
        let attaching = async {
            let own = self.inner.connect().await.map_err(|error| fail(&error))?;
            let identity = id.to_be_bytes();
            let rest = meet_inner(&own, self.kind, Some(&identity)).await;
            let rest = rest.map_err(|error| fail(&error))?;
            let introduction = self.members.introduction();
            own.write_all(&introduction)
                .await
                .map_err(|error| fail(&error))?;
            Ok((own, rest))
        };
        until(Instant::now() + INNER_TIMEOUT, attaching)
            .await
            .unwrap_or_else(|| Err(fail(&"no handshake in time")))
    }
}

fn private_side(source: io::Error) -> OpenError {
    OpenError::Private {
        what: "listening for private streams",
        source,
    }
}

impl<M: Members> Backend for Hub<M> {
    fn serve<'a>(&'a self, id: u64, wire: &'a Wire, rest: Vec<u8>) -> BoxFuture<'a, Ending> {
        Box::pin(async move {
            let (own, own_rest) = match self.attach(id).await {
                Ok(attached) => attached,
                Err(end) => return end.into(),
            };
            let member = self.members.join(id);
            let replies = match M::TAGGED {
                true => Replies::tagging(Origin::of(id, wire).tag()),
                false => Replies::default(),
            };
            let (options, counters) = (&self.options, &*self.counters);
            let inward = take_in(wire, &own, rest, M::INTAKE, options, counters, &replies);
            let outward = give_out(&own, wire, own_rest, &member, counters, &replies);
            let parted = async {
                self.parted().await;
                End::Finished
            };
            let aside = future::or(member.dismissed(), parted);
            let end = future::or(future::or(inward, outward), aside).await;
            if end == End::Finished {
                part(wire, self.parted().await).await;
                return end.into();
            }
            drop(member);
            let unread = replies.has_passed() && !matches!(end, End::Inner(_));
            let own = unread.then_some(own);
            Ending { end, own }
        })
    }
}
