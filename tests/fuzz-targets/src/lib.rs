//! What untrusted bytes are thrown at: one function for each way into Carbontube.
//!
//! Each takes any bytes and panics when something is not as it should be. The libFuzzer
//! targets in `fuzz/` (nightly) and the driver in this package (stable, CI) run the same
//! functions: see `docs/fuzzing.md`.

pub mod bed;
pub mod door;
pub mod draw;
pub mod driver;
pub mod frames;
pub mod manager;
pub mod mutate;
pub mod output;
pub mod pipeline;
pub mod recovery;
pub mod samples;
pub mod storage;
pub mod worker;

/// One way in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, of the libFuzzer target and the corpus folder too.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Takes any bytes; panics when something is not as it should be.
    pub run: fn(&[u8]),
    /// Inputs that reach far, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that inputs are made of.
    pub dictionary: &'static [&'static [u8]],
    /// The longest input that is worth trying.
    pub bytes_max: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    frames::TARGET,
    pipeline::TARGET,
    storage::TARGET,
    manager::TARGET,
    recovery::TARGET,
    door::TARGET,
    worker::TARGET,
    output::TARGET,
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
