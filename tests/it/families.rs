//! What some families ask of the server beyond their network: tasks chosen per request, tables without neighbours, siblings under other names.

use crate::models::{Model, exact, max_abs_diff, tiny};
use crate::server::{Server, command, vectors_of};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vecmill::engine::load::load_dir;
use vecmill::ragged::{Packed, Tokens};
use vecmill::service::tokenizer::TokenizeError;
use vecmill::wire::Truncate;

/// Largest difference allowed to a component of a vector of unit length.
const MAX_ABS: f32 = 1e-5;

fn checkpoint(architecture: &str, name: &str) -> PathBuf {
    tiny(architecture).into_iter().find(|dir| dir.ends_with(name)).expect("a committed checkpoint")
}

fn serve(dir: &Path, more: &[&str]) -> Server {
    let model = format!("m={}", dir.display());
    let common = ["--model", &model, "--dtype", "f32", "--device", "cpu", "--offline", "--port", "0", "--deadline-ms", "600000"];
    Server::spawn(command(&[&common[..], more].concat()))
}

/// The reference's vector of a text under a prompt and a task.
fn wanted(dir: &Path, text: &str, prompt: &str, adapter: Option<&str>) -> Vec<f32> {
    let read = |name: &str| std::fs::read(dir.join(name)).expect("readable");
    let reference: Value = serde_json::from_slice(&read("reference.json")).expect("JSON");
    let cases = reference["cases"].as_array().expect("a list");
    let fits = |case: &&Value| case["text"] == text && case["prompt"] == prompt && case["adapter"] == json!(adapter);
    let index = cases.iter().position(|case| fits(&case)).expect("a case");
    let file = read("reference.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
    let rows = tensors.tensor("embeddings").expect("there");
    let dim = rows.shape()[1];
    rows.data().as_chunks().0[index * dim..][..dim].iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn input_type_chooses_the_task_with_its_instruction() {
    const TEXT: &str = "Hello, World!";
    const QUERY: &str = "Represent the query for retrieving evidence documents: ";
    const PASSAGE: &str = "Represent the document for retrieval: ";
    let dir = checkpoint("jina_embeddings_v3", "hub-bf16-five-tasks");
    let server = serve(&dir, &[]);
    for (input_type, prompt, adapter) in [
        (None, "", None),
        (Some("retrieval.query"), QUERY, Some("retrieval.query")),
        (Some("query"), QUERY, Some("retrieval.query")),
        (Some("document"), PASSAGE, Some("retrieval.passage")),
        (Some("separation"), "", Some("separation")),
        (Some("text-matching"), "", Some("text-matching")),
    ] {
        let (status, body) = server.embed(&json!({"model": "m", "input": TEXT, "input_type": input_type}));
        assert_eq!(status, 200, "{body}");
        let diff = max_abs_diff(&vectors_of(&body)[0], &wanted(&dir, TEXT, prompt, adapter));
        assert!(diff <= MAX_ABS, "{input_type:?}: off by {diff}");
    }
    let (status, body) = server.embed(&json!({"model": "m", "input": TEXT, "input_type": "clustering"}));
    let message = body["error"]["details"][0]["message"].as_str().unwrap_or_default();
    assert_eq!((status, body["error"]["details"][0]["field"].as_str()), (422, Some("input_type")), "{body}");
    assert!(["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"].iter().all(|name| message.contains(name)));
}

#[test]
fn a_text_without_tokens_is_a_zero_vector_and_counted() {
    let server = serve(&checkpoint("static_embedding", "model2vec-normalised"), &[]);
    let (status, body) = server.embed(&json!({"model": "m", "input": [" \n ", "the cat"]}));
    assert_eq!(status, 200, "{body}");
    let vectors = vectors_of(&body);
    assert!(vectors[0].iter().all(|x| *x == 0.) && vectors[1].iter().any(|x| *x != 0.));
    assert_eq!(vectors_of(&server.embed(&json!({"model": "m", "input": "\t"})).1), [vec![0.; 24]], "alone as well");
    let (_, metrics) = server.get("/metrics");
    assert!(metrics.lines().any(|line| line.starts_with("vecmill_zero_vectors_total{") && line.ends_with(" 2")), "{metrics}");
}

#[test]
fn tables_average_no_tokens_to_zeros() {
    for dir in tiny("static_embedding") {
        let model = Model::load(&dir);
        for texts in [vec![Tokens::default(); 3], vec![Tokens::default(), Tokens::whole(vec![5, 6]), Tokens::default()]] {
            let vectors = model.vectors(&texts);
            for (text, vector) in texts.iter().zip(&vectors) {
                assert_eq!(vector.iter().all(|x| *x == 0.), text.is_empty(), "{}", dir.display());
            }
        }
    }
}

#[test]
fn model2vec_alone_leaves_unknown_tokens_out_and_bounds_characters() {
    let model = Model::load(&checkpoint("static_embedding", "model2vec-bare"));
    let limit = model.loaded.info.max_tokens;
    assert_eq!(limit, 512);
    let known = model.tokens("the cat", "");
    let unknown = model.tokens("the \u{2603} cat \u{2603}", "");
    assert_eq!((&unknown.ids, unknown.original_len, unknown.truncated()), (&known.ids, known.len(), false));
    // Blanks are characters, and no tokens.
    let long = format!("the{}cat", " ".repeat(20_000));
    let refused = model.encoder.encode(&long, "", Truncate::None, limit);
    let Err(TokenizeError::TooManyCharacters { characters: 20_006, limit: most }) = refused else { panic!("{refused:?}") };
    assert!(most >= limit && most.is_multiple_of(limit), "{most} characters");
    let cut = model.tokens(&long, "");
    assert_eq!((&cut.ids, cut.original_len, cut.truncated()), (&known.ids[..1].to_vec(), 2, true));
    assert_eq!(model.tokens(&"cat ".repeat(100), "").original_len, 100);
}

/// A copy of a checkpoint whose config.json has other words.
fn renamed(from: &Path, fields: Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = dir.path().join(path.file_name().expect("named"));
        if path.is_dir() {
            std::fs::create_dir(&target).expect("a directory");
            std::fs::copy(path.join("config.json"), target.join("config.json")).expect("copies");
        } else {
            std::fs::copy(&path, &target).expect("copies");
        }
    }
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    for (name, value) in fields.as_object().expect("an object") {
        config[name] = value.clone();
    }
    std::fs::write(&path, config.to_string()).expect("writable");
    dir
}

#[test]
fn mt5_is_the_gated_t5_under_another_name() {
    let t5 = checkpoint("t5", "new-mean-bf16-gated");
    let mt5 = renamed(&t5, json!({"model_type": "mt5", "architectures": ["MT5EncoderModel"], "feed_forward_proj": null, "dense_act_fn": null}));
    let batch = Packed::new(&[Tokens::whole(vec![3, 4, 5, 6, 1])]);
    let vectors = |dir: &Path| load_dir(dir, &exact()).unwrap_or_else(|error| panic!("{error}")).pipeline.encode(&batch).expect("computes");
    assert_eq!(vectors(mt5.path()), vectors(&t5));
}

#[test]
fn what_these_families_do_not_compute_is_refused_by_file_and_field() {
    let cases = [
        ("t5/old-mean-dense", json!({"feed_forward_proj": "gated-mish"}), "feed_forward_proj"),
        ("t5/old-mean-dense", json!({"dense_act_fn": "gelu"}), "dense_act_fn"),
        ("t5/old-mean-dense", json!({"is_gated_act": true}), "is_gated_act"),
        ("t5/old-mean-dense", json!({"is_decoder": true}), "is_decoder"),
        ("t5/old-mean-dense", json!({"model_type": "umt5"}), "model_type"),
        ("deberta-v2/old-mean-v3", json!({"model_type": "deberta"}), "model_type"),
        ("deberta-v2/old-mean-v3", json!({"architectures": ["DebertaModel"]}), "architectures"),
        ("deberta-v2/old-mean-v3", json!({"pos_att_type": "p2c|p2p"}), "pos_att_type"),
        ("deberta-v2/old-mean-v3", json!({"norm_rel_ebd": "batch_norm"}), "norm_rel_ebd"),
        ("deberta-v2/new-cls-f16-sharded-conv", json!({"conv_act": "mish"}), "conv_act"),
        ("deberta-v2/new-cls-f16-sharded-conv", json!({"conv_kernel_size": 4}), "conv_kernel_size"),
        ("deberta-v2/old-mean-v3", json!({"attention_head_size": 4}), "attention_head_size"),
        ("jina_embeddings_v3/hub-two-tasks", json!({"position_embedding_type": "absolute"}), "position_embedding_type"),
        ("jina_embeddings_v3/hub-two-tasks", json!({"lora_adaptations": null}), "lora_adaptations"),
        ("jina_embeddings_v3/hub-two-tasks", json!({"lora_adaptations": ["a", "a"]}), "lora_adaptations"),
        ("jina_embeddings_v3/hub-two-tasks", json!({"load_trained_adapters": false}), "load_trained_adapters"),
        ("jina_embeddings_v3/hub-two-tasks", json!({"task_instructions": {"b": ""}}), "task_instructions"),
        ("jina_embeddings_v3/hub-two-tasks", json!({"auto_map": {"AutoModel": "x--y.Z"}}), "auto_map"),
        ("static_embedding/model2vec-bare", json!({"max_length": 0}), "max_length"),
    ];
    for (checkpoint, fields, field) in cases {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tiny").join(checkpoint);
        let dir = renamed(&from, fields.clone());
        let message = load_dir(dir.path(), &exact()).map(|_| ()).expect_err("must be refused").to_string();
        assert!(message.contains("config.json") && message.contains(&format!("`{field}`")), "{fields}: {message}");
    }
}
