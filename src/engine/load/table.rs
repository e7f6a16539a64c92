//! A table of static embeddings: how long its texts may be and how they become ids, by who runs it: sentence-transformers or model2vec alone.

use super::info::TextRules;
use super::transformer::Limits;
use crate::encoders::json::{Json, read_bytes};
use crate::engine::pipeline::{Stages, modules};
use crate::network::{LoadError, Network};
use std::path::Path;

/// model2vec's `max_length` where config.json has none.
const MODEL2VEC_MAX_LENGTH: usize = 512;

/// Under sentence-transformers' StaticEmbedding a text is as long as tokenizer.json's own truncation allows.
///
/// # Errors
/// A tokenizer.json that is broken, a limit of no tokens.
pub fn limits(dir: &Path, network: &Network, asked: Option<usize>) -> Result<Limits, LoadError> {
    #[derive(serde::Deserialize)]
    struct File {
        truncation: Option<Truncation>,
    }
    #[derive(serde::Deserialize)]
    struct Truncation {
        max_length: usize,
    }
    let path = dir.join("tokenizer.json");
    let file = path.display().to_string();
    let bytes = read_bytes(&path)?.ok_or_else(|| LoadError::file(&file, "is missing"))?;
    let parsed: File = serde_json::from_slice(&bytes).map_err(|error| LoadError::file(&file, format!("is not a tokenizer: {error}")))?;
    limited(parsed.truncation.map(|truncation| truncation.max_length), network, asked, &file, "truncation.max_length")
}

/// What model2vec makes of a checkpoint without modules.json: the average of the tokens that it knows, of unit length if config.json says
/// `normalize`, at most `max_length` tokens of it.
///
/// # Errors
/// A field of config.json that is malformed.
pub fn alone(config: &Json, network: &Network, asked: Option<usize>) -> Result<(Limits, TextRules, Stages), LoadError> {
    const FIELD: &str = "max_length";
    let own = if config.says(FIELD) && config.get(FIELD).is_none() { None } else { Some(config.usize(FIELD)?.unwrap_or(MODEL2VEC_MAX_LENGTH)) };
    let limits = limited(own, network, asked, config.file(), FIELD)?;
    let bounded_characters = own.is_some() || asked.is_some();
    let text = TextRules { special_tokens: false, drop_unknown: true, bounded_characters, ..TextRules::default() };
    Ok((limits, text, modules::of_table(network.width, config.bool("normalize")?.unwrap_or(false))))
}

/// The operator's limit, else the model's own, never more than the table takes.
fn limited(own: Option<usize>, network: &Network, asked: Option<usize>, file: &str, field: &str) -> Result<Limits, LoadError> {
    let positions = network.max_tokens;
    match (asked, own) {
        (Some(asked), _) if !(1..=positions).contains(&asked) => {
            Err(LoadError::option("max_tokens", format!("{asked} is impossible: the model allows 1 to {positions}")))
        }
        (None, Some(0)) => Err(LoadError::field(file, field, "must be at least 1, but is 0")),
        _ => Ok(Limits { max_tokens: asked.or(own).map_or(positions, |tokens| tokens.min(positions)), positions }),
    }
}
