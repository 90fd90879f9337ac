//! What must hold after every step, each by a name.

use std::fmt;

use crate::parameters::Parameters;
use crate::view::View;

/// Something that must hold does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: &'static str,
    /// What was found, for a person.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// All invariants, with what they remember from step to step.
#[derive(Debug)]
pub struct Invariants {}

impl Invariants {
    /// For a new world.
    pub fn new(_parameters: &Parameters) -> Invariants {
        Invariants {}
    }

    /// Runs all invariants on the world as it is after a step.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&mut self, _view: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }

    /// Runs those that hold once everything has settled.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check_end(&mut self, _view: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
