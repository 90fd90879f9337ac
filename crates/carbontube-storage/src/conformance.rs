//! What every store must do, as one call: [`conformance`].
//!
//! A store of one's own passes it in a test:
//!
//! ```
//! use carbontube_storage::conformance::{Place, conformance};
//! use carbontube_storage::{Faults, Memory, Store, StoreError};
//!
//! struct Simulated(Faults);
//!
//! impl Place for Simulated {
//!     fn open(&self) -> Result<Box<dyn Store>, StoreError> {
//!         Ok(Box::new(Memory::store_on(&self.0)?))
//!     }
//! }
//!
//! conformance(&mut || Box::new(Simulated(Faults::new())));
//! ```

mod cases;
mod model;

use crate::error::StoreError;
use crate::store::Store;

pub use self::model::{Step, run_steps};

/// A place a store can be opened at, again and again.
pub trait Place {
    /// Opens the store that is here, and makes it the first time.
    ///
    /// # Errors
    ///
    /// As the store's own way of opening.
    fn open(&self) -> Result<Box<dyn Store>, StoreError>;

    /// Whether a second open while the first store lives must be refused.
    fn is_exclusive(&self) -> bool {
        true
    }
}

/// Makes new, empty places.
pub type Factory<'a> = dyn FnMut() -> Box<dyn Place> + 'a;

/// Runs every case against new places from `factory`.
///
/// # Panics
///
/// With the name of the case and what was wrong when the store does not do
/// what a store must.
#[allow(
    clippy::print_stderr,
    reason = "a test prints what it does when it fails"
)]
pub fn conformance(factory: &mut Factory<'_>) {
    for (name, case) in cases::CASES {
        eprintln!("conformance: {name}");
        case(factory().as_ref());
    }
    for seed in 0..8 {
        eprintln!("conformance: random_steps_agree_with_the_model, seed {seed}");
        run_steps(factory().as_ref(), &Step::random(seed, 60));
    }
}
