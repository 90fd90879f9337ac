//! The bench.
use anyhow::Result;
use argh::FromArgs;
/// Measure.
#[derive(FromArgs)]
#[argh(subcommand, name = "bench")]
pub(crate) struct Bench {}
pub(crate) fn run(_: &Bench) -> Result<()> {
    Ok(())
}
