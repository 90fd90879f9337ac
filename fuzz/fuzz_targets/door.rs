//! libFuzzer's way into the target `door`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (carbontube_fuzz_targets::door::TARGET.run)(data));
