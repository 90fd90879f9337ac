//! `streamer` and `forwarder`: relays between sites.

use std::time::Duration;

use carbontube_protocol::Address;
use carbontube_transport::{CloseOutcome, Endpoint, Forwarder, OpenError, Options, Streamer};
use futures_lite::future;
use serde_json::json;

use super::arguments::{ForwarderArguments, StreamerArguments};
use super::say::say;
use super::signals::{Interrupted, end, on_signals};
use super::{block_on, write_ready_file};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// The original's mark.
const HWM: usize = 64;
/// How long what is inside may take to get out.
const LINGER: Duration = Duration::from_secs(10);

fn endpoints(
    bind: Vec<Address>,
    connect: Vec<Address>,
    options: (&str, &str),
) -> Outcome<Vec<Endpoint>> {
    let bind = bind.into_iter().map(Endpoint::Bind);
    let all: Vec<Endpoint> = bind
        .chain(connect.into_iter().map(Endpoint::Connect))
        .collect();
    if all.is_empty() {
        let (bind, connect) = options;
        return Err(Failure::usage(format!(
            "give at least one address with {bind} or {connect}"
        )));
    }
    Ok(all)
}

fn options(hwm: Option<usize>, name: &str) -> Outcome<Options> {
    let hwm = hwm.unwrap_or(HWM);
    let most = Options::SEND_HWM_MESSAGES_CEILING;
    if !(1..=most).contains(&hwm) {
        return Err(Failure::usage(format!(
            "{name} is from 1 to {most}, not {hwm}"
        )));
    }
    Ok(Options {
        send_hwm_messages: hwm,
        ..Options::default()
    })
}

fn open_failure(error: &OpenError) -> Failure {
    let failure = Failure::from_error(Exit::Failure, error);
    match error {
        OpenError::InUse { .. } => {
            failure.hint("another program listens there; choose another address")
        }
        _ => failure,
    }
}

/// A channel that the first signal closes.
fn stop_signal(what: &'static str) -> Outcome<(async_channel::Receiver<()>, Interrupted)> {
    let (sender, receiver) = async_channel::bounded::<()>(1);
    let interrupted = on_signals(
        what,
        move || {
            sender.close();
        },
        || end(Exit::Interrupted),
    )?;
    Ok((receiver, interrupted))
}

pub(crate) fn streamer(arguments: StreamerArguments) -> Outcome<Exit> {
    let pull = endpoints(
        arguments.pull,
        arguments.pull_connect,
        ("--pull", "--pull-connect"),
    )?;
    let push = endpoints(
        arguments.push,
        arguments.push_connect,
        ("--push", "--push-connect"),
    )?;
    let pull_options = options(arguments.pull_hwm, "--pull-hwm")?;
    let push_options = options(arguments.push_hwm, "--push-hwm")?;
    block_on(async {
        let mut device = Streamer::open(pull_options, pull, push_options, push)
            .await
            .map_err(|error| open_failure(&error))?;
        let (stop, interrupted) = stop_signal("what is inside is passed on")?;
        let (pull, push) = device.local_addresses();
        say_sides("streamer", [("pull", &pull), ("push", &push)]);
        if let Some(path) = &arguments.ready_file {
            write_ready_file(path, &json!({ "pull": pull, "push": push }))?;
        }
        let stopped = async {
            let _ = stop.recv().await;
        };
        let running = async {
            device.run().await;
        };
        future::or(running, stopped).await;
        if let CloseOutcome::Undelivered { messages } = device.close(LINGER).await {
            return Err(Failure::new(
                Exit::Failure,
                format!("{} messages could not be passed on", messages.len()),
            )
            .hint("jobs and results among them are sent again by those who hold them"));
        }
        Ok(interrupted.exit())
    })
}

pub(crate) fn forwarder(arguments: ForwarderArguments) -> Outcome<Exit> {
    let subscribe = endpoints(
        arguments.subscriber,
        arguments.subscriber_connect,
        ("--subscriber", "--subscriber-connect"),
    )?;
    let publish = endpoints(
        arguments.publisher,
        arguments.publisher_connect,
        ("--publisher", "--publisher-connect"),
    )?;
    let subscribe_options = options(arguments.subscriber_hwm, "--subscriber-hwm")?;
    let publish_options = options(arguments.publisher_hwm, "--publisher-hwm")?;
    block_on(async {
        let mut device = Forwarder::open(subscribe_options, subscribe, publish_options, publish)
            .await
            .map_err(|error| open_failure(&error))?;
        let (stop, interrupted) = stop_signal("what is inside is passed on")?;
        let (subscriber, publisher) = device.local_addresses();
        say_sides(
            "forwarder",
            [("subscriber", &subscriber), ("publisher", &publisher)],
        );
        if let Some(path) = &arguments.ready_file {
            let ready = json!({ "subscriber": subscriber, "publisher": publisher });
            write_ready_file(path, &ready)?;
        }
        let stopped = async {
            let _ = stop.recv().await;
        };
        let running = async {
            device.run().await;
        };
        future::or(running, stopped).await;
        device.close(LINGER).await;
        Ok(interrupted.exit())
    })
}

fn say_sides(name: &str, sides: [(&str, &Vec<Address>); 2]) {
    say(name);
    for (side, addresses) in sides {
        for address in addresses {
            say(format_args!("  {side:<12}{address}"));
        }
    }
}
