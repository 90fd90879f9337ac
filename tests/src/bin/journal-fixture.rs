//! Makes a fixture of the journal that a given `carbontube` writes.
//!
//! `cargo run -p carbontube-tests --bin journal-fixture -- CARBONTUBE tests/fixtures/NAME`

use std::path::Path;

use anyhow::{Result, bail};
use carbontube_tests::fixture;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [program, folder] => fixture::make(&std::fs::canonicalize(program)?, Path::new(folder)),
        _ => bail!("expected the path of a carbontube and a folder to make"),
    }
}
