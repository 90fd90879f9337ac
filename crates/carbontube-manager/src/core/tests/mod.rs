//! Scripts for the core: a bed with a store in memory, workers and virtual time.

mod bed;
mod bounded;
mod dispatching;
mod epochs;
mod insight;
mod journaling;
mod limits;
mod newcomers;
mod random;
mod repeating;
mod restarting;
mod reviewed;
mod scripts;
mod trusting;
