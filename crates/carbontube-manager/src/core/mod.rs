//! The manager's decisions, without I/O, clock, threads or randomness of its own.

mod effect;
mod input;
mod machine;
mod options;
mod recovery;

pub use effect::{Commit, CommitId, Effect, Gated, PipeId, RecordSeq};
pub use input::{ClientId, Input, StoreFault};
pub use machine::Core;
pub use options::CoreOptions;
pub use recovery::{RecoverError, Recovery};
