//! The `carbontube` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    carbontube::run_files()
}
