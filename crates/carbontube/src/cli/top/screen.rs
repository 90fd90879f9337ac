//! What is on the screen and what a key does. Pure: no terminal, no clock.

use std::collections::VecDeque;
use std::time::Instant;

use async_channel::Sender;
use carbontube_protocol::JobType;
use carbontube_protocol::message::{Event, EventKind, JobSearch, JobState, Selector, WorkerStatus};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::picture::{Action, Look, Picture, Told, Wish};

/// Events kept.
const EVENTS_MAX: usize = 2000;

/// The views, in the order of their keys 1 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Pipeline,
    Workers,
    Jobs,
    Failures,
    Log,
}

impl View {
    pub(super) const ALL: [View; 5] = [
        View::Pipeline,
        View::Workers,
        View::Jobs,
        View::Failures,
        View::Log,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            View::Pipeline => "Pipeline",
            View::Workers => "Workers",
            View::Jobs => "Jobs",
            View::Failures => "Failures",
            View::Log => "Log",
        }
    }
}

/// Which states of jobs the jobs view shows, in the order of the key `s`.
pub(super) const STATES: [Option<JobState>; 7] = [
    None,
    Some(JobState::Enqueued),
    Some(JobState::Scheduled),
    Some(JobState::Running),
    Some(JobState::Success),
    Some(JobState::Failed),
    Some(JobState::Cancelled),
];

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Leave,
}

/// What is on the screen.
pub(super) struct Screen {
    asks: Sender<Wish>,
    pub(super) read_only: bool,
    pub(super) view: View,
    pub(super) picture: Option<Box<Picture>>,
    /// When the picture came.
    pub(super) seen_at: Option<Instant>,
    pub(super) trouble: Option<String>,
    /// What an action did.
    pub(super) done: Option<String>,
    pub(super) events: VecDeque<Event>,
    pub(super) left_out: u64,
    pub(super) paused: bool,
    pub(super) selected: usize,
    /// What is asked before it is done.
    pub(super) question: Option<(String, Action)>,
    /// The text that is looked for; being typed while `typing`.
    pub(super) search: String,
    pub(super) typing: bool,
    pub(super) state: usize,
    pub(super) help: bool,
}

impl Screen {
    pub(super) fn new(asks: Sender<Wish>, read_only: bool) -> Screen {
        Screen {
            asks,
            read_only,
            view: View::Pipeline,
            picture: None,
            seen_at: None,
            trouble: None,
            done: None,
            events: VecDeque::new(),
            left_out: 0,
            paused: false,
            selected: 0,
            question: None,
            search: String::new(),
            typing: false,
            state: 0,
            help: false,
        }
    }

    pub(super) fn hear(&mut self, told: Told, now: Instant) {
        match told {
            Told::Picture(mut picture) => {
                // In the order of the pipeline, the lost ones of a phase first.
                let Picture { info, workers, .. } = &mut *picture;
                let place = |name: &JobType| info.phases.iter().position(|phase| phase == name);
                workers.sort_by_key(|worker| {
                    let is_lost = worker.status == WorkerStatus::Lost;
                    (place(&worker.job_type), !is_lost, worker.started_at)
                });
                self.picture = Some(picture);
                self.seen_at = Some(now);
                self.trouble = None;
                self.selected = self.selected.min(self.rows().saturating_sub(1));
            }
            Told::Events { events, left_out } => {
                if !self.paused {
                    self.left_out += left_out;
                    self.events.extend(events);
                    let over = self.events.len().saturating_sub(EVENTS_MAX);
                    self.events.drain(..over);
                }
            }
            Told::Done { changed, skipped } => {
                let skipped = match skipped {
                    0 => String::new(),
                    n => format!(", {n} could not be changed"),
                };
                self.done = Some(format!("done: {changed} changed{skipped}"));
            }
            Told::Trouble(text) => self.trouble = Some(text),
        }
    }

    /// How many rows can be selected.
    pub(super) fn rows(&self) -> usize {
        let Some(picture) = &self.picture else {
            return 0;
        };
        match self.view {
            View::Pipeline => picture.stats.phases.len(),
            View::Workers => picture.workers.len(),
            View::Jobs => picture.found.jobs.len(),
            View::Failures => picture.failures.len(),
            View::Log => 0,
        }
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::Leave;
        }
        if self.typing {
            self.typed(key.code);
            return Next::Stay;
        }
        if let Some((_, action)) = self.question.take() {
            if key.code == KeyCode::Char('y') {
                self.wish(Wish::Do(Box::new(action)));
            }
            return Next::Stay;
        }
        self.done = None;
        if self.help {
            self.help = false;
            return Next::Stay;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Leave,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char(digit @ '1'..='5') => {
                self.open(View::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(View::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::PageDown => self.select(self.selected + 10),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(10)),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Char('/') if matches!(self.view, View::Jobs | View::Log) => {
                self.typing = true;
            }
            KeyCode::Char('s') if self.view == View::Jobs => {
                self.state = (self.state + 1) % STATES.len();
                self.look();
            }
            KeyCode::Char(' ') if self.view == View::Log => self.paused = !self.paused,
            KeyCode::Char(letter) if !self.read_only => self.question = self.asked(letter),
            _ => {}
        }
        Next::Stay
    }

    fn typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.search.clear();
            }
            KeyCode::Backspace => {
                self.search.pop();
            }
            KeyCode::Char(letter) => self.search.push(letter),
            _ => {}
        }
        if self.view == View::Jobs && !self.typing {
            self.look();
        }
    }

    fn select(&mut self, row: usize) {
        self.selected = row.min(self.rows().saturating_sub(1));
    }

    fn turn(&mut self, by: usize) {
        let at = View::ALL.iter().position(|view| *view == self.view);
        let at = at.unwrap_or_default();
        self.open(View::ALL[(at + by) % View::ALL.len()]);
    }

    fn open(&mut self, view: View) {
        self.view = view;
        self.selected = 0;
        self.look();
    }

    fn look(&self) {
        self.wish(Wish::Look(match self.view {
            View::Pipeline => Look::Pipeline,
            View::Workers => Look::Workers,
            View::Jobs => Look::Jobs(Box::new(self.searched())),
            View::Failures => Look::Failures,
            View::Log => Look::Log,
        }));
    }

    /// What the jobs view looks for: `error:` and `id:` say where, else the instructions
    /// are searched.
    fn searched(&self) -> JobSearch {
        let mut search = JobSearch {
            states: STATES[self.state].into_iter().collect(),
            ..JobSearch::default()
        };
        let text = self.search.trim();
        if let Some(error) = text.strip_prefix("error:") {
            search.error = Some(error.trim().to_owned());
        } else if let Some(id) = text.strip_prefix("id:") {
            search.id_prefix = Some(id.trim().to_owned());
        } else if !text.is_empty() {
            search.text = Some(text.to_owned());
        }
        search
    }

    fn wish(&self, wish: Wish) {
        // The asker ends only with the process.
        let _ = self.asks.try_send(wish);
    }

    /// The question that a letter asks about what is selected.
    fn asked(&self, letter: char) -> Option<(String, Action)> {
        let picture = self.picture.as_ref()?;
        match (self.view, letter) {
            (View::Pipeline, ' ') => {
                let phase = picture.stats.phases.get(self.selected)?;
                let job_type = phase.job_type.clone();
                Some(if phase.paused {
                    (format!("resume {job_type}?"), Action::Resume(job_type))
                } else {
                    (format!("pause {job_type}?"), Action::Pause(job_type))
                })
            }
            (View::Workers, 'd') => {
                let worker = picture.workers.get(self.selected)?;
                let text = format!("drain worker {} on {}?", worker.worker.short(), worker.host);
                Some((text, Action::Drain(worker.worker)))
            }
            (View::Jobs, 'r' | 'c' | 'x') => {
                let job = picture.found.jobs.get(self.selected)?;
                let ids = Selector::Ids(vec![job.id.clone()]);
                let (verb, action) = chosen(letter, ids)?;
                Some((format!("{verb} job {}?", job.id), action))
            }
            (View::Failures, 'r' | 'o' | 'x') => {
                let group = picture.failures.get(self.selected)?;
                let limit = (letter == 'o').then_some(1);
                let count = limit.unwrap_or(group.count);
                let jobs = Selector::Group {
                    group: group.group.clone(),
                    limit,
                };
                let (verb, action) = chosen(if letter == 'o' { 'r' } else { letter }, jobs)?;
                Some((format!("{verb} {count} failed jobs of this group?"), action))
            }
            _ => None,
        }
    }

    /// The events that the log view shows, oldest first.
    pub(super) fn shown_events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        let wanted = self.search.to_lowercase();
        self.events.iter().filter(move |event| {
            let text = match &event.kind {
                EventKind::Log { line, .. } => line.text.as_str(),
                EventKind::Manager { reason, .. } => reason,
                EventKind::Action { text, .. } => text,
                EventKind::Worker { host, .. } => host,
                EventKind::Job {
                    error: Some(error), ..
                } => error,
                // Each job passes through many states: they would hide the rest.
                EventKind::Job { .. } | EventKind::Progress { .. } => return false,
            };
            wanted.is_empty() || text.to_lowercase().contains(&wanted)
        })
    }
}

fn chosen(letter: char, jobs: Selector) -> Option<(&'static str, Action)> {
    Some(match letter {
        'r' => ("retry", Action::Retry(jobs)),
        'c' => ("cancel", Action::Cancel(jobs)),
        'x' => ("discard", Action::Discard(jobs)),
        _ => return None,
    })
}
