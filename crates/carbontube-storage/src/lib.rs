//! Journal storage for Carbontube: the trait, its conformance suite, memory, sled and Redis.
