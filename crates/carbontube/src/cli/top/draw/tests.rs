//! The screen as text, and what keys make of it.

use std::time::{Duration, Instant};

use carbontube_protocol::message::{
    EventKind, FailureGroup, FailureKind, Found, JobState, JobView, JournalView, LogLevel, LogLine,
    ManagerInfo, ManagerState, PhaseStats, PhaseTrack, Series, Stats, Step, Track,
};
use carbontube_protocol::{AttemptId, JobId, JobType, ManagerId, PipelineName, WorkerId};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::picture::{Action, Told, Wish};
use super::super::screen::{Next, Screen};
use super::*;

const NOW: u64 = 1_764_000_100_000_000;

fn at(seconds_ago: u64) -> Timestamp {
    Timestamp(NOW - seconds_ago * 1_000_000)
}

fn phase(name: &str, enqueued: u64, paused: bool) -> PhaseStats {
    PhaseStats {
        job_type: JobType::new(name).unwrap(),
        paused,
        enqueued,
        scheduled: 2,
        running: 9,
        failed: 3,
        oldest_at: Some(at(65)),
        workers: 2,
        slots: 8,
        done: 4000,
        failures: Vec::new(),
        duration_us: 81_000,
    }
}

fn track() -> Track {
    Track {
        arrived: vec![90, 100],
        done: vec![80, 100],
        failed: vec![0, 1],
        p50_us: vec![80_000, 81_000],
        p99_us: vec![120_000, 130_000],
        wait_p50_us: vec![0, 0],
        wait_p99_us: vec![0, 0],
        backlog: vec![500, 480],
        running: vec![8, 8],
    }
}

fn worker(status: WorkerStatus) -> WorkerView {
    WorkerView {
        worker: WorkerId::from_bytes([0x11; 16]),
        job_type: JobType::new("encode-video").unwrap(),
        address: "tcp://127.0.0.1:3000".parse().unwrap(),
        status,
        slots: 4,
        held: 5,
        running: 2,
        success_count: 90,
        failed_count: 10,
        last_seen_at: at(1),
        started_at: at(3600),
        host: "gpu-1".to_owned(),
        pid: 4711,
        version: "0.1.0".to_owned(),
    }
}

fn picture() -> Picture {
    let phases = ["encode-video", "split-video"];
    let job_type = |name: &str| JobType::new(name).unwrap();
    Picture {
        info: ManagerInfo {
            manager: ManagerId::from_bytes([0x22; 16]),
            epoch: 3,
            pipeline: PipelineName::new("video").unwrap(),
            phases: phases.map(job_type).to_vec(),
            version: "0.1.0".to_owned(),
            started_at: at(7200),
            state: ManagerState::Running,
            pull: Vec::new(),
            subscribe: Vec::new(),
            publish: Vec::new(),
            storage: "memory:".to_owned(),
        },
        stats: Stats {
            at: Timestamp(NOW),
            pipeline: PipelineName::new("video").unwrap(),
            state: ManagerState::Running,
            live: 482,
            enqueued: 5000,
            success: 4512,
            failed: 6,
            cancelled: 0,
            duplicates: 0,
            duplicate_causes: Vec::new(),
            reruns: 0,
            rerun_causes: Vec::new(),
            phases: vec![phase(phases[0], 480, false), phase(phases[1], 0, true)],
            journal: JournalView::default(),
            counters: Vec::new(),
        },
        series: Series {
            step: Step::Second,
            from: at(2),
            total: track(),
            phases: phases
                .map(|name| PhaseTrack {
                    job_type: job_type(name),
                    track: track(),
                })
                .to_vec(),
        },
        workers: vec![worker(WorkerStatus::Available), worker(WorkerStatus::Lost)],
        found: Found {
            jobs: vec![JobView {
                id: JobId::new("order-7").unwrap(),
                state: JobState::Failed,
                job_type: job_type(phases[0]),
                phase: 0,
                reason: String::new(),
                attempt: 3,
                enqueued_at: at(90),
                changed_at: at(80),
                worker: None,
                error: Some("no such \u{1b}[2Jfile".to_owned()),
            }],
            next: None,
            looked_at: 1,
        },
        failures: vec![FailureGroup {
            group: "9f86d081884c7d65".to_owned(),
            job_type: job_type(phases[0]),
            kind: FailureKind::Error,
            signature: "cannot open #".to_owned(),
            count: 6,
            first_at: at(90),
            last_at: at(80),
            sample: JobId::new("order-7").unwrap(),
            message: "cannot open /tmp/7.mp4".to_owned(),
        }],
    }
}

struct Bench {
    screen: Screen,
    wishes: async_channel::Receiver<Wish>,
    start: Instant,
}

fn bench(read_only: bool) -> Bench {
    let (asks, wishes) = async_channel::unbounded();
    let start = Instant::now();
    let mut screen = Screen::new(asks, read_only);
    screen.hear(Told::Picture(Box::new(picture())), start);
    Bench {
        screen,
        wishes,
        start,
    }
}

impl Bench {
    fn press(&mut self, code: KeyCode) -> Next {
        self.screen.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn typed(&mut self, text: &str) {
        for letter in text.chars() {
            self.press(KeyCode::Char(letter));
        }
    }

    fn wishes(&self) -> Vec<Wish> {
        std::iter::from_fn(|| self.wishes.try_recv().ok()).collect()
    }

    /// The screen's text, a line each.
    fn text(&self, width: u16, height: u16, after: Duration) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(frame, &self.screen, self.start + after))
            .unwrap();
        terminal.backend().to_string()
    }
}

#[test]
fn pipeline_fits_eighty_columns() {
    let text = bench(false).text(80, 24, Duration::from_millis(300));
    for wanted in [
        "video running",
        "482 live, 4512 finished, 6 failed",
        "300 ms old",
        "encode-video",
        "split-video ",
        " paused ",
        "never",
        "8/8",
        "1 min",
        "81 ms",
        "finished: 90/s",
        "p50 81 ms, p99 130 ms",
        "waiting: 480",
        "space pause or resume the phase",
        "4 workers",
        "most 100/s",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
}

#[test]
fn workers_fit_eighty_columns() {
    let mut bench = bench(false);
    bench.press(KeyCode::Char('2'));
    let text = bench.text(80, 24, Duration::ZERO);
    for wanted in ["gpu-1", "available", "lost", "4/4", "90 %", "1.0 s"] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
}

#[test]
fn lost_worker_of_a_phase_comes_first_and_slots_are_what_the_manager_counts() {
    let mut bench = bench(false);
    bench.press(KeyCode::Char('2'));
    let text = bench.text(80, 24, Duration::ZERO);
    let rows: Vec<&str> = text.lines().filter(|line| line.contains("gpu-1")).collect();
    assert!(rows[0].contains("lost"), "{text}");
    // Five held, four slots, of which it had said two to run.
    assert!(rows[0].contains("4/4"), "{text}");
}

#[test]
fn job_that_is_chosen_tells_all_of_why() {
    let mut bench = bench(false);
    let mut other = picture();
    let job = &mut other.found.jobs[0];
    job.state = JobState::Scheduled;
    job.attempt = 1;
    let until = NOW / 1_000_000 + 90;
    job.reason = format!("waits until {until}.000000 for try 2 of encode-video");
    job.error = Some("the disk of the third machine is full".to_owned());
    bench
        .screen
        .hear(Told::Picture(Box::new(other)), bench.start);
    bench.press(KeyCode::Char('3'));
    let text = bench.text(80, 24, Duration::ZERO);
    let wanted = "waits 1 min more for try 2 of encode-video: the disk of the third";
    assert!(text.contains(wanted), "{text}");
    assert!(
        text.lines()
            .any(|line| line.contains("order-7") && line.contains(" 2 ")),
        "{text}"
    );
}

#[test]
fn executions_that_may_have_run_twice_are_told() {
    let mut bench = bench(false);
    let mut other = picture();
    other.stats.reruns = 3;
    bench
        .screen
        .hear(Told::Picture(Box::new(other)), bench.start);
    let text = bench.text(80, 24, Duration::ZERO);
    assert!(text.contains("4 workers, 3 reruns"), "{text}");
}

#[test]
fn wide_screen_has_the_plots_side_by_side() {
    let bench = bench(false);
    let plots = |width| {
        let text = bench.text(width, 30, Duration::ZERO);
        let line = text.lines().find(|line| line.contains("finished: "));
        line.unwrap().contains("waiting: ")
    };
    assert!(plots(140));
    assert!(!plots(80));
}

#[test]
fn manager_that_does_not_answer_is_shown_as_lost_with_its_age() {
    let text = bench(false).text(80, 24, Duration::from_secs(12));
    assert!(text.contains("LOST, 12.0 s old"), "{text}");
}

#[test]
fn control_characters_of_jobs_do_not_reach_the_terminal() {
    let mut bench = bench(false);
    bench.press(KeyCode::Char('3'));
    let text = bench.text(80, 24, Duration::ZERO);
    assert!(text.contains("no such \u{fffd}[2Jfile"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn nothing_is_done_without_a_yes() {
    let mut bench = bench(false);
    bench.press(KeyCode::Char('4'));
    bench.wishes();
    bench.press(KeyCode::Char('r'));
    assert!(
        bench
            .text(80, 24, Duration::ZERO)
            .contains("retry 6 failed jobs of this group? y: yes")
    );
    bench.press(KeyCode::Char('n'));
    assert_eq!(bench.wishes(), []);
    bench.press(KeyCode::Char('r'));
    bench.press(KeyCode::Char('y'));
    let wishes = bench.wishes();
    let [Wish::Do(action)] = &wishes[..] else {
        panic!("{wishes:?}");
    };
    assert!(matches!(**action, Action::Retry(_)), "{action:?}");
}

#[test]
fn phase_that_is_chosen_is_paused_or_resumed() {
    let mut bench = bench(false);
    let mut pressed = |keys: &[KeyCode]| {
        for key in keys {
            bench.press(*key);
        }
        bench.wishes()
    };
    let space = KeyCode::Char(' ');
    let yes = KeyCode::Char('y');
    let first = JobType::new("encode-video").unwrap();
    let second = JobType::new("split-video").unwrap();
    assert_eq!(
        pressed(&[space, yes]),
        [Wish::Do(Box::new(Action::Pause(first)))]
    );
    assert_eq!(
        pressed(&[KeyCode::Down, space, yes]),
        [Wish::Do(Box::new(Action::Resume(second)))]
    );
}

#[test]
fn read_only_asks_nothing() {
    let mut bench = bench(true);
    bench.press(KeyCode::Char(' '));
    assert!(bench.screen.question.is_none());
    assert!(
        !bench
            .text(80, 24, Duration::ZERO)
            .contains("pause or resume")
    );
}

#[test]
fn search_asks_for_what_was_typed() {
    let mut bench = bench(false);
    bench.press(KeyCode::Char('3'));
    bench.wishes();
    bench.press(KeyCode::Char('/'));
    bench.typed("error: no such q");
    assert_eq!(bench.wishes(), [], "letters are not keys while one types");
    bench.press(KeyCode::Backspace);
    bench.press(KeyCode::Enter);
    let wishes = bench.wishes();
    let [Wish::Look(super::super::picture::Look::Jobs(search))] = &wishes[..] else {
        panic!("{wishes:?}");
    };
    assert_eq!(search.error.as_deref(), Some("no such"));
}

#[test]
fn log_shows_lines_and_counts_what_was_left_out() {
    let mut bench = bench(false);
    bench.press(KeyCode::Char('5'));
    let event = |text: &str| Event {
        at: at(1),
        kind: EventKind::Log {
            worker: WorkerId::from_bytes([0x11; 16]),
            job_type: JobType::new("encode-video").unwrap(),
            line: LogLine {
                job: JobId::new("order-7").unwrap(),
                attempt: AttemptId {
                    epoch: 1,
                    counter: 1,
                },
                at: at(1),
                level: LogLevel::Info,
                text: text.to_owned(),
            },
        },
    };
    let told = |text: &str| Told::Events {
        events: vec![event(text)],
        left_out: 5,
    };
    bench.screen.hear(told("frame 12"), bench.start);
    bench.press(KeyCode::Char(' '));
    bench.screen.hear(told("frame 13"), bench.start);
    let text = bench.text(80, 24, Duration::ZERO);
    assert!(text.contains("encode-video order-7 | frame 12"), "{text}");
    assert!(text.contains("paused, 5 left out"), "{text}");
    assert!(!text.contains("frame 13"), "{text}");
}

#[test]
fn tiny_terminal_and_no_answer_yet_draw_something() {
    let (asks, _wishes) = async_channel::unbounded();
    let mut screen = Screen::new(asks, false);
    screen.hear(Told::Trouble("no manager".to_owned()), Instant::now());
    let bench = Bench {
        screen,
        wishes: async_channel::unbounded().1,
        start: Instant::now(),
    };
    assert!(bench.text(40, 8, Duration::ZERO).contains("no manager"));
    for view in ['1', '2', '3', '4', '5'] {
        let mut bench = super::tests::bench(false);
        bench.press(KeyCode::Char(view));
        bench.press(KeyCode::Char('?'));
        bench.text(10, 4, Duration::ZERO);
    }
}

#[test]
fn q_leaves() {
    let mut bench = bench(false);
    assert_eq!(bench.press(KeyCode::Char('?')), Next::Stay);
    assert_eq!(
        bench.press(KeyCode::Char('q')),
        Next::Stay,
        "closes the keys"
    );
    assert_eq!(bench.press(KeyCode::Char('q')), Next::Leave);
}
