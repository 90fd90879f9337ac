//! Why a message could not be read.

use crate::header::{HEADER_BYTES, Kind, PROTOCOL_VERSION};

/// Why a received message could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message had too few frames.
    #[error("a message has a header frame and a body frame, this one has {frames} frames")]
    Frames {
        /// How many frames there were.
        frames: usize,
    },
    /// The first frame is no Carbontube header.
    #[error("expected a frame that starts with CTB, found {found:02x?}")]
    Signature {
        /// The frame's first bytes, eight at most.
        found: Vec<u8>,
    },
    /// The peer speaks another version.
    #[error("protocol version {found} is not spoken here, version {PROTOCOL_VERSION} is")]
    Version {
        /// The peer's version.
        found: u8,
    },
    /// The header frame is of another length.
    #[error("a header frame has {HEADER_BYTES} bytes, this one has {found}")]
    HeaderLength {
        /// The frame's length in bytes.
        found: usize,
    },
    /// No message is of that kind.
    #[error("no message is of kind {:?}", char::from(*found))]
    Kind {
        /// The kind byte.
        found: u8,
    },
    /// No codec has that byte.
    #[error("no codec is {:?}, B (bincode) and J (JSON) are", char::from(*found))]
    Codec {
        /// The codec byte.
        found: u8,
    },
    /// The body could not be read.
    #[error("cannot read the body of a {kind:?} message: {reason}")]
    Body {
        /// The message's kind.
        kind: Kind,
        /// What the codec said.
        reason: String,
    },
    /// Something is larger than its limit.
    #[error("{what} is limited to {limit}, found {found}")]
    Limit {
        /// What is limited, with its unit.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// What came.
        found: usize,
    },
    /// The number of payload frames is not what the body says.
    #[error("a {kind:?} message with {expected} payloads came with {found} payload frames")]
    Payloads {
        /// The message's kind.
        kind: Kind,
        /// How many payload frames the body calls for.
        expected: usize,
        /// How many came.
        found: usize,
    },
    /// A single JSON frame is not one of the original's messages.
    #[error("not a message of the original Carbontube: {reason}")]
    Original {
        /// What is missing or wrong.
        reason: String,
    },
}
