//! The Carbontube worker: phases in Rust and as commands, and the runtime that executes them.
//!
//! A [`Phase`] (or [`BlockingPhase`], or [`CommandPhase`]) is what a user writes;
//! erased to an [`AnyPhase`] it is given to a [`Worker`], which takes attempts from
//! managers, runs them and keeps each result until a manager has it safe.
//!
//! What the worker decides stands in `session`, which is pure: no I/O, no clock, no
//! tasks. Everything else is the shell around it.

mod blocking;
mod clock;
mod command;
mod context;
mod events;
mod options;
mod panics;
mod phase;
mod reach;
mod route;
mod runner;
mod session;
mod shared;
mod telemetry;
mod worker;

pub use carbontube_protocol::message::{FailureKind, LogLevel};
pub use command::{CommandMode, CommandOptions, CommandPhase};
pub use context::JobContext;
pub use options::{StartError, WorkerOptions};
pub use phase::{AnyPhase, BlockingPhase, Phase, PhaseError};
pub use worker::{Worker, WorkerCounters, WorkerHandle};
