//! Our vectors against sentence-transformers': golden texts on the real model, and every committed small checkpoint.

use crate::models::{self, Model, cosine, max_abs_diff, real_minilm, tiny};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use vecmill::engine::load::{DType, Options, load_dir};
use vecmill::engine::pipeline::ComputeError;
use vecmill::exec::{Place, tensor::TensorExecutor};
use vecmill::ragged::{Packed, Tokens};

/// Numbers of a safetensors file, by name.
fn numbers<const N: usize, T>(file: &[u8], name: &str, read: fn([u8; N]) -> T) -> Vec<T> {
    let tensors = SafeTensors::deserialize(file).expect("a safetensors file");
    let tensor = tensors.tensor(name).expect("the tensor");
    tensor.data().as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
}

#[derive(serde::Deserialize)]
struct Golden {
    weights_sha256: String,
    max_tokens: usize,
    items: Vec<Item>,
}

#[derive(serde::Deserialize)]
struct Item {
    text: String,
    tokens: usize,
    original_tokens: usize,
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2")
}

fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn golden() -> Golden {
    serde_json::from_slice(&read(golden_dir().join("golden.json"))).expect("golden.json")
}

#[test]
fn golden_vectors_belong_to_the_cached_weights() {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(read(real_minilm().join("model.safetensors")));
    assert_eq!(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), golden().weights_sha256);
}

#[test]
fn golden_vectors_belong_to_the_cards() {
    for card in vecmill::card::all() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(&card.name);
        let golden: Golden = serde_json::from_slice(&read(dir.join("golden.json"))).expect("golden.json");
        assert_eq!(card.file("model.safetensors").expect("the weights").sha256, golden.weights_sha256, "{}", card.name);
        let file = read(dir.join("golden.safetensors"));
        let vectors = numbers(&file, "embeddings", f32::from_le_bytes);
        assert_eq!(vectors.len(), golden.items.len() * card.dimensions, "{}", card.name);
        let tokens: usize = golden.items.iter().map(|item| item.tokens).sum();
        assert_eq!(numbers(&file, "ids", i32::from_le_bytes).len(), tokens, "{}", card.name);
    }
}

#[test]
fn golden_texts_through_the_server() {
    let golden = golden();
    let file = read(golden_dir().join("golden.safetensors"));
    let embeddings = numbers(&file, "embeddings", f32::from_le_bytes);
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("vecmill.toml");
    std::fs::write(&config, format!("[models.{:?}]\ntruncate = \"end\"\nempty_input = \"embed\"\n", crate::server::MINILM)).expect("a file");
    let server = crate::server::Server::start(&["--config", config.to_str().expect("UTF-8")]);
    let texts: Vec<&str> = golden.items.iter().map(|item| item.text.as_str()).collect();
    let (status, body) = server.embed(&serde_json::json!({"model": crate::server::MINILM, "input": texts}));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["data"]["usage"]["prompt_tokens"], golden.items.iter().map(|item| item.tokens).sum::<usize>());
    let answers = body["data"]["data"].as_array().expect("a list");
    for (((item, answer), vector), want) in golden.items.iter().zip(answers).zip(crate::server::vectors_of(&body)).zip(embeddings.chunks(384)) {
        assert!(cosine(&vector, want) >= 0.99999 && max_abs_diff(&vector, want) <= GOLDEN_MAX_ABS, "{:?}", item.text);
        let cut = (item.original_tokens > item.tokens).then_some(item.original_tokens);
        assert_eq!(answer.get("original_tokens").and_then(serde_json::Value::as_u64), cut.map(|tokens| tokens as u64), "{:?}", item.text);
    }
}

/// Largest difference allowed to a golden component; the vectors have unit length, so a component is about 0.05.
const GOLDEN_MAX_ABS: f32 = 5e-6;

#[test]
fn golden_texts_on_the_real_model() {
    let (golden, file) = (golden(), read(golden_dir().join("golden.safetensors")));
    let ids = numbers(&file, "ids", i32::from_le_bytes);
    let offsets = numbers(&file, "offsets", i32::from_le_bytes);
    let model = Model::load(&real_minilm());
    let dim = model.loaded.pipeline.dim();
    let embeddings = numbers(&file, "embeddings", f32::from_le_bytes);
    assert!(golden.items.len() >= 100, "{} golden texts", golden.items.len());
    assert_eq!((dim, model.loaded.info.max_tokens, embeddings.len()), (384, golden.max_tokens, golden.items.len() * 384));

    let texts: Vec<_> = golden.items.iter().map(|item| model.tokens(&item.text, "")).collect();
    for ((item, tokens), bounds) in golden.items.iter().zip(&texts).zip(offsets.windows(2)) {
        let want: Vec<u32> = ids[bounds[0] as usize..bounds[1] as usize].iter().map(|id| *id as u32).collect();
        assert_eq!(tokens.ids, want, "{:?}", item.text);
        assert_eq!((tokens.len(), tokens.original_len), (item.tokens, item.original_tokens), "{:?}", item.text);
    }
    let mut worst = (1f64, 0f32);
    // Batches of mixed lengths, as a server forms them.
    for (start, batch) in texts.chunks(29).enumerate().map(|(index, batch)| (index * 29, batch)) {
        for (index, vector) in model.vectors(batch).iter().enumerate() {
            let want = &embeddings[(start + index) * dim..][..dim];
            let (cosine, diff) = (cosine(vector, want), max_abs_diff(vector, want));
            assert!(cosine >= 0.99999, "{:?}: cosine {cosine}", golden.items[start + index].text);
            // The cosine alone would let another GELU pass.
            assert!(diff <= GOLDEN_MAX_ABS, "{:?}: off by {diff}", golden.items[start + index].text);
            worst = (worst.0.min(cosine), worst.1.max(diff));
        }
    }
    println!("{} golden texts: min cosine {:.9}, max abs error {:.3e}", texts.len(), worst.0, worst.1);
}

#[derive(serde::Deserialize)]
struct Reference {
    /// 0: the reference cuts nothing.
    max_tokens: usize,
    dim: usize,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
pub struct Case {
    pub text: String,
    pub prompt: String,
    ids: Vec<u32>,
    prompt_len: usize,
    /// Name of the task whose deltas it is computed with.
    #[serde(default)]
    adapter: Option<String>,
}

fn reference(dir: &Path) -> Reference {
    serde_json::from_slice(&read(dir.join("reference.json"))).expect("reference.json")
}

/// The reference texts of a committed checkpoint.
pub fn cases(dir: &Path) -> Vec<Case> {
    reference(dir).cases
}

/// Largest difference allowed to the reference's components, whose size is about 1: f32 rounding through two layers, with room.
pub const TINY_MAX_ABS: f32 = 2e-5;

#[test]
fn every_small_checkpoint_equals_the_reference() {
    for architecture in vecmill::encoders::architectures() {
        let dirs = tiny(architecture);
        assert!(!dirs.is_empty(), "{architecture} has no checkpoint in tests/it/tiny");
        for dir in dirs {
            let reference = reference(&dir);
            let embeddings = numbers(&read(dir.join("reference.safetensors")), "embeddings", f32::from_le_bytes);
            let model = Model::load(&dir);
            let info = &model.loaded.info;
            let max_tokens = if reference.max_tokens == 0 { info.position_limit } else { reference.max_tokens };
            assert_eq!((info.max_tokens, info.dimensions, info.architecture), (max_tokens, reference.dim, architecture), "{}", dir.display());
            let tokens = |case: &Case| {
                let adapter = case.adapter.as_ref().map(|name| info.adapters[name]);
                Tokens { adapter, ..model.tokens(&case.text, &case.prompt) }
            };
            let texts: Vec<_> = reference.cases.iter().map(tokens).collect();
            for (case, tokens) in reference.cases.iter().zip(&texts) {
                assert_eq!((&tokens.ids, tokens.prompt_len), (&case.ids, case.prompt_len), "{}: {:?} {:?}", dir.display(), case.prompt, case.text);
            }
            let mut worst = 0f32;
            for ((case, vector), want) in reference.cases.iter().zip(model.vectors(&texts)).zip(embeddings.chunks_exact(reference.dim)) {
                let diff = max_abs_diff(&vector, want);
                assert!(diff <= TINY_MAX_ABS, "{}: {:?} {:?}: off by {diff}", dir.display(), case.prompt, case.text);
                worst = worst.max(diff);
            }
            println!("{}: {} texts, max abs error {worst:.3e}", dir.file_name().expect("named").display(), texts.len());
        }
    }
}

/// candle-transformers' own BertModel, padded and masked, on the same weights.
#[test]
fn candle_bert_model_agrees_before_pooling() -> candle_core::Result<()> {
    use candle_core::{DType, Device, Tensor};
    use candle_transformers::models::bert::{BertModel, Config};
    let dir = real_minilm();
    let config: Config = serde_json::from_slice(&read(dir.join("config.json"))).expect("config.json");
    let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu)?;
    let oracle = BertModel::load(candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config)?;

    let model = Model::load(&dir);
    let texts = ["a", "Numbers of different lengths, side by side.", "", &"river bank ".repeat(40)].map(|text| model.tokens(text, ""));
    let longest = texts.iter().map(|text| text.len()).max().expect("texts");
    let (mut ids, mut mask) = (vec![0u32; texts.len() * longest], vec![0u32; texts.len() * longest]);
    for (row, text) in texts.iter().enumerate() {
        ids[row * longest..][..text.len()].copy_from_slice(&text.ids);
        mask[row * longest..][..text.len()].fill(1);
    }
    let ids = Tensor::from_vec(ids, (texts.len(), longest), &Device::Cpu)?;
    let mask = Tensor::from_vec(mask, (texts.len(), longest), &Device::Cpu)?;
    let hidden = oracle.forward(&ids, &ids.zeros_like()?, Some(&mask))?.to_vec3::<f32>()?;
    for ((text, vector), hidden) in texts.iter().zip(model.vectors(&texts)).zip(&hidden) {
        let mean: Vec<f32> = (0..384).map(|c| hidden[..text.len()].iter().map(|row| row[c]).sum::<f32>() / text.len() as f32).collect();
        let cosine = cosine(&vector, &mean);
        assert!(cosine >= 0.999999, "cosine {cosine}");
    }
    Ok(())
}

/// Half precision is something the operator turned on: near the reference, and the f32 it can fall back to is the f32 that is served elsewhere.
#[test]
fn half_precision_is_near_and_can_be_computed_again_in_f32() {
    // These networks have random weights, which amplify rounding: the reference itself, run in bf16, is at 0.9988 on one of them.
    for (dtype, least) in [(DType::Bf16, 0.998), (DType::F16, 0.9998)] {
        for dir in vecmill::encoders::architectures().flat_map(tiny) {
            let exact = Model::load(&dir);
            let texts = ["the cat sat on the mat.", "a", "hello world"].map(|text| exact.tokens(text, ""));
            let half = load_dir(&dir, &Options { dtype: Some(dtype), ..models::exact() }).unwrap_or_else(|error| panic!("{error}"));
            let (dim, batch) = (half.pipeline.dim(), Packed::new(&texts));
            assert_eq!((half.info.dtype, half.pipeline.dtype()), (dtype, dtype));
            let (bytes, exact_bytes) = (half.info.weight_bytes, exact.loaded.info.weight_bytes);
            match half.pipeline.fused() {
                // It keeps tables as they are stored, and norms in f32; on networks this small they are most of it.
                Ok(_) => assert!(bytes < exact_bytes, "{bytes} of {exact_bytes}"),
                // Half of what the same executor takes in f32: the fused one, which computed the exact vectors, fills panels up and keeps tables as stored.
                Err(_) => {
                    let network = half.pipeline.description().expect("kept beside what is not the reference");
                    let whole = TensorExecutor::new(network, &Place::reference()).expect("finite").weight_bytes();
                    assert!(bytes * 2 <= whole, "{bytes} of {whole}");
                }
            }
            let again = half.pipeline.encode_f32(&batch).expect("computes");
            let near = half.pipeline.encode(&batch).expect("computes");
            for ((want, again), near) in exact.vectors(&texts).iter().zip(again.chunks_exact(dim)).zip(near.chunks_exact(dim)) {
                assert!(max_abs_diff(want, again) <= TINY_MAX_ABS, "computed again, it is off by {}", max_abs_diff(want, again));
                assert!(want != near, "{dtype} computes in f32");
                assert!(cosine(want, near) > least, "{dtype} {}: cosine {}", dir.display(), cosine(want, near));
            }
        }
    }
}

#[test]
fn batches_the_model_cannot_take_are_errors() {
    let model = Model::load(&tiny("bert")[0]);
    let info = &model.loaded.info;
    let outcome = |ids: Vec<u32>| model.loaded.pipeline.encode(&Packed::new(&[Tokens::whole(ids)])).map(|vector| vector.len());
    assert!(matches!(outcome(vec![info.vocabulary as u32]), Err(ComputeError::Failed(_))));
    assert!(matches!(outcome(vec![1; info.position_limit + 1]), Err(ComputeError::Failed(_))));
    assert!(matches!(outcome(Vec::new()), Err(ComputeError::Failed(_))));
    assert_eq!(outcome(vec![1; info.position_limit]).ok(), Some(info.dimensions));
    assert_eq!(model.loaded.pipeline.encode(&Packed::new([])).ok(), Some(Vec::new()));
}
