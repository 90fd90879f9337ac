//! A request and its answer, apart from how they travel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::Serialize;
use serde_json::json;

use crate::feed::Page;

/// The largest body of a request.
pub(crate) const BODY_BYTES_MAX: usize = 256 << 10;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path, still encoded.
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    /// The headers that matter here, by their name in lower case.
    pub(crate) headers: BTreeMap<&'static str, String>,
    pub(crate) body: Vec<u8>,
    /// Who asks, for the log.
    pub(crate) peer: String,
}

/// The headers that matter here.
pub(crate) const HEADERS: [&str; 9] = [
    "host",
    "origin",
    "authorization",
    "cookie",
    "content-type",
    "if-none-match",
    "last-event-id",
    "sec-fetch-site",
    "x-carbontube",
];

impl Request {
    /// The peer's IP address.
    pub(crate) fn host(&self) -> IpAddr {
        let peer = self.peer.parse::<SocketAddr>();
        peer.map_or(Ipv6Addr::UNSPECIFIED.into(), |peer| peer.ip())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// A parameter of the query that is there and not empty.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A cookie's value.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.header("cookie")?.split(';').find_map(|pair| {
            let (found, value) = pair.trim().split_once('=')?;
            (found == name).then_some(value)
        })
    }

    /// Whether it may change something.
    pub(crate) fn changes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

/// Reads a query: `a=1&b=x%20y`. The first of two values of a name counts.
pub(crate) fn parse_query(text: &str) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name, true)?, decode(value, true)?);
        found.entry(name).or_insert(value);
    }
    Some(found)
}

/// Takes the percent encoding out of a text; `None` when it is broken or no UTF-8.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Puts a text into the percent encoding of one part of a path.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What is answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: ResponseBody,
}

/// Its body.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    Bytes(Vec<u8>),
    Static(&'static [u8]),
    Shared(bytes::Bytes),
    Feed(Box<Page>),
}

impl ResponseBody {
    /// What is written of it at once; nothing of a feed.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            ResponseBody::Bytes(bytes) => bytes,
            ResponseBody::Static(bytes) => bytes,
            ResponseBody::Shared(bytes) => bytes,
            ResponseBody::Feed(_) => b"",
        }
    }
}

impl Response {
    pub(crate) fn json(value: &impl Serialize) -> Response {
        match serde_json::to_vec(value) {
            Ok(body) => Response {
                status: 200,
                content_type: "application/json",
                headers: Vec::new(),
                body: ResponseBody::Bytes(body),
            },
            Err(error) => Problem::new(500, "internal", format!("no JSON: {error}")).response(),
        }
    }

    pub(crate) fn text(content_type: &'static str, text: String) -> Response {
        Response {
            status: 200,
            content_type,
            headers: Vec::new(),
            body: ResponseBody::Bytes(text.into_bytes()),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}

/// Why something was not done: a stable code for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) more: Option<(&'static str, serde_json::Value)>,
}

/// Every code with its status, as the documentation lists them.
pub(crate) const CODES: [(&str, u16); 26] = [
    ("bad_request", 400),
    ("busy", 503),
    ("confirm", 409),
    ("draining", 409),
    ("head", 431),
    ("header", 403),
    ("host", 421),
    ("instructions", 400),
    ("internal", 500),
    ("journal", 503),
    ("lost", 503),
    ("malformed", 400),
    ("method", 405),
    ("not_found", 404),
    ("origin", 403),
    ("pages", 503),
    ("read_only", 403),
    ("slow", 408),
    ("state", 409),
    ("token", 401),
    ("too_large", 413),
    ("unconfirmed", 504),
    ("unknown_job", 404),
    ("unknown_phase", 404),
    ("unknown_pipeline", 404),
    ("unknown_worker", 404),
];

impl Problem {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Problem {
        debug_assert!(
            CODES.contains(&(code, status)),
            "{code} {status} is not in the list"
        );
        Problem {
            status,
            code,
            message: message.into(),
            more: None,
        }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Problem {
        Problem::new(400, "bad_request", message)
    }

    pub(crate) fn with(mut self, name: &'static str, value: serde_json::Value) -> Problem {
        self.more = Some((name, value));
        self
    }

    pub(crate) fn response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some((name, value)) = self.more {
            error[name] = value;
        }
        let mut response = Response::json(&json!({ "error": error }));
        response.status = self.status;
        if self.status == 401 {
            response = response.header("www-authenticate", "Bearer realm=\"carbontube\"");
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_or_refused() {
        let query = parse_query("a=1&b=x%20y+z&c&a=2&%C3%A4=%26").expect("it is one");
        assert_eq!(query["a"], "1");
        assert_eq!(query["b"], "x y z");
        assert_eq!(query["c"], "");
        assert_eq!(query["ä"], "&");
        for broken in ["a=%", "a=%4", "a=%zz", "a=%ff", "%+1=1"] {
            assert_eq!(parse_query(broken), None, "{broken}");
        }
    }

    #[test]
    fn encoded_texts_decode_to_themselves() {
        for text in ["order-7", "a/b?c=d&e#f", "ä%20", "\u{0}\u{7f}"] {
            assert_eq!(decode(&encode(text), false).as_deref(), Some(text));
        }
    }

    #[test]
    fn codes_are_in_order_and_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
