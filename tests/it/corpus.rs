//! The fuzzer's committed corpus, replayed: what once was interesting stays answered.

use proptest::prelude::*;
use serde_json::{Value, json};
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

/// Values such as `input` may be given: words, ids, lists of either, nested and mixed.
fn input() -> impl Strategy<Value = Value> {
    let id = prop_oneof![0..9i64, Just(-1), Just(1 << 33)].prop_map(Value::from);
    let word = prop_oneof![Just(""), Just("a"), Just("\u{e9}\n")].prop_map(Value::from);
    let leaf = prop_oneof![6 => id, 3 => word, 1 => Just(Value::Null), 1 => Just(Value::from(1.5)), 1 => Just(Value::from(true))];
    leaf.prop_recursive(2, 64, 80, |inner| prop::collection::vec(inner, 0..80).prop_map(Value::from))
}

proptest! {
    #[test]
    fn whatever_input_is_made_of_both_layers_answer_it(input in input()) {
        request::check(json!({"model": "m", "input": input}).to_string().as_bytes());
    }

    #[test]
    fn ids_are_taken_up_to_the_limit_and_counted_beyond(lengths in prop::collection::vec(1..20usize, 1..20)) {
        let input: Vec<Vec<u8>> = lengths.iter().map(|length| vec![1; *length]).collect();
        request::check(json!({"model": "m", "input": input}).to_string().as_bytes());
        request::check(json!({"model": "m", "input": input.concat()}).to_string().as_bytes());
    }
}
