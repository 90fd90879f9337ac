//! One task for each address that results go to: sends, and notes reconnections.

use std::sync::Arc;
use std::time::Duration;

use carbontube_protocol::encode;
use carbontube_transport::{CloseOutcome, LinkState, LinkWatch, Push, Rejected};
use futures_lite::future;

use crate::shared::Shared;

/// How long what is handed back may take when the worker shall end at once.
const LINGER_OF_A_STOP: Duration = Duration::from_millis(250);

/// Sends what the session has for a route, until the worker ends; then closes.
pub(crate) async fn send(shared: Arc<Shared>, push: Push, route: usize, linger: Duration) {
    while let Some(outgoing) = next(&shared, route).await {
        let message = encode(&outgoing.message, outgoing.codec);
        // The transport's send is cancel-safe: what was not accepted is not sent.
        let sent = future::or(async { Some(push.send(message).await) }, async {
            until_ended(&shared).await;
            None
        })
        .await;
        match sent {
            Some(Ok(())) => {
                let now = shared.clock.now();
                shared.with(|session| session.sent(&outgoing.keys, now));
            }
            Some(Err(Rejected { reason, .. })) => {
                log::error!("a message for route {route} was not accepted: {reason}");
            }
            None => break,
        }
    }
    let linger = if shared.is_stop_wanted() {
        linger.min(LINGER_OF_A_STOP)
    } else {
        linger
    };
    if let CloseOutcome::Undelivered { messages } = push.close(linger).await {
        log::warn!(
            "{} messages for route {route} could not be delivered before the end",
            messages.len()
        );
    }
}

async fn next(shared: &Shared, route: usize) -> Option<crate::session::Outgoing> {
    loop {
        let listener = shared.outgoing.listen();
        if let Some(outgoing) = shared.with(|session| session.take_outgoing(route)) {
            return Some(outgoing);
        }
        if shared.is_ended() {
            return None;
        }
        listener.await;
    }
}

async fn until_ended(shared: &Shared) {
    loop {
        let listener = shared.outgoing.listen();
        if shared.is_ended() {
            return;
        }
        listener.await;
    }
}

/// Tells the session of each new connection after the first.
pub(crate) async fn watch(shared: Arc<Shared>, mut watch: LinkWatch, route: usize) {
    loop {
        match watch.changed().await {
            LinkState::Connected { generation } if generation > 1 => {
                log::info!("connected again to where results go route={route}");
                shared.with(|session| session.reconnected(route));
            }
            LinkState::Closed => return,
            LinkState::Connected { .. } | LinkState::Disconnected { .. } => {}
        }
    }
}
