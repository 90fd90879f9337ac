//! Meeting a peer: greeting and READY, within a deadline and a few kilobytes.

use std::io;
use std::time::Instant;

use super::wire::{Wire, until};
use super::zmtp::{
    self, COMMAND_BYTES_MAX, Carrier, FLAG_COMMAND, FLAG_LONG, GREETING_BYTES, Kind,
};

/// What our side wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// This socket type.
    Be(Kind),
    /// PUSH to a PULL, DEALER to a ROUTER or REP: known once the peer has spoken.
    Suit,
}

/// A peer after its handshake.
#[derive(Debug)]
pub(crate) struct Met {
    /// What our side is now.
    pub(crate) kind: Kind,
    /// What the peer sent right behind its READY.
    pub(crate) rest: Vec<u8>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the handshake was not finished in time")]
    TimedOut,
    #[error("the peer closed the connection during the handshake")]
    Closed,
    #[error("{0}")]
    Malformed(String),
    #[error("the peer is a {peer} socket, which does not fit {ours}")]
    Incompatible { ours: &'static str, peer: String },
    #[error("the connection broke during the handshake: {0}")]
    Io(#[from] io::Error),
}

/// Does the whole handshake with a peer on the network.
pub(crate) async fn meet(
    wire: &Wire,
    wish: Wish,
    deadline: Instant,
) -> Result<Met, HandshakeError> {
    let result = until(deadline, exchange(wire, wish))
        .await
        .unwrap_or(Err(HandshakeError::TimedOut));
    if let Err(HandshakeError::Malformed(_) | HandshakeError::Incompatible { .. }) = &result {
        // A courtesy; a peer that does not read it gets the closed connection.
        let _ = wire.try_write(&zmtp::error("Invalid handshake"));
    }
    result
}

async fn exchange(wire: &Wire, wish: Wish) -> Result<Met, HandshakeError> {
    let mut opening = zmtp::greeting().to_vec();
    if let Wish::Be(kind) = wish {
        opening.extend(zmtp::ready(kind.name()));
    }
    wire.write_all(&opening).await?;
    let (payload, rest) = read_opening(wire).await?;
    let peer = zmtp::read_ready(&payload).map_err(HandshakeError::Malformed)?;
    let kind = match wish {
        Wish::Be(kind) => kind,
        Wish::Suit if peer == "PULL" => Kind::Push,
        Wish::Suit => Kind::Dealer,
    };
    if !kind.fits(&peer) {
        let ours = match wish {
            Wish::Be(kind) => kind.name(),
            Wish::Suit => "an api or pull address",
        };
        return Err(HandshakeError::Incompatible { ours, peer });
    }
    if wish == Wish::Suit {
        wire.write_all(&zmtp::ready(kind.name())).await?;
    }
    Ok(Met { kind, rest })
}

/// Introduces the front door to our own crate socket on the private side.
///
/// Returns what the socket sent right behind its READY.
pub(crate) async fn meet_inner(wire: &Wire, carrier: Carrier) -> Result<Vec<u8>, HandshakeError> {
    let mut opening = zmtp::greeting().to_vec();
    opening.extend(zmtp::ready(carrier.counterpart()));
    wire.write_all(&opening).await?;
    let (_, rest) = read_opening(wire).await?;
    Ok(rest)
}

/// Reads a greeting and the one command frame after it; returns its payload and what follows.
async fn read_opening(wire: &Wire) -> Result<(Vec<u8>, Vec<u8>), HandshakeError> {
    let malformed = |text: String| HandshakeError::Malformed(text);
    let mut buffer = Vec::with_capacity(GREETING_BYTES + 9 + COMMAND_BYTES_MAX);
    loop {
        zmtp::check_greeting(&buffer[..buffer.len().min(GREETING_BYTES)]).map_err(malformed)?;
        if let Some((start, end)) = command_extent(&buffer).map_err(malformed)?
            && buffer.len() >= end
        {
            let rest = buffer.split_off(end);
            buffer.drain(..start);
            return Ok((buffer, rest));
        }
        if wire.read(&mut buffer).await? == 0 {
            return Err(HandshakeError::Closed);
        }
    }
}

/// Where the payload of the command after the greeting lies, once its header is known.
fn command_extent(buffer: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some(frame) = buffer.get(GREETING_BYTES..) else {
        return Ok(None);
    };
    let Some(&flags) = frame.first() else {
        return Ok(None);
    };
    let (header, length) = match flags {
        FLAG_COMMAND => match frame.get(1) {
            Some(&length) => (2, u64::from(length)),
            None => return Ok(None),
        },
        _ if flags == FLAG_COMMAND | FLAG_LONG => match frame[1..].first_chunk::<8>() {
            Some(length) => (9, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        _ => {
            return Err(format!(
                "frame flags {flags:#04x} after the greeting, expected a command"
            ));
        }
    };
    if length > COMMAND_BYTES_MAX as u64 {
        return Err(format!(
            "a handshake command declares {length} bytes, the most is {COMMAND_BYTES_MAX}"
        ));
    }
    let start = GREETING_BYTES + header;
    Ok(Some((start, start + length as usize)))
}
