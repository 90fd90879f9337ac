//! The connection to one address.

use std::sync::Arc;

use carbontube_transport::{Dealer, DialError, Dialled, LinkState, dial};
use futures_lite::future;

use crate::conversation::Conversation;

/// Dials an address for as long as it takes, then carries what is to be said there.
///
/// Ends when the client is closed, or when the address turns out to be no manager's.
pub(crate) async fn attend(conversation: Arc<Conversation>, index: usize) {
    let work = work(&conversation, index);
    future::or(conversation.until_closed(), work).await;
}

async fn work(conversation: &Conversation, index: usize) {
    let address = conversation.links(|links| links.address(index).clone());
    let options = &conversation.options;
    loop {
        let found = dial(
            options.transport.clone(),
            address.clone(),
            options.connect_timeout,
        );
        match found.await {
            Ok(Dialled::Dealer(dealer)) => {
                let carry = future::or(
                    send(conversation, index, &dealer),
                    watch(conversation, index, &dealer),
                );
                future::or(receive(conversation, index, &dealer), carry).await;
                return;
            }
            Ok(Dialled::Push(push)) => {
                conversation.add_push(push);
                conversation.happen(|core, now| core.handle_pull_address(index, now));
                return;
            }
            Err(DialError::NotConnected(error)) => {
                let met = error.last_error.unwrap_or_else(|| "no answer".to_owned());
                conversation.happen(|core, now| core.handle_disconnected(index, met, now));
            }
            Err(error) => {
                let met = error.to_string();
                conversation.happen(|core, now| core.handle_useless(index, met, now));
                return;
            }
        }
    }
}

/// Greets on each new connection; sends requests when this link is the active one.
///
/// A message may wait here for a connection while another link becomes active; then
/// that link has been given the same request, and the one sent here late is a
/// duplicate, which managers recognise.
async fn send(conversation: &Conversation, index: usize, dealer: &Dealer) {
    loop {
        let listener = conversation.listen();
        match conversation.next_message(index) {
            Some(message) => {
                if let Err(rejected) = dealer.send(message).await {
                    log::warn!("a request could not be sent: {}", rejected.reason);
                }
            }
            None => listener.await,
        }
    }
}

async fn watch(conversation: &Conversation, index: usize, dealer: &Dealer) {
    let mut events = dealer.events();
    loop {
        match events.changed().await {
            LinkState::Connected { .. } => {
                conversation.happen(|core, now| core.handle_connected(index, now));
            }
            LinkState::Disconnected { last_error, .. } => {
                let met = last_error.unwrap_or_else(|| "connection lost".to_owned());
                conversation.happen(|core, now| core.handle_disconnected(index, met, now));
            }
            LinkState::Closed => return,
        }
    }
}

async fn receive(conversation: &Conversation, index: usize, dealer: &Dealer) {
    while let Ok(frames) = dealer.recv().await {
        conversation.happen(|core, now| core.handle_message(index, &frames, now));
    }
}
