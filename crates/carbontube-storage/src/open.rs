//! Opening a store by its URI.

use std::path::Path;

use crate::error::StoreError;
use crate::memory::Memory;
use crate::paged::PagedStore;
use crate::sled;
use crate::store::Store;
use crate::uri::StoreUri;

/// How a store is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// The pipeline whose jobs are kept.
    ///
    /// In Redis it keeps pipelines apart that share a server; a folder is
    /// marked with it and refused to any other pipeline.
    pub pipeline: String,
    /// Whether a store that is not there yet is made.
    pub mode: OpenMode,
}

impl OpenOptions {
    /// The options a manager opens its journal with.
    #[must_use]
    pub fn new(pipeline: &str) -> OpenOptions {
        OpenOptions {
            pipeline: pipeline.to_owned(),
            mode: OpenMode::Create,
        }
    }
}

/// Whether a store that is not there yet is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Open it, and make it first if there is none.
    Create,
    /// Open it, or fail with [`StoreError::Missing`].
    Existing,
}

/// Opens the store a URI names and verifies everything in it.
///
/// # Errors
///
/// A store that is damaged, in an unknown format, in use, another pipeline's
/// or not a store at all is refused and left exactly as it was.
pub fn open(uri: &str, options: &OpenOptions) -> Result<Box<dyn Store>, StoreError> {
    let parsed: StoreUri = uri.parse()?;
    match parsed {
        StoreUri::Memory => match options.mode {
            OpenMode::Create => Ok(Box::new(Memory::store())),
            OpenMode::Existing => Err(StoreError::Missing {
                place: uri.to_owned(),
            }),
        },
        StoreUri::Sled(ref path) => open_sled(path, options),
        #[cfg(feature = "redis")]
        StoreUri::Redis(ref server) => Ok(Box::new(crate::redis::open(server, options)?)),
        #[cfg(not(feature = "redis"))]
        StoreUri::Redis(_) => Err(StoreError::NotBuilt {
            uri: parsed.to_string(),
            feature: "redis",
        }),
    }
}

fn open_sled(path: &Path, options: &OpenOptions) -> Result<Box<dyn Store>, StoreError> {
    if let Some(store) = sled::open(path, &options.pipeline)? {
        return Ok(Box::new(store));
    }
    match options.mode {
        OpenMode::Existing => Err(StoreError::Missing {
            place: format!("sled:{}", path.display()),
        }),
        OpenMode::Create => {
            let identity = new_identity();
            let store = sled::create(path, &options.pipeline, identity, |backend| {
                PagedStore::create(backend, identity)
            })?;
            Ok(Box::new(store))
        }
    }
}

/// Sixteen random bytes that tell one store from another.
pub(crate) fn new_identity() -> [u8; 16] {
    let mut identity = [0; 16];
    fastrand::Rng::new().fill(&mut identity);
    identity
}
