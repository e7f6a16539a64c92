//! ALBERT (Lan et al. 2019): BERT's layers with narrow embeddings, a few sets of weights being applied again and again.

use super::json::Json;
use super::parts::{Names, size};
use super::postnorm::{Defaults, Parts, PostNorm, Rows};
use crate::network::{LoadError, Network, PositionBias, Projection, WeightTable};
use std::sync::Arc;

const PARTS: Parts = Parts {
    query: "attention.query",
    key: "attention.key",
    value: "attention.value",
    output: "attention.dense",
    attention_norm: "attention.LayerNorm",
    up: "ffn",
    down: "ffn_output",
    mlp_norm: "full_layer_layer_norm",
};

const DEFAULTS: Defaults = Defaults { width: 4096, heads: 64, inner: 16384, activation: "gelu_new", vocabulary: 30000 };

/// Layers that are shared cost no weights, so the file's length does not bound their number.
const MAX_LAYERS: usize = 1024;

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `AlbertConfig`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let names = Names::of(weights, &["albert."], "embeddings.word_embeddings.weight");
    let page = PostNorm::read(config, names, PARTS, &DEFAULTS)?;
    let inner = size(config, "embedding_size", 128)?;
    let mut embeddings = page.embeddings(inner, Rows::read(config, DEFAULTS.vocabulary)?, Some(size(config, "type_vocab_size", 2)?))?;
    embeddings.projection =
        Some(Projection { linear: page.names.linear("encoder.embedding_hidden_mapping_in", page.width, inner, true)?, norm: None });

    let layers = config.usize("num_hidden_layers")?.unwrap_or(12);
    let (groups, in_group) = (size(config, "num_hidden_groups", 1)?, size(config, "inner_group_num", 1)?);
    if layers.saturating_mul(in_group) > MAX_LAYERS {
        return Err(config.refuse("num_hidden_layers", format!("{layers} times {in_group} layers are more than {MAX_LAYERS}")));
    }
    let group = |index: usize| {
        let name = |inner: usize| format!("encoder.albert_layer_groups.{index}.albert_layers.{inner}");
        (0..in_group).map(|inner| page.layer(&name(inner), PositionBias::None).map(Arc::new)).collect::<Result<Vec<_>, _>>()
    };
    let groups = (0..groups).map(group).collect::<Result<Vec<_>, _>>()?;
    // Rounded as the reference does, where the groups do not divide the layers.
    let per_group = layers as f64 / groups.len() as f64;
    let layers = (0..layers).filter_map(|layer| groups.get((layer as f64 / per_group) as usize)).flatten().cloned().collect();
    Ok(Network::of_layers(page.width, embeddings, layers))
}
