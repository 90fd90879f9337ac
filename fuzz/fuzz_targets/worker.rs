//! libFuzzer's way into the target `worker`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (carbontube_fuzz_targets::worker::TARGET.run)(data));
