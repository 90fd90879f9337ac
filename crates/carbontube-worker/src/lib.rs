//! The Carbontube worker runtime: the Phase trait, command phases, and the loop around them.
