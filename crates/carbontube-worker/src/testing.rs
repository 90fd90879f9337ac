//! The worker's decisions, opened for the simulator: [`Session`] and what goes with it.
//!
//! Behind the feature `testing`, which nothing that is released enables.

pub use crate::command::testing::{last_line, lines, reply, said};
pub use crate::session::{
    Effects, Finished, Key, Load, Notice, Outgoing, Profile, Session, Started,
};
