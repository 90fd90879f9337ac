//! A pipeline that catalogues files: fingerprint (SHA-256), compress (LZ4), catalogue.
//!
//! Each phase may run more than once for the same part of a file and comes to the same
//! result; what it ran is in a ledger of its own, which the demo counts.

mod ledger;
mod manifest;
mod part;
mod phases;

pub use ledger::{Ledger, Run, read_ledgers};
pub use manifest::{Entry, Manifest, ManifestError};
pub use part::{Part, hex};
pub use phases::{Catalogue, Compress, Fingerprint, phase};

/// The pipeline's name.
pub const PIPELINE: &str = "file-catalogue";

/// Its phases, in order.
pub const PHASES: [&str; 3] = ["fingerprint", "compress", "catalogue"];
