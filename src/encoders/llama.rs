//! Llama (Touvron et al. 2023) and Mistral (Jiang et al. 2023) as encoders, with e5-mistral: the plain decoder, and the same with a window.

use super::decoder::{Biases, Decoder, Defaults, Sight, refuse_gemma_switch};
use super::json::Json;
use crate::network::{LoadError, Mask, Network, Pairing, WeightTable};

const LLAMA: Defaults = Defaults {
    vocabulary: 32000,
    width: 4096,
    inner: 11008,
    layers: 32,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    max_tokens: 2048,
    activation: ("hidden_act", "silu"),
};

const MISTRAL: Defaults = Defaults { inner: 14336, kv_heads: Some(8), max_tokens: 131_072, ..LLAMA };

/// Llama, causal unless `is_causal` is false.
pub fn llama(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let class = config.list("architectures")?.and_then(|list| list.first()).and_then(|class| class.as_str()).unwrap_or_default();
    if class.contains("Bidirec") {
        return Err(config.refuse("architectures", format!("`{class}` has no causal mask: its model_type is `llama_bidirec`, not `llama`")));
    }
    let decoder = read(config, weights)?;
    let causal = decoder.causal()?;
    same_everywhere(&decoder, Mask { causal, reach: None })
}

/// Llama as GGUF files hold it: the dimensions of queries and keys are stored so that neighbours make a pair.
pub fn llama_neighbours(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let mut decoder = read(config, weights)?;
    decoder.pairing = Pairing::Neighbours;
    same_everywhere(&decoder, Mask { causal: true, reach: None })
}

/// NVIDIA's `LlamaBidirectionalModel`: Llama without a mask. Its `pooling` must be what the pipeline does, which is read elsewhere; its
/// `temperature` is for training.
pub fn llama_bidirec(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    same_everywhere(&read(config, weights)?, Mask::ALL)
}

fn read<'a>(config: &'a Json, weights: &'a WeightTable) -> Result<Decoder<'a>, LoadError> {
    let mut decoder = Decoder::read(config, weights, &LLAMA)?;
    let bias = config.bool("attention_bias")?.unwrap_or(false);
    decoder.biases = Biases { qkv: bias, output: bias, mlp: config.bool("mlp_bias")?.unwrap_or(false) };
    Ok(decoder)
}

/// Mistral: no bias anywhere; a window in every layer, which may be switched off with `null` and is 4096 tokens where it is not named at all.
pub fn mistral(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let decoder = Decoder::read(config, weights, &MISTRAL)?;
    if config.get("layer_types").is_some() {
        return Err(config.refuse("layer_types", "is not read for this architecture, whose layers are all alike"));
    }
    let causal = decoder.causal()?;
    let window = decoder.window_tokens(4096)?.map(|tokens| Decoder::window(causal, tokens));
    same_everywhere(&decoder, window.unwrap_or(Mask { causal, reach: None }))
}

fn same_everywhere(decoder: &Decoder, mask: Mask) -> Result<Network, LoadError> {
    refuse_gemma_switch(decoder.config)?;
    let sight = Sight { mask, rope: decoder.rope(10_000.)? };
    decoder.network(&vec![sight; decoder.layers])
}
