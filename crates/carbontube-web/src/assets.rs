//! The pages: files that stand in the binary.

use crate::request::{Request, Response, ResponseBody};

/// A file of the pages.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($path:expr, $file:literal, $content_type:literal) => {
        Asset {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../assets/", $file)),
        }
    };
}

macro_rules! script {
    ($file:literal) => {
        asset!(concat!("/", $file), $file, "text/javascript; charset=utf-8")
    };
}

/// Every file, by its path. A page's address that is not here gets no page: the client
/// keeps its place behind the `#`.
const ASSETS: &[Asset] = &[
    asset!("/", "index.html", "text/html; charset=utf-8"),
    asset!("/style.css", "style.css", "text/css; charset=utf-8"),
    asset!("/icon.svg", "icon.svg", "image/svg+xml"),
    script!("app.js"),
    script!("pipelines.js"),
    script!("overview.js"),
    script!("workers.js"),
    script!("jobs.js"),
    script!("job.js"),
    script!("failures.js"),
    script!("logs.js"),
    script!("events.js"),
    script!("lines.js"),
    script!("actions.js"),
    script!("api.js"),
    script!("chart.js"),
    script!("dom.js"),
    script!("format.js"),
    script!("store.js"),
    script!("stream.js"),
    asset!("/robots.txt", "robots.txt", "text/plain; charset=utf-8"),
];

/// The file at a path.
pub(crate) fn find(request: &Request) -> Option<Response> {
    let asset = ASSETS.iter().find(|asset| asset.path == request.path)?;
    let tag = format!("\"{:016x}\"", hash(asset.bytes));
    let known = request.header("if-none-match").is_some_and(|tags| {
        tags.split(',').any(|known| {
            let known = known.trim();
            known == "*" || known.trim_start_matches("W/") == tag
        })
    });
    let response = Response {
        status: if known { 304 } else { 200 },
        content_type: asset.content_type,
        headers: vec![("etag", tag), ("cache-control", "no-cache".to_owned())],
        body: ResponseBody::Static(if known { b"" } else { asset.bytes }),
    };
    Some(response)
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
