//! The search over jobs: newest first, in steps of bounded work.

use bytes::Bytes;
use carbontube_protocol::JobId;
use carbontube_protocol::message::{Answer, Found, JobSearch, JobState, JobView};
use carbontube_storage::{Log, PageSeq};
use memchr::memmem;

use super::ClientId;
use super::history::Entry;
use super::job::{Job, JobNo};
use super::machine::Core;
use super::payload::Reason;
use super::waits::find_past;

/// How many jobs one step looks at.
const LOOKED_AT_MAX: u64 = 50_000;
/// How many of them it looks at more closely: at their instructions.
const READ_MAX: u64 = 5_000;
/// How many pages one step reads.
const PAGES_MAX: u32 = 32;
/// How many bytes of instructions one step looks through.
const BYTES_MAX: usize = 16 << 20;
/// How large an answer becomes, well below what a message may have.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// About what a job takes in an answer beside its error.
const JOB_BYTES: usize = 512;

/// Where a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At this live job, then older ones.
    Live(JobNo),
    /// At this ended job, then those that ended before.
    Past(PageSeq, usize),
}

impl Place {
    const NEWEST: Place = Place::Live(JobNo::MAX);

    fn parse(text: &str) -> Option<Place> {
        if let Some((page, index)) = text.strip_prefix('h').and_then(|at| at.split_once('-')) {
            return Some(Place::Past(
                PageSeq(page.parse().ok()?),
                index.parse().ok()?,
            ));
        }
        Some(Place::Live(text.strip_prefix('j')?.parse().ok()?))
    }

    fn text(self) -> String {
        match self {
            Place::Live(no) => format!("j{no}"),
            Place::Past(page, index) => format!("h{}-{index}", page.0),
        }
    }
}

/// One step of a search, and what it found so far.
#[derive(Debug)]
pub(super) struct SearchStep {
    client: ClientId,
    request: u64,
    search: Box<JobSearch>,
    error: Option<String>,
    limit: usize,
    place: Place,
    found: Found,
    read: u64,
    pages: u32,
    bytes: usize,
    answer_bytes: usize,
}

impl SearchStep {
    fn is_full(&self) -> bool {
        self.is_spent() || self.found.looked_at >= LOOKED_AT_MAX
    }

    /// Whether it may not look at one more job closely.
    fn is_spent(&self) -> bool {
        self.found.jobs.len() >= self.limit
            || self.read >= READ_MAX
            || self.bytes >= BYTES_MAX
            || self.answer_bytes >= ANSWER_BYTES_MAX
    }

    fn take(&mut self, view: JobView) {
        let error = view.error.as_ref().map_or(0, String::len);
        self.answer_bytes += JOB_BYTES + error;
        self.found.jobs.push(view);
    }

    /// Whether instructions have the text.
    fn reads(&mut self, instructions: &[u8]) -> bool {
        let Some(text) = &self.search.text else {
            return true;
        };
        self.read += 1;
        self.bytes += instructions.len();
        memmem::find(instructions, text.as_bytes()).is_some()
    }
}

/// What makes a step come to its end.
enum Pause {
    /// It has done its share, or all is looked at.
    Over(Option<Place>),
    /// It needs a page.
    Read(Log, PageSeq),
}

impl Core {
    /// Begins a step of a search; it answers by itself, perhaps after reading pages.
    pub(super) fn search(
        &mut self,
        client: ClientId,
        request: u64,
        search: Box<JobSearch>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(), String> {
        let place = match after {
            None => Place::NEWEST,
            Some(after) => Place::parse(after)
                .ok_or_else(|| format!("{after:?} is not where a search ended"))?,
        };
        let step = SearchStep {
            client,
            request,
            error: search.error.as_ref().map(|error| error.to_lowercase()),
            search,
            limit: limit.clamp(1, self.options.list_jobs_max.max(1)) as usize,
            place,
            found: Found::default(),
            read: 0,
            pages: 0,
            bytes: 0,
            answer_bytes: 0,
        };
        self.search_on(Box::new(step), None);
        Ok(())
    }

    /// Goes on with a step; `records` are those of the page that it waited for.
    pub(super) fn search_on(&mut self, mut step: Box<SearchStep>, records: Option<&[Bytes]>) {
        let mut pause = if step.search.group.is_some() {
            self.search_group(&mut step, records.is_some())
        } else {
            match step.place {
                Place::Live(_) => match self.search_live(&mut step, records.is_some()) {
                    Pause::Over(None) => self.search_past(&mut step, None),
                    pause => pause,
                },
                Place::Past(..) => self.search_past(&mut step, records),
            }
        };
        while let Pause::Read(Log::History, page) = pause {
            let records = self.past_in_memory(page);
            if records.is_empty() {
                break;
            }
            pause = self.search_past(&mut step, Some(&records));
        }
        match pause {
            Pause::Read(log, page) if step.pages < PAGES_MAX => {
                step.pages += 1;
                self.read_page(log, page, Reason::Search(step));
            }
            Pause::Read(..) => self.answer_search(*step, true),
            Pause::Over(next) => {
                let more = next.is_some();
                if let Some(next) = next {
                    step.place = next;
                }
                self.answer_search(*step, more);
            }
        }
    }

    fn answer_search(&mut self, step: SearchStep, more: bool) {
        let mut found = step.found;
        found.next = more.then(|| step.place.text());
        self.answer(
            super::RecordSeq(0),
            step.client,
            step.request,
            Answer::Found(found),
        );
    }

    /// Looks at live jobs from the step's place on. `was_read`: the page of the first one
    /// was read, and what is not in memory now will not come.
    fn search_live(&mut self, step: &mut SearchStep, mut was_read: bool) -> Pause {
        loop {
            let Place::Live(from) = step.place else {
                return Pause::Over(None);
            };
            // In portions, since looking into instructions may need all of the core.
            let mut portion: Vec<JobNo> = Vec::new();
            let mut at = None;
            for (no, job) in self.jobs.iter_back_from(from) {
                if step.is_full() || portion.len() == 64 {
                    at = Some(no);
                    break;
                }
                step.found.looked_at += 1;
                if self.finds_job(step, job) {
                    portion.push(no);
                }
            }
            for no in portion {
                if step.is_spent() {
                    return Pause::Over(Some(Place::Live(no)));
                }
                if let Some(pause) = self.look_into(step, no, std::mem::take(&mut was_read)) {
                    step.place = Place::Live(no);
                    return pause;
                }
            }
            let Some(next) = at else {
                step.place = Place::Past(PageSeq(u64::MAX), usize::MAX);
                return Pause::Over(None);
            };
            step.place = Place::Live(next);
            if step.is_full() {
                return Pause::Over(Some(step.place));
            }
        }
    }

    /// Looks into a live job's instructions if that is asked for, and takes it if it fits.
    fn look_into(&mut self, step: &mut SearchStep, no: JobNo, was_read: bool) -> Option<Pause> {
        if step.search.text.is_some() {
            match self.payload(no) {
                Some(instructions) if step.reads(&instructions) => {}
                Some(_) => return None,
                None if was_read => return None,
                None => {
                    let home = self.jobs.job(no)?.home;
                    return Some(Pause::Read(Log::Journal, home));
                }
            }
        }
        if let Some(job) = self.jobs.job(no) {
            step.take(self.view(job));
        }
        None
    }

    /// Looks at the jobs of one group, those that failed last in front.
    fn search_group(&mut self, step: &mut SearchStep, mut was_read: bool) -> Pause {
        let group = step.search.group.clone().unwrap_or_default();
        let jobs: Vec<JobNo> = self
            .jobs
            .failures
            .jobs(&group)
            .rev()
            .map(|(_, no)| no)
            .collect();
        let from = match step.place {
            Place::NEWEST => 0,
            Place::Live(no) => match jobs.iter().position(|other| *other == no) {
                Some(place) => place,
                // It is not in the group any more, and with it the place is lost.
                None => return Pause::Over(None),
            },
            Place::Past(..) => return Pause::Over(None),
        };
        for no in jobs.into_iter().skip(from) {
            step.place = Place::Live(no);
            if step.is_full() {
                return Pause::Over(Some(step.place));
            }
            step.found.looked_at += 1;
            let fits = self
                .jobs
                .job(no)
                .is_some_and(|job| self.finds_job(step, job));
            if fits && let Some(pause) = self.look_into(step, no, std::mem::take(&mut was_read)) {
                return pause;
            }
        }
        Pause::Over(None)
    }

    /// Looks at ended jobs from the step's place on; `records` are those of the page at
    /// that place.
    fn search_past(&mut self, step: &mut SearchStep, mut records: Option<&[Bytes]>) -> Pause {
        let from = match step.place {
            Place::Past(page, index) => (page, index),
            Place::Live(_) => (PageSeq(u64::MAX), usize::MAX),
        };
        let mut page = from.0;
        for (place, id, entry) in self.history.iter_back_from(from) {
            if place.0 != page {
                if page != PageSeq(u64::MAX) {
                    records = None;
                }
                page = place.0;
            }
            if step.is_full() {
                return Pause::Over(Some(Place::Past(place.0, place.1)));
            }
            step.found.looked_at += 1;
            if self.jobs.no(id).is_some() || !self.finds_past(step, id, entry) {
                continue;
            }
            if step.search.text.is_some() {
                let Some(records) = records else {
                    step.found.looked_at -= 1;
                    step.place = Place::Past(place.0, place.1);
                    return Pause::Read(Log::History, place.0);
                };
                let instructions = find_past(records, id).map(|(_, instructions)| instructions);
                if !step.reads(&instructions.unwrap_or_default()) {
                    continue;
                }
            }
            step.take(self.past_view(id, entry));
        }
        Pause::Over(None)
    }

    fn finds_job(&self, step: &SearchStep, job: &Job) -> bool {
        let search = &step.search;
        let worker = job.attempt.map(|(_, worker)| worker);
        let failure = job.rare.as_ref().and_then(|rare| rare.failure.as_ref());
        let has_error = |wanted: &str| {
            failure.is_some_and(|failure| {
                has_text(&failure.error.message, wanted) || has_text(&failure.error.detail, wanted)
            })
        };
        self.finds(step, &job.id, job.state, job.phase, has_error)
            && search.worker.is_none_or(|wanted| worker == Some(wanted))
            && is_within(
                search.enqueued_from,
                job.enqueued_at,
                search.enqueued_before,
            )
            && is_within(search.changed_from, job.changed_at, search.changed_before)
    }

    fn finds_past(&self, step: &SearchStep, id: &JobId, entry: &Entry) -> bool {
        let search = &step.search;
        let has_error = |wanted: &str| {
            let error = entry.error.as_deref();
            error.is_some_and(|error| has_text(error, wanted))
        };
        self.finds(step, id, entry.state, entry.phase, has_error)
            && search.worker.is_none()
            && is_within(
                search.enqueued_from,
                entry.enqueued_at,
                search.enqueued_before,
            )
            && is_within(search.changed_from, entry.ended_at, search.changed_before)
    }

    fn finds(
        &self,
        step: &SearchStep,
        id: &JobId,
        state: JobState,
        phase: u16,
        has_error: impl FnOnce(&str) -> bool,
    ) -> bool {
        let search = &step.search;
        (search.states.is_empty() || search.states.contains(&state))
            && search
                .phase
                .as_ref()
                .is_none_or(|wanted| Some(phase) == self.phase_of(wanted.as_str()))
            && search
                .id_prefix
                .as_ref()
                .is_none_or(|prefix| id.to_string().starts_with(prefix.as_str()))
            && step.error.as_deref().is_none_or(has_error)
    }
}

/// Whether a text has another one, given in lower case, in any case of letters.
fn has_text(text: &str, wanted: &str) -> bool {
    text.to_lowercase().contains(wanted)
}

fn is_within<T: PartialOrd>(from: Option<T>, at: T, before: Option<T>) -> bool {
    from.is_none_or(|from| from <= at) && before.is_none_or(|before| at < before)
}
