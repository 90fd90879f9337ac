//! The verbs that drive real processes: demo, scenario, bench and pictures.
//!
//! They live in the tests package, beside the harness of the multi-process tests. Here the
//! release binaries are built and the trials program takes this process over, so that
//! Ctrl-C and the exit code need no forwarding.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{self, cargo_step};

/// Every binary and example that a trial starts.
const BUILD: [&str; 10] = [
    "build",
    "--release",
    "--package",
    "carbontube",
    "--package",
    "carbontube-tests",
    "--package",
    "file-catalogue",
    "--bins",
    "--quiet",
];

/// Builds and becomes `trials VERB ARGUMENTS…`; returns only when that fails.
pub(crate) fn become_trial(verb: &str, arguments: &[String]) -> Result<()> {
    let mut command = prepared(verb, arguments)?;
    let error = command.exec();
    Err(error).context("starting the trials program")
}

/// Builds and runs `trials VERB ARGUMENTS…` to its end.
pub(crate) fn run_trial(verb: &str, arguments: &[&str]) -> Result<()> {
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let mut command = prepared(verb, &arguments)?;
    cargo::step(&format!("{verb} {}", arguments.join(" ")), &mut command)
}

fn prepared(verb: &str, arguments: &[String]) -> Result<Command> {
    cargo_step("release build", &BUILD)?;
    if !arguments.iter().any(|argument| argument == "--help") {
        if verb == "scenario" || verb == "bench" {
            build_example("carbontube-storage", &["--features", "testing"])?;
        }
        if verb == "bench" {
            build_example("carbontube-transport", &[])?;
        }
    }
    let release = cargo::target()?.join("release");
    let mut command = Command::new(release.join("trials"));
    command
        .arg(verb)
        .args(arguments)
        .env("CARBONTUBE_BINARIES", &release)
        .env("CARBONTUBE_BIN", release.join("carbontube"))
        .current_dir(cargo::root());
    Ok(command)
}

fn build_example(package: &str, features: &[&str]) -> Result<()> {
    let mut arguments = vec!["build", "--release", "--quiet", "--package", package];
    arguments.extend(features);
    arguments.push("--examples");
    cargo_step(&format!("examples of {package}"), &arguments)
}
