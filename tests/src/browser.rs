//! A real browser, driven over WebDriver (W3C): Chromium by its own chromedriver.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{note_group, wait_until};

/// The name by which WebDriver wraps elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// So that the browser asks nobody for anything and runs as any user.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// Whether Chromium and its driver are installed.
pub fn is_installed() -> bool {
    ["chromium", "chromedriver"].into_iter().all(|program| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// One browser window. It is closed when this is dropped.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    base: String,
    session: String,
    _profile: tempfile::TempDir,
}

/// How large the window is, and which colours the system prefers.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Width in CSS pixels.
    pub width: u32,
    /// Height in CSS pixels.
    pub height: u32,
    /// A dark system.
    pub dark: bool,
    /// A phone: touch, and the viewport that phones use.
    pub mobile: bool,
}

impl Window {
    /// A laptop's window.
    pub const DESKTOP: Window = Window {
        width: 1280,
        height: 860,
        dark: false,
        mobile: false,
    };
    /// A phone's.
    pub const PHONE: Window = Window {
        width: 390,
        height: 844,
        dark: false,
        mobile: true,
    };
}

impl Browser {
    /// Opens a window.
    ///
    /// # Panics
    /// When there is no Chromium that starts.
    pub fn open(window: Window) -> Browser {
        use std::os::unix::process::CommandExt;

        // The driver tells the port that it got, on stdout.
        let profile = tempfile::tempdir().expect("a temporary folder");
        let log = profile.path().join("driver.log");
        let out = std::fs::File::create(&log).expect("a file can be made");
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver starts");
        note_group(driver.id(), true);
        let port = wait_until("chromedriver tells its port", || {
            let text = std::fs::read_to_string(&log).ok()?;
            let after = text.split("started successfully on port ").nth(1)?;
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u16>().ok()
        });
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .build();
        let mut browser = Browser {
            driver,
            agent: config.into(),
            base: format!("http://127.0.0.1:{port}"),
            session: String::new(),
            _profile: profile,
        };
        let mut arguments: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        arguments.push(format!(
            "--user-data-dir={}",
            browser._profile.path().join("profile").display()
        ));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.post("/session", &wanted);
        let session = session["sessionId"].as_str().expect("a session's id");
        browser.session = format!("/session/{session}");
        browser.resize(window);
        browser
    }

    /// Empties the browser's cache: the next page comes whole from its server.
    pub fn forget_cache(&self) {
        self.devtools("Network.clearBrowserCache", json!({}));
    }

    /// Makes the window another one.
    pub fn resize(&self, window: Window) {
        let scheme = if window.dark { "dark" } else { "light" };
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": window.width, "height": window.height, "deviceScaleFactor": 1, "mobile": window.mobile}),
        );
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        let path = format!("{}/goog/cdp/execute", self.session);
        self.post(&path, &json!({"cmd": command, "params": parameters}))
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.base);
        let answer = self.agent.post(&url).send_json(body);
        let mut answer = answer.unwrap_or_else(|error| panic!("POST {path}: {error}"));
        let value: Value = answer.body_mut().read_json().expect("WebDriver is JSON");
        assert!(answer.status().is_success(), "POST {path} {body}: {value}");
        value["value"].clone()
    }

    /// Opens an address.
    pub fn go(&self, address: &str) {
        self.post(&format!("{}/url", self.session), &json!({"url": address}));
    }

    /// Runs the body of a function in the page; gives what it returns.
    pub fn script(&self, code: &str, arguments: &[Value]) -> Value {
        let path = format!("{}/execute/sync", self.session);
        self.post(&path, &json!({"script": code, "args": arguments}))
    }

    /// The text of the first element that fits a CSS selector and is shown.
    pub fn text(&self, selector: &str) -> Option<String> {
        let shown = "const shown = [...document.querySelectorAll(arguments[0])]\
            .find((node) => node.checkVisibility());\
            return shown ? shown.innerText : null;";
        self.script(shown, &[json!(selector)])
            .as_str()
            .map(str::to_owned)
    }

    /// Waits until an element is shown that fits and has the text; gives its whole text.
    pub fn wait_for(&self, selector: &str, wanted: &str) -> String {
        // What is scrolled out of sight may have a text that is not laid out yet.
        let find = "const [selector, text] = arguments;\
            const shown = [...document.querySelectorAll(selector)].find((node) =>\
            node.checkVisibility() && (node.innerText.includes(text) || node.textContent.includes(text)));\
            return shown ? shown.innerText : null;";
        wait_until(&format!("{selector} with {wanted:?}"), || {
            self.script(find, &[json!(selector), json!(wanted)])
                .as_str()
                .map(str::to_owned)
        })
    }

    /// Clicks the first shown element that fits and has the text, as a person's mouse does.
    pub fn click(&self, selector: &str, text: &str) {
        let find = "const shown = [...document.querySelectorAll(arguments[0])]\
            .find((node) => node.checkVisibility() && node.innerText.includes(arguments[1]));\
            if (shown) shown.scrollIntoView({block: 'center'}); return shown ?? null;";
        let element = wait_until(&format!("{selector} with {text:?} to click"), || {
            let found = self.script(find, &[json!(selector), json!(text)]);
            found[ELEMENT].as_str().map(str::to_owned)
        });
        let path = format!("{}/element/{element}/click", self.session);
        self.post(&path, &json!({}));
    }

    /// Types into the first shown element that fits.
    pub fn enter(&self, selector: &str, text: &str) {
        let find = "return [...document.querySelectorAll(arguments[0])]\
            .find((node) => node.checkVisibility()) ?? null;";
        let element = wait_until(&format!("{selector} to type into"), || {
            let found = self.script(find, &[json!(selector)]);
            found[ELEMENT].as_str().map(str::to_owned)
        });
        let path = format!("{}/element/{element}/value", self.session);
        self.post(&path, &json!({"text": text}));
    }

    /// Presses keys with the page in focus.
    pub fn keys(&self, text: &str) {
        let actions: Vec<Value> = text
            .chars()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        let body = json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]});
        self.post(&format!("{}/actions", self.session), &body);
    }

    /// What the page has complained about on the console since the last time, warnings and
    /// errors.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post(
            &format!("{}/se/log", self.session),
            &json!({"type": "browser"}),
        );
        let entries = log.as_array().expect("a list").iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING")
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// Has every page that is opened from now on run this before its own scripts.
    pub fn run_first(&self, code: &str) {
        let parameters = json!({"source": code});
        self.devtools("Page.addScriptToEvaluateOnNewDocument", parameters);
    }

    /// How many nodes and listeners of documents the browser holds, shown or not.
    pub fn nodes_and_listeners(&self) -> (u64, u64) {
        let counters = self.devtools("Memory.getDOMCounters", json!({}));
        let count = |name: &str| counters[name].as_u64().unwrap_or_default();
        (count("nodes"), count("jsEventListeners"))
    }

    /// Bytes of JavaScript memory in use, after a collection.
    pub fn heap_bytes(&self) -> u64 {
        self.devtools("HeapProfiler.collectGarbage", json!({}));
        let metrics = self.devtools("Runtime.getHeapUsage", json!({}));
        metrics["usedSize"].as_f64().unwrap_or_default() as u64
    }

    /// The window as a PNG.
    pub fn picture(&self) -> Vec<u8> {
        let url = format!("{}{}/screenshot", self.base, self.session);
        let mut answer = self.agent.get(&url).call().expect("a screenshot");
        let value: Value = answer.body_mut().read_json().expect("WebDriver is JSON");
        decode_base64(value["value"].as_str().expect("a picture"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let url = format!("{}{}", self.base, self.session);
            let _ = self.agent.delete(&url).call();
        }
        // The driver ends with its session's browser; its group has what is left.
        let group = i32::try_from(self.driver.id()).ok();
        if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.driver.wait();
        note_group(self.driver.id(), false);
    }
}

/// Standard base64 (RFC 4648, §4), as WebDriver sends pictures.
fn decode_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc_is_read() {
        let examples = [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9vYmFy", "foobar"),
        ];
        for (text, bytes) in examples {
            assert_eq!(decode_base64(text), bytes.as_bytes());
        }
    }
}
