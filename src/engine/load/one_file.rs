//! A model that is one GGUF file: the network out of its metadata and tensors, the pooling that it names, and unit length, as llama.cpp answers.

use super::{DType, Device, LoadError, Loaded, ModelInfo, Options, TextRules, map, open};
use crate::encoders::gguf::{Described, Gguf, Pooling, Vocabulary};
use crate::engine::pipeline::pooling::Mode;
use crate::engine::pipeline::{Pipeline, Stages};
use crate::exec::Place;
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
    let mode = mode(&described, &gguf, options)?;
    let device = options.device.unwrap_or_else(Device::best);
    let place = Place { device: open(device)?, dtype: options.dtype.unwrap_or(DType::F32) };
    let Described { architecture, network, dense, context, .. } = described;
    let stages = Stages::of_one_file(mode, &dense, network.width)?;
    let (hidden_size, vocabulary, positions) = (network.width, network.vocabulary(), network.max_tokens);
    let max_tokens = length(&gguf, context.min(positions), positions, options.max_tokens)?;
    let pipeline = Pipeline::new(network, stages, &place)?;
    tracing::info!(file, architecture, pooling = mode.name(), dense = dense.len(), max_tokens, "a GGUF model");
    let info = ModelInfo {
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
        tokenizer_dir: path.to_owned(),
        text: TextRules::default(),
        adapters: BTreeMap::new(),
    };
    Ok(Loaded { pipeline, info })
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
