//! The ROUTER for clients: requests in, answers out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use carbontube_protocol::message::{Code, Message as Wire, Refusal};
use carbontube_protocol::{Codec, DecodeError, Header, JobId, Limits, decode, encode};
use carbontube_transport::{Message, PeerId, Router, RouterSender, add_delimiter, take_delimiter};

use crate::core::{ClientId, Input};
use crate::engine::told_bytes;
use crate::error::SocketRole;
use crate::intake::size;
use crate::queue::{Asked, InputQueue};
use crate::stop::{Stop, Ticks, Wake};
use crate::tally::Tally;

/// The most requests of one client that wait for their answer.
const OUTSTANDING_MAX: usize = 1024;
/// How long a closing api socket may take to write what it has accepted.
const LINGER: Duration = Duration::from_secs(2);

/// The clients that are connected, by their number.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    by_peer: HashMap<PeerId, ClientId>,
    by_client: HashMap<ClientId, Client>,
}

#[derive(Clone, Debug)]
struct Client {
    peer: PeerId,
    codec: Codec,
    delimiter: bool,
    outstanding: usize,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's number, and how many of its requests wait for an answer.
    fn heard(&self, peer: PeerId, codec: Codec, delimiter: bool) -> (ClientId, usize) {
        let mut state = self.lock();
        let id = match state.by_peer.get(&peer) {
            Some(id) => *id,
            None => {
                state.last += 1;
                let id = ClientId(state.last);
                state.by_peer.insert(peer, id);
                id
            }
        };
        let client = state.by_client.entry(id).or_insert(Client {
            peer,
            codec,
            delimiter,
            outstanding: 0,
        });
        client.codec = codec;
        client.delimiter = delimiter;
        (id, client.outstanding)
    }

    /// Counts a request until [`Clients::answered`].
    fn asked(&self, id: ClientId) {
        if let Some(client) = self.lock().by_client.get_mut(&id) {
            client.outstanding += 1;
        }
    }

    fn answered(&self, id: ClientId, final_answer: bool) -> Option<Client> {
        let mut state = self.lock();
        let client = state.by_client.get_mut(&id)?;
        if final_answer {
            client.outstanding = client.outstanding.saturating_sub(1);
        }
        Some(client.clone())
    }

    /// A wait was taken; what it is told is bounded by the core.
    pub(crate) fn taken(&self, id: ClientId) {
        self.answered(id, true);
    }

    fn forget(&self, id: ClientId) {
        let mut state = self.lock();
        if let Some(client) = state.by_client.remove(&id) {
            state.by_peer.remove(&client.peer);
        }
    }

    fn all(&self) -> Vec<(ClientId, PeerId)> {
        let state = self.lock();
        let each = state.by_client.iter();
        each.map(|(id, client)| (*id, client.peer)).collect()
    }
}

/// Reads requests until the manager ends; then writes what was answered and closes.
pub(crate) async fn receive(
    mut socket: Router,
    limits: Limits,
    clients: Arc<Clients>,
    queue: Arc<InputQueue>,
    answers: Sender<(ClientId, Wire)>,
    tally: Arc<Tally>,
    stop: Stop,
) {
    let sender = socket.sender();
    let mut ticks = Ticks::new();
    while let Some(woken) = stop.or(ticks.or(socket.recv())).await {
        let (peer, mut frames) = match woken {
            Wake::Came(Ok(received)) => received,
            Wake::Came(Err(_)) => break,
            Wake::Tick => {
                tally.note(SocketRole::Api, socket.counters());
                continue;
            }
        };
        let delimiter = take_delimiter(&mut frames);
        let bytes = size(&frames);
        let header = frames.first().map(|frame| Header::from_bytes(frame));
        let codec = match header {
            Some(Ok(header)) => header.codec,
            _ => Codec::Json,
        };
        let (client, outstanding) = clients.heard(peer, codec, delimiter);
        let refusal = match read_request(&frames, &limits, client) {
            Ok(_) if outstanding >= OUTSTANDING_MAX => {
                tally.api_busy.bump();
                Refusal {
                    request: request_number(&frames, codec),
                    code: Code::Busy,
                    message: format!(
                        "this connection has {OUTSTANDING_MAX} requests without an answer; wait for some"
                    ),
                }
            }
            Ok(input @ Input::Query { .. }) => {
                clients.asked(client);
                match queue.ask(client, input, bytes) {
                    Ok(Asked::Waits) => continue,
                    Ok(Asked::TooMany) => {}
                    Err(_) => break,
                }
                clients.answered(client, true);
                tally.api_busy.bump();
                Refusal {
                    request: request_number(&frames, codec),
                    code: Code::Busy,
                    message: "this connection has asked too much that waits for its answer; \
                              wait for some"
                        .to_owned(),
                }
            }
            Ok(input) => {
                // A wait, which may be answered much later and in parts, until the core took it.
                clients.asked(client);
                if queue.put(input, bytes).await.is_err() {
                    break;
                }
                continue;
            }
            Err(refusal) => {
                match refusal.code {
                    Code::Unexpected => tally.api_unexpected.bump(),
                    _ => tally.api_malformed.bump(),
                }
                refusal
            }
        };
        let mut answer = encode(&Wire::Refusal(refusal), codec);
        if delimiter {
            add_delimiter(&mut answer);
        }
        if sender.send(&peer, answer).is_err() {
            tally.answers_dropped.bump();
        }
    }
    answers.close();
    socket.close(LINGER).await;
}

/// Sends answers until there are no more.
pub(crate) async fn answer(
    sender: RouterSender,
    answers: Receiver<(ClientId, Wire)>,
    (views, told): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    clients: Arc<Clients>,
    queue: Arc<InputQueue>,
    tally: Arc<Tally>,
) {
    while let Ok((id, message)) = answers.recv().await {
        let is_view = matches!(message, Wire::Answer(_));
        // Taken off at once: what is encoded is bounded by the socket.
        views.fetch_sub(usize::from(is_view), Ordering::Relaxed);
        told.fetch_sub(told_bytes(&message), Ordering::Relaxed);
        // Those who wait are told after their request was taken.
        let is_final = !matches!(message, Wire::Ended(_));
        let Some(client) = clients.answered(id, is_final) else {
            tally.answers_dropped.bump();
            continue;
        };
        let mut frames = encode(&message, client.codec);
        if client.delimiter {
            add_delimiter(&mut frames);
        }
        if let Err(error) = sender.send(&client.peer, frames) {
            log::debug!("an answer was dropped: {error}");
            tally.answers_dropped.bump();
            queue.forget(id);
        }
    }
}

/// Looks now and then which clients are gone.
pub(crate) async fn sweep(
    sender: RouterSender,
    clients: Arc<Clients>,
    queue: Arc<InputQueue>,
    stop: Stop,
) {
    let pause = || async_io::Timer::after(Duration::from_secs(1));
    while stop.or(pause()).await.is_some() {
        for (id, peer) in clients.all() {
            if !sender.is_connected(&peer) {
                clients.forget(id);
                queue.forget(id);
                // Behind the client's own requests, or a wait could come after its end.
                let _ = queue.put(Input::ClientGone { client: id }, 0).await;
            }
        }
    }
}

pub(crate) fn read_request(
    frames: &Message,
    limits: &Limits,
    client: ClientId,
) -> Result<Input, Refusal> {
    let message = decode(frames, limits).map_err(|error| {
        let header = frames
            .first()
            .and_then(|frame| Header::from_bytes(frame).ok());
        Refusal {
            request: header.and_then(|header| request_number(frames, header.codec)),
            code: match error {
                DecodeError::Version { .. } => Code::Version,
                _ => Code::Malformed,
            },
            message: error.to_string(),
        }
    })?;
    match message {
        Wire::Enqueue(mut request) => {
            for job in &mut request.jobs {
                job.id.get_or_insert_with(JobId::generate);
            }
            Ok(Input::Enqueue { client, request })
        }
        Wire::Query(request) => Ok(Input::Query { client, request }),
        Wire::Wait(request) => Ok(Input::Wait { client, request }),
        other => Err(Refusal {
            request: None,
            code: Code::Unexpected,
            message: format!(
                "a {:?} message does not belong on the api socket; Enqueue, Query and Wait do",
                other.kind()
            ),
        }),
    }
}

/// The request's number, as far as a broken or refused body still says it.
fn request_number(frames: &Message, codec: Codec) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        request: u64,
    }
    let body = frames.get(1)?;
    match codec {
        Codec::Json => serde_json::from_slice::<Numbered>(body)
            .ok()
            .map(|numbered| numbered.request),
        // Every request begins with its number.
        Codec::Bincode => bincode::serde::decode_from_slice::<u64, _>(
            body,
            bincode::config::standard().with_limit::<16>(),
        )
        .ok()
        .map(|(number, _)| number),
    }
}
