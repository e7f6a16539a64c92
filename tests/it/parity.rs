//! Our vectors against sentence-transformers': golden texts on the real model, and every committed small checkpoint.

use crate::models::{Model, cosine, max_abs_diff, real_minilm};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

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
            worst = (worst.0.min(cosine), worst.1.max(diff));
        }
    }
    println!("{} golden texts: min cosine {:.9}, max abs error {:.3e}", texts.len(), worst.0, worst.1);
}
