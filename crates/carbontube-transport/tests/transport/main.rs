//! The transport against real sockets: every trap, hostile peers, linger, libzmq.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod departed;
mod hostile;
mod interop;
mod linger;
mod patterns;
mod raw;
mod scarce;
mod support;
mod traps;
