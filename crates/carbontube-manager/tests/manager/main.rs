//! A manager on real sockets, against scripted workers and clients.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod drain;
mod events;
mod invented;
mod jobs;
mod peers;
mod starting;
mod storage;
mod support;
