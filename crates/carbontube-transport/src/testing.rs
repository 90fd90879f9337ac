//! The front door's inside, opened for fuzzing: the scanner alone, and a whole connection
//! over a local stream.
//!
//! Behind the feature `testing`, which nothing that is released enables.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use async_io::Async;
use futures_lite::future;

use crate::counters::Counters;
use crate::door::handshake::{HandshakeError, Wish, meet};
use crate::door::scanner::{Found, Scanner, Violation};
use crate::door::splice::{End, Intake, Line, Outgoing, Replies, give_out, take_in};
use crate::door::wire::Wire;
use crate::door::zmtp;
use crate::inbox::Inbox;
use crate::{CountersSnapshot, Options, Origin};

/// Every kind of socket, by the number that [`serve`] takes.
pub const KINDS: [&str; 6] = ["PULL", "PUSH", "PUB", "SUB", "ROUTER", "DEALER"];

const KINDS_OF_DOORS: [zmtp::Kind; 6] = [
    zmtp::Kind::Pull,
    zmtp::Kind::Push,
    zmtp::Kind::Publish,
    zmtp::Kind::Subscribe,
    zmtp::Kind::Router,
    zmtp::Kind::Dealer,
];

/// What the scanner made of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Whole messages with their frame headers, in order.
    pub messages: Vec<Vec<u8>>,
    /// The payloads of commands, in order.
    pub commands: Vec<Vec<u8>>,
    /// How the peer broke the rules, if it did.
    pub violation: Option<&'static str>,
    /// Bytes of the unfinished message at the end, commands cut out.
    pub unfinished: usize,
    /// The most bytes that were held at once.
    pub held_max: usize,
}

/// Scans a stream that arrives in pieces, as a connection does.
pub fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, options: &Options) -> Scanned {
    let mut scanner = Scanner::new(options);
    let mut buffer = Vec::new();
    let mut scanned = Scanned::default();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        scanned.held_max = scanned.held_max.max(buffer.len());
        let result = scanner.scan(&mut buffer, |found| match found {
            Found::Message(message) => scanned.messages.push(message.to_vec()),
            Found::Command(payload) => scanned.commands.push(payload.to_vec()),
        });
        let complete = scanner.complete();
        buffer.drain(..complete);
        scanner.removed(complete);
        if let Err(violation) = result {
            scanned.violation = Some(match violation {
                Violation::Oversized => "oversized",
                Violation::Malformed => "malformed",
            });
            break;
        }
    }
    scanned.unfinished = buffer.len();
    scanned
}

/// How a handshake or a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handshake failed; the text says how.
    Handshake(String),
    /// The peer broke a rule.
    Fault(&'static str),
    /// The peer went, between messages or within one.
    Left {
        /// Whether it went within a message.
        mid_message: bool,
    },
    /// The peer sent an error.
    Reported(String),
}

/// What became of a connection.
#[derive(Debug)]
pub struct Served {
    /// How it ended.
    pub outcome: Outcome,
    /// What was passed on to our own crate socket.
    pub passed: Vec<u8>,
    /// What the peer was sent: greeting, READY, PONGs, ERROR.
    pub replied: Vec<u8>,
    /// What was counted.
    pub counters: CountersSnapshot,
}

struct Nobody;

impl Outgoing for Nobody {
    fn written(&self, _messages: usize, _bytes: usize) {}
}

/// Serves one peer of a socket of the kind [`KINDS`]`[kind]` which sends these pieces and
/// then goes, with everything real but the network and the crate's socket behind it.
///
/// # Errors
/// When the local streams cannot be made.
///
/// # Panics
/// When `kind` is none of [`KINDS`].
pub fn serve(kind: usize, pieces: &[&[u8]], options: &Options) -> io::Result<Served> {
    let kind = KINDS_OF_DOORS[kind];
    let (mut peer, near) = pair()?;
    let source = Inbox::new(usize::MAX).source(Origin::of(0, &near));
    let intake = match kind {
        zmtp::Kind::Publish => Intake::Topics,
        zmtp::Kind::Push => Intake::Nothing,
        _ => Intake::Messages(&source),
    };
    let (mut crate_side, own) = pair()?;
    let counters = Counters::default();
    let (mut passed, mut replied) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(10);
    let door = async {
        let met = match meet(&near, Wish::Be(kind), deadline).await {
            Ok(met) => met,
            Err(HandshakeError::Io(error)) => return Err(error),
            Err(error) => return Ok(Outcome::Handshake(error.to_string())),
        };
        let replies = Replies::default();
        let line = Line {
            peer: &near,
            own: &own,
            options,
            counters: &counters,
            replies: &replies,
        };
        let end = future::or(
            take_in(&line, met.rest, intake),
            give_out(&line, Vec::new(), &Nobody),
        )
        .await;
        end.count(&counters);
        Ok(match end {
            End::PeerClosed => Outcome::Left { mid_message: false },
            End::MidMessage => Outcome::Left { mid_message: true },
            End::Broken(text) => Outcome::Reported(text),
            End::Inner(text) => return Err(io::Error::other(text)),
            end => Outcome::Fault(end.fault().unwrap_or("closed")),
        })
    };
    let mut unsent = pieces.iter();
    let mut unwritten: &[u8] = &[];
    let mut closed = false;
    // The peer and the crate's socket act whenever the door has nothing to do.
    let others = future::poll_fn(|cx| {
        collect(&mut crate_side, &mut passed);
        collect(&mut peer, &mut replied);
        if unwritten.is_empty() {
            match unsent.next() {
                Some(piece) => unwritten = piece,
                None if !closed => {
                    closed = true;
                    // Fails when the door has closed already.
                    let _ = peer.shutdown(std::net::Shutdown::Write);
                }
                None => {}
            }
        }
        if let Ok(written) = peer.write(unwritten) {
            unwritten = &unwritten[written..];
        } else if Instant::now() > deadline {
            return std::task::Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    });
    let outcome = async_io::block_on(future::or(door, others))?;
    drop((near, own));
    collect(&mut crate_side, &mut passed);
    collect(&mut peer, &mut replied);
    Ok(Served {
        outcome,
        passed,
        replied,
        counters: counters.snapshot(),
    })
}

/// One end for whoever drives, without waiting, and one for the door.
fn pair() -> io::Result<(UnixStream, Wire)> {
    let (far, near) = UnixStream::pair()?;
    far.set_nonblocking(true)?;
    Ok((far, Wire::Unix(Async::new(near)?)))
}

/// Reads what is there.
fn collect(stream: &mut UnixStream, into: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    while let Ok(read) = stream.read(&mut chunk) {
        if read == 0 {
            break;
        }
        into.extend_from_slice(&chunk[..read]);
    }
}

/// Bytes of unfinished messages that this process holds.
pub fn unfinished_bytes() -> usize {
    crate::door::splice::unfinished_bytes()
}

/// What a peer's first bytes are: as much of a greeting as there is, then READY.
///
/// # Errors
/// What is wrong with them.
pub fn read_ready(payload: &[u8]) -> Result<String, String> {
    zmtp::read_ready(payload)
}

/// Our own opening as a socket of a type, for a peer that behaves.
pub fn opening(socket_type: &str) -> Vec<u8> {
    let mut bytes = zmtp::greeting().to_vec();
    bytes.extend(zmtp::ready(socket_type));
    bytes
}

/// A command frame.
pub fn command(name: &str, body: &[u8]) -> Vec<u8> {
    zmtp::command(name, body)
}
