//! libFuzzer's way into the target `output`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (carbontube_fuzz_targets::output::TARGET.run)(data));
