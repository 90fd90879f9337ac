//! The Carbontube manager: one per pipeline.
//!
//! [`core`] decides: it is pure, takes inputs and the time, and queues effects.
//! The rest of the crate is the shell that acts: sockets, timers, the store's thread.

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod api;
mod belief;
mod clock;
mod codecs;
pub mod core;
mod definition;
mod engine;
mod error;
mod gate;
mod intake;
mod keeper;
mod lobby;
mod manager;
mod merge;
mod options;
mod persistence;
mod pipes;
mod publisher;
mod queue;
mod recent;
mod reception;
mod round;
mod stop;
mod tally;
#[cfg(feature = "testing")]
pub mod testing;
mod watchdog;

pub use definition::{Backoff, DefinitionError, PhaseDefinition, PipelineDefinition};
pub use error::{RunError, SocketRole, StartError};
pub use manager::{Manager, ManagerHandle};
pub use options::{ManagerAddresses, ManagerOptions};
