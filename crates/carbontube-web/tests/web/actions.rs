//! Changes, and who may make them.

use carbontube_web::WebOptions;
use serde_json::{Value, json};

use crate::http::{Connection, Events, get, get_with, post, raw, until};
use crate::support::{Running, Site, options, run};

const ACTIONS: &str = "/api/v1/pipelines/films/actions";

fn count(value: &Value, length: usize) -> bool {
    value.as_array().is_some_and(|all| all.len() == length)
}

#[test]
fn failed_jobs_are_retried_and_discarded_by_group_after_confirmation() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 4).await;
        let jobs: Vec<(String, Value)> = (0..6)
            .map(|n| {
                (
                    format!("j{n}"),
                    json!({ "fail": format!("cannot open /tmp/{n}.mp4") }),
                )
            })
            .chain([("other".to_owned(), json!({ "fail": "out of memory" }))])
            .collect();
        let jobs: Vec<(&str, Value)> = jobs
            .iter()
            .map(|(id, v)| (id.as_str(), v.clone()))
            .collect();
        films.enqueue(&jobs).await;
        let failures = "/api/v1/pipelines/films/failures";
        let groups = until(site.port, failures, |all| {
            all["groups"][0]["count"] == 6 && all["groups"][1]["count"] == 1
        })
        .await;
        assert_eq!(groups["groups"][0]["signature"], "cannot open #");
        let group = groups["groups"][0]["group"].clone();

        let asked = post(
            site.port,
            ACTIONS,
            &json!({ "action": "discard", "group": group }),
        )
        .await;
        assert_eq!((asked.status, asked.code().as_str()), (409, "confirm"));
        assert_eq!(asked.json()["error"]["count"], 6);
        let sample = json!({ "action": "discard", "group": group, "limit": 2, "confirm": true });
        let done = post(site.port, ACTIONS, &sample).await.json();
        assert_eq!(
            done,
            json!({ "done": "2 jobs were discarded", "count": 2, "skipped": 0 })
        );
        let one = post(
            site.port,
            ACTIONS,
            &json!({ "action": "retry", "ids": ["other", "none"] }),
        )
        .await;
        let said = "1 job was retried; 1 had not failed or are not known";
        assert_eq!(one.json()["done"], said);
        let rest = json!({ "action": "retry", "group": group, "confirm": true });
        assert_eq!(post(site.port, ACTIONS, &rest).await.json()["count"], 4);
        // They fail again, at the same error.
        until(site.port, failures, |all| all["groups"][0]["count"] == 4).await;
        let notes = until(site.port, "/api/v1/pipelines/films/notes", |notes| {
            notes.to_string().contains("4 jobs were retried on request")
        })
        .await;
        assert!(
            notes.to_string().contains(": 2 jobs were discarded"),
            "{notes}"
        );
    });
}

#[test]
fn phases_and_pipelines_are_paused_resumed_and_workers_drained() {
    run(async {
        let films = Running::start(options("films", &["cut", "join"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 1).await;
        let paused = post(
            site.port,
            ACTIONS,
            &json!({ "action": "pause", "phase": "cut" }),
        )
        .await;
        assert_eq!(paused.json()["done"], "phase cut was paused");
        let again = post(
            site.port,
            ACTIONS,
            &json!({ "action": "pause", "phase": "cut" }),
        )
        .await;
        assert_eq!(
            again.json()["done"],
            "nothing to do: phase cut was paused already"
        );
        films.enqueue(&[("a", json!({}))]).await;
        let job = get(site.port, "/api/v1/pipelines/films/jobs/a")
            .await
            .json();
        assert_eq!(job["job"]["reason"], "phase cut is paused");
        until(site.port, "/api/v1/pipelines/films", |p| {
            p["phases"][0]["paused"] == true
        })
        .await;
        let whole = post(site.port, ACTIONS, &json!({ "action": "pause" })).await;
        assert_eq!(whole.code(), "confirm");
        let resumed = post(site.port, ACTIONS, &json!({ "action": "resume" })).await;
        assert_eq!(resumed.json()["done"], "the pipeline was resumed");
        until(site.port, "/api/v1/pipelines/films/jobs/a", |job| {
            job["job"]["job_type"] == "join"
        })
        .await;
        let cancelled = post(
            site.port,
            ACTIONS,
            &json!({ "action": "cancel", "ids": ["a"] }),
        )
        .await;
        assert_eq!(cancelled.json()["done"], "1 job was cancelled");
        let workers = get(site.port, "/api/v1/pipelines/films/workers")
            .await
            .json();
        let worker = workers["workers"][0]["worker"].clone();
        let drained = post(
            site.port,
            ACTIONS,
            &json!({ "action": "drain", "worker": worker }),
        )
        .await;
        assert_eq!(drained.json()["count"], 1);
        until(site.port, "/api/v1/pipelines/films/workers", |all| {
            count(&all["workers"], 0)
        })
        .await;
        let unknown = post(
            site.port,
            ACTIONS,
            &json!({ "action": "pause", "phase": "none" }),
        )
        .await;
        assert_eq!(
            (unknown.status, unknown.code().as_str()),
            (404, "unknown_phase")
        );
    });
}

#[test]
fn actions_that_make_no_sense_are_refused() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        for body in [
            json!({}),
            json!({ "action": "explode" }),
            json!({ "action": "retry" }),
            json!({ "action": "retry", "ids": ["a"], "group": "x" }),
            json!({ "action": "retry", "ids": ["a"], "limit": 1 }),
            json!({ "action": "retry", "ids": ["a b"] }),
            json!({ "action": "pause", "ids": ["a"] }),
            json!({ "action": "cancel", "group": "x" }),
            json!({ "action": "drain", "phase": "cut" }),
            json!({ "action": "retry", "ids": ["a"], "worker": "11111111-1111-1111-1111-111111111111" }),
            json!({ "action": "retry", "ids": ["a"], "surprise": 1 }),
            json!({ "action": "retry", "ids": vec!["a"; 1001] }),
        ] {
            let answer = post(site.port, ACTIONS, &body).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (400, "bad_request"),
                "{body}"
            );
        }
        let filter = json!({ "action": "cancel", "filter": { "state": "enqueued" } });
        assert_eq!(post(site.port, ACTIONS, &filter).await.code(), "confirm");
    });
}

#[test]
fn changes_are_refused_when_read_only_and_from_other_sites() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let reading = Site::with(
            &[&films],
            WebOptions {
                read_only: true,
                ..WebOptions::default()
            },
        )
        .await;
        let refused = post(reading.port, ACTIONS, &json!({ "action": "resume" })).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "read_only")
        );
        let overview = get(reading.port, "/api/v1/overview").await.json();
        assert_eq!(overview["read_only"], true);

        let site = Site::over(&[&films]).await;
        let body = "{\"action\":\"resume\"}";
        let length = body.len();
        for (headers, code) in [
            ("X-Carbontube: 1\r\nOrigin: http://evil.example", "origin"),
            ("X-Carbontube: 1\r\nSec-Fetch-Site: cross-site", "origin"),
            ("Content-Type: text/plain", "header"),
        ] {
            let request = format!(
                "POST {ACTIONS} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            let answer = raw(site.port, request.as_bytes()).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (403, code),
                "{headers}"
            );
        }
        let preflight = format!(
            "OPTIONS {ACTIONS} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n"
        );
        let preflight = raw(site.port, preflight.as_bytes()).await;
        assert_eq!(
            (
                preflight.status,
                preflight.header("access-control-allow-origin")
            ),
            (405, None)
        );
    });
}

#[test]
fn token_is_needed_for_everything_but_health_and_gives_a_session() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let web = carbontube_web::Web::start(WebOptions {
            port: 0,
            api: films.api.clone(),
            token: Some("a-token-of-some-length".to_owned()),
            ..WebOptions::default()
        });
        let web = web.await.expect("it starts");
        let port = web.address().port();
        for path in [
            "/api/v1/overview",
            "/metrics",
            "/api/jobs",
            "/api/v1/stream",
        ] {
            let refused = get(port, path).await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (401, "token"),
                "{path}"
            );
            assert!(refused.header("www-authenticate").is_some());
        }
        for path in ["/healthz", "/robots.txt", "/api/openapi.json"] {
            assert_eq!(get(port, path).await.status, 200, "{path}");
        }
        let bearer =
            "Host: localhost\r\nAuthorization: Bearer a-token-of-some-length\r\nConnection: close";
        assert_eq!(get_with(port, "/api/queues", bearer).await.status, 200);
        let wrong = post(
            port,
            "/api/v1/session",
            &json!({ "token": "a-token-of-other-text" }),
        )
        .await;
        assert_eq!(wrong.code(), "token");
        let right = post(
            port,
            "/api/v1/session",
            &json!({ "token": "a-token-of-some-length" }),
        )
        .await;
        let cookie = right.header("set-cookie").expect("a cookie");
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
            "{cookie}"
        );
        let cookie = cookie.split(';').next().unwrap_or("");
        let session = format!("Host: localhost\r\nCookie: {cookie}\r\nConnection: close");
        assert_eq!(get_with(port, "/api/queues", &session).await.status, 200);
        let stream = format!("Cookie: {cookie}\r\n");
        let mut events = Events::open_with(port, "", &stream).await;
        events.next().await;
        let out = format!(
            "DELETE /api/v1/session HTTP/1.1\r\nHost: localhost\r\nX-Carbontube: 1\r\nCookie: {cookie}\r\n\r\n"
        );
        assert_eq!(raw(port, out.as_bytes()).await.status, 200);
        assert_eq!(get_with(port, "/api/queues", &session).await.status, 401);
        // What was opened before ends with it.
        events.ended().await;
    });
}

#[test]
fn wrong_tokens_wait_ever_longer_and_are_counted() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let web = carbontube_web::Web::start(WebOptions {
            port: 0,
            api: films.api.clone(),
            token: Some("a-token-of-some-length".to_owned()),
            ..WebOptions::default()
        });
        let web = web.await.expect("it starts");
        let port = web.address().port();
        let shows = |token: &str| {
            format!("Host: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close")
        };
        let (wrong, right) = (
            shows("a-token-of-other-text"),
            shows("a-token-of-some-length"),
        );
        let started = std::time::Instant::now();
        for _ in 0..2 {
            let refused = get_with(port, "/api/v1/overview", &wrong).await;
            assert_eq!((refused.status, refused.code().as_str()), (401, "token"));
        }
        let waited = started.elapsed();
        assert!(
            waited >= std::time::Duration::from_millis(1500),
            "{waited:?}"
        );
        // One more is still waiting when the right one is answered and tells of it.
        let mut third = Connection::open(port).await;
        let request = format!("GET /api/v1/overview HTTP/1.1\r\n{wrong}\r\n\r\n");
        third.send(request.as_bytes()).await;
        loop {
            let metrics = get_with(port, "/metrics", &right).await;
            assert_eq!(metrics.status, 200);
            if metrics
                .text()
                .contains("carbontube_web_wrong_tokens_total 3\n")
            {
                break;
            }
        }
    });
}
