//! The Carbontube manager: one per pipeline.
//!
//! [`core`] decides: it is pure, takes inputs and the time, and queues effects.
//! The rest of the crate is the shell that acts: sockets, timers, the store's thread.

pub mod core;
mod definition;
mod error;
mod manager;
mod options;

pub use definition::{Backoff, DefinitionError, PhaseDefinition, PipelineDefinition};
pub use error::{RunError, SocketRole, StartError};
pub use manager::{Manager, ManagerHandle};
pub use options::{ManagerAddresses, ManagerOptions};
