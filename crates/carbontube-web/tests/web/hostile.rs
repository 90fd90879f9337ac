//! Data and peers that mean harm.

use carbontube_client::NewJob;
use carbontube_protocol::JobId;
use futures_lite::io::AsyncWriteExt;
use serde_json::json;

use crate::http::{Connection, get, raw, until, until_status};
use crate::support::{Running, Site, options, run, within};

#[test]
fn html_in_job_data_stays_data() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 1).await;
        let evil = "</script><img src=x onerror=alert(1)>";
        films
            .enqueue(&[("<b>x</b>", json!({ "fail": evil, "log": evil }))])
            .await;
        let path = "/api/v1/pipelines/films/jobs/%3Cb%3Ex%3C%2Fb%3E";
        let job = until(site.port, path, |job| {
            job["job"]["state"] == "failed"
                && !job["logs"]["lines"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
        assert_eq!(job["error"]["message"], evil);
        assert_eq!(job["logs"]["lines"][0]["text"], evil);
        let answer = get(site.port, path).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let href = job["instructions"]["href"].as_str().expect("an address");
        let whole = get(site.port, href).await;
        let disposition = whole.header("content-disposition");
        assert_eq!(disposition, Some("attachment; filename=\"_b_x__b_.json\""));
    });
}

#[test]
fn control_characters_come_as_valid_json() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 1).await;
        let evil = "\u{0}\u{1b}[2J\r\n\u{2028}\u{202e}end";
        films
            .enqueue(&[("a", json!({ "fail": evil, "log": evil }))])
            .await;
        let job = until(site.port, "/api/v1/pipelines/films/jobs/a", |job| {
            job["job"]["state"] == "failed"
                && !job["logs"]["lines"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
        assert_eq!(job["instructions"]["json"]["fail"], evil);
        let file = get(site.port, "/api/v1/logs?download=1").await.text();
        assert!(
            !file.contains('\u{1b}') && !file.contains('\u{0}'),
            "{file:?}"
        );
        let groups = get(site.port, "/api/v1/pipelines/films/failures")
            .await
            .json();
        let signature = groups["groups"][0]["signature"]
            .as_str()
            .expect("a signature");
        assert!(!signature.contains('\n'), "{signature:?}");
    });
}

#[test]
fn invalid_utf8_in_instructions_is_refused_at_the_door_and_never_shown() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let client = films.client().await;
        let job = NewJob::from_json(&b"{\"a\":\"\xff\xfe\"}"[..])
            .with_id(JobId::new("a").expect("an id"));
        let outcome = client.enqueue(&films.name, job).await;
        let answer = get(site.port, "/api/v1/pipelines/films/jobs/a").await;
        match outcome {
            // Taken: then it must come as valid JSON all the same.
            Ok(_) => assert!(
                answer.json()["instructions"]["text"]
                    .as_str()
                    .is_some_and(|t| t.contains('\u{fffd}'))
            ),
            Err(_) => assert_eq!(answer.code(), "unknown_job"),
        }
    });
}

#[test]
fn instructions_of_16_mib_are_cut_and_downloaded_whole() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let long = format!("{{\"a\":\"{}\"}}", "y".repeat((16 << 20) - 8));
        assert_eq!(long.len(), 16 << 20);
        let client = films.client().await;
        let id = JobId::new("big").expect("an id");
        let job = NewJob::from_json(long.clone()).with_id(id);
        client
            .enqueue(&films.name, job)
            .await
            .expect("it is accepted");
        let answer = get(site.port, "/api/v1/pipelines/films/jobs/big").await;
        assert!(answer.body.len() < 100_000);
        let job = answer.json();
        assert_eq!(job["instructions"]["bytes"], 16 << 20);
        assert_eq!(job["instructions"]["truncated"], true);
        let whole = get(site.port, "/api/v1/pipelines/films/jobs/big/instructions").await;
        assert_eq!(whole.body.len(), long.len());
        assert!(whole.body == long.as_bytes());
        let found = get(site.port, "/api/v1/pipelines/films/jobs?text=yyyyy")
            .await
            .json();
        assert_eq!(found["jobs"][0]["id"], "big");
    });
}

#[test]
fn requests_that_could_be_read_in_two_ways_end_the_connection() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        for request in [
            "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/jobs HTTP/1.1\r\n\r\n",
            "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
            "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\r\n\r\n",
        ] {
            let mut connection = Connection::open(site.port).await;
            connection.send(request.as_bytes()).await;
            let answer = connection.answer(true).await;
            assert_eq!(answer.status, 400, "{request:?}");
            assert_eq!(answer.header("connection"), Some("close"));
            while connection.more().await {}
            assert!(
                connection.buffer.is_empty(),
                "nothing more is answered: {request:?}"
            );
        }
    });
}

#[test]
fn heads_and_bodies_beyond_their_limits_are_refused() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let long = format!(
            "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "a".repeat(20_000)
        );
        let answer = raw(site.port, long.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (431, "head"));
        let large = b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n";
        let answer = raw(site.port, large).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    });
}

#[test]
fn header_values_cannot_add_headers() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let answer = get(
            site.port,
            "/api/v1/pipelines/films/jobs/a%0d%0aSet-Cookie:%20x=1/instructions",
        )
        .await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header("set-cookie"), None);
    });
}

#[test]
fn page_that_talks_on_is_cut_off() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let mut page = Connection::open(site.port).await;
        page.send(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        assert_eq!(page.answer(false).await.status, 200);
        // All that it says more can be taken in before it is cut off, or not.
        let _ = page.stream.write_all(&[b'x'; 8 << 10]).await;
        let cut_off = async { while page.more().await {} };
        within("the end of the stream", cut_off).await;
    });
}

#[test]
fn request_behind_nothing_but_line_ends_is_refused() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let few = b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert_eq!(raw(site.port, few).await.status, 200);
        let many = [b"\r\n".repeat(100).as_slice(), few].concat();
        assert_eq!(raw(site.port, &many).await.status, 400);
        // One that comes byte by byte is read all the same.
        let mut slow = Connection::open(site.port).await;
        for byte in few {
            slow.send(&[*byte]).await;
        }
        assert_eq!(slow.answer(true).await.status, 200);
    });
}

#[test]
fn large_answers_that_nobody_reads_are_limited() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let long = format!("{{\"a\":\"{}\"}}", "y".repeat(8 << 20));
        let client = films.client().await;
        let job = NewJob::from_json(long).with_id(JobId::new("big").expect("an id"));
        client
            .enqueue(&films.name, job)
            .await
            .expect("it is accepted");
        let path = "/api/v1/pipelines/films/jobs/big/instructions";
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut readers = Vec::new();
        for _ in 0..8 {
            // It asks, sees that there is an answer, and reads no more of it.
            let mut reader = Connection::open(site.port).await;
            reader.send(request.as_bytes()).await;
            assert_eq!(reader.answer(false).await.status, 200);
            readers.push(reader);
        }
        let refused = get(site.port, path).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "busy"));
        assert_eq!(get(site.port, "/healthz").await.status, 200);
        drop(readers);
        until_status(site.port, path, 200).await;
    });
}

#[test]
fn health_is_told_however_many_connections_one_host_holds() {
    run(async {
        let films = Running::start(options("films", &["cut"])).await;
        let site = Site::over(&[&films]).await;
        let mut held = Vec::new();
        for _ in 0..600 {
            held.push(Connection::open(site.port).await);
        }
        until_status(site.port, "/api/v1/overview", 503).await;
        until_status(site.port, "/healthz", 200).await;
        drop(held);
        until_status(site.port, "/api/v1/overview", 200).await;
        let metrics = get(site.port, "/metrics").await.text();
        let refused = metrics
            .lines()
            .find_map(|line| line.strip_prefix("carbontube_web_connections_refused_total "));
        let refused: u64 = refused.expect("it is counted").parse().expect("a number");
        assert!(refused >= 600 - 448, "{refused}");
    });
}
