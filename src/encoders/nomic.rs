//! NomicBERT v1, v1.5 and v2-MoE (Nussbaum et al. 2024, arXiv:2402.01613; Nussbaum and Duderstadt 2025, arXiv:2502.07972): post-norm, rotary, the
//! MLP gated or plain, in v2 a mixture of experts in every second layer. Keys and names of the hub's code, or those of transformers.

use super::json::Json;
use super::parts::{Names, activation, eps, heads, layers, only_word, refuse_switch, size};
use super::rope::{self, Turn};
use super::rotated::{Layout, Maps, Post};
use crate::network::{Activation, Expert, Experts, Layer, LoadError, Mlp, Network, Rope, WeightTable};
use std::sync::Arc;

/// The names that the hub's code gives, and that transformers saves under.
const HUB: Layout = Layout {
    embedding_norm: "emb_ln",
    layers: "encoder.layers",
    query_key_value: Maps::Stacked("attn.Wqkv"),
    output: "attn.out_proj",
    attention_norm: "norm1",
    up_gate: Maps::Each(["mlp.fc11", "mlp.fc12"]),
    down: "mlp.fc2",
    mlp_norm: "norm2",
};

/// What either kind of config.json says.
struct Sizes {
    width: usize,
    heads: usize,
    head_dim: usize,
    inner: usize,
    layers: usize,
    vocabulary: usize,
    types: usize,
    eps: f64,
    max_tokens: usize,
    gated: bool,
    activation: Activation,
    /// On queries, keys, values and the output.
    attention_bias: bool,
    up_bias: bool,
    down_bias: bool,
    mixture: Option<Mixture>,
    rope: Rope,
}

/// Layers with index 1 modulo `every` choose `top_k` of `experts`.
struct Mixture {
    every: usize,
    experts: usize,
    top_k: usize,
}

/// Describes the network.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let sizes = if config.get("n_embd").is_some() { hub(config)? } else { native(config)? };
    let names = Names::of(weights, &["nomic_bert.", "bert."], "embeddings.word_embeddings.weight");
    let post = Post {
        layout: Layout::of(&names, &HUB),
        names,
        width: sizes.width,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        eps: sizes.eps,
        bias: sizes.attention_bias,
        rope: Arc::new(sizes.rope.clone()),
    };
    let embeddings = post.embeddings(sizes.vocabulary(config, &post.names)?, sizes.types)?;
    let layers = (0..sizes.layers).map(|index| sizes.layer(&post, index).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Network { width: sizes.width, max_tokens: sizes.max_tokens, embeddings, layers, norm: None, adapters: 0 })
}

/// Reads transformers' `NomicBertConfig`: a gated MLP and no bias but those of the norms.
fn native(config: &Json) -> Result<Sizes, LoadError> {
    let width = size(config, "hidden_size", 768)?;
    let heads = heads(config, "num_attention_heads", 12, width)?;
    let head_dim = size(config, "head_dim", width / heads)?;
    let max_tokens = size(config, "max_position_embeddings", 2048)?;
    Ok(Sizes {
        width,
        heads,
        head_dim,
        inner: size(config, "intermediate_size", 3072)?,
        layers: layers(config, "num_hidden_layers", 12)?,
        vocabulary: size(config, "vocab_size", 30528)?,
        types: size(config, "type_vocab_size", 2)?,
        eps: eps(config, "layer_norm_eps", 1e-12)?,
        max_tokens,
        gated: true,
        activation: activation(config, "hidden_act", "silu")?,
        attention_bias: false,
        up_bias: false,
        down_bias: false,
        mixture: None,
        rope: rope::read(config, &Turn { dim: head_dim, theta: 1000., max_tokens })?,
    })
}

/// Reads the hub's `NomicBertConfig`, a GPT-2 configuration with more keys. What decides the network must be said: its defaults are those of
/// another model. `fused_*`, `use_flash_attn`, `use_xentropy` and `dense_seq_output` choose how, not what is computed.
fn hub(config: &Json) -> Result<Sizes, LoadError> {
    refuse_other_networks(config)?;
    refuse_contradictions(config)?;
    let needed = |field: &str| match config.usize(field)? {
        None => Err(config.refuse(field, "is missing")),
        Some(_) => size(config, field, 1),
    };
    let width = needed("n_embd")?;
    let heads = heads(config, "n_head", 12, width)?;
    let (gated, activation) = match config.str("activation_function")? {
        Some("swiglu") => (true, Activation::Silu),
        Some("geglu") => (true, Activation::Gelu),
        Some("glu") => (true, Activation::Sigmoid),
        Some("gelu") => (false, Activation::Gelu),
        other => {
            let what = other.map_or("is missing".to_owned(), |name| format!("`{name}` is not computed for this architecture"));
            return Err(config.refuse("activation_function", format!("{what}; known: swiglu, geglu, glu, gelu")));
        }
    };
    let bias = |field: &str| config.bool(field).map(|bias| bias.unwrap_or(true));
    Ok(Sizes {
        width,
        heads,
        head_dim: width / heads,
        inner: needed("n_inner")?,
        layers: layers(config, "n_layer", 12)?,
        vocabulary: needed("vocab_size")?,
        types: config.usize("type_vocab_size")?.unwrap_or(2),
        eps: eps(config, "layer_norm_epsilon", 1e-5)?,
        max_tokens: needed("n_positions")?,
        gated,
        activation,
        attention_bias: bias("qkv_proj_bias")?,
        up_bias: bias("mlp_fc1_bias")?,
        down_bias: bias("mlp_fc2_bias")?,
        mixture: mixture(config)?,
        rope: hub_rotation(config, width / heads)?,
    })
}

/// What the hub's code can do beside, and no checkpoint that is known uses.
fn refuse_other_networks(config: &Json) -> Result<(), LoadError> {
    for (field, meaning) in [
        ("causal", "a causal decoder is not an embedding encoder"),
        ("prenorm", "norms before the parts are not computed for this architecture"),
        ("parallel_block", "attention and MLP side by side are not computed"),
        ("parallel_block_tied_norm", "attention and MLP side by side are not computed"),
        ("use_rms_norm", "RMS norms are not computed for this architecture"),
        ("rotary_emb_interleaved", "neighbouring pairs are not computed for this architecture"),
        ("scale_attn_by_inverse_layer_idx", "scores scaled by the layer are not computed"),
        ("reorder_and_upcast_attn", "scores scaled by the layer are not computed"),
        ("moe_normalize_expert_weights", "experts whose weights are scaled to a sum of 1 are not computed"),
        ("expert_choice_router", "experts that choose their tokens are not computed: a vector would depend on its batch"),
    ] {
        refuse_switch(config, field, meaning)?;
    }
    if config.bool("scale_attn_weights")? == Some(false) {
        return Err(config.refuse("scale_attn_weights", "scores that are not scaled are not computed"));
    }
    for (field, neutral) in [("num_shared_experts", 0), ("ffn_div", 1)] {
        if let Some(other) = config.usize(field)?.filter(|value| *value != neutral) {
            return Err(config.refuse(field, format!("must be {neutral} for this architecture, but is {other}")));
        }
    }
    match config.get("rotary_emb_scale_base") {
        Some(_) => Err(config.refuse("rotary_emb_scale_base", "rotation that decays with distance is not computed")),
        None => Ok(()),
    }
}

/// Newer files have the keys of transformers beside: both must mean one network. Lengths may differ, the hub's being what is served.
fn refuse_contradictions(config: &Json) -> Result<(), LoadError> {
    for (hub, native) in [
        ("n_embd", "hidden_size"),
        ("n_head", "num_attention_heads"),
        ("n_layer", "num_hidden_layers"),
        ("n_inner", "intermediate_size"),
        ("layer_norm_epsilon", "layer_norm_eps"),
    ] {
        if let (Some(hub_value), Some(native_value)) = (config.f64(hub)?, config.f64(native)?)
            && hub_value != native_value
        {
            return Err(config.refuse(native, format!("is {native_value}, but `{hub}` is {hub_value}")));
        }
    }
    let Some(rope) = config.object("rope_parameters")? else { return Ok(()) };
    let rope = Json::of(format!("{}: rope_parameters", config.file()), rope.clone());
    only_word(&rope, "rope_type", "default")?;
    match (rope.f64("rope_theta")?, config.f64("rotary_emb_base")?) {
        (Some(theta), Some(base)) if theta != base => Err(rope.refuse("rope_theta", format!("is {theta}, but `rotary_emb_base` is {base}"))),
        _ => Ok(()),
    }
}

/// The experts, where `moe_every_n_layers` asks for them.
fn mixture(config: &Json) -> Result<Option<Mixture>, LoadError> {
    let every = config.usize("moe_every_n_layers")?.unwrap_or(0);
    if every == 0 {
        return Ok(None);
    }
    if every == 1 {
        return Err(config.refuse("moe_every_n_layers", "must be 0 or at least 2: the reference looks for the remainder 1"));
    }
    let (experts, top_k) = (size(config, "num_experts", 0)?, size(config, "moe_top_k", 0)?);
    if top_k > experts {
        return Err(config.refuse("moe_top_k", format!("must be at most {experts}, but is {top_k}")));
    }
    Ok(Some(Mixture { every, experts, top_k }))
}

/// The first `rotary_emb_fraction` of each head is turned; with `rotary_scaling_factor` theta grows for texts beyond `max_trained_positions`.
fn hub_rotation(config: &Json, head_dim: usize) -> Result<Rope, LoadError> {
    let part = config.f64("rotary_emb_fraction")?.unwrap_or(0.);
    let dim = (part * head_dim as f64) as usize;
    let pairs = part > 0. && part <= 1. && dim > 0 && dim.is_multiple_of(2);
    if !pairs {
        return Err(config.refuse("rotary_emb_fraction", format!("{part} of heads of {head_dim} dimensions cannot be turned in pairs")));
    }
    let theta = rope::theta(config, "rotary_emb_base", 10_000.)?;
    let turn = Turn { dim, theta, max_tokens: 0 };
    match config.f64("rotary_scaling_factor")? {
        // The reference asks whether it is true: 0 is not.
        None | Some(0.) => Ok(rope::plain(dim, theta)),
        Some(factor) if factor.is_finite() && factor >= 1. => {
            let trained = size(config, "max_trained_positions", 2048)?;
            rope::dynamic_from(config, trained, factor, &turn)
        }
        Some(factor) => Err(config.refuse("rotary_scaling_factor", format!("must be at least 1, but is {factor}"))),
    }
}

impl Sizes {
    /// Rows of the token table. The hub's code fills it up to a multiple of `pad_vocab_size_multiple`, transformers does not.
    fn vocabulary(&self, config: &Json, names: &Names) -> Result<usize, LoadError> {
        let filled = self.vocabulary.checked_next_multiple_of(size(config, "pad_vocab_size_multiple", 1)?);
        let rows = names.shape("embeddings.word_embeddings.weight").and_then(|shape| shape.first().copied());
        Ok(if rows.is_some() && rows == filled { filled.unwrap_or(self.vocabulary) } else { self.vocabulary })
    }

    fn layer(&self, post: &Post, index: usize) -> Result<Layer, LoadError> {
        let p = format!("{}.{index}", post.layout.layers);
        let mlp = match &self.mixture {
            Some(mixture) if index % mixture.every == 1 => Mlp::Experts(self.experts(mixture, &post.names, &format!("{p}.mlp"))?),
            _ => self.mlp(post, &p)?,
        };
        Ok(Layer {
            attention: post.attention(&p)?,
            attention_norms: post.norm(&p, post.layout.attention_norm)?,
            mlp,
            mlp_norms: post.norm(&p, post.layout.mlp_norm)?,
            convolution: None,
        })
    }

    fn mlp(&self, post: &Post, p: &str) -> Result<Mlp, LoadError> {
        let (names, layout) = (&post.names, post.layout);
        let down = names.linear(&format!("{p}.{}", layout.down), self.width, self.inner, self.down_bias)?;
        if !self.gated {
            let up = names.linear(&format!("{p}.mlp.fc1"), self.inner, self.width, self.up_bias)?;
            return Ok(Mlp::Plain { up, activation: self.activation, down });
        }
        let [up, gate] = layout.up_gate.get(names, p, [self.inner; 2], self.width, self.up_bias)?;
        Ok(Mlp::Gated { gate, up, activation: self.activation, down })
    }

    /// Experts one below the other in two tensors, `[experts F, C]` each (MegaBlocks, Gale et al. 2022).
    fn experts(&self, mixture: &Mixture, names: &Names, p: &str) -> Result<Experts, LoadError> {
        let (count, inner, width) = (mixture.experts, self.inner, self.width);
        let all = |name: &str| names.get(&format!("{p}.experts.mlp.{name}"), &[count * inner, width]);
        let (up, down) = (all("w1")?, all("w2")?);
        let expert = |index: usize| {
            let rows = index * inner..(index + 1) * inner;
            Ok(Expert { up: up.rows(rows.clone())?, down: down.rows(rows)? })
        };
        Ok(Experts {
            router: names.linear(&format!("{p}.router.layer"), count, width, false)?,
            top_k: mixture.top_k,
            activation: self.activation,
            experts: (0..count).map(expert).collect::<Result<_, LoadError>>()?,
            bias: Some(names.get(&format!("{p}.experts.bias"), &[width])?),
        })
    }
}
