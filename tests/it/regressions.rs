//! Mistakes that embedding servers are known for, each held by a test of its name. Held elsewhere: vectors that depend on their batch (law.rs),
//! causal or windowed masks, biases and activations that go unnoticed (mutation.rs), texts that are cut silently (contract.rs), vectors that overflow
//! in half precision (the engine's own tests), prompts that the checkpoint names as its default (the registry's own tests).

use crate::damage::{Copy, refused};
use crate::models::{Model, cosine, max_abs_diff};
use crate::mutation::{description, executor};
use serde_json::{Value, json};
use vecmill::ragged::Packed;

const TEXTS: [&str; 3] = ["the cat sat on the mat.", "hello world", "a"];

fn vectors(copy: &Copy, prompt: &str) -> Vec<Vec<f32>> {
    let model = Model::load(copy.dir.path());
    model.vectors(&TEXTS.map(|text| model.tokens(text, prompt)))
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt()
}

#[track_caller]
fn assert_near(got: &[Vec<f32>], want: &[Vec<f32>]) {
    for (got, want) in got.iter().zip(want) {
        let diff = max_abs_diff(got, want);
        assert!(diff < 1e-6, "off by {diff}");
    }
}

/// Sets what the second module of `bert/old-mean` pools by, as releases before 5.4 wrote it.
fn old_pooling(copy: &Copy, mode: &str) {
    let flags = ["cls_token", "mean_tokens", "max_tokens", "lasttoken"].map(|name| (format!("pooling_mode_{name}"), json!(name == mode)));
    let config: serde_json::Map<String, Value> = flags.into_iter().chain([("word_embedding_dimension".to_owned(), json!(16))]).collect();
    copy.write("1_Pooling/config.json", Value::Object(config).to_string());
}

/// The files as sentence-transformers writes them since 5.4: a server that looks for the old booleans pools by its own default.
#[test]
fn a_new_layout_is_pooled_as_it_says() {
    let mut all = Vec::new();
    for (old, new) in [("cls_token", "cls"), ("mean_tokens", "mean"), ("max_tokens", "max"), ("lasttoken", "lasttoken")] {
        let [before, since] = [Copy::of("old-mean"), Copy::of("old-mean")];
        old_pooling(&before, old);
        since.write("1_Pooling/config.json", json!({"embedding_dimension": 16, "pooling_mode": new, "include_prompt": true}).to_string());
        let classes = ["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling", "base.modules.normalize.Normalize"];
        for (index, class) in classes.iter().enumerate() {
            since.set("modules.json", &format!("/{index}/type"), json!(format!("sentence_transformers.{class}")));
        }
        let text = json!({"text": {"method": "forward", "method_output_name": "last_hidden_state"}});
        let settings = json!({"transformer_task": "feature-extraction", "modality_config": text, "module_output_name": "token_embeddings"});
        since.write("sentence_bert_config.json", settings.to_string());
        assert_eq!(Model::load(since.dir.path()).loaded.info.max_tokens, 32, "the length is the tokenizer's then");
        assert_eq!(vectors(&before, ""), vectors(&since, ""), "{new}");
        all.push(vectors(&since, "").remove(0));
    }
    for (index, one) in all.iter().enumerate() {
        assert!(all[..index].iter().all(|other| cosine(one, other) < 0.999), "the poolings cannot be told apart");
    }
}

/// The pooled vector of `bert/new-cls-dense` through its Dense by hand.
fn through_dense(copy: &Copy, pooled: &[f32]) -> Vec<f32> {
    let file = copy.read("2_Dense/model.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
    let numbers = |name: &str| -> Vec<f32> {
        tensors.tensor(name).expect("there").data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let (weight, bias) = (numbers("linear.weight"), numbers("linear.bias"));
    let rows = weight.chunks_exact(pooled.len()).zip(bias);
    rows.map(|(row, bias)| (row.iter().zip(pooled).map(|(w, x)| w * x).sum::<f32>() + bias).tanh()).collect()
}

/// `bert/new-cls-dense` with only these of its modules, in this order: 0 Transformer, 1 Pooling, 2 Dense, 3 Normalize.
fn with_modules(order: &[usize]) -> Copy {
    let copy = Copy::of("new-cls-dense");
    let modules: Vec<Value> = serde_json::from_slice(&copy.read("modules.json")).expect("a list");
    copy.write("modules.json", json!(order.iter().map(|index| &modules[*index]).collect::<Vec<_>>()).to_string());
    copy
}

fn unit(vector: &[f32]) -> Vec<f32> {
    vector.iter().map(|x| x / length(vector)).collect()
}

#[test]
fn a_dense_module_is_computed_and_not_ignored() {
    let pooled = vectors(&with_modules(&[0, 1]), "");
    let dense = with_modules(&[0, 1, 2]);
    let want: Vec<_> = pooled.iter().map(|pooled| through_dense(&dense, pooled)).collect();
    assert_eq!((pooled[0].len(), want[0].len()), (16, 12));
    assert_near(&vectors(&dense, ""), &want);
}

#[test]
fn a_dense_module_whose_weights_cannot_be_read_stops_the_start() {
    for damage in [None, Some("pytorch_model.bin")] {
        let copy = Copy::of("new-cls-dense");
        copy.remove("2_Dense/model.safetensors");
        if let Some(pickle) = damage {
            copy.write(&format!("2_Dense/{pickle}"), "PK");
        }
        let message = copy.refusal(&crate::models::exact()).to_string();
        assert!(message.contains("2_Dense") && message.contains(damage.unwrap_or("missing")), "{message}");
    }
    let copy = Copy::of("new-cls-dense");
    let mut weights = copy.read("2_Dense/model.safetensors");
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    copy.write("2_Dense/model.safetensors", weights);
    let message = copy.refusal(&crate::models::exact()).to_string();
    assert!(message.contains("2_Dense/model.safetensors: tensor `linear.weight`: holds NaN"), "{message}");
}

#[test]
fn normalize_stands_where_modules_json_puts_it() {
    let pooled = vectors(&with_modules(&[0, 1]), "");
    assert!(pooled.iter().all(|vector| (length(vector) - 1.).abs() > 0.1), "without a Normalize nothing is scaled");
    let before = with_modules(&[0, 1, 3, 2]);
    assert_near(&vectors(&before, ""), &pooled.iter().map(|pooled| through_dense(&before, &unit(pooled))).collect::<Vec<_>>());
    let after = with_modules(&[0, 1, 2, 3]);
    assert_near(&vectors(&after, ""), &pooled.iter().map(|pooled| unit(&through_dense(&after, pooled))).collect::<Vec<_>>());
    let both = with_modules(&[0, 1, 3, 2, 3]);
    assert_near(&vectors(&both, ""), &pooled.iter().map(|pooled| unit(&through_dense(&both, &unit(pooled)))).collect::<Vec<_>>());
    let normalized = |copy: &Copy| Model::load(copy.dir.path()).loaded.info.normalized;
    assert_eq!([normalized(&before), normalized(&after), normalized(&both)], [false, true, true]);
}

#[test]
fn the_padding_side_is_no_part_of_a_vector() {
    for mode in ["cls_token", "mean_tokens", "lasttoken"] {
        let sides = ["left", "right"].map(|side| {
            let copy = Copy::of("old-mean");
            old_pooling(&copy, mode);
            copy.set("tokenizer_config.json", "padding_side", json!(side));
            let padding = json!({"strategy": "BatchLongest", "direction": if side == "left" { "Left" } else { "Right" }, "pad_to_multiple_of": 8,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
            copy.set("tokenizer.json", "padding", padding);
            let model = Model::load(copy.dir.path());
            let texts = TEXTS.map(|text| model.tokens(text, ""));
            let alone: Vec<_> = texts.iter().flat_map(|text| model.vectors(std::slice::from_ref(text))).collect();
            assert_near(&model.vectors(&texts), &alone);
            alone
        });
        assert_eq!(sides[0], sides[1], "{mode}");
    }
}

#[test]
fn gelu_is_erf_unless_config_json_says_tanh() {
    let with = |name: &str| {
        let copy = Copy::of("old-mean");
        copy.set("config.json", "hidden_act", json!(name));
        vectors(&copy, "")
    };
    let (erf, tanh) = (with("gelu"), with("gelu_new"));
    assert_eq!(erf, vectors(&Copy::of("old-mean"), ""), "the default");
    assert_eq!(erf, with("gelu_python"));
    for name in ["gelu_pytorch_tanh", "gelu_fast"] {
        assert_eq!(tanh, with(name), "{name}");
    }
    assert!(
        erf.iter().zip(&tanh).all(|(erf, tanh)| max_abs_diff(erf, tanh) > crate::parity::TINY_MAX_ABS),
        "the parity test could not tell them apart"
    );
    refused(&["config.json", "hidden_act", "quick_gelu"], |copy| copy.set("config.json", "hidden_act", json!("quick_gelu")));
}

#[test]
fn tokens_of_the_prompt_are_not_pooled_where_include_prompt_is_false() {
    const PROMPT: &str = "query: ";
    let copies = [true, false].map(|include| {
        let copy = with_modules(&[0, 1]);
        let config = json!({"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": include});
        copy.write("1_Pooling/config.json", config.to_string());
        copy
    });
    let model = Model::load(copies[0].dir.path());
    let executor = executor(&description(copies[0].dir.path()));
    // [CLS] query : and so on
    let skipped = 3;
    let means = [0, skipped].map(|skip| {
        TEXTS.map(|text| {
            let tokens = model.tokens(text, PROMPT);
            assert_eq!(tokens.prompt_len, skipped);
            let rows = executor.run(&Packed::new(std::slice::from_ref(&tokens))).and_then(|hidden| hidden.to_vec2::<f32>()).expect("computes");
            let rows = &rows[skip..];
            (0..16).map(|column| rows.iter().map(|row| row[column]).sum::<f32>() / rows.len() as f32).collect::<Vec<f32>>()
        })
    });
    for (copy, means) in copies.iter().zip(&means) {
        assert_near(&vectors(copy, PROMPT), means);
    }
    assert!(means[0].iter().zip(&means[1]).all(|(all, rest)| max_abs_diff(all, rest) > 1e-3));
    assert_near(&vectors(&copies[1], ""), &vectors(&copies[0], ""));
}

/// Prompts that only one of a server's APIs knows: clients of the other then embed queries as documents and nobody notices.
#[test]
fn prompts_are_the_same_on_the_openai_layer() {
    let model = format!("tiny={}", crate::models::tiny("bert").iter().find(|dir| dir.ends_with("old-mean")).expect("committed").display());
    let server = crate::server::Server::start(&["--model", &model]);
    let native = |body: Value| server.embed(&body).1["data"]["data"][0]["embedding"].clone();
    let openai = |body: Value| server.post("/oai/v1/embeddings", &body).1["data"][0]["embedding"].clone();
    let body = |model: &str| json!({"model": model, "input": TEXTS[0], "encoding_format": "float"});
    let asked = json!({"model": "tiny", "input": TEXTS[0], "encoding_format": "float", "input_type": "query"});
    let query = native(json!({"model": "tiny", "input": TEXTS[0], "input_type": "query"}));
    assert!(query.is_array());
    assert_eq!((&openai(asked), &openai(body("tiny:query"))), (&query, &query));
    // Without a word the checkpoint's default prompt holds, on both.
    let default = native(body("tiny"));
    assert_eq!(openai(body("tiny")), default);
    assert_ne!(default, query);
}
