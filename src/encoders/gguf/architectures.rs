//! The architectures of GGUF files that embed: which page describes each, and what its metadata and tensors are called there. Names on the left are
//! llama.cpp's (its `gguf-py` package), those on the right the checkpoint's.

use super::translate::{self, Dimensions};
use super::{Described, Gguf};
use crate::encoders::json::Json;
use crate::encoders::{bert, gemma, llama, nomic, qwen};
use crate::network::{LoadError, Network, WeightTable};

/// One value of `general.architecture`.
pub struct Architecture {
    pub name: &'static str,
    pub describe: fn(&Json, &WeightTable) -> Result<Network, LoadError>,
    /// Whether a token sees only what stands before it; `ARCH.attention.causal` must agree where it is there.
    pub causal: bool,
    /// Keys behind `ARCH.`, and the field that each is in config.json. All but the last few of them that `optional` counts must be there.
    pub fields: &'static [(&'static str, &'static str)],
    pub optional: usize,
    /// What config.json would say beside, as JSON: what llama.cpp has in its code for the architecture, and not in the file.
    pub fixed: &'static str,
    /// Fields that follow from the tensors.
    pub sizes: &'static [(Dimensions, &'static str)],
    pub tensors: &'static [(&'static str, &'static str)],
    /// What stands before a layer's number in the checkpoint.
    pub layer: &'static str,
    /// Tensors of a layer, behind `blk.N.`, without `.weight` or `.bias`.
    pub in_layer: &'static [(&'static str, &'static str)],
}

/// The decoders' layers.
const LLAMA_LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const DECODER_TENSORS: &[(&str, &str)] = &[("token_embd", "embed_tokens"), ("output_norm", "norm")];

const DECODER_FIELDS: &[(&str, &str)] = &[
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("rope.freq_base", "rope_theta"),
];

const QWEN3: Architecture = Architecture {
    name: "qwen3",
    describe: qwen::qwen3,
    causal: true,
    fields: DECODER_FIELDS,
    optional: 3,
    fixed: "{}",
    sizes: &[(Dimensions::Rows("token_embd.weight"), "vocab_size"), (Dimensions::Has("blk.0.attn_q.bias"), "attention_bias")],
    tensors: DECODER_TENSORS,
    layer: "layers",
    in_layer: LLAMA_LAYER,
};

/// Every architecture that is read.
const ALL: &[Architecture] = &[
    Architecture {
        name: "bert",
        describe: bert::describe,
        causal: false,
        fields: &[
            ("embedding_length", "hidden_size"),
            ("block_count", "num_hidden_layers"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.layer_norm_epsilon", "layer_norm_eps"),
        ],
        optional: 0,
        // llama.cpp computes the tanh form; the models were trained with the erf.
        fixed: r#"{"hidden_act": "gelu"}"#,
        sizes: &[
            (Dimensions::Rows("token_embd.weight"), "vocab_size"),
            (Dimensions::Rows("position_embd.weight"), "max_position_embeddings"),
            (Dimensions::Rows("token_types.weight"), "type_vocab_size"),
        ],
        tensors: &[
            ("token_embd", "embeddings.word_embeddings"),
            ("position_embd", "embeddings.position_embeddings"),
            ("token_types", "embeddings.token_type_embeddings"),
            ("token_embd_norm", "embeddings.LayerNorm"),
        ],
        layer: "encoder.layer",
        in_layer: &[
            ("attn_q", "attention.self.query"),
            ("attn_k", "attention.self.key"),
            ("attn_v", "attention.self.value"),
            ("attn_output", "attention.output.dense"),
            ("attn_output_norm", "attention.output.LayerNorm"),
            ("ffn_up", "intermediate.dense"),
            ("ffn_down", "output.dense"),
            ("layer_output_norm", "output.LayerNorm"),
        ],
    },
    Architecture {
        name: "nomic-bert",
        describe: nomic::describe,
        causal: false,
        fields: &[
            ("embedding_length", "n_embd"),
            ("block_count", "n_layer"),
            ("context_length", "n_positions"),
            ("feed_forward_length", "n_inner"),
            ("attention.head_count", "n_head"),
            ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
            ("rope.freq_base", "rotary_emb_base"),
        ],
        optional: 0,
        fixed: r#"{"activation_function": "swiglu", "rotary_emb_fraction": 1.0, "mlp_fc1_bias": false, "mlp_fc2_bias": false, "qkv_proj_bias": false}"#,
        sizes: &[(Dimensions::Rows("token_embd.weight"), "vocab_size"), (Dimensions::Rows("token_types.weight"), "type_vocab_size")],
        tensors: &[("token_embd", "embeddings.word_embeddings"), ("token_types", "embeddings.token_type_embeddings"), ("token_embd_norm", "emb_ln")],
        layer: "encoder.layers",
        in_layer: &[
            ("attn_qkv", "attn.Wqkv"),
            ("attn_output", "attn.out_proj"),
            ("attn_output_norm", "norm1"),
            ("ffn_up", "mlp.fc11"),
            ("ffn_gate", "mlp.fc12"),
            ("ffn_down", "mlp.fc2"),
            ("layer_output_norm", "norm2"),
        ],
    },
    QWEN3,
    Architecture { name: "qwen2", describe: qwen::qwen2, sizes: &[(Dimensions::Rows("token_embd.weight"), "vocab_size")], ..QWEN3 },
    // Mistral's files are of this architecture too, and name no window.
    Architecture {
        name: "llama",
        describe: llama::llama_neighbours,
        sizes: &[
            (Dimensions::Rows("token_embd.weight"), "vocab_size"),
            (Dimensions::Has("blk.0.attn_q.bias"), "attention_bias"),
            (Dimensions::Has("blk.0.ffn_gate.bias"), "mlp_bias"),
        ],
        ..QWEN3
    },
    Architecture {
        name: "gemma-embedding",
        describe: gemma::gemma3_whole_norms,
        causal: false,
        fields: &[
            ("embedding_length", "hidden_size"),
            ("block_count", "num_hidden_layers"),
            ("context_length", "max_position_embeddings"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("attention.head_count_kv", "num_key_value_heads"),
            ("attention.key_length", "head_dim"),
            ("attention.sliding_window", "sliding_window"),
            ("rope.freq_base", "rope_theta"),
        ],
        optional: 1,
        fixed: r#"{"use_bidirectional_attention": true, "sliding_window_pattern": 6, "rope_local_base_freq": 10000}"#,
        sizes: &[
            (Dimensions::Rows("token_embd.weight"), "vocab_size"),
            // llama.cpp scales the scores by the heads' own size.
            (Dimensions::Rows("blk.0.attn_q_norm.weight"), "query_pre_attn_scalar"),
        ],
        tensors: DECODER_TENSORS,
        layer: "layers",
        in_layer: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_q_norm", "self_attn.q_norm"),
            ("attn_k_norm", "self_attn.k_norm"),
            ("attn_output", "self_attn.o_proj"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ],
    },
];

/// Describes the network of a file.
pub fn describe(gguf: &Gguf) -> Result<Described, LoadError> {
    const FIELD: &str = "general.architecture";
    let name = gguf.meta.str(FIELD)?.ok_or_else(|| gguf.meta.refuse(FIELD, "is missing"))?;
    let Some(architecture) = ALL.iter().find(|architecture| architecture.name == name) else {
        let known: Vec<_> = ALL.iter().map(|architecture| architecture.name).collect();
        return Err(gguf.meta.refuse(FIELD, format!("`{name}` is not served from GGUF files; known: {}", known.join(", "))));
    };
    translate::network(gguf, architecture)
}
