//! Decoders as encoders: what their checkpoints may say and what is refused, the end token of checkpoints with code of their own, and numbers too
//! large for f16.

use crate::models::{exact, tiny};
use serde_json::{Value, json};
use std::path::Path;
use vecmill::engine::load::{DType, LoadError, Loaded, Options, load_dir};
use vecmill::ragged::Packed;
use vecmill::service::tokenizer::TextEncoder;
use vecmill::wire::Truncate;

/// A copy of a committed checkpoint with fields of one of its JSON files set.
fn edited(checkpoint: &str, file: &str, fields: Value) -> tempfile::TempDir {
    let (architecture, name) = checkpoint.split_once('/').expect("architecture/name");
    let from = tiny(architecture).into_iter().find(|dir| dir.ends_with(name)).expect("a committed checkpoint");
    let dir = tempfile::tempdir().expect("a directory");
    copy(&from, dir.path());
    let path = dir.path().join(file);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    json.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    std::fs::write(path, json.to_string()).expect("writable");
    dir
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("named"));
        if path.is_dir() { copy(&path, &target) } else { std::fs::copy(&path, &target).map(|_| ()).expect("copied") }
    }
}

fn open(checkpoint: &str, fields: Value) -> Result<Loaded, LoadError> {
    load_dir(edited(checkpoint, "config.json", fields).path(), &exact())
}

fn vector(checkpoint: &str, fields: Value, text: &str) -> Vec<f32> {
    let dir = edited(checkpoint, "config.json", fields);
    let loaded = load_dir(dir.path(), &exact()).expect("loads");
    let tokens = TextEncoder::load(&loaded.info).expect("a tokenizer").encode(text, "", Truncate::None, 999).expect("tokens");
    loaded.pipeline.encode(&Packed::new([&tokens])).expect("computes")
}

#[test]
fn what_is_not_computed_is_refused_by_its_field() {
    for (checkpoint, field, value, words) in [
        ("qwen3/old-last-embedding", "use_bidirectional_attention", json!(true), "Gemma only"),
        ("llama/old-last-llama3", "use_bidirectional_attention", json!(true), "Gemma only"),
        ("qwen3/old-last-embedding", "attn_logit_softcapping", json!(50.0), "capped scores"),
        ("gemma3_text/new-embedding", "attn_logit_softcapping", json!(50.0), "capped scores"),
        ("gemma3_text/new-embedding", "is_causal", json!(false), "unclear"),
        ("gemma3_text/new-embedding", "sliding_window", json!(null), "null"),
        ("gemma3_text/new-embedding", "rope_local_base_freq", json!(0), "above 0"),
        ("gemma3_text/new-embedding", "layer_types", json!(["full_attention"]), "names 1 layers of 4"),
        ("gemma3_text/old-last-bf16-causal", "rope_parameters", json!({"rope_type": "default"}), "not a kind of layer"),
        ("llama/old-last-llama3", "partial_rotary_factor", json!(0.5), "must be 1"),
        ("llama/old-last-llama3", "rope_scaling", json!({"rope_type": "default", "partial_rotary_factor": 0.5}), "must be 1"),
        ("llama/old-last-llama3", "architectures", json!(["LlamaBidirectionalModel"]), "llama_bidirec"),
        ("llama/old-last-llama3", "num_key_value_heads", json!(3), "do not divide"),
        ("llama/old-last-llama3", "head_dim", json!(7), "in pairs"),
        ("llama/old-last-llama3", "auto_map", json!({"AutoModel": "modeling_x.Model"}), "not run"),
        ("mistral/old-last-window-sharded", "layer_types", json!(["full_attention", "full_attention"]), "not read"),
        ("mistral/old-last-window-sharded", "sliding_window", json!(0), "at least 1"),
        ("qwen2/old-last-f16-prefix", "layer_types", json!(["full_attention", "sliding_attention"]), "no window"),
        ("qwen2/old-last-f16-prefix", "layer_types", json!(["full_attention", "chunked_attention"]), "chunked_attention"),
        ("qwen2/old-last-f16-prefix", "auto_map", json!({"AutoModel": "modeling_qwen.Qwen2Model"}), "must be false"),
        ("qwen2/old-last-f16-prefix", "hidden_act", json!("xielu"), "xielu"),
        ("qwen2/old-last-f16-prefix", "rope_scaling", json!({"type": "mrope"}), "mrope"),
    ] {
        let error = open(checkpoint, json!({field: value})).map(|_| ()).expect_err(field).to_string();
        let named = if field == "auto_map" && words == "must be false" { "is_causal" } else { field.trim_start_matches("rope_scaling") };
        assert!(error.contains("config.json") && error.contains(named) && error.contains(words), "{checkpoint}: {error}");
    }
}

/// A field that is left out means what the configuration class in transformers says, also where that differs from `null`.
#[test]
fn masks_and_windows_are_what_the_configuration_says() {
    let text = "the cat sat on the mat, and the other cat sat on the other mat, and hello world said the cat";
    let window = |window: Value| vector("mistral/old-last-window-sharded", json!({"sliding_window": window}), text);
    let (nine, none) = (window(json!(9)), window(json!(null)));
    assert!(nine != none && window(json!(999)) == none);
    let both_ways = |value: bool| vector("llama/old-last-llama3", json!({"is_causal": value}), text);
    assert!(both_ways(false) != both_ways(true));
    let gemma = |value: bool| vector("gemma3_text/new-embedding", json!({"use_bidirectional_attention": value}), text);
    assert!(gemma(false) != gemma(true));
    let qwen = |fields: Value| vector("qwen2/new-last-bidirectional-dynamic", fields, text);
    assert_eq!(qwen(json!({"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}})), qwen(json!({})));
}

/// gte-Qwen2 and its kin append the end token in code of their own, not in tokenizer.json.
#[test]
fn an_end_token_that_only_the_tokenizers_code_appends() {
    let ids = |config: Value| {
        let dir = edited("qwen2/old-last-f16-prefix", "tokenizer_config.json", config);
        let path = dir.path().join("tokenizer.json");
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
        json["post_processor"] = Value::Null;
        std::fs::write(path, json.to_string()).expect("writable");
        let loaded = load_dir(dir.path(), &exact()).expect("loads");
        TextEncoder::load(&loaded.info)
            .map(|encoder| encoder.encode("a", "", Truncate::None, 9).expect("tokens").ids)
            .map_err(|error| error.to_string())
    };
    let map = |class: &str| json!({"AutoTokenizer": [format!("{class}"), format!("{class}Fast")]});
    let qwen = "tokenization_qwen.Qwen2Tokenizer";
    let eos = "<|im_end|>";
    assert_eq!(ids(json!({})), Ok(vec![64]));
    assert_eq!(ids(json!({"auto_map": map(qwen), "add_eos_token": false})), Ok(vec![64]));
    assert_eq!(ids(json!({"auto_map": map(qwen), "add_eos_token": true, "eos_token": eos})), Ok(vec![64, 312]));
    assert_eq!(
        ids(json!({"auto_map": map(&format!("owner/repo--{qwen}")), "add_eos_token": true, "eos_token": {"content": eos}})),
        Ok(vec![64, 312])
    );
    let unknown = ids(json!({"auto_map": map("tokenization_x.X")})).expect_err("unknown code");
    assert!(unknown.contains("auto_map") && unknown.contains("not run"), "{unknown}");
    let missing = ids(json!({"auto_map": map(qwen), "add_eos_token": true, "eos_token": "<none>"})).expect_err("no such token");
    assert!(missing.contains("eos_token"), "{missing}");
}

/// Qwen3 and Gemma 3 are known for activations that f16 cannot hold: bf16 must compute them. The embeddings and what writes to the stream
/// are made so large that the stream passes 65,504, the end of f16, while norms keep what is read from it small.
#[test]
fn bf16_holds_activations_that_f16_cannot() {
    for (checkpoint, parts, factor) in [
        ("qwen3/old-last-embedding", ["embed_tokens", "down_proj", "o_proj"], 20_000.),
        ("gemma3_text/new-embedding", ["embed_tokens", "post_attention_layernorm", "post_feedforward_layernorm"], 20_000.),
    ] {
        let dir = edited(checkpoint, "config.json", json!({}));
        grow(&dir.path().join("model.safetensors"), &parts, factor);
        let load = |dtype| load_dir(dir.path(), &Options { dtype: Some(dtype), ..exact() }).expect("loads");
        let exact = load(DType::F32);
        let tokens = ["the cat sat on the mat.", "a", "hello world"]
            .map(|text| TextEncoder::load(&exact.info).expect("a tokenizer").encode(text, "", Truncate::None, 99).expect("tokens"));
        let batch = Packed::new(&tokens);
        let want = exact.pipeline.encode(&batch).expect("computes");
        let near = load(DType::Bf16).pipeline.encode(&batch).expect("computes");
        assert!(near.iter().all(|number| number.is_finite()), "{checkpoint}");
        let dim = exact.pipeline.dim();
        for (want, near) in want.chunks_exact(dim).zip(near.chunks_exact(dim)) {
            assert!(crate::models::cosine(want, near) > 0.99, "{checkpoint}: {}", crate::models::cosine(want, near));
        }
        // The test would show nothing if f16 could hold them too.
        let f16 = load(DType::F16).pipeline.encode(&batch);
        assert!(f16.is_err() || f16.is_ok_and(|vectors| vectors.iter().any(|number| !number.is_finite())), "{checkpoint}: f16 holds it");
    }
}

/// Multiplies what writes to the residual stream: each number stays within f16, their sums do not.
fn grow(path: &Path, parts: &[&str], factor: f32) {
    let bytes = std::fs::read(path).expect("readable");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensors: Vec<_> = file
        .iter()
        .map(|(name, view)| {
            let factor = if parts.iter().any(|part| name.contains(part)) { factor } else { 1. };
            let data: Vec<u8> = view.data().as_chunks().0.iter().flat_map(|bytes| (f32::from_le_bytes(*bytes) * factor).to_le_bytes()).collect();
            (name.to_owned(), view.shape().to_vec(), data)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).expect("a tensor"))
    });
    std::fs::write(path, safetensors::serialize(views, None).expect("safetensors")).expect("writable");
}
