//! What concerns checkpoints of every family: the forms in which they come, and that nothing of them can be left out unseen.

use crate::damage::Copy;
use crate::models::{Model, exact, tiny};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vecmill::encoders::{architectures, describe, json::Json};
use vecmill::network::WeightTable;

#[test]
fn the_relatives_of_bert_refuse_other_networks() {
    for (architecture, name, field, value) in [
        ("roberta", "old-cls-prefix", "is_decoder", json!(true)),
        ("roberta", "old-cls-prefix", "position_embedding_type", json!("relative_key")),
        ("roberta", "old-cls-prefix", "pad_token_id", json!(1u64 << 33)),
        ("xlm-roberta", "new-mean-bf16", "add_cross_attention", json!(true)),
        ("distilbert", "old-mean", "pruned_heads", json!({"0": [1]})),
        ("distilbert", "old-mean", "n_heads", json!(3)),
        ("distilbert", "old-mean", "activation", json!("gelu_10")),
        ("mpnet", "old-mean", "relative_attention_num_buckets", json!(64)),
        ("electra", "old-mean-projected", "embedding_size", json!(0)),
        ("albert", "old-mean-shared", "num_hidden_layers", json!(1u64 << 60)),
        ("albert", "old-mean-shared", "num_hidden_groups", json!(0)),
        ("albert", "old-mean-shared", "inner_group_num", json!(0)),
    ] {
        let copy = Copy::of_architecture(architecture, name);
        copy.set("config.json", field, value);
        let message = copy.refusal(&exact()).to_string();
        assert!(message.contains("config.json") && message.contains(field), "{message}");
    }
    for (architecture, name, field, value, tensor) in [
        ("mpnet", "old-mean", "num_attention_heads", 2, "encoder.relative_attention_bias.weight"),
        ("electra", "old-mean-projected", "embedding_size", 32, "electra.embeddings.word_embeddings.weight"),
        ("albert", "old-mean-shared", "num_hidden_groups", 2, "encoder.albert_layer_groups.1.albert_layers.0.attention.query.weight"),
        ("albert", "old-mean-shared", "inner_group_num", 2, "encoder.albert_layer_groups.0.albert_layers.1.attention.query.weight"),
    ] {
        let copy = Copy::of_architecture(architecture, name);
        copy.set("config.json", field, json!(value));
        let message = copy.refusal(&exact()).to_string();
        assert!(message.contains("model.safetensors") && message.contains(tensor), "{message}");
    }
}

#[test]
fn layers_that_are_shared_are_held_once() {
    let weight_bytes = |layers: u64| {
        let copy = Copy::of_architecture("albert", "old-mean-shared");
        copy.set("config.json", "num_hidden_layers", json!(layers));
        Model::load(copy.dir.path()).loaded.info.weight_bytes
    };
    assert_eq!(weight_bytes(2), weight_bytes(12));
}

/// The directory of a checkpoint's encoder, and its safetensors files.
fn encoder_files(dir: &Path) -> (PathBuf, Vec<PathBuf>) {
    let encoder = Model::load(dir).loaded.info.tokenizer_dir;
    let entries = std::fs::read_dir(&encoder).expect("readable").map(|entry| entry.expect("readable").path());
    let weights = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "safetensors") && !path.ends_with("reference.safetensors");
    let mut files: Vec<PathBuf> = entries.filter(weights).collect();
    files.sort();
    (encoder, files)
}

/// A JSON file; null if it is not there.
fn json_of(path: &Path) -> Value {
    std::fs::read(path).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).expect("JSON"))
}

#[test]
fn every_form_of_checkpoint_is_among_the_small_ones() {
    let mut met = BTreeSet::new();
    for dir in architectures().flat_map(tiny) {
        let (encoder, files) = encoder_files(&dir);
        met.insert(if files.len() > 1 { "sharded by an index" } else { "one file" });
        for file in &files {
            let bytes = std::fs::read(file).expect("readable");
            for (name, view) in SafeTensors::deserialize(&bytes).expect("safetensors").iter() {
                met.insert(match view.dtype() {
                    Dtype::F32 => "f32",
                    Dtype::F16 => "f16",
                    Dtype::BF16 => "bf16",
                    _ => continue,
                });
                if name.ends_with("word_embeddings.weight") {
                    met.insert(if name.starts_with("embeddings.") { "without a prefix" } else { "with a prefix" });
                }
                if name.ends_with("LayerNorm.gamma") {
                    met.insert("gamma and beta");
                }
            }
        }
        if encoder != dir {
            met.insert("transformer in a subfolder");
        }
        let class = json_of(&dir.join("modules.json"))[1]["type"].as_str().unwrap_or_default().to_owned();
        met.insert(if class.starts_with("sentence_transformers.models.") { "old layout" } else { "new layout" });
        let length = json_of(&encoder.join("sentence_bert_config.json"))["max_seq_length"].is_null();
        met.insert(if length { "length from the tokenizer" } else { "length of its own" });
        met.insert(match json_of(&encoder.join("tokenizer.json"))["model"]["type"].as_str() {
            Some("WordPiece") => "WordPiece",
            Some("BPE") => "BPE",
            Some("Unigram") => "Unigram",
            _ => "vocabulary only",
        });
    }
    let all = [
        "BPE",
        "Unigram",
        "WordPiece",
        "bf16",
        "f16",
        "f32",
        "gamma and beta",
        "length from the tokenizer",
        "length of its own",
        "new layout",
        "old layout",
        "one file",
        "sharded by an index",
        "transformer in a subfolder",
        "vocabulary only",
        "with a prefix",
        "without a prefix",
    ];
    let missing: Vec<_> = all.iter().filter(|form| !met.contains(*form)).collect();
    assert!(missing.is_empty(), "no small checkpoint has the form: {missing:?}");
}

/// A tensor that is not there stops the load, unless the description has no place for it (a pooler, a head) or it is there twice (tied tables).
#[test]
fn no_tensor_can_be_left_out_unseen() {
    for dir in architectures().flat_map(tiny) {
        let (encoder, files) = encoder_files(&dir);
        // Only a table of vectors may do without.
        let Some(config) = Json::read(&encoder.join("config.json")).unwrap_or_else(|error| panic!("{error}")) else { continue };
        let bytes: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("readable")).collect();
        let shards: Vec<SafeTensors> = bytes.iter().map(|bytes| SafeTensors::deserialize(bytes).expect("safetensors")).collect();
        let described = |without: &str| {
            let mut table = WeightTable::new("checkpoint");
            let kept = shards.iter().flat_map(SafeTensors::iter).filter(|(name, _)| *name != without);
            let file = safetensors::serialize(kept, None).expect("safetensors");
            table.add("checkpoint", Arc::new(file))?;
            describe(&config, &table).map(|(_, network)| network)
        };
        let whole = described("").unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        if whole.layers.is_empty() {
            // A table of vectors is what it has: weights and a map beside it may be there or not.
            continue;
        }
        let twice = |name: &str| {
            let data = |of: &str| shards.iter().find_map(|shard| shard.tensor(of).ok()).map(|tensor| tensor.data());
            shards.iter().flat_map(|shard| shard.names()).any(|other| other != name && data(other) == data(name))
        };
        for name in shards.iter().flat_map(|shard| shard.names()).filter(|name| !twice(name)) {
            match described(name) {
                Ok(less) => assert_eq!(format!("{less:?}"), format!("{whole:?}"), "{}: without {name} it is another network", dir.display()),
                Err(error) => assert!(error.to_string().starts_with("checkpoint: tensor `"), "{}: without {name}: {error}", dir.display()),
            }
        }
    }
}
