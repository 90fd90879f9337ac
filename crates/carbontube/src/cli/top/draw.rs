//! How the screen looks, from 80 columns on.

use std::time::{Duration, Instant};

use carbontube_protocol::Timestamp;
use carbontube_protocol::message::{
    Event, EventKind, JobState, LogLevel, ManagerState, PhaseStats, WorkerStatus, WorkerView,
};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState};

use super::super::admin::name_of;
use super::super::style::harmless;
use super::super::tail::{clock, line};
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
        (View::Pipeline, false) => "space: pause or resume the phase  ",
        (View::Workers, false) => "d: drain the worker  ",
        (View::Jobs, false) => "/: search  s: state  r: retry  c: cancel  x: discard  ",
        (View::Jobs, true) => "/: search  s: state  ",
        (View::Failures, false) => "o: retry one  r: retry all  x: discard all  ",
        (View::Log, _) => "/: search  space: pause  ",
        _ => "",
    };
    let text = format!("{own}Tab: next  ?: keys  q: leave");
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

fn pipeline(frame: &mut Frame<'_>, area: Rect, screen: &Screen, picture: &Picture) {
    let stats = &picture.stats;
    let height = u16::try_from(stats.phases.len()).unwrap_or(u16::MAX);
    let [upper, lower] = Layout::vertical([
        Constraint::Length(height.saturating_add(2)),
        Constraint::Min(4),
    ])
    .areas(area);
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
            "phase", "in/s", "waiting", "slots", "done/s", "failed", "oldest", "takes", "workers",
        ],
        [
            Constraint::Min(14),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(7),
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
    let name = harmless(phase.job_type.as_str());
    if phase.paused {
        format!("{name} (paused)")
    } else {
        name
    }
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
        format!(" finished: {}/s ", rate(&total.done)),
        format!(" enqueue to end: p50 {}, p99 {} ", time(p50), time(p99)),
        format!(
            " waiting: {} ",
            total
                .backlog
                .last()
                .map_or_else(|| "-".to_owned(), |n| number(u64::from(*n)))
        ),
    ];
    let columns = [throughput, total.p99_us.clone(), backlog];
    let colours = [Color::Green, Color::Yellow, Color::Magenta];
    let areas: [Rect; 3] = if area.width >= 120 {
        Layout::horizontal([Constraint::Fill(1); 3]).areas(area)
    } else {
        Layout::vertical([Constraint::Fill(1); 3]).areas(area)
    };
    for (((title, column), colour), area) in titles.into_iter().zip(columns).zip(colours).zip(areas)
    {
        // The newest at the right edge, as many as fit.
        let width = usize::from(area.width.saturating_sub(2)).max(1);
        let from = column.len().saturating_sub(width);
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
    let now = picture.stats.at;
    let rows = picture.workers.iter().map(|worker| {
        Row::new([
            Cell::from(harmless(worker.job_type.as_str())),
            Cell::from(harmless(&worker.host)),
            Cell::from(worker.worker.short().to_string()),
            Cell::from(name_of(&worker.status)).style(status_style(worker.status)),
            right(format!("{}/{}", worker.running, worker.slots)),
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
            Constraint::Min(12),
            Constraint::Length(10),
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
    let [about, list] = Layout::vertical([Constraint::Length(1), Constraint::Min(2)]).areas(area);
    let state = STATES[screen.state].map_or("any state", |state| state.as_str());
    let search = if screen.search.is_empty() {
        "everything; / searches instructions, error:TEXT errors, id:TEXT ids".to_owned()
    } else {
        harmless(&screen.search)
    };
    let more = if picture.found.next.is_some() {
        " (and more)"
    } else {
        ""
    };
    let text = format!(
        "{state}, {search}: {} found{more}",
        picture.found.jobs.len()
    );
    frame.render_widget(Paragraph::new(Span::styled(text, FAINT)), about);
    let rows = picture.found.jobs.iter().map(|job| {
        let why = job.error.as_deref().unwrap_or(&job.reason);
        Row::new([
            Cell::from(tail_of(&job.id.to_string(), 16)),
            Cell::from(job.state.as_str()).style(job_style(job.state)),
            Cell::from(harmless(job.job_type.as_str())),
            right(job.attempt.to_string()),
            right(span(Duration::from_micros(age(
                picture.stats.at,
                job.changed_at,
            )))),
            Cell::from(harmless(why)),
        ])
    });
    table(
        frame,
        list,
        ["job", "state", "phase", "try", "for", "why"],
        [
            Constraint::Length(16),
            Constraint::Length(9),
            Constraint::Length(14),
            Constraint::Length(3),
            Constraint::Length(7),
            Constraint::Min(20),
        ],
        rows.collect(),
        screen.selected,
    );
}

fn failures(frame: &mut Frame<'_>, area: Rect, screen: &Screen, picture: &Picture) {
    if picture.failures.is_empty() {
        frame.render_widget(Paragraph::new("nothing has failed"), area);
        return;
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
    let lines: Vec<Line<'_>> = shown
        .into_iter()
        .map(|event| {
            Line::from(vec![
                Span::styled(clock(event.at.as_micros()), FAINT),
                Span::raw(" "),
                Span::styled(line(event), event_style(event)),
            ])
        })
        .collect();
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
