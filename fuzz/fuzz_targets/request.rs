//! Feeds arbitrary bytes to the parser of the embed request.
#![no_main]

#[path = "../checks/request.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|body: &[u8]| check::check(body));
