//! What happened, line by line: printed when asked for, and always summed up in a hash.
//!
//! Two runs of a seed are the same when their hashes are.

use std::fmt::{self, Write};

use carbontube_protocol::Timestamp;

use crate::network::NodeId;

/// Where the lines go.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    print: bool,
    origin: Timestamp,
}

impl Trace {
    /// A trace whose times count from `origin`; `print` writes each line to standard output.
    pub fn new(origin: Timestamp, print: bool) -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            print,
            origin,
        }
    }

    /// Notes a line.
    pub fn note(&mut self, now: Timestamp, who: NodeId, what: fmt::Arguments<'_>) {
        let at = now.since(self.origin).as_micros();
        self.lines += 1;
        let _ = writeln!(Hasher(&mut self.hash), "{at} {who} {what}");
        if self.print {
            let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
            println!("{seconds:>5}.{micros:06}  {who:<9}  {what}");
        }
    }

    /// The hash of all lines so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

struct Hasher<'a>(&'a mut u64);

impl Write for Hasher<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
