//! Durable before visible (decision D6): holds effects back until their record is durable.

use std::collections::{HashMap, VecDeque};

use carbontube_mutation::{self as mutation, Mutation};

use crate::core::{ClientId, Effect, Gated, PipeId, RecordSeq};

/// Effects that wait for their record, in the order in which the core gave them.
///
/// Invariant: no effect leaves before its record is durable, nor before an
/// earlier effect for the same pipe, client or event stream.
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
    Events,
}

fn lane(effect: &Effect) -> Option<Lane> {
    match effect {
        Effect::ToClient { client, .. } => Some(Lane::Client(*client)),
        Effect::ToPipe { pipe, .. }
        | Effect::ToOriginalPipe { pipe, .. }
        | Effect::OpenPipe { pipe, .. }
        | Effect::ClosePipe { pipe } => Some(Lane::Pipe(*pipe)),
        Effect::Publish(_) => Some(Lane::Events),
        Effect::ReadPage { .. } | Effect::Stop => None,
    }
}

impl Gate {
    /// Gives the effect back if it may go now, else keeps it.
    pub(crate) fn admit(&mut self, gated: Gated) -> Option<Effect> {
        let lane = lane(&gated.effect);
        let behind = match (&gated.effect, lane) {
            // The last word comes after all others.
            (Effect::Stop, _) => !self.waiting.is_empty(),
            (_, Some(lane)) => self.lanes.contains_key(&lane),
            (_, None) => false,
        };
        if mutation::is(Mutation::ConfirmBeforeDurable)
            && matches!(gated.effect, Effect::ToClient { .. })
        {
            return Some(gated.effect);
        }
        if gated.after <= self.durable && !behind {
            return Some(gated.effect);
        }
        if let Some(lane) = lane {
            *self.lanes.entry(lane).or_default() += 1;
        }
        self.waiting.push_back(gated);
        None
    }

    /// Everything up to `through` is durable now.
    pub(crate) fn advance(&mut self, through: RecordSeq) {
        self.durable = self.durable.max(through);
    }

    /// The next effect that may go now.
    pub(crate) fn release(&mut self) -> Option<Effect> {
        if self.waiting.front()?.after > self.durable {
            return None;
        }
        let gated = self.waiting.pop_front()?;
        if let Some(lane) = lane(&gated.effect)
            && let Some(count) = self.lanes.get_mut(&lane)
        {
            *count -= 1;
            if *count == 0 {
                self.lanes.remove(&lane);
            }
        }
        Some(gated.effect)
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn effect_with_a_durable_record_goes_at_once() {
        let mut gate = Gate::default();
        assert_eq!(gate.admit(gated(0, close(1))), Some(close(1)));
        gate.advance(RecordSeq(5));
        assert_eq!(gate.admit(gated(5, close(1))), Some(close(1)));
        assert_eq!(gate.admit(gated(6, close(1))), None);
    }

    #[test]
    fn effect_stays_behind_an_earlier_one_of_its_pipe_only() {
        let mut gate = Gate::default();
        assert_eq!(gate.admit(gated(2, close(1))), None);
        assert_eq!(gate.admit(gated(0, close(1))), None, "same pipe");
        assert_eq!(gate.admit(gated(0, close(2))), Some(close(2)), "other pipe");
        gate.advance(RecordSeq(1));
        assert_eq!(gate.release(), None);
        gate.advance(RecordSeq(2));
        assert_eq!(gate.release(), Some(close(1)));
        assert_eq!(gate.release(), Some(close(1)));
        assert_eq!(gate.release(), None);
        assert_eq!(
            gate.admit(gated(0, close(1))),
            Some(close(1)),
            "lane is free"
        );
    }

    #[test]
    fn stop_comes_after_everything() {
        let mut gate = Gate::default();
        assert_eq!(gate.admit(gated(1, close(1))), None);
        assert_eq!(gate.admit(gated(0, Effect::Stop)), None);
        gate.advance(RecordSeq(1));
        assert_eq!(gate.release(), Some(close(1)));
        assert_eq!(gate.release(), Some(Effect::Stop));
        assert!(gate.is_empty());
    }
}
