//! The workers that the manager knows, and the pipes to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use carbontube_protocol::message::{HeldState, WorkerStatus};
use carbontube_protocol::{Address, AttemptId, Codec, JobId, Timestamp, WorkerId};

use super::adoption::Known;
use super::effect::{PipeId, RecordSeq};
use super::epochs::Elsewhere;

/// An attempt that is counted with a worker.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) job: JobId,
    pub(super) phase: u16,
    /// The pipe's sequence number of the message that carries it; 0 when adopted.
    pub(super) sequence: u64,
    pub(super) after: RecordSeq,
    /// When it was dispatched or adopted.
    pub(super) given_at: Timestamp,
    /// The same, or since when it could have been on its way at the earliest.
    pub(super) since: Timestamp,
    pub(super) reported: Option<HeldState>,
    /// How many heartbeats in a row did not name it.
    pub(super) missed: u32,
    /// The sequence number of the recall that is under way.
    pub(super) recalled: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) phase: u16,
    pub(super) address: Address,
    pub(super) shared: bool,
    pub(super) original: bool,
    pub(super) pipe: PipeId,
    /// Whether it has announced itself since this start.
    pub(super) heard: bool,
    /// The journal names it at this address.
    pub(super) vouched: bool,
    /// What the journal knows of it; none while it cannot hold an attempt.
    pub(super) known: Option<Known>,
    pub(super) slots: u32,
    pub(super) draining: bool,
    /// It was asked to drain; asked again until its heartbeats say that it does.
    pub(super) drain_asked: bool,
    pub(super) lost: bool,
    pub(super) attempts: BTreeMap<AttemptId, Held>,
    /// For results that it gave: what they decided is durable once this record is.
    pub(super) decided: VecDeque<RecordSeq>,
    /// A job that may have taken workers down runs here alone.
    pub(super) quarantine: Option<AttemptId>,
    /// It handed work back because it is full: no more until then.
    pub(super) full_until: Timestamp,
    /// How far it received what is sent on its pipe, as it says.
    pub(super) received: u64,
    /// It was shown to receive there: it knew the number of a message.
    pub(super) proven: bool,
    /// In how many heartbeats in a row it lacked what it should have received.
    pub(super) lacking: u32,
    /// When another worker was shown to live at its address.
    pub(super) replaced_at: Option<Timestamp>,
    /// It follows another life of this manager.
    pub(super) elsewhere: Option<Elsewhere>,
    /// When it was last greeted since it follows another life, or another one greeted it.
    pub(super) greeted_at: Option<Timestamp>,
    pub(super) last_seen: Timestamp,
    pub(super) started_at: Timestamp,
    pub(super) success_count: u64,
    pub(super) failed_count: u64,
    pub(super) host: String,
    pub(super) pid: u32,
    pub(super) version: String,
}

impl Worker {
    pub(super) fn held(&self) -> u32 {
        u32::try_from(self.attempts.len()).unwrap_or(u32::MAX)
    }

    /// Whether it ignores what it is sent, since it follows a later life of this manager.
    pub(super) fn is_deaf(&self) -> bool {
        self.elsewhere.is_some_and(|elsewhere| elsewhere.is_deaf())
    }

    /// How many attempts a manager that is killed now might not know the end of.
    pub(super) fn undecided(&mut self, durable: RecordSeq) -> u32 {
        self.forget_durable(durable);
        let decided = u32::try_from(self.decided.len()).unwrap_or(u32::MAX);
        self.held().saturating_add(decided)
    }

    /// What is durable is known to whoever comes after.
    pub(super) fn forget_durable(&mut self, durable: RecordSeq) {
        while self
            .decided
            .front()
            .is_some_and(|record| *record <= durable)
        {
            self.decided.pop_front();
        }
    }

    /// Takes an attempt off it.
    pub(super) fn release(&mut self, attempt: AttemptId) -> Option<Held> {
        if self.quarantine == Some(attempt) {
            self.quarantine = None;
        }
        self.attempts.remove(&attempt)
    }

    /// The attempts that may not have started: reported queued, or beyond the slots in
    /// the order of dispatch and not reported running.
    pub(super) fn queued(&self) -> impl DoubleEndedIterator<Item = AttemptId> + '_ {
        let slots = self.slots as usize;
        self.attempts
            .iter()
            .enumerate()
            .filter(move |(index, (_, held))| match held.reported {
                Some(HeldState::Queued) => true,
                Some(_) => false,
                None => *index >= slots,
            })
            .filter(|(_, (_, held))| held.recalled.is_none())
            .map(|(_, (attempt, _))| *attempt)
    }

    /// Whether an attempt may have been running when the worker was lost.
    pub(super) fn may_run(&self, attempt: AttemptId) -> bool {
        let index = self.attempts.keys().position(|found| *found == attempt);
        match self.attempts.get(&attempt).and_then(|held| held.reported) {
            Some(HeldState::Running) => true,
            Some(HeldState::Done) => false,
            _ => index.is_some_and(|index| index < self.slots as usize),
        }
    }
}

/// One PUSH to one address, and the workers behind it.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) address: Address,
    pub(super) up: bool,
    /// When it last came up.
    pub(super) up_since: Timestamp,
    /// The number before its first message. Nobody can guess it, so a worker that names a
    /// number from there on has received it.
    pub(super) start: u64,
    pub(super) sequence: u64,
    /// What the messages given to it so far wait for: a pipe keeps its order, so the next
    /// one leaves no earlier.
    pub(super) after: RecordSeq,
    /// Somebody behind it was shown to receive.
    pub(super) proven: bool,
    /// Several workers live behind it, whatever they say.
    pub(super) shared: bool,
    pub(super) workers: BTreeSet<WorkerId>,
}

#[derive(Debug, Default)]
pub(super) struct Workers {
    pub(super) table: BTreeMap<WorkerId, Worker>,
    pub(super) pipes: BTreeMap<PipeId, Pipe>,
    pub(super) by_address: BTreeMap<Address, PipeId>,
    pub(super) next_pipe: u64,
    /// Workers that said goodbye, until when a heartbeat of theirs may be an old one.
    gone: BTreeMap<WorkerId, Timestamp>,
    gone_order: VecDeque<WorkerId>,
    /// The addresses whose workers speak JSON.
    pub(super) json: BTreeSet<Address>,
    /// Addresses that lead to the manager itself, and until when they are refused.
    pub(super) refused: BTreeMap<Address, Timestamp>,
}

/// How many workers that said goodbye are remembered at once.
const GONE_MAX: usize = 4096;
/// The most addresses remembered in each of these tables.
const ADDRESSES_MAX: usize = 16_384;

impl Workers {
    /// The worker said goodbye: a heartbeat of it that comes soon was sent before. Not for
    /// ever, or one forged goodbye would keep a worker out.
    pub(super) fn remember_gone(&mut self, id: WorkerId, until: Timestamp) {
        if self.gone.insert(id, until).is_none() {
            self.gone_order.push_back(id);
            if self.gone_order.len() > GONE_MAX
                && let Some(oldest) = self.gone_order.pop_front()
            {
                self.gone.remove(&oldest);
            }
        }
    }

    /// Whether the worker has just left.
    pub(super) fn is_gone(&self, id: WorkerId, now: Timestamp) -> bool {
        !self.table.contains_key(&id) && self.gone.get(&id).is_some_and(|until| now < *until)
    }

    pub(super) fn speak(&mut self, address: Address, codec: Codec) {
        match codec {
            Codec::Json => {
                if self.json.len() >= ADDRESSES_MAX && !self.json.contains(&address) {
                    // Nothing is sent to one without a pipe: it speaks again before.
                    let mut all = self.json.iter();
                    let idle = all.find(|it| !self.by_address.contains_key(it)).cloned();
                    let Some(idle) = idle else { return };
                    self.json.remove(&idle);
                }
                self.json.insert(address);
            }
            Codec::Bincode => {
                self.json.remove(&address);
            }
        }
    }

    pub(super) fn codec(&self, address: &Address) -> Codec {
        match self.json.contains(address) {
            true => Codec::Json,
            false => Codec::Bincode,
        }
    }

    pub(super) fn refuse(&mut self, address: Address, until: Timestamp) {
        if self.refused.len() >= ADDRESSES_MAX {
            self.refused.pop_first();
        }
        self.refused.insert(address, until);
    }

    /// Whether what was sent to a worker's address has been received there.
    pub(super) fn is_proven(&self, worker: &Worker) -> bool {
        worker.proven
            || worker.shared && self.pipes.get(&worker.pipe).is_some_and(|pipe| pipe.proven)
    }

    /// Counts no worker's silence from before `since`, except of those that are lost.
    pub(super) fn listen_since(&mut self, since: Timestamp) {
        for worker in self.table.values_mut().filter(|worker| !worker.lost) {
            worker.last_seen = worker.last_seen.max(since);
        }
    }

    pub(super) fn status(&self, worker: &Worker) -> WorkerStatus {
        if worker.lost {
            WorkerStatus::Lost
        } else if worker.draining {
            WorkerStatus::Draining
        } else if worker.is_deaf() {
            WorkerStatus::Connecting
        } else if worker.heard && self.pipes.get(&worker.pipe).is_some_and(|pipe| pipe.up) {
            WorkerStatus::Available
        } else {
            WorkerStatus::Connecting
        }
    }

    pub(super) fn is_usable(&self, worker: &Worker, now: Timestamp) -> bool {
        self.status(worker) == WorkerStatus::Available
            && worker.full_until <= now
            && worker.quarantine.is_none()
    }
}

/// The worker id of one of the original's workers: a stable hash of its own.
pub(crate) fn original_id(text: &str) -> WorkerId {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in text.bytes() {
        hash ^= u128::from(byte);
        hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    WorkerId::from_bytes(hash.to_be_bytes())
}
