//! `cargo xtask sim`: whole pipelines in virtual time.
//!
//! The simulator is a package of its own, built with the checks of a debug build and the
//! speed of a release one. It takes this process over, so that Ctrl-C and the exit code
//! need no forwarding.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{self, cargo_step};

const BUILD: [&str; 6] = [
    "build",
    "--profile",
    "fuzz",
    "--package",
    "carbontube-sim",
    "--quiet",
];

/// Builds and becomes the simulator; returns only when that fails.
pub(crate) fn become_simulator(arguments: &[String]) -> Result<()> {
    let error = prepared(arguments)?.exec();
    Err(error).context("starting the simulator")
}

/// The seeds that once failed, then so many from the first on.
pub(crate) fn run_seeds(seeds: u64) -> Result<()> {
    let arguments = ["--seeds".to_owned(), seeds.to_string()];
    cargo::step("simulator", &mut prepared(&arguments)?)
}

/// Each deliberate fault is found by one of so many seeds.
pub(crate) fn find_mutations(seeds: u64) -> Result<()> {
    let seeds = seeds.to_string();
    let arguments = ["--mutations".to_owned(), "--seeds".to_owned(), seeds];
    cargo::step("deliberate faults", &mut prepared(&arguments)?)
}

fn prepared(arguments: &[String]) -> Result<Command> {
    cargo_step("build of the simulator", &BUILD)?;
    let simulator = cargo::target()?.join("fuzz").join("carbontube-sim");
    let mut command = Command::new(simulator);
    command.args(arguments).current_dir(cargo::root());
    Ok(command)
}
