//! The first frame of every message: signature, version, kind and codec.

use crate::error::DecodeError;

/// The first three bytes of every Carbontube message.
pub const SIGNATURE: [u8; 3] = *b"CTB";
/// The version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// The length of the header frame, in bytes.
pub const HEADER_BYTES: usize = 6;

/// How a message's body frame is encoded. Payload frames are JSON in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Bincode 2, standard configuration: what Rust peers speak. Byte `B`.
    Bincode,
    /// JSON: what everyone else speaks. Byte `J`.
    Json,
}

impl Codec {
    /// The byte that stands for the codec in the header.
    pub fn byte(self) -> u8 {
        match self {
            Codec::Bincode => b'B',
            Codec::Json => b'J',
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $byte:literal),* $(,)?) => {
        /// What a message is: one ASCII letter on the wire (protocol.md §4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind, in the order of the specification.
            pub const ALL: &[Kind] = &[$(Kind::$name),*];

            /// The byte that stands for the kind in the header.
            pub fn byte(self) -> u8 {
                match self {
                    $(Kind::$name => $byte,)*
                }
            }

            fn from_byte(byte: u8) -> Option<Kind> {
                match byte {
                    $($byte => Some(Kind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A client enqueues jobs.
    Enqueue = b'E',
    /// The manager says what became of an enqueue.
    Enqueued = b'e',
    /// A client asks something, or asks for an administrative change.
    Query = b'Q',
    /// The manager answers a query.
    Answer = b'q',
    /// A client waits for jobs to end.
    Wait = b'W',
    /// The manager tells a waiting client that jobs ended.
    Ended = b'w',
    /// The manager could not do or understand what it was sent.
    Refusal = b'r',
    /// The manager introduces itself on a worker's pipe.
    Hello = b'H',
    /// The manager hands attempts to a worker.
    Dispatch = b'D',
    /// The manager has results safely journaled.
    Ack = b'K',
    /// The manager wants attempts back that have not started.
    Recall = b'Y',
    /// The manager wants attempts stopped.
    Cancel = b'C',
    /// The manager wants a worker to finish and leave.
    Drain = b'N',
    /// A worker returns results.
    Results = b'S',
    /// A worker hands back attempts that it did not start.
    HandBack = b'B',
    /// A worker leaves.
    Goodbye = b'L',
    /// A worker's event: it lives, and this is what it holds.
    Heartbeat = b'V',
    /// A worker's event: log lines.
    Logs = b'G',
    /// A worker's event: progress of attempts.
    Progress = b'P',
    /// The manager's event stream.
    Events = b'M',
}

/// A message's first frame, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the message is.
    pub kind: Kind,
    /// How its body is encoded.
    pub codec: Codec,
}

impl Header {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [a, b, c] = SIGNATURE;
        [
            a,
            b,
            c,
            PROTOCOL_VERSION,
            self.kind.byte(),
            self.codec.byte(),
        ]
    }

    /// Reads a header frame.
    ///
    /// # Errors
    /// [`DecodeError`] that names the first byte that is not as it should be.
    pub fn from_bytes(frame: &[u8]) -> Result<Header, DecodeError> {
        if frame.len() < 4 || frame[..3] != SIGNATURE {
            return Err(DecodeError::Signature {
                found: frame.iter().copied().take(8).collect(),
            });
        }
        if frame[3] != PROTOCOL_VERSION {
            return Err(DecodeError::Version { found: frame[3] });
        }
        if frame.len() != HEADER_BYTES {
            return Err(DecodeError::HeaderLength { found: frame.len() });
        }
        let kind = Kind::from_byte(frame[4]).ok_or(DecodeError::Kind { found: frame[4] })?;
        let codec = match frame[5] {
            b'B' => Codec::Bincode,
            b'J' => Codec::Json,
            found => return Err(DecodeError::Codec { found }),
        };
        Ok(Header { kind, codec })
    }
}
