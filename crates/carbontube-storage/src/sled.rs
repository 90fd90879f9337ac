//! The default store: a folder of its own with a sled 0.34 database in it.
//!
//! sled is fast and needs nothing, but its word alone is not good enough for
//! a journal, so this module never takes it:
//!
//! - `flush()` does not survive a power cut; every commit ends with an
//!   fdatasync of the data file through a descriptor of our own.
//! - It opens damaged files with silent holes, or panics. Before a journal is
//!   opened in place a copy of it is opened and every page in it verified, so
//!   a damaged journal is refused without having been touched.
//! - Nodes over a quarter of a segment would go to files that are never
//!   synced. Segments of 8 MiB and pages of at most
//!   [`PAGE_BYTES_MAX`](crate::PAGE_BYTES_MAX) keep every node below that,
//!   and that no such file appears is checked after each commit.
//! - Its memory is freed too slowly by itself; each commit helps it along.
//! - After any failure the database is given up, written to its disk [again](self::disk)
//!   and opened anew.
//!
//! What it cannot notice at all, that the newest commits are gone while all
//! before them is whole, the [witness](self::folder) tells.

mod commit;
mod contain;
mod copy;
mod disk;
mod engine;
mod folder;
mod raw;

pub use self::engine::Sled;
pub(crate) use self::engine::{Finding, confirmed, create, examine, open};
pub(crate) use self::folder::{Folder, sync_folder};
pub(crate) use self::raw::RawPages;
