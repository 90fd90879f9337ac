//! The event stream: heartbeats, log lines and progress, numbered in one sequence.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carbontube_protocol::message::{Heartbeat, Logs, Progress};
use carbontube_protocol::{Address, Codec, JobType, Message, WorkerId, encode_event};
use carbontube_transport::Publish;
use futures_lite::future;

use crate::shared::{Shared, sleep};
use crate::telemetry::PACE;

/// The subscriber's subscription comes some time after its connection: heartbeats at
/// once, and this often, until then.
const AFTER_CONNECTION: u32 = 3;

/// What does not change in heartbeats.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) worker: WorkerId,
    pub(crate) job_type: JobType,
    pub(crate) address: Address,
    pub(crate) shared_address: bool,
    pub(crate) slots: u32,
    pub(crate) host: String,
    pub(crate) pid: u32,
}

/// Publishes until the worker ends; the last heartbeat goes out before that.
pub(crate) async fn publish(shared: Arc<Shared>, publish: Publish, identity: Identity) {
    let mut stream = Stream {
        topics: Topics::new(&identity.job_type),
        shared,
        publish,
        identity,
        sequence: 0,
    };
    let mut next_heartbeat = Instant::now();
    let mut connections = 0;
    let mut repeats = 0;
    loop {
        let ended = stream.shared.is_ended();
        let dialled = stream.publish.counters().connections_dialled;
        if dialled != connections {
            connections = dialled;
            repeats = AFTER_CONNECTION;
        }
        let wanted = stream.shared.heartbeat_wanted.swap(false, Ordering::AcqRel);
        if wanted || repeats > 0 || ended || Instant::now() >= next_heartbeat {
            repeats = repeats.saturating_sub(1);
            let interval = stream.heartbeat();
            next_heartbeat = Instant::now() + interval;
        }
        stream.telemetry();
        if ended {
            break;
        }
        stream.wait(next_heartbeat).await;
    }
    let linger = if stream.shared.is_stop_wanted() {
        Duration::ZERO
    } else {
        Duration::from_secs(1)
    };
    stream.publish.close(linger).await;
}

struct Topics {
    available: String,
    logs: String,
    progress: String,
}

impl Topics {
    fn new(job_type: &JobType) -> Self {
        Topics {
            available: "available".to_owned(),
            logs: format!("{job_type}:logs"),
            progress: format!("{job_type}:progress"),
        }
    }
}

struct Stream {
    shared: Arc<Shared>,
    publish: Publish,
    identity: Identity,
    topics: Topics,
    sequence: u64,
}

impl Stream {
    /// Publishes a heartbeat; tells when the next is due.
    fn heartbeat(&mut self) -> Duration {
        self.sequence += 1;
        let identity = &self.identity;
        let started_at = self.shared.clock.started_at();
        let (heartbeat, codec, interval) = self.shared.with(|session| {
            let now = self.shared.clock.now();
            session.tick(now);
            let (success_count, failed_count) = session.counts();
            let heartbeat = Heartbeat {
                worker: identity.worker,
                sequence: self.sequence,
                job_type: identity.job_type.clone(),
                address: identity.address.clone(),
                shared_address: identity.shared_address,
                slots: identity.slots,
                state: session.state(),
                managers: session.held(),
                success_count,
                failed_count,
                host: identity.host.clone(),
                pid: identity.pid,
                started_at,
                version: format!("carbontube {}", env!("CARGO_PKG_VERSION")),
            };
            (heartbeat, session.codec(), session.heartbeat_interval())
        });
        self.put(&self.topics.available, &heartbeat.into(), codec);
        interval
    }

    fn telemetry(&mut self) {
        let round = self.shared.output.telemetry.take();
        if round.is_empty() {
            return;
        }
        let codec = self.shared.with(|session| session.codec());
        if !round.lines.is_empty() || round.dropped > 0 {
            self.sequence += 1;
            let logs = Logs {
                worker: self.identity.worker,
                sequence: self.sequence,
                job_type: self.identity.job_type.clone(),
                lines: round.lines,
                dropped: round.dropped,
            };
            self.put(&self.topics.logs, &logs.into(), codec);
        }
        if !round.progress.is_empty() {
            self.sequence += 1;
            let progress = Progress {
                worker: self.identity.worker,
                sequence: self.sequence,
                job_type: self.identity.job_type.clone(),
                items: round.progress.into_values().collect(),
            };
            self.put(&self.topics.progress, &progress.into(), codec);
        }
    }

    fn put(&self, topic: &str, message: &Message, codec: Codec) {
        self.publish.send(encode_event(topic, message, codec));
    }

    /// Waits until something is due; no longer than a round, so that a new connection is seen.
    async fn wait(&self, next_heartbeat: Instant) {
        let wanted = self.shared.heartbeat.listen();
        if self.shared.heartbeat_wanted.load(Ordering::Acquire) || self.shared.is_ended() {
            return;
        }
        let round = next_heartbeat
            .saturating_duration_since(Instant::now())
            .min(PACE);
        future::or(wanted, sleep(round)).await;
    }
}
