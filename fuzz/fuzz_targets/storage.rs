//! libFuzzer's way into the target `storage`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (carbontube_fuzz_targets::storage::TARGET.run)(data));
