//! RoBERTa with its norms before its parts (transformers' `RobertaPreLayerNormModel`; Ott et al. 2019 for the order): RoBERTa's tables and
//! positions, pre-norm layers, a norm behind the last.

use super::json::Json;
use super::parts::{Names, layers, size};
use super::postnorm::{BASE, BERT, Parts, PostNorm, Rows};
use crate::network::{Layer, LoadError, Network, Norms, PositionBias, WeightTable};
use std::sync::Arc;

/// BERT's names, but for the norms, which stand where they are applied.
const PARTS: Parts = Parts { attention_norm: "attention.LayerNorm", mlp_norm: "intermediate.LayerNorm", ..BERT };

/// Describes the network. Sizes that config.json leaves out have the defaults of `RobertaPreLayerNormConfig`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let names = Names::of(weights, &["roberta_prelayernorm."], "embeddings.word_embeddings.weight");
    let page = PostNorm::read(config, names, PARTS, &BASE)?;
    let padding = config.usize("pad_token_id")?.unwrap_or(1);
    let padding = u32::try_from(padding).map_err(|_| config.refuse("pad_token_id", format!("{padding} is not a token's id")))?;
    let embeddings = page.embeddings(page.width, Rows::after_padding(config, 50265, padding)?, Some(size(config, "type_vocab_size", 2)?))?;
    let count = layers(config, "num_hidden_layers", 12)?;
    let layers = (0..count).map(|index| page.layer(&format!("encoder.layer.{index}"), PositionBias::None).map(|layer| Arc::new(pre_norm(layer))));
    let norm = Some(page.names.layer_norm("LayerNorm", page.width, page.eps)?);
    Ok(Network { norm, ..Network::of_layers(page.width, embeddings, layers.collect::<Result<_, _>>()?) })
}

/// The same layer with its norms moved from behind the residuals to before the parts.
fn pre_norm(layer: Layer) -> Layer {
    let before = |norms: Norms| Norms { before: norms.after, ..Norms::default() };
    Layer { attention_norms: before(layer.attention_norms), mlp_norms: before(layer.mlp_norms), ..layer }
}
