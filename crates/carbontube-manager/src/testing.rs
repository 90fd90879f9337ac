//! What the simulator drives of the shell; not part of the public interface.

pub use crate::persistence::{Persistence, Step, Told, read};
