//! ELECTRA (Clark et al. 2020): BERT's network, its embeddings perhaps narrower than its layers and then projected.

use super::json::Json;
use super::parts::{Names, size};
use super::postnorm::{BASE, BERT, Defaults, PostNorm, Rows};
use crate::network::{LoadError, Network, PositionBias, Projection, WeightTable};

const DEFAULTS: Defaults = Defaults { width: 256, heads: 4, inner: 1024, ..BASE };

/// Describes the network. Sizes that config.json leaves out have the defaults of transformers' `ElectraConfig`.
pub fn describe(config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    let names = Names::of(weights, &["electra."], "embeddings.word_embeddings.weight");
    let page = PostNorm::read(config, names, BERT, &DEFAULTS)?;
    let inner = size(config, "embedding_size", 128)?;
    let mut embeddings = page.embeddings(inner, Rows::read(config, DEFAULTS.vocabulary)?, Some(size(config, "type_vocab_size", 2)?))?;
    if inner != page.width {
        embeddings.projection = Some(Projection { linear: page.names.linear("embeddings_project", page.width, inner, true)?, norm: None });
    }
    let layers = page.layers(config.usize("num_hidden_layers")?.unwrap_or(12), "encoder.layer", &PositionBias::None)?;
    Ok(Network::of_layers(page.width, embeddings, layers))
}
