//! What a page is like in a browser: how soon it is there and how soon it tells of a lost
//! worker, whether it stays smooth and small.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carbontube_tests::browser::{Browser, Window, is_installed};
use carbontube_tests::wait_until;
use serde_json::{Value, json};

use super::load::{Happened, Load};
use super::{PHASES, Report, at, cluster, median, numbers, slope, summary};
use crate::bench::{Bench, folder};
use crate::cluster::{Cluster, WORKER_TIMEOUT, now_us};
use crate::process::resident_kib;
use crate::web_page::Page;

/// Within what a page is to paint, in milliseconds.
const PAINT_MAX_MS: f64 = 200.0;
const JUST_STARTED: &str = "a browser just started";
/// For how long a browser is left alone after its first page, so that it has started: what it
/// makes ready meanwhile would be measured with the page.
const SETTLE: Duration = Duration::from_secs(3);
/// How many times a browser is opened anew, and how many times a page is opened again.
const PAINTS: usize = 7;
/// After how much silence a worker is lost here, and how much later a page may tell.
const TIMEOUT: Duration = Duration::from_secs(2);
const LOST_MAX: Duration = Duration::from_secs(1);
/// How many workers are killed, one after the other.
const KILLS: usize = 5;
/// How many events a second a page has to bear.
const EVENTS: f64 = 10_000.0;
/// Events that one job of two phases makes: accepted, and running and done at each.
const EVENTS_OF_A_JOB: f64 = 5.0;
/// How long each view is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Views that show what moves.
const VIEWS: [&str; 5] = ["map", "jobs", "logs", "events", "workers"];
/// How much a page or a server may grow, as a part of what it was.
const GROWTH_MAX: f64 = 0.05;
/// The shortest time between two messages to the page that stays open, and the usual one.
const PACE_MS: u64 = 25;
const USUAL_PACE_MS: u64 = 250;

/// Notes when the pipeline's name is on the page, and when a worker is shown as lost.
const NOTE_SIGHTS: &str = "
window.sights = {lostAt: {}};
window.messages = 0;
const listen = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (name, listener, ...more) {
  return listen.call(this, name, (event) => { window.messages += 1; return listener.call(this, event); }, ...more);
};
new MutationObserver(() => {
  if (!window.sights.dataMs && document.querySelector('[data-phase]')) window.sights.dataMs = performance.now();
  for (const each of document.querySelectorAll('.worker[data-status=lost]')) window.sights.lostAt[each.dataset.worker] ??= Date.now();
}).observe(document, {childList: true, subtree: true, attributes: true, characterData: true});
";

/// Notes each frame and each long task from now on.
const NOTE_FRAMES: &str = "
if (window.observer) window.observer.disconnect();
const run = {gaps: [], tasks: [], ends: false};
if (window.run) window.run.ends = true;
window.run = run;
window.observer = new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) run.tasks.push(entry.duration);
});
window.observer.observe({type: 'longtask'});
let last = performance.now();
requestAnimationFrame(function frame(now) {
  run.gaps.push(now - last);
  last = now;
  if (!run.ends) requestAnimationFrame(frame);
});
";

fn has_browser() -> Result<()> {
    ensure!(
        is_installed(),
        "chromium and chromedriver are needed (Debian: chromium, chromium-driver)"
    );
    Ok(())
}

/// Opens the map and waits until it shows the phases.
fn show(browser: &Browser, url: &str, view: &str) {
    browser.go(&format!("{url}#/bench/{view}"));
}

fn wait_for_data(browser: &Browser) -> f64 {
    wait_until("the phases on the page", || {
        browser
            .script("return window.sights?.dataMs ?? null", &[])
            .as_f64()
    })
}

/// When the page was painted first, by the browser itself, and when it showed the phases.
fn paints(browser: &Browser, url: &str) -> (f64, f64) {
    show(browser, url, "map");
    let data = wait_for_data(browser);
    (first_paint(browser), data)
}

/// When the browser says that it painted something of the page, in milliseconds.
fn first_paint(browser: &Browser) -> f64 {
    let find =
        "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null";
    wait_until("a first paint", || browser.script(find, &[]).as_f64())
}

pub(super) fn paint(bench: &Bench, report: &mut Report) -> Result<()> {
    has_browser()?;
    let folder = folder()?;
    let cluster = cluster(folder.path(), bench, WORKER_TIMEOUT)?;
    let page = Page::open(&cluster);
    let load = Load::start(&cluster, 100.0)?;
    let (mut first, mut cold, mut warm, mut line) = (vec![], vec![], vec![], vec![]);
    for _ in 0..PAINTS {
        // The first page that a browser shows after its start: it still makes ready itself.
        let browser = Browser::open(Window::DESKTOP);
        browser.run_first(NOTE_SIGHTS);
        browser.go("about:blank");
        first.push(paints(&browser, &page.url()));
        browser.go("about:blank");
        thread::sleep(SETTLE);
        browser.forget_cache();
        cold.push(paints(&browser, &page.url()));
        browser.go("about:blank");
        warm.push(paints(&browser, &page.url()));
        drop(browser);
        // And what it needs for a line of text then.
        let browser = Browser::open(Window::DESKTOP);
        browser.go("about:blank");
        browser.go(&format!("{}robots.txt", page.url()));
        line.push(first_paint(&browser));
    }
    load.end()?;
    let rows = [(JUST_STARTED, first), ("cold", cold), ("warm", warm)];
    for (name, found) in rows {
        let paint: Vec<f64> = found.iter().map(|pair| pair.0).collect();
        let data: Vec<f64> = found.iter().map(|pair| pair.1).collect();
        let most = at(&paint, 100);
        let value = format!("median {:.0} ms, at most {most:.0}", median(&paint));
        let title = format!("first paint, {name}");
        match name {
            // Its own start is no page's: see the line of text.
            JUST_STARTED => report.say(title, value),
            _ => report.judge(title, value, "< 200 ms", most < PAINT_MAX_MS),
        }
        let value = format!(
            "median {:.0} ms, at most {:.0}",
            median(&data),
            at(&data, 100)
        );
        report.say(format!("phases shown, {name}"), value);
        report.keep(
            &format!("paint_{}_ms", name.replace(' ', "_")),
            json!({ "first_paint": paint, "data_shown": data }),
        );
    }
    let value = format!(
        "median {:.0} ms, at most {:.0}",
        median(&line),
        at(&line, 100)
    );
    report.say(
        format!("first paint of a line of text, {JUST_STARTED}"),
        value,
    );
    report.keep("paint_line_ms", json!(line));
    Ok(())
}

/// Kills workers and looks how soon the page says so.
pub(super) fn lost(bench: &Bench, report: &mut Report) -> Result<()> {
    has_browser()?;
    let folder = folder()?;
    let mut cluster = cluster(folder.path(), bench, TIMEOUT)?;
    let page = Page::open(&cluster);
    let browser = Browser::open(Window::DESKTOP);
    browser.run_first(NOTE_SIGHTS);
    let load = Load::start(&cluster, 500.0)?;
    let mut took = Vec::new();
    for kill in 0..KILLS {
        let index = cluster.add_worker(PHASES[kill % 2], 4);
        let id = json!(cluster.worker(index).told("worker"));
        browser.go("about:blank");
        show(&browser, &page.url(), "workers");
        let find = "return document.querySelector(`[data-worker='${arguments[0]}']`)?.dataset.status ?? null";
        wait_until("the new worker on the page", || {
            let status = browser.script(find, std::slice::from_ref(&id));
            (status == "available").then_some(())
        });
        let killed_ms = now_us() as f64 / 1e3;
        cluster.kill_worker(index);
        let seen_ms = wait_until("the lost worker on the page", || {
            let find = "return window.sights.lostAt[arguments[0]] ?? null";
            browser.script(find, std::slice::from_ref(&id)).as_f64()
        });
        took.push((seen_ms - killed_ms) / 1e3);
    }
    load.end()?;
    let most = at(&took, 100);
    let limit = (TIMEOUT + LOST_MAX).as_secs_f64();
    report.judge(
        format!("a killed worker seen lost, worker timeout {TIMEOUT:?}"),
        format!("{:.2} s, at most {most:.2}", median(&took)),
        "<= timeout + 1 s",
        most <= limit,
    );
    report.keep("lost_s", json!(took));
    Ok(())
}

/// Looks at each view under many events and counts frames.
pub(super) fn smooth(bench: &Bench, report: &mut Report) -> Result<()> {
    has_browser()?;
    let folder = folder()?;
    let cluster = cluster(folder.path(), bench, WORKER_TIMEOUT)?;
    let page = Page::open(&cluster);
    let browser = Browser::open(Window::DESKTOP);
    browser.run_first(NOTE_SIGHTS);
    show(&browser, &page.url(), "map");
    wait_for_data(&browser);
    for rate in [0.0, EVENTS] {
        let load = Load::start(&cluster, rate / EVENTS_OF_A_JOB)?;
        for view in VIEWS {
            show(&browser, &page.url(), view);
            thread::sleep(Duration::from_secs(1));
            browser.script(NOTE_FRAMES, &[]);
            let before = Happened::now(&cluster)?;
            thread::sleep(LOOK);
            let (events, published) = before.rates(Happened::now(&cluster)?);
            let found = browser.script("return window.run", &[]);
            let (gaps, tasks) = (numbers(&found["gaps"]), numbers(&found["tasks"]));
            let frames = gaps.len() as f64 / LOOK.as_secs_f64();
            let late = gaps.iter().filter(|gap| **gap > 50.0).count();
            // An empty sum of floats is a negative zero.
            let busy = tasks.iter().sum::<f64>().abs();
            let value = format!(
                "{frames:.0} frames/s; gap p99 {:.0} ms, max {:.0} ms, {late} over 50 ms; {} long tasks, {busy:.0} ms",
                at(&gaps, 99),
                at(&gaps, 100),
                tasks.len(),
            );
            let name = format!("{view}, {events:.0} events/s");
            if rate > 0.0 {
                let is_met = at(&gaps, 99) <= 50.0;
                report.judge(name, value, "gap p99 <= 50 ms", is_met);
            } else {
                report.say(name, value);
            }
            report.keep(
                &format!("smooth_{view}_{}", if rate > 0.0 { "busy" } else { "idle" }),
                json!({
                    "events_per_second": events, "published_per_second": published,
                    "frames_per_second": frames, "gap_ms": summary(&gaps),
                    "gaps_over_50_ms": late, "long_tasks": tasks.len(), "long_task_ms": summary(&tasks),
                }),
            );
        }
        load.end()?;
    }
    Ok(())
}

/// What a round of views left behind.
struct Sample {
    seconds: f64,
    heap: f64,
    nodes: f64,
    listeners: f64,
    web_kib: f64,
    manager_kib: f64,
}

impl Sample {
    const NAMES: [&str; 5] = [
        "browser heap, after a collection",
        "nodes in the browser",
        "listeners in the browser",
        "memory of `carbontube web`",
        "memory of the manager",
    ];

    fn values(&self) -> [f64; 5] {
        [
            self.heap / 1024.0,
            self.nodes,
            self.listeners,
            self.web_kib,
            self.manager_kib,
        ]
    }
}

fn sample(cluster: &mut Cluster, page: &Page, browser: &Browser, began: Instant) -> Result<Sample> {
    show(browser, &page.url(), "map");
    thread::sleep(Duration::from_secs(1));
    let heap = browser.heap_bytes() as f64;
    let (nodes, listeners) = browser.nodes_and_listeners();
    Ok(Sample {
        seconds: began.elapsed().as_secs_f64(),
        heap,
        nodes: nodes as f64,
        listeners: listeners as f64,
        web_kib: resident_kib(page.process().id())? as f64,
        manager_kib: resident_kib(cluster.manager().id())? as f64,
    })
}

/// Keeps a page open under load and looks whether anything grows.
pub(super) fn heap(bench: &Bench, report: &mut Report) -> Result<()> {
    has_browser()?;
    let folder = folder()?;
    let mut cluster = cluster(folder.path(), bench, WORKER_TIMEOUT)?;
    let pace = format!("--pace={PACE_MS}ms");
    let page = Page::open_with(&cluster, &[&pace]);
    let browser = Browser::open(Window::DESKTOP);
    browser.run_first(NOTE_SIGHTS);
    show(&browser, &page.url(), "map");
    wait_for_data(&browser);
    let load = Load::start(&cluster, EVENTS / EVENTS_OF_A_JOB)?;
    let whole = Duration::from_secs_f64(bench.minutes * 60.0);
    let (began, first) = (Instant::now(), Happened::now(&cluster)?);
    let mut samples = Vec::new();
    while began.elapsed() < whole {
        for view in VIEWS {
            show(&browser, &page.url(), view);
            thread::sleep(Duration::from_millis(1500));
        }
        samples.push(sample(&mut cluster, &page, &browser, began)?);
    }
    let events = first.until(Happened::now(&cluster)?);
    let messages = browser.script("return window.messages", &[]);
    let messages = messages.as_f64().unwrap_or_default();
    let jobs = load.sent();
    load.end()?;
    let complaints = browser.complaints();
    ensure!(complaints.is_empty(), "the page complained: {complaints:?}");
    // At the usual pace a page is sent at most so much in an hour.
    let hours = messages / (3600.0 * 1000.0 / USUAL_PACE_MS as f64);
    report.say(
        "page open",
        format!(
            "{:.1} min, {jobs} jobs, {events} events, {messages:.0} messages ({hours:.2} h of four a second)",
            began.elapsed().as_secs_f64() / 60.0
        ),
    );
    // The first quarter warms up: code is compiled, rings and histories fill.
    let settled = &samples[samples.len() / 4..];
    ensure!(settled.len() >= 3, "--minutes is too short to say anything");
    let mut all = Vec::new();
    for (place, name) in Sample::NAMES.into_iter().enumerate() {
        let row: Vec<(f64, f64)> = settled
            .iter()
            .map(|sample| (sample.seconds, sample.values()[place]))
            .collect();
        let (from, to) = (row[0].1, row[row.len() - 1].1);
        let span = row[row.len() - 1].0 - row[0].0;
        let growth = slope(&row) * span / from;
        let unit = if place == 1 || place == 2 { "" } else { " KiB" };
        report.judge(
            name,
            format!(
                "{from:.0}{unit} to {to:.0}{unit}, trend {:+.1} %",
                100.0 * growth
            ),
            "trend < 5 %",
            growth < GROWTH_MAX,
        );
        all.push(json!({ "name": name, "values": row }));
    }
    report.keep(
        "heap",
        json!({ "events": events, "messages": messages, "jobs": jobs, "rows": Value::Array(all) }),
    );
    Ok(())
}
