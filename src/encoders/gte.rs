//! GTE of 2024, Alibaba's "new" BERT (Zhang et al. 2024, arXiv:2407.19669): post-norm, gated, with rotary positions; `new` and `gte` in configs.

use super::json::Json;
use super::parts::{Names, activation, eps, heads, layers, only_word, refuse_switch, size};
use super::rope::{self, Turn};
use super::rotated::{Layout, Maps, Post};
use crate::network::{Frequencies, Layer, LoadError, Mlp, Network, Rope, WeightTable};
use std::sync::Arc;

/// The names that the code on the hub gives, and that transformers saves under.
const HUB: Layout = Layout {
    embedding_norm: "embeddings.LayerNorm",
    layers: "encoder.layer",
    query_key_value: Maps::Stacked("attention.qkv_proj"),
    output: "attention.o_proj",
    attention_norm: "attn_ln",
    up_gate: Maps::Stacked("mlp.up_gate_proj"),
    down: "mlp.down_proj",
    mlp_norm: "mlp_ln",
};

/// Describes the network from keys of either kind. `unpad_inputs` and `use_memory_efficient_attention` choose how, not what is computed.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    refuse_other_networks(config)?;
    let width = size(config, "hidden_size", 768)?;
    let heads = heads(config, "num_attention_heads", 12, width)?;
    let max_tokens = size(config, "max_position_embeddings", 8192)?;
    let names = Names::of(weights, &["new.", "gte."], "embeddings.word_embeddings.weight");
    let post = Post {
        layout: Layout::of(&names, &HUB),
        names,
        width,
        heads,
        head_dim: width / heads,
        eps: eps(config, "layer_norm_eps", 1e-12)?,
        bias: true,
        rope: Arc::new(rotation(config, &Turn { dim: width / heads, theta: 160_000., max_tokens })?),
    };
    let (names, layout) = (&post.names, post.layout);
    let inner = size(config, "intermediate_size", 3072)?;
    let act = activation(config, "hidden_act", "gelu")?;
    let layer = |index: usize| -> Result<Layer, LoadError> {
        let p = format!("{}.{index}", layout.layers);
        let [up, gate] = layout.up_gate.get(names, &p, [inner; 2], width, false)?;
        let down = names.linear(&format!("{p}.{}", layout.down), width, inner, true)?;
        Ok(Layer {
            attention: post.attention(&p)?,
            attention_norms: post.norm(&p, layout.attention_norm)?,
            mlp: Mlp::Gated { gate, up, activation: act, down },
            mlp_norms: post.norm(&p, layout.mlp_norm)?,
            convolution: None,
        })
    };
    let embeddings = post.embeddings(size(config, "vocab_size", 250_048)?, config.usize("type_vocab_size")?.unwrap_or(1))?;
    let layers = (0..layers(config, "num_hidden_layers", 12)?).map(|index| layer(index).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Network { width, max_tokens, embeddings, layers, norm: None, adapters: 0 })
}

/// What the code on the hub can do beside, and no checkpoint that is known uses.
fn refuse_other_networks(config: &Json) -> Result<(), LoadError> {
    only_word(config, "position_embedding_type", "rope")?;
    only_word(config, "layer_norm_type", "layer_norm")?;
    refuse_switch(config, "logn_attention_scale", "scores that grow with the text are not computed")?;
    refuse_switch(config, "logn_attention_clip1", "scores that grow with the text are not computed")?;
    if config.bool("pack_qkv")? == Some(false) {
        return Err(config.refuse("pack_qkv", "is read as true only: queries, keys and values in one tensor"));
    }
    if config.get("pack_qkv").is_some() && config.get("rope_theta").is_none() && config.get("rope_parameters").is_none() {
        return Err(config.refuse("rope_theta", "is missing, and the code on the hub has another default than transformers"));
    }
    Ok(())
}

/// The rotation. The hub's own kind, `ntk`, holds for texts of every length: `(theta f)^(-2i / dim) / f^(2 / dim)` (Su, "NTK-RoPE", kexue.fm 9706).
fn rotation(config: &Json, turn: &Turn) -> Result<Rope, LoadError> {
    let Some(scaling) = config.object("rope_scaling")?.filter(|scaling| scaling.get("type").is_some_and(|kind| kind == "ntk")) else {
        return rope::read(config, turn);
    };
    let scaling = Json::of(format!("{}: rope_scaling", config.file()), scaling.clone());
    scaling.only(&["type", "factor"])?;
    let factor = rope::factor(&scaling)?;
    let theta = rope::theta(config, "rope_theta", turn.theta)? * factor;
    let stretch = factor.powf(2. / turn.dim as f64);
    let frequencies = Rope::plain(turn.dim, theta).into_iter().map(|frequency| (f64::from(frequency) / stretch) as f32).collect();
    Ok(Rope { frequencies: Frequencies::Fixed(frequencies), ..rope::plain(turn.dim, theta) })
}
