//! A peer that speaks ZMTP by hand, rightly or wrongly.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A stream with no manners of its own.
pub(crate) struct Raw(pub(crate) TcpStream);

pub(crate) fn greeting() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

pub(crate) fn ready(socket_type: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend((socket_type.len() as u32).to_be_bytes());
    body.extend(socket_type.as_bytes());
    let mut bytes = vec![4, body.len() as u8];
    bytes.extend(body);
    bytes
}

pub(crate) fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if body.len() < 256 {
        bytes.extend([flags, body.len() as u8]);
    } else {
        bytes.push(flags | 2);
        bytes.extend((body.len() as u64).to_be_bytes());
    }
    bytes.extend(body);
    bytes
}

/// A frame header that declares a length, without the frame.
pub(crate) fn declare(flags: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![flags | 2];
    bytes.extend(length.to_be_bytes());
    bytes
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the listener is there");
        Self::new(stream)
    }

    fn new(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// Connects and does the handshake.
    pub(crate) fn meet(port: u16, socket_type: &str) -> Self {
        let mut raw = Self::connect(port);
        raw.shake(socket_type);
        raw
    }

    /// Accepts a connection and does the handshake.
    pub(crate) fn accept(listener: &TcpListener, socket_type: &str) -> Self {
        let mut raw = Self::new(listener.accept().expect("a peer dials").0);
        raw.shake(socket_type);
        raw
    }

    pub(crate) fn shake(&mut self, socket_type: &str) {
        self.send(&greeting());
        self.send(&ready(socket_type));
        let mut theirs = [0; 64];
        self.0.read_exact(&mut theirs).expect("a greeting");
        self.read_frame().expect("READY");
    }

    /// Sends; a connection that was closed meanwhile is no error.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Reads one frame: its flags and body.
    pub(crate) fn read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let mut length = usize::from(head[1]);
        if head[0] & 2 != 0 {
            let mut rest = [0; 7];
            self.0.read_exact(&mut rest)?;
            length = rest
                .iter()
                .fold(length, |sum, &byte| sum << 8 | usize::from(byte));
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    /// Reads until the other side closes; fails the test if it does not.
    pub(crate) fn expect_closed(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the connection stayed open: {error}"),
        }
    }
}
