//! Feeds arbitrary checkpoints to the loader; checks/checkpoint.rs says what the bytes mean.
#![no_main]

#[path = "../checks/checkpoint.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|files: &[u8]| {
    check::check(files);
});
