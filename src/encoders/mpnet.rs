//! MPNet (Song et al. 2020): BERT's layers without token types, positions as RoBERTa counts them, and a learned bias per distance, shared by all
//! layers.

use super::json::Json;
use super::parts::Names;
use super::postnorm::{BASE, Defaults, Parts, PostNorm, Rows};
use crate::network::{LoadError, Network, PositionBias, WeightTable};

const PARTS: Parts = Parts {
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    mlp_norm: "output.LayerNorm",
};

/// Constants of transformers' `MPNetModel`: it takes the padding id, the number of buckets and their reach from no configuration.
const PADDING: u32 = 1;
const BUCKETS: usize = 32;
const MAX_DISTANCE: usize = 128;

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `MPNetConfig`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    const FIELD: &str = "relative_attention_num_buckets";
    if let Some(buckets) = config.usize(FIELD)?.filter(|buckets| *buckets != BUCKETS) {
        return Err(config.refuse(FIELD, format!("{buckets} buckets are not computed, only {BUCKETS}, which the reference always counts")));
    }
    let names = Names::of(weights, &["mpnet."], "embeddings.word_embeddings.weight");
    let page = PostNorm::read(config, names, PARTS, &Defaults { vocabulary: 30527, ..BASE })?;
    let embeddings = page.embeddings(page.width, Rows::after_padding(config, 30527, PADDING)?, None)?;
    let table = page.names.get("encoder.relative_attention_bias.weight", &[BUCKETS, page.heads])?;
    let bias = PositionBias::Buckets { table, max_distance: MAX_DISTANCE };
    let layers = page.layers(config.usize("num_hidden_layers")?.unwrap_or(12), "encoder.layer", &bias)?;
    Ok(Network::of_layers(page.width, embeddings, layers))
}
