//! Gemma 3 (Gemma Team 2025) as an encoder, with EmbeddingGemma: norms of `1 + weight` on both sides of every part and on queries and keys, scaled
//! embeddings, windows in most layers, and another rotation in the layers without one.

use super::decoder::{Biases, Decoder, Defaults, Kind, Sight};
use super::json::Json;
use super::parts::size;
use super::rope;
use crate::network::{LoadError, Mask, Network, NormKind, Rope, WeightTable};
use std::sync::Arc;

const GEMMA3: Defaults = Defaults {
    vocabulary: 262_208,
    width: 2304,
    inner: 9216,
    layers: 26,
    heads: 8,
    kv_heads: Some(4),
    head_dim: Some(256),
    max_tokens: 131_072,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
};

/// Gemma 3's text model.
pub fn gemma3(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    describe(config, weights, NormKind::RmsPlusOne)
}

/// The same as GGUF files hold it: the norms' weights have their one already.
pub fn gemma3_whole_norms(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    describe(config, weights, NormKind::Rms)
}

fn describe(config: &Json, weights: &WeightTable, norm: NormKind) -> Result<Network, LoadError> {
    let mut decoder = Decoder::read(config, weights, &GEMMA3)?;
    let bias = config.bool("attention_bias")?.unwrap_or(false);
    decoder.biases = Biases { qkv: bias, output: bias, mlp: false };
    (decoder.norm, decoder.sandwich, decoder.qk_norm) = (norm, true, true);
    decoder.embedding_scale = (decoder.width as f64).sqrt();
    decoder.score_scale = (size(config, "query_pre_attn_scalar", 256)? as f64).sqrt().recip();
    let both_ways = both_ways(&decoder)?;
    let (local, global) = ropes(&decoder)?;
    let every = size(config, "sliding_window_pattern", 6)?;
    let kinds = decoder.kinds(|layer| if (layer + 1).is_multiple_of(every) { Kind::Full } else { Kind::Sliding })?;
    let tokens = decoder.window_tokens(4096)?.ok_or_else(|| config.refuse("sliding_window", "must be a number, but is null"))?;
    // Both ways the window is halved: so many tokens on each side. `Decoder::window` would be transformers' form for `is_causal`, which Gemma
    // does not use.
    let window = if both_ways { Mask { causal: false, reach: Some(tokens / 2) } } else { Decoder::window(true, tokens) };
    let sight = |kind: &Kind| match kind {
        Kind::Full => Sight { mask: Mask { causal: !both_ways, reach: None }, rope: global.clone() },
        Kind::Sliding => Sight { mask: window, rope: local.clone() },
    };
    decoder.network(&kinds.iter().map(sight).collect::<Vec<_>>())
}

/// Gemma's own word is `use_bidirectional_attention`; what `is_causal`: false does to its windows differs from it, so the two may not be mixed.
fn both_ways(decoder: &Decoder) -> Result<bool, LoadError> {
    if !decoder.causal()? {
        return Err(decoder.config.refuse("is_causal", "Gemma says `use_bidirectional_attention`; both together are unclear"));
    }
    Ok(decoder.config.bool("use_bidirectional_attention")?.unwrap_or(false))
}

/// The rotations of layers with and without a window: `rope_parameters` by kind, or as earlier releases of transformers wrote them, where the
/// scaling is that of the layers without a window.
fn ropes(decoder: &Decoder) -> Result<(Arc<Rope>, Arc<Rope>), LoadError> {
    let (config, local_theta, global_theta) = (decoder.config, 10_000., 1_000_000.);
    if let Some(kinds) = config.object("rope_parameters")? {
        if let Some(name) = kinds.keys().find(|name| !matches!(name.as_str(), "sliding_attention" | "full_attention")) {
            return Err(config.refuse(&format!("rope_parameters.{name}"), "is not a kind of layer; known: sliding_attention, full_attention"));
        }
        let global_theta = config.f64("rope_theta")?.unwrap_or(global_theta);
        let kind = |name: &str, theta: f64| {
            let named = rope::of_kind(config, name, &decoder.turn(theta))?;
            Ok::<_, LoadError>(Arc::new(named.unwrap_or_else(|| rope::plain(decoder.head_dim, theta))))
        };
        return Ok((kind("sliding_attention", local_theta)?, kind("full_attention", global_theta)?));
    }
    let local = config.f64("rope_local_base_freq")?.unwrap_or(local_theta);
    if !(local.is_finite() && local > 0.) {
        return Err(config.refuse("rope_local_base_freq", format!("must be above 0, but is {local}")));
    }
    Ok((Arc::new(rope::plain(decoder.head_dim, local)), decoder.rope(global_theta)?))
}
