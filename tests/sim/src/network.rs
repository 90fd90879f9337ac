//! Connections with real frames in them, and what goes wrong with those.
//!
//! A [`Link`] is what a dialling socket is: it tries until it is connected, and again when
//! the connection breaks. On a connection messages keep their order in each direction;
//! connections know nothing of each other. What a link has accepted and not yet written
//! goes to its next connection, as the transport's sockets do it; what was written when
//! the connection broke is lost, or was delivered and is sent again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use carbontube_protocol::{Address, Host, Timestamp};

use crate::context::{Context, Due};
use crate::oracle::Disturbance;

mod away;

use away::Away;

/// A message as it is on the wire.
pub type Frames = Vec<Bytes>;

/// How long what is on the wire of a closed link may take.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// A process, through all its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeId {
    /// The manager.
    Manager,
    /// A worker, by number.
    Worker(usize),
    /// A client, by number.
    Client(usize),
    /// The world: faults, and what it notes itself.
    World,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            NodeId::Manager => "manager".to_owned(),
            NodeId::Worker(number) => format!("worker-{number}"),
            NodeId::Client(number) => format!("client-{number}"),
            NodeId::World => "world".to_owned(),
        };
        f.pad(&text)
    }
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// The manager's PULL.
    Pull,
    /// The manager's SUB.
    Subscribe,
    /// The manager's ROUTER.
    Api,
    /// A worker's PULL.
    Work {
        /// The worker.
        worker: usize,
        /// The port number, which a restarted worker may or may not get again.
        number: u16,
    },
}

impl Port {
    /// Whose port it is.
    pub fn node(self) -> NodeId {
        match self {
            Port::Pull | Port::Subscribe | Port::Api => NodeId::Manager,
            Port::Work { worker, .. } => NodeId::Worker(worker),
        }
    }

    /// The address of a worker's port, as its heartbeats say it.
    pub fn address(self) -> Address {
        match self {
            Port::Pull => Address::tcp("manager", 5050),
            Port::Subscribe => Address::tcp("manager", 6000),
            Port::Api => Address::tcp("manager", 5051),
            Port::Work { worker, number } => Address::tcp(&format!("worker-{worker}"), number),
        }
    }

    /// The port at an address; none when nobody could be there.
    pub fn at(address: &Address) -> Option<Port> {
        let Address::Tcp {
            host: Host::Name(name),
            port: Some(number),
        } = address
        else {
            return None;
        };
        let worker = name.strip_prefix("worker-")?.parse().ok()?;
        Some(Port::Work {
            worker,
            number: *number,
        })
    }
}

/// A dialling socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// Which way a message goes on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the one who dialled.
    Forward,
    /// To the one who dialled.
    Back,
}

/// What a link does with a message that it cannot take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// PUSH and DEALER: refuses it.
    Waits,
    /// PUB: drops it, and loses some besides.
    Drops,
}

/// What became of a message given to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It will be written, on this connection or the next.
    Accepted,
    /// There is no room now; [`LinkChange::Room`] comes when there is.
    Full,
    /// There is no connection now.
    Disconnected,
}

/// What a node is told of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// To the one who dialled: it is connected.
    Up,
    /// To the one who dialled: the connection broke.
    Down,
    /// To the one who dialled: there is room again.
    Room,
    /// To the one who listens: a connection is gone.
    PeerGone,
}

/// Something to tell a node about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whom to tell.
    pub node: NodeId,
    /// Which link.
    pub link: LinkId,
    /// What.
    pub change: LinkChange,
}

/// A message that was given to a link.
#[derive(Clone, Debug)]
struct Given {
    at: Timestamp,
    frames: Frames,
}

/// A message on the wire.
#[derive(Debug)]
struct InFlight {
    arrives_at: Timestamp,
    given: Given,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Wire {
    in_flight: VecDeque<InFlight>,
    last_at: Timestamp,
    /// Nothing arrives.
    cut: bool,
    /// How much longer everything takes.
    slow: Duration,
}

/// What [`Network`] keeps of a link.
#[derive(Debug)]
pub struct Link {
    /// Who dialled.
    pub dialer: NodeId,
    /// Where to; none leads nowhere.
    pub port: Option<Port>,
    kind: LinkKind,
    up: bool,
    /// The peer has gone and nobody here knows yet.
    half_open: bool,
    /// The one who dialled has closed it; what is on the wire may arrive.
    closing: bool,
    generation: u32,
    unwritten: VecDeque<Given>,
    /// The last message that arrived: a break may leave unclear whether it did.
    last_arrived: Option<Frames>,
    /// Since when there was no room for more.
    wanted_room: Option<Timestamp>,
    forward: Wire,
    back: Wire,
}

/// All links and ports.
#[derive(Debug, Default)]
pub struct Network {
    links: BTreeMap<LinkId, Link>,
    last: u64,
    bound: BTreeSet<Port>,
    suspended: BTreeSet<NodeId>,
    manager_away: Away,
    /// Ports whose owner reads nothing from them.
    deaf: BTreeSet<Port>,
    /// What nodes are still to be told.
    pub notices: VecDeque<Notice>,
}

/// A message that arrived.
#[derive(Debug)]
pub struct Arrived {
    /// At whom.
    pub node: NodeId,
    /// By which link.
    pub link: LinkId,
    /// The port it came to; none when it came back to the one who dialled.
    pub port: Option<Port>,
    /// The message.
    pub frames: Frames,
}

impl Network {
    /// Whether a link is connected, as far as the one who dialled knows.
    pub fn is_up(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.up)
    }

    /// All links, in order.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// The links that could be broken or cut now.
    pub fn connected(&self) -> Vec<LinkId> {
        let up = self
            .links
            .iter()
            .filter(|(_, link)| link.up && !link.closing);
        up.map(|(id, _)| *id).collect()
    }

    /// Messages accepted by links or on the wire.
    pub fn pending(&self) -> usize {
        let each = self.links.values();
        each.map(|link| {
            link.unwritten.len() + link.forward.in_flight.len() + link.back.in_flight.len()
        })
        .sum()
    }

    /// Whether a message to the manager or to a worker has been under way for so long.
    pub fn is_late(&self, now: Timestamp, late_after: Duration) -> bool {
        let late = |at: Timestamp| self.manager_away.waited(at, now) > late_after;
        self.links.values().any(|link| {
            let under_way = link.forward.in_flight.iter().map(|message| &message.given);
            !matches!(link.dialer, NodeId::Client(_) | NodeId::World)
                && (under_way.chain(&link.unwritten).any(|given| late(given.at))
                    || link.wanted_room.is_some_and(late))
        })
    }

    /// Whether a port's owner reads from it.
    fn reads(&self, link: &Link, direction: Direction) -> bool {
        let node = match direction {
            Direction::Back => link.dialer,
            Direction::Forward => {
                let Some(port) = link.port else { return false };
                if self.deaf.contains(&port) {
                    return false;
                }
                port.node()
            }
        };
        !self.suspended.contains(&node)
    }

    fn tell(&mut self, node: NodeId, link: LinkId, change: LinkChange) {
        self.notices.push_back(Notice { node, link, change });
    }

    /// Opens a port.
    pub fn bind(&mut self, port: Port) {
        self.bound.insert(port);
        self.deaf.remove(&port);
    }
}

impl Context {
    /// Opens a dialling socket, which begins to try at once.
    pub fn open_link(&mut self, dialer: NodeId, port: Option<Port>, kind: LinkKind) -> LinkId {
        self.network.last += 1;
        let id = LinkId(self.network.last);
        let link = Link {
            dialer,
            port,
            kind,
            up: false,
            half_open: false,
            closing: false,
            generation: 0,
            unwritten: VecDeque::new(),
            last_arrived: None,
            wanted_room: None,
            forward: Wire::default(),
            back: Wire::default(),
        };
        self.network.links.insert(id, link);
        let at = self.now + self.latency();
        self.agenda.add(at, Due::Dial(id));
        id
    }

    fn latency(&mut self) -> Duration {
        let (least, most) = self.parameters.network.latency;
        self.duration(least, most)
    }

    /// A dialling socket tries to connect.
    pub fn dial(&mut self, id: LinkId) {
        let Some(link) = self.network.links.get(&id) else {
            return;
        };
        if link.up || link.closing {
            return;
        }
        let reachable = link.port.is_some_and(|port| {
            self.network.bound.contains(&port) && !self.network.suspended.contains(&port.node())
        }) && !self.network.suspended.contains(&link.dialer);
        let refused = self.fault(self.parameters.network.connect_failure);
        if !reachable || refused {
            let (least, most) = self.parameters.network.reconnect;
            let at = self.now + self.duration(least, most);
            self.agenda.add(at, Due::Dial(id));
            return;
        }
        let Some(link) = self.network.links.get_mut(&id) else {
            return;
        };
        link.up = true;
        link.half_open = false;
        link.generation += 1;
        link.forward = Wire::default();
        link.back = Wire::default();
        let dialer = link.dialer;
        self.network.tell(dialer, id, LinkChange::Up);
        self.write(id);
    }

    /// Gives a link a message.
    pub fn send(&mut self, id: LinkId, frames: Frames) -> Sent {
        let hwm = self.parameters.network.hwm_messages;
        let Some(link) = self.network.links.get_mut(&id) else {
            return Sent::Disconnected;
        };
        let drops = link.kind == LinkKind::Drops;
        if !link.up || link.closing {
            return Sent::Disconnected;
        }
        if link.unwritten.len() >= hwm {
            let now = self.now;
            link.wanted_room.get_or_insert(now);
            if drops {
                self.note_late(id);
            }
            return Sent::Full;
        }
        if drops && self.fault(self.parameters.network.publish_loss) {
            self.counts.bump("fault: an event was lost");
            self.note_late(id);
            return Sent::Accepted;
        }
        let at = self.now;
        if let Some(link) = self.network.links.get_mut(&id) {
            link.unwritten.push_back(Given { at, frames });
        }
        self.write(id);
        Sent::Accepted
    }

    /// Sends back on the connection of a link; dropped when it is gone, which it is for one
    /// that does not read.
    pub fn answer(&mut self, id: LinkId, frames: Frames) -> bool {
        let most = self.parameters.network.wire_messages * 4;
        let latency = self.latency();
        let now = self.now;
        let Some(link) = self.network.links.get_mut(&id) else {
            return false;
        };
        if !link.up || link.half_open {
            return false;
        }
        if link.back.in_flight.len() >= most {
            // The ROUTER lets go of a peer that does not read.
            self.counts.bump("clients that did not read");
            self.break_link(id);
            return false;
        }
        let at = (now + latency + link.back.slow).max(link.back.last_at);
        link.back.last_at = at;
        link.back.in_flight.push_back(InFlight {
            arrives_at: at,
            given: Given { at: now, frames },
        });
        let (generation, direction) = (link.generation, Direction::Back);
        self.agenda.add(
            at,
            Due::Arrive {
                link: id,
                direction,
                generation,
            },
        );
        true
    }

    /// Between these two something was so late, or lost, that one may think the other gone.
    pub fn note_late(&mut self, id: LinkId) {
        let Some(link) = self.network.links.get(&id) else {
            return;
        };
        let (dialer, port) = (link.dialer, link.port);
        for node in [Some(dialer), port.map(Port::node)].into_iter().flatten() {
            self.oracle.disturbed(self.now, node, Disturbance::Network);
        }
    }

    /// Moves what a link has accepted to the wire, as far as there is room.
    fn write(&mut self, id: LinkId) {
        loop {
            let latency = self.latency();
            let (now, most) = (self.now, self.parameters.network.wire_messages);
            let Some(link) = self.network.links.get_mut(&id) else {
                return;
            };
            if !link.up || link.forward.in_flight.len() >= most {
                return;
            }
            let Some(given) = link.unwritten.pop_front() else {
                if let Some(since) = link.wanted_room.take() {
                    let dialer = link.dialer;
                    self.network.tell(dialer, id, LinkChange::Room);
                    if self.network.manager_away.waited(since, now) > self.parameters.late_after() {
                        self.note_late(id);
                    }
                }
                return;
            };
            let at = (now + latency + link.forward.slow).max(link.forward.last_at);
            link.forward.last_at = at;
            link.forward.in_flight.push_back(InFlight {
                arrives_at: at,
                given,
            });
            let (generation, direction) = (link.generation, Direction::Forward);
            self.agenda.add(
                at,
                Due::Arrive {
                    link: id,
                    direction,
                    generation,
                },
            );
        }
    }

    /// The front message of a connection, if it may arrive now.
    pub fn arrive(&mut self, id: LinkId, direction: Direction, generation: u32) -> Option<Arrived> {
        let now = self.now;
        let link = self.network.links.get(&id)?;
        if link.generation != generation || !link.up || link.half_open {
            return None;
        }
        let readable = self.network.reads(link, direction);
        let link = self.network.links.get_mut(&id)?;
        let wire = match direction {
            Direction::Forward => &mut link.forward,
            Direction::Back => &mut link.back,
        };
        if wire.cut || !readable || wire.in_flight.front()?.arrives_at > now {
            return None;
        }
        let Given { at, frames } = wire.in_flight.pop_front()?.given;
        let (node, port) = match direction {
            Direction::Forward => {
                link.last_arrived = Some(frames.clone());
                let port = link.port?;
                (port.node(), Some(port))
            }
            Direction::Back => (link.dialer, None),
        };
        if direction == Direction::Forward {
            if self.network.manager_away.waited(at, now) > self.parameters.late_after() {
                self.note_late(id);
            }
            self.write(id);
            let links = &self.network.links;
            if links
                .get(&id)
                .is_some_and(|link| link.closing && link.forward.in_flight.is_empty())
            {
                self.remove_link(id);
            }
        }
        Some(Arrived {
            node,
            link: id,
            port,
            frames,
        })
    }

    /// Messages that were held up arrive now.
    fn resume(&mut self, id: LinkId) {
        let now = self.now;
        let Some(link) = self.network.links.get_mut(&id) else {
            return;
        };
        let generation = link.generation;
        for (wire, direction) in [
            (&mut link.forward, Direction::Forward),
            (&mut link.back, Direction::Back),
        ] {
            for message in &mut wire.in_flight {
                message.arrives_at = message.arrives_at.max(now);
                self.agenda.add(
                    message.arrives_at,
                    Due::Arrive {
                        link: id,
                        direction,
                        generation,
                    },
                );
            }
            if let Some(last) = wire.in_flight.back() {
                wire.last_at = last.arrives_at;
            }
        }
    }

    /// A connection breaks, with everything that is on the wire. Both sides know at once.
    pub fn break_link(&mut self, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else {
            return;
        };
        if !link.up {
            return;
        }
        if link.closing {
            return self.remove_link(id);
        }
        link.up = false;
        link.half_open = false;
        link.generation += 1;
        let waits = link.kind == LinkKind::Waits;
        let mut written: VecDeque<Given> = std::mem::take(&mut link.forward.in_flight)
            .into_iter()
            .map(|message| message.given)
            .collect();
        let last_arrived = link.last_arrived.take();
        link.forward = Wire::default();
        link.back = Wire::default();
        if waits {
            // The sender does not know exactly how far it came: what it takes for unwritten
            // is sent again, though some may have arrived; the rest is lost.
            let lost = self.random.usize(..=written.len());
            if lost > 0 {
                self.counts.add("fault: a message was lost", lost as u64);
            }
            written.drain(..lost);
            if lost == 0
                && let Some(frames) = last_arrived
                && self.fault(self.parameters.network.repeat)
            {
                self.counts.bump("fault: a message arrived twice");
                let at = self.now;
                written.push_front(Given { at, frames });
            }
            if let Some(link) = self.network.links.get_mut(&id) {
                written.append(&mut link.unwritten);
                link.unwritten = written;
            }
        }
        let Some(link) = self.network.links.get(&id) else {
            return;
        };
        let (dialer, port) = (link.dialer, link.port);
        self.network.tell(dialer, id, LinkChange::Down);
        if let Some(port) = port {
            self.network.tell(port.node(), id, LinkChange::PeerGone);
        }
        let (least, most) = self.parameters.network.reconnect;
        let at = self.now + self.duration(least, most);
        self.agenda.add(at, Due::Dial(id));
    }

    /// The peer is gone without a word: what is written goes nowhere until somebody notices.
    pub fn half_open(&mut self, id: LinkId, lasts: Duration) {
        let at = self.now + lasts;
        let Some(link) = self.network.links.get_mut(&id) else {
            return;
        };
        if link.up && !link.half_open {
            link.half_open = true;
            let generation = link.generation;
            self.agenda.add(
                at,
                Due::Broken {
                    link: id,
                    generation,
                },
            );
        }
    }

    /// Somebody notices that a connection is gone.
    pub fn notice_broken(&mut self, id: LinkId, generation: u32) {
        let link = self.network.links.get(&id);
        if link.is_some_and(|link| link.generation == generation && link.up) {
            self.break_link(id);
        }
    }

    /// Nothing arrives in one direction until [`mend`](Context::mend).
    pub fn cut(&mut self, id: LinkId, direction: Direction) {
        if let Some(link) = self.network.links.get_mut(&id) {
            match direction {
                Direction::Forward => link.forward.cut = true,
                Direction::Back => link.back.cut = true,
            }
        }
    }

    /// Everything takes longer on this connection until [`mend`](Context::mend).
    pub fn slow(&mut self, id: LinkId, by: Duration) {
        if let Some(link) = self.network.links.get_mut(&id) {
            link.forward.slow = by;
            link.back.slow = by;
        }
    }

    /// What was cut or slow is so no more.
    pub fn mend(&mut self, id: LinkId) {
        if let Some(link) = self.network.links.get_mut(&id) {
            for wire in [&mut link.forward, &mut link.back] {
                wire.cut = false;
                wire.slow = Duration::ZERO;
            }
            self.resume(id);
        }
    }

    /// A port's owner stops reading from it, or reads again.
    pub fn set_deaf(&mut self, port: Port, deaf: bool) {
        if deaf {
            self.network.deaf.insert(port);
        } else if self.network.deaf.remove(&port) {
            self.resume_where(|link| link.port == Some(port));
        }
    }

    /// A process is stopped as by SIGSTOP, or goes on.
    pub fn set_suspended(&mut self, node: NodeId, suspended: bool) {
        if node == NodeId::Manager {
            self.network.manager_away.note(suspended, self.now);
        }
        if suspended {
            self.network.suspended.insert(node);
        } else if self.network.suspended.remove(&node) {
            self.resume_where(|link| {
                link.dialer == node || link.port.is_some_and(|port| port.node() == node)
            });
        }
    }

    fn resume_where(&mut self, which: impl Fn(&Link) -> bool) {
        let links = self.network.links.iter().filter(|(_, link)| which(link));
        let ids: Vec<LinkId> = links.map(|(id, _)| *id).collect();
        for id in ids {
            self.resume(id);
        }
    }

    /// Closes a dialling socket. What is on the wire still arrives, as far as the connection
    /// holds; with `linger` what was accepted goes there first.
    pub fn close_link(&mut self, id: LinkId, linger: bool) {
        let latency = self.latency();
        let now = self.now;
        let Some(link) = self.network.links.get_mut(&id) else {
            return;
        };
        link.closing = true;
        link.back.in_flight.clear();
        if !link.up || link.half_open {
            self.network.links.remove(&id);
            return;
        }
        let generation = link.generation;
        let mut last = link.forward.last_at.max(now);
        let unwritten = std::mem::take(&mut link.unwritten);
        if linger {
            for given in unwritten {
                last = last + latency;
                link.forward.in_flight.push_back(InFlight {
                    arrives_at: last,
                    given,
                });
                let direction = Direction::Forward;
                self.agenda.add(
                    last,
                    Due::Arrive {
                        link: id,
                        direction,
                        generation,
                    },
                );
            }
        }
        link.forward.last_at = last;
        if link.forward.in_flight.is_empty() {
            self.remove_link(id);
        } else {
            let at = now + CLOSING_MAX;
            self.agenda.add(
                at,
                Due::Broken {
                    link: id,
                    generation,
                },
            );
        }
    }

    fn remove_link(&mut self, id: LinkId) {
        if let Some(link) = self.network.links.remove(&id)
            && let (true, Some(port)) = (link.up, link.port)
        {
            self.network.tell(port.node(), id, LinkChange::PeerGone);
        }
    }

    /// A process is gone: its own links with everything in them, and its ports.
    /// `silent`: peers do not learn of it before that time is over.
    pub fn node_gone(&mut self, node: NodeId, silent: Option<Duration>) {
        let links = self.network.links.iter();
        let mine: Vec<LinkId> = links
            .filter(|(_, link)| link.dialer == node && !link.closing)
            .map(|(id, _)| *id)
            .collect();
        for id in mine {
            // The kernel still has some of what was written.
            if let Some(link) = self.network.links.get_mut(&id) {
                let kept = self.random.usize(..=link.forward.in_flight.len());
                link.forward.in_flight.truncate(kept);
            }
            self.close_link(id, false);
        }
        self.network.bound.retain(|port| port.node() != node);
        self.network.deaf.retain(|port| port.node() != node);
        self.network.suspended.remove(&node);
        if node == NodeId::Manager {
            self.network.manager_away.note(false, self.now);
        }
        self.network.notices.retain(|notice| notice.node != node);
        let links = self.network.links.iter();
        let to_me: Vec<LinkId> = links
            .filter(|(_, link)| link.port.is_some_and(|port| port.node() == node))
            .map(|(id, _)| *id)
            .collect();
        for id in to_me {
            match silent {
                Some(lasts) => self.half_open(id, lasts),
                None => self.break_link(id),
            }
        }
        self.network.notices.retain(|notice| notice.node != node);
    }
}
