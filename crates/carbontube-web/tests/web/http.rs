//! A plain HTTP client: it sends exactly what a test says.

use std::time::{Duration, Instant};

use async_std::net::TcpStream;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use serde_json::Value;

use crate::support::{PATIENCE, within};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("it is UTF-8")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    }
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        Connection {
            stream: stream.expect("it listens"),
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is sent");
    }

    /// Reads more; false at the end.
    pub(crate) async fn more(&mut self) -> bool {
        let mut bytes = [0; 16384];
        let read = within("an answer", self.stream.read(&mut bytes)).await;
        let n = read.unwrap_or(0);
        self.buffer.extend_from_slice(&bytes[..n]);
        n > 0
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).expect("a head is text");
            }
            let seen = String::from_utf8_lossy(&self.buffer).into_owned();
            assert!(self.more().await, "closed before a whole head: {seen:?}");
        }
    }

    pub(crate) async fn answer(&mut self, has_body: bool) -> Answer {
        let head = self.head().await;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let mut answer = Answer {
            status: status.expect("a status"),
            head,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .map(|length| length.parse::<usize>());
        if has_body && let Some(length) = length {
            let length = length.expect("a number");
            while self.buffer.len() < length {
                assert!(self.more().await, "closed before the whole body");
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        answer
    }
}

/// Sends a request as it stands and reads the answer.
pub(crate) async fn raw(port: u16, request: &[u8]) -> Answer {
    let mut connection = Connection::open(port).await;
    connection.send(request).await;
    connection.answer(true).await
}

pub(crate) async fn get(port: u16, path: &str) -> Answer {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    raw(port, request.as_bytes()).await
}

pub(crate) async fn get_with(port: u16, path: &str, headers: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n\r\n");
    raw(port, request.as_bytes()).await
}

pub(crate) async fn post(port: u16, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Carbontube: 1\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    raw(port, request.as_bytes()).await
}

/// One server-sent event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

/// An open event stream.
pub(crate) struct Events {
    connection: Connection,
    text: Vec<u8>,
}

impl Events {
    pub(crate) async fn open(port: u16, query: &str) -> Events {
        Events::open_with(port, query, "").await
    }

    pub(crate) async fn open_with(port: u16, query: &str, headers: &str) -> Events {
        let mut connection = Connection::open(port).await;
        let request = format!(
            "GET /api/v1/stream?{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n"
        );
        connection.send(request.as_bytes()).await;
        let head = connection.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Events {
            connection,
            text: Vec::new(),
        }
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let message: Vec<u8> = self.text.drain(..end + 2).collect();
                let message = String::from_utf8(message).expect("events are text");
                let field = |name: &str| {
                    message
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::to_owned)
                };
                let data = field("data: ").unwrap_or_else(|| panic!("no data: {message:?}"));
                return Event {
                    name: field("event: ").unwrap_or_default(),
                    id: field("id: "),
                    data: serde_json::from_str(&data).expect("data is JSON"),
                };
            }
            self.chunk().await;
        }
    }

    async fn chunk(&mut self) {
        loop {
            let buffer = &self.connection.buffer;
            if let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") {
                let length = std::str::from_utf8(&buffer[..end]).ok();
                let length = length.and_then(|length| usize::from_str_radix(length, 16).ok());
                let length = length.expect("a chunk has a length");
                let whole = end + 2 + length + 2;
                if buffer.len() >= whole {
                    self.text
                        .extend_from_slice(&buffer[end + 2..end + 2 + length]);
                    self.connection.buffer.drain(..whole);
                    return;
                }
            }
            assert!(self.connection.more().await, "the stream ended");
        }
    }

    /// Waits until the server ends it.
    pub(crate) async fn ended(&mut self) {
        let search = async { while self.connection.more().await {} };
        within("the end of the stream", search).await;
    }

    /// The next event of a name that fits.
    pub(crate) async fn find(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Event {
        let search = async {
            loop {
                let event = self.next().await;
                if event.name == name && fits(&event.data) {
                    return event;
                }
            }
        };
        within(&format!("a {name} event"), search).await
    }
}

/// Asks until the answer fits.
pub(crate) async fn until(port: u16, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = get(port, path).await;
        if answer.status == 200 && fits(&answer.json()) {
            return answer.json();
        }
        assert!(
            Instant::now() < deadline,
            "{path} did not come to fit: {}",
            answer.text()
        );
        async_io::Timer::after(Duration::from_millis(20)).await;
    }
}

/// Asks until the answer has a status.
pub(crate) async fn until_status(port: u16, path: &str, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = get(port, path).await;
        if answer.status == status {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{path} did not come to {status}: {}",
            answer.head
        );
        async_io::Timer::after(Duration::from_millis(20)).await;
    }
}
