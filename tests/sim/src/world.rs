//! The world: what happens when, and in which order.
