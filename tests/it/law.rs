//! The law: encoding a batch equals encoding each text alone. Random networks, random raggedness, and every committed checkpoint.

use crate::models::{Model, cosine, max_abs_diff, tiny};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::HashSet;
use vecmill::exec::{Place, tensor::TensorExecutor};
use vecmill::network::{Activation, Attention, Embeddings, Layer, Linear, LoadError, Mlp, Network, Norm, Weight};
use vecmill::ragged::{Packed, Tokens};

/// Largest difference allowed between a component of a text's vector alone and in a batch. The components are about 1 in size; products of
/// another height are summed in another order, so the last bits may differ.
const MAX_ABS: f32 = 1e-5;

/// Smallest cosine allowed.
const MIN_COSINE: f64 = 0.999999;

const VOCABULARY: usize = 50;
const POSITIONS: usize = 48;

/// What is drawn of a network: everything that its description can say.
#[derive(Debug, Clone)]
struct Drawn {
    heads: usize,
    head_dim: usize,
    inner: usize,
    layers: Vec<Activation>,
    eps: f64,
    seed: u64,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let activation = proptest::sample::select(Activation::ALL.to_vec());
    let eps = proptest::sample::select(vec![1e-12, 1e-5]);
    (1..4usize, 1..9usize, 1..20usize, vec(activation, 0..4), eps, any::<u64>()).prop_map(|(heads, head_dim, inner, layers, eps, seed)| Drawn {
        heads,
        head_dim: head_dim * 2,
        inner,
        layers,
        eps,
        seed,
    })
}

/// Weights from a seed, by SplitMix64: reproducible wherever proptest shrinks to.
struct Numbers(u64);

impl Numbers {
    /// Uniform in -0.9..0.9, standard deviation about 0.5.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 * 1.8 - 0.9
    }

    fn weight(&mut self, shape: &[usize]) -> Result<Weight, LoadError> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.next()).collect();
        Weight::from_f32("drawn", shape, &values)
    }

    fn linear(&mut self, out: usize, into: usize) -> Result<Linear, LoadError> {
        Ok(Linear { weight: self.weight(&[out, into])?, bias: Some(self.weight(&[out])?) })
    }

    fn norm(&mut self, width: usize, eps: f64) -> Result<Norm, LoadError> {
        Ok(Norm { weight: self.weight(&[width])?, bias: self.weight(&[width])?, eps })
    }
}

fn network(drawn: &Drawn) -> Result<Network, LoadError> {
    let (mut n, c) = (Numbers(drawn.seed), drawn.heads * drawn.head_dim);
    let embeddings = Embeddings {
        tokens: n.weight(&[VOCABULARY, c])?,
        positions: n.weight(&[POSITIONS, c])?,
        token_types: n.weight(&[2, c])?,
        norm: n.norm(c, drawn.eps)?,
    };
    let mut layers = Vec::new();
    for activation in &drawn.layers {
        let (query, key, value, output) = (n.linear(c, c)?, n.linear(c, c)?, n.linear(c, c)?, n.linear(c, c)?);
        layers.push(Layer {
            attention: Attention { heads: drawn.heads, query, key, value, output },
            attention_norm: n.norm(c, drawn.eps)?,
            mlp: Mlp { up: n.linear(drawn.inner, c)?, activation: *activation, down: n.linear(c, drawn.inner)? },
            mlp_norm: n.norm(c, drawn.eps)?,
        });
    }
    Ok(Network { width: c, embeddings, layers })
}

/// Texts of 1 to `POSITIONS` tokens; lengths often repeat, as attention takes equal ones together.
fn texts(vocabulary: usize, longest: usize) -> impl Strategy<Value = Vec<Tokens>> {
    let len = prop_oneof![1..=longest, Just(1), Just(7.min(longest)), Just(longest)];
    let text = len.prop_flat_map(move |len| (vec(0..vocabulary as u32, len), 0..len));
    let text = text.prop_map(|(ids, prompt_len)| Tokens { original_len: ids.len(), ids, prompt_len });
    vec(text, 1..12)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::with_cases(cases) }, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn compare(batch: &[f32], single: &[f32], worst: &RefCell<f32>) -> Result<(), TestCaseError> {
    let diff = max_abs_diff(batch, single);
    prop_assert!(diff <= MAX_ABS, "off by {diff}");
    prop_assert!(cosine(batch, single) >= MIN_COSINE || batch.iter().all(|x| *x == 0.), "cosine {}", cosine(batch, single));
    let mut worst = worst.borrow_mut();
    *worst = worst.max(diff);
    Ok(())
}

#[test]
fn a_batch_equals_its_texts_alone_for_random_networks() {
    let (worst, met) = (RefCell::new(0f32), RefCell::new(HashSet::new()));
    let failed = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
    let outcome = runner(200).run(&(drawn(), texts(VOCABULARY, POSITIONS)), |(drawn, texts)| {
        met.borrow_mut().extend(drawn.layers.iter().copied());
        let executor = network(&drawn).and_then(|network| TensorExecutor::new(&network, &Place::reference())).map_err(|error| failed(&error))?;
        let run = |texts: &[Tokens]| executor.run(&Packed::new(texts)).and_then(|hidden| hidden.to_vec2::<f32>()).map_err(|error| failed(&error));
        let batch = run(&texts)?;
        let mut rows = batch.iter();
        for text in &texts {
            for (single, row) in run(std::slice::from_ref(text))?.iter().zip(rows.by_ref()) {
                compare(row, single, &worst)?;
            }
        }
        prop_assert!(rows.next().is_none());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(met.borrow().len(), Activation::ALL.len(), "not every activation was drawn: {:?}", met.borrow());
    println!("random networks: a text in a batch differs by at most {:.3e}", *worst.borrow());
}

#[test]
fn a_batch_equals_its_texts_alone_for_every_checkpoint() {
    for dir in vecmill::encoders::architectures().flat_map(tiny) {
        let (model, worst) = (Model::load(&dir), RefCell::new(0f32));
        let info = &model.loaded.info;
        let outcome = runner(40).run(&texts(info.vocabulary, info.max_tokens), |texts| {
            for (text, vector) in texts.iter().zip(model.vectors(&texts)) {
                compare(&vector, &model.vectors(std::slice::from_ref(text))[0], &worst)?;
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        println!("{}: a text in a batch differs by at most {:.3e}", dir.file_name().expect("named").display(), *worst.borrow());
    }
}
