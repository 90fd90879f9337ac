//! The three phases.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use carbontube_worker::{AnyPhase, BlockingPhase, JobContext, PhaseError};
use serde::{Deserialize, Serialize};

use crate::ledger::{Ledger, now_us};
use crate::manifest::{Entry, Manifest};
use crate::part::{Part, hex};

/// Makes the phase of a name, which keeps its files in `folder`.
///
/// # Errors
/// When there is no such phase, or its files cannot be opened.
pub fn phase(name: &str, folder: &Path) -> Result<AnyPhase, PhaseError> {
    let ledger = Ledger::open(folder, name)?;
    Ok(match name {
        "fingerprint" => AnyPhase::from_blocking(Fingerprint { ledger }),
        "compress" => AnyPhase::from_blocking(Compress {
            ledger,
            folder: folder.to_owned(),
        }),
        "catalogue" => AnyPhase::from_blocking(Catalogue {
            ledger,
            manifest: Manifest::open(&folder.join("manifest"))?,
        }),
        other => {
            let text = format!("no phase {other}; there are fingerprint, compress and catalogue");
            return Err(PhaseError::fatal(text));
        }
    })
}

/// Computes the SHA-256 of a part of a file.
#[derive(Debug)]
pub struct Fingerprint {
    ledger: Ledger,
}

/// What [`Fingerprint`] adds.
#[derive(Debug, Serialize)]
pub struct Fingerprinted {
    sha256: String,
}

impl BlockingPhase for Fingerprint {
    type Instructions = Part;
    type Output = Fingerprinted;

    fn execute(&self, job: &JobContext, part: Part) -> Result<Fingerprinted, PhaseError> {
        let id = job.job().to_string();
        self.ledger.note("began", &id)?;
        let sha256 = hex(&part.read()?);
        self.ledger.note("ended", &id)?;
        Ok(Fingerprinted { sha256 })
    }
}

/// Compresses a part of a file into a file named by its fingerprint.
#[derive(Debug)]
pub struct Compress {
    ledger: Ledger,
    folder: PathBuf,
}

/// What [`Compress`] needs.
#[derive(Debug, Deserialize)]
pub struct Compressible {
    #[serde(flatten)]
    part: Part,
    sha256: String,
}

/// What [`Compress`] adds.
#[derive(Debug, Serialize)]
pub struct Compressed {
    compressed: PathBuf,
}

impl BlockingPhase for Compress {
    type Instructions = Compressible;
    type Output = Compressed;

    fn execute(&self, job: &JobContext, file: Compressible) -> Result<Compressed, PhaseError> {
        let id = job.job().to_string();
        self.ledger.note("began", &id)?;
        let bytes = file.part.read()?;
        let compressed = self.folder.join(format!("{}.lz4", file.sha256));
        // Two parts with the same content may be compressed at once: each writes a file
        // of its own, and renaming replaces one whole file by an equal one.
        let unfinished = self.folder.join(unfinished_name(&id));
        let mut output = File::create(&unfinished)?;
        output.write_all(&lz4_flex::compress_prepend_size(&bytes))?;
        drop(output);
        std::fs::rename(&unfinished, &compressed)?;
        self.ledger.note("ended", &id)?;
        Ok(Compressed { compressed })
    }
}

/// The name of a job's unfinished file. Its id is whatever its client chose, `../../x`
/// say: never a part of a path as it is.
fn unfinished_name(id: &str) -> String {
    format!("{}.unfinished", hex(id.as_bytes()))
}

/// Appends a part to the manifest.
#[derive(Debug)]
pub struct Catalogue {
    ledger: Ledger,
    manifest: Manifest,
}

/// What [`Catalogue`] needs.
#[derive(Debug, Deserialize)]
pub struct Catalogueable {
    #[serde(flatten)]
    part: Part,
    sha256: String,
    compressed: PathBuf,
    #[serde(default)]
    enqueued_us: u64,
}

impl BlockingPhase for Catalogue {
    type Instructions = Catalogueable;
    type Output = ();

    fn execute(&self, job: &JobContext, file: Catalogueable) -> Result<(), PhaseError> {
        let id = job.job().to_string();
        self.ledger.note("began", &id)?;
        self.manifest.append(&Entry {
            job: id.clone(),
            part: file.part,
            sha256: file.sha256,
            compressed: file.compressed,
            enqueued_us: file.enqueued_us,
            catalogued_us: now_us(),
        })?;
        self.ledger.note("ended", &id)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_file_stays_in_its_folder_whatever_the_id() {
        for id in ["../../x", "/etc/x", "..", "a/b", "a_b", &"x".repeat(128)] {
            let name = unfinished_name(id);
            assert_eq!(Path::new(&name).file_name(), Some(name.as_ref()), "{id}");
            assert!(name.len() < 255, "{id}");
        }
        assert_ne!(unfinished_name("a/b"), unfinished_name("a_b"));
    }
}
