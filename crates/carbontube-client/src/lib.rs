//! The Carbontube client: enqueue with confirmation, wait for results, query and
//! administer managers, and follow their events.
//!
//! A [`PipelineClient`] talks to one manager at a time out of the addresses that it
//! is given, and goes over to another when that one is lost. What was not answered is
//! sent again under the same ids, so that nothing is enqueued twice.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use carbontube_client::{ClientOptions, NewJob, PipelineClient, PipelineName};
//!
//! let api = "tcp://127.0.0.1:5051".parse()?;
//! let client = PipelineClient::connect(&[api], ClientOptions::default()).await?;
//! let pipeline = PipelineName::new("video-encoder-pipeline")?;
//!
//! let job = NewJob::from_json(r#"{"video_path": "/tmp/video1.mp4"}"#);
//! let receipt = client.enqueue(&pipeline, job).await?;
//! let ended = client.wait(&pipeline, receipt.id(), None).await?;
//! println!("{:?}", ended.state);
//! # Ok(())
//! # }
//! ```

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod client;
mod conversation;
mod core;
mod enqueuer;
mod error;
mod events;
mod job;
mod link;
mod options;
#[cfg(feature = "testing")]
pub mod testing;
mod waiting;

pub use carbontube_protocol as protocol;
pub use carbontube_protocol::message::EndedJob;
pub use carbontube_protocol::{Address, JobId, JobType, PipelineName, WorkerId};
pub use client::{Changed, JobPage, PipelineClient};
pub use enqueuer::Enqueuer;
pub use error::ClientError;
pub use events::{EventStream, Notice};
pub use job::{NewJob, Receipt};
pub use options::ClientOptions;
pub use waiting::EndedStream;
