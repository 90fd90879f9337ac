//! Carbontube: brokerless, distributed job pipelines in pure Rust.
//!
//! Write phases, put them into a [`Pipeline`] and give that to [`run`]: the program has
//! the subcommands of the `carbontube` binary then, without the pipeline file.
//!
//! ```no_run
//! use carbontube::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! struct Greet;
//!
//! #[derive(Deserialize)]
//! struct Guest {
//!     name: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Greeted {
//!     greeting: String,
//! }
//!
//! impl Phase for Greet {
//!     type Instructions = Guest;
//!     type Output = Greeted;
//!
//!     async fn execute(&self, job: &JobContext, guest: Guest) -> Result<Greeted, PhaseError> {
//!         job.progress(0.5, "thinking of something nice");
//!         Ok(Greeted { greeting: format!("hello, {}", guest.name) })
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     carbontube::run([Pipeline::new("hello").phase("greet", Greet)])
//! }
//! ```

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod catalogue;
mod cli;
mod duration;
mod exit;
mod failure;
mod file;
mod pipeline;
#[cfg(feature = "testing")]
pub mod testing;

pub use carbontube_client as client;
pub use carbontube_manager as manager;
pub use carbontube_protocol as protocol;
pub use carbontube_storage as storage;
pub use carbontube_transport as transport;
pub use carbontube_worker as worker;
pub use cli::{run, run_files};
pub use pipeline::Pipeline;

/// What a program with phases needs.
pub mod prelude {
    pub use carbontube_client::{ClientOptions, NewJob, PipelineClient};
    pub use carbontube_worker::{AnyPhase, BlockingPhase, JobContext, LogLevel, Phase, PhaseError};

    pub use crate::Pipeline;
}
