//! libFuzzer's way into the target `pipeline`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (carbontube_fuzz_targets::pipeline::TARGET.run)(data));
