//! The event stream.

use std::time::Instant;

use serde_json::{Value, json};

use crate::http::{Connection, Events, get, post, until};
use crate::support::{Running, Site, options, run};

#[test]
fn page_is_sent_everything_first_then_what_changes() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let mut page = Events::open(site.port, "topics=pipelines,workers,notes,jobs").await;
        let mut plots = Events::open(site.port, "topics=points").await;
        plots.next().await;
        assert_eq!(page.next().await.name, "hello");
        let all = page.find("pipelines", |_| true).await.data;
        assert_eq!(all["pipelines"][0]["key"], "films");
        let clock = page.find("clock", |_| true).await.data;
        assert_eq!(clock["pipelines"]["films"]["reach"], "live");
        let worker = films.worker("cut", 2).await;
        let came = page
            .find("workers", |data| {
                data["workers"][0]["status"] == "available"
            })
            .await
            .data;
        let id = came["workers"][0]["worker"].clone();
        page.find("notes", |data| data.to_string().contains("takes work"))
            .await;
        films.enqueue(&[("a", json!({}))]).await;
        page.find("jobs", |data| {
            let jobs = data["jobs"].as_array().expect("jobs");
            jobs.iter()
                .any(|job| job["id"] == "a" && job["state"] == "success")
        })
        .await;
        page.find("pipelines", |data| data["pipelines"][0]["success"] == 1)
            .await;
        plots
            .find("points", |data| {
                let points = data["points"].as_array().expect("points");
                points
                    .iter()
                    .any(|point| point["total"]["done"] == 1 && point["phases"][0]["done"] == 1)
            })
            .await;
        worker.drain();
        page.find("workers", |data| {
            let gone = data["gone"].as_array().expect("gone");
            gone.contains(&id) || data["full"] == true && data["workers"] == json!([])
        })
        .await;
    });
}

#[test]
fn log_lines_come_live_filtered_and_go_on_after_a_reconnection() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 1).await;
        let mut all = Events::open(site.port, "topics=logs").await;
        let mut some = Events::open(site.port, "topics=logs&job=b").await;
        films
            .enqueue(&[
                ("a", json!({ "log": "line of a" })),
                ("b", json!({ "log": "line of b" })),
            ])
            .await;
        let mut seen = Vec::new();
        let mut last = None;
        while seen.len() < 2 {
            let event = all.find("logs", |_| true).await;
            let lines = event.data["lines"].as_array().expect("lines");
            seen.extend(
                lines
                    .iter()
                    .map(|line| line["text"].as_str().expect("text").to_owned()),
            );
            last = event.id;
        }
        assert_eq!(seen, ["line of a", "line of b"]);
        let only = some.find("logs", |_| true).await.data;
        assert_eq!(only["lines"][0]["job"], "b");
        assert_eq!(only["lines"].as_array().map(Vec::len), Some(1));
        films.enqueue(&[("c", json!({ "log": "line of c" }))]).await;
        let id = last.expect("log lines have an id");
        let header = format!("Last-Event-ID: {id}\r\n");
        let mut again = Events::open_with(site.port, "topics=logs", &header).await;
        let rest = again.find("logs", |_| true).await.data;
        assert_eq!(rest["lines"][0]["text"], "line of c");
    });
}

#[test]
fn web_interface_that_comes_late_shows_logs_and_workers_of_before() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let early = Site::over(&[&films]).await;
        let first = films.worker("cut", 1).await;
        films
            .enqueue(&[("a", json!({ "log": "said early" }))])
            .await;
        until(early.port, "/api/v1/logs", |logs| {
            logs["lines"].as_array().is_some_and(|l| !l.is_empty())
        })
        .await;
        drop(early);
        first.stop_now();
        films.worker("cut", 1).await;
        let site = Site::over(&[&films]).await;
        let logs = until(site.port, "/api/v1/logs", |logs| {
            logs["lines"].as_array().is_some_and(|l| !l.is_empty())
        })
        .await;
        assert_eq!(logs["lines"].as_array().map(Vec::len), Some(1));
        assert_eq!(logs["lines"][0]["text"], "said early");
        assert_eq!(logs["lines"][0]["pipeline"], "films");
        let workers = until(site.port, "/api/v1/pipelines/films/workers", |all| {
            let all = all["workers"].as_array().into_iter().flatten();
            all.clone().any(|w| w["status"] == "available")
        })
        .await;
        let workers = workers["workers"].as_array().expect("workers").iter();
        for worker in workers {
            let timeline = worker["timeline"].as_array().expect("a timeline");
            let times: Vec<_> = timeline.iter().map(|entry| entry["at"].as_u64()).collect();
            assert!(times.is_sorted(), "{timeline:?}");
            assert_eq!(
                timeline.last().map(|l| &l["status"]),
                Some(&worker["status"])
            );
            assert_eq!(timeline[0]["status"], "connecting", "{timeline:?}");
        }
        // What was taken up is told once, however often it was heard.
        let mut page = Events::open(site.port, "topics=notes").await;
        let notes = page.find("notes", |_| true).await.data;
        let notes = notes["notes"].as_array().expect("notes");
        let told: Vec<String> = notes.iter().map(Value::to_string).collect();
        let distinct: std::collections::BTreeSet<_> = told.iter().collect();
        assert_eq!(distinct.len(), told.len(), "{told:?}");
        let came = told
            .iter()
            .find(|note| note.contains("takes work, 1 slots"));
        assert!(came.is_some(), "{told:?}");
    });
}

#[test]
fn lost_worker_and_paused_phase_are_seen_within_a_moment() {
    run(async {
        let mut settings = options("films", &["cut"]);
        settings.core.worker_timeout = std::time::Duration::from_secs(2);
        let films = Running::start(settings).await;
        let site = Site::over(&[&films]).await;
        let worker = films.worker("cut", 1).await;
        let mut page = Events::open(site.port, "").await;
        page.find("workers", |data| {
            data["workers"][0]["status"] == "available"
        })
        .await;
        worker.stop_now();
        page.find("workers", |data| {
            data["workers"][0]["status"] == "lost"
                || data["gone"].as_array().is_some_and(|g| !g.is_empty())
        })
        .await;
        let asked = Instant::now();
        let pause = json!({ "action": "pause", "phase": "cut" });
        post(site.port, "/api/v1/pipelines/films/actions", &pause).await;
        page.find("pipelines", |data| {
            data["pipelines"][0]["phases"][0]["paused"] == true
        })
        .await;
        assert!(asked.elapsed().as_millis() < 2000);
    });
}

#[test]
fn slow_page_costs_nothing_and_sees_the_latest_state() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 8).await;
        // It asks for everything and reads nothing.
        let mut slow = Connection::open(site.port).await;
        slow.send(b"GET /api/v1/stream?topics=pipelines,workers,jobs,logs,points HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let names: Vec<String> = (0..500).map(|n| format!("j{n}")).collect();
        let jobs: Vec<(&str, Value)> = names
            .iter()
            .map(|n| (n.as_str(), json!({ "log": "x".repeat(2000) })))
            .collect();
        films.enqueue(&jobs).await;
        until(site.port, "/api/v1/pipelines/films", |p| {
            p["success"] == 500
        })
        .await;
        let mut page = Events::open(site.port, "topics=pipelines").await;
        page.find("pipelines", |data| data["pipelines"][0]["success"] == 500)
            .await;
        drop(slow);
    });
}

#[test]
fn pages_are_limited_and_leave_their_seat() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let mut pages = Vec::new();
        for _ in 0..200 {
            pages.push(Events::open(site.port, "topics=pipelines").await);
        }
        let refused = get(site.port, "/api/v1/stream").await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "pages"));
        pages.truncate(50);
        // A page that left is noticed although it never says so.
        let metrics = "/metrics";
        loop {
            let text = get(site.port, metrics).await.text();
            if text.contains("carbontube_web_pages 50\n") {
                break;
            }
            async_io::Timer::after(std::time::Duration::from_millis(20)).await;
        }
        Events::open(site.port, "topics=pipelines").await;
        let unknown = get(site.port, "/api/v1/stream?pipeline=none").await;
        assert_eq!(unknown.code(), "unknown_pipeline");
    });
}
