//! The present version goes on with journals that earlier versions left.

use anyhow::{Context, Result, ensure};
use carbontube_tests::fixture;

use super::{Figures, Size};
use crate::cluster::binaries;

/// Every fixture, as a folder and through its export.
pub(super) fn upgrade(_size: Size) -> Result<Figures> {
    let program = binaries().join("carbontube");
    let (mut as_told, mut ended, mut journals) = (0, 0, 0);
    let mut slowest = std::time::Duration::ZERO;
    for path in fixture::all()? {
        for through_export in [false, true] {
            let gone_on = fixture::go_on(&program, &path, through_export)
                .with_context(|| path.display().to_string())?;
            as_told += gone_on.as_told;
            ended += gone_on.ended;
            slowest = slowest.max(gone_on.opened_in);
            journals += 1;
        }
    }
    ensure!(journals > 0, "there is no fixture");
    let more = format!(
        "{journals} journals of earlier formats: all {as_told} jobs as the old version had said, \
         {ended} live ones ended, the slowest was open and checked after {:.2} s",
        slowest.as_secs_f64()
    );
    Ok(Figures::default().saying(more))
}
