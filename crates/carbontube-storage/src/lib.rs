//! Journal storage for Carbontube: the trait, its conformance suite, memory, sled and Redis.
//!
//! A [`Store`] keeps two first-in-first-out logs of [pages](Frame), the
//! journal and the history, and changes them in atomic, durable [commits](Commit).
//! It blocks, has one writer and never looks into a page.
//!
//! ```
//! use std::ops::ControlFlow;
//! use carbontube_storage::{Commit, Log, OpenOptions, PageSeq, open};
//!
//! let mut store = open("memory:", &OpenOptions::new("videos"))?;
//! let next = store.bounds(Log::Journal).next;
//! store.commit(Commit::new().put(Log::Journal, next, b"a page".to_vec()))?;
//!
//! let mut pages = Vec::new();
//! store.scan(Log::Journal, PageSeq::FIRST, &mut |_, page| {
//!     pages.push(page.to_vec());
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(pages, [b"a page"]);
//! # Ok::<(), carbontube_storage::StoreError>(())
//! ```
//!
//! A store of one's own implements [`Backend`], which has no rules of its own
//! to enforce, and becomes a [`Store`] through [`PagedStore`].

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod error;
mod examine;
#[cfg(any(test, feature = "testing"))]
mod faults;
mod head;
mod memory;
mod open;
mod page;
mod paged;
mod portable;
mod private;
#[cfg(feature = "redis")]
mod redis;
mod sled;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod trials;
mod uri;

pub use crate::error::{Damage, StoreError};
pub use crate::examine::{LogReport, Report, examine};
#[cfg(any(test, feature = "testing"))]
pub use crate::faults::{Faults, NextCommit};
pub use crate::head::{Head, HeadError};
pub use crate::memory::Memory;
pub use crate::open::{OpenMode, OpenOptions, open};
pub use crate::page::{
    Bounds, FORMAT_VERSION, Frame, FrameError, Log, PAGE_BYTES_MAX, PAGE_BYTES_TARGET, PageSeq,
};
pub use crate::paged::{Backend, Batch, PagedStore, VisitFrame};
#[cfg(any(test, feature = "testing"))]
pub use crate::portable::import_bytes;
pub use crate::portable::{Imported, LostPages, export, import, import_with_page};
#[cfg(feature = "redis")]
pub use crate::redis::Redis;
pub use crate::sled::Sled;
pub use crate::store::{Commit, InDoubt, Page, Store, Usage, Visit};
pub use crate::uri::{RedisUri, StoreUri};
