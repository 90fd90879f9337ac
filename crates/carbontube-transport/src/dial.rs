//! Dialling an address of which only the peer knows what it is.

use std::time::{Duration, Instant};

use async_io::Timer;
use carbontube_protocol::Address;

use crate::door::handshake::{HandshakeError, Wish};
use crate::door::reach::{ReachError, reach};
use crate::door::wire::until;
use crate::door::zmtp::Kind;
use crate::{Dealer, DialError, NotConnected, OpenError, Options, Push, init_runtime};

/// What [`dial`] found.
#[derive(Debug)]
pub enum Dialled {
    /// An api address: a ROUTER.
    Dealer(Dealer),
    /// A pull address: a PULL.
    Push(Push),
}

/// Dials an address and becomes the socket that suits its peer.
///
/// Tries again until somebody answers or `timeout` has passed. The connection
/// that was found is the socket's first one; later ones are of the same type.
///
/// # Errors
/// When nobody answers within `timeout`, or the peer is of another type.
pub async fn dial(
    options: Options,
    address: Address,
    timeout: Duration,
) -> Result<Dialled, DialError> {
    init_runtime();
    address
        .check_connectable()
        .map_err(|source| OpenError::Connect { source })?;
    let deadline = Instant::now() + timeout;
    let mut pause = *options.connect_retry.start();
    let mut last_error = None;
    loop {
        match until(deadline, reach(&address, Wish::Suit, &options)).await {
            Some(Ok((wire, met))) => {
                let kind = met.kind;
                let first = Some((wire, met));
                return Ok(match kind {
                    Kind::Push => Dialled::Push(Push::open_with(options, address, first).await?),
                    _ => Dialled::Dealer(Dealer::open_with(options, address, first).await?),
                });
            }
            Some(Err(ReachError::Handshake(HandshakeError::Incompatible { peer, .. }))) => {
                return Err(DialError::WrongType {
                    address,
                    socket_type: peer,
                });
            }
            Some(Err(error)) => last_error = Some(error.to_string()),
            None => {}
        }
        if Instant::now() + pause >= deadline {
            return Err(DialError::NotConnected(NotConnected {
                address,
                waited: timeout,
                last_error,
            }));
        }
        Timer::after(pause).await;
        pause = (pause * 2).min(*options.connect_retry.end());
    }
}
