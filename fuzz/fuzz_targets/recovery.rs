//! libFuzzer's way into the target `recovery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (carbontube_fuzz_targets::recovery::TARGET.run)(data));
