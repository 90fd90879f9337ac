//! A client's process: the real core, with a shell of the simulator's own that gives it
//! virtual links and virtual time, and a user who wants jobs done.
//!
//! The user goes on where it was when the process is started again: it enqueues under the
//! same ids what was not confirmed, as far as the ids are its own. What it is told goes to
//! the oracle, and what it is not told does not.

#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeMap;
use std::time::Duration;

use carbontube_client::ClientOptions;
use carbontube_client::testing::{CallId, Core};
use carbontube_protocol::{Codec, Timestamp};
use fastrand::Rng;

use crate::context::Context;
use crate::network::{Arrived, Frames, LinkChange, LinkId, LinkKind, NodeId, Notice, Port, Sent};
use crate::parameters::ClientParameters;
use user::{Errand, User};

/// What a client is woken for.
mod token {
    pub(super) const TIME: u64 = 0;
    pub(super) const PACE: u64 = 1;
}

/// A client, running or not.
#[derive(Debug)]
pub struct ClientNode {
    number: usize,
    parameters: ClientParameters,
    life: u64,
    process: Option<Process>,
    user: User,
}

#[derive(Debug)]
struct Process {
    me: NodeId,
    life: u64,
    core: Core,
    options: ClientOptions,
    /// By the core's number of a link.
    links: Vec<Link>,
    /// To the pull address.
    push: LinkId,
    timer: Option<Timestamp>,
    errands: BTreeMap<CallId, Errand>,
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    /// What the socket has not accepted yet; it outlives a connection there.
    waiting: Option<Frames>,
}

impl ClientNode {
    /// A client that was never started.
    pub fn new(number: usize, context: &Context) -> ClientNode {
        let parameters = context.parameters.clients[number].clone();
        ClientNode {
            number,
            user: User::new(number, parameters.clone(), context),
            parameters,
            life: 0,
            process: None,
        }
    }

    fn me(&self) -> NodeId {
        NodeId::Client(self.number)
    }

    /// Whether there is a process.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The process's number, counted from 1.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Whether everything is enqueued that was to be, and nobody waits for anything.
    pub fn is_done(&self) -> bool {
        let process = self.process.as_ref();
        self.user.is_done() && process.is_some_and(|process| process.errands.is_empty())
    }

    /// Starts a process.
    pub fn start(&mut self, context: &mut Context) {
        self.life += 1;
        let me = self.me();
        let parameters = &self.parameters;
        // Less than an answer takes would be no timeout, but a client that is of no use.
        let answer = context.parameters.network.latency.1 + context.parameters.manager.sync.1;
        let timeout = parameters.timeout.max(answer * 3);
        let options = ClientOptions {
            timeout,
            absence_max: timeout * 2,
            batch_jobs_max: parameters.batch,
            limits: context.parameters.core.limits.clone(),
            codec: match parameters.json {
                true => Codec::Json,
                false => Codec::Bincode,
            },
            ..ClientOptions::default()
        };
        let links: Vec<Link> = (0..parameters.links)
            .map(|_| Link {
                id: context.open_link(me, Some(Port::Api), LinkKind::Waits),
                waiting: None,
            })
            .collect();
        let addresses = vec![Port::Api.address(); links.len()];
        let rng = Rng::with_seed(context.random.u64(..));
        context.note(me, format_args!("starts"));
        context.counts.bump("client starts");
        self.process = Some(Process {
            me,
            life: self.life,
            core: Core::new(options.clone(), &addresses, rng, context.now),
            options,
            links,
            push: context.open_link(me, Some(Port::Pull), LinkKind::Waits),
            timer: None,
            errands: BTreeMap::new(),
        });
        context.wake(me, self.life, context.now, token::PACE);
    }

    /// The process is gone without a word.
    pub fn kill(&mut self, context: &mut Context, silent: Option<Duration>) {
        if let Some(process) = self.process.take() {
            context.note(process.me, format_args!("is killed"));
            context.node_gone(process.me, silent);
            for errand in process.errands.into_values() {
                self.user.lost(errand);
            }
        }
    }

    /// A message arrived.
    pub fn on_message(&mut self, context: &mut Context, arrived: Arrived) {
        self.act(context, |process, context| {
            if let Some(link) = process.link(arrived.link) {
                let now = context.now;
                process.core.handle_message(link, &arrived.frames, now);
            }
        });
    }

    /// Something changed about a link.
    pub fn on_notice(&mut self, context: &mut Context, notice: Notice) {
        self.act(context, |process, context| {
            let Some(link) = process.link(notice.link) else {
                return;
            };
            let now = context.now;
            match notice.change {
                LinkChange::Up => process.core.handle_connected(link, now),
                LinkChange::Down => {
                    let met = "the connection broke".to_owned();
                    process.core.handle_disconnected(link, met, now);
                }
                LinkChange::Room | LinkChange::PeerGone => {}
            }
        });
    }

    /// It asked to be woken.
    pub fn on_wake(&mut self, context: &mut Context, token: u64) {
        match token {
            token::TIME => self.act(context, |process, context| {
                process.timer = None;
                process.core.handle_time(context.now);
            }),
            token::PACE => {
                if let Some(process) = &mut self.process {
                    self.user.pace(process, context);
                    let (least, most) = self.parameters.pause;
                    let pause = context.duration(least, most).max(self.user.pause_min());
                    if !self.user.is_done() {
                        let at = context.now + pause;
                        context.wake(process.me, process.life, at, token::PACE);
                    }
                }
                self.act(context, |_, _| {});
            }
            _ => {}
        }
    }

    /// Does something, then what the core wants done.
    fn act(&mut self, context: &mut Context, act: impl FnOnce(&mut Process, &mut Context)) {
        let Some(process) = &mut self.process else {
            return;
        };
        act(process, context);
        let was_done = self.user.is_done();
        while let Some((call, news)) = process.core.poll_news() {
            self.user.hear(process, call, news, context);
        }
        if was_done && !self.user.is_done() {
            let at = context.now + user::PAUSE_MIN;
            context.wake(process.me, process.life, at, token::PACE);
        }
        process.pump(context);
        process.set_timer(context);
    }
}

impl Process {
    fn link(&self, id: LinkId) -> Option<usize> {
        self.links.iter().position(|link| link.id == id)
    }

    /// Sends what the core has, as far as there is a connection and room.
    fn pump(&mut self, context: &mut Context) {
        for (number, link) in self.links.iter_mut().enumerate() {
            while let Some(frames) = link
                .waiting
                .take()
                .or_else(|| self.core.poll_message(number))
            {
                if context.send(link.id, frames.clone()) != Sent::Accepted {
                    link.waiting = Some(frames);
                    break;
                }
            }
        }
    }

    fn set_timer(&mut self, context: &mut Context) {
        let next = self.core.next_time();
        if let Some(at) = next
            && self.timer.is_none_or(|timer| at < timer)
        {
            self.timer = Some(at);
            context.wake(self.me, self.life, at, token::TIME);
        }
    }
}
