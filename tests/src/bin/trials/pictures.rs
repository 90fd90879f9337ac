//! Pictures of the web interface for the documentation, taken of a real cluster.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use argh::FromArgs;
use carbontube_tests::browser::{Browser, Window, is_installed};
use carbontube_tests::studio::{PIPELINE, Studio};
use carbontube_tests::{wait_until, workspace};
use serde_json::json;

/// Take pictures of every view of the web interface, in light and dark and on a phone.
#[derive(FromArgs)]
#[argh(subcommand, name = "pictures")]
pub(crate) struct Pictures {
    /// folder for them (docs/images)
    #[argh(option)]
    folder: Option<PathBuf>,
}

/// Every view, and an element with a text that shows that it is there.
const VIEWS: [(&str, &str, &str); 7] = [
    ("map", ".edge.flowing", "/s"),
    ("workers", ".worker[data-status=lost]", "lost"),
    ("jobs", ".jobs", "encode-video"),
    ("job", ".error", "cannot open"),
    ("failures", ".group", "encode-video"),
    ("logs", ".lines", "encoding"),
    ("events", ".notes", "worker"),
];

pub(crate) fn run(pictures: &Pictures) -> Result<()> {
    ensure!(
        is_installed(),
        "chromium and chromedriver are needed (Debian: chromium, chromium-driver)"
    );
    let folder = pictures.folder.clone();
    let folder = folder.unwrap_or_else(|| workspace().join("docs/images"));
    std::fs::create_dir_all(&folder)?;
    let mut studio = Studio::start(&[]);
    for number in 0..9 {
        let clip = format!("broken-{number}.mp4");
        studio.enqueue_one(
            &format!("order-{number}"),
            &json!({"clip": clip, "customer": "Tina"}),
        );
    }
    for number in 0..3 {
        studio.enqueue_one(&format!("odd-{number}"), &json!({"clip": "codec.mkv"}));
    }
    eprintln!("pictures: jobs flow for half a minute, so that there is something to see");
    // Waves, so that the plots have hills.
    for wave in 0..12 {
        studio.enqueue(200 + 150 * (wave % 3));
        thread::sleep(Duration::from_millis(1500));
    }
    let browser = Browser::open(Window::DESKTOP);
    let windows = [
        ("light", Window::DESKTOP),
        (
            "dark",
            Window {
                dark: true,
                ..Window::DESKTOP
            },
        ),
        ("phone", Window::PHONE),
    ];
    let mut taken = 0;
    for (name, window) in windows {
        browser.resize(window);
        studio.enqueue(2500);
        for (view, selector, text) in VIEWS {
            // Shown as lost for a while, then forgotten: a fresh one for each window.
            if view == "workers" {
                studio.add_worker("encode-video");
                browser.go(&format!("{}/#/{PIPELINE}/workers", studio.address()));
                wait_until("the new worker is known", || {
                    let count = "return document.querySelectorAll(\
                        '.worker[data-status=available]').length";
                    (browser.script(count, &[]).as_u64() == Some(5)).then_some(())
                });
                let mut killed = studio.workers.pop().expect("the one just added");
                killed.kill();
            }
            let place = if view == "job" { "job/order-7" } else { view };
            browser.go("about:blank");
            browser.go(&format!("{}/#/{PIPELINE}/{place}", studio.address()));
            browser.wait_for(selector, text);
            // The plots draw with the next second.
            if view == "map" {
                wait_until("the plots have points", || {
                    let text = browser.text(".legend b")?;
                    (text != "–").then_some(())
                });
            }
            std::fs::write(
                folder.join(format!("web-{view}-{name}.png")),
                browser.picture(),
            )?;
            taken += 1;
        }
    }
    let complaints = browser.complaints();
    ensure!(
        complaints.is_empty(),
        "the pages complained: {complaints:?}"
    );
    println!("{taken} pictures in {}", folder.display());
    Ok(())
}
