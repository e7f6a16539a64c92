//! RoBERTa (Liu et al. 2019), and under the same names XLM-RoBERTa (Conneau et al. 2019) and CamemBERT (Martin et al. 2019): BERT's network with
//! positions that begin after the padding token's row.

use super::json::Json;
use super::parts::{Names, size};
use super::postnorm::{BASE, BERT, PostNorm, Rows};
use crate::network::{LoadError, Network, PositionBias, WeightTable};

/// Describes RoBERTa. Sizes that config.json leaves out have the defaults of transformers' `RobertaConfig`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    with_vocabulary(config, weights, 50265)
}

/// Describes XLM-RoBERTa or CamemBERT, by the defaults of `XLMRobertaConfig` and `CamembertConfig`.
pub fn describe_multilingual(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    with_vocabulary(config, weights, BASE.vocabulary)
}

fn with_vocabulary(config: &Json, weights: &WeightTable, vocabulary: usize) -> Result<Network, LoadError> {
    let names = Names::of(weights, &["roberta."], "embeddings.word_embeddings.weight");
    let page = PostNorm::read(config, names, BERT, &BASE)?;
    let padding = config.usize("pad_token_id")?.unwrap_or(1);
    let padding = u32::try_from(padding).map_err(|_| config.refuse("pad_token_id", format!("{padding} is not a token's id")))?;
    let rows = Rows::after_padding(config, vocabulary, padding)?;
    let embeddings = page.embeddings(page.width, rows, Some(size(config, "type_vocab_size", 2)?))?;
    let layers = page.layers(config.usize("num_hidden_layers")?.unwrap_or(12), "encoder.layer", &PositionBias::None)?;
    Ok(Network::of_layers(page.width, embeddings, layers))
}
