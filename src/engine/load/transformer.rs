//! The Transformer module's own settings: `sentence_bert_config.json` of both generations, and the length they allow.

use crate::encoders::json::{Json, short};
use crate::network::{LoadError, Network};
use serde_json::Value;
use std::path::Path;

/// Names this file has had; the first that is there counts, as in sentence-transformers.
const FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Fields before 5.4 and since. Those that this server has no meaning for must have their neutral value.
const KNOWN: [&str; 16] = [
    "max_seq_length",
    "do_lower_case",
    "model_args",
    "model_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "config_args",
    "config_kwargs",
    "transformer_task",
    "modality_config",
    "module_output_name",
    "processing_kwargs",
    "unpad_inputs",
    "query_length",
    "document_length",
    "query_expansion",
];

/// Arguments to the model's constructor that do not change what it computes in f32.
const HARMLESS_MODEL_ARGS: [&str; 4] = ["add_pooling_layer", "attn_implementation", "dtype", "torch_dtype"];

/// Settings of the Transformer module.
#[derive(Debug)]
pub struct Transformer {
    max_seq_length: Option<usize>,
    max_seq_length_file: String,
    /// Lowercase the text before the tokenizer's own normalisation.
    pub do_lower_case: bool,
}

/// How long a text may be, in tokens with special tokens.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// What the model takes as configured.
    pub max_tokens: usize,
    /// What its position table reaches.
    pub positions: usize,
}

impl Transformer {
    /// Reads the settings beside the encoder; a directory without them has the defaults.
    ///
    /// # Errors
    /// A field that is not understood, or asks for what this server does not do.
    pub fn read(dir: &Path) -> Result<Self, LoadError> {
        let mut found = None;
        for name in FILES {
            found = Json::read(&dir.join(name))?;
            if found.is_some() {
                break;
            }
        }
        let json = found.unwrap_or_else(|| Json::empty(&dir.join(FILES[0])));
        json.only(&KNOWN)?;
        refuse_arguments(&json)?;
        refuse_other_tasks(&json)?;
        let max_seq_length = json.usize("max_seq_length")?;
        if max_seq_length == Some(0) {
            return Err(json.refuse("max_seq_length", "must be at least 1, but is 0"));
        }
        let do_lower_case = json.bool("do_lower_case")?.unwrap_or(false);
        Ok(Self { max_seq_length, max_seq_length_file: json.file().to_owned(), do_lower_case })
    }

    /// How far the network's positions reach. Where they are computed and not looked up there is no end to them, only the length that it was trained
    /// for, and `max_seq_length` may go beyond that (as texts do that a dynamic rotation is for).
    pub fn positions(&self, network: &Network) -> usize {
        let beyond = if network.embeddings.positions.is_none() { self.max_seq_length } else { None };
        beyond.map_or(network.max_tokens, |beyond| beyond.max(network.max_tokens))
    }

    /// The longest text: `max_seq_length`, else the tokenizer's `model_max_length`, never more than the position table; the operator's
    /// `max_tokens` goes before both.
    ///
    /// # Errors
    /// A length that is no number or too short for special tokens, a `max_tokens` beyond the position table.
    pub fn limits(&self, dir: &Path, positions: usize, asked: Option<usize>) -> Result<Limits, LoadError> {
        /// Shorter texts have no room for anything beside special tokens.
        const SHORTEST: usize = 3;
        if let Some(asked) = asked {
            if !(SHORTEST..=positions).contains(&asked) {
                return Err(LoadError::option(
                    "max_tokens",
                    format!("{asked} is impossible: the model's position table allows {SHORTEST} to {positions}"),
                ));
            }
            return Ok(Limits { max_tokens: asked, positions });
        }
        let tokenizer = Json::read(&dir.join("tokenizer_config.json"))?;
        let (file, own) = match (self.max_seq_length, &tokenizer) {
            (Some(length), _) => (self.max_seq_length_file.as_str(), length),
            (None, Some(json)) => (json.file(), model_max_length(json)?.unwrap_or(positions)),
            (None, None) => ("config.json", positions),
        };
        let max_tokens = own.min(positions);
        if max_tokens < SHORTEST {
            return Err(LoadError::file(file, format!("allows texts of {max_tokens} tokens only; {SHORTEST} are the least")));
        }
        Ok(Limits { max_tokens, positions })
    }
}

/// `model_max_length`; transformers writes 10^30 for "no limit", which is no whole number to most readers.
fn model_max_length(json: &Json) -> Result<Option<usize>, LoadError> {
    match json.f64("model_max_length")? {
        None => Ok(None),
        Some(length) if length >= 1. => Ok(Some(length as usize)),
        Some(length) => Err(json.refuse("model_max_length", format!("must be at least 1, but is {length}"))),
    }
}

fn refuse_arguments(json: &Json) -> Result<(), LoadError> {
    for field in ["model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"] {
        let harmless: &[&str] = if field.starts_with("model") { &HARMLESS_MODEL_ARGS } else { &[] };
        let arguments = json.object(field)?.into_iter().flatten();
        if let Some((name, value)) = arguments.into_iter().find(|(name, _)| !harmless.contains(&name.as_str()) && *name != "trust_remote_code") {
            return Err(json.refuse(&format!("{field}.{name}"), format!("is not understood (value {})", short(value))));
        }
    }
    Ok(())
}

/// Refuses everything but "texts in, the last hidden state of every token out".
fn refuse_other_tasks(json: &Json) -> Result<(), LoadError> {
    for (field, neutral) in [("transformer_task", "feature-extraction"), ("module_output_name", "token_embeddings")] {
        if let Some(value) = json.str(field)?.filter(|value| *value != neutral) {
            return Err(json.refuse(field, format!("`{value}` is not served, only `{neutral}`")));
        }
    }
    for field in ["query_length", "document_length", "query_expansion"] {
        if let Some(value) = json.get(field) {
            return Err(json.refuse(field, format!("is not understood (value {})", short(value))));
        }
    }
    if let Some((kind, _)) =
        json.object("processing_kwargs")?.and_then(|kinds| kinds.iter().find(|(_, value)| **value != Value::Object(Default::default())))
    {
        return Err(json.refuse(&format!("processing_kwargs.{kind}"), "arguments to the tokenizer are not understood"));
    }
    let Some(modalities) = json.object("modality_config")? else { return Ok(()) };
    let text = serde_json::json!({"method": "forward", "method_output_name": "last_hidden_state"});
    match modalities.iter().find(|(name, how)| *name != "text" || **how != text) {
        Some((name, how)) => Err(json.refuse(&format!("modality_config.{name}"), format!("is not served: {}", short(how)))),
        None => Ok(()),
    }
}
