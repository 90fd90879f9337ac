//! What `top` knows, and the task that asks for it.

use std::sync::mpsc::Sender;
use std::time::Duration;

use async_channel::Receiver;
use async_std::task;
use carbontube_client::{Changed, ClientError, EventStream, JobType, Notice, PipelineClient};
use carbontube_protocol::message::{
    Event, FailureGroup, Found, JobSearch, ManagerInfo, Selector, Series, Stats, Step, WorkerView,
};
use carbontube_protocol::{Address, Limits, WorkerId};
use futures_lite::future;

use super::super::tail::reachable;

/// How often the state is asked for.
const EVERY: Duration = Duration::from_secs(1);
/// How much of the past is drawn, in seconds.
const POINTS: u32 = 300;
/// How many jobs are shown.
const JOBS: u32 = 200;
/// The most events that are passed on at once; of a flood the last are shown.
const EVENTS_MAX: usize = 200;

/// What to look at besides the pipeline itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Look {
    Pipeline,
    Workers,
    Jobs(Box<JobSearch>),
    Failures,
    Log,
}

/// What a person wants done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Pause(JobType),
    Resume(JobType),
    Drain(WorkerId),
    Retry(Selector),
    Cancel(Selector),
    Discard(Selector),
}

/// From the screen to the asker.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    Look(Look),
    Do(Box<Action>),
}

/// The whole state at one moment.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) info: ManagerInfo,
    pub(super) stats: Stats,
    pub(super) series: Series,
    pub(super) workers: Vec<WorkerView>,
    pub(super) found: Found,
    pub(super) failures: Vec<FailureGroup>,
}

/// From the asker to the screen.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Picture(Box<Picture>),
    Events {
        events: Vec<Event>,
        left_out: u64,
    },
    /// An action was done.
    Done {
        changed: u64,
        skipped: u64,
    },
    /// The manager does not answer, or refused an action.
    Trouble(String),
}

/// Asks the manager each second and whenever something else is looked at.
pub(super) struct Asker {
    client: PipelineClient,
    api: Vec<Address>,
    told: Sender<Told>,
}

enum Turn {
    Wish(Option<Wish>),
    Time,
}

impl Asker {
    pub(super) fn new(client: PipelineClient, api: Vec<Address>, told: Sender<Told>) -> Asker {
        Asker { client, api, told }
    }

    /// Runs until the screen is gone.
    pub(super) async fn run(self, wishes: Receiver<Wish>) {
        task::spawn(follow(self.api.clone(), self.told.clone()));
        let mut look = Look::Pipeline;
        loop {
            let told = match self.picture(&look).await {
                Ok(picture) => Told::Picture(Box::new(picture)),
                Err(error) => Told::Trouble(error.to_string()),
            };
            if self.told.send(told).is_err() {
                return;
            }
            let wish = async { Turn::Wish(wishes.recv().await.ok()) };
            let time = async {
                task::sleep(EVERY).await;
                Turn::Time
            };
            match future::or(wish, time).await {
                Turn::Time => {}
                Turn::Wish(None) => return,
                Turn::Wish(Some(Wish::Look(other))) => look = other,
                Turn::Wish(Some(Wish::Do(action))) => {
                    let told = match self.act(*action).await {
                        Ok(Changed { count, skipped }) => Told::Done {
                            changed: count,
                            skipped,
                        },
                        Err(error) => Told::Trouble(error.to_string()),
                    };
                    if self.told.send(told).is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn picture(&self, look: &Look) -> Result<Picture, ClientError> {
        let client = &self.client;
        Ok(Picture {
            info: client.info().await?,
            stats: client.stats().await?,
            series: client.series(Step::Second, None, POINTS).await?,
            workers: match look {
                Look::Workers => client.workers().await?,
                _ => Vec::new(),
            },
            found: match look {
                Look::Jobs(search) => client.search((**search).clone(), None, JOBS).await?,
                _ => Found::default(),
            },
            failures: match look {
                Look::Failures => client.failures().await?,
                _ => Vec::new(),
            },
        })
    }

    async fn act(&self, action: Action) -> Result<Changed, ClientError> {
        match action {
            Action::Pause(phase) => self.client.pause(Some(phase)).await,
            Action::Resume(phase) => self.client.resume(Some(phase)).await,
            Action::Drain(worker) => self.client.drain(Some(worker)).await,
            Action::Retry(jobs) => self.client.retry(jobs).await,
            Action::Cancel(jobs) => self.client.cancel(jobs).await,
            Action::Discard(jobs) => self.client.discard(jobs).await,
        }
    }
}

/// Follows the manager's events, from wherever it says they are.
async fn follow(api: Vec<Address>, told: Sender<Told>) {
    let Ok(addresses) = reachable(&api, None).await else {
        return;
    };
    let Ok(mut stream) = EventStream::subscribe(&addresses, [""], Limits::default()).await else {
        return;
    };
    while let Ok(notice) = stream.next().await {
        let told_now = match notice {
            Notice::Gap { missed, .. } => Told::Events {
                events: Vec::new(),
                left_out: missed,
            },
            Notice::Events { events, .. } => {
                let over = events.events.len().saturating_sub(EVENTS_MAX);
                Told::Events {
                    left_out: events.dropped + over as u64,
                    events: events.events.into_iter().skip(over).collect(),
                }
            }
        };
        if told.send(told_now).is_err() {
            return;
        }
    }
}
