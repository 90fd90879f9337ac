//! The client's state and every step of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::message::{Answer, Code, ManagerState, Query, Refusal};
use carbontube_protocol::{
    Address, DecodeError, JobId, Message, PipelineName, Timestamp, decode, encode,
};
use fastrand::Rng;

use super::call::{Call, Delivery, Task, Waiting, is_passing, question};
use super::requests::Requests;
use super::{Condition, Links, News, Pauses};
use crate::{ClientError, ClientOptions, NewJob};

/// One call of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// Decides for a client: which manager it talks to, what is sent when, and what each
/// caller is told.
///
/// One link is active. Requests go there, and when its connection ends, those without an
/// answer go to the next one that is active, under the same ids; so a manager can tell
/// that they are the same. A call becomes a request, and another one when it was refused
/// for a reason that passes; it ends with [`News`], at the latest when its time is over.
#[derive(Debug)]
pub struct Core {
    options: ClientOptions,
    rng: Rng,
    links: Links,
    requests: Requests,
    calls: BTreeMap<CallId, Call>,
    last_call: u64,
    /// Since when no link is active.
    absent_since: Option<Timestamp>,
    /// When each call has to be looked at again.
    alarms: BTreeSet<(Timestamp, CallId)>,
    news: VecDeque<(CallId, News)>,
}

impl Core {
    /// A client of these addresses; each is a link, numbered from 0.
    pub fn new(options: ClientOptions, addresses: &[Address], rng: Rng, now: Timestamp) -> Self {
        Core {
            options,
            rng,
            links: Links::new(addresses),
            requests: Requests::default(),
            calls: BTreeMap::new(),
            last_call: 0,
            absent_since: Some(now),
            alarms: BTreeSet::new(),
            news: VecDeque::new(),
        }
    }

    /// How the links are.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// A link has a new connection.
    pub fn handle_connected(&mut self, link: usize, now: Timestamp) {
        self.lose(link);
        self.set_link(link, Condition::Connected, now);
    }

    /// A link has no connection.
    pub fn handle_disconnected(&mut self, link: usize, met: String, now: Timestamp) {
        self.lose(link);
        // A refusal says more than the end of the connection that it came by.
        if !matches!(self.links.condition(link), Condition::Refused(..)) {
            self.set_link(link, Condition::Dialling(met), now);
        }
    }

    /// A link turned out to be of no use.
    pub fn handle_useless(&mut self, link: usize, met: String, now: Timestamp) {
        self.set_link(link, Condition::Refused(None, met), now);
    }

    /// A link turned out to lead to a pull address.
    pub fn handle_pull_address(&mut self, link: usize, now: Timestamp) {
        self.set_link(link, Condition::Push, now);
    }

    /// A link received something.
    pub fn handle_message(&mut self, link: usize, frames: &[Bytes], now: Timestamp) {
        let message = match decode(frames, &self.options.limits) {
            Ok(message) => message,
            Err(error) => {
                log::warn!("{}: {error}", self.links.address(link));
                if let Condition::Greeting(_) = self.links.condition(link) {
                    let code =
                        matches!(error, DecodeError::Version { .. }).then_some(Code::Version);
                    self.set_link(link, Condition::Refused(code, error.to_string()), now);
                }
                return;
            }
        };
        let request = request_of(&message);
        if let Condition::Greeting(greeting) = *self.links.condition(link) {
            return self.handle_greeted(link, greeting, request, message, now);
        }
        match (request, message) {
            // An answer to a request that was given up, or that came twice, has no one
            // to go to.
            (Some(number), message) => {
                if let Some(id) = self.requests.call(number) {
                    self.handle_answer(link, id, number, message, now);
                }
            }
            (None, Message::Refusal(refusal)) => {
                let address = self.links.address(link);
                let why = carbontube_protocol::harmless(&refusal.message);
                log::warn!("{address} refused something: {why}");
            }
            (None, _) => {}
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.alarms.first().copied()
            && at <= now
        {
            self.alarms.pop_first();
            let over = self.deadline(id).is_some_and(|deadline| deadline <= now);
            if over {
                self.give_up(id, now);
            } else if let Some(call) = self.calls.get_mut(&id)
                && call.again.is_some_and(|again| again <= now)
            {
                call.again = None;
                self.ask_again(id);
            }
            self.set_alarm(id);
        }
    }

    /// When [`handle_time`](Self::handle_time) is to be called next.
    pub fn next_time(&self) -> Option<Timestamp> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// What is to be sent on a link now.
    pub fn poll_message(&mut self, link: usize) -> Option<Vec<Bytes>> {
        if *self.links.condition(link) == Condition::Connected {
            let number = self.requests.take_number();
            self.links.set(link, Condition::Greeting(number));
            return Some(encode(&question(number, &Query::Info), self.options.codec));
        }
        if self.links.active() != Some(link) {
            return None;
        }
        self.requests.next(link)
    }

    /// What a caller is to be told now.
    pub fn poll_news(&mut self) -> Option<(CallId, News)> {
        self.news.pop_front()
    }

    /// Begins to enqueue jobs; their instructions have been checked.
    ///
    /// # Errors
    /// When they make too large a message.
    pub fn enqueue(
        &mut self,
        pipeline: &PipelineName,
        jobs: Vec<NewJob>,
        now: Timestamp,
    ) -> Result<CallId, ClientError> {
        let delivery = Delivery::new(pipeline.clone(), jobs);
        self.begin("enqueueing", Task::Delivery(delivery), now)
    }

    /// Begins to ask something.
    ///
    /// # Errors
    /// When the question is too large, or there is nobody who answers.
    pub fn ask(
        &mut self,
        what: &'static str,
        query: Query,
        now: Timestamp,
    ) -> Result<CallId, ClientError> {
        self.begin(what, Task::Question(query), now)
    }

    /// Begins to wait for jobs.
    ///
    /// # Errors
    /// When there is nobody who answers.
    pub fn wait(
        &mut self,
        pipeline: &PipelineName,
        ids: BTreeSet<JobId>,
        now: Timestamp,
    ) -> Result<CallId, ClientError> {
        let waiting = Waiting {
            pipeline: pipeline.clone(),
            refused: ids.iter().cloned().collect(),
            open: ids,
        };
        self.begin("waiting", Task::Waiting(waiting), now)
    }

    /// A caller does not wait any more; what was not sent yet is not sent.
    pub fn forget(&mut self, id: CallId) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        if let Some(at) = call.alarm {
            self.alarms.remove(&(at, id));
        }
        for number in call.requests.into_keys() {
            self.requests.remove(number);
        }
    }

    fn begin(
        &mut self,
        what: &'static str,
        task: Task,
        now: Timestamp,
    ) -> Result<CallId, ClientError> {
        if !self.links.has_api() {
            return Err(ClientError::NeedsApi { what });
        }
        self.last_call += 1;
        let id = CallId(self.last_call);
        let call = Call {
            what,
            started: now,
            pauses: Pauses::new(&self.options.busy_retry),
            again: None,
            alarm: None,
            requests: BTreeMap::new(),
            task,
        };
        self.calls.insert(id, call);
        if let Err(error) = self.request(id) {
            self.forget(id);
            return Err(error);
        }
        self.set_alarm(id);
        Ok(id)
    }

    /// Makes the requests for what a call has open.
    fn request(&mut self, id: CallId) -> Result<(), ClientError> {
        let Some(call) = self.calls.get_mut(&id) else {
            return Ok(());
        };
        let parts = match &mut call.task {
            Task::Waiting(waiting) => {
                let ids = std::mem::take(&mut waiting.refused);
                let parts = ids.chunks(self.options.limits.batch_jobs_max);
                parts.map(<[JobId]>::to_vec).collect()
            }
            Task::Delivery(_) | Task::Question(_) => vec![Vec::new()],
        };
        for ids in parts {
            let number = self.requests.take_number();
            let message = match &call.task {
                Task::Delivery(delivery) => delivery.request(number),
                Task::Question(query) => question(number, query),
                Task::Waiting(waiting) => waiting.request(number, &ids),
            };
            let frames = encode(&message, self.options.codec);
            let limits = &self.options.limits;
            let bytes: usize = frames.iter().map(Bytes::len).sum();
            if frames[1].len() > limits.body_bytes_max
                || bytes > limits.message_bytes_max
                || frames.len() > limits.batch_jobs_max + 2
            {
                return Err(ClientError::TooLarge { what: call.what });
            }
            self.requests.add(number, id, frames);
            call.requests.insert(number, ids);
        }
        Ok(())
    }

    fn ask_again(&mut self, id: CallId) {
        if let Err(error) = self.request(id) {
            self.finish(id, News::Failed(error));
        }
    }

    fn handle_greeted(
        &mut self,
        link: usize,
        greeting: u64,
        request: Option<u64>,
        message: Message,
        now: Timestamp,
    ) {
        match message {
            // A refusal of what could not even be read has no number.
            Message::Refusal(refusal) if request.is_none_or(|number| number == greeting) => {
                let refused = Condition::Refused(Some(refusal.code), refusal.message);
                self.set_link(link, refused, now);
            }
            message if request == Some(greeting) => {
                let draining = matches!(
                    message,
                    Message::Answer(answer) if matches!(
                        answer.answer,
                        Answer::Info(ref info) if info.state == ManagerState::Draining
                    )
                );
                self.set_link(link, Condition::Live { draining }, now);
            }
            _ => {}
        }
    }

    fn handle_answer(
        &mut self,
        link: usize,
        id: CallId,
        number: u64,
        message: Message,
        now: Timestamp,
    ) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let what = call.what;
        let unfit = |reason| News::Failed(ClientError::Answer { what, reason });
        match (&mut call.task, message) {
            (Task::Waiting(waiting), Message::Ended(ended)) => {
                let jobs = waiting.take(ended.jobs);
                if call
                    .requests
                    .get(&number)
                    .is_some_and(|ids| !ids.iter().any(|id| waiting.open.contains(id)))
                {
                    call.requests.remove(&number);
                    self.requests.remove(number);
                }
                let over = waiting.open.is_empty();
                if !jobs.is_empty() {
                    self.news.push_back((id, News::Ended(jobs)));
                }
                if over {
                    self.forget(id);
                }
            }
            (Task::Delivery(delivery), Message::Enqueued(enqueued)) => {
                let news = match delivery.take(enqueued.outcomes) {
                    Err(reason) => unfit(reason),
                    Ok(drains) if !delivery.is_settled() => {
                        self.drop_request(id, number);
                        return self.try_again(link, id, drains, None, now);
                    }
                    Ok(_) => News::Enqueued(delivery.take_receipts()),
                };
                self.finish(id, news);
            }
            (Task::Question(_), Message::Answer(answer)) => {
                self.finish(id, News::Answered(answer.answer));
            }
            (_, Message::Refusal(refusal)) => {
                self.drop_request(id, number);
                let drains = refusal.code == Code::Draining;
                self.try_again(link, id, drains, Some(refusal), now);
            }
            (_, other) => {
                let news = unfit(format!("it is of kind {:?}", other.kind()));
                self.finish(id, news);
            }
        }
    }

    /// A request has its answer; the jobs that a wait asked for by it are open again.
    fn drop_request(&mut self, id: CallId, number: u64) {
        self.requests.remove(number);
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let ids = call.requests.remove(&number);
        if let Task::Waiting(waiting) = &mut call.task {
            let open = ids.into_iter().flatten();
            let open = open.filter(|id| waiting.open.contains(id));
            waiting.refused.extend(open);
        }
    }

    /// A manager did not do what was asked, or not all of it: asks again as long as that
    /// makes sense, at once when there is another manager that is not draining.
    fn try_again(
        &mut self,
        link: usize,
        id: CallId,
        drains: bool,
        refusal: Option<Refusal>,
        now: Timestamp,
    ) {
        if drains && let Condition::Live { .. } = self.links.condition(link) {
            self.set_link(link, Condition::Live { draining: true }, now);
        }
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if let Some(refusal) = &refusal
            && !is_passing(refusal.code)
        {
            return self.refuse(id, refusal.clone());
        }
        if drains && self.links.has_better_than(link) {
            return self.ask_again(id);
        }
        let again = now + call.pauses.take(&mut self.rng);
        // An answer needs some time as well, and "busy" says more than "not confirmed".
        let latest = call.started + self.options.timeout.mul_f64(0.9);
        match (&mut call.task, refusal) {
            (Task::Waiting(_), _) => call.again = Some(again),
            _ if again < latest => call.again = Some(again),
            (_, Some(refusal)) => return self.refuse(id, refusal),
            (Task::Delivery(delivery), None) => {
                let news = News::Enqueued(delivery.take_receipts());
                return self.finish(id, news);
            }
            (Task::Question(_), None) => {}
        }
        self.set_alarm(id);
    }

    fn refuse(&mut self, id: CallId, refusal: Refusal) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let what = call.what;
        // A part may have been taken before: that is not to be forgotten for a refusal
        // of the rest.
        if let Task::Delivery(delivery) = &mut call.task
            && !delivery.is_untouched()
        {
            let news = News::Enqueued(delivery.take_receipts());
            return self.finish(id, news);
        }
        let error = ClientError::Refusal {
            what,
            code: refusal.code,
            message: refusal.message,
        };
        self.finish(id, News::Failed(error));
    }

    fn give_up(&mut self, id: CallId, now: Timestamp) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let what = call.what;
        let waited = now.since(call.started);
        let link = self.links.describe();
        let mut sent = call.requests.keys().map(|it| self.requests.is_sent(*it));
        let error = match &call.task {
            Task::Waiting(waiting) => ClientError::Absent {
                absent: self.options.absence_max,
                jobs: waiting.open.len(),
                link,
            },
            Task::Delivery(delivery) if sent.any(|sent| sent) || !delivery.is_untouched() => {
                ClientError::NotConfirmed { what, waited, link }
            }
            Task::Question(_) if sent.any(|sent| sent) => {
                ClientError::NotConfirmed { what, waited, link }
            }
            _ => ClientError::NotSent { what, waited, link },
        };
        self.finish(id, News::Failed(error));
    }

    fn finish(&mut self, id: CallId, news: News) {
        self.forget(id);
        self.news.push_back((id, news));
    }

    fn lose(&mut self, link: usize) {
        if mutation::is(Mutation::NewIdAtResend) {
            for (number, id) in self.requests.at(link) {
                if let Some(Call { task, .. }) = self.calls.get(&id)
                    && let Task::Delivery(delivery) = task
                {
                    let message = delivery.renamed(number, &mut self.rng);
                    let frames = encode(&message, self.options.codec);
                    self.requests.replace(number, frames);
                }
            }
        }
        for (number, id) in self.requests.at(link) {
            self.narrow(number, id);
        }
        self.requests.lost(link);
    }

    /// A wait that is sent again asks for what is still open: answers that are more than the
    /// client can take at once would otherwise begin with the same jobs each time.
    fn narrow(&mut self, number: u64, id: CallId) {
        if let Some(call) = self.calls.get_mut(&id)
            && let Task::Waiting(waiting) = &call.task
            && let Some(ids) = call.requests.get_mut(&number)
            && ids.iter().any(|id| !waiting.open.contains(id))
        {
            ids.retain(|id| waiting.open.contains(id));
            let frames = encode(&waiting.request(number, ids), self.options.codec);
            self.requests.replace(number, frames);
        }
    }

    fn set_link(&mut self, link: usize, condition: Condition, now: Timestamp) {
        self.links.set(link, condition);
        let absent = self.links.active().is_none();
        if absent == self.absent_since.is_some() {
            return;
        }
        self.absent_since = absent.then_some(now);
        let waits = self
            .calls
            .iter()
            .filter(|(_, call)| matches!(call.task, Task::Waiting(_)));
        for id in waits.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.set_alarm(id);
        }
    }

    /// When a call comes to nothing: its time is over, or a wait has been without any
    /// manager for too long.
    fn deadline(&self, id: CallId) -> Option<Timestamp> {
        let call = self.calls.get(&id)?;
        let (since, longest): (_, Duration) = match call.task {
            Task::Waiting(_) => (self.absent_since?, self.options.absence_max),
            Task::Delivery(_) | Task::Question(_) => (call.started, self.options.timeout),
        };
        Some(since.max(call.started) + longest)
    }

    fn set_alarm(&mut self, id: CallId) {
        let deadline = self.deadline(id);
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if let Some(at) = call.alarm.take() {
            self.alarms.remove(&(at, id));
        }
        call.alarm = deadline.into_iter().chain(call.again).min();
        if let Some(at) = call.alarm {
            self.alarms.insert((at, id));
        }
    }
}

fn request_of(message: &Message) -> Option<u64> {
    match message {
        Message::Enqueued(body) => Some(body.request),
        Message::Answer(body) => Some(body.request),
        Message::Ended(body) => Some(body.request),
        Message::Refusal(body) => body.request,
        _ => None,
    }
}
