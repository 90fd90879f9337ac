//! Keeps a view of one manager: a snapshot each second, or at once after an event that
//! matters or a gap in the events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Timer;
use carbontube_client::{ClientError, ClientOptions, EventStream, Notice, PipelineClient};
use carbontube_protocol::message::{ManagerInfo, Step};
use carbontube_protocol::{Address, Host, Limits, Timestamp};
use futures_lite::future;

use crate::options::WebOptions;
use crate::state::{Hub, View};

/// How long a manager may take to answer for its state.
const ANSWER_MAX: Duration = Duration::from_millis(2500);
/// The shortest time between two snapshots.
const SNAPSHOT_MIN: Duration = Duration::from_millis(250);
/// How often a manager that is new here is asked for events of before: at once, and when
/// events come live, for those in between.
const PAST_TIMES: u8 = 2;
/// The most parts in which they are asked for.
const RECENT_PARTS_MAX: usize = 100;
/// From how many workers on they are asked for less often.
const MANY_WORKERS: usize = 500;

/// The client for questions and changes of pages, which may take longer.
pub(crate) async fn connect(
    address: &Address,
    limits: &Limits,
) -> Result<PipelineClient, ClientError> {
    let options = ClientOptions {
        connect_timeout: Duration::from_secs(3),
        timeout: Duration::from_secs(15),
        limits: limits.clone(),
        ..ClientOptions::default()
    };
    PipelineClient::connect(std::slice::from_ref(address), options).await
}

/// Follows one manager for ever.
pub(crate) async fn watch(hub: Arc<Hub>, view: Arc<View>, options: Arc<WebOptions>) {
    let events = async {
        if options.subscribe.is_empty() {
            follow_own(&hub, &view, &options).await;
        } else {
            future::pending::<()>().await;
        }
    };
    future::or(events, snapshots(&hub, &view, &options)).await;
}

async fn snapshots(hub: &Hub, view: &View, options: &WebOptions) {
    loop {
        let client_options = ClientOptions {
            connect_timeout: ANSWER_MAX,
            timeout: ANSWER_MAX,
            limits: options.limits.clone(),
            ..ClientOptions::default()
        };
        let address = std::slice::from_ref(&view.address);
        match PipelineClient::connect(address, client_options).await {
            Ok(client) => {
                let mut round = 0_u64;
                loop {
                    let began = Instant::now();
                    let wanted = view.wanted.listen();
                    if let Err(error) = snapshot(hub, view, &client, round).await {
                        trouble(hub, view, &error);
                    }
                    round += 1;
                    let soon = async {
                        wanted.await;
                        Timer::at(began + SNAPSHOT_MIN).await;
                    };
                    let due = async {
                        Timer::at(began + options.refresh.max(SNAPSHOT_MIN)).await;
                    };
                    future::or(soon, due).await;
                }
            }
            Err(error) => trouble(hub, view, &error),
        }
        Timer::after(SNAPSHOT_MIN).await;
    }
}

fn trouble(hub: &Hub, view: &View, error: &ClientError) {
    let mut state = view.lock();
    let text = error.to_string();
    if state.trouble.as_ref() != Some(&text) {
        state.trouble = Some(text);
        state.version += 1;
        state.overview_at = state.version;
    }
    state.look();
    drop(state);
    hub.changed.notify(usize::MAX);
}

async fn snapshot(
    hub: &Hub,
    view: &View,
    client: &PipelineClient,
    round: u64,
) -> Result<(), ClientError> {
    let stats = client.stats().await?;
    // A manager that was started again says when; asked for now and then. Its epoch tells
    // less: it may be raised in between.
    let known = view.lock().info.is_some();
    let was_lost = view.lock().age_ms().is_none_or(|age| age > 1500);
    if !known || was_lost || round.is_multiple_of(5) {
        let info = client.info().await?;
        let mut state = view.lock();
        let other = state
            .info
            .as_ref()
            .is_some_and(|old| (old.manager, old.started_at) != (info.manager, info.started_at));
        if other {
            state.begin_anew();
        }
        if !known || other {
            state.past_due = PAST_TIMES;
        } else if was_lost {
            state.past_due = 1;
        }
        let pipeline = info.pipeline.to_string();
        let unnamed = state.key.is_empty();
        state.take_info(info);
        drop(state);
        if unnamed {
            hub.name(view, &pipeline);
        }
    }
    let past_due = view.lock().past_due;
    if past_due > 0 {
        view.lock().past_due = past_due - 1;
        take_recent(hub, view, client).await;
    }
    let many = view.lock().workers.len() > MANY_WORKERS;
    if !many || round.is_multiple_of(5) {
        let workers = client.workers().await?;
        view.lock().take_workers(workers);
    }
    let since = view
        .lock()
        .points
        .back()
        .map(|last| Timestamp(last.at.as_micros() + 1));
    let series = client.series(Step::Second, since, 60).await?;
    let mut state = view.lock();
    state.take_series(&series);
    state.take_stats(stats);
    drop(state);
    hub.changed.notify(usize::MAX);
    Ok(())
}

/// Takes up what the manager still knows of its events from before this looked at it. A
/// manager that cannot tell, of an earlier version, leaves that out.
async fn take_recent(hub: &Hub, view: &View, client: &PipelineClient) {
    let mut after = Some(0);
    let mut events = Vec::new();
    for _ in 0..RECENT_PARTS_MAX {
        let Some(from) = after else { break };
        match client.recent_events(from).await {
            Ok(recent) => {
                events.extend(recent.events);
                after = recent.next;
            }
            Err(error) => {
                log::debug!("earlier events are not known: {error}");
                break;
            }
        }
    }
    hub.take_recent(view, events);
}

/// Follows the events at the pub addresses that the manager itself names.
async fn follow_own(hub: &Hub, view: &View, options: &WebOptions) {
    loop {
        let addresses = loop {
            let changed = hub.changed.listen();
            let info = view.lock().info.clone();
            match info.map(|info| publish_addresses(&info, &view.address)) {
                Some(addresses) if !addresses.is_empty() => break addresses,
                _ => changed.await,
            }
        };
        let moved = async {
            loop {
                let changed = hub.changed.listen();
                let info = view.lock().info.clone();
                let now = info.map(|info| publish_addresses(&info, &view.address));
                if now.is_some_and(|now| now != addresses) {
                    return;
                }
                changed.await;
            }
        };
        future::or(moved, follow(hub, &addresses, &options.limits)).await;
        Timer::after(SNAPSHOT_MIN).await;
    }
}

/// Follows the events at some addresses.
pub(crate) async fn follow(hub: &Hub, addresses: &[Address], limits: &Limits) {
    let mut stream = match EventStream::subscribe(addresses, [""], limits.clone()).await {
        Ok(stream) => stream,
        Err(error) => {
            log::warn!("the web interface cannot follow events: {error}");
            return;
        }
    };
    while let Ok(notice) = stream.next().await {
        match notice {
            Notice::Events { events, .. } => hub.take_events(events),
            Notice::Gap { .. } => {
                for view in &hub.views {
                    view.wanted.notify(usize::MAX);
                }
            }
        }
        // Others have their turn in a flood.
        future::yield_now().await;
    }
}

/// The manager's pub addresses as seen from here: one that listens on every interface is
/// reached by the host of its api.
fn publish_addresses(info: &ManagerInfo, asked: &Address) -> Vec<Address> {
    let host = match asked {
        Address::Tcp { host, .. } => host.clone(),
        Address::Ipc { .. } => Host::Name("127.0.0.1".to_owned()),
    };
    let addresses = info.publish.iter().map(|address| match address {
        Address::Tcp { host: bound, port } if is_any(bound) => Address::Tcp {
            host: host.clone(),
            port: *port,
        },
        other => other.clone(),
    });
    addresses.collect()
}

fn is_any(host: &Host) -> bool {
    match host {
        Host::Any => true,
        Host::Name(name) => matches!(name.as_str(), "0.0.0.0" | "::" | "[::]"),
    }
}
