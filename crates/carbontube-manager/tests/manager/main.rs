//! A manager on real sockets, against scripted workers and clients.

mod drain;
mod events;
mod jobs;
mod peers;
mod starting;
mod storage;
mod support;
