//! What must hold for every checkpoint whatsoever: it loads or is refused. Called by the fuzzer, and by the test on its corpus.

use std::path::Path;
use vecmill::engine::load::{DType, Device, Options, load_dir};
use vecmill::ragged::{Packed, Tokens};
use vecmill::service::tokenizer::TextEncoder;
use vecmill::wire::Truncate;

/// The files a checkpoint may have. The bytes are a list of (index into this list, length as u32 little-endian, content).
pub const FILES: [&str; 17] = [
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
    "model.safetensors",
    "model.safetensors.index.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "3_Normalize/config.json",
    "2_LayerNorm/config.json",
    "2_LayerNorm/model.safetensors",
    "3_Dense/config.json",
    "3_Dense/model.safetensors",
];

/// Lays the files out and loads them; what loads must also tokenise and compute. Returns whether it loaded.
///
/// # Panics
/// Only if the loader does, which is what is looked for.
pub fn check(data: &[u8]) -> bool {
    let Ok(dir) = tempfile::tempdir() else { return false };
    unpack(data, dir.path());
    let options = Options { device: Device::Cpu, dtype: Some(DType::F32), ..Options::default() };
    let Ok(loaded) = load_dir(dir.path(), &options) else { return false };
    let Ok(encoder) = TextEncoder::load(&loaded.info) else { return false };
    let texts = ["", "The cat sat.", "[MASK] \u{e9}\u{65e5} 123"];
    let encode = |text: &&str| encoder.encode(text, "query: ", Truncate::End, loaded.info.max_tokens).ok();
    let tokens: Vec<Tokens> = texts.iter().filter_map(encode).collect();
    let _ = loaded.pipeline.encode(&Packed::new(&tokens));
    true
}

fn unpack(mut data: &[u8], dir: &Path) {
    while let Some(([index, a, b, c, d], rest)) = data.split_first_chunk() {
        let len = (u32::from_le_bytes([*a, *b, *c, *d]) as usize).min(rest.len());
        let (content, rest) = rest.split_at(len);
        let path = dir.join(FILES[usize::from(*index) % FILES.len()]);
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = std::fs::write(path, content);
        data = rest;
    }
}
