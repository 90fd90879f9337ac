//! The manager's decisions, without I/O, clock, threads or randomness of its own.

mod effect;
mod input;
mod options;

pub use effect::{Commit, CommitId, Effect, Gated, PipeId, RecordSeq};
pub use input::{ClientId, Input, StoreFault};
pub use options::CoreOptions;
