//! Every store, held to the promises of the crate.

mod memory;
mod sled;
