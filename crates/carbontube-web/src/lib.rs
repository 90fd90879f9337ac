//! The web interface of Carbontube: an HTTP API, server-sent events and Prometheus
//! metrics over one or more managers, and the pages on top of them.
//!
//! [`Web`] asks each manager for its state once a second, however many pages are open,
//! and follows its events in between. A page has no queue: it is sent what differs from
//! what it was last sent, so a slow one costs nothing but a late picture.
//! This crate decides nothing about jobs and keeps nothing on disk.

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod access;
mod api;
mod assets;
mod brake;
mod connection;
mod error;
mod feed;
mod logs;
mod metrics;
mod options;
mod places;
mod preview;
mod request;
mod server;
mod sessions;
mod state;
mod watch;

pub use error::{StartError, TokenError};
pub use options::{WebOptions, read_token};
pub use server::{Web, WebHandle};
