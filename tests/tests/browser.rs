//! The web interface in a real browser, over a real cluster.

use carbontube_tests::browser::{Browser, Window, is_installed};
use carbontube_tests::studio::{PIPELINE, Studio};
use carbontube_tests::wait_until;
use serde_json::json;

/// Whether there is a browser; says so when there is none.
fn has_browser() -> bool {
    let found = is_installed();
    if !found {
        assert!(
            std::env::var("CARBONTUBE_REQUIRE_ALL").as_deref() != Ok("1"),
            "chromium with chromedriver is required here and missing"
        );
        println!("skipped: chromium with chromedriver is not installed");
    }
    found
}

fn open(studio: &Studio, browser: &Browser, view: &str) {
    let address = studio.address();
    browser.go(&format!("{address}/#/{PIPELINE}/{view}"));
}

fn yes(browser: &Browser, verb: &str) {
    browser.click("dialog button", verb);
}

#[test]
fn page_shows_the_pipeline_and_does_what_it_is_told() {
    if !has_browser() {
        return;
    }
    let mut studio = Studio::start(&[]);
    studio.enqueue_one("broken-clip", &json!({"clip": "broken.mp4"}));
    studio.enqueue(400);
    let browser = Browser::open(Window::DESKTOP);
    browser.go(&studio.address());

    // The map: jobs flow, and every job but one arrives.
    browser.wait_for("h1", PIPELINE);
    browser.wait_for(".clock", "live");
    wait_until("jobs flow along an edge", || {
        let rate = browser.text(".edge.flowing b")?;
        (rate != "0/s").then_some(())
    });
    browser.wait_for(".figure", "400\nfinished");
    browser.wait_for("[data-phase=encode-video]", "2 workers");
    let style = "return getComputedStyle(document.querySelector('.brand')).display";
    assert_eq!(
        browser.script(style, &[]),
        "flex",
        "the policy lets its style in"
    );

    // A worker is killed, and shown as lost: no sooner than it may be. That it is no later
    // than a second after that either, `cargo xtask bench --web --part lost` measures.
    let mut killed = studio.workers.pop().expect("a second one that encodes");
    browser.keys("w");
    browser.wait_for("h1", "Workers");
    browser.wait_for(".worker[data-status=available] .state", "available");
    killed.kill();
    browser.wait_for(".worker[data-status=lost] .state", "lost");
    browser.wait_for(".worker[data-status=available] .state", "available");
    let lost = studio.worker_with("lost");
    let times = lost["timeline"].as_array().expect("a timeline");
    let times: Vec<u64> = times
        .iter()
        .filter_map(|entry| entry["at"].as_u64())
        .collect();
    let heard = lost["last_seen_at"].as_u64().expect("a time");
    assert!(
        times
            .last()
            .is_some_and(|at| at - heard >= Studio::WORKER_TIMEOUT_US),
        "it is taken for lost after too little silence: {lost}"
    );

    // The failed job is found by its error, and by its group; its log can be read.
    browser.keys("f");
    browser.wait_for(".group", "encode-video");
    browser.keys("j");
    browser.enter("input[name=error]", "status 3");
    browser.wait_for(".foot", "1 job found");
    browser.click(".jobs a", "broken-clip");
    browser.wait_for(".error", "exited with status 3");
    browser.wait_for(".error pre", "cannot open the clip: no such file");
    browser.wait_for(".lines", "encoding {\"clip\":\"broken.mp4\"");

    // Mended and retried, it succeeds.
    std::fs::write(studio.folder.path().join("mended"), "").expect("a file can be written");
    browser.click(".title button", "Retry");
    yes(&browser, "Retry");
    browser.wait_for(".toast", "Done: 1 job was retried");
    browser.wait_for(".title .state", "success");
    browser.wait_for("pre.data", "\"stored\": true");

    // A phase is paused: what waits says so. Then it goes on.
    browser.keys("p");
    browser.click("[data-phase=store-video] button", "Pause");
    yes(&browser, "Pause");
    browser.wait_for("[data-phase=store-video] .state", "paused");
    studio.enqueue_one("waits", &json!({"clip": "one more.mp4"}));
    open(&studio, &browser, "job/waits");
    browser.wait_for(".why", "paused");
    browser.keys("p");
    browser.click("[data-phase=store-video] button", "Resume");
    yes(&browser, "Resume");
    open(&studio, &browser, "job/waits");
    browser.wait_for(".title .state", "success");

    // What was done is in the event log.
    browser.keys("e");
    browser.wait_for(".notes", "retried");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn manager_that_is_gone_is_shown_as_lost_and_found_again() {
    if !has_browser() {
        return;
    }
    let mut studio = Studio::start(&[]);
    let browser = Browser::open(Window::DESKTOP);
    open(&studio, &browser, "map");
    browser.wait_for(".clock", "live");
    studio.manager.kill();
    browser.wait_for(".clock", "manager lost");
    browser.wait_for(".banner", "has not answered for");
    studio.web.kill();
    browser.wait_for(".clock", "web lost");
}

#[test]
fn phone_shows_every_view_and_does_what_it_is_told() {
    if !has_browser() {
        return;
    }
    let studio = Studio::start(&[]);
    studio.enqueue_one(
        "broken-clip",
        &json!({"clip": "broken.mp4", "long": "x".repeat(300)}),
    );
    studio.enqueue(20);
    let browser = Browser::open(Window::PHONE);
    let views = [
        ("map", "[data-phase=encode-video]", "waiting"),
        ("workers", ".worker", "available"),
        ("jobs", ".jobs", "broken-clip"),
        ("job/broken-clip", ".error", "exited with status 3"),
        ("failures", ".group", "encode-video"),
        ("logs", ".lines", "encoding"),
        ("events", ".notes", "worker"),
    ];
    for (view, selector, text) in views {
        open(&studio, &browser, view);
        browser.wait_for(selector, text);
        let width = browser.script("return document.documentElement.scrollWidth", &[]);
        assert!(width.as_u64() <= Some(390), "{view} is {width} wide");
    }
    // What can be done there can be done here.
    open(&studio, &browser, "jobs");
    browser.enter("input[name=error]", "status 3");
    browser.wait_for(".foot", "1 job found");
    browser.click(".jobs a", "broken-clip");
    std::fs::write(studio.folder.path().join("mended"), "").expect("a file can be written");
    browser.click(".title button", "Retry");
    yes(&browser, "Retry");
    browser.wait_for(".title .state", "success");
    open(&studio, &browser, "map");
    browser.click("[data-phase=store-video] button", "Pause");
    yes(&browser, "Pause");
    browser.wait_for("[data-phase=store-video] .state", "paused");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_jobs_say_is_shown_as_text() {
    if !has_browser() {
        return;
    }
    let studio = Studio::start(&[]);
    let markup = "<img src=x onerror=\"window.harmed = 1\"><script>window.harmed = 1</script>";
    let control = "\u{1b}[2J\u{7}\u{202e}end";
    let instructions = json!({"clip": "broken", "note": markup, "control": control});
    studio.enqueue_one("<b>bold</b>", &instructions);
    let large = json!({"clip": "large", "filler": "<i>".repeat(5 << 20)});
    studio.enqueue_one("large", &large);
    // Its phase writes bytes that are no UTF-8.
    studio.enqueue_one("odd-bytes", &json!({"clip": "latin1.mkv"}));
    let browser = Browser::open(Window::DESKTOP);
    open(&studio, &browser, "job/odd-bytes");
    browser.wait_for(
        ".lines",
        "the title is \u{fffd}t\u{fffd} and \u{fffd}\u{fffd}",
    );
    browser.wait_for(".error pre", "caf\u{fffd}");
    open(&studio, &browser, "jobs");
    browser.wait_for(".jobs a", "<b>bold</b>");
    browser.click(".jobs a", "<b>bold</b>");
    browser.wait_for("h1", "<b>bold</b>");
    browser.wait_for("pre.data", "<img src=x onerror=");
    browser.wait_for(".lines", "<script>");
    open(&studio, &browser, "failures");
    browser.wait_for(".group", "<b>bold</b>");
    open(&studio, &browser, "job/large");
    browser.wait_for("main", "Only the beginning is shown.");
    browser.wait_for(".title .state", "success");
    assert_eq!(
        browser.script("return window.harmed ?? null", &[]),
        json!(null)
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn read_only_page_offers_no_change() {
    if !has_browser() {
        return;
    }
    let studio = Studio::start(&["--read-only"]);
    studio.enqueue_one("broken-clip", &json!({"clip": "broken.mp4"}));
    let browser = Browser::open(Window::DESKTOP);
    open(&studio, &browser, "job/broken-clip");
    browser.wait_for(".title .state", "failed");
    let offered = "return [...document.querySelectorAll('main button')]\
        .filter((node) => node.checkVisibility()).map((node) => node.innerText)";
    assert_eq!(browser.script(offered, &[]), json!([]));
    open(&studio, &browser, "map");
    browser.wait_for("[data-phase=encode-video]", "waiting");
    assert_eq!(
        browser.script(offered, &[]),
        json!(["10 minutes", "1 hour", "24 hours"])
    );
}
