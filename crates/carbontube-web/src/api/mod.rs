//! The HTTP API: which request is answered by what.

pub(crate) mod actions;
pub(crate) mod jobs;
pub(crate) mod logs;
pub(crate) mod original;
pub(crate) mod overview;
pub(crate) mod sessions;
pub(crate) mod stream;
pub(crate) mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use async_io::Timer;
use async_std::sync::Mutex;
use carbontube_client::{ClientError, PipelineClient};
use carbontube_protocol::message::Code;

use crate::access::Access;
use crate::options::WebOptions;
use crate::places::Places;
use crate::request::{Problem, Request, Response, decode};
use crate::state::{Hub, View};
use crate::{assets, metrics, watch};

/// The most pages with an open event stream.
pub(crate) const PAGES_MAX: usize = 200;

/// Everything that answers need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) options: Arc<WebOptions>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) access: Access,
    pub(crate) places: Arc<Places>,
    /// Tells pages whether they still speak with the same process.
    pub(crate) instance: String,
    pub(crate) pages: Arc<AtomicUsize>,
    /// Large answers that are being written.
    pub(crate) large: Arc<AtomicUsize>,
    pub(crate) clients: Mutex<BTreeMap<String, PipelineClient>>,
}

/// The parts of the path that a route names.
pub(crate) type Parts = BTreeMap<&'static str, String>;

/// What a request may do without more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// Anybody may see it: it tells nothing of jobs.
    Open,
    /// Who has the token, where there is one.
    Token,
    /// The same, where changes are allowed: it may change something at a manager.
    Change,
}

/// What answers a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handler {
    Overview,
    Pipeline,
    Workers,
    Jobs,
    Job,
    Instructions,
    Failures,
    Series,
    Latencies,
    Logs,
    Notes,
    Actions,
    Stream,
    Login,
    Logout,
    OpenApi,
    Metrics,
    Health,
    Ready,
    OriginalPipelines,
    OriginalQueues,
    OriginalWorkers,
    OriginalJobs,
}

/// One route: a method, a path with `{parts}`, who may, and what answers.
struct Route(&'static str, &'static str, Guard, Handler);

/// All routes. `assets/openapi.json` describes each; a test compares them.
const ROUTES: &[Route] = {
    use Guard::{Change, Open, Token};
    &[
        Route("GET", "/api/v1/overview", Token, Handler::Overview),
        Route("GET", "/api/v1/stream", Token, Handler::Stream),
        Route("GET", "/api/v1/logs", Token, Handler::Logs),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}",
            Token,
            Handler::Pipeline,
        ),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}/workers",
            Token,
            Handler::Workers,
        ),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}/jobs",
            Token,
            Handler::Jobs,
        ),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}/jobs/{job}",
            Token,
            Handler::Job,
        ),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}/jobs/{job}/instructions",
            Token,
            Handler::Instructions,
        ),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}/failures",
            Token,
            Handler::Failures,
        ),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}/series",
            Token,
            Handler::Series,
        ),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}/latencies",
            Token,
            Handler::Latencies,
        ),
        Route(
            "GET",
            "/api/v1/pipelines/{pipeline}/notes",
            Token,
            Handler::Notes,
        ),
        Route(
            "POST",
            "/api/v1/pipelines/{pipeline}/actions",
            Change,
            Handler::Actions,
        ),
        Route("POST", "/api/v1/session", Open, Handler::Login),
        Route("DELETE", "/api/v1/session", Open, Handler::Logout),
        Route("GET", "/api/openapi.json", Open, Handler::OpenApi),
        Route("GET", "/metrics", Token, Handler::Metrics),
        Route("GET", "/healthz", Open, Handler::Health),
        Route("GET", "/readyz", Open, Handler::Ready),
        Route("GET", "/api/pipelines", Token, Handler::OriginalPipelines),
        Route("GET", "/api/queues", Token, Handler::OriginalQueues),
        Route(
            "GET",
            "/api/workers/available",
            Token,
            Handler::OriginalWorkers,
        ),
        Route("GET", "/api/jobs", Token, Handler::OriginalJobs),
    ]
};

/// Whether a path fits a route's, and with which parts; `Err` when a part is no text.
fn fit(pattern: &'static str, path: &str) -> Option<Result<Parts, Problem>> {
    let mut parts = Parts::new();
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(Ok(parts)),
            (Some(wanted), Some(found)) => {
                if let Some(name) = wanted.strip_prefix('{') {
                    let name = name.trim_end_matches('}');
                    match decode(found, false) {
                        Some(text) if !text.is_empty() => parts.insert(name, text),
                        _ => {
                            let message = format!("{found:?} in the path is no {name}");
                            return Some(Err(Problem::bad(message)));
                        }
                    };
                } else if wanted != found {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

impl App {
    pub(crate) fn new(options: Arc<WebOptions>, hub: Arc<Hub>) -> Self {
        App {
            access: Access::new(&options),
            places: Arc::default(),
            instance: uuid::Uuid::new_v4().simple().to_string(),
            pages: Arc::default(),
            large: Arc::default(),
            clients: Mutex::new(BTreeMap::new()),
            options,
            hub,
        }
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, request: &Request) -> Response {
        match self.try_answer(request).await {
            Ok(response) => response,
            Err(problem) => problem.response(),
        }
    }

    async fn try_answer(&self, request: &Request) -> Result<Response, Problem> {
        self.access.check_host(request)?;
        let method = match request.method.as_str() {
            "HEAD" => "GET",
            method => method,
        };
        let mut others = Vec::new();
        for Route(wanted, pattern, guard, handler) in ROUTES {
            let Some(parts) = fit(pattern, &request.path) else {
                continue;
            };
            if *wanted != method {
                others.push(*wanted);
                continue;
            }
            self.access.check_site(request)?;
            if *guard != Guard::Open
                && let Err(problem) = self.access.check_token(request)
            {
                if let Some(pause) = self.access.brake(request) {
                    Timer::after(pause).await;
                }
                return Err(problem);
            }
            if *guard == Guard::Change {
                self.access.check_change()?;
            }
            return self.handle(*handler, request, &parts?).await;
        }
        if !others.is_empty() {
            let allowed = others.join(", ");
            let message = format!("{} is not for {method}, but for {allowed}", request.path);
            let mut response = Problem::new(405, "method", message).response();
            response.headers.push(("allow", allowed));
            return Ok(response);
        }
        if method == "GET"
            && let Some(response) = assets::find(request)
        {
            return Ok(response);
        }
        let message = format!("there is no {:?} here", request.path);
        Err(Problem::new(404, "not_found", message))
    }

    async fn handle(
        &self,
        handler: Handler,
        request: &Request,
        parts: &Parts,
    ) -> Result<Response, Problem> {
        match handler {
            Handler::Overview => Ok(overview::overview(self)),
            Handler::Pipeline => overview::pipeline(self, parts),
            Handler::Workers => workers::workers(self, parts),
            Handler::Jobs => jobs::search(self, request, parts).await,
            Handler::Job => jobs::job(self, parts).await,
            Handler::Instructions => jobs::instructions(self, parts).await,
            Handler::Failures => jobs::failures(self, parts).await,
            Handler::Series => overview::series(self, request, parts).await,
            Handler::Latencies => overview::latencies(self, parts).await,
            Handler::Logs => logs::logs(self, request),
            Handler::Notes => overview::notes(self, parts),
            Handler::Actions => actions::act(self, request, parts).await,
            Handler::Stream => stream::stream(self, request),
            Handler::Login => sessions::login(self, request).await,
            Handler::Logout => Ok(sessions::logout(self, request)),
            Handler::OpenApi => Ok(Response {
                status: 200,
                content_type: "application/json",
                headers: Vec::new(),
                body: crate::request::ResponseBody::Static(OPENAPI),
            }),
            Handler::Metrics => Ok(metrics::metrics(self).await),
            Handler::Health => Ok(Response::text(
                "text/plain; charset=utf-8",
                "ok\n".to_owned(),
            )),
            Handler::Ready => overview::ready(self),
            Handler::OriginalPipelines => Ok(original::pipelines(self)),
            Handler::OriginalQueues => Ok(original::queues(self)),
            Handler::OriginalWorkers => Ok(original::workers(self)),
            Handler::OriginalJobs => original::jobs(self).await,
        }
    }

    /// The manager that the path names.
    pub(crate) fn view(&self, parts: &Parts) -> Result<&Arc<View>, Problem> {
        let key = parts.get("pipeline").map_or("", String::as_str);
        self.hub.view(key).ok_or_else(|| {
            let known: Vec<String> = self
                .hub
                .views
                .iter()
                .map(|v| v.lock().key.clone())
                .collect();
            let known: Vec<String> = known.into_iter().filter(|key| !key.is_empty()).collect();
            let message = format!(
                "there is no pipeline {key:?} here, but: {}",
                known.join(", ")
            );
            Problem::new(404, "unknown_pipeline", message)
        })
    }

    /// A client for questions and changes at a manager.
    pub(crate) async fn client(&self, view: &View) -> Result<PipelineClient, Problem> {
        let key = view.address.to_string();
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        drop(clients);
        let client = watch::connect(&view.address, &self.options.limits)
            .await
            .map_err(problem)?;
        clients = self.clients.lock().await;
        Ok(clients.entry(key).or_insert(client).clone())
    }
}

/// The description for programs.
const OPENAPI: &[u8] = include_bytes!("../../assets/openapi.json");

/// A client's error as an answer.
pub(crate) fn problem(error: ClientError) -> Problem {
    let message = error.to_string();
    let (status, code) = match &error {
        ClientError::Refusal { code, .. } | ClientError::Rejected { code, .. } => match code {
            Code::UnknownJob => (404, "unknown_job"),
            Code::UnknownPhase => (404, "unknown_phase"),
            Code::UnknownWorker => (404, "unknown_worker"),
            Code::UnknownPipeline => (404, "unknown_pipeline"),
            Code::State => (409, "state"),
            Code::Draining => (409, "draining"),
            Code::Busy => (503, "busy"),
            Code::Journal => (503, "journal"),
            Code::Instructions => (400, "instructions"),
            Code::Malformed | Code::Unexpected | Code::Version => (400, "malformed"),
        },
        ClientError::NotConfirmed { .. } => (504, "unconfirmed"),
        ClientError::NotConnected { .. }
        | ClientError::NotSent { .. }
        | ClientError::Refused { .. }
        | ClientError::Absent { .. }
        | ClientError::Closed => (503, "lost"),
        _ => (500, "internal"),
    };
    Problem::new(status, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn paths_fit_their_routes_only() {
        let parts = fit(
            "/api/v1/pipelines/{pipeline}/jobs/{job}",
            "/api/v1/pipelines/v%2Ft/jobs/a%20b",
        );
        let parts = parts.expect("it fits").expect("its parts are texts");
        assert_eq!((&parts["pipeline"][..], &parts["job"][..]), ("v/t", "a b"));
        assert!(fit("/api/jobs", "/api/jobs/").is_none());
        assert!(fit("/api/jobs", "/api").is_none());
        let broken = fit("/a/{b}", "/a/%ff").expect("it fits");
        assert_eq!(broken.map_err(|problem| problem.code), Err("bad_request"));
        assert!(fit("/a/{b}", "/a/").expect("it fits").is_err());
    }

    /// What asks a manager to change something is refused where it is read only: whoever
    /// adds a route that is no GET says here that it changes nothing there.
    #[test]
    fn routes_that_change_something_are_guarded() {
        for Route(method, path, guard, handler) in ROUTES {
            let own = matches!(handler, Handler::Login | Handler::Logout);
            let expected = *method != "GET" && !own;
            assert_eq!(*guard == Guard::Change, expected, "{method} {path}");
        }
    }

    /// The description for programs and the server agree on every path, method and error code.
    #[test]
    fn openapi_describes_every_route_and_code() {
        let openapi: serde_json::Value = serde_json::from_slice(OPENAPI).expect("it is JSON");
        let mut described = BTreeSet::new();
        for (path, methods) in openapi["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                described.insert((method.to_uppercase(), path.clone()));
                let text = operation["summary"].as_str().unwrap_or("");
                assert!(!text.is_empty(), "{method} {path} has no summary");
                let named: BTreeSet<&str> = path
                    .split('/')
                    .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                    .collect();
                let listed = operation["parameters"].as_array();
                let listed: BTreeSet<&str> = listed
                    .into_iter()
                    .flatten()
                    .filter(|parameter| parameter["in"] == "path")
                    .filter_map(|parameter| parameter["name"].as_str())
                    .collect();
                assert_eq!(named, listed, "{method} {path}");
            }
        }
        let served: BTreeSet<_> = ROUTES
            .iter()
            .map(|Route(method, path, _, _)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        assert_eq!(described, served);
        let codes = &openapi["components"]["schemas"]["Error"]["properties"]["error"]["properties"]
            ["code"]["enum"];
        let codes: BTreeSet<&str> = codes
            .as_array()
            .expect("codes")
            .iter()
            .filter_map(|c| c.as_str())
            .collect();
        let ours: BTreeSet<&str> = crate::request::CODES
            .iter()
            .map(|(code, _)| *code)
            .collect();
        assert_eq!(codes, ours);
    }
}
