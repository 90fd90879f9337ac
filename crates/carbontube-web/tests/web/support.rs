//! A manager with workers, and the web interface over them.

use std::time::Duration;

use async_io::Timer;
use async_std::task::{JoinHandle, spawn};
use carbontube_client::{ClientOptions, NewJob, PipelineClient};
use carbontube_manager::{
    Backoff, Manager, ManagerHandle, ManagerOptions, PhaseDefinition, PipelineDefinition, RunError,
};
use carbontube_protocol::message::LogLevel;
use carbontube_protocol::{Address, JobType, PipelineName};
use carbontube_transport::Endpoint;
use carbontube_web::{Web, WebHandle, WebOptions};
use carbontube_worker::{
    AnyPhase, BlockingPhase, JobContext, PhaseError, Worker, WorkerHandle, WorkerOptions,
};
use futures_lite::future;
use serde_json::{Map, Value};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let late = async {
        Timer::after(PATIENCE * if what == "the test" { 3 } else { 1 }).await;
        panic!("{what} took too long")
    };
    future::or(work, late).await
}

/// Runs a test; fails it when it takes too long.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let test = Box::pin(test);
    async_std::task::block_on(within("the test", test));
}

pub(crate) fn loopback() -> Address {
    "tcp://127.0.0.1".parse().expect("an address")
}

pub(crate) fn job_type(name: &str) -> JobType {
    JobType::new(name).expect("a name")
}

/// Fails with the text in `fail`, logs the text in `log`, and sleeps for `sleep_ms`.
#[derive(Debug)]
struct Obedient;

impl BlockingPhase for Obedient {
    type Instructions = Map<String, Value>;
    type Output = ();

    fn execute(
        &self,
        context: &JobContext,
        instructions: Map<String, Value>,
    ) -> Result<(), PhaseError> {
        if let Some(Value::String(text)) = instructions.get("log") {
            context.log(LogLevel::Warn, text);
        }
        if instructions.contains_key("progress") {
            context.progress(0.5, "half");
        }
        if let Some(ms) = instructions.get("sleep_ms").and_then(Value::as_u64) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        match instructions.get("fail") {
            Some(Value::String(text)) => {
                Err(PhaseError::fatal(text.clone()).with_detail("the detail"))
            }
            _ => Ok(()),
        }
    }
}

/// A manager that runs.
pub(crate) struct Running {
    pub(crate) api: Vec<Address>,
    pub(crate) handle: ManagerHandle,
    task: JoinHandle<Result<(), RunError>>,
    pull: Vec<Address>,
    subscribe: Vec<Address>,
    pub(crate) name: PipelineName,
}

pub(crate) fn definition(name: &str, phases: &[&str]) -> PipelineDefinition {
    let phase = |name: &&str| {
        let mut phase = PhaseDefinition::new(job_type(name));
        phase.backoff = Backoff {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(1),
        };
        phase
    };
    let name = PipelineName::new(name).expect("a name");
    PipelineDefinition::new(name, phases.iter().map(phase).collect()).expect("phases")
}

pub(crate) fn options(name: &str, phases: &[&str]) -> ManagerOptions {
    let mut options = ManagerOptions::new(definition(name, phases));
    options.pull = vec![Endpoint::Bind(loopback())];
    options.subscribe = vec![Endpoint::Bind(loopback())];
    options.api = vec![loopback()];
    options.publish = vec![loopback()];
    options.storage = "memory:".to_owned();
    options
}

impl Running {
    pub(crate) async fn start(options: ManagerOptions) -> Running {
        let name = options.definition.name().clone();
        let manager = Manager::start(options).await.expect("the manager starts");
        let addresses = manager.addresses().clone();
        Running {
            api: addresses.api,
            pull: addresses.pull,
            subscribe: addresses.subscribe,
            handle: manager.handle(),
            task: spawn(manager.run()),
            name,
        }
    }

    pub(crate) async fn worker(&self, name: &str, slots: u32) -> WorkerHandle {
        let mut options = WorkerOptions::new(job_type(name));
        options.slots = slots;
        options.pull = vec![Endpoint::Bind(loopback())];
        options.push_connect.clone_from(&self.pull);
        options.pub_connect.clone_from(&self.subscribe);
        let worker = Worker::start(options, AnyPhase::from_blocking(Obedient)).await;
        let worker = worker.expect("the worker starts");
        let handle = worker.handle();
        spawn(worker.run());
        handle
    }

    pub(crate) async fn client(&self) -> PipelineClient {
        let client = PipelineClient::connect(&self.api, ClientOptions::default()).await;
        client.expect("the manager answers")
    }

    /// Enqueues jobs with ids of their own.
    pub(crate) async fn enqueue(&self, jobs: &[(&str, Value)]) {
        let client = self.client().await;
        for (id, instructions) in jobs {
            let id = carbontube_protocol::JobId::new(id).expect("an id");
            let job = NewJob::from_json(instructions.to_string()).with_id(id);
            client
                .enqueue(&self.name, job)
                .await
                .expect("it is accepted");
        }
    }

    pub(crate) async fn stop(self) {
        self.handle.stop_now();
        within("the manager's end", self.task)
            .await
            .expect("it ends in order");
    }
}

/// The web interface over some managers.
pub(crate) struct Site {
    pub(crate) port: u16,
    pub(crate) handle: WebHandle,
    _task: JoinHandle<()>,
}

impl Site {
    pub(crate) async fn over(managers: &[&Running]) -> Site {
        Site::with(managers, WebOptions::default()).await
    }

    pub(crate) async fn with(managers: &[&Running], options: WebOptions) -> Site {
        let api = managers.iter().flat_map(|manager| manager.api.clone());
        let options = WebOptions {
            port: 0,
            api: api.collect(),
            ..options
        };
        let web = Web::start(options).await.expect("it starts");
        let site = Site {
            port: web.address().port(),
            handle: web.handle(),
            _task: spawn(web.run()),
        };
        for manager in managers {
            let path = "/api/pipelines";
            let name = manager.name.to_string();
            crate::http::until(site.port, path, |names| {
                names
                    .as_array()
                    .is_some_and(|names| names.iter().any(|n| *n == name.as_str()))
            })
            .await;
        }
        // All of them answer and are heard.
        crate::http::until_status(site.port, "/readyz", 200).await;
        site
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// Reads the text format of Prometheus strictly, and gives every sample by its name with
/// labels.
///
/// Each metric has its help and type first and its samples together, names and labels have
/// their form, counters end in `_total`, nothing stands twice, and histograms are
/// cumulative, end in `+Inf`, and agree with their count.
pub(crate) fn check_exposition(text: &str) -> std::collections::BTreeMap<String, f64> {
    use std::collections::{BTreeMap, BTreeSet};

    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    assert!(text.ends_with('\n'));
    assert!(!text.contains('\r') && !text.contains("\n\n"));
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut last_bucket: Option<(String, f64, f64)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help");
            assert!(is_name(name) && help.ends_with('.'), "{line}");
            assert!(families.insert(name.to_owned()), "{name} stands twice");
            family = name.to_owned();
            kind.clear();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, told) = rest.split_once(' ').expect("a type");
            assert_eq!(name, family, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&told), "{line}");
            assert_eq!(told == "counter", name.ends_with("_total"), "{line}");
            kind = told.to_owned();
            continue;
        }
        assert!(!kind.is_empty(), "{line} is of no type");
        let (metric, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value
            .parse()
            .unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = match metric.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("closed labels")),
            None => (metric, ""),
        };
        let suffixes: &[&str] = match kind.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let suffix = name
            .strip_prefix(family.as_str())
            .expect("samples stand with their family");
        assert!(suffixes.contains(&suffix), "{line} in a {kind}");
        let mut rest = labels;
        let mut seen = BTreeSet::new();
        let (mut bound, mut others) = (None, String::new());
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").expect("a label");
            assert!(is_name(label) && seen.insert(label), "{line}");
            let mut escaped = false;
            let end = after.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let end = end.expect("a closed value");
            let mut escapes = after[..end].chars();
            while let Some(c) = escapes.next() {
                assert!(
                    c != '\\' || escapes.next().is_some_and(|c| "\\\"n".contains(c)),
                    "{line}: only a backslash, a quote and a line end are escaped"
                );
            }
            if label == "le" {
                bound = Some(after[..end].to_owned());
            } else {
                others.push_str(&format!("{label}={};", &after[..end]));
            }
            let behind = &after[end + 1..];
            rest = behind.strip_prefix(',').unwrap_or(behind);
            assert!(
                rest.is_empty() == behind.is_empty(),
                "{line}: a comma stands between two labels"
            );
        }
        assert!(
            samples.insert(metric.to_owned(), value).is_none(),
            "{metric} stands twice"
        );
        if kind != "histogram" {
            assert!(kind != "counter" || value >= 0.0, "{line}");
            continue;
        }
        match (suffix, bound) {
            ("_bucket", Some(bound)) => {
                let end = if bound == "+Inf" {
                    f64::INFINITY
                } else {
                    bound.parse().expect("a bound")
                };
                if let Some((of, before, count)) = &last_bucket
                    && *of == others
                {
                    assert!(*before < end && *count <= value, "{line}");
                }
                last_bucket = Some((others, end, value));
            }
            ("_count", None) => {
                let (of, end, count) = last_bucket.clone().expect("buckets first");
                assert!(
                    of == others && end.is_infinite() && count.to_bits() == value.to_bits(),
                    "{line}"
                );
            }
            ("_sum", None) => assert!(value >= 0.0, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    samples
}

#[test]
fn exposition_that_is_not_right_is_refused() {
    let good =
        "# HELP a_total Of a.\n# TYPE a_total counter\na_total{x=\"b\\\\\\\"\\n\",y=\"\"} 1\n";
    assert_eq!(check_exposition(good).len(), 1);
    let histogram = |bucket: &str, count: u32| {
        format!(
            "# HELP h Of h.\n# TYPE h histogram\nh_bucket{{le=\"1\"}} 2\n{bucket}h_sum 1\nh_count {count}\n"
        )
    };
    let whole = "h_bucket{le=\"+Inf\"} 3\n";
    assert_eq!(check_exposition(&histogram(whole, 3)).len(), 4);
    for bad in [
        good.trim_end().to_owned(),
        good.replace("# HELP a_total Of a.\n", ""),
        good.replace("# TYPE a_total counter\n", ""),
        good.replace("counter", "gauge"),
        good.replace("counter", "sum"),
        good.replace(" 1\n", " one\n"),
        good.replace(" 1\n", " -1\n"),
        good.replace("x=", "x-y="),
        good.replace("x=", "y="),
        good.replace("\\n", "\\t"),
        good.replace(",y", ",,y"),
        good.replace("a_total{", "b_total{"),
        format!("{good}{good}"),
        format!("{good}a_total{{y=\"\"}} 1\na_total{{y=\"\"}} 1\n"),
        histogram("", 2),
        histogram(whole, 4),
        histogram("h_bucket{le=\"+Inf\"} 1\n", 1),
        histogram(&format!("h_bucket{{le=\"0.5\"}} 2\n{whole}"), 3),
    ] {
        let checked = std::panic::catch_unwind(|| check_exposition(&bad));
        assert!(checked.is_err(), "it is taken: {bad}");
    }
}
