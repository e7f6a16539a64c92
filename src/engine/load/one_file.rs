//! A model that is one GGUF file: the network out of its metadata and tensors, the pooling that it names, and unit length, as llama.cpp answers.

use super::decisions::{self, Decision};
use super::map::map;
use super::{LoadError, Loaded, ModelInfo, Options, TextRules, need, place};
use crate::encoders::gguf::{Described, Gguf, Pooling, Vocabulary};
use crate::engine::pipeline::pooling::Mode;
use crate::engine::pipeline::{Pipeline, Stages};
use std::collections::BTreeMap;
use std::path::Path;

/// True for a path that names such a file.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && path.is_file()
}

/// Loads the model in a file.
pub fn load(path: &Path, options: &Options) -> Result<Loaded, LoadError> {
    let file = path.display().to_string();
    let gguf = Gguf::open(&file, &map(path)?)?;
    let described = gguf.describe()?;
    let (mode, pooling_named) = (mode(&described, &gguf, options)?, described.pooling.is_some());
    let device = options.device;
    let place = place(device, options)?;
    let Described { architecture, network, dense, context, .. } = described;
    let stages = Stages::of_one_file(mode, &dense, network.width)?;
    let (hidden_size, vocabulary, positions) = (network.width, network.vocabulary(), network.max_tokens);
    let max_tokens = length(&gguf, context.min(positions), positions, options.max_tokens)?;
    let need = need(&network, &place, max_tokens, options)?;
    let pipeline = Pipeline::new(network, stages, &place)?;
    let mut info = ModelInfo {
        architecture,
        hidden_size,
        dimensions: pipeline.dim(),
        max_tokens,
        position_limit: positions,
        vocabulary,
        prompts: BTreeMap::new(),
        default_prompt_name: None,
        normalized: pipeline.normalized(),
        matryoshka: None,
        device,
        dtype: place.dtype,
        weight_bytes: pipeline.weight_bytes(),
        need,
        tokenizer_dir: path.to_owned(),
        text: TextRules::default(),
        adapters: BTreeMap::new(),
        license: gguf.meta.str("general.license")?.map(str::to_owned),
        stages: pipeline.stages().to_string(),
        decisions: Vec::new(),
    };
    info.decisions = decide(&info, &pipeline, &gguf, pooling_named, options)?;
    Ok(Loaded { pipeline, info })
}

/// What was decided, and by which key of the file.
fn decide(info: &ModelInfo, pipeline: &Pipeline, gguf: &Gguf, pooling_named: bool, options: &Options) -> Result<Vec<Decision>, LoadError> {
    let key = |key: &str| format!("{}.{key}", info.architecture);
    let stages = pipeline.stages();
    let tokenizer = gguf.meta.str("tokenizer.ggml.model")?.unwrap_or("unknown");
    let context = gguf.meta.usize(&key("context_length"))?;
    // Looked-up positions end with their table, whatever the file says of texts.
    let reached = |tokens: usize| if context == Some(tokens) { key("context_length") } else { "the file's position table".to_owned() };
    let max_tokens_from = if options.max_tokens.is_some() { "max_tokens of the configuration".to_owned() } else { reached(info.max_tokens) };
    let pooling_from = if pooling_named { key("pooling_type") } else { "--pooling (the file names none)".to_owned() };
    let maps = stages.after.len() > 1;
    let after_from = if maps { "the file's dense tensors; unit length as llama.cpp answers" } else { "as llama.cpp answers" };
    let mut decisions = vec![
        Decision::new("architecture", info.architecture, "general.architecture"),
        Decision::new("hidden_size", info.hidden_size, key("embedding_length")),
        Decision::new("tokenizer", tokenizer, "tokenizer.ggml.model"),
        Decision::new("max_tokens", info.max_tokens, max_tokens_from),
        Decision::new("position_limit", info.position_limit, reached(info.position_limit)),
        Decision::new("prompts", "none", "a GGUF file has none"),
        Decision::new("default_prompt", "none", "a GGUF file has none"),
        Decision::new("pooling", &stages.pooling, pooling_from),
        Decision::new("after_pooling", stages.after.join(", "), after_from),
        Decision::new("model_length", "unit length (Normalize)", "as llama.cpp answers"),
        Decision::new("dimensions", info.dimensions, if maps { "the file's dense tensors".to_owned() } else { key("embedding_length") }),
        Decision::new("matryoshka", "not declared", "a GGUF file does not say"),
    ];
    decisions.extend(decisions::running(info, pipeline, options));
    Ok(decisions)
}

/// The vocabulary of the tokenizer in a file.
///
/// # Errors
/// As `load`.
pub fn vocabulary(path: &Path) -> Result<Vocabulary, LoadError> {
    Gguf::open(&path.display().to_string(), &map(path)?)?.vocabulary()
}

/// The file's own pooling; the operator's for a file that names none.
fn mode(described: &Described, gguf: &Gguf, options: &Options) -> Result<Mode, LoadError> {
    match (described.pooling, options.pooling.as_deref()) {
        (Some(Pooling::Mean), _) => Ok(Mode::Mean),
        (Some(Pooling::Cls), _) => Ok(Mode::Cls),
        (Some(Pooling::Last), _) => Ok(Mode::LastToken),
        (None, Some(name)) => Mode::asked(name),
        (None, None) => {
            let modes = Mode::ALL.map(Mode::name).join(", ");
            let reason = format!("names no pooling, so nothing says how token vectors become one: pass `--pooling` with one of {modes}");
            Err(gguf.meta.refuse(&format!("{}.pooling_type", described.architecture), reason))
        }
    }
}

/// The longest text: what the file says, or the operator's `max_tokens` up to the end of the positions.
fn length(gguf: &Gguf, own: usize, positions: usize, asked: Option<usize>) -> Result<usize, LoadError> {
    /// Shorter texts have no room for anything beside special tokens.
    const SHORTEST: usize = 3;
    match asked {
        Some(asked) if (SHORTEST..=positions).contains(&asked) => Ok(asked),
        Some(asked) => Err(LoadError::option("max_tokens", format!("{asked} is impossible: the model allows {SHORTEST} to {positions}"))),
        None if own < SHORTEST => Err(LoadError::file(gguf.meta.file(), format!("allows texts of {own} tokens only; {SHORTEST} are the least"))),
        None => Ok(own),
    }
}
