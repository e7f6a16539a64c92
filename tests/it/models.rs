//! The models that tests load: the real one that the first command cached, and small ones that are committed.

use std::path::{Path, PathBuf};
use vecmill::engine::load::{DType, Device, Loaded, Options, load_dir};
use vecmill::ragged::{Packed, Tokens};
use vecmill::service::tokenizer::TextEncoder;
use vecmill::wire::Truncate;

/// The directory of the real all-MiniLM-L6-v2.
pub fn real_minilm() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = var("VECMILL_CACHE_DIR").or_else(|| Some(var("XDG_CACHE_HOME")?.join("vecmill")));
    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache/vecmill")));
    let dir = cache.expect("neither VECMILL_CACHE_DIR nor a home directory is known").join("models/all-MiniLM-L6-v2");
    let weights = dir.join("model.safetensors");
    assert!(
        weights.exists(),
        "{} is missing. This test compares with the real model: run `cargo run --release -- pull all-MiniLM-L6-v2` once (or any `vecmill serve --model all-MiniLM-L6-v2`)",
        weights.display()
    );
    dir
}

/// The committed checkpoints of an architecture, each a directory. Cargo says at run time where the project lies; so does `scripts/gpu-check`, on a
/// machine where only these tests and their checkpoints are.
pub fn tiny(architecture: &str) -> Vec<PathBuf> {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let dir = root.join("tests/it/tiny").join(architecture);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut dirs: Vec<_> = entries.map(|entry| entry.expect("readable").path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    dirs
}

/// What tests ask for: exact, on the processor.
pub fn exact() -> Options {
    Options { device: Device::Cpu, dtype: Some(DType::F32), ..Options::default() }
}

/// A model with its tokenizer.
pub struct Model {
    pub loaded: Loaded,
    pub encoder: TextEncoder,
}

impl Model {
    /// Loads both, exactly.
    pub fn load(dir: &Path) -> Self {
        let loaded = load_dir(dir, &exact()).unwrap_or_else(|error| panic!("{error}"));
        let encoder = TextEncoder::load(&loaded.info).unwrap_or_else(|error| panic!("{error}"));
        Self { loaded, encoder }
    }

    /// The ids of a text, cut at the end to the model's length.
    pub fn tokens(&self, text: &str, prompt: &str) -> Tokens {
        self.encoder.encode(text, prompt, Truncate::End, self.loaded.info.max_tokens).expect("may be cut")
    }

    /// The vectors of texts computed as one batch.
    pub fn vectors(&self, texts: &[Tokens]) -> Vec<Vec<f32>> {
        let flat = self.loaded.pipeline.encode(&Packed::new(texts)).expect("computes");
        flat.chunks_exact(self.loaded.pipeline.dim()).map(<[f32]>::to_vec).collect()
    }
}

/// Cosine of two vectors, in f64.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The largest difference of two vectors' components.
pub fn max_abs_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0., f32::max)
}
