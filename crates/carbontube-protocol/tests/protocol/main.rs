//! The protocol's tests: golden vectors, every truncation, limits, random bytes.

mod golden;
mod hostile;
mod original;
mod samples;
mod values;
