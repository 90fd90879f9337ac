//! Every store, held to the promises of the crate.

#![allow(clippy::unwrap_used, reason = "a failing step is a failing test")]

mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod redis_disk;
mod sled;
mod sled_damage;
mod upgrade;
