//! Opens the event stream of a page.

use carbontube_protocol::JobId;
use serde_json::json;

use super::{App, PAGES_MAX, logs};
use crate::feed::{Page, Seat, Topic, Wish};
use crate::request::{Problem, Request, Response, ResponseBody};

/// What a page follows that does not say.
const TOPICS_DEFAULT: &str = "pipelines,workers,points,notes";

pub(super) fn stream(app: &App, request: &Request) -> Result<Response, Problem> {
    let mut topics = std::collections::BTreeSet::new();
    for name in request
        .parameter("topics")
        .unwrap_or(TOPICS_DEFAULT)
        .split(',')
    {
        let known = Topic::ALL.iter().find(|(known, _)| *known == name);
        let Some((_, topic)) = known else {
            let known: Vec<&str> = Topic::ALL.iter().map(|(name, _)| *name).collect();
            let message = format!("{name:?} is no topic; topics are {}", known.join(", "));
            return Err(Problem::bad(message));
        };
        topics.insert(*topic);
    }
    let job = request.parameter("job").map(JobId::new).transpose();
    let again = request
        .header("last-event-id")
        .or(request.parameter("logs_after"));
    let wish = Wish {
        topics,
        pipeline: request.parameter("pipeline").map(str::to_owned),
        job: job.map_err(|error| Problem::bad(error.to_string()))?,
        logs: logs::filter(request)?,
        logs_after: again.and_then(|id| id.parse().ok()),
    };
    if let Some(key) = &wish.pipeline
        && app.hub.view(key).is_none()
    {
        let message = format!("there is no pipeline {key:?} here");
        return Err(Problem::new(404, "unknown_pipeline", message));
    }
    let seat = Seat::take(&app.pages, PAGES_MAX).ok_or_else(|| {
        let message = format!("{PAGES_MAX} pages are open, which is the most");
        Problem::new(503, "pages", message)
    })?;
    let hello = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "instance": app.instance,
        "read_only": app.access.read_only(),
    });
    let lease = app.access.lease(request);
    let page = Page::new(app.hub.clone(), wish, hello, app.options.pace, lease, seat);
    Ok(Response {
        status: 200,
        content_type: "text/event-stream",
        headers: vec![("x-accel-buffering", "no".to_owned())],
        body: ResponseBody::Feed(Box::new(page)),
    })
}
