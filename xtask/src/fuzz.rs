//! `cargo xtask fuzz`: the fuzz targets on stable Rust.
//!
//! The driver and the targets are a package of their own, built with the checks of a
//! debug build and the speed of a release one. It takes this process over, so that Ctrl-C
//! and the exit code need no forwarding.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{self, cargo_step};

const BUILD: [&str; 6] = [
    "build",
    "--profile",
    "fuzz",
    "--package",
    "carbontube-fuzz-targets",
    "--quiet",
];

/// As the test set builds it, so that little is left to build.
const BRIEF_BUILD: [&str; 6] = [
    "build",
    "--workspace",
    "--all-features",
    "--bin",
    "carbontube-fuzz",
    "--quiet",
];

/// Builds and becomes the driver; returns only when that fails.
pub(crate) fn become_driver(arguments: &[String]) -> Result<()> {
    let mut command = prepared(&BUILD, "fuzz")?;
    let error = command.args(arguments).exec();
    Err(error).context("starting the fuzz driver")
}

/// The corpus of every target, then so many inputs made from it for each.
pub(crate) fn run_briefly(inputs: u64) -> Result<()> {
    let mut command = prepared(&BRIEF_BUILD, "debug")?;
    // Always the same ones: a check of every change is no place to find something new.
    command.args(["--seed", "1", "--inputs", &inputs.to_string()]);
    cargo::step("fuzz targets", &mut command)
}

fn prepared(build: &[&str], folder: &str) -> Result<Command> {
    cargo_step("build of the fuzz targets", build)?;
    let driver = cargo::target()?.join(folder).join("carbontube-fuzz");
    let mut command = Command::new(driver);
    command.current_dir(cargo::root());
    Ok(command)
}
