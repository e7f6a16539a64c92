//! What clients and operators may know of a loaded model: sizes, limits, prompts.

use super::decisions::Decision;
use super::transformer::Limits;
use crate::encoders::json::{Json, short};
use crate::engine::pipeline::Pipeline;
use crate::exec::Need;
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
    /// The network's sets of low-rank deltas, by the name of their task.
    pub adapters: BTreeMap<String, usize>,
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
    /// What was counted of the machine's memory before it was loaded.
    pub need: Need,
    /// The directory with the tokenizer's files, or the GGUF file that holds it.
    pub tokenizer_dir: PathBuf,
    pub text: TextRules,
    /// SPDX identifier of the weights' licence, where card or README state it.
    pub license: Option<String>,
    /// What follows the encoder, in words: the same words, the same computation.
    pub stages: String,
    /// What was decided, and which file or option decided it.
    pub decisions: Vec<Decision>,
}

/// How a text becomes ids, beside what the tokenizer's own file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRules {
    /// Lowercase the text before the tokenizer's own normalisation.
    pub do_lower_case: bool,
    /// Put the tokenizer's special tokens around a text.
    pub special_tokens: bool,
    /// Leave out tokens that the vocabulary does not know.
    pub drop_unknown: bool,
    /// Look at no more characters of a text than `max_tokens` tokens of the vocabulary's median length have.
    pub bounded_characters: bool,
}

impl Default for TextRules {
    /// What every transformer asks for.
    fn default() -> Self {
        Self { do_lower_case: false, special_tokens: true, drop_unknown: false, bounded_characters: false }
    }
}

/// What is known before the pipeline is built.
pub struct About {
    pub architecture: &'static str,
    pub hidden_size: usize,
    pub vocabulary: usize,
    /// How many sets of low-rank deltas the network has.
    pub adapters: usize,
    pub limits: Limits,
    pub text: TextRules,
    pub device: Device,
    pub dtype: DType,
}

/// Completes the facts from the files.
pub fn read(root: &Path, encoder: &Path, config: &Json, pipeline: &Pipeline, about: About) -> Result<ModelInfo, LoadError> {
    let (mut prompts, default_prompt_name) = prompts(root)?;
    let adapters = if about.adapters == 0 { BTreeMap::new() } else { tasks(config, about.adapters, &mut prompts)? };
    Ok(ModelInfo {
        architecture: about.architecture,
        hidden_size: about.hidden_size,
        dimensions: pipeline.dim(),
        max_tokens: about.limits.max_tokens,
        position_limit: about.limits.positions,
        vocabulary: about.vocabulary,
        prompts,
        adapters,
        default_prompt_name,
        normalized: pipeline.normalized(),
        matryoshka: matryoshka(config, pipeline.dim())?,
        device: about.device,
        dtype: about.dtype,
        weight_bytes: pipeline.weight_bytes(),
        need: Need::default(),
        tokenizer_dir: encoder.to_owned(),
        text: about.text,
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

/// The names of the network's sets of deltas, in their order; the instructions that belong to them join the prompts.
fn tasks(config: &Json, count: usize, prompts: &mut BTreeMap<String, String>) -> Result<BTreeMap<String, usize>, LoadError> {
    const NAMES: &str = "lora_adaptations";
    const INSTRUCTIONS: &str = "task_instructions";
    let mut adapters = BTreeMap::new();
    for (index, name) in config.list(NAMES)?.unwrap_or_default().iter().enumerate() {
        let name = name.as_str().ok_or_else(|| config.refuse(NAMES, format!("{} is not a name", short(name))))?;
        if adapters.insert(name.to_owned(), index).is_some() {
            return Err(config.refuse(NAMES, format!("`{name}` is there twice")));
        }
    }
    if adapters.len() != count {
        return Err(config.refuse(NAMES, format!("has {} names for {count} sets of deltas", adapters.len())));
    }
    for (name, text) in config.object(INSTRUCTIONS)?.into_iter().flatten() {
        let text = text.as_str().ok_or_else(|| config.refuse(&format!("{INSTRUCTIONS}.{name}"), "must be a string"))?;
        if !adapters.contains_key(name) {
            return Err(config.refuse(INSTRUCTIONS, format!("`{name}` is not among `{NAMES}`")));
        }
        prompts.entry(name.clone()).or_insert_with(|| text.to_owned());
    }
    for name in adapters.keys() {
        prompts.entry(name.clone()).or_default();
    }
    Ok(adapters)
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
