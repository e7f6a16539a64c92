//! Qwen2 and Qwen3 (Yang et al. 2024, 2025) as encoders, with Qwen3-Embedding and gte-Qwen2: Llama with biases on queries, keys and values, or
//! with norms on queries and keys; windows in the upper layers where they are switched on.

use super::decoder::{Biases, Decoder, Defaults, Kind, Sight, refuse_gemma_switch};
use super::json::Json;
use crate::network::{LoadError, Mask, Network, WeightTable};

const QWEN2: Defaults = Defaults {
    vocabulary: 151_936,
    width: 4096,
    inner: 22016,
    layers: 32,
    heads: 32,
    kv_heads: Some(32),
    head_dim: None,
    max_tokens: 32768,
    activation: ("hidden_act", "silu"),
};

/// Qwen2. The code that comes with gte-Qwen2 and its kin (`modeling_qwen.Qwen2Model`) differs from it by the mask alone, so such a checkpoint must
/// say `is_causal`: false, as those of its authors do; what the code does otherwise is not known here.
pub fn qwen2(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    if config.get("auto_map").is_some() && config.bool("is_causal")? != Some(false) {
        return Err(config.refuse("is_causal", "must be false for a checkpoint that brings its own code, which says nothing else of its mask"));
    }
    let mut decoder = Decoder::read(config, weights, &QWEN2)?;
    decoder.biases = Biases { qkv: true, ..Biases::default() };
    finish(&decoder)
}

/// Qwen3, whose heads have 128 dimensions however wide the network is.
pub fn qwen3(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let mut decoder = Decoder::read(config, weights, &Defaults { head_dim: Some(128), ..QWEN2 })?;
    let bias = config.bool("attention_bias")?.unwrap_or(false);
    decoder.biases = Biases { qkv: bias, output: bias, mlp: false };
    decoder.qk_norm = true;
    finish(&decoder)
}

fn finish(decoder: &Decoder) -> Result<Network, LoadError> {
    let config = decoder.config;
    refuse_gemma_switch(config)?;
    let (causal, rope) = (decoder.causal()?, decoder.rope(10_000.)?);
    let window = if config.bool("use_sliding_window")?.unwrap_or(false) { decoder.window_tokens(4096)? } else { None };
    let lowest = config.usize("max_window_layers")?.unwrap_or(28);
    let kinds = decoder.kinds(|layer| if window.is_some() && layer >= lowest { Kind::Sliding } else { Kind::Full })?;
    let mask = |kind: &Kind| match (kind, window) {
        (Kind::Full, _) => Ok(Mask { causal, reach: None }),
        (Kind::Sliding, Some(tokens)) => Ok(Decoder::window(causal, tokens)),
        (Kind::Sliding, None) => Err(config.refuse("layer_types", "has sliding_attention, but no window is switched on")),
    };
    let sights: Vec<_> = kinds.iter().map(|kind| mask(kind).map(|mask| Sight { mask, rope: rope.clone() })).collect::<Result<_, _>>()?;
    decoder.network(&sights)
}
