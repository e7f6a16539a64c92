//! What must hold for every request body whatsoever; called by the fuzzer, and by the tests on its corpus.

use vecmill::wire::Fault;
use vecmill::wire::request::{Limits, parse};

const LIMITS: Limits = Limits { max_texts: 16 };

/// Parses `body` for a model that refuses empty texts and for one that takes them.
pub fn check(body: &[u8]) {
    for empty_ok in [false, true] {
        match parse(body, LIMITS, |_| empty_ok) {
            Ok(request) => {
                assert!(!request.model.is_empty());
                assert!((1..=LIMITS.max_texts).contains(&request.texts.len()));
                assert!(empty_ok || request.texts.iter().all(|text| !text.is_empty()));
                assert_ne!(request.dimensions, Some(0));
                // Escapes only ever shrink: a text is never longer than what it was written as.
                assert!(request.model.len() + request.texts.iter().map(String::len).sum::<usize>() <= body.len());
            }
            Err(fault @ Fault::Validation(_)) => {
                assert!((1..64).contains(&fault.details().len()));
                let answer = fault.native_body("req_fuzz");
                assert!(answer.len() < 16 << 10, "{} bytes of answer", answer.len());
                serde_json::from_slice::<serde_json::Value>(&answer).expect("the answer is JSON");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}
