//! A store in a Redis server, for journals that more than one machine can reach.
//!
//! Everything of a pipeline is under `carbontube:{PIPELINE}:` (the braces keep
//! it on one node of a cluster):
//!
//! ```text
//! head      the head
//! journal   a hash, sequence number → framed page
//! history   a hash, sequence number → framed page
//! claim     a hash: epoch, counted up whenever the journal is opened; by, who opened it last
//! owner     who has the journal open; expires unless it is renewed
//! ```
//!
//! Invariant: each change is one script, and the script checks the claim. A
//! manager whose claim is no longer the latest can change nothing, however
//! late its script arrives; and because reopening makes a new claim, a commit
//! that was cut off can't happen any more once reopening has looked for it.
//!
//! Every call to the server has a deadline.

mod link;
mod password;
mod scripts;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use self::link::{Durability, Link};
use crate::error::{Damage, StoreError};
use crate::open::{OpenMode, OpenOptions, new_identity};
use crate::page::{Log, PageSeq};
use crate::paged::{Backend, Batch, PagedStore, VisitFrame};
use crate::uri::RedisUri;

/// How long a manager that is gone keeps others from taking its journal.
const LEASE: Duration = Duration::from_secs(5);

/// Pages asked for in one call: 64 of the largest are about 5 MB.
const PAGES_AT_ONCE: usize = 64;

/// A page store in a Redis server.
#[derive(Debug)]
pub struct Redis {
    server: RedisUri,
    keys: Keys,
    place: String,
    /// Who we are, different for each store that was ever opened.
    token: String,
    link: Option<Link>,
    epoch: Option<u64>,
    /// The head as we stored it last; a commit replaces exactly this one.
    head: Vec<u8>,
    durability: Durability,
    warnings: Vec<String>,
    renewal: Option<Renewal>,
}

/// The names of a pipeline's keys.
#[derive(Clone, Debug)]
struct Keys {
    owner: String,
    claim: String,
    head: String,
    journal: String,
    history: String,
}

impl Keys {
    fn of(pipeline: &str) -> Keys {
        let key = |name| format!("carbontube:{{{pipeline}}}:{name}");
        Keys {
            owner: key("owner"),
            claim: key("claim"),
            head: key("head"),
            journal: key("journal"),
            history: key("history"),
        }
    }

    fn log(&self, log: Log) -> &str {
        match log {
            Log::Journal => &self.journal,
            Log::History => &self.history,
        }
    }
}

/// Opens the journal of a pipeline, or makes it.
pub(crate) fn open(
    server: &RedisUri,
    options: &OpenOptions,
) -> Result<PagedStore<Redis>, StoreError> {
    let mut redis = Redis::claim(server, &options.pipeline, options.mode)?;
    if redis.is_empty()? {
        return PagedStore::create(redis, new_identity());
    }
    PagedStore::open(redis)
}

impl Redis {
    /// Takes hold of a pipeline's keys, whatever is in them.
    pub(crate) fn claim(
        server: &RedisUri,
        pipeline: &str,
        mode: OpenMode,
    ) -> Result<Redis, StoreError> {
        let mut token = String::new();
        for byte in new_identity() {
            token.push_str(&format!("{byte:02x}"));
        }
        token.push_str(&format!(
            " process {} on {}",
            std::process::id(),
            host_name()
        ));
        let mut redis = Redis {
            server: server.clone(),
            keys: Keys::of(pipeline),
            place: format!("{server} for pipeline {pipeline:?}"),
            token,
            link: None,
            epoch: None,
            head: Vec::new(),
            durability: Durability::default(),
            warnings: Vec::new(),
            renewal: None,
        };
        let mut link = Link::connect(&redis.server, &redis.place)?;
        if mode == OpenMode::Existing && redis.holds_nothing(&mut link)? {
            return Err(StoreError::Missing {
                place: redis.place.clone(),
            });
        }
        redis.durability = link.durability()?;
        redis.warnings = redis.durability.warnings();
        redis.take(link)?;
        redis.renewal = Some(Renewal::start(&redis)?);
        Ok(redis)
    }

    /// Whether no journal was ever stored under these keys.
    pub(crate) fn is_empty(&mut self) -> Result<bool, StoreError> {
        let mut link = self.link.take().ok_or_else(closed)?;
        let empty = self.holds_nothing(&mut link);
        self.link = Some(link);
        empty
    }

    fn holds_nothing(&self, link: &mut Link) -> Result<bool, StoreError> {
        let keys = [&self.keys.head, &self.keys.journal, &self.keys.history];
        Ok(link.exists(&keys)? == 0)
    }

    /// Makes a new claim over this connection and reads the head.
    fn take(&mut self, mut link: Link) -> Result<(), StoreError> {
        let claimed = link.claim(&self.keys, &self.token, self.epoch, LEASE)?;
        self.epoch = Some(claimed);
        self.head = link.get(&self.keys.head)?.unwrap_or_default();
        self.link = Some(link);
        Ok(())
    }

    fn link(&mut self) -> Result<&mut Link, StoreError> {
        self.link.as_mut().ok_or_else(closed)
    }
}

fn closed() -> StoreError {
    StoreError::Poisoned {
        cause: "its connection is closed".to_owned(),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "an unnamed host".to_owned(),
        name => name.to_owned(),
    }
}

impl Backend for Redis {
    fn head(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.keys.head.clone();
        self.link()?.get(&key)
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let epoch = self.epoch.ok_or_else(closed)?;
        let link = self.link.as_mut().ok_or_else(closed)?;
        link.commit(&self.keys, &self.token, epoch, LEASE, &self.head, batch)?;
        if self.durability.needs_confirmation() {
            link.wait_for_disk()?;
        }
        self.head.clone_from(&batch.head);
        Ok(())
    }

    fn page(&mut self, log: Log, seq: PageSeq) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.keys.log(log).to_owned();
        let mut pages = self.link()?.pages(&key, &[seq])?;
        Ok(pages.pop().flatten())
    }

    fn pages(
        &mut self,
        log: Log,
        from: PageSeq,
        visit: &mut VisitFrame<'_>,
    ) -> Result<(), StoreError> {
        let key = self.keys.log(log).to_owned();
        let place = self.place.clone();
        let mut seqs = BTreeSet::new();
        for field in self.link()?.fields(&key)? {
            let seq = std::str::from_utf8(&field)
                .ok()
                .and_then(|text| text.parse().ok());
            let Some(seq) = seq else {
                return Err(StoreError::damaged(&place)(Damage::Other {
                    what: format!(
                        "among the pages of the {log} is {:?}",
                        String::from_utf8_lossy(&field)
                    ),
                }));
            };
            seqs.insert(PageSeq(seq));
        }
        let wanted: Vec<PageSeq> = seqs.range(from..).copied().collect();
        for some in wanted.chunks(PAGES_AT_ONCE) {
            let pages = self.link()?.pages(&key, some)?;
            for (seq, page) in some.iter().zip(pages) {
                // Gone between the two calls: what verifies us will miss it.
                let Some(page) = page else { continue };
                if let ControlFlow::Break(()) = visit(*seq, &page)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn bytes(&mut self) -> Result<u64, StoreError> {
        let keys = [
            self.keys.head.clone(),
            self.keys.journal.clone(),
            self.keys.history.clone(),
        ];
        let link = self.link()?;
        let mut bytes = 0;
        for key in keys {
            bytes += link.memory_usage(&key)?;
        }
        Ok(bytes)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.link = None;
        let mut link = Link::connect(&self.server, &self.place)?;
        let durability = link.durability()?;
        if durability.is_weaker_than(&self.durability) {
            // Jobs were confirmed on what it promised, and no one reads a warning now.
            return Err(StoreError::Unavailable {
                place: self.place.clone(),
                reason: format!(
                    "it promises less than when it was opened: {}; or open it anew to accept that",
                    durability.warnings().join("; ")
                ),
            });
        }
        self.durability = durability;
        self.take(link)?;
        if self.durability.needs_confirmation() {
            // What is found may have been stored but not have reached the disk.
            self.link()?.wait_for_disk()?;
        }
        Ok(())
    }

    fn place(&self) -> &str {
        &self.place
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.renewal.take());
        if let Some(mut link) = self.link.take()
            && let Err(error) = link.release(&self.keys, &self.token)
        {
            log::debug!("the lease of {} runs out by itself: {error}", self.place);
        }
    }
}

/// A thread that renews the lease, also while there is nothing to commit.
#[derive(Debug)]
struct Renewal {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewal {
    fn start(redis: &Redis) -> Result<Renewal, StoreError> {
        let (stop, stopped) = mpsc::channel();
        let (server, place) = (redis.server.clone(), redis.place.clone());
        let (keys, token) = (redis.keys.clone(), redis.token.clone());
        let renew = move || {
            let mut link = None;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LEASE / 4) {
                let renewed = match link.take() {
                    Some(link) => Ok(link),
                    None => Link::connect(&server, &place),
                }
                .and_then(|mut link: Link| {
                    link.renew(&keys, &token, LEASE)?;
                    Ok(link)
                });
                match renewed {
                    Ok(good) => link = Some(good),
                    // The next commit meets the same trouble and reports it.
                    Err(error) => log::debug!("the lease could not be renewed: {error}"),
                }
            }
        };
        let thread = thread::Builder::new()
            .name("carbontube-lease".to_owned())
            .spawn(renew)
            .map_err(|source| StoreError::Io {
                action: "start the thread that renews the lease".to_owned(),
                source,
            })?;
        Ok(Renewal {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It contains nothing that panics, and there is nothing to do if it did.
            let _ = thread.join();
        }
    }
}
