//! The Carbontube worker: phases in Rust and as commands, and the runtime that executes them.
//!
//! A [`Phase`] (or [`BlockingPhase`], or [`CommandPhase`]) is what a user writes;
//! erased to an [`AnyPhase`] it is given to a [`Worker`], which takes attempts from
//! managers, runs them and keeps each result until a manager has it safe.
//!
//! What the worker decides stands in `session`, which is pure: no I/O, no clock, no
//! tasks. Everything else is the shell around it.
//!
//! # Examples
//! ```no_run
//! use carbontube_worker::{AnyPhase, JobContext, LogLevel, Phase, PhaseError, Worker, WorkerOptions};
//! use serde::{Deserialize, Serialize};
//!
//! struct Fingerprint;
//!
//! #[derive(Deserialize)]
//! struct Instructions {
//!     path: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Output {
//!     bytes: u64,
//! }
//!
//! impl Phase for Fingerprint {
//!     type Instructions = Instructions;
//!     type Output = Output;
//!
//!     async fn execute(&self, job: &JobContext, given: Instructions) -> Result<Output, PhaseError> {
//!         job.log(LogLevel::Info, format!("reading {}", given.path));
//!         let metadata = async_std::fs::metadata(&given.path).await?;
//!         if !metadata.is_file() {
//!             return Err(PhaseError::fatal(format!("{} is no file", given.path)));
//!         }
//!         Ok(Output { bytes: metadata.len() })
//!     }
//! }
//!
//! async fn work() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut options = WorkerOptions::new("fingerprint".parse()?);
//!     options.slots = 4;
//!     options.push_connect = vec!["tcp://127.0.0.1:5050".parse()?];
//!     options.pub_connect = vec!["tcp://127.0.0.1:6000".parse()?];
//!     let worker = Worker::start(options, AnyPhase::from_async(Fingerprint)).await?;
//!     worker.run().await;
//!     Ok(())
//! }
//! # fn main() { async_std::task::block_on(work()).unwrap(); }
//! ```

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod blocking;
mod clock;
mod command;
mod context;
mod emergency;
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
#[cfg(feature = "testing")]
pub mod testing;
mod worker;

pub use carbontube_protocol::message::{FailureKind, LogLevel};
pub use command::{CommandMode, CommandOptions, CommandPhase};
pub use context::JobContext;
pub use emergency::{is_phase_on_executor, kill_commands};
pub use options::{StartError, WorkerOptions};
pub use phase::{AnyPhase, BlockingPhase, Phase, PhaseError};
pub use worker::{Worker, WorkerCounters, WorkerHandle};
