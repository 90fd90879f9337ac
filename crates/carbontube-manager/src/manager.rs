//! The manager as its owner sees it: start it, ask where it listens, run it, end it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver as StdReceiver, channel};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use async_std::task::{JoinHandle, spawn, spawn_blocking};
use carbontube_storage::{OpenOptions, Store, StoreError};
use carbontube_transport::{Complaints, Endpoint, Publish, Pull, Router, Subscribe};
use futures_lite::future;

use crate::api::{self, Clients};
use crate::belief::Judge;
use crate::clock::Clock;
use crate::codecs::WorkerCodecs;
use crate::core::{Core, Input};
use crate::engine::{self, Ended, Engine, Surroundings};
use crate::error::{RunError, SocketRole, StartError};
use crate::intake;
use crate::keeper::{self, Keeper};
use crate::options::{ManagerAddresses, ManagerOptions};
use crate::pipes::Pipes;
use crate::publisher::{self, Publisher};
use crate::queue::InputQueue;
use crate::recent::Record;
use crate::reception::Reception;
use crate::round::Round;
use crate::stop::{Stopper, stop};
use crate::tally::Tally;
use crate::watchdog::{self, Beat, Watch};

/// How long a manager waits for the lease of a former one that was killed: a shared store
/// frees it a few seconds later.
const LEASE_WAIT: Duration = Duration::from_secs(12);

/// How long a thread that hangs may hold up the end.
const END_MAX: Duration = Duration::from_secs(10);

/// The most bytes of events that wait for viewers, all of them together. A viewer that
/// misses some sees the gap and asks anew, so less is held for it than for who asked.
const VIEWERS_BYTES_MAX: usize = 16 << 20;

/// A manager that serves one pipeline.
#[derive(Debug)]
pub struct Manager {
    addresses: ManagerAddresses,
    handle: ManagerHandle,
    stops: Receiver<Ending>,
    queue: Arc<InputQueue>,
    stopper: Stopper,
    publisher: Publisher,
    ended: Receiver<Option<Box<Ended>>>,
    fatal: StdReceiver<RunError>,
    tasks: Vec<JoinHandle<()>>,
    watchdog: Watch,
}

/// How the owner wants a manager to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Drain,
    Now,
}

/// Ends a manager, from any task or thread.
#[derive(Clone, Debug)]
pub struct ManagerHandle {
    stops: Sender<Ending>,
}

impl ManagerHandle {
    /// Takes no more jobs, lets what runs finish, then ends the manager.
    pub fn drain(&self) {
        let _ = self.stops.try_send(Ending::Drain);
    }

    /// Ends the manager at once. Everything confirmed is in the journal.
    pub fn stop_now(&self) {
        let _ = self.stops.try_send(Ending::Now);
    }
}

/// What a running manager woke up for.
enum Step {
    Asked(Option<Ending>),
    Ended(Option<Box<Ended>>),
    Late,
}

struct Sockets {
    pull: Pull,
    subscribe: Subscribe,
    api: Router,
    publish: Publish,
}

impl Sockets {
    async fn open(options: &ManagerOptions) -> Result<Sockets, StartError> {
        let socket = |role| move |source| StartError::Socket { role, source };
        let bind = |addresses: &[_]| -> Vec<Endpoint> {
            addresses.iter().cloned().map(Endpoint::Bind).collect()
        };
        let transport = &options.transport;
        let mut viewers = transport.clone();
        viewers.send_all_bytes_max = viewers.send_all_bytes_max.min(VIEWERS_BYTES_MAX);
        Ok(Sockets {
            pull: Pull::open(transport.clone(), options.pull.clone())
                .await
                .map_err(socket(SocketRole::Pull))?,
            subscribe: Subscribe::open(transport.clone(), options.subscribe.clone(), [""])
                .await
                .map_err(socket(SocketRole::Subscribe))?,
            api: Router::open(transport.clone(), bind(&options.api))
                .await
                .map_err(socket(SocketRole::Api))?,
            publish: Publish::open(viewers, bind(&options.publish))
                .await
                .map_err(socket(SocketRole::Publish))?,
        })
    }

    fn addresses(&self) -> ManagerAddresses {
        ManagerAddresses {
            pull: self.pull.local_addresses(),
            subscribe: self.subscribe.local_addresses(),
            api: self.api.local_addresses(),
            publish: self.publish.local_addresses(),
        }
    }
}

impl Manager {
    /// Opens the journal, takes up what it holds, and opens the sockets.
    ///
    /// # Errors
    /// [`StartError`] names the address or the journal that is at fault.
    pub async fn start(options: ManagerOptions) -> Result<Manager, StartError> {
        let uri = options.storage.clone();
        let pipeline = OpenOptions::new(options.definition.name().as_str());
        Self::start_on(options, move || open_patiently(&uri, &pipeline)).await
    }

    /// As [`Manager::start`], on a store of the caller's own.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub async fn start_on(
        options: ManagerOptions,
        open: impl FnOnce() -> Result<Box<dyn Store>, StoreError> + Send + 'static,
    ) -> Result<Manager, StartError> {
        carbontube_transport::init_runtime();
        let clock = Clock::start();
        let (definition, core_options) = (options.definition.clone(), options.core.clone());
        let (store, core) = spawn_blocking(move || {
            let mut store = open().map_err(|source| StartError::Journal { source })?;
            let core = keeper::recover(store.as_mut(), definition, core_options, clock.now())?;
            Ok::<_, StartError>((store, core))
        })
        .await?;
        for warning in store.warnings() {
            log::warn!("{warning}");
        }
        // The journal first: a manager that is refused its journal must not take a port.
        let sockets = Sockets::open(&options).await?;
        Self::serve(options, clock, store, core, sockets)
    }

    fn serve(
        options: ManagerOptions,
        clock: Clock,
        store: Box<dyn Store>,
        core: Core,
        sockets: Sockets,
    ) -> Result<Manager, StartError> {
        let addresses = sockets.addresses();
        let queue = Arc::new(InputQueue::default());
        let tally = Arc::new(Tally::default());
        let clients = Arc::new(Clients::default());
        let beat = Arc::new(Beat::default());
        let (stopper, stop) = stop();
        let (fatal_sender, fatal) = channel();
        let (ended_sender, ended) = async_channel::bounded(1);
        let (answers, answers_receiver) = async_channel::unbounded();
        let (views, told) = (Arc::default(), Arc::default());
        let (publisher, outgoing) = Publisher::new(sockets.publish, tally.clone());
        let limits = options.core.limits.clone();
        let source = publisher::Source {
            manager: core.manager_id(),
            epoch: core.epoch(),
            pipeline: options.definition.name().clone(),
        };
        let place = store.place().to_owned();
        let keeper = Keeper::start(store, queue.clone(), fatal_sender.clone())?;
        let watchdog = watchdog::watch(vec![
            ("core", beat.clone()),
            ("store", keeper.shared().beat.clone()),
        ])
        .map_err(|source| StartError::Thread {
            name: "watch",
            source,
        })?;
        let sender = sockets.api.sender();
        let codecs = Arc::new(WorkerCodecs::default());
        let reception = Arc::new(Reception {
            judge: Judge::new(&addresses, options.transport.resolver.clone()),
            codecs: codecs.clone(),
            queue: queue.clone(),
            tally: tally.clone(),
            parked: Default::default(),
            complaints: Complaints::new(),
        });
        let tasks = vec![
            spawn(intake::pull(
                sockets.pull,
                limits.clone(),
                queue.clone(),
                tally.clone(),
                stop.clone(),
            )),
            spawn(intake::subscribe(
                sockets.subscribe,
                limits.clone(),
                reception,
                stop.clone(),
            )),
            spawn(api::answer(
                sender.clone(),
                answers_receiver,
                (Arc::clone(&views), Arc::clone(&told)),
                clients.clone(),
                queue.clone(),
                tally.clone(),
            )),
            spawn(api::sweep(
                sender,
                clients.clone(),
                queue.clone(),
                stop.clone(),
            )),
            spawn(api::receive(
                sockets.api,
                limits,
                clients.clone(),
                queue.clone(),
                answers.clone(),
                tally.clone(),
                stop,
            )),
            spawn(publisher::run(outgoing, source, tally.clone())),
        ];
        let pipes = Pipes::new(options.transport, codecs, queue.clone(), tally.clone());
        let engine = Engine {
            round: Round::new(core),
            clock,
            queue: queue.clone(),
            beat,
            clients,
            surroundings: Surroundings {
                keeper,
                queue: queue.clone(),
                pipes,
                answers,
                views,
                told,
                publisher: publisher.clone(),
                tally,
                addresses: addresses.clone(),
                place,
                record: Record::default(),
                measured: None,
            },
        };
        engine::spawn(engine, fatal_sender, ended_sender).map_err(|source| StartError::Thread {
            name: "core",
            source,
        })?;
        let (stops_sender, stops) = async_channel::bounded(8);
        Ok(Manager {
            addresses,
            handle: ManagerHandle {
                stops: stops_sender,
            },
            stops,
            queue,
            stopper,
            publisher,
            ended,
            fatal,
            tasks,
            watchdog,
        })
    }

    /// Where the manager listens, with real ports.
    pub fn addresses(&self) -> &ManagerAddresses {
        &self.addresses
    }

    /// What ends the manager.
    pub fn handle(&self) -> ManagerHandle {
        self.handle.clone()
    }

    /// Serves until the manager is drained or stopped.
    ///
    /// # Errors
    /// [`RunError`] when it had to end by itself.
    pub async fn run(self) -> Result<(), RunError> {
        let mut deadline = None;
        let ended = loop {
            let ended = async { Step::Ended(self.ended.recv().await.ok().flatten()) };
            let asked = async { Step::Asked(self.stops.recv().await.ok()) };
            let late = async {
                match deadline {
                    Some(deadline) => Timer::at(deadline).await,
                    None => future::pending().await,
                };
                Step::Late
            };
            match future::or(ended, future::or(asked, late)).await {
                Step::Asked(Some(Ending::Drain)) => self.queue.put_now(Input::Drain),
                Step::Asked(_) => {
                    self.queue.close();
                    deadline.get_or_insert_with(|| Instant::now() + END_MAX);
                }
                Step::Ended(ended) => break ended,
                Step::Late => {
                    log::error!("the core does not end; leaving without it");
                    break None;
                }
            }
        };
        self.queue.close();
        if let Some(ended) = ended {
            let Ended { keeper, mut pipes } = *ended;
            pipes.finish().await;
            // Joins the store's thread, which finishes what was asked for.
            let closed = spawn_blocking(move || keeper.close());
            let late = async {
                Timer::after(END_MAX).await;
                log::error!(
                    "the journal does not close; leaving without it, nothing confirmed is lost"
                );
            };
            future::or(closed, late).await;
        }
        self.publisher.close();
        self.stopper.stop();
        for task in self.tasks {
            task.await;
        }
        drop(self.watchdog);
        self.fatal.try_recv().map_or(Ok(()), Err)
    }
}

/// Opens the store, and waits for the lease of a former manager where there is one.
fn open_patiently(uri: &str, options: &OpenOptions) -> Result<Box<dyn Store>, StoreError> {
    let deadline = Instant::now() + LEASE_WAIT;
    let mut told = false;
    loop {
        match carbontube_storage::open(uri, options) {
            // A folder's lock goes with its process; a lease outlives it by some seconds.
            Err(StoreError::Locked { place, holder })
                if uri.starts_with("redis:") && Instant::now() < deadline =>
            {
                if !told {
                    log::info!(
                        "the journal at {place} is in use by {holder}; waiting for its lease to end"
                    );
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            result => return result,
        }
    }
}
