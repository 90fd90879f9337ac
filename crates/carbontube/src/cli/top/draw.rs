//! How the screen looks, from 80 columns on.

use std::time::{Duration, Instant};

use carbontube_protocol::Timestamp;
use carbontube_protocol::message::{
    Event, EventKind, JobState, JobView, LogLevel, ManagerState, PhaseStats, Track, WorkerStatus,
    WorkerView,
};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState, Wrap};

use super::super::admin::name_of;
use super::super::style::harmless;
use super::super::tail::{clock, line};
use super::super::words::{attempt_of, soon};
use super::picture::Picture;
use super::screen::{STATES, Screen, View};

/// After how long without an answer the manager counts as lost.
const LOST: Duration = Duration::from_secs(4);

const FAINT: Style = Style::new().fg(Color::DarkGray);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, now: Instant) {
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(screen, now)), head);
    frame.render_widget(Paragraph::new(tab_line(screen)), tabs);
    frame.render_widget(Paragraph::new(note_line(screen).right_aligned()), tabs);
    frame.render_widget(Paragraph::new(foot_line(screen)), foot);
    let Some(picture) = &screen.picture else {
        let text = screen.trouble.as_deref().unwrap_or("asking the manager…");
        frame.render_widget(Paragraph::new(harmless(text)), body);
        return;
    };
    match screen.view {
        View::Pipeline => pipeline(frame, body, screen, picture),
        View::Workers => workers(frame, body, screen, picture),
        View::Jobs => jobs(frame, body, screen, picture),
        View::Failures => failures(frame, body, screen, picture),
        View::Log => log(frame, body, screen),
    }
    if screen.help {
        help(frame, screen);
    }
}

fn colour(good: bool) -> Style {
    Style::new().fg(if good { Color::Green } else { Color::Red })
}

fn heading(screen: &Screen, now: Instant) -> Line<'static> {
    let Some(picture) = &screen.picture else {
        return Line::from(Span::styled("carbontube top", HEAD));
    };
    let age = screen.seen_at.map(|at| now.duration_since(at));
    let age = age.unwrap_or_default();
    let stats = &picture.stats;
    let mut spans = vec![
        Span::styled(harmless(picture.info.pipeline.as_str()), HEAD),
        Span::raw(" "),
        Span::styled(
            name_of(&stats.state),
            match stats.state {
                ManagerState::Running => colour(true),
                ManagerState::Impaired => colour(false),
                _ => Style::new().fg(Color::Yellow),
            },
        ),
        Span::raw(format!(
            "  {} live, {} finished, ",
            number(stats.live),
            number(stats.success)
        )),
        Span::styled(
            format!("{} failed", number(stats.failed)),
            if stats.failed > 0 {
                colour(false)
            } else {
                Style::new()
            },
        ),
        Span::raw("  "),
    ];
    spans.push(if age > LOST || screen.trouble.is_some() {
        let text = format!("LOST, {} old", span(age));
        Span::styled(text, colour(false).add_modifier(Modifier::BOLD))
    } else {
        Span::styled(format!("{} old", span(age)), FAINT)
    });
    Line::from(spans)
}

fn tab_line(screen: &Screen) -> Line<'static> {
    let mut spans = Vec::new();
    for (index, view) in View::ALL.into_iter().enumerate() {
        let style = if view == screen.view { CHOSEN } else { FAINT };
        let text = format!(" {} {} ", index + 1, view.title());
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

/// What should not be missed, at the right of the views' names.
fn note_line(screen: &Screen) -> Line<'static> {
    let Some(picture) = &screen.picture else {
        return Line::default();
    };
    let stats = &picture.stats;
    let workers: u64 = stats.phases.iter().map(|p| u64::from(p.workers)).sum();
    let mut spans = vec![Span::styled(counted(workers, "worker"), FAINT)];
    if stats.reruns > 0 {
        let text = format!(", {}", counted(stats.reruns, "rerun"));
        spans.push(Span::styled(text, Style::new().fg(Color::Yellow)));
    }
    Line::from(spans)
}

fn foot_line(screen: &Screen) -> Line<'static> {
    if let Some((question, _)) = &screen.question {
        let text = format!("{} y: yes, any other key: no", harmless(question));
        return Line::from(Span::styled(text, CHOSEN));
    }
    if screen.typing {
        return Line::from(format!("search: {}▏", harmless(&screen.search)));
    }
    if let Some(trouble) = &screen.trouble {
        return Line::from(Span::styled(harmless(trouble), colour(false)));
    }
    if let Some(done) = &screen.done {
        return Line::from(Span::styled(done.clone(), colour(true)));
    }
    let own = match (screen.view, screen.read_only) {
        (View::Pipeline, false) => "space pause or resume the phase  ",
        (View::Workers, false) => "d drain the worker  ",
        (View::Jobs, false) => "/ search  s state  r retry  c cancel  x discard  ",
        (View::Jobs, true) => "/ search  s state  ",
        (View::Failures, false) => "o retry one  r retry all  x discard all  ",
        (View::Log, _) => "/ search  space pause  ",
        _ => "",
    };
    let text = format!("{own}Tab next  ? keys  q leave");
    Line::from(Span::styled(text, FAINT))
}

/// Draws a table with the selected row in sight.
fn table<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    heads: [&'static str; N],
    widths: [Constraint; N],
    rows: Vec<Row<'static>>,
    selected: usize,
) {
    let empty = rows.is_empty();
    let table = Table::new(rows, widths)
        .header(Row::new(heads).style(FAINT))
        .column_spacing(1)
        .row_highlight_style(CHOSEN);
    let mut state = TableState::default().with_selected((!empty).then_some(selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn right(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Line::from(text.into()).right_aligned())
}

/// The mean of the last closed seconds of a column, each second.
fn rate(column: &[u32]) -> String {
    let last = &column[column.len().saturating_sub(5)..];
    if last.is_empty() {
        return "-".to_owned();
    }
    let sum: f64 = last.iter().map(|n| f64::from(*n)).sum();
    let mean = sum / last.len() as f64;
    if mean > 0.0 && mean < 10.0 {
        format!("{mean:.1}")
    } else {
        number(mean as u64)
    }
}

/// The mean of the last closed seconds of a column, as a number.
fn mean(column: &[u32]) -> f64 {
    let last = &column[column.len().saturating_sub(5)..];
    let sum: f64 = last.iter().map(|n| f64::from(*n)).sum();
    sum / (last.len().max(1) as f64)
}

/// How long the backlog of a phase takes at the present rates.
fn empty_in(phase: &PhaseStats, track: Option<&Track>) -> String {
    if phase.paused {
        return "paused".to_owned();
    }
    if phase.enqueued == 0 {
        return "-".to_owned();
    }
    let shrinks = track.map_or(0.0, |track| mean(&track.done) - mean(&track.arrived));
    if shrinks <= 0.001 {
        return "never".to_owned();
    }
    let seconds = (phase.enqueued + phase.scheduled) as f64 / shrinks;
    span(Duration::from_secs_f64(seconds.min(1e9)))
}

/// How wide a first column of names is, so that their numbers stand beside them.
fn name_width(names: impl Iterator<Item = String>, least: u16) -> u16 {
    let most = names.map(|name| name.chars().count()).max().unwrap_or(0);
    u16::try_from(most).unwrap_or(u16::MAX).clamp(least, 40)
}

fn pipeline(frame: &mut Frame<'_>, area: Rect, screen: &Screen, picture: &Picture) {
    let stats = &picture.stats;
    let height = u16::try_from(stats.phases.len()).unwrap_or(u16::MAX);
    // A tall screen has room for what happened last, under plots of a legible height.
    let is_tall = area.height > height.saturating_add(30);
    let [upper, lower, last] = Layout::vertical([
        Constraint::Length(height.saturating_add(2)),
        if is_tall {
            Constraint::Length(20)
        } else {
            Constraint::Min(4)
        },
        if is_tall {
            Constraint::Min(8)
        } else {
            Constraint::Length(0)
        },
    ])
    .areas(area);
    if is_tall {
        latest(frame, last, screen);
    }
    let rows = stats.phases.iter().enumerate().map(|(index, phase)| {
        let track = picture.series.phases.get(index).map(|phase| &phase.track);
        Row::new([
            Cell::from(phase_name(phase)),
            right(track.map_or_else(String::new, |track| rate(&track.arrived))),
            right(number(phase.enqueued + phase.scheduled)),
            right(format!(
                "{}/{}",
                number(phase.running.min(u64::from(phase.slots))),
                phase.slots
            )),
            right(track.map_or_else(String::new, |track| rate(&track.done))),
            right(number(phase.failed)).style(if phase.failed > 0 {
                colour(false)
            } else {
                Style::new()
            }),
            right(phase.oldest_at.map_or_else(
                || "-".to_owned(),
                |at| span(Duration::from_micros(age(stats.at, at))),
            )),
            right(match phase.duration_us {
                0 => "-".to_owned(),
                us => span(Duration::from_micros(us)),
            }),
            right(empty_in(phase, track)).style(if phase.paused {
                Style::new().fg(Color::Yellow)
            } else {
                Style::new()
            }),
            right(phase.workers.to_string()).style(if phase.workers == 0 && phase.enqueued > 0 {
                Style::new().fg(Color::Yellow)
            } else {
                Style::new()
            }),
        ])
    });
    table(
        frame,
        upper,
        [
            "phase", "in/s", "waiting", "slots", "done/s", "failed", "oldest", "takes", "empty",
            "workers",
        ],
        [
            Constraint::Length(name_width(stats.phases.iter().map(phase_name), 14)),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(7),
        ],
        rows.collect(),
        screen.selected,
    );
    plots(frame, lower, picture);
}

fn phase_name(phase: &PhaseStats) -> String {
    harmless(phase.job_type.as_str())
}

fn plots(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let total = &picture.series.total;
    let p99 = total.p99_us.iter().rev().find(|us| **us > 0);
    let p50 = total.p50_us.iter().rev().find(|us| **us > 0);
    let time = |us: Option<&u64>| match us {
        Some(us) => span(Duration::from_micros(*us)),
        None => "-".to_owned(),
    };
    let throughput: Vec<u64> = total.done.iter().map(|n| u64::from(*n)).collect();
    let backlog: Vec<u64> = total.backlog.iter().map(|n| u64::from(*n)).collect();
    let titles = [
        format!(" finished: {}/s, most ", rate(&total.done)),
        format!(
            " enqueue to end: p50 {}, p99 {}, most ",
            time(p50),
            time(p99)
        ),
        format!(
            " waiting: {}, most ",
            total
                .backlog
                .last()
                .map_or_else(|| "-".to_owned(), |n| number(u64::from(*n)))
        ),
    ];
    let most: [fn(u64) -> String; 3] = [
        |most| format!("{}/s ", number(most)),
        |most| format!("{} ", span(Duration::from_micros(most))),
        |most| format!("{} ", number(most)),
    ];
    let columns = [throughput, total.p99_us.clone(), backlog];
    let colours = [Color::Green, Color::Yellow, Color::Magenta];
    let areas: [Rect; 3] = if area.width >= 120 {
        Layout::horizontal([Constraint::Fill(1); 3]).areas(area)
    } else {
        Layout::vertical([Constraint::Fill(1); 3]).areas(area)
    };
    for ((((title, most), column), colour), area) in titles
        .into_iter()
        .zip(most)
        .zip(columns)
        .zip(colours)
        .zip(areas)
    {
        // The newest at the right edge, as many as fit; the title tells what the highest is.
        let width = usize::from(area.width.saturating_sub(2)).max(1);
        let from = column.len().saturating_sub(width);
        let title = title + &most(column[from..].iter().copied().max().unwrap_or(0));
        let plot = Sparkline::default()
            .block(Block::bordered().border_style(FAINT).title(title))
            .data(&column[from..])
            .style(Style::new().fg(colour));
        frame.render_widget(plot, area);
    }
}

fn status_style(status: WorkerStatus) -> Style {
    match status {
        WorkerStatus::Available => colour(true),
        WorkerStatus::Lost => colour(false),
        _ => Style::new().fg(Color::Yellow),
    }
}

fn score(worker: &WorkerView) -> String {
    match worker.success_count + worker.failed_count {
        0 => "-".to_owned(),
        all => format!("{} %", worker.success_count * 100 / all),
    }
}

fn workers(frame: &mut Frame<'_>, area: Rect, screen: &Screen, picture: &Picture) {
    if picture.workers.is_empty() {
        let text = "no worker has announced itself: start one with carbontube phase FILE JOB_TYPE";
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let now = picture.stats.at;
    let rows = picture.workers.iter().map(|worker| {
        Row::new([
            Cell::from(harmless(worker.job_type.as_str())),
            Cell::from(harmless(&worker.host)),
            Cell::from(worker.worker.short().to_string()),
            Cell::from(name_of(&worker.status)).style(status_style(worker.status)),
            // As the manager counts: what a worker says of itself is a second old.
            right(format!(
                "{}/{}",
                worker.held.min(worker.slots),
                worker.slots
            )),
            right(number(worker.success_count)),
            right(number(worker.failed_count)),
            right(score(worker)),
            right(span(Duration::from_micros(age(now, worker.last_seen_at)))),
        ])
    });
    table(
        frame,
        area,
        [
            "phase", "host", "worker", "status", "slots", "done", "failed", "score", "heard",
        ],
        [
            Constraint::Length(name_width(
                picture
                    .workers
                    .iter()
                    .map(|worker| harmless(worker.job_type.as_str())),
                12,
            )),
            Constraint::Length(
                name_width(
                    picture.workers.iter().map(|worker| harmless(&worker.host)),
                    8,
                )
                .min(if area.width < 100 { 10 } else { 24 }),
            ),
            Constraint::Length(8),
            Constraint::Length(10),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Length(6),
            Constraint::Length(5),
            Constraint::Length(6),
        ],
        rows.collect(),
        screen.selected,
    );
}

fn job_style(state: JobState) -> Style {
    match state {
        JobState::Success | JobState::Running => colour(true),
        JobState::Failed => colour(false),
        JobState::Scheduled | JobState::Cancelled => Style::new().fg(Color::Yellow),
        JobState::Enqueued => Style::new(),
    }
}

fn jobs(frame: &mut Frame<'_>, area: Rect, screen: &Screen, picture: &Picture) {
    let [about, list, chosen] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(if area.height > 12 { 4 } else { 0 }),
    ])
    .areas(area);
    let state = STATES[screen.state].map_or("any state", |state| state.as_str());
    let search = if screen.search.is_empty() {
        "/ searches instructions, error:TEXT errors, id:TEXT ids".to_owned()
    } else {
        harmless(&screen.search)
    };
    let more = if picture.found.next.is_some() {
        " (and more)"
    } else {
        ""
    };
    let text = format!(
        "{} found{more}, {state}; {search}",
        picture.found.jobs.len()
    );
    frame.render_widget(Paragraph::new(Span::styled(text, FAINT)), about);
    let rows = picture.found.jobs.iter().map(|job| {
        Row::new([
            Cell::from(tail_of(&job.id.to_string(), 16)),
            Cell::from(job.state.as_str()).style(job_style(job.state)),
            Cell::from(harmless(job.job_type.as_str())),
            right(attempt_of(job).to_string()),
            right(span(Duration::from_micros(age(
                picture.stats.at,
                job.changed_at,
            )))),
            Cell::from(why(job, picture.stats.at)),
        ])
    });
    table(
        frame,
        list,
        ["job", "state", "phase", "try", "for", "why"],
        [
            Constraint::Length(if area.width < 120 { 16 } else { 36 }),
            Constraint::Length(9),
            Constraint::Length(name_width(
                picture
                    .found
                    .jobs
                    .iter()
                    .map(|job| harmless(job.job_type.as_str())),
                12,
            )),
            Constraint::Length(3),
            Constraint::Length(7),
            Constraint::Min(20),
        ],
        rows.collect(),
        screen.selected,
    );
    if let Some(job) = picture.found.jobs.get(screen.selected) {
        let title = format!(" {} ", harmless(&job.id.to_string()));
        detail(frame, chosen, title, why(job, picture.stats.at));
    }
}

/// Why a job is where it is, on one line.
fn why(job: &JobView, now: Timestamp) -> String {
    let error = job.error.as_deref().map(harmless).unwrap_or_default();
    match (job.state, job.worker) {
        (JobState::Running, Some(worker)) => format!("at worker {}", worker.short()),
        (JobState::Failed | JobState::Cancelled, _) => error,
        (JobState::Success, _) => String::new(),
        _ if error.is_empty() => soon(&harmless(&job.reason), now, span),
        _ => format!("{}: {error}", soon(&harmless(&job.reason), now, span)),
    }
}

/// All of what a row has no room for.
fn detail(frame: &mut Frame<'_>, area: Rect, title: String, text: String) {
    let block = Block::bordered().border_style(FAINT).title(title);
    let text = Paragraph::new(text).wrap(Wrap { trim: true });
    frame.render_widget(text.block(block), area);
}

fn failures(frame: &mut Frame<'_>, area: Rect, screen: &Screen, picture: &Picture) {
    if picture.failures.is_empty() {
        frame.render_widget(Paragraph::new("nothing has failed"), area);
        return;
    }
    let [area, chosen] = Layout::vertical([
        Constraint::Min(2),
        Constraint::Length(if area.height > 12 { 5 } else { 0 }),
    ])
    .areas(area);
    if let Some(group) = picture.failures.get(screen.selected) {
        let title = format!(" for example {} ", harmless(&group.sample.to_string()));
        detail(frame, chosen, title, harmless(&group.message));
    }
    let rows = picture.failures.iter().map(|group| {
        Row::new([
            right(number(group.count)).style(colour(false)),
            Cell::from(harmless(group.job_type.as_str())),
            Cell::from(name_of(&group.kind)),
            right(span(Duration::from_micros(age(
                picture.stats.at,
                group.last_at,
            )))),
            Cell::from(harmless(&group.signature)),
        ])
    });
    table(
        frame,
        area,
        ["jobs", "phase", "kind", "last", "error"],
        [
            Constraint::Length(7),
            Constraint::Length(16),
            Constraint::Length(11),
            Constraint::Length(7),
            Constraint::Min(20),
        ],
        rows.collect(),
        screen.selected,
    );
}

/// What happened last to workers, the manager and jobs, without what phases log.
fn latest(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let height = usize::from(area.height.saturating_sub(2));
    let events = screen.shown_events().rev();
    let events = events.filter(|event| !matches!(event.kind, EventKind::Log { .. }));
    let lines: Vec<Line<'_>> = events.take(height).map(event_line).collect();
    let block = Block::bordered()
        .border_style(FAINT)
        .title(" latest first ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// An event on one line; of a long id only the end, which leaves room for the text.
fn event_line(event: &Event) -> Line<'static> {
    let id = match &event.kind {
        EventKind::Job { job, .. } => job.to_string(),
        EventKind::Log { line, .. } => line.job.to_string(),
        _ => String::new(),
    };
    let mut text = line(event);
    if !id.is_empty() {
        text = text.replacen(&id, &tail_of(&id, 13), 1);
    }
    Line::from(vec![
        Span::styled(clock(event.at.as_micros()), FAINT),
        Span::raw(" "),
        Span::styled(text, event_style(event)),
    ])
}

fn log(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let height = usize::from(area.height.saturating_sub(1));
    let mut shown: Vec<&Event> = screen.shown_events().rev().take(height).collect();
    shown.reverse();
    let [about, list] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let mut text = if screen.paused {
        "paused".to_owned()
    } else {
        "following".to_owned()
    };
    if !screen.search.is_empty() {
        text.push_str(&format!(", only with {:?}", harmless(&screen.search)));
    }
    if screen.left_out > 0 {
        text.push_str(&format!(", {} left out", number(screen.left_out)));
    }
    frame.render_widget(Paragraph::new(Span::styled(text, FAINT)), about);
    let lines: Vec<Line<'_>> = shown.into_iter().map(event_line).collect();
    frame.render_widget(Paragraph::new(lines), list);
}

fn event_style(event: &Event) -> Style {
    match &event.kind {
        EventKind::Log { line, .. } => match line.level {
            LogLevel::Error => colour(false),
            LogLevel::Warn => Style::new().fg(Color::Yellow),
            LogLevel::Info => Style::new(),
            LogLevel::Debug => FAINT,
        },
        EventKind::Worker { status, .. } => status_style(*status),
        EventKind::Job { .. } => colour(false),
        _ => Style::new().fg(Color::Cyan),
    }
}

fn help(frame: &mut Frame<'_>, screen: &Screen) {
    let mut text = vec![
        "1 to 5, Tab     the views",
        "arrows, j, k    choose a row",
        "/               search (jobs, log)",
        "s               the state of the jobs shown",
        "space           pause the log",
        "q, Esc          leave",
    ];
    if !screen.read_only {
        text.extend([
            "",
            "space           pause or resume a phase",
            "d               drain a worker",
            "r, c, x         retry, cancel, discard",
            "o               retry one of a group",
        ]);
    }
    let area = frame.area();
    let height = u16::try_from(text.len())
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    let (width, height) = (area.width.min(50), area.height.min(height));
    let place = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    let lines: Vec<Line<'_>> = text.into_iter().map(Line::from).collect();
    let block = Block::bordered().title(" keys ");
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

/// How long before `now` something was, in microseconds.
fn age(now: Timestamp, at: Timestamp) -> u64 {
    now.as_micros().saturating_sub(at.as_micros())
}

/// The end of a long id, which tells generated ids apart.
fn tail_of(id: &str, most: usize) -> String {
    let letters: Vec<char> = harmless(id).chars().collect();
    if letters.len() <= most {
        return letters.into_iter().collect();
    }
    let end = letters[letters.len() - (most - 1)..]
        .iter()
        .collect::<String>();
    format!("…{end}")
}

/// A length of time in a few letters.
fn span(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        _ if ms < 1.0 => format!("{:.0} µs", ms * 1000.0),
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 1000.0 => format!("{ms:.0} ms"),
        _ if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        _ if ms < 3_600_000.0 => format!("{:.0} min", (ms / 60_000.0).floor()),
        _ if ms < 172_800_000.0 => format!("{:.0} h", (ms / 3_600_000.0).floor()),
        _ => format!("{:.0} d", (ms / 86_400_000.0).floor()),
    }
}

/// A count with its name.
fn counted(n: u64, name: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {name}{s}", number(n))
}

/// A count in a few digits.
fn number(n: u64) -> String {
    match n {
        0..100_000 => n.to_string(),
        100_000..10_000_000 => format!("{:.0}k", n as f64 / 1000.0),
        _ => format!("{:.0}M", n as f64 / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests;
