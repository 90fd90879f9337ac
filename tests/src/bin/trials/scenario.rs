//! The scenarios.
use anyhow::Result;
use argh::FromArgs;
/// Measure.
#[derive(FromArgs)]
#[argh(subcommand, name = "scenario")]
pub(crate) struct Scenario {}
pub(crate) fn run(_: &Scenario) -> Result<()> {
    Ok(())
}
