//! How a worker ends in order: the stages of the runtime's `run` in virtual time.

use std::time::Duration;

use carbontube_protocol::Timestamp;
use carbontube_worker::testing::Session;

use super::execution::Why;
use super::{WorkerNode, token};
use crate::context::Context;
use crate::network::Sent;
use crate::oracle::Disturbance;
use crate::parameters::Runner;
use carbontube_protocol::encode;

/// How long it waits for the acknowledgement of its last results.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(10);
/// How long commands have to end after the grace period.
const KILLING: Duration = Duration::from_secs(4);

/// Where a draining worker stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    stage: Stage,
    until: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What runs may finish.
    Grace,
    /// What was stopped has to end.
    Killing,
    /// The last results have to be acknowledged.
    Acknowledgement,
}

impl WorkerNode {
    pub(super) fn begin_drain(&mut self, context: &mut Context) {
        let grace = context.duration(Duration::from_millis(100), Duration::from_secs(10));
        let Some(process) = &mut self.process else {
            return;
        };
        if process.drain.is_some() {
            return;
        }
        context.note(process.me, format_args!("drains, grace {grace:?}"));
        context.counts.bump("worker drains");
        let until = context.now + grace;
        process.drain = Some(Drain {
            stage: Stage::Grace,
            until,
        });
        context.wake(process.me, process.life, until, token::DRAIN);
        process.session.drain();
    }

    /// Goes on with draining as far as it comes.
    pub(super) fn drain_step(&mut self, context: &mut Context) {
        loop {
            let reports_early = self.parameters.runner == Runner::Blocking;
            let Some(process) = &mut self.process else {
                return;
            };
            let Some(drain) = process.drain.filter(|_| !process.ended) else {
                return;
            };
            let late = drain.until <= context.now;
            let load = process.session.load();
            let (stage, lasts) = match drain.stage {
                Stage::Grace if load.running == 0 => (Stage::Acknowledgement, ACKNOWLEDGEMENT),
                Stage::Grace if late => {
                    context.note(process.me, format_args!("stops what still runs"));
                    if reports_early {
                        // Nothing can stop a thread, so there is nothing to wait for.
                        process.session.abandon_running();
                    }
                    let (now, me) = (context.now, process.me);
                    context.oracle.disturbed(now, me, Disturbance::Killed);
                    (Stage::Killing, KILLING)
                }
                Stage::Killing
                    if late || reports_early || process.slots.iter().flatten().count() == 0 =>
                {
                    process.session.abandon_running();
                    (Stage::Acknowledgement, ACKNOWLEDGEMENT)
                }
                Stage::Acknowledgement if late || load.done == 0 => {
                    process.session.goodbye();
                    process.ended = true;
                    return;
                }
                _ => return,
            };
            let until = context.now + lasts;
            process.drain = Some(Drain { stage, until });
            context.wake(process.me, process.life, until, token::DRAIN);
            if stage == Stage::Killing {
                self.stop_all(Why::GraceOver, context);
            }
        }
    }

    /// Says the last word and goes.
    pub(super) fn end(&mut self, context: &mut Context) {
        self.pump(context);
        self.heartbeat(context);
        let Some(mut process) = self.process.take() else {
            return;
        };
        let mut session: Session = process.session;
        // The linger: what finds room still goes out.
        while let Some(outgoing) = process.waiting.take().or_else(|| session.take_outgoing(0)) {
            let frames = encode(&outgoing.message, outgoing.codec);
            if context.send(process.route, frames) != Sent::Accepted {
                let (now, me) = (context.now, process.me);
                context.oracle.disturbed(now, me, Disturbance::Killed);
                break;
            }
        }
        context.note(process.me, format_args!("has drained and goes"));
        context.counts.bump("workers that ended in order");
        context.close_link(process.route, true);
        context.close_link(process.publish, true);
        context.node_gone(process.me, None);
    }
}
