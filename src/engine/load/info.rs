//! What clients and operators may know of a loaded model: sizes, limits, prompts.

use super::decisions::Decision;
use super::transformer::{Limits, Transformer};
use crate::encoders::json::{Json, short};
use crate::engine::pipeline::Pipeline;
use crate::kernels::device::Device;
use crate::network::{DType, LoadError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Facts about a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// `model_type` of its config.json.
    pub architecture: &'static str,
    /// `C`: width of the encoder's hidden state.
    pub hidden_size: usize,
    /// Size of the vectors that leave the pipeline.
    pub dimensions: usize,
    /// The longest text it takes, in tokens, special tokens included.
    pub max_tokens: usize,
    /// The longest text its position table reaches: `max_tokens` may be raised up to here.
    pub position_limit: usize,
    /// `V`: rows of the embedding table.
    pub vocabulary: usize,
    /// Texts put before the input, by name.
    pub prompts: BTreeMap<String, String>,
    /// The prompt used where the caller names none.
    pub default_prompt_name: Option<String>,
    /// True if modules.json ends in Normalize: the vectors have unit length.
    pub normalized: bool,
    /// Sizes the vectors may be cut to, where config.json declares them.
    pub matryoshka: Option<Vec<usize>>,
    pub device: Device,
    /// What the encoder computes in.
    pub dtype: DType,
    /// What the weights occupy where they compute.
    pub weight_bytes: usize,
    /// The directory with the tokenizer's files.
    pub tokenizer_dir: PathBuf,
    /// Lowercase the text before the tokenizer's own normalisation.
    pub do_lower_case: bool,
    /// SPDX identifier of the weights' licence, where card or README state it.
    pub license: Option<String>,
    /// What follows the encoder, in words: the same words, the same computation.
    pub stages: String,
    /// What was decided, and which file or option decided it.
    pub decisions: Vec<Decision>,
}

/// What is known before the pipeline is built.
pub struct About {
    pub architecture: &'static str,
    pub hidden_size: usize,
    pub vocabulary: usize,
    pub limits: Limits,
    pub device: Device,
    pub dtype: DType,
}

/// Completes the facts from the files.
pub fn read(root: &Path, encoder: &Path, config: &Json, own: &Transformer, pipeline: &Pipeline, about: About) -> Result<ModelInfo, LoadError> {
    let (prompts, default_prompt_name) = prompts(root)?;
    Ok(ModelInfo {
        architecture: about.architecture,
        hidden_size: about.hidden_size,
        dimensions: pipeline.dim(),
        max_tokens: about.limits.max_tokens,
        position_limit: about.limits.positions,
        vocabulary: about.vocabulary,
        prompts,
        default_prompt_name,
        normalized: pipeline.normalized(),
        matryoshka: matryoshka(config, pipeline.dim())?,
        device: about.device,
        dtype: about.dtype,
        weight_bytes: pipeline.weight_bytes(),
        tokenizer_dir: encoder.to_owned(),
        do_lower_case: own.do_lower_case,
        license: None,
        stages: pipeline.stages().to_string(),
        decisions: Vec::new(),
    })
}

type Prompts = (BTreeMap<String, String>, Option<String>);

/// `config_sentence_transformers.json`: prompts and the default among them.
fn prompts(root: &Path) -> Result<Prompts, LoadError> {
    let Some(json) = Json::read(&root.join("config_sentence_transformers.json"))? else { return Ok(Prompts::default()) };
    if let Some(kind) = json.str("model_type")?.filter(|kind| *kind != "SentenceTransformer") {
        return Err(json.refuse("model_type", format!("a {kind} is not served, only a SentenceTransformer")));
    }
    let mut prompts = BTreeMap::new();
    for (name, text) in json.object("prompts")?.into_iter().flatten() {
        let text = if text.is_null() { Some("") } else { text.as_str() };
        let text = text.ok_or_else(|| json.refuse(&format!("prompts.{name}"), "must be a string"))?;
        prompts.insert(name.clone(), text.to_owned());
    }
    let default = json.str("default_prompt_name")?.map(str::to_owned);
    if let Some(name) = &default {
        // sentence-transformers gives every model an empty `query` and `document` prompt.
        if ["query", "document"].contains(&name.as_str()) {
            prompts.entry(name.clone()).or_default();
        }
        if !prompts.contains_key(name) {
            return Err(json.refuse("default_prompt_name", format!("`{name}` is not among `prompts`")));
        }
    }
    Ok((prompts, default))
}

fn matryoshka(config: &Json, native: usize) -> Result<Option<Vec<usize>>, LoadError> {
    const FIELD: &str = "matryoshka_dimensions";
    let Some(list) = config.list(FIELD)? else { return Ok(None) };
    let mut sizes = Vec::new();
    for value in list {
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| (1..=native).contains(size));
        sizes.push(size.ok_or_else(|| config.refuse(FIELD, format!("{} is not a size between 1 and {native}", short(value))))?);
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(Some(sizes))
}
