//! What workers announce, on its way to the lobby: whether its address is believed, and
//! the look-up of its host's name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_io::Timer;
use carbontube_protocol::original::OriginalEvent;
use carbontube_protocol::{Address, Codec, Harmless, WorkerId};
use carbontube_transport::{Complaints, Origin};
use futures_lite::future;

use crate::belief::{Belief, Judge};
use crate::codecs::WorkerCodecs;
use crate::core::{Input, original_id};
use crate::lobby::Put;
use crate::queue::{InputQueue, QueueClosed};
use crate::tally::Tally;

/// The most heartbeats that wait until a name is looked up. Of others the next one counts.
const PARKED_MAX: usize = 1024;
/// How long they wait at most: the next ones came meanwhile.
const PARKED_TIME_MAX: Duration = Duration::from_secs(5);

/// What an event announces: who, and where.
pub(crate) fn announcement(input: &Input) -> Option<(WorkerId, Address)> {
    match input {
        Input::Heartbeat(beat) => Some((beat.worker, beat.address.clone())),
        Input::OriginalEvent(OriginalEvent::Available { id, address, .. }) => {
            Some((original_id(id), address.clone()))
        }
        _ => None,
    }
}

/// An announcement that came in.
#[derive(Debug)]
pub(crate) struct Announced {
    pub(crate) origin: Origin,
    pub(crate) worker: WorkerId,
    pub(crate) address: Address,
    /// None for the original's workers.
    pub(crate) codec: Option<Codec>,
    pub(crate) input: Input,
    pub(crate) bytes: usize,
}

/// Where announcements come in.
#[derive(Debug)]
pub(crate) struct Reception {
    pub(crate) judge: Judge,
    pub(crate) codecs: Arc<WorkerCodecs>,
    pub(crate) queue: Arc<InputQueue>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) parked: Mutex<BTreeSet<WorkerId>>,
    pub(crate) complaints: Complaints,
}

impl Reception {
    /// Takes in what is no announcement: log lines and progress. Those of trusted workers
    /// wait for room, others are left out when there is little.
    pub(crate) async fn pass(&self, input: Input, bytes: usize) -> Result<(), QueueClosed> {
        let worker = match &input {
            Input::Logs(logs) => Some(logs.worker),
            Input::Progress(progress) => Some(progress.worker),
            _ => None,
        };
        if worker.is_some_and(|worker| self.queue.is_trusted(worker)) {
            return self.queue.put(input, bytes).await;
        }
        if !self.queue.put_if_roomy(input, bytes)? {
            self.tally.strangers_events_dropped.bump();
        }
        Ok(())
    }

    /// Takes in an announcement; never waits.
    pub(crate) fn receive(self: &Arc<Self>, announced: Announced) -> Result<(), QueueClosed> {
        let Announced {
            origin,
            worker,
            address,
            ..
        } = &announced;
        if self.queue.is_trusted_at(*worker, address) {
            return self.admit(announced);
        }
        match self.judge.judge(address, origin) {
            Belief::Believed => self.admit(announced),
            Belief::Unknown(name) => {
                self.look_up(name, announced);
                Ok(())
            }
            Belief::Refused(why) => {
                self.refuse(&announced, why);
                Ok(())
            }
        }
    }

    fn refuse(&self, announced: &Announced, why: &str) {
        self.tally.addresses_not_believed.bump();
        let host = announced.origin.host;
        let host = host.map_or_else(|| "ipc".to_owned(), |host| host.to_string());
        if let Some(hidden) = self.complaints.admit(&host) {
            log::warn!(
                "{host} announces a worker at {}, which is not believed: {why} ({hidden} not shown)",
                Harmless(&announced.address)
            );
        }
    }

    fn admit(&self, announced: Announced) -> Result<(), QueueClosed> {
        let Announced {
            origin,
            worker,
            address,
            codec,
            input,
            bytes,
        } = announced;
        // The core forgets a codec with the last pipe, which the shell closes a little later.
        let news = codec.filter(|codec| {
            let is_new = self.codecs.heard(&address, *codec);
            is_new || *codec == Codec::Json
        });
        let mut inputs = Vec::with_capacity(2);
        inputs.extend(news.map(|codec| Input::Codec {
            address: address.clone(),
            codec,
        }));
        inputs.push(input);
        match self
            .queue
            .announce(origin, (worker, &address), inputs, bytes)?
        {
            Put::Waits => {}
            Put::Merged => self.tally.heartbeats_merged.bump(),
            Put::Displaced(count) => self.tally.heartbeats_displaced.add(count),
        }
        Ok(())
    }

    /// Has a name looked up, and takes the announcement in afterwards.
    fn look_up(self: &Arc<Self>, name: String, announced: Announced) {
        let resolver = self.judge.resolver().clone();
        let worker = announced.worker;
        {
            let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            if parked.contains(&worker) || parked.len() >= PARKED_MAX {
                drop(parked);
                // It waits in the line of its own source all the same.
                resolver.ask_for(&name, announced.origin);
                return self.tally.heartbeats_unresolved.bump();
            }
            parked.insert(worker);
        }
        let this = self.clone();
        async_std::task::spawn(async move {
            let found = async {
                let _found = resolver.resolve_for(&name, announced.origin).await;
                true
            };
            let late = async {
                Timer::after(PARKED_TIME_MAX).await;
                false
            };
            let in_time = future::or(found, late).await;
            let mut parked = this.parked.lock().unwrap_or_else(PoisonError::into_inner);
            parked.remove(&worker);
            drop(parked);
            let belief = this.judge.judge(&announced.address, &announced.origin);
            match belief {
                Belief::Refused(why) => this.refuse(&announced, why),
                Belief::Believed if in_time => {
                    let _closed = this.admit(announced);
                }
                _ => {
                    this.tally.heartbeats_unresolved.bump();
                    if let Some(hidden) = this.complaints.admit("names") {
                        log::warn!(
                            "the name {} of a worker's host is not found in time; no server \
                             answers, or too many names wait ({hidden} not shown)",
                            Harmless(&name)
                        );
                    }
                }
            }
        });
    }
}
