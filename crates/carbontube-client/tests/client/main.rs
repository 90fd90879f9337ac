//! The client against a scripted manager.

mod enqueueing;
mod events;
mod links;
mod queries;
mod scripted;
mod waiting;
