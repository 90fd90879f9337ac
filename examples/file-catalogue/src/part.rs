//! A part of a file, which is what a job is about.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A stretch of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file.
    pub path: PathBuf,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

impl Part {
    /// Reads the part.
    ///
    /// # Errors
    /// When the file cannot be read, or is shorter than the part.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(self.length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == self.length {
            return Ok(bytes);
        }
        let text = format!(
            "{} has {} bytes from {}, expected {}",
            self.path.display(),
            bytes.len(),
            self.offset,
            self.length
        );
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_reads_its_stretch_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let part = |offset, length| Part {
            path: path.clone(),
            offset,
            length,
        };
        assert_eq!(part(2, 3).read().unwrap(), b"234");
        let error = part(8, 3).read().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn hex_is_the_known_digest_of_nothing() {
        assert!(hex(b"").starts_with("e3b0c44298fc1c149afbf4c8996fb924"));
    }
}
