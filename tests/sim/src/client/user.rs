//! Who uses a client: which jobs it wants done, and what it makes of what it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use carbontube_client::testing::{CallId, News, Window, job_with_made_up_id};
use carbontube_client::{ClientError, NewJob, Receipt};
use carbontube_protocol::message::{Code, Enqueue, JobFilter, JobState, Query, Selector};
use carbontube_protocol::{JobId, Message, PipelineName, Timestamp, encode};

use super::Process;
use crate::context::Context;
use crate::network::{Frames, Sent};
use crate::oracle::{Asked, Told};
use crate::parameters::ClientParameters;

/// The least pause between two messages, so that time goes on.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How long nothing is sent after a manager was too busy for as long as the client tries.
const RESTS: Duration = Duration::from_millis(500);

/// How many questions one user has under way.
const QUESTIONS_MAX: usize = 8;

/// How often a pipeline is resumed that was paused.
const RESUME_EVERY: Duration = Duration::from_millis(500);
/// How long after the last fault: then no pause is on its way any more.
const RESUME_UNTIL: Duration = Duration::from_secs(20);

/// What a call is for.
#[derive(Debug)]
pub(super) enum Errand {
    /// To enqueue these.
    Enqueue(Vec<Wish>),
    /// To hear of the end of these.
    Wait(BTreeSet<JobId>),
    /// To pause the pipeline.
    Pause,
    /// To resume it.
    Resume,
    /// To have this tried again.
    Retry(JobId),
    /// Anything else, of which nothing depends on the answer.
    Ask,
}

/// A job that the user wants done.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    id: JobId,
    instructions: Bytes,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The id is the user's own.
    Named,
    /// The id was made up by the client: a new process knows nothing of it.
    MadeUp,
    /// To be refused.
    Bad,
}

/// See the file's description.
#[derive(Debug)]
pub(super) struct User {
    number: usize,
    parameters: ClientParameters,
    pipeline: PipelineName,
    /// How many jobs it has thought of.
    thought_of: usize,
    /// What is to be enqueued, perhaps not for the first time.
    wishes: VecDeque<Wish>,
    gathered: BTreeMap<JobId, Wish>,
    window: Window,
    /// Accepted, and not waited for yet.
    unwatched: BTreeSet<JobId>,
    /// The pipeline may be paused on this user's account, though it may have been resumed
    /// since: a pause may be on its way for long.
    paused: bool,
    /// A question about it is under way.
    pausing: bool,
    /// When it is resumed next.
    resume_at: Timestamp,
    healed_at: Option<Timestamp>,
    /// Whether the last enqueueing got no answer: then one is tried at a time.
    is_careful: bool,
    /// A manager that was too busy for long is asked again after a while.
    rests_until: Timestamp,
}

impl User {
    pub(super) fn new(number: usize, parameters: ClientParameters, context: &Context) -> User {
        User {
            number,
            parameters,
            pipeline: context.parameters.definition.name().clone(),
            thought_of: 0,
            wishes: VecDeque::new(),
            gathered: BTreeMap::new(),
            window: Window::default(),
            unwatched: BTreeSet::new(),
            paused: false,
            pausing: false,
            resume_at: Timestamp::ZERO,
            healed_at: None,
            is_careful: false,
            rests_until: Timestamp::ZERO,
        }
    }

    /// Whether it wants nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.thought_of == self.parameters.jobs
            && self.wishes.is_empty()
            && self.window.batch().is_empty()
            && self.unwatched.is_empty()
            && !self.paused
    }

    /// How long until it does something more by itself.
    pub(super) fn pause_min(&self) -> Duration {
        match self.thought_of == self.parameters.jobs && self.wishes.is_empty() {
            true => RESUME_EVERY,
            false => PAUSE_MIN,
        }
    }

    /// The next thing that it does by itself.
    pub(super) fn pace(&mut self, process: &mut Process, context: &mut Context) {
        let mut errands = process.errands.values();
        let is_held_up =
            self.is_careful && errands.any(|errand| matches!(errand, Errand::Enqueue(_)));
        let rests = context.now < self.rests_until;
        if self.window.has_room(&process.options) && !is_held_up && !rests {
            self.gather(process, context);
        }
        self.watch(process, context);
        let parameters = &self.parameters;
        if context.healed {
            self.healed_at.get_or_insert(context.now);
        }
        if self.pausing {
        } else if self.paused && self.resume_at <= context.now {
            self.pausing = true;
            self.resume_at = context.now + RESUME_EVERY;
            let query = Query::Resume { phase: None };
            self.ask(process, query, Errand::Resume, context);
        } else if !self.paused && context.fault(parameters.pauses) {
            self.paused = true;
            self.pausing = true;
            let query = Query::Pause { phase: None };
            self.ask(process, query, Errand::Pause, context);
        }
        let asked = process.errands.values();
        let asked = asked.filter(|errand| matches!(errand, Errand::Ask)).count();
        let is_curious = asked < QUESTIONS_MAX && self.thought_of < self.parameters.jobs;
        if is_curious && context.fault(self.parameters.asks) {
            let query = self.question(context);
            self.ask(process, query, Errand::Ask, context);
        }
    }

    /// Makes up one batch, and sends it.
    fn gather(&mut self, process: &mut Process, context: &mut Context) {
        let mut is_full = false;
        while !is_full && let Some(wish) = self.next_wish(context) {
            if wish.kind != Kind::Bad && context.fault(self.parameters.unconfirmed) {
                self.hand_over(&wish, process, context);
                continue;
            }
            let instructions = wish.instructions.clone();
            let job = match wish.kind {
                Kind::Named | Kind::Bad => NewJob::from_json(instructions).with_id(wish.id.clone()),
                Kind::MadeUp => job_with_made_up_id(wish.id.clone(), instructions),
            };
            is_full = self.window.add(job, &process.options);
            self.gathered.insert(wish.id.clone(), wish);
        }
        if self.window.batch().is_empty() {
            return;
        }
        let jobs = self.window.send();
        let wishes: Vec<Wish> = jobs
            .iter()
            .filter_map(|job| self.gathered.remove(job.id()))
            .collect();
        for wish in &wishes {
            context
                .oracle
                .sent(context.now, &wish.id, &wish.instructions);
        }
        let ids: Vec<String> = wishes.iter().map(|wish| wish.id.to_string()).collect();
        context.note(process.me, format_args!("enqueues {}", ids.join(", ")));
        match process.core.enqueue(&self.pipeline, jobs, context.now) {
            Ok(call) => {
                process.errands.insert(call, Errand::Enqueue(wishes));
            }
            Err(error) => {
                context.note(process.me, format_args!("cannot enqueue: {error}"));
                self.window.settled();
                self.wishes.extend(wishes);
            }
        }
    }

    fn next_wish(&mut self, context: &mut Context) -> Option<Wish> {
        if let Some(wish) = self.wishes.pop_front() {
            return Some(wish);
        }
        if self.thought_of == self.parameters.jobs {
            return None;
        }
        self.thought_of += 1;
        let kind = match () {
            () if context.chance(self.parameters.bad) => Kind::Bad,
            () if context.chance(self.parameters.made_up) => Kind::MadeUp,
            () => Kind::Named,
        };
        let id = match kind {
            Kind::MadeUp => JobId::from_uuid_bytes(context.random.u128(..).to_be_bytes()),
            Kind::Named | Kind::Bad => {
                let text = format!("client-{}-job-{}", self.number, self.thought_of);
                JobId::new(&text).expect("printable and short")
            }
        };
        let (least, most) = self.parameters.instructions_bytes;
        let bytes = context.random.usize(least..=most);
        let pad = "x".repeat(bytes.saturating_sub(least));
        let instructions = match kind {
            Kind::Bad => format!("[\"{id}\"]"),
            Kind::Named | Kind::MadeUp => format!("{{\"job\":\"{id}\",\"pad\":\"{pad}\"}}"),
        };
        Some(Wish {
            id,
            instructions: instructions.into(),
            kind,
        })
    }

    /// Gives a job to the pull address, as the original's clients do or as our own do.
    fn hand_over(&mut self, wish: &Wish, process: &mut Process, context: &mut Context) {
        let frames: Frames = match context.random.bool() {
            true => {
                let instructions: serde_json::Value =
                    serde_json::from_slice(&wish.instructions).expect("it is our own");
                let message = serde_json::json!({
                    "id": wish.id,
                    "pipeline": true,
                    "instructions": {"name": self.pipeline, "instructions": instructions},
                });
                vec![message.to_string().into()]
            }
            false => {
                let job = carbontube_protocol::message::NewJob {
                    id: Some(wish.id.clone()),
                    delay_ms: 0,
                    traceparent: None,
                    instructions: wish.instructions.clone(),
                };
                let message = Message::from(Enqueue {
                    request: 0,
                    pipeline: self.pipeline.clone(),
                    jobs: vec![job],
                });
                encode(&message, process.options.codec)
            }
        };
        context
            .oracle
            .sent(context.now, &wish.id, &wish.instructions);
        let sent = context.send(process.push, frames);
        let id = &wish.id;
        context.note(process.me, format_args!("hands {id} over ({sent:?})"));
        if sent != Sent::Accepted {
            self.wishes.push_back(wish.clone());
        }
    }

    /// Waits for what was accepted.
    fn watch(&mut self, process: &mut Process, context: &mut Context) {
        let ids = std::mem::take(&mut self.unwatched);
        if ids.is_empty() {
            return;
        }
        match process.core.wait(&self.pipeline, ids.clone(), context.now) {
            Ok(call) => {
                process.errands.insert(call, Errand::Wait(ids));
            }
            Err(_) => self.unwatched = ids,
        }
    }

    /// Asks for a change of a job.
    fn change(&self, what: Asked, id: JobId, process: &mut Process, context: &mut Context) {
        context.oracle.asked(context.now, &id, what);
        let selector = Selector::Ids(vec![id.clone()]);
        let (query, errand) = match what {
            Asked::Cancel => (Query::Cancel { selector }, Errand::Ask),
            Asked::Retry => (Query::Retry { selector }, Errand::Retry(id)),
            Asked::Discard => (Query::Discard { selector }, Errand::Ask),
        };
        self.ask(process, query, errand, context);
    }

    fn question(&self, context: &mut Context) -> Query {
        match context.random.u32(0..5) {
            0 => Query::Info,
            1 => Query::Stats,
            2 => Query::Workers,
            3 => Query::Job {
                id: self.some_id(context),
            },
            _ => Query::Jobs {
                filter: JobFilter::default(),
                after: None,
                limit: context.random.u32(0..20),
            },
        }
    }

    fn some_id(&self, context: &mut Context) -> JobId {
        let number = context.random.usize(0..=self.parameters.jobs);
        let text = format!("client-{}-job-{number}", self.number);
        JobId::new(&text).expect("printable and short")
    }

    fn ask(&self, process: &mut Process, query: Query, errand: Errand, context: &mut Context) {
        context.note(process.me, format_args!("asks {query:?}"));
        match process.core.ask("the question", query, context.now) {
            Ok(call) => {
                process.errands.insert(call, errand);
            }
            Err(error) => context.note(process.me, format_args!("cannot ask: {error}")),
        }
    }

    /// Makes what it can of what a call brought.
    pub(super) fn hear(
        &mut self,
        process: &mut Process,
        call: CallId,
        news: News,
        context: &mut Context,
    ) {
        let Some(errand) = process.errands.remove(&call) else {
            return;
        };
        match (errand, news) {
            (Errand::Enqueue(wishes), News::Enqueued(receipts)) => {
                self.window.settled();
                self.is_careful = false;
                for (wish, receipt) in wishes.into_iter().zip(receipts) {
                    self.take_receipt(wish, receipt, process, context);
                }
            }
            (Errand::Enqueue(wishes), News::Failed(error)) => {
                self.window.settled();
                context.note(process.me, format_args!("not enqueued: {error}"));
                context.counts.bump(match error {
                    ClientError::NotConfirmed { .. } => "enqueues without an answer",
                    ClientError::NotSent { .. } => "enqueues that were not sent",
                    _ => "enqueues that were refused",
                });
                self.is_careful = true;
                // It may or may not have been done: under the same ids it is safe to ask again.
                self.wishes.extend(wishes);
            }
            (Errand::Wait(mut open), News::Ended(jobs)) => {
                for job in jobs {
                    open.remove(&job.id);
                    let (id, state) = (&job.id, job.state);
                    context.note(process.me, format_args!("hears that {id} ended: {state:?}"));
                    let told = Told::Ended {
                        state,
                        result: job.result,
                    };
                    context.oracle.told(context.now, &job.id, told);
                    if state == Some(JobState::Failed) && context.fault(self.parameters.retries) {
                        let what = match context.random.bool() {
                            true => Asked::Retry,
                            false => Asked::Discard,
                        };
                        self.change(what, job.id, process, context);
                    }
                }
                if !open.is_empty() {
                    process.errands.insert(call, Errand::Wait(open));
                }
            }
            (Errand::Wait(open), News::Failed(error)) => {
                context.note(process.me, format_args!("waits no longer: {error}"));
                context.counts.bump("waits that came to nothing");
                self.unwatched.extend(open);
            }
            (Errand::Resume, news) => {
                self.pausing = false;
                let late = self.healed_at.map(|at| at + RESUME_UNTIL);
                if matches!(news, News::Answered(_)) && late.is_some_and(|at| at < context.now) {
                    self.paused = false;
                }
            }
            // Whether it was retried or not: it is known how it ends.
            (Errand::Retry(id), _) => {
                self.unwatched.insert(id);
            }
            (Errand::Pause, _) => self.pausing = false,
            (Errand::Ask, News::Failed(error)) => {
                context.note(process.me, format_args!("no answer: {error}"));
            }
            _ => {}
        }
    }

    fn take_receipt(
        &mut self,
        wish: Wish,
        receipt: Receipt,
        process: &mut Process,
        context: &mut Context,
    ) {
        let id = wish.id.clone();
        let told = match receipt {
            Receipt::Accepted { .. } => Told::Accepted,
            Receipt::Duplicate { state, .. } => Told::Duplicate(state),
            Receipt::Rejected { code, .. } => {
                context.note(process.me, format_args!("{id} is rejected: {code}"));
                // What a full or draining manager says of this try says nothing of others.
                match code {
                    Code::Busy | Code::Journal | Code::Draining => {
                        self.wishes.push_back(wish);
                        self.rests_until = context.now + RESTS;
                    }
                    _ => context.oracle.told(context.now, &id, Told::Refused),
                }
                return;
            }
            Receipt::HandedOver { .. } => return,
        };
        context.note(process.me, format_args!("{id}: {told:?}"));
        context.oracle.told(context.now, &id, told);
        if self.parameters.waits {
            self.unwatched.insert(id.clone());
        }
        if context.chance(self.parameters.cancels) {
            self.change(Asked::Cancel, id, process, context);
        }
        if wish.kind == Kind::Named && context.chance(self.parameters.repeats) {
            self.wishes.push_back(wish);
        }
    }

    /// The process ended before a call did.
    pub(super) fn lost(&mut self, errand: Errand) {
        match errand {
            Errand::Enqueue(wishes) => {
                self.window.settled();
                // The ids that a client makes up are gone with it.
                let known = wishes.into_iter().filter(|wish| wish.kind != Kind::MadeUp);
                self.wishes.extend(known);
            }
            Errand::Wait(open) => self.unwatched.extend(open),
            Errand::Pause | Errand::Resume => self.pausing = false,
            Errand::Ask | Errand::Retry(_) => {}
        }
    }
}
