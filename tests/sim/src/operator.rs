//! Somebody at the api socket who looks around and interferes: pauses, cancels, retries,
//! discards, drains. Asks once and does not care for the answer.

use std::time::Duration;

use carbontube_manager::core::Core;
use carbontube_protocol::message::{Answer, JobFilter, JobState, Query, QueryRequest, Selector};
use carbontube_protocol::{Codec, JobId, JobType, Limits, Message, decode, encode};

use crate::context::Context;
use crate::network::{Arrived, LinkId, LinkKind, NodeId, Port};
use crate::oracle::Asked;

const ME: NodeId = NodeId::World;

/// See the file's description.
#[derive(Debug, Default)]
pub struct Operator {
    link: Option<LinkId>,
    request: u64,
    turns: usize,
    limits: Limits,
}

impl Operator {
    /// Asks for something, by chance.
    pub fn interfere(&mut self, context: &mut Context, core: Option<&Core>) {
        let query = match context.random.u32(0..16) {
            0 => Query::Pause { phase: None },
            1 => Query::Resume { phase: None },
            2 | 3 => {
                let phases = context.parameters.definition.phases();
                let index = context.random.usize(..phases.len());
                let phase = Some(phases[index].job_type.clone());
                match context.random.bool() {
                    true => Query::Pause { phase },
                    false => Query::Resume { phase },
                }
            }
            4 => Query::Stats,
            5 => Query::Workers,
            6 => Query::Jobs {
                filter: JobFilter::default(),
                after: None,
                limit: 10,
            },
            7 => match some_job(context) {
                Some(id) => Query::Job { id },
                None => Query::Failures,
            },
            8 => Query::Drain { worker: None },
            9 => match core.and_then(|core| core.known_workers().next().map(|w| w.id)) {
                Some(id) => Query::Drain { worker: Some(id) },
                None => Query::Latencies,
            },
            10 | 11 => self.about_jobs(context, core, Asked::Cancel),
            12 | 13 => self.about_jobs(context, core, Asked::Retry),
            _ => self.about_jobs(context, core, Asked::Discard),
        };
        self.ask(context, query);
    }

    /// Clears away what has failed for good, and lets everything go on. A slow network may
    /// take only the first few of these, so each comes first in its turn.
    pub fn tidy_up(&mut self, context: &mut Context, core: &Core) {
        self.discard_failed(context, core);
        let phases = context.parameters.definition.phases();
        let phases = phases.iter().map(|phase| Some(phase.job_type.clone()));
        let mut paused: Vec<Option<JobType>> = phases.chain([None]).collect();
        self.turns += 1;
        let turn = self.turns % paused.len();
        paused.rotate_left(turn);
        for phase in paused {
            self.ask(context, Query::Resume { phase });
        }
    }

    fn discard_failed(&mut self, context: &mut Context, core: &Core) {
        let failed: Vec<JobId> = core
            .live_jobs()
            .filter(|job| job.state == JobState::Failed)
            .map(|job| job.id.clone())
            .take(context.parameters.core.limits.batch_jobs_max)
            .collect();
        if !failed.is_empty() {
            for id in &failed {
                context.oracle.asked(context.now, id, Asked::Discard);
            }
            let selector = Selector::Ids(failed);
            self.ask(context, Query::Discard { selector });
        }
    }

    fn about_jobs(&mut self, context: &mut Context, core: Option<&Core>, what: Asked) -> Query {
        // More often those that it can be done to.
        let failed = core.and_then(|core| {
            let mut failed = core.live_jobs().filter(|job| job.state == JobState::Failed);
            failed.next().map(|job| job.id.clone())
        });
        let chosen = match what {
            Asked::Cancel => some_job(context),
            Asked::Retry | Asked::Discard => failed.or_else(|| some_job(context)),
        };
        let Some(id) = chosen else {
            return Query::Info;
        };
        context.oracle.asked(context.now, &id, what);
        let selector = Selector::Ids(vec![id]);
        match what {
            Asked::Cancel => Query::Cancel { selector },
            Asked::Retry => Query::Retry { selector },
            Asked::Discard => Query::Discard { selector },
        }
    }

    fn ask(&mut self, context: &mut Context, query: Query) {
        let link = match self.link {
            Some(link) => link,
            None => *self
                .link
                .insert(context.open_link(ME, Some(Port::Api), LinkKind::Waits)),
        };
        self.request += 1;
        let message = Message::Query(QueryRequest {
            request: self.request,
            query,
        });
        let codec = match context.random.bool() {
            true => Codec::Json,
            false => Codec::Bincode,
        };
        let sent = context.send(link, encode(&message, codec));
        let note = crate::manager::brief(&message);
        context.note(ME, format_args!("operator's {note} ({sent:?})"));
    }

    /// An answer arrived.
    pub fn on_message(&mut self, context: &mut Context, arrived: &Arrived) {
        match decode(&arrived.frames, &self.limits) {
            Ok(Message::Answer(answer)) => {
                let name = match answer.answer {
                    Answer::Changed { .. } => "operator: changes done",
                    _ => "operator: questions answered",
                };
                context.counts.bump(name);
            }
            Ok(_) => context.counts.bump("operator: refusals"),
            Err(_) => context.counts.bump("operator: answers that cannot be read"),
        }
    }

    /// How long until it tidies up again.
    pub const TIDY_UP: Duration = Duration::from_secs(2);
}

fn some_job(context: &mut Context) -> Option<JobId> {
    let jobs = context.oracle.jobs();
    if jobs.is_empty() {
        return None;
    }
    let index = context.random.usize(..jobs.len());
    context.oracle.jobs().keys().nth(index).cloned()
}
