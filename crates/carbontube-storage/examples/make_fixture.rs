//! Makes the fixture that proves that later versions read this one's journals.
//!
//! `cargo run -p carbontube-storage --example make_fixture -- FOLDER`
//!
//! Run it once for each new format version and keep what it makes, both the
//! journal folder and its export, next to those of the older versions.

use std::path::Path;

use anyhow::{Context, Result};
use carbontube_storage::{Commit, FORMAT_VERSION, Log, OpenOptions, PageSeq, export, open};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("which folder?")?;
    let folder = Path::new(&folder).join(format!("v{FORMAT_VERSION}"));
    let place = format!("sled:{}", folder.join("journal").display());
    let options = OpenOptions::new("fixture");
    let mut store = open(&place, &options)?;
    for seq in 1..=12 {
        let mut commit = Commit::new();
        commit.put(
            Log::Journal,
            PageSeq(seq),
            vec![b'a' + seq as u8; 10 * seq as usize],
        );
        if seq % 3 == 0 {
            commit.put(
                Log::History,
                PageSeq(seq / 3),
                vec![b'A' + seq as u8; seq as usize],
            );
        }
        if seq == 12 {
            commit.truncate_before(Log::Journal, PageSeq(6));
            commit.truncate_before(Log::History, PageSeq(2));
        }
        store.commit(&commit)?;
    }
    drop(store);
    export(&place, &options, &folder.join("export"))?;
    Ok(())
}
