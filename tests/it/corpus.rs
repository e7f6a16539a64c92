//! The fuzzer's committed corpus, replayed: what once was interesting stays answered.

use std::path::Path;

#[path = "../../fuzz/checks/request.rs"]
mod request;

#[test]
fn every_request_of_the_corpus_is_answered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/request");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        request::check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 20, "the corpus has only {count} files");
}
