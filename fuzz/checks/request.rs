//! What must hold for every request body whatsoever; called by the fuzzer, and by the tests on its corpus.

use vecmill::wire::EmbedRequest;
use vecmill::wire::Fault;
use vecmill::wire::request::{Limits, TokenArrays, parse, parse_openai};

const LIMITS: Limits = Limits { max_texts: 16 };
const MAX_IDS: usize = 64;

/// Parses `body` on both layers, for a model that refuses empty texts and for one that takes them.
pub fn check(body: &[u8]) {
    // Every id stands for three letters; one stands for nothing.
    let decode = |ids: &[u32]| {
        assert!((1..=MAX_IDS).contains(&ids.len()));
        if ids.contains(&7) { Err("7".to_owned()) } else { Ok("abc".repeat(ids.len())) }
    };
    let arrays = TokenArrays { max_ids: MAX_IDS, decode: &decode };
    for empty_ok in [false, true] {
        let native = parse(body, LIMITS, |_| empty_ok);
        let openai = parse_openai(body, LIMITS, arrays, |_| empty_ok);
        if let Ok(request) = &native {
            // Escapes only ever shrink: a text is never longer than what it was written as.
            assert!(request.model.len() + request.texts.iter().map(String::len).sum::<usize>() <= body.len());
            assert_eq!(openai.as_ref(), Ok(request), "what is fine natively means the same there");
        }
        judge(native, empty_ok);
        judge(openai, empty_ok);
    }
}

fn judge(parsed: Result<EmbedRequest, Fault>, empty_ok: bool) {
    match parsed {
        Ok(request) => {
            assert!(!request.model.is_empty());
            assert!((1..=LIMITS.max_texts).contains(&request.texts.len()));
            assert!(empty_ok || request.texts.iter().all(|text| !text.is_empty()));
            assert_ne!(request.dimensions, Some(0));
        }
        Err(fault @ Fault::Validation(_)) => {
            assert!((1..64).contains(&fault.details().len()));
            for answer in [fault.native_body("req_fuzz"), fault.openai_body()] {
                assert!(answer.len() < 16 << 10, "{} bytes of answer", answer.len());
                serde_json::from_slice::<serde_json::Value>(&answer).expect("the answer is JSON");
            }
        }
        Err(other) => panic!("{other:?}"),
    }
}
