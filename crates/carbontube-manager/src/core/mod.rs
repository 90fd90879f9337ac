//! The manager's decisions, without I/O, clock, threads or randomness of its own.

mod adoption;
mod cause;
mod changes;
mod dispatch;
mod effect;
mod epochs;
mod failures;
mod heartbeat;
mod histogram;
mod history;
mod input;
mod intake;
mod job;
mod journal;
mod machine;
mod newcomers;
mod options;
mod original;
mod pages;
mod payload;
mod query;
mod record;
mod recovery;
mod results;
mod search;
mod series;
#[cfg(feature = "testing")]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trust;
mod waits;
mod worker;

pub use effect::{Commit, CommitId, Effect, Gated, PipeId, RecordSeq};
pub use input::{ClientId, Input, StoreFault};
pub use journal::import_page;
pub use machine::Core;
pub use newcomers::Rank;
pub use options::CoreOptions;
pub use recovery::{RecoverError, Recovery};
pub(crate) use worker::original_id;
