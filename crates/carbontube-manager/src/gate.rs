//! Durable before visible (decision D6): holds effects back until their record is durable.

use std::collections::{HashMap, VecDeque};

use carbontube_mutation::{self as mutation, Mutation};

use crate::core::{ClientId, Effect, Gated, PipeId, RecordSeq};

/// Effects that wait for their record, in the order in which the core gave them.
///
/// Invariant: no effect leaves before its record is durable, nor before an
/// earlier effect for the same pipe, client or topic of events. It waits for nothing else:
/// the core counts on that, and knows of each message when it can have left. So what
/// workers go on saying while the disk is full does not pile up behind a job's event.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    durable: RecordSeq,
    waiting: VecDeque<Gated>,
    /// How many wait on each lane.
    lanes: HashMap<Lane, usize>,
}

/// Effects of one lane keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Pipe(PipeId),
    Client(ClientId),
    Topic(&'static str),
}

fn lane(effect: &Effect) -> Option<Lane> {
    match effect {
        Effect::ToClient { client, .. } => Some(Lane::Client(*client)),
        Effect::ToPipe { pipe, .. }
        | Effect::ToOriginalPipe { pipe, .. }
        | Effect::OpenPipe { pipe, .. }
        | Effect::ClosePipe { pipe } => Some(Lane::Pipe(*pipe)),
        Effect::Publish(event) => Some(Lane::Topic(event.kind.topic())),
        Effect::ReadPage { .. } | Effect::Warn(_) | Effect::Stop => None,
    }
}

impl Gate {
    /// Gives the effect back if it may go now, else keeps it.
    pub(crate) fn admit(&mut self, gated: Gated) -> Option<Effect> {
        if mutation::is(Mutation::ConfirmBeforeDurable)
            && matches!(gated.effect, Effect::ToClient { .. })
        {
            return Some(gated.effect);
        }
        self.pass_or_keep(gated)
    }

    fn pass_or_keep(&mut self, gated: Gated) -> Option<Effect> {
        let lane = lane(&gated.effect);
        let behind = match (&gated.effect, lane) {
            // The last word comes after all others.
            (Effect::Stop, _) => !self.waiting.is_empty(),
            (_, Some(lane)) => self.lanes.contains_key(&lane),
            (_, None) => false,
        };
        if gated.after <= self.durable && !behind {
            return Some(gated.effect);
        }
        if let Some(lane) = lane {
            *self.lanes.entry(lane).or_default() += 1;
        }
        self.waiting.push_back(gated);
        None
    }

    /// Everything up to `through` is durable now: hands out, in order, what may go.
    pub(crate) fn advance(&mut self, through: RecordSeq, let_out: &mut dyn FnMut(Effect)) {
        self.durable = self.durable.max(through);
        self.lanes.clear();
        for gated in std::mem::take(&mut self.waiting) {
            if let Some(effect) = self.pass_or_keep(gated) {
                let_out(effect);
            }
        }
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use carbontube_protocol::message::{Event, EventKind, JobState, ManagerState};
    use carbontube_protocol::{JobId, JobType, Timestamp};

    use super::*;

    fn close(pipe: u64) -> Effect {
        Effect::ClosePipe { pipe: PipeId(pipe) }
    }

    fn gated(after: u64, effect: Effect) -> Gated {
        Gated {
            after: RecordSeq(after),
            effect,
        }
    }

    fn advance(gate: &mut Gate, through: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        gate.advance(RecordSeq(through), &mut |effect| out.push(effect));
        out
    }

    #[test]
    fn effect_with_a_durable_record_goes_at_once() {
        let mut gate = Gate::default();
        assert_eq!(gate.admit(gated(0, close(1))), Some(close(1)));
        assert_eq!(advance(&mut gate, 5), []);
        assert_eq!(gate.admit(gated(5, close(1))), Some(close(1)));
        assert_eq!(gate.admit(gated(6, close(1))), None);
    }

    #[test]
    fn effect_stays_behind_an_earlier_one_of_its_pipe_only() {
        let mut gate = Gate::default();
        assert_eq!(gate.admit(gated(2, close(1))), None);
        assert_eq!(gate.admit(gated(0, close(1))), None, "same pipe");
        assert_eq!(gate.admit(gated(0, close(2))), Some(close(2)), "other pipe");
        assert_eq!(advance(&mut gate, 1), []);
        assert_eq!(advance(&mut gate, 2), [close(1), close(1)]);
        assert!(gate.is_empty());
        assert_eq!(
            gate.admit(gated(0, close(1))),
            Some(close(1)),
            "lane is free"
        );
    }

    #[test]
    fn effect_does_not_wait_for_an_earlier_one_of_another_pipe() {
        let mut gate = Gate::default();
        assert_eq!(gate.admit(gated(1, close(1))), None);
        assert_eq!(gate.admit(gated(9, close(2))), None);
        assert_eq!(gate.admit(gated(0, close(1))), None);
        assert_eq!(advance(&mut gate, 1), [close(1), close(1)]);
        assert_eq!(advance(&mut gate, 9), [close(2)]);
    }

    #[test]
    fn events_of_other_topics_do_not_wait_behind_a_job_s_event() {
        let mut gate = Gate::default();
        let manager = |reason: &str| {
            Effect::Publish(Event {
                at: Timestamp(1),
                kind: EventKind::Manager {
                    state: ManagerState::Impaired,
                    reason: reason.to_owned(),
                },
            })
        };
        let job = Effect::Publish(Event {
            at: Timestamp(1),
            kind: EventKind::Job {
                job: JobId::new("a").unwrap(),
                state: JobState::Enqueued,
                job_type: JobType::new("encode").unwrap(),
                worker: None,
                error: None,
            },
        });
        assert_eq!(gate.admit(gated(9, job.clone())), None);
        let alarm = manager("the disk is full");
        assert_eq!(gate.admit(gated(0, alarm.clone())), Some(alarm));
        assert_eq!(gate.admit(gated(0, job.clone())), None, "same topic");
        assert_eq!(advance(&mut gate, 9), [job.clone(), job]);
    }

    #[test]
    fn stop_comes_after_everything() {
        let mut gate = Gate::default();
        assert_eq!(gate.admit(gated(1, close(1))), None);
        assert_eq!(gate.admit(gated(0, Effect::Stop)), None);
        assert_eq!(advance(&mut gate, 1), [close(1), Effect::Stop]);
        assert!(gate.is_empty());
    }
}
