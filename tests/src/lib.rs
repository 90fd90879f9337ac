//! Shared parts of the multi-process tests.
