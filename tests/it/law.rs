//! The law: encoding a batch equals encoding each text alone. Random networks, random raggedness, and every committed checkpoint.

use crate::drawn::{self, MAX_TOKENS, VOCABULARY, WORDS};
use crate::models::{Model, cosine, max_abs_diff, tiny};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::HashSet;
use vecmill::exec::{Place, tensor::TensorExecutor};
use vecmill::network::Activation;
use vecmill::ragged::{Packed, Tokens};

/// Largest difference allowed between a component of a text's vector alone and in a batch, in parts of the largest component (or of 1, if all
/// are smaller). Products of another height are summed in another order, so the last bits may differ.
const MAX_ABS: f32 = 1e-5;

/// The same for random networks, whose norms and softmaxes amplify rounding as no trained network's do.
const RANDOM_MAX_ABS: f32 = 1e-4;

/// Smallest cosine allowed.
const MIN_COSINE: f64 = 0.999999;

/// Texts of 1 to `longest` tokens, each with one of `adapters` or none; lengths often repeat, as attention takes equal ones together.
fn texts(vocabulary: usize, longest: usize, adapters: usize) -> impl Strategy<Value = Vec<Tokens>> {
    let len = prop_oneof![1..=longest, Just(1), Just(7.min(longest)), Just(longest)];
    let text = len.prop_flat_map(move |len| (vec(0..vocabulary as u32, len), 0..len, 0..=adapters));
    let text = text.prop_map(|(ids, prompt_len, adapter)| Tokens { prompt_len, adapter: adapter.checked_sub(1), ..Tokens::whole(ids) });
    vec(text, 1..12)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::with_cases(cases) }, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn compare(batch: &[f32], single: &[f32], most: f32, worst: &RefCell<f32>) -> Result<(), TestCaseError> {
    let size = single.iter().fold(1f32, |size, x| size.max(x.abs()));
    let diff = max_abs_diff(batch, single) / size;
    prop_assert!(diff <= most, "off by {diff}");
    prop_assert!(cosine(batch, single) >= MIN_COSINE || batch.iter().all(|x| *x == 0.), "cosine {}", cosine(batch, single));
    let mut worst = worst.borrow_mut();
    *worst = worst.max(diff);
    Ok(())
}

#[test]
fn a_batch_equals_its_texts_alone_for_random_networks() {
    let (worst, met, activations) = (RefCell::new(0f32), RefCell::new(HashSet::new()), RefCell::new(HashSet::new()));
    let failed = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
    let outcome = runner(200).run(&(drawn::seeds(), texts(VOCABULARY, MAX_TOKENS, drawn::ADAPTERS)), |(seed, mut texts)| {
        let drawn = drawn::draw(seed).map_err(|error| failed(&error))?;
        if drawn.network.adapters == 0 {
            texts.iter_mut().for_each(|text| text.adapter = None);
        }
        met.borrow_mut().extend(drawn.words);
        activations.borrow_mut().extend(drawn.activations);
        let executor = TensorExecutor::new(&drawn.network, &Place::reference()).map_err(|error| failed(&error))?;
        let run = |texts: &[Tokens]| executor.run(&Packed::new(texts)).and_then(|hidden| hidden.to_vec2::<f32>()).map_err(|error| failed(&error));
        let batch = run(&texts)?;
        let mut rows = batch.iter();
        for text in &texts {
            for (single, row) in run(std::slice::from_ref(text))?.iter().zip(rows.by_ref()) {
                compare(row, single, RANDOM_MAX_ABS, &worst)?;
            }
        }
        prop_assert!(rows.next().is_none());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(activations.borrow().len(), Activation::ALL.len(), "not every activation was drawn: {:?}", activations.borrow());
    let missing: Vec<_> = WORDS.iter().filter(|word| !met.borrow().contains(*word)).collect();
    assert!(missing.is_empty(), "never drawn: {missing:?}");
    println!("random networks: a text in a batch differs by at most {:.3e}", *worst.borrow());
}

#[test]
fn a_batch_equals_its_texts_alone_for_every_checkpoint() {
    for dir in vecmill::encoders::architectures().flat_map(tiny) {
        let (model, worst) = (Model::load(&dir), RefCell::new(0f32));
        let info = &model.loaded.info;
        let outcome = runner(40).run(&texts(info.vocabulary, info.max_tokens, 0), |texts| {
            for (text, vector) in texts.iter().zip(model.vectors(&texts)) {
                compare(&vector, &model.vectors(std::slice::from_ref(text))[0], MAX_ABS, &worst)?;
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        println!("{}: a text in a batch differs by at most {:.3e}", dir.file_name().expect("named").display(), *worst.borrow());
    }
}
