//! Tokenizers whose checkpoint brings code for them (`auto_map`): what that code adds to tokenizer.json is known for one, the others are refused.

use crate::engine::load::LoadError;
use crate::engine::load::json::{Json, short};
use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::processors::template::TemplateProcessing;

/// The class of gte-Qwen2 and its kin: it puts the end token after a text if `add_eos_token` says so, which their tokenizer.json leaves out.
const QWEN: &str = "tokenization_qwen.Qwen2Tokenizer";

/// Does to the tokenizer what its own code would do.
///
/// # Errors
/// Code that is not known, an end token that is not in the vocabulary.
pub fn apply(tokenizer: &mut Tokenizer, config: &Json) -> Result<(), LoadError> {
    const FIELD: &str = "auto_map";
    let Some(code) = config.object(FIELD)?.and_then(|map| map.get("AutoTokenizer")).filter(|code| !code.is_null()) else { return Ok(()) };
    let classes: Vec<&str> = match code {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let known = |class: &&str| -> bool {
        let class = class.rsplit("--").next().unwrap_or(class);
        class.strip_suffix("Fast").unwrap_or(class) == QWEN
    };
    if classes.is_empty() || !classes.iter().all(known) {
        return Err(config.refuse(FIELD, format!("the tokenizer brings its own code ({}), which is not run", short(code))));
    }
    if !config.bool("add_eos_token")?.unwrap_or(false) {
        return Ok(());
    }
    let end = config.get("eos_token").and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
    let end = end.ok_or_else(|| config.refuse("eos_token", "is missing, but `add_eos_token` is true"))?;
    let id = tokenizer.token_to_id(end).ok_or_else(|| config.refuse("eos_token", format!("{end:?} is not in the vocabulary")))?;
    let template = TemplateProcessing::builder()
        .try_single(vec!["$A".to_owned(), end.to_owned()])
        .and_then(|builder| builder.special_tokens(vec![(end.to_owned(), id)]).build().map_err(|error| error.to_string()));
    tokenizer.with_post_processor(Some(template.map_err(|error| config.refuse("eos_token", error))?));
    Ok(())
}
