//! One connection: HTTP/1.1 as far as browsers, scrapers and scripts need it, each step
//! with its time and its size.
//!
//! Requests have a length or no body; answers have a length or are a stream in chunks.
//! What could be read in two ways (two lengths, a coded body, a folded header) is refused
//! and the connection closed.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use async_std::net::TcpStream;
use futures_lite::future;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::App;
use crate::assets::POLICY;
use crate::feed::{Page, Seat};
use crate::request::{
    BODY_BYTES_MAX, HEADERS, Problem, Request, Response, ResponseBody, parse_query,
};

/// The largest head of a request, and the most headers in it.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// How long a connection may wait for its next request.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a request may take to come in, once begun.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// How long an answer may take to be found; a stream's answer is found at once.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long a peer may take nothing of a piece that is written to it.
const STALL_MAX: Duration = Duration::from_secs(20);
/// How much is written at once: a slow peer has [`STALL_MAX`] for each piece.
const PIECE_BYTES: usize = 64 << 10;
/// How long a peer that still sends may take to see the answer that ended it.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// From how many bytes on an answer is large, and how many of those are written at once:
/// each is held in memory for as long as its reader takes.
const LARGE_BYTES: usize = 1 << 20;
const LARGE_MAX: usize = 8;
/// The request that has a place when there is none for others, and how long it may take.
const HEALTH: &str = "/healthz";
const HEALTH_MAX: Duration = Duration::from_secs(2);
/// How much a page may say after it asked for its stream; it has nothing to say.
const CHATTER_BYTES_MAX: usize = 1 << 10;
/// How many bytes of empty lines may stand before a request.
const BLANK_BYTES_MAX: usize = 8;

/// What every answer says to browsers beside [`POLICY`]: no frames around it, no guessing of
/// types.
///
/// There is no `cross-origin-opener-policy`: for it a browser makes another process once
/// the answer is there, which costs a third of the first paint (`docs/benchmarks.md`), and
/// what it would keep from a page that opened this one, such as counting its frames, there
/// is not: that page comes without the session (`SameSite=Strict`) and has no say here.
const SECURITY: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Why a connection ends.
enum End {
    /// Nothing more is to be said.
    Quiet,
    /// This is, and then it is closed.
    Refused(Problem),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Quiet
    }
}

/// A request's head.
#[derive(Debug)]
struct Head {
    request: Request,
    /// How many bytes of body follow.
    length: usize,
    expects: bool,
    keep: bool,
    /// Of HTTP/1.1, so that chunks are understood.
    chunks: bool,
}

async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(time).await;
        None
    };
    future::or(async { Some(work.await) }, late).await
}

/// Serves one connection to its end.
pub(crate) async fn serve(mut stream: TcpStream, peer: SocketAddr, app: Arc<App>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        match exchange(&mut stream, &mut buffer, peer, &app).await {
            // A peer with the next request always ready must not keep others waiting.
            Ok(true) => future::yield_now().await,
            Ok(false) => break,
            Err(End::Quiet) => return,
            Err(End::Refused(problem)) => {
                let _ = write(&mut stream, problem.response(), true, false).await;
                break;
            }
        }
    }
    // A peer that still sends when we close loses the answer: let it come to its end.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut rest = [0; 4096];
    let drain = async {
        let mut drained = 0;
        while let Ok(n) = stream.read(&mut rest).await {
            drained += n;
            if n == 0 || drained > BODY_BYTES_MAX {
                break;
            }
        }
    };
    within(CLOSE_MAX, drain).await;
}

/// Serves one request for which there is no place, unless it asks for the process's health.
pub(crate) async fn serve_health(mut stream: TcpStream, peer: SocketAddr, app: Arc<App>) {
    let work = async {
        let head = read_head(&mut stream, &mut Vec::new(), peer).await?;
        let response = match head.request.path.as_str() {
            HEALTH => app.answer(&head.request).await,
            _ => Problem::new(503, "busy", "there are too many connections").response(),
        };
        let response = response.header("retry-after", "5");
        write(&mut stream, response, true, head.request.method == "HEAD").await?;
        let _ = stream.shutdown(std::net::Shutdown::Write);
        Ok::<_, End>(())
    };
    let _late = within(HEALTH_MAX, work).await;
}

/// One request and its answer; whether another may follow.
async fn exchange(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    peer: SocketAddr,
    app: &App,
) -> Result<bool, End> {
    let head = read_head(stream, buffer, peer).await?;
    let (mut request, keep) = (head.request, head.keep);
    let is_head = request.method == "HEAD";
    if head.length > 0 {
        if head.expects && buffer.is_empty() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = read_body(stream, buffer, head.length).await?;
    }
    let answer = within(ANSWER_MAX, app.answer(&request)).await;
    let mut response = answer
        .unwrap_or_else(|| Problem::new(504, "unconfirmed", "the answer took too long").response());
    if let ResponseBody::Feed(page) = response.body {
        response.body = ResponseBody::Static(b"");
        if !is_head {
            stream_page(stream, &response, *page, head.chunks).await?;
        }
        return Ok(false);
    }
    let is_large = response.body.bytes().len() > LARGE_BYTES;
    let seat = is_large.then(|| Seat::take(&app.large, LARGE_MAX));
    if matches!(seat, Some(None)) {
        let message = format!("{LARGE_MAX} large answers are being read, which is the most");
        response = Problem::new(503, "busy", message).response();
    }
    write(stream, response, !keep, is_head).await?;
    drop(seat);
    Ok(keep)
}

/// Reads what there is; how many bytes that were.
async fn read_some(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize, End> {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes).await? {
        0 => Err(End::Quiet),
        n => {
            buffer.extend_from_slice(&bytes[..n]);
            Ok(n)
        }
    }
}

async fn read_head(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    peer: SocketAddr,
) -> Result<Head, End> {
    if buffer.is_empty() {
        within(IDLE_MAX, read_some(stream, buffer))
            .await
            .unwrap_or(Err(End::Quiet))?;
    }
    let rest = async {
        let mut blank = 0;
        loop {
            blank += skip_blank(buffer);
            if blank > BLANK_BYTES_MAX {
                return Err(End::Refused(Problem::bad("a request is no empty lines")));
            }
            if let Some((head, length)) = parse(buffer, peer)? {
                buffer.drain(..length);
                return Ok(head);
            }
            if buffer.len() >= HEAD_BYTES_MAX {
                let message = format!("a head has at most {HEAD_BYTES_MAX} bytes");
                return Err(End::Refused(Problem::new(431, "head", message)));
            }
            // Looked at line by line: one that comes byte by byte costs no more.
            loop {
                let n = read_some(stream, buffer).await?;
                let has_line = buffer[buffer.len() - n..].contains(&b'\n');
                if has_line || buffer.len() >= HEAD_BYTES_MAX {
                    break;
                }
            }
        }
    };
    let late = || Problem::new(408, "slow", "the request came in too slowly");
    within(REQUEST_MAX, rest)
        .await
        .unwrap_or_else(|| Err(End::Refused(late())))
}

async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    length: usize,
) -> Result<Vec<u8>, End> {
    let rest = async {
        while buffer.len() < length {
            read_some(stream, buffer).await?;
        }
        Ok(buffer.drain(..length).collect())
    };
    let late = || Problem::new(408, "slow", "the request came in too slowly");
    within(REQUEST_MAX, rest)
        .await
        .unwrap_or_else(|| Err(End::Refused(late())))
}

/// Takes the line ends before a request away; how many bytes that were.
fn skip_blank(buffer: &mut Vec<u8>) -> usize {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let blank = buffer.iter().take_while(|byte| is_end(byte)).count();
    buffer.drain(..blank);
    blank
}

/// Reads a head if it is there whole, with its length.
fn parse(bytes: &[u8], peer: SocketAddr) -> Result<Option<(Head, usize)>, End> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let bad = |message: String| End::Refused(Problem::bad(message));
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            let message = format!("a request has at most {HEADERS_MAX} headers");
            return Err(End::Refused(Problem::new(431, "head", message)));
        }
        Err(error) => return Err(bad(format!("that is no HTTP request: {error}"))),
    };
    // Others may take a line end without its CR for a part of a value.
    let mut line_ends = (0..length).filter(|at| bytes[*at] == b'\n');
    if line_ends.any(|at| at == 0 || bytes[at - 1] != b'\r') {
        return Err(bad("a line of a head ends in CR and LF".to_owned()));
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(bad("that is no HTTP request".to_owned()));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !path.starts_with('/') {
        return Err(bad("the target of a request is a path here".to_owned()));
    }
    let query = parse_query(query)
        .ok_or_else(|| bad("the query is not percent-encoded UTF-8".to_owned()))?;
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        peer: peer.to_string(),
        ..Request::default()
    };
    let (mut body, mut expects, mut keep, mut hosts) = (None, false, version == 1, 0);
    for header in parsed.headers.iter() {
        let name = header.name.to_ascii_lowercase();
        let value = std::str::from_utf8(header.value)
            .map_err(|_| bad(format!("the header {name} is not UTF-8")))?;
        match name.as_str() {
            "transfer-encoding" => {
                return Err(bad("a body has a Content-Length here".to_owned()));
            }
            "content-length" => {
                let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                if body.is_some() || !is_number {
                    return Err(bad("the Content-Length is not one number".to_owned()));
                }
                body = Some(value.parse().unwrap_or(usize::MAX));
            }
            "expect" => expects = value.eq_ignore_ascii_case("100-continue"),
            "connection" => {
                for option in value.split(',').map(str::trim) {
                    if option.eq_ignore_ascii_case("close") {
                        keep = false;
                    }
                }
            }
            "host" => hosts += 1,
            _ => {}
        }
        if let Some(name) = HEADERS.iter().find(|known| **known == name) {
            request
                .headers
                .entry(name)
                .or_insert_with(|| value.to_owned());
        }
    }
    if hosts > 1 {
        return Err(bad("there is more than one Host".to_owned()));
    }
    let body = body.unwrap_or(0);
    if body > BODY_BYTES_MAX {
        let message = format!("a body has at most {BODY_BYTES_MAX} bytes");
        return Err(End::Refused(Problem::new(413, "too_large", message)));
    }
    let head = Head {
        request,
        length: body,
        expects,
        keep,
        chunks: version == 1,
    };
    Ok(Some((head, length)))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

fn head(response: &Response, framing: &str) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {} {}\r\n",
        response.status,
        reason(response.status)
    );
    let mut put = |name: &str, value: &str| {
        // A line end in a value would begin another header.
        debug_assert!(!value.bytes().any(|byte| byte < b' '), "{name}: {value:?}");
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        head.push_str(&format!("{name}: {value}\r\n"));
    };
    put("content-security-policy", &POLICY);
    for (name, value) in SECURITY {
        put(name, value);
    }
    put("content-type", response.content_type);
    if !response
        .headers
        .iter()
        .any(|(name, _)| *name == "cache-control")
    {
        put("cache-control", "no-store");
    }
    for (name, value) in &response.headers {
        put(name, value);
    }
    head.push_str(framing);
    head.push_str("\r\n");
    head.into_bytes()
}

async fn put(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(PIECE_BYTES) {
        let written = within(STALL_MAX, stream.write_all(piece)).await;
        written.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    }
    Ok(())
}

async fn write(
    stream: &mut TcpStream,
    response: Response,
    close: bool,
    is_head: bool,
) -> io::Result<()> {
    let body = response.body.bytes();
    let connection = if close { "close" } else { "keep-alive" };
    let framing = match response.status {
        304 => format!("connection: {connection}\r\n"),
        _ => format!(
            "content-length: {}\r\nconnection: {connection}\r\n",
            body.len()
        ),
    };
    let mut bytes = head(&response, &framing);
    if is_head || response.status == 304 {
        return put(stream, &bytes).await;
    }
    if body.len() <= PIECE_BYTES {
        bytes.extend_from_slice(body);
        return put(stream, &bytes).await;
    }
    put(stream, &bytes).await?;
    put(stream, body).await
}

/// Sends a page its news until it goes away.
async fn stream_page(
    stream: &mut TcpStream,
    response: &Response,
    mut page: Page,
    chunks: bool,
) -> io::Result<()> {
    let framing = if chunks {
        "transfer-encoding: chunked\r\nconnection: close\r\n"
    } else {
        "connection: close\r\n"
    };
    put(stream, &head(response, framing)).await?;
    let mut reader = stream.clone();
    let mut chatter = 0;
    loop {
        let news = page.next();
        let gone = async {
            // A page says nothing more; when reading ends, it has left. One that does say
            // more would keep this busy for as long as it does.
            let mut bytes = [0; 64];
            while let Ok(n @ 1..) = reader.read(&mut bytes).await {
                chatter += n;
                if chatter > CHATTER_BYTES_MAX {
                    break;
                }
            }
            None
        };
        let Some(news) = future::or(news, gone).await else {
            return Ok(());
        };
        let bytes = if chunks {
            let mut chunk = format!("{:x}\r\n", news.len()).into_bytes();
            chunk.extend_from_slice(&news);
            chunk.extend_from_slice(b"\r\n");
            chunk
        } else {
            news
        };
        put(stream, &bytes).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<(Head, usize)>, Problem> {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        parse(bytes, peer).map_err(|end| match end {
            End::Refused(problem) => problem,
            End::Quiet => panic!("a parser has something to say"),
        })
    }

    #[test]
    fn heads_are_read_whole_or_not_yet() {
        let bytes = b"POST /a%20b?x=1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\nX-Carbontube: 1\r\n\r\nabcGET";
        for end in 0..bytes.len() - 6 {
            assert!(read(&bytes[..end]).expect("it is fine so far").is_none());
        }
        let (head, length) = read(bytes).expect("it is fine").expect("it is whole");
        assert_eq!(&bytes[length..], b"abcGET");
        assert_eq!((head.length, head.keep, head.chunks), (3, true, true));
        assert_eq!(head.request.path, "/a%20b");
        assert_eq!(head.request.query["x"], "1");
        assert_eq!(head.request.header("host"), Some("h:1"));
        assert_eq!(head.request.header("x-carbontube"), Some("1"));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for lines in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length:",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: identity\r\nContent-Length: 1",
            "X: a\r\n folded: b",
            "Bad Name: x",
            "Host: a\r\nHost: b",
            "X: \u{0}",
            "no colon",
            "X: a\nContent-Length: 1",
            "X: a\n\nContent-Length: 1",
        ] {
            let bytes = format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n");
            let refused = read(bytes.as_bytes()).map(|_| ());
            assert_eq!(
                refused.map_err(|problem| problem.status),
                Err(400),
                "{lines:?}"
            );
        }
        for line in [
            "GET http://x/ HTTP/1.1",
            "GET * HTTP/1.1",
            "GET / HTTP/2.0",
            "GET /?%ff HTTP/1.1",
            "G\u{1}T / HTTP/1.1",
        ] {
            let refused = read(format!("{line}\r\n\r\n").as_bytes()).map(|_| ());
            assert_eq!(
                refused.map_err(|problem| problem.status),
                Err(400),
                "{line:?}"
            );
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let large = read(b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n");
        assert_eq!(
            large.map(|_| ()).map_err(|problem| problem.status),
            Err(413)
        );
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        let many = read(many.as_bytes()).map(|_| ());
        assert_eq!(many.map_err(|problem| problem.status), Err(431));
    }

    #[test]
    fn empty_lines_before_a_request_are_skipped() {
        let mut bytes = b"\r\n\nGET / HTTP/1.1\r\n\r\n".to_vec();
        assert_eq!(skip_blank(&mut bytes), 3);
        assert!(bytes.starts_with(b"GET"));
        assert_eq!(skip_blank(&mut bytes), 0);
    }

    #[test]
    fn old_and_closing_connections_are_not_kept() {
        let kept = |text: &str| {
            let (head, _) = read(text.as_bytes()).expect("fine").expect("whole");
            head.keep
        };
        assert!(kept("GET / HTTP/1.1\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.0\r\n\r\n"));
        assert!(!kept(
            "GET / HTTP/1.1\r\nConnection: keep-alive, Close\r\n\r\n"
        ));
    }
}
