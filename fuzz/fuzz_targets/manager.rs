//! libFuzzer's way into the target `manager`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (carbontube_fuzz_targets::manager::TARGET.run)(data));
