//! The `carbontube` binary.
fn main() {}
