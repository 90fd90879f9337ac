//! What a node acts through, and the agenda of what happens when.

use std::collections::BTreeMap;
use std::time::Duration;

use carbontube_protocol::Timestamp;
use fastrand::Rng;

use crate::network::{Direction, LinkId, Network, NodeId};
use crate::oracle::Oracle;
use crate::parameters::Parameters;
use crate::trace::Trace;

/// What a world's nodes share.
#[derive(Debug)]
pub struct Context {
    /// Virtual time. A node's own clock may be off by some.
    pub now: Timestamp,
    /// The world's only source of chance.
    pub random: Rng,
    /// What was drawn for this world.
    pub parameters: Parameters,
    /// All connections.
    pub network: Network,
    /// What happens next.
    pub agenda: Agenda,
    /// What clients were told and phases did.
    pub oracle: Oracle,
    /// The lines of what happened.
    pub trace: Trace,
    /// How often what happened, faults among them.
    pub counts: Counts,
    /// Whether the time of faults is over: nobody fails, hangs or lies any more.
    pub healed: bool,
}

/// Something that is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A dialled link tries to connect.
    Dial(LinkId),
    /// The front message of a connection may arrive.
    Arrive {
        /// The link.
        link: LinkId,
        /// Which way.
        direction: Direction,
        /// The connection: a broken one's messages are gone.
        generation: u32,
    },
    /// The far end of a link learns that its connection is gone.
    Broken {
        /// The link.
        link: LinkId,
        /// The connection.
        generation: u32,
    },
    /// A node asked to be woken.
    Wake {
        /// The node.
        node: NodeId,
        /// Its life: a restarted process is not woken for its predecessor.
        life: u64,
        /// What for: the node's own number.
        token: u64,
    },
    /// The world itself: the next fault, the end of one, the time of healing.
    World(u64),
}

/// What is due, in order of time, then of asking.
#[derive(Debug, Default)]
pub struct Agenda {
    due: BTreeMap<(Timestamp, u64), Due>,
    asked: u64,
}

impl Agenda {
    /// Adds something.
    pub fn add(&mut self, at: Timestamp, due: Due) {
        self.asked += 1;
        self.due.insert((at, self.asked), due);
    }

    /// Takes the earliest.
    pub fn pop(&mut self) -> Option<(Timestamp, Due)> {
        self.due.pop_first().map(|((at, _), due)| (at, due))
    }

    /// How much is due.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// One more.
    pub fn bump(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// Some more.
    pub fn add(&mut self, name: &'static str, by: u64) {
        *self.0.entry(name).or_default() += by;
    }

    /// All of another.
    pub fn add_all(&mut self, other: &Counts) {
        for (name, count) in &other.0 {
            self.add(name, *count);
        }
    }

    /// How many.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}

impl Context {
    /// Wakes a node's present life at a time.
    pub fn wake(&mut self, node: NodeId, life: u64, at: Timestamp, token: u64) {
        let at = at.max(self.now);
        self.agenda.add(at, Due::Wake { node, life, token });
    }

    /// True with a probability, and never once the world has healed.
    pub fn fault(&mut self, probability: f64) -> bool {
        !self.healed && self.chance(probability)
    }

    /// True with a probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        // Nothing is drawn for what cannot be, so that a parameter of zero changes nothing else.
        probability > 0.0 && self.random.f64() < probability
    }

    /// A duration between two, more often short than long.
    pub fn duration(&mut self, from: Duration, to: Duration) -> Duration {
        let (from, to) = (micros(from), micros(to).max(micros(from)));
        let spread = (to - from) as f64;
        let skewed = self.random.f64().powi(3) * spread;
        Duration::from_micros(from + skewed as u64)
    }

    /// Notes a line of the trace.
    pub fn note(&mut self, who: NodeId, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, who, what);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
