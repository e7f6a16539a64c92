//! Encoders without a table of positions: what their configurations may not say, candle-transformers' models as a second opinion, and bf16 where f16
//! overflows.

use crate::damage::Copy;
use crate::models::{Model, cosine, exact, max_abs_diff, tiny};
use candle_core::{DType, Device, IndexOp, Module, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{jina_bert, modernbert, nomic_bert};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vecmill::engine::load::{self, Options, load_dir};
use vecmill::ragged::Packed;

const MODERNBERT: (&str, &str) = ("modernbert", "old-cls-prefix");
const MODERNBERT_NEW: (&str, &str) = ("modernbert", "new-mean-bf16-sharded-biases");
const NOMIC: (&str, &str) = ("nomic_bert", "hub-v1.5");
const NOMIC_MOE: (&str, &str) = ("nomic_bert", "hub-v2-moe");
const JINA: (&str, &str) = ("jina_bert", "old-mean-six-heads");
const GTE: (&str, &str) = ("new", "large-old-cls-ntk");
const EUROBERT: (&str, &str) = ("eurobert", "old-mean-prefix-gqa");

#[test]
fn other_networks_are_refused_by_their_field() {
    for ((architecture, name), field, value) in [
        (MODERNBERT, "local_attention", json!(0)),
        (MODERNBERT, "sliding_window", json!(64)),
        (MODERNBERT, "global_attn_every_n_layers", json!(0)),
        (MODERNBERT, "global_rope_theta", json!(0)),
        (MODERNBERT, "local_rope_theta", json!(-1)),
        (MODERNBERT, "hidden_activation", json!("gelu_10")),
        (MODERNBERT, "num_hidden_layers", json!(1u64 << 60)),
        (MODERNBERT_NEW, "layer_types", json!(["full_attention"])),
        (MODERNBERT_NEW, "layer_types", json!(["full_attention", "full_attention", "full_attention", "chunked_attention"])),
        (NOMIC, "causal", json!(true)),
        (NOMIC, "prenorm", json!(true)),
        (NOMIC, "parallel_block", json!(true)),
        (NOMIC, "parallel_block_tied_norm", json!(true)),
        (NOMIC, "use_rms_norm", json!(true)),
        (NOMIC, "rotary_emb_interleaved", json!(true)),
        (NOMIC, "rotary_emb_scale_base", json!(512)),
        (NOMIC, "rotary_emb_fraction", json!(0)),
        (NOMIC, "rotary_emb_fraction", json!(1.5)),
        (NOMIC, "rotary_emb_fraction", Value::Null),
        (NOMIC, "rotary_emb_base", json!(0)),
        (NOMIC, "rotary_scaling_factor", json!(0.5)),
        (NOMIC, "scale_attn_weights", json!(false)),
        (NOMIC, "scale_attn_by_inverse_layer_idx", json!(true)),
        (NOMIC, "activation_function", json!("gelu_new")),
        (NOMIC, "activation_function", Value::Null),
        (NOMIC, "n_inner", Value::Null),
        // Files that have the keys of both must mean one network.
        (NOMIC, "hidden_size", json!(64)),
        (NOMIC, "num_hidden_layers", json!(3)),
        (NOMIC, "layer_norm_eps", json!(1e-5)),
        (NOMIC, "rope_parameters", json!({"rope_type": "default", "rope_theta": 10000.0})),
        (NOMIC, "rope_parameters", json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0})),
        (NOMIC, "n_positions", json!(0)),
        (NOMIC_MOE, "moe_normalize_expert_weights", json!(true)),
        (NOMIC_MOE, "moe_top_k", json!(9)),
        (NOMIC_MOE, "moe_top_k", json!(0)),
        (NOMIC_MOE, "num_experts", Value::Null),
        (NOMIC_MOE, "num_shared_experts", json!(1)),
        (NOMIC_MOE, "expert_choice_router", json!(true)),
        (NOMIC_MOE, "ffn_div", json!(2)),
        (NOMIC_MOE, "moe_every_n_layers", json!(1)),
        (JINA, "position_embedding_type", json!("absolute")),
        (JINA, "position_embedding_type", Value::Null),
        (JINA, "feed_forward_type", json!("original")),
        (JINA, "feed_forward_type", json!("reglu")),
        (JINA, "feed_forward_type", Value::Null),
        (JINA, "hidden_act", json!("relu")),
        (JINA, "is_decoder", json!(true)),
        (JINA, "auto_map", json!({"AutoModel": "jinaai/another--modeling_bert.JinaBertMoeModel"})),
        (GTE, "position_embedding_type", json!("absolute")),
        (GTE, "layer_norm_type", json!("rms_norm")),
        (GTE, "logn_attention_scale", json!(true)),
        (GTE, "logn_attention_clip1", json!(true)),
        (GTE, "pack_qkv", json!(false)),
        (GTE, "rope_theta", Value::Null),
        (GTE, "rope_theta", json!(0)),
        (GTE, "rope_scaling/mixed_b", json!(0.1)),
        (GTE, "rope_scaling/factor", json!(0.5)),
        (EUROBERT, "num_key_value_heads", json!(3)),
        (EUROBERT, "head_dim", json!(7)),
        (EUROBERT, "hidden_act", json!("xielu")),
    ] {
        let copy = Copy::of_architecture(architecture, name);
        let pointer = if field.contains('/') { format!("/{field}") } else { field.into() };
        copy.set("config.json", &pointer, value.clone());
        let message = copy.refusal(&exact()).to_string();
        let named = field.rsplit('/').next().expect("a name");
        assert!(message.contains("config.json") && message.contains(named), "{architecture}, {field} = {value}: {message}");
    }
}

#[test]
fn a_size_that_does_not_fit_names_the_tensor() {
    for ((architecture, name), field, value, tensor) in [
        (MODERNBERT, "attention_bias", json!(true), "model.layers.0.attn.Wqkv.bias"),
        (MODERNBERT, "mlp_bias", json!(true), "model.layers.0.mlp.Wi.bias"),
        (MODERNBERT, "norm_bias", json!(true), "model.embeddings.norm.bias"),
        (MODERNBERT_NEW, "attention_bias", json!(false), "layers.0.attn.Wqkv.bias"),
        (NOMIC, "mlp_fc2_bias", json!(true), "encoder.layers.0.mlp.fc2.bias"),
        (NOMIC, "qkv_proj_bias", Value::Null, "encoder.layers.0.attn.Wqkv.bias"),
        (NOMIC, "activation_function", json!("gelu"), "encoder.layers.0.mlp.fc1.weight"),
        (NOMIC_MOE, "moe_every_n_layers", json!(3), "encoder.layers.3.mlp.fc2.weight"),
        (NOMIC_MOE, "num_experts", json!(7), "encoder.layers.1.mlp.experts.mlp.w1"),
        (JINA, "intermediate_size", json!(41), "encoder.layer.0.mlp.gated_layers.weight"),
        (GTE, "type_vocab_size", json!(3), "embeddings.token_type_embeddings.weight"),
        (EUROBERT, "attention_bias", json!(true), "model.layers.0.self_attn.q_proj.bias"),
    ] {
        let copy = Copy::of_architecture(architecture, name);
        copy.set("config.json", field, value.clone());
        let message = copy.refusal(&exact()).to_string();
        assert!(message.contains(tensor), "{architecture}, {field} = {value}: {message}");
    }
}

#[test]
fn the_code_of_the_hub_is_known_by_its_class() {
    for ((architecture, name), model_type, code) in [
        (NOMIC, "nomic_bert", "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"),
        (GTE, "new", "Alibaba-NLP/new-impl--modeling.NewModel"),
        // Snowflake's name for the same.
        (("gte", "native-ntk"), "gte", "modeling_hf_alibaba_nlp_gte.GteModel"),
        (EUROBERT, "eurobert", "modeling_eurobert.EuroBertModel"),
    ] {
        let copy = Copy::of_architecture(architecture, name);
        copy.set("config.json", "auto_map", json!({"AutoModel": code}));
        let loaded = load_dir(&copy.path(""), &exact()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.info.architecture, model_type);
    }
}

#[test]
fn the_window_of_modernbert_goes_by_two_names() {
    let copy = Copy::of_architecture(MODERNBERT.0, MODERNBERT.1);
    let original = Model::load(&copy.path(""));
    let texts = [original.tokens(&"the cat sat on the mat. ".repeat(6), "")];
    copy.set("config.json", "sliding_window", json!(4));
    assert_eq!(original.vectors(&texts), Model::load(&copy.path("")).vectors(&texts));
    copy.set("config.json", "local_attention", Value::Null);
    assert_eq!(original.vectors(&texts), Model::load(&copy.path("")).vectors(&texts));
    copy.set("config.json", "sliding_window", json!(5));
    assert_ne!(original.vectors(&texts), Model::load(&copy.path("")).vectors(&texts));
}

#[test]
fn nomic_files_may_have_the_keys_of_both() {
    // As nomic-embed-text-v1.5 has them by now; the shorter length is that of training.
    let copy = Copy::of_architecture(NOMIC.0, NOMIC.1);
    for (field, value) in [
        ("hidden_size", json!(32)),
        ("num_attention_heads", json!(4)),
        ("num_hidden_layers", json!(2)),
        ("intermediate_size", json!(48)),
        ("layer_norm_eps", json!(1e-12)),
        ("hidden_act", json!("silu")),
        ("max_position_embeddings", json!(16)),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": 1000.0})),
    ] {
        copy.set("config.json", field, value);
    }
    let (original, both) = (Model::load(&path(NOMIC)), Model::load(&copy.path("")));
    let texts = [original.tokens("the cat sat on the mat.", "")];
    assert_eq!(original.vectors(&texts), both.vectors(&texts));
    assert_eq!(original.loaded.info.max_tokens, both.loaded.info.max_tokens);
}

#[test]
fn hub_keys_of_gte_hold_under_either_type() {
    // As Snowflake has them: the type of transformers, the keys of the hub.
    let copy = Copy::of_architecture(GTE.0, GTE.1);
    copy.set("config.json", "model_type", json!("gte"));
    copy.set("config.json", "architectures", json!(["GteModel"]));
    let (original, renamed) = (Model::load(&path(GTE)), Model::load(&copy.path("")));
    let texts = [original.tokens("the cat sat on the mat.", "")];
    assert_eq!(original.vectors(&texts), renamed.vectors(&texts));
}

fn path((architecture, name): (&str, &str)) -> PathBuf {
    tiny(architecture).into_iter().find(|dir| dir.ends_with(name)).expect("a committed checkpoint")
}

fn config(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("config.json")).expect("readable")).expect("JSON")
}

fn weights(dir: &Path) -> Result<VarBuilder<'static>> {
    let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu)?;
    Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
}

const TEXTS: [&str; 5] = ["a", "hello world", "the cat sat on the mat.", "the river runs past the old mill and the cat.", ""];

/// Another implementation of a checkpoint's network: ids `[1, T]` to hidden states `[1, T, C]`.
type Oracle<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// The largest difference between our vector of each text, all computed as one batch, and the oracle's, each computed alone.
fn differences(model: &Model, texts: &[&str], oracle: Oracle, (mean, normalize): (bool, bool)) -> Result<Vec<f32>> {
    let texts: Vec<_> = texts.iter().map(|text| model.tokens(text, "")).collect();
    let differences = texts.iter().zip(model.vectors(&texts)).map(|(text, vector)| {
        let hidden = oracle(&Tensor::new(text.ids.as_slice(), &Device::Cpu)?.unsqueeze(0)?)?.squeeze(0)?;
        let pooled = if mean { hidden.mean(0)? } else { hidden.i(0)? };
        let length = if normalize { f64::from(pooled.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?) } else { 1. };
        Ok(max_abs_diff(&vector, &(pooled / length)?.to_vec1()?))
    });
    differences.collect()
}

/// Rounding through a few layers whose components are about 1.
const MAX_ABS: f32 = 2e-5;

/// It computes GELU and no bias whatever config.json says, knows only the old keys, and takes the epsilon from `layer_norm_eps` where the reference
/// reads `norm_eps`: so it is told.
#[test]
fn candle_modernbert_agrees() -> Result<()> {
    let dir = path(MODERNBERT);
    let mut config = config(&dir);
    config["layer_norm_eps"] = config["norm_eps"].clone();
    config["pad_token_id"] = json!(0);
    let config: modernbert::Config = serde_json::from_value(config).expect("a configuration");
    let oracle = modernbert::ModernBert::load(weights(&dir)?, &config)?;
    let long = "the cat sat on the mat. ".repeat(8);
    let texts = [&TEXTS[..], &[long.as_str()]].concat();
    let forward = |ids: &Tensor| oracle.forward(ids, &ids.ones_like()?);
    for difference in differences(&Model::load(&dir), &texts, &forward, (false, true))? {
        assert!(difference <= MAX_ABS, "off by {difference}");
    }
    Ok(())
}

/// It computes SwiGLU whatever `activation_function` says, no experts, and never scales theta: `rotary_scaling_factor` is not read.
#[test]
fn candle_nomic_bert_agrees_up_to_the_trained_length() -> Result<()> {
    for (name, normalize, trained) in [("hub-v1.5", false, usize::MAX), ("hub-v1-f16-dynamic", true, 24)] {
        let dir = path(("nomic_bert", name));
        let config: nomic_bert::Config = serde_json::from_value(config(&dir)).expect("a configuration");
        let oracle = nomic_bert::NomicBertModel::load(weights(&dir)?, &config)?;
        let model = Model::load(&dir);
        let long = "the cat sat on the mat. ".repeat(8);
        let texts = [&TEXTS[..], &[long.as_str()]].concat();
        let forward = |ids: &Tensor| oracle.forward(ids, None, None);
        for (text, difference) in texts.iter().zip(differences(&model, &texts, &forward, (true, normalize))?) {
            let scaled = model.tokens(text, "").len() > trained;
            assert!(if scaled { difference > 1e-3 } else { difference <= MAX_ABS }, "{name}: {text:?} is off by {difference}");
        }
    }
    Ok(())
}

/// It knows the network of jina-embeddings-v2-base-en only, not that of the code model.
#[test]
fn candle_jina_bert_agrees() -> Result<()> {
    for (name, prefix, normalize) in [("old-mean-six-heads", "", false), ("new-mean-f16-prefix", "bert", true)] {
        let dir = path(("jina_bert", name));
        let config: jina_bert::Config = serde_json::from_value(config(&dir)).expect("a configuration");
        let weights = weights(&dir)?;
        let oracle = jina_bert::BertModel::new(if prefix.is_empty() { weights } else { weights.pp(prefix) }, &config)?;
        let forward = |ids: &Tensor| oracle.forward(ids);
        for difference in differences(&Model::load(&dir), &TEXTS, &forward, (true, normalize))? {
            assert!(difference <= MAX_ABS, "{name}: off by {difference}");
        }
    }
    Ok(())
}

/// The stream of a real ModernBERT leaves the range of f16 (65504) in a few dimensions. Here the first MLPs are made to do the same.
#[test]
fn modernbert_is_finite_in_bf16_where_f16_overflows() {
    let copy = Copy::of_architecture(MODERNBERT.0, MODERNBERT.1);
    copy.edit(|name, tensor| {
        if name.ends_with("mlp.Wo.weight") {
            for number in tensor.data.as_chunks_mut::<4>().0 {
                *number = (f32::from_le_bytes(*number) * 2e4).to_le_bytes();
            }
        }
        true
    });
    let exact = Model::load(&copy.path(""));
    let long = "the river runs past the old mill and the cat. ".repeat(20);
    let texts = [exact.tokens("hello world", ""), exact.tokens(&long, "")];
    assert_eq!(texts[1].len(), exact.loaded.info.max_tokens, "as long as it takes");
    let half = |dtype| {
        let loaded = load_dir(&copy.path(""), &Options { dtype: Some(dtype), ..crate::models::exact() }).unwrap_or_else(|error| panic!("{error}"));
        loaded.pipeline.encode(&Packed::new(&texts)).expect("computes")
    };
    assert!(half(load::DType::F16).iter().any(|number| !number.is_finite()), "the test is too weak");
    let near = half(load::DType::Bf16);
    for (want, near) in exact.vectors(&texts).iter().zip(near.chunks_exact(exact.loaded.pipeline.dim())) {
        assert!(near.iter().all(|number| number.is_finite()));
        assert!(cosine(want, near) > 0.998, "cosine {}", cosine(want, near));
    }
}
