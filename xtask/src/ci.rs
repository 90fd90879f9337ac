//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;

use crate::cargo::{self, cargo_step, step};
use crate::{fuzz, sim, test_set, tidy, trials};

/// How many made inputs each fuzz target gets, beside the corpus.
const FUZZ_INPUTS: u64 = 2_000;
/// How many worlds the simulator runs each time: a few minutes on two cores.
const SIM_SEEDS: u64 = 5_000;

/// Runs every check, quick ones first.
pub(crate) fn run(without_test: bool) -> Result<()> {
    cargo_step("format", &["fmt", "--all", "--check"])?;
    if without_test {
        tidy::run(&cargo::root(), false)?;
    }
    cargo_step(
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    let mut doc = cargo::cargo();
    doc.args([
        "doc",
        "--workspace",
        "--all-features",
        "--no-deps",
        "--quiet",
    ])
    .env("RUSTDOCFLAGS", "-D warnings")
    .current_dir(cargo::root());
    step("documentation", &mut doc)?;
    if !without_test {
        test_set::run()?;
    }
    fuzz::run_briefly(FUZZ_INPUTS)?;
    sim::run_seeds(SIM_SEEDS)?;
    sim::find_mutations(SIM_SEEDS)?;
    trials::run_trial("scenario", &["--all", "--short"])?;
    println!("ci: all good");
    Ok(())
}
