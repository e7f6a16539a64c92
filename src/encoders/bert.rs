//! BERT (Devlin et al. 2018): the network that transformers calls `BertModel`, without its pooler, which sentence-transformers does not use.

use super::json::Json;
use super::parts::{Names, size};
use super::postnorm::{BASE, BERT, PostNorm, Rows};
use crate::network::{LoadError, Network, PositionBias, WeightTable};

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `BertConfig`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let names = Names::of(weights, &["bert."], "embeddings.word_embeddings.weight");
    let page = PostNorm::read(config, names, BERT, &BASE)?;
    let embeddings = page.embeddings(page.width, Rows::read(config, BASE.vocabulary)?, Some(size(config, "type_vocab_size", 2)?))?;
    let layers = page.layers(config.usize("num_hidden_layers")?.unwrap_or(12), "encoder.layer", &PositionBias::None)?;
    Ok(Network::of_layers(page.width, embeddings, layers))
}
