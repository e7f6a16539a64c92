//! The tokenizer inside a GGUF file, as it stands there: `tokenizer.ggml.*`. What it means is for whoever builds a tokenizer of it.

use super::Gguf;
use crate::network::LoadError;
use candle_core::quantized::gguf_file::Value;

/// A vocabulary and its settings.
pub struct Vocabulary {
    /// The file, for messages.
    pub file: String,
    /// `model`: bert, gpt2, llama, t5.
    pub model: String,
    /// `pre`: which text splitting goes before.
    pub pre: Option<String>,
    pub tokens: Vec<String>,
    /// One for each token, or none at all.
    pub scores: Vec<f32>,
    /// What each token is; all normal if the file does not say.
    pub kinds: Vec<Kind>,
    /// "left right", the first the most urgent.
    pub merges: Vec<String>,
    pub begin: Option<u32>,
    pub end: Option<u32>,
    pub separator: Option<u32>,
    pub class: Option<u32>,
    pub unknown: Option<u32>,
    pub mask: Option<u32>,
    pub add_begin: Option<bool>,
    pub add_end: Option<bool>,
    pub add_separator: Option<bool>,
    pub add_space_prefix: Option<bool>,
    pub remove_extra_whitespaces: Option<bool>,
    /// SentencePiece's compiled table of replacements.
    pub charsmap: Vec<u8>,
}

/// What a token is, by llama.cpp's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Unknown,
    /// Special: has no text of its own.
    Control,
    /// Added: found in a text before everything else.
    UserDefined,
    Unused,
    /// `<0x41>`.
    Byte,
}

/// Reads it, and checks that lists and ids fit each other.
pub fn read(gguf: &Gguf) -> Result<Vocabulary, LoadError> {
    let meta = &gguf.meta;
    let key = |key: &str| format!("tokenizer.ggml.{key}");
    let tokens_key = key("tokens");
    let texts = |name: &str| gguf.list(&key(name), "texts", |value| value.to_string().ok().cloned());
    let tokens = texts("tokens")?.ok_or_else(|| meta.refuse(&tokens_key, "is missing"))?;
    let model = meta.str(&key("model"))?.ok_or_else(|| meta.refuse(&key("model"), "is missing"))?.to_owned();
    let scores = gguf.list(&key("scores"), "finite numbers", |value| value.to_f32().ok().filter(|score| score.is_finite()))?.unwrap_or_default();
    let kinds = gguf.list(&key("token_type"), "kinds of tokens, 1 to 6", kind)?.unwrap_or_else(|| vec![Kind::Normal; tokens.len()]);
    for (name, len) in [("scores", scores.len()), ("token_type", kinds.len())] {
        if len != tokens.len() && !(name == "scores" && len == 0) {
            return Err(meta.refuse(&key(name), format!("has {len} entries for {} tokens", tokens.len())));
        }
    }
    let id = |name: &str| match meta.usize(&key(name))? {
        Some(id) if id >= tokens.len() => Err(meta.refuse(&key(name), format!("is {id}, but there are {} tokens", tokens.len()))),
        id => Ok(id.map(|id| id as u32)),
    };
    let switch = |name: &str| meta.bool(&key(name));
    Ok(Vocabulary {
        file: meta.file().to_owned(),
        pre: meta.str(&key("pre"))?.map(str::to_owned),
        scores,
        kinds,
        merges: texts("merges")?.unwrap_or_default(),
        begin: id("bos_token_id")?,
        end: id("eos_token_id")?,
        // The key was misspelt until 2024.
        separator: id("seperator_token_id")?.or(id("sep_token_id")?).or(id("separator_token_id")?),
        class: id("cls_token_id")?,
        unknown: id("unknown_token_id")?,
        mask: id("mask_token_id")?,
        add_begin: switch("add_bos_token")?,
        add_end: switch("add_eos_token")?,
        add_separator: switch("add_sep_token")?,
        add_space_prefix: switch("add_space_prefix")?,
        remove_extra_whitespaces: switch("remove_extra_whitespaces")?,
        charsmap: gguf.list(&key("precompiled_charsmap"), "bytes", byte)?.unwrap_or_default(),
        model,
        tokens,
    })
}

fn kind(value: &Value) -> Option<Kind> {
    let number = value.to_u64().ok().or_else(|| value.to_i32().ok().and_then(|number| u64::try_from(number).ok()))?;
    match number {
        1 => Some(Kind::Normal),
        2 => Some(Kind::Unknown),
        3 => Some(Kind::Control),
        4 => Some(Kind::UserDefined),
        5 => Some(Kind::Unused),
        6 => Some(Kind::Byte),
        _ => None,
    }
}

fn byte(value: &Value) -> Option<u8> {
    value.to_u8().ok().or_else(|| value.to_i8().ok().map(|byte| byte as u8))
}
