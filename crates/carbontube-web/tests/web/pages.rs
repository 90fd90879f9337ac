//! What pages read.

use std::collections::BTreeSet;

use base64::Engine;
use carbontube_web::WebOptions;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::{Connection, get, get_with, raw, until};
use crate::support::{Running, Site, options, run};

#[test]
fn overview_shows_every_pipeline_with_its_phases_and_workers() {
    run(async {
        let films = Running::start(options("films", &["cut", "join"])).await;
        let songs = Running::start(options("songs", &["mix"])).await;
        let site = Site::over(&[&films, &songs]).await;
        films.worker("cut", 3).await;
        films.worker("join", 1).await;
        films.enqueue(&[("a", json!({})), ("b", json!({}))]).await;
        songs.enqueue(&[("c", json!({}))]).await;
        let overview = until(site.port, "/api/v1/overview", |all| {
            all["pipelines"][0]["success"] == 2 && all["pipelines"][1]["live"] == 1
        })
        .await;
        assert_eq!(overview["read_only"], false);
        let pipeline = &overview["pipelines"][0];
        assert_eq!(
            (&pipeline["key"], &pipeline["reach"]),
            (&json!("films"), &json!("live"))
        );
        assert!(pipeline["age_ms"].as_u64().is_some_and(|age| age < 5000));
        let phases = pipeline["phases"].as_array().expect("phases");
        let names: Vec<_> = phases.iter().map(|phase| &phase["job_type"]).collect();
        assert_eq!(names, ["cut", "join"]);
        let workers = until(site.port, "/api/v1/pipelines/films/workers", |all| {
            let all = all["workers"].as_array().expect("workers");
            all.len() == 2
                && all
                    .iter()
                    .all(|w| w["status"] == "available" && w["success_count"] == 2)
        })
        .await;
        let worker = &workers["workers"][0];
        assert_eq!(worker["score"], 100);
        assert!(
            !worker["timeline"]
                .as_array()
                .expect("a timeline")
                .is_empty()
        );
        let songs_now = get(site.port, "/api/v1/pipelines/songs").await.json();
        assert_eq!(songs_now["phases"][0]["enqueued"], 1);
        assert_eq!(
            get(site.port, "/api/v1/pipelines/none").await.code(),
            "unknown_pipeline"
        );
    });
}

#[test]
fn jobs_are_searched_and_a_job_shows_everything_about_it() {
    run(async {
        let films = Running::start(options("films", &["cut", "join"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 2).await;
        films
            .enqueue(&[
                ("good", json!({ "log": "about to cut" })),
                ("bad", json!({ "fail": "cannot open /tmp/7.mp4" })),
            ])
            .await;
        let jobs = "/api/v1/pipelines/films/jobs";
        let failed = until(site.port, &format!("{jobs}?state=failed"), |found| {
            found["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1)
        })
        .await;
        assert_eq!(failed["jobs"][0]["id"], "bad");
        assert_eq!(failed["next"], Value::Null);
        let waiting = until(
            site.port,
            &format!("{jobs}?phase=join&state=enqueued,scheduled"),
            |found| found["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1),
        )
        .await;
        assert_eq!(waiting["jobs"][0]["reason"], "no worker runs join");
        for query in ["text=about+to", "id=goo", "text=%22about%20to%20cut%22"] {
            let found = get(site.port, &format!("{jobs}?{query}")).await.json();
            assert_eq!(found["jobs"][0]["id"], "good", "{query}");
            assert_eq!(found["jobs"].as_array().map(Vec::len), Some(1), "{query}");
        }
        let found = get(site.port, &format!("{jobs}?error=CANNOT%20open"))
            .await
            .json();
        assert_eq!(found["jobs"][0]["id"], "bad");

        let bad = get(site.port, &format!("{jobs}/bad")).await.json();
        assert_eq!(bad["job"]["state"], "failed");
        assert_eq!(bad["error"]["message"], "cannot open /tmp/7.mp4");
        let detail = bad["error"]["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("the detail"), "{detail:?}");
        assert_eq!(bad["attempts"][0]["job_type"], "cut");
        assert_eq!(bad["attempts"][0]["failure"], "error");
        assert_eq!(
            bad["instructions"]["json"],
            json!({ "fail": "cannot open /tmp/7.mp4" })
        );
        let good = until(site.port, &format!("{jobs}/good"), |job| {
            job["logs"]["lines"]
                .as_array()
                .is_some_and(|lines| lines.len() == 1)
        })
        .await;
        assert_eq!(good["logs"]["lines"][0]["text"], "about to cut");
        assert_eq!(good["job"]["reason"], "no worker runs join");
        let href = good["instructions"]["href"].as_str().expect("an address");
        let whole = get(site.port, href).await;
        assert_eq!(whole.json(), json!({ "log": "about to cut" }));
        let disposition = whole.header("content-disposition");
        assert_eq!(disposition, Some("attachment; filename=\"good.json\""));
        assert_eq!(
            get(site.port, &format!("{jobs}/none")).await.code(),
            "unknown_job"
        );
        let logs = get(site.port, "/api/v1/logs?pipeline=films&text=CUT&level=warn")
            .await
            .json();
        assert_eq!(logs["lines"][0]["job"], "good");
        let file = get(site.port, "/api/v1/logs?download=1").await.text();
        assert!(
            file.contains("warn films cut") && file.ends_with("good | about to cut\n"),
            "{file}"
        );
    });
}

#[test]
fn search_is_paged() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let names: Vec<String> = (0..25).map(|n| format!("j{n}")).collect();
        let jobs: Vec<(&str, Value)> = names.iter().map(|n| (n.as_str(), json!({}))).collect();
        films.enqueue(&jobs).await;
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/api/v1/pipelines/films/jobs?limit=10{after}");
            let page = get(site.port, &path).await.json();
            let jobs = page["jobs"].as_array().expect("jobs");
            seen.extend(
                jobs.iter()
                    .map(|job| job["id"].as_str().expect("an id").to_owned()),
            );
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let expected: Vec<String> = names.into_iter().rev().collect();
        assert_eq!(seen, expected);
    });
}

#[test]
fn parameters_that_are_not_right_are_refused_by_name() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        for (path, part) in [
            ("/jobs?state=done", "\"done\" is no state"),
            ("/jobs?limit=many", "limit is a whole number"),
            ("/jobs?worker=x", "no worker's id"),
            ("/jobs?phase=a%20b", "a b"),
            ("/jobs?enqueued_from=-1", "enqueued_from"),
            ("/series?step=hour", "step is second or minute"),
        ] {
            let answer = get(site.port, &format!("/api/v1/pipelines/films{path}")).await;
            assert_eq!(answer.status, 400, "{path}");
            let message = answer.json()["error"]["message"].to_string();
            assert!(
                message.replace('\\', "").contains(part),
                "{path}: {message}"
            );
        }
        let place = get(site.port, "/api/v1/pipelines/films/jobs?after=x").await;
        assert_eq!((place.status, place.code().as_str()), (400, "malformed"));
        let topic = get(site.port, "/api/v1/stream?topics=weather").await;
        assert_eq!(topic.code(), "bad_request");
    });
}

#[test]
fn series_are_there_at_once_after_the_web_interface_was_started_again() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let path = "/api/v1/pipelines/films/series?step=second&points=100";
        let counts = |series: &Value| -> u64 {
            let arrived = series["total"]["arrived"].as_array().expect("a column");
            arrived.iter().filter_map(Value::as_u64).sum()
        };
        {
            let site = Site::over(&[&films]).await;
            films.enqueue(&[("a", json!({})), ("b", json!({}))]).await;
            until(site.port, path, |series| counts(series) == 2).await;
        }
        let site = Site::over(&[&films]).await;
        let series = get(site.port, path).await.json();
        assert_eq!(counts(&series), 2);
        let length = series["total"]["arrived"].as_array().map(Vec::len);
        for column in [
            "done",
            "failed",
            "p50_us",
            "p99_us",
            "wait_p50_us",
            "wait_p99_us",
            "backlog",
            "running",
        ] {
            let other = series["phases"][0]["track"][column]
                .as_array()
                .map(Vec::len);
            assert_eq!(other, length, "{column}");
        }
        let latencies = get(site.port, "/api/v1/pipelines/films/latencies")
            .await
            .json();
        assert_eq!(latencies["phases"][0]["job_type"], "cut");
    });
}

#[test]
fn lost_manager_is_shown_as_lost_with_its_age_and_found_again() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let mut again = options("films", &["cut"]);
        again.api.clone_from(&films.api);
        films.stop().await;
        let lost = until(site.port, "/api/v1/pipelines/films", |p| {
            p["reach"] == "lost"
        })
        .await;
        assert!(lost["age_ms"].as_u64().is_some_and(|age| age >= 3500));
        assert_eq!(get(site.port, "/healthz").await.status, 200);
        let ready = get(site.port, "/readyz").await;
        assert_eq!((ready.status, ready.code().as_str()), (503, "lost"));
        let metrics = get(site.port, "/metrics").await.text();
        assert!(
            metrics.contains("carbontube_up{") && !metrics.contains("carbontube_jobs{"),
            "{metrics}"
        );
        let _films = Running::start(again).await;
        until(site.port, "/api/v1/pipelines/films", |p| {
            p["reach"] == "live"
        })
        .await;
        let notes = get(site.port, "/api/v1/pipelines/films/notes").await.text();
        assert!(notes.contains("the manager does not answer"), "{notes}");
    });
}

#[test]
fn original_routes_answer_as_they_did() {
    run(async {
        let films = Running::start(options("films", &["cut", "join"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 1).await;
        films
            .enqueue(&[("a", json!({ "fail": "no" })), ("b", json!({}))])
            .await;
        assert_eq!(
            get(site.port, "/api/pipelines").await.json(),
            json!(["films"])
        );
        assert_eq!(
            get(site.port, "/api/queues").await.json(),
            json!(["cut", "join"])
        );
        let workers = until(site.port, "/api/workers/available", |all| {
            all.as_array().is_some_and(|all| all.len() == 1)
        })
        .await;
        assert_eq!(workers[0]["job_type"], "cut");
        assert!(
            workers[0]["checkin"]
                .as_u64()
                .is_some_and(|at| at > 1_500_000_000)
        );
        let jobs = until(site.port, "/api/jobs", |jobs| {
            jobs["failed"]["cut"][0]["id"] == "a"
        })
        .await;
        assert_eq!(jobs["sink"], json!([]));
        until(site.port, "/api/jobs", |jobs| {
            jobs["mainstream"] == json!(["b"])
        })
        .await;
    });
}

#[test]
fn metrics_keep_to_the_text_format() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 1).await;
        films
            .enqueue(&[
                ("a", json!({ "fail": "no" })),
                ("b", json!({ "sleep_ms": 20 })),
            ])
            .await;
        until(site.port, "/api/v1/pipelines/films", |p| {
            p["failed"] == 1 && p["success"] == 1
        })
        .await;
        let answer = get(site.port, "/metrics").await;
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        let text = answer.text();
        let samples = crate::support::check_exposition(&text);
        let one = |name: &str| {
            samples
                .get(name)
                .copied()
                .unwrap_or_else(|| panic!("no {name}:\n{text}"))
        };
        assert!((one("carbontube_jobs_enqueued_total{pipeline=\"films\"}") - 2.0).abs() < 0.1);
        assert!(
            (one("carbontube_jobs_ended_total{pipeline=\"films\",outcome=\"success\"}") - 1.0)
                .abs()
                < 0.1
        );
        let failed =
            "carbontube_attempts_failed_total{pipeline=\"films\",phase=\"cut\",kind=\"error\"}";
        assert!((one(failed) - 1.0).abs() < 0.1);
        let count = "carbontube_attempt_duration_seconds_count{pipeline=\"films\",phase=\"cut\"}";
        assert!((one(count) - 2.0).abs() < 0.1);
        // What is documented, drawn and alerted on is what there is.
        let names: BTreeSet<&str> = samples
            .keys()
            .map(|sample| sample.split('{').next().unwrap_or(sample))
            .collect();
        for file in [
            include_str!("../../../../docs/monitoring/README.md"),
            include_str!("../../../../docs/monitoring/grafana-dashboard.json"),
            include_str!("../../../../docs/monitoring/prometheus-alerts.yaml"),
        ] {
            for word in file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                let histogram = format!("{word}_bucket");
                // There is one only after a repetition.
                let known = names.contains(word)
                    || names.contains(histogram.as_str())
                    || word == "carbontube_attempts_rerun_total"
                    || word == "carbontube_attempts_duplicate_total";
                assert!(
                    known || !word.starts_with("carbontube_"),
                    "there is no {word}"
                );
            }
        }
        // So are the labels by which it is added up.
        let mut labels: BTreeSet<&str> = samples
            .keys()
            .filter_map(|sample| sample.split_once('{'))
            .flat_map(|(_, labels)| labels.split('"').step_by(2))
            .map(|part| part.trim_matches(|c| matches!(c, ',' | '=' | '}')))
            .collect();
        labels.insert("cause");
        for file in [
            include_str!("../../../../docs/monitoring/grafana-dashboard.json"),
            include_str!("../../../../docs/monitoring/prometheus-alerts.yaml"),
        ] {
            let grouped = file.split(" by (").skip(1);
            let grouped = grouped.filter_map(|rest| rest.split(')').next());
            for label in grouped.flat_map(|names| names.split(", ")) {
                assert!(labels.contains(label), "no metric has the label {label:?}");
            }
        }
        let dashboard = include_str!("../../../../docs/monitoring/grafana-dashboard.json");
        let dashboard: Value = serde_json::from_str(dashboard).expect("it is JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
        for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = family.split(' ').next().unwrap_or("");
            let documented = include_str!("../../../../docs/monitoring/README.md");
            assert!(
                documented.contains(&format!("`{name}`")),
                "{name} is not documented"
            );
        }
    });
}

#[test]
fn health_needs_nobody_and_files_have_a_tag() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let file = get(site.port, "/robots.txt").await;
        let tag = file.header("etag").expect("a tag").to_owned();
        let headers = format!("Host: localhost\r\nIf-None-Match: {tag}\r\nConnection: close");
        let again = get_with(site.port, "/robots.txt", &headers).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        for path in ["/healthz", "/robots.txt", "/api/v1/overview", "/nowhere"] {
            let answer = get(site.port, path).await;
            assert_eq!(
                answer.header("x-content-type-options"),
                Some("nosniff"),
                "{path}"
            );
            let policy = answer.header("content-security-policy").unwrap_or("");
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'")
            );
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        let page = get(site.port, "/").await;
        let text = page.text();
        let (_, rest) = text.split_once("<style>").expect("a style in the page");
        let (style, _) = rest.split_once("</style>").expect("it ends");
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(style));
        let policy = page.header("content-security-policy").unwrap_or("");
        let own = format!("style-src 'sha256-{hash}';");
        assert!(policy.contains(&own), "{policy}");
        assert_eq!(get(site.port, "/nowhere").await.code(), "not_found");
        let openapi = get(site.port, "/api/openapi.json").await.json();
        assert_eq!(openapi["openapi"], "3.1.0");
    });
}

#[test]
fn connections_are_kept_and_pipelined_requests_answered_in_order() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let mut connection = Connection::open(site.port).await;
        let host = "Host: localhost\r\n\r\n";
        let requests = format!(
            "GET /healthz HTTP/1.1\r\n{host}HEAD /api/queues HTTP/1.1\r\n{host}GET /api/queues HTTP/1.1\r\n{host}"
        );
        connection.send(requests.as_bytes()).await;
        assert_eq!(connection.answer(true).await.text(), "ok\n");
        let head = connection.answer(false).await;
        assert_eq!(head.header("content-length"), Some("7"));
        assert_eq!(connection.answer(true).await.json(), json!(["cut"]));
        let wrong = raw(
            site.port,
            b"PUT /api/queues HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        .await;
        assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    });
}

#[test]
fn foreign_names_are_refused_and_allowed_ones_served() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::with(
            &[&films],
            WebOptions {
                allowed_hosts: vec!["jobs.example.org".to_owned()],
                ..WebOptions::default()
            },
        )
        .await;
        let evil = get_with(
            site.port,
            "/api/queues",
            "Host: evil.example\r\nConnection: close",
        )
        .await;
        assert_eq!((evil.status, evil.code().as_str()), (421, "host"));
        let ours = get_with(
            site.port,
            "/api/queues",
            "Host: jobs.example.org\r\nConnection: close",
        )
        .await;
        assert_eq!(ours.status, 200);
        let site_of = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nConnection: close";
        let foreign = get_with(site.port, "/api/queues", site_of).await;
        assert_eq!(foreign.code(), "origin");
    });
}
