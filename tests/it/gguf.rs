//! Models in one GGUF file: vectors and ids of small ones against the reference, and broken or hostile files, which are refused by name.

use crate::models::{cosine, exact, max_abs_diff};
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::{Device, Tensor};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vecmill::engine::load::{LoadError, Loaded, Options, one_file};
use vecmill::ragged::{Packed, Tokens};
use vecmill::service::tokenizer::TextEncoder;
use vecmill::wire::Truncate;

#[derive(serde::Deserialize)]
struct Reference {
    max_tokens: usize,
    dim: usize,
    /// What `--pooling` must say, or nothing.
    pooling: String,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gguf")
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "gguf")).collect();
    files.sort();
    files
}

fn options(pooling: &str) -> Options {
    Options { pooling: (!pooling.is_empty()).then(|| pooling.to_owned()), ..exact() }
}

fn open(path: &Path, pooling: &str) -> Result<(Loaded, TextEncoder), LoadError> {
    let loaded = one_file::load(path, &options(pooling))?;
    let encoder = TextEncoder::load(&loaded.info)?;
    Ok((loaded, encoder))
}

/// Largest difference allowed to the components of vectors of unit length.
const MAX_ABS: f32 = 5e-6;

#[test]
fn every_small_file_equals_the_reference() {
    let files = files();
    assert!(files.len() >= 8, "{files:?}");
    for path in files {
        let name = path.display();
        let reference: Reference = serde_json::from_slice(&std::fs::read(path.with_extension("json")).expect("a reference")).expect("JSON");
        let vectors = std::fs::read(path.with_extension("safetensors")).expect("vectors");
        let vectors = safetensors::SafeTensors::deserialize(&vectors).expect("safetensors");
        let data = vectors.tensor("embeddings").expect("embeddings").data();
        let want: Vec<f32> = data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let (loaded, encoder) = open(&path, &reference.pooling).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((loaded.info.max_tokens, loaded.info.dimensions, loaded.info.normalized), (reference.max_tokens, reference.dim, true), "{name}");
        let texts: Vec<Tokens> = reference
            .cases
            .iter()
            .map(|case| {
                let tokens = encoder.encode(&case.text, "", Truncate::End, reference.max_tokens).expect("tokens");
                assert_eq!(tokens.ids, case.ids, "{name}: {:?}", case.text);
                tokens
            })
            .collect();
        let got = loaded.pipeline.encode(&Packed::new(&texts)).expect("computes");
        let mut worst = 0f32;
        for ((case, got), want) in reference.cases.iter().zip(got.chunks_exact(reference.dim)).zip(want.chunks_exact(reference.dim)) {
            let diff = max_abs_diff(got, want);
            assert!(diff <= MAX_ABS && cosine(got, want) >= 0.999999, "{name}: {:?}: off by {diff}", case.text);
            worst = worst.max(diff);
        }
        for (text, got) in texts.iter().zip(got.chunks_exact(reference.dim)) {
            let single = loaded.pipeline.encode(&Packed::new([text])).expect("computes");
            assert!(max_abs_diff(&single, got) <= MAX_ABS, "{name}: a batch is not its texts alone");
        }
        println!("{name}: {} texts, max abs error {worst:.3e}", texts.len());
    }
}

#[derive(serde::Deserialize)]
struct Block {
    bytes: Vec<u8>,
    numbers: Vec<f32>,
}

#[test]
fn every_block_format_has_the_numbers_that_another_reader_finds() {
    use vecmill::network::Blocks::{Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
    let file = std::fs::read(folder().join("blocks.json")).expect("blocks.json");
    let drawn: BTreeMap<String, Block> = serde_json::from_slice(&file).expect("JSON");
    let formats = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K];
    assert_eq!(drawn.len(), formats.len());
    for format in formats {
        let want = &drawn[&format!("{format:?}")];
        assert_eq!((format.bytes(), format.numbers()), (want.bytes.len(), want.numbers.len()), "{format:?}");
        let got = format.decode(&want.bytes).expect("decodes");
        let size = want.numbers.iter().fold(0f32, |size, number| size.max(number.abs()));
        assert!(max_abs_diff(&got, &want.numbers) <= 1e-6 * size, "{format:?}");
    }
}

/// What a file holds, to be changed and written again.
struct Parts {
    meta: BTreeMap<String, Value>,
    tensors: BTreeMap<String, QTensor>,
}

fn parts(name: &str) -> Parts {
    let mut file = std::fs::File::open(folder().join(name)).expect("a file");
    let content = Content::read(&mut file).expect("a GGUF file");
    let tensor = |name: &String| (name.clone(), content.tensor(&mut file, name, &Device::Cpu).expect("a tensor"));
    Parts { tensors: content.tensor_infos.keys().map(tensor).collect(), meta: content.metadata.into_iter().collect() }
}

fn numbers(shape: &[usize], value: f32) -> QTensor {
    let tensor = Tensor::full(value, shape, &Device::Cpu).expect("a tensor");
    QTensor::quantize(&tensor, candle_core::quantized::GgmlDType::F32).expect("a tensor")
}

/// The sentence that refuses a file after a change.
fn refusal(name: &str, change: impl FnOnce(&mut Parts)) -> String {
    let mut parts = parts(name);
    change(&mut parts);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("changed.gguf");
    let meta: Vec<_> = parts.meta.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = parts.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(&path).expect("a file"), &meta, &tensors).expect("written");
    let error = open(&path, "").map(|_| ()).expect_err("must be refused").to_string();
    assert!(error.contains("changed.gguf"), "{error}");
    error
}

#[test]
fn metadata_that_is_missing_or_not_understood_is_named() {
    use Value::{Array, Bool, F32, String, U32};
    let text = |text: &str| String(text.to_owned());
    let is = |key: &'static str, value: Value| (key, Some(value));
    for (file, (key, value), words) in [
        ("bert-f32.gguf", ("general.architecture", None), "is missing"),
        ("bert-f32.gguf", is("general.architecture", text("mamba")), "known: bert"),
        ("bert-f32.gguf", is("general.alignment", U32(0)), "GGUF file"),
        ("bert-f32.gguf", ("bert.block_count", None), "is missing"),
        ("bert-f32.gguf", ("bert.context_length", None), "is missing"),
        ("bert-f32.gguf", is("bert.context_length", U32(2)), "tokens only"),
        ("qwen3-q8_0.gguf", is("qwen3.block_count", U32(u32::MAX)), "at most"),
        ("bert-f32.gguf", is("bert.block_count", text("two")), "whole number"),
        ("bert-f32.gguf", is("bert.attention.head_count", U32(3)), "do not divide"),
        ("bert-f32.gguf", is("bert.attention.head_count", Array(vec![U32(2), U32(4)])), "layer to layer"),
        ("bert-f32.gguf", is("bert.attention.layer_norm_epsilon", F32(f32::NAN)), "finite"),
        ("bert-f32.gguf", is("bert.attention.causal", Bool(true)), "must be false"),
        ("bert-f32.gguf", is("bert.logit_scale", F32(2.)), "not understood"),
        ("bert-f32.gguf", ("bert.pooling_type", None), "--pooling"),
        ("bert-f32.gguf", is("bert.pooling_type", U32(4)), "reranker"),
        ("bert-f32.gguf", is("bert.pooling_type", U32(9)), "not a pooling"),
        ("qwen3-q8_0.gguf", is("qwen3.attention.head_count_kv", U32(3)), "do not divide"),
        ("qwen3-q8_0.gguf", is("qwen3.attention.value_length", U32(8)), "must be 16"),
        ("qwen3-q8_0.gguf", is("qwen3.rope.dimension_count", U32(8)), "must be 16"),
        ("qwen3-q8_0.gguf", is("qwen3.rope.scaling.type", text("su")), "`su`"),
        ("qwen3-q8_0.gguf", is("qwen3.rope.scaling.type", text("yarn")), "original_context_length"),
        ("qwen3-q8_0.gguf", is("qwen3.attention.sliding_window", U32(4)), "not understood"),
        ("llama3-q8_0.gguf", is("llama.rope.scaling.type", text("yarn")), "original_context_length"),
        ("bert-f32.gguf", ("tokenizer.ggml.tokens", None), "is missing"),
        ("bert-f32.gguf", is("tokenizer.ggml.tokens", Array(vec![U32(1)])), "list of texts"),
        ("bert-f32.gguf", is("tokenizer.ggml.token_type", Array(vec![U32(1)])), "entries for"),
        ("bert-f32.gguf", is("tokenizer.ggml.bos_token_id", U32(1 << 20)), "tokens"),
        ("bert-f32.gguf", ("tokenizer.ggml.unknown_token_id", None), "is missing"),
        ("bert-f32.gguf", is("tokenizer.ggml.model", text("rwkv")), "`rwkv`"),
        ("qwen3-q8_0.gguf", is("tokenizer.ggml.pre", text("tekken")), "`tekken`"),
        ("qwen3-q8_0.gguf", is("tokenizer.ggml.merges", Array(vec![text("ab")])), "merges"),
        ("qwen3-q8_0.gguf", is("tokenizer.ggml.merges", Array(vec![text("no such-token")])), "not a tokenizer"),
        ("qwen3-q8_0.gguf", ("tokenizer.ggml.eos_token_id", None), "to be added"),
        ("llama-linear-bf16.gguf", ("tokenizer.ggml.scores", None), "is missing"),
    ] {
        let error = refusal(file, |parts| {
            // The only file that names no pooling would be refused for that first.
            if file.starts_with("llama") {
                parts.meta.insert("llama.pooling_type".to_owned(), U32(1));
            }
            match value {
                Some(value) => drop(parts.meta.insert(key.to_owned(), value)),
                None => drop(parts.meta.remove(key)),
            }
        });
        // What stands in the way may be another key, which is then in `words`.
        let others = ["alignment", "context_length", "type", "merges", "eos_token_id", "bos_token_id"];
        let name = key.rsplit('.').next().expect("a name");
        assert!(error.contains(words) && (error.contains(name) || others.contains(&name)), "{file} {key}: {error}");
    }
    let twice = refusal("bert-f32.gguf", |parts| {
        let Some(Array(tokens)) = parts.meta.get_mut("tokenizer.ggml.tokens") else { panic!("no tokens") };
        tokens[9] = tokens[8].clone();
    });
    assert!(twice.contains("as 8 and as 9"), "{twice}");
}

#[test]
fn tensors_that_are_wrong_are_named() {
    const QUERY: &str = "blk.0.attn_q.weight";
    for (words, change) in [
        ("is missing", (&|parts: &mut Parts| drop(parts.tensors.remove(QUERY))) as &dyn Fn(&mut Parts)),
        ("has shape [3, 5]", &|parts| drop(parts.tensors.insert(QUERY.to_owned(), numbers(&[3, 5], 1.)))),
        ("NaN", &|parts| {
            let shape = parts.tensors[QUERY].shape().dims().to_vec();
            parts.tensors.insert(QUERY.to_owned(), numbers(&shape, f32::NAN));
        }),
        ("not understood", &|parts| drop(parts.tensors.insert("blk.0.attn_q_norm.weight".to_owned(), numbers(&[4], 1.)))),
        ("not understood", &|parts| drop(parts.tensors.insert("cls.weight".to_owned(), numbers(&[4, 4], 1.)))),
        ("is missing", &|parts| drop(parts.tensors.remove("token_embd.weight"))),
        ("embedding table ends", &|parts| {
            let width = parts.tensors["token_embd.weight"].shape().dims()[1];
            parts.tensors.insert("token_embd.weight".to_owned(), numbers(&[9, width], 1.));
        }),
    ] {
        let error = refusal("bert-f32.gguf", change);
        assert!(error.contains(words), "{error}");
    }
}

/// The bytes of a file and the place behind a tensor's name in its header: number of dimensions, dimensions, format, offset.
fn entry(name: &str) -> (Vec<u8>, usize) {
    let bytes = std::fs::read(folder().join("bert-f32.gguf")).expect("a file");
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).expect("the tensor");
    (bytes, at + name.len())
}

fn outcome(bytes: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("broken.gguf");
    std::fs::write(&path, bytes).expect("writable");
    open(&path, "").map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn headers_that_claim_too_much_are_refused_before_anything_is_allocated() {
    let (bytes, at) = entry("blk.0.ffn_up.weight");
    let patched = |place: usize, value: u64| {
        let mut bytes = bytes.clone();
        bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
        outcome(&bytes).expect_err("must be refused")
    };
    // Magic and version are 8 bytes, then come the number of tensors and that of metadata.
    for (place, value) in [(8, u64::MAX), (8, 1 << 29), (16, u64::MAX), (16, 1 << 29), (24, u64::MAX), (24, 1 << 29)] {
        let error = patched(place, value);
        assert!(error.contains("broken.gguf") && error.contains("GGUF"), "{error}");
    }
    let (first, second, offset) = (at + 4, at + 12, at + 24);
    for (place, value) in
        [(first, u64::MAX), (second, u64::MAX), (first, 1 << 62), (first, 1 << 40), (offset, u64::MAX), (offset, 1 << 40), (offset, 1 << 20)]
    {
        let error = patched(place, value);
        assert!(error.contains("`blk.0.ffn_up.weight`") && error.contains("beyond the end"), "{error}");
    }
    assert!(patched(first, 0).contains("blk.0.ffn_up.weight"));
}

#[test]
fn a_file_that_was_cut_is_refused_wherever_it_ends() {
    let bytes = std::fs::read(folder().join("bert-f32.gguf")).expect("a file");
    assert_eq!(outcome(&bytes), Ok(()));
    for length in (1..bytes.len()).step_by(397).chain([1, 4, 8, 16, 24, bytes.len() - 1]) {
        let error = outcome(&bytes[..length]).expect_err("must be refused");
        assert!(error.contains("broken.gguf"), "{length}: {error}");
    }
    assert!(outcome(b"").is_err() && outcome(&[b"GGUF", [9; 60].as_slice()].concat()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_file_with_flipped_bytes_loads_or_is_refused(flips in proptest::collection::vec((0usize..28_000, any::<u8>()), 1..6)) {
        let mut bytes = std::fs::read(folder().join("bert-f32.gguf")).expect("a file");
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Err(error) = outcome(&bytes) {
            prop_assert!(error.contains("broken.gguf"), "{error}");
        }
    }
}
