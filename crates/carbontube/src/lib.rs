//! Brokerless, distributed job pipelines in pure Rust: library face and the carbontube binary.
