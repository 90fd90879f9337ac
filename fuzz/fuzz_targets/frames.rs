//! libFuzzer's way into the target `frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (carbontube_fuzz_targets::frames::TARGET.run)(data));
