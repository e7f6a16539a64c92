//! Checkpoints that are broken, hostile or mean something else: each is refused with a sentence that names the file and what in it.

use crate::damage::{Copy, refused, refused_field, shard};
use crate::models::{Model, exact, tiny};
use serde_json::{Value, json};
use std::path::Path;
use vecmill::engine::load::{Options, load_dir};

#[test]
fn config_json_means_another_network() {
    const FILE: &str = "config.json";
    refused_field(FILE, "model_type", json!("roberta_of_mars"), &["roberta_of_mars", "bert"]);
    refused_field(FILE, "model_type", json!(7), &["string"]);
    refused_field(FILE, "architectures", json!(["JinaEmbeddingsModel"]), &["JinaEmbeddingsModel"]);
    refused(&["config.json", "position_embedding_type", "alibi"], |copy| copy.set(FILE, "architectures", json!(["JinaBertModel"])));
    refused_field(FILE, "auto_map", json!({"AutoModel": "evil.Model"}), &["own code"]);
    refused_field(FILE, "quantization_config", json!({"bits": 4}), &[]);
    refused_field(FILE, "num_attention_heads", json!(3), &["divide", "16"]);
    refused_field(FILE, "num_attention_heads", json!(0), &["at least 1"]);
    refused_field(FILE, "hidden_size", json!(-16), &["whole number"]);
    refused_field(FILE, "hidden_size", json!(1u64 << 40), &["at most"]);
    refused_field(FILE, "hidden_size", json!(16.5), &["whole number"]);
    refused_field(FILE, "hidden_act", json!("gelu_10"), &["gelu_10"]);
    refused_field(FILE, "position_embedding_type", json!("relative_key"), &["relative_key"]);
    refused_field(FILE, "is_decoder", json!(true), &[]);
    refused_field(FILE, "add_cross_attention", json!(true), &[]);
    refused_field(FILE, "pruned_heads", json!({"0": [1]}), &[]);
    refused_field(FILE, "layer_norm_eps", json!(-1e-12), &[]);
    refused_field(FILE, "matryoshka_dimensions", json!([8, 17]), &["17", "16"]);
    refused(&["config.json", "model_type", "architectures"], |copy| {
        copy.set(FILE, "model_type", Value::Null);
        copy.set(FILE, "architectures", Value::Null);
    });
    refused(&["config.json", "missing"], |copy| copy.remove(FILE));
    refused(&["config.json", "JSON"], |copy| copy.write(FILE, "{"));
    refused(&["config.json", "JSON"], |copy| copy.write(FILE, "[".repeat(100_000)));
}

#[test]
fn config_json_does_not_fit_the_weights() {
    let file = "model.safetensors";
    for (field, value, tensor) in [
        ("vocab_size", 90, "embeddings.word_embeddings.weight"),
        ("max_position_embeddings", 41, "embeddings.position_embeddings.weight"),
        ("intermediate_size", 25, "encoder.layer.0.intermediate.dense.weight"),
        ("num_hidden_layers", 3, "encoder.layer.2.attention.self.query.weight"),
        ("num_hidden_layers", usize::MAX >> 1, "encoder.layer.2.attention.self.query.weight"),
        ("hidden_size", 1 << 30, "embeddings.word_embeddings.weight"),
    ] {
        refused(&[file, tensor], |copy| copy.set("config.json", field, json!(value)));
    }
}

#[test]
fn weights_that_are_broken() {
    let file = "model.safetensors";
    refused(&[file, "missing"], |copy| copy.remove(file));
    refused(&[file, "empty"], |copy| copy.write(file, ""));
    refused(&[file], |copy| copy.write(file, "not safetensors at all"));
    for cut in [7, 8, 100, 5000] {
        refused(&[file, "whole"], |copy| copy.write(file, &copy.read(file)[..cut]));
    }
    refused(&[file, "whole"], |copy| copy.write(file, [copy.read(file), vec![0; 4]].concat()));
    refused(&[file, "header claims"], |copy| copy.write(file, [&u64::MAX.to_le_bytes()[..], b"{}"].concat()));
    for header in [
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
    ] {
        refused(&[file, "valid"], |copy| copy.write(file, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()));
    }
}

#[test]
fn tensors_that_are_wrong() {
    let (file, name) = ("model.safetensors", "encoder.layer.1.output.dense.bias");
    refused(&[file, name, "missing"], |copy| copy.edit(|tensor, _| tensor != name));
    refused(&[file, name, "shape"], |copy| {
        copy.edit(|tensor, content| {
            if tensor == name {
                content.shape = vec![2, 8];
            }
            true
        })
    });
    refused(&[file, name, "I32"], |copy| {
        copy.edit(|tensor, content| {
            if tensor == name {
                content.dtype = safetensors::Dtype::I32;
            }
            true
        })
    });
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refused(&[file, name, "index 3"], |copy| {
            copy.edit(|tensor, content| {
                if tensor == name {
                    content.data[12..16].copy_from_slice(&number.to_le_bytes());
                }
                true
            })
        });
    }
}

#[test]
fn a_number_that_the_dtype_cannot_hold() {
    let copy = Copy::of("old-mean");
    copy.edit(|tensor, content| {
        if tensor == "embeddings.LayerNorm.bias" {
            content.data[..4].copy_from_slice(&70_000f32.to_le_bytes());
        }
        true
    });
    let options = Options { dtype: Some(vecmill::engine::load::DType::F16), ..exact() };
    let message = copy.refusal(&options).to_string();
    assert!(message.contains("embeddings.LayerNorm.bias") && message.contains("70000") && message.contains("f16"), "{message}");
}

#[test]
fn pickles_and_adapters_are_refused_with_the_reason() {
    refused(&["pytorch_model.bin", "pickle", "any code"], |copy| {
        copy.remove("model.safetensors");
        copy.write("pytorch_model.bin", "PK");
    });
    refused(&["adapter_config.json", "merge"], |copy| copy.write("adapter_config.json", "{}"));
}

#[test]
fn shards_are_one_checkpoint() {
    let (whole, parts) = (Copy::of("old-mean"), Copy::of("old-mean"));
    shard(&parts, |_| {});
    let [whole, parts] = [whole, parts].map(|copy| {
        let model = Model::load(copy.dir.path());
        model.vectors(&[model.tokens("the cat sat", "")])
    });
    assert_eq!(whole, parts);
}

#[test]
fn shards_that_are_wrong() {
    let (index, name) = ("model.safetensors.index.json", "embeddings.LayerNorm.bias");
    for outside in ["../model.safetensors", "/etc/passwd", "", "a/../../b"] {
        refused(&[index, name, "not a file of this folder"], |copy| shard(copy, |index| index["weight_map"][name] = json!(outside)));
    }
    refused(&[index, name], |copy| shard(copy, |index| index["weight_map"][name] = json!(3)));
    refused(&[index, "weight_map"], |copy| shard(copy, |index| index["weight_map"] = json!([])));
    refused(&["part-9.safetensors"], |copy| shard(copy, |index| index["weight_map"][name] = json!("part-9.safetensors")));
    refused(&[index, "phantom", "none of its files"], |copy| shard(copy, |index| index["weight_map"]["phantom"] = json!("part-0.safetensors")));
    refused(&["part-", "is also in"], |copy| {
        shard(copy, |_| {});
        copy.write("part-1.safetensors", copy.read("part-0.safetensors"));
    });
}

#[test]
fn modules_json_that_is_not_understood() {
    const FILE: &str = "modules.json";
    refused_field(FILE, "/1/type", json!("sentence_transformers.models.LSTM"), &["module 1", "LSTM"]);
    refused_field(FILE, "/1/type", json!("evil.Pooling"), &["evil.Pooling"]);
    refused_field(FILE, "/1/type", Value::Null, &["missing"]);
    refused_field(FILE, "/1/path", json!("../1_Pooling"), &["leaves"]);
    refused_field(FILE, "/1/path", json!("/1_Pooling"), &["leaves"]);
    refused_field(FILE, "/1/kwargs", json!(["task"]), &[]);
    // Jina's own module, in front of a network without tasks.
    refused(&[FILE, "own code", "custom_st"], |copy| {
        copy.set(FILE, "/0/type", json!("custom_st.Transformer"));
        copy.set(FILE, "/0/kwargs", json!(["task"]));
    });
    refused_field(FILE, "/0/type", json!("custom_st.Transformer"), &["custom_st.Transformer"]);
    refused_field(FILE, "/1/surprise", json!(1), &["not understood"]);
    refused_field(FILE, "/0/type", json!("sentence_transformers.models.Pooling"), &["begin"]);
    refused_field(FILE, "/2/type", json!("sentence_transformers.models.Transformer"), &["only Transformer"]);
    refused(&[FILE, "list"], |copy| copy.write(FILE, "{}"));
    refused(&[FILE, "no module"], |copy| copy.write(FILE, "[]"));
    refused(&[FILE, "Pooling"], |copy| {
        let mut list: Vec<Value> = serde_json::from_slice(&copy.read(FILE)).expect("a list");
        list.remove(1);
        copy.write(FILE, json!(list).to_string());
    });
    refused(&[FILE, "second Pooling"], |copy| copy.set(FILE, "/2/type", json!("sentence_transformers.models.Pooling")));
}

#[test]
fn module_configurations_that_are_not_understood() {
    let pooling = "1_Pooling/config.json";
    refused(&[pooling, "missing"], |copy| copy.remove(pooling));
    for (field, value, word) in [
        ("pooling_mode", json!("median"), "median"),
        ("pooling_mode", json!([]), "empty"),
        ("pooling_mode", json!(["mean", 3]), "3"),
        ("pooling_mode_mean_tokens", json!("yes"), "true or false"),
        ("pooling_mode_attention_tokens", json!(true), "not understood"),
        ("word_embedding_dimension", json!(17), "16"),
        ("include_prompt", json!(0), "true or false"),
    ] {
        refused(&[pooling, field, word], |copy| copy.set(pooling, field, value));
    }
    let dense = "2_Dense/config.json";
    for (file, field, value, word) in [
        (dense, "activation_function", json!("torch.nn.modules.activation.Hardtanh"), "Hardtanh"),
        (dense, "activation_function", json!("evil.Tanh"), "evil.Tanh"),
        (dense, "in_features", json!(15), "16"),
        (dense, "in_features", Value::Null, "must be there"),
        (dense, "module_input_name", json!("token_embeddings"), "token_embeddings"),
        (dense, "dropout", json!(0.5), "not understood"),
        ("3_Normalize/config.json", "p", json!(1), "not understood"),
    ] {
        let copy = Copy::of("new-cls-dense");
        copy.set(file, field, value);
        let message = copy.refusal(&exact()).to_string();
        assert!([file, field, word].iter().all(|part| message.contains(part)), "{message}");
    }
    for (field, value, tensor) in
        [("out_features", json!(11), "linear."), ("bias", json!(false), "linear.bias"), ("use_residual", json!(true), "residual.weight")]
    {
        let copy = Copy::of("new-cls-dense");
        copy.set(dense, field, value);
        let message = copy.refusal(&exact()).to_string();
        assert!(message.contains("2_Dense/model.safetensors") && message.contains(tensor), "{message}");
    }
    let copy = Copy::of("old-concat");
    copy.set("2_LayerNorm/config.json", "dimension", json!(16));
    assert!(copy.refusal(&exact()).to_string().contains("2_LayerNorm/config.json: `dimension`"));
}

#[test]
fn transformer_settings_that_are_not_understood() {
    const FILE: &str = "sentence_bert_config.json";
    for (field, value) in [
        ("max_seq_length", json!(0)),
        ("max_seq_length", json!("long")),
        ("do_lower_case", json!("no")),
        ("transformer_task", json!("fill-mask")),
        ("module_output_name", json!("scores")),
        ("modality_config", json!({"image": {}})),
        ("modality_config", json!({"text": {"method": "forward", "method_output_name": "pooler_output"}})),
        ("processing_kwargs", json!({"text": {"max_length": 3}})),
        ("query_length", json!(32)),
        ("query_expansion", json!({"length": 32})),
        ("model_args", json!({"rope_scaling": 2})),
        ("tokenizer_args", json!({"model_max_length": 8})),
        ("something_new", json!(1)),
    ] {
        refused_field(FILE, field, value, &[]);
    }
    refused(&["tokenizer_config.json", "model_max_length"], |copy| {
        copy.set(FILE, "max_seq_length", Value::Null);
        copy.set("tokenizer_config.json", "model_max_length", json!(-5));
    });
}

#[test]
fn prompts_that_are_wrong() {
    const FILE: &str = "config_sentence_transformers.json";
    refused_field(FILE, "prompts", json!(["query: "]), &["object"]);
    refused_field(FILE, "prompts", json!({"query": 3}), &["prompts.query"]);
    refused_field(FILE, "default_prompt_name", json!("nonsense"), &["nonsense"]);
    refused_field(FILE, "model_type", json!("SparseEncoder"), &["SparseEncoder"]);
    refused_field(FILE, "prompts", json!({"passage": "a ".repeat(30)}), &["prompts.passage", "24"]);
}

#[test]
fn tokenizers_that_do_not_fit() {
    const FILE: &str = "tokenizer.json";
    refused(&[FILE, "not a tokenizer"], |copy| copy.write(FILE, "{}"));
    refused(&[FILE, "not a tokenizer"], |copy| copy.write(FILE, "\u{0}"));
    refused(&[FILE, "id 89", "ends at 88"], |copy| copy.set(FILE, "/model/vocab/zebra", json!(89)));
    refused(&["vocab.txt", "tokenizer.json"], |copy| copy.remove(FILE));
    refused(&[FILE, "pre_tokenizer"], |copy| copy.set(FILE, "pre_tokenizer", json!({"type": "Whitespace"})));
    refused(&[FILE, "post_processor", "token type 1"], |copy| {
        let mut json: Value = serde_json::from_slice(&copy.read(FILE)).expect("JSON");
        json["post_processor"]["single"][1]["Sequence"]["type_id"] = json!(1);
        copy.write(FILE, json.to_string());
    });
}

#[test]
fn what_tokenizer_json_says_of_length_and_padding_is_ignored() {
    let copy = Copy::of("old-mean");
    let before = Model::load(copy.dir.path());
    copy.set("tokenizer.json", "truncation", json!({"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}));
    let padding =
        json!({"strategy": {"Fixed": 20}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    copy.set("tokenizer.json", "padding", padding);
    let after = Model::load(copy.dir.path());
    for text in ["a", "the cat sat on the mat", &"z ".repeat(40)] {
        assert_eq!(before.tokens(text, ""), after.tokens(text, ""));
    }
}

#[test]
fn settings_of_the_tokenizer_config_win_over_the_tokenizer_file() {
    let copy = Copy::of("old-mean");
    copy.set("tokenizer_config.json", "do_lower_case", json!(false));
    let cased = Model::load(copy.dir.path());
    assert_eq!(cased.tokens("Cat", "").ids[1], 1, "an unknown token, as the vocabulary is lower case");
    copy.set("sentence_bert_config.json", "do_lower_case", json!(true));
    let lowered = Model::load(copy.dir.path());
    assert_eq!(lowered.tokens("CAT", ""), lowered.tokens("cat", ""));
    // The classes that are made like BERT's, named or not.
    for (architecture, name, unknown) in [("distilbert", "old-mean", 1), ("electra", "new-cls-bf16", 1), ("mpnet", "old-mean", 4)] {
        for class in [json!("DistilBertTokenizer"), json!("ElectraTokenizerFast"), json!("MPNetTokenizer"), Value::Null] {
            let copy = Copy::of_architecture(architecture, name);
            copy.set("tokenizer_config.json", "tokenizer_class", class);
            copy.set("tokenizer_config.json", "do_lower_case", json!(false));
            assert_eq!(Model::load(copy.dir.path()).tokens("CAT", "").ids[1], unknown, "{architecture}");
        }
    }
    // RoBERTa's; the ids are the reference's.
    for class in [json!("RobertaTokenizerFast"), Value::Null] {
        let copy = Copy::of_architecture("roberta", "old-cls-prefix");
        copy.set("tokenizer_config.json", "tokenizer_class", class);
        assert_eq!(Model::load(copy.dir.path()).tokens("The CAT", "").ids, [0, 316, 225, 39, 37, 56, 2]);
        copy.set("tokenizer_config.json", "add_prefix_space", json!(true));
        assert_eq!(Model::load(copy.dir.path()).tokens("The CAT", "").ids, [0, 225, 316, 225, 39, 37, 56, 2]);
    }
}

#[test]
fn lengths_come_from_the_right_file() {
    let length = |damage: &dyn Fn(&Copy), options: &Options| {
        let copy = Copy::of("old-mean");
        damage(&copy);
        load_dir(copy.dir.path(), options).map(|loaded| loaded.info.max_tokens).map_err(|error| error.to_string())
    };
    let asked = |max_tokens| Options { max_tokens: Some(max_tokens), ..exact() };
    let no_own = |copy: &Copy| copy.set("sentence_bert_config.json", "max_seq_length", Value::Null);
    assert_eq!(length(&|_| {}, &exact()), Ok(24));
    assert_eq!(length(&|copy| copy.set("sentence_bert_config.json", "max_seq_length", json!(4096)), &exact()), Ok(40));
    assert_eq!(length(&no_own, &exact()), Ok(32));
    let endless = |copy: &Copy| {
        no_own(copy);
        copy.set("tokenizer_config.json", "model_max_length", json!(1e30));
    };
    assert_eq!(length(&endless, &exact()), Ok(40));
    assert_eq!(length(&|_| {}, &asked(40)), Ok(40));
    assert_eq!(length(&|_| {}, &asked(12)), Ok(12));
    for impossible in [0, 2, 41] {
        let message = length(&|_| {}, &asked(impossible)).expect_err("must be refused");
        assert!(message.contains("max_tokens") && message.contains("40"), "{message}");
    }
}

#[test]
fn a_model_without_modules_needs_a_pooling() {
    let copy = Copy::of("old-mean");
    copy.remove("modules.json");
    let message = copy.refusal(&exact()).to_string();
    assert!(message.contains("modules.json") && message.contains("--pooling"), "{message}");
    let with = |mode: &str| load_dir(copy.dir.path(), &Options { pooling: Some(mode.to_owned()), ..exact() });
    assert!(with("median").map(|_| ()).expect_err("must be refused").to_string().contains("--pooling"));
    let loaded = with("cls").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((loaded.info.dimensions, loaded.info.normalized), (16, false));
}

#[path = "../../fuzz/checks/checkpoint.rs"]
mod fuzzed;

#[test]
fn the_fuzzers_corpus_loads_or_is_refused() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/checkpoint");
    let mut loaded = 0;
    for entry in std::fs::read_dir(dir).expect("the corpus") {
        loaded += usize::from(fuzzed::check(&std::fs::read(entry.expect("readable").path()).expect("readable")));
    }
    // The seeds are whole checkpoints: the format of the corpus is still the one that is read.
    assert!(loaded >= tiny("bert").len(), "only {loaded} entries load");
}

/// Damaged seeds on every test run: bytes changed, runs cut out or doubled. The fuzzer does the same for longer.
#[test]
fn damaged_seeds_load_or_are_refused() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let seeds: Vec<Vec<u8>> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/checkpoint"))
        .expect("the corpus")
        .map(|entry| std::fs::read(entry.expect("readable").path()).expect("readable"))
        .collect();
    let damage = (any::<prop::sample::Index>(), 0..4u8, any::<u8>(), 1..64usize);
    let case = (prop::sample::select(seeds), prop::collection::vec(damage, 1..4));
    let config = Config { failure_persistence: None, ..Config::with_cases(300) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&case, |(mut bytes, damages)| {
        for (at, kind, byte, len) in damages {
            let at = at.index(bytes.len());
            let end = (at + len).min(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                _ => bytes[at..end].fill(byte),
            }
        }
        fuzzed::check(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
