//! What the bytes between Carbontube peers mean: messages, both codecs, limits,
//! addresses, names and ids.
//!
//! This crate never opens a socket, never reads a clock and has no async code.
//! `docs/protocol.md` is its specification; comments cite its sections.

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod address;
mod codec;
mod counted;
mod error;
mod harmless;
mod header;
mod ids;
mod instructions;
mod limits;
pub mod message;
mod names;
pub mod original;
mod time;
mod trace;

pub use address::{Address, AddressError, Host};
pub use codec::{decode, decode_event, encode, encode_event};
pub use error::DecodeError;
pub use harmless::{Harmless, harmless};
pub use header::{Codec, HEADER_BYTES, Header, Kind, PROTOCOL_VERSION, SIGNATURE};
pub use ids::{AttemptId, IdError, JobId, ManagerId, WorkerId};
pub use instructions::{InstructionsError, check_instructions, merge_instructions};
pub use limits::{EPOCH_MAX, EPOCH_STEP_MAX, Limits};
pub use message::Message;
pub use names::{JobType, NameError, PipelineName};
pub use time::Timestamp;
pub use trace::is_traceparent;
