//! Whole networks with the kernels, in the executor that uses them: random descriptions, pooling, and every small checkpoint in each number format.

use super::device::place;
use crate::drawn::{self, MAX_TOKENS, VOCABULARY, WORDS};
use crate::law::{RANDOM_MAX_ABS, compare, runner, texts};
use crate::models::{cosine, tiny};
use crate::mutation::{description, executor};
use proptest::test_runner::TestCaseError;
use std::cell::RefCell;
use std::collections::HashSet;
use vecmill::engine::pipeline::pooling::Mode;
use vecmill::engine::pipeline::{Pipeline, Stages};
use vecmill::exec::{Place, tensor::TensorExecutor};
use vecmill::network::{Activation, DType, Network, PositionBias, Weight};
use vecmill::ragged::{Packed, Tokens};

fn fused(network: &Network, dtype: DType) -> TensorExecutor {
    TensorExecutor::new(network, &place(dtype)).unwrap_or_else(|error| panic!("{error}"))
}

fn hidden(executor: &TensorExecutor, batch: &Packed) -> Vec<f32> {
    executor.run(batch).and_then(|hidden| hidden.flatten_all()?.to_vec1()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn random_networks_compute_the_same_with_the_kernels() {
    let (worst, met, activations) = (RefCell::new(0f32), RefCell::new(HashSet::new()), RefCell::new(HashSet::new()));
    let outcome = runner(150).run(&(drawn::seeds(), texts(VOCABULARY, MAX_TOKENS, drawn::ADAPTERS)), |(seed, mut texts)| {
        let drawn = drawn::draw(seed).map_err(|error| TestCaseError::fail(error.to_string()))?;
        if drawn.network.adapters == 0 {
            texts.iter_mut().for_each(|text| text.adapter = None);
        }
        met.borrow_mut().extend(drawn.words);
        activations.borrow_mut().extend(drawn.activations);
        let (batch, width) = (Packed::new(&texts), drawn.network.width);
        let want = hidden(&executor(&drawn.network), &batch);
        let got = hidden(&fused(&drawn.network, DType::F32), &batch);
        got.chunks(width).zip(want.chunks(width)).try_for_each(|(got, want)| compare(got, want, RANDOM_MAX_ABS, &worst))
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(activations.borrow().len(), Activation::ALL.len(), "not every activation was drawn: {:?}", activations.borrow());
    let missing: Vec<_> = WORDS.iter().filter(|word| !met.borrow().contains(*word)).collect();
    assert!(missing.is_empty(), "never drawn: {missing:?}");
    println!("random networks: with the kernels a row differs by at most {:.3e}", *worst.borrow());
}

#[test]
fn vectors_are_pooled_and_finished_on_the_device() {
    let mut seeds = (0..).map(drawn::draw).map(|drawn| drawn.unwrap_or_else(|error| panic!("{error}")).network);
    let network = seeds.find(|network| network.layers.len() == 2 && network.adapters == 0).expect("drawn soon");
    let numbers: Vec<f32> = (0..5 * network.width).map(|at| (at * 37 % 101) as f32 / 50. - 1.).collect();
    let dense = Weight::from_f32("dense", &[5, network.width], &numbers).expect("fills its shape");
    let texts: Vec<Tokens> =
        [3, 1, MAX_TOKENS, 3, 20].map(|len| Tokens::whole((0..len as u32).map(|at| at * 11 % VOCABULARY as u32).collect())).into();
    let (batch, worst) = (Packed::new(&texts), RefCell::new(0f32));
    for mode in Mode::ALL {
        let vectors = |place: &Place| {
            let stages = Stages::of_one_file(mode, std::slice::from_ref(&dense), network.width).unwrap_or_else(|error| panic!("{error}"));
            let pipeline = Pipeline::new(network.clone(), stages, place).unwrap_or_else(|error| panic!("{error}"));
            pipeline.encode(&batch).unwrap_or_else(|error| panic!("{error}"))
        };
        let (got, want) = (vectors(&place(DType::F32)), vectors(&Place::reference()));
        assert_eq!(got.len(), want.len());
        for (got, want) in got.chunks(5).zip(want.chunks(5)) {
            compare(got, want, RANDOM_MAX_ABS, &worst).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        }
    }
}

/// Ragged texts for a checkpoint: short, equal, and as long as it takes up to a bit more than two portions of attention.
fn ragged(network: &Network) -> Packed {
    let (most, vocabulary) = (network.max_tokens.min(150), network.vocabulary() as u32);
    let lens = [1, 5, most, 5, 17.min(most), most / 2 + 1];
    let text = |(index, len): (usize, usize)| Tokens::whole((0..len as u32).map(|at| (at * 7 + index as u32 * 13) % vocabulary).collect());
    Packed::new(&lens.into_iter().enumerate().map(text).collect::<Vec<_>>())
}

/// How far rows are from the reference on average: one minus the cosine.
fn distance(got: &[f32], want: &[f32], width: usize) -> f64 {
    let rows = got.chunks(width).zip(want.chunks(width));
    let sum: f64 = rows.map(|(got, want)| if got == want { 0. } else { 1. - cosine(got, want) }).sum();
    sum / (got.len() / width) as f64
}

#[test]
fn every_checkpoint_computes_the_same_with_the_kernels() {
    // In f16 rounding alone takes the plain operations some way from f32 too, on small random weights further than on trained ones: the kernels may
    // go four times as far, for which way a sum is rounded is luck. bf16 has three bits less,
    // so each difference is 8 times and a cosine's distance 64 times as large.
    let mut tried = 0;
    for dir in vecmill::encoders::architectures().flat_map(tiny) {
        let (name, network) = (dir.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&dir).display(), description(&dir));
        let (batch, width) = (ragged(&network), network.width);
        let want = hidden(&executor(&network), &batch);
        let of = |executor: &TensorExecutor| distance(&hidden(executor, &batch), &want, width);
        let f32s = of(&fused(&network, DType::F32));
        assert!(f32s <= 1e-6, "{name} in f32: {f32s}");
        println!("{name}: 1 - cosine is {f32s:.1e} in f32");
        tried += 1;
        // Attention that is no kernel: Candle multiplies bf16 on no processor.
        if place(DType::Bf16).device.is_cpu() && network.layers.iter().any(|layer| matches!(layer.attention.bias, PositionBias::Disentangled(_))) {
            continue;
        }
        let [f16s, bf16s] = [DType::F16, DType::Bf16].map(|dtype| of(&fused(&network, dtype)));
        let plain = TensorExecutor::new(&network, &Place::new(candle_core::Device::Cpu, DType::F16)).unwrap_or_else(|error| panic!("{error}"));
        let plain = of(&plain);
        println!("{name}: 1 - cosine is {f16s:.1e} in f16 ({plain:.1e} with plain operations), {bf16s:.1e} in bf16");
        assert!(f16s <= 4. * plain + 1e-6, "{name} in f16: {f16s}, plain {plain}");
        assert!(bf16s <= 64. * (4. * plain + 1e-6), "{name} in bf16: {bf16s}, plain in f16 {plain}");
    }
    assert!(tried >= 20, "only {tried} checkpoints");
}
