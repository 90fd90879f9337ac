//! A client's process.
