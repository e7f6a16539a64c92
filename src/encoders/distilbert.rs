//! DistilBERT (Sanh et al. 2019): BERT's layers under other names, without token types.

use super::json::Json;
use super::parts::{Names, activation, heads, size};
use super::postnorm::{BASE, Parts, PostNorm, Rows};
use crate::network::{LoadError, Network, PositionBias, WeightTable};

const PARTS: Parts = Parts {
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    mlp_norm: "output_layer_norm",
};

/// A constant of transformers' `DistilBertModel`, which has no field for it.
const EPS: f64 = 1e-12;

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `DistilBertConfig`. `sinusoidal_pos_embds` says how
/// the position table was made; it is in the file like a learned one.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    if config.object("pruned_heads")?.is_some_and(|heads| !heads.is_empty()) {
        return Err(config.refuse("pruned_heads", "pruned heads are not read"));
    }
    let width = size(config, "dim", BASE.width)?;
    let page = PostNorm {
        names: Names::of(weights, &["distilbert."], "embeddings.word_embeddings.weight"),
        parts: PARTS,
        width,
        heads: heads(config, "n_heads", BASE.heads, width)?,
        inner: size(config, "hidden_dim", BASE.inner)?,
        eps: EPS,
        activation: activation(config, "activation", BASE.activation)?,
    };
    let embeddings = page.embeddings(width, Rows::read(config, BASE.vocabulary)?, None)?;
    let layers = page.layers(config.usize("n_layers")?.unwrap_or(6), "transformer.layer", &PositionBias::None)?;
    Ok(Network::of_layers(width, embeddings, layers))
}
