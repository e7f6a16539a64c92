//! From a model's tokenizer files to a tokenizer that does what transformers' does with the same files.

use super::pieces::{Cuts, Cutter};
use crate::engine::load::json::{Json, read_bytes};
use crate::engine::load::{LoadError, ModelInfo, one_file};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::normalizers::{BertNormalizer, Lowercase, Sequence};
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PostProcessor, PreTokenizerWrapper, Tokenizer};

/// A tokenizer, and the special tokens it puts around a text.
pub struct Setup {
    pub tokenizer: Tokenizer,
    pub before: Vec<u32>,
    pub after: Vec<u32>,
    /// The id that is left out of every text.
    pub dropped: Option<u32>,
}

/// Reads and adjusts the tokenizer of a model.
///
/// # Errors
/// Files that are missing or broken; a vocabulary larger than the embedding table; token types other than 0.
pub fn read(info: &ModelInfo) -> Result<Setup, LoadError> {
    let dir = &info.tokenizer_dir;
    if one_file::is_gguf(dir) {
        return finish(super::gguf::build(&one_file::vocabulary(dir)?)?, info, &dir.display().to_string());
    }
    let path = dir.join("tokenizer.json");
    let file = path.display().to_string();
    let config = Json::read(&dir.join("tokenizer_config.json"))?.unwrap_or_else(|| Json::empty(&dir.join("tokenizer_config.json")));
    let class = Class::of(&config, info)?;
    let mut tokenizer = match read_bytes(&path)? {
        Some(bytes) => parse(&file, &bytes)?,
        None if class == Class::Bert => from_vocabulary(dir, &config)?,
        None => return Err(LoadError::file(file, "is missing")),
    };
    // What the file says of truncation and padding is whatever it was last used with: the limits are the model's and the request's.
    tokenizer.with_truncation(None).map_err(|error| LoadError::file(&file, error.to_string()))?.with_padding(None);
    super::own_code::apply(&mut tokenizer, &config)?;
    match class {
        Class::Bert => bert_normalizer(&mut tokenizer, &config, &file)?,
        Class::Roberta => roberta_space(&mut tokenizer, &config)?,
        Class::Plain => {}
    }
    if info.text.do_lower_case {
        lower_case_first(&mut tokenizer, &file)?;
    }
    finish(tokenizer, info, &file)
}

/// The last checks of every tokenizer.
fn finish(tokenizer: Tokenizer, info: &ModelInfo, file: &str) -> Result<Setup, LoadError> {
    if let Some((token, id)) = tokenizer.get_vocab(true).into_iter().find(|(_, id)| *id as usize >= info.vocabulary) {
        let reason = format!("token {token:?} has id {id}, but the model's embedding table ends at {}", info.vocabulary - 1);
        return Err(LoadError::file(file, reason));
    }
    let (before, after) = if info.text.special_tokens { special_tokens(&tokenizer, file)? } else { Default::default() };
    let dropped = if info.text.drop_unknown { unknown(&tokenizer, Path::new(file))? } else { None };
    Ok(Setup { tokenizer, before, after, dropped })
}

/// The part of a tokenizer file on which the crate asserts instead of returning an error: its decoder must be JSON that a value can hold.
#[derive(serde::Deserialize)]
struct Precheck {
    #[serde(default, rename = "decoder")]
    _decoder: serde_json::Value,
}

/// A broken file must stay an error: what is known to make the crate panic is looked for first, and the rest is caught.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Tokenizer, LoadError> {
    let refuse = |reason: String| LoadError::file(file, format!("is not a tokenizer: {reason}"));
    serde_json::from_slice::<Precheck>(bytes).map_err(|error| refuse(error.to_string()))?;
    match std::panic::catch_unwind(|| Tokenizer::from_bytes(bytes)) {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(refuse(error.to_string())),
        Err(_) => Err(refuse("reading it failed".to_owned())),
    }
}

/// The class with which transformers reads the tokenizer, where it is one whose settings come from tokenizer_config.json and not from tokenizer.json.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// BertTokenizer, and those made like it.
    Bert,
    Roberta,
    /// Any other: tokenizer.json counts.
    Plain,
}

impl Class {
    /// As the configurations name it, else as the architecture has it.
    fn of(config: &Json, info: &ModelInfo) -> Result<Self, LoadError> {
        if !info.text.special_tokens {
            // Tables of static embeddings are read with the `tokenizers` library alone.
            return Ok(Self::Plain);
        }
        let model = Json::require(&info.tokenizer_dir.join("config.json"))?;
        let class = config.str("tokenizer_class")?.or(model.str("tokenizer_class")?);
        Ok(match (class.map(|class| class.strip_suffix("Fast").unwrap_or(class)), info.architecture) {
            (Some("BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MPNetTokenizer"), _) => Self::Bert,
            (Some("RobertaTokenizer"), _) => Self::Roberta,
            (Some(_), _) => Self::Plain,
            (None, "bert" | "distilbert" | "electra" | "mpnet") => Self::Bert,
            (None, "roberta") => Self::Roberta,
            (None, _) => Self::Plain,
        })
    }
}

/// A WordPiece tokenizer from vocab.txt alone, as the oldest checkpoints have it: written as the tokenizer.json that it stands for.
fn from_vocabulary(dir: &Path, config: &Json) -> Result<Tokenizer, LoadError> {
    let path = dir.join("vocab.txt");
    let file = path.display().to_string();
    let refuse = |reason: String| LoadError::file(&file, reason);
    let bytes = read_bytes(&path)?.ok_or_else(|| refuse("is missing, and so is tokenizer.json".to_owned()))?;
    let text = String::from_utf8(bytes).map_err(|error| refuse(format!("is not UTF-8: {error}")))?;
    let vocabulary: HashMap<&str, u32> = text.lines().zip(0..).collect();
    let mut added = Vec::new();
    for (field, default) in [("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("unk_token", "[UNK]"), ("pad_token", "[PAD]"), ("mask_token", "[MASK]")]
    {
        let token = config.str(field)?.unwrap_or(default);
        let id = vocabulary.get(token).ok_or_else(|| refuse(format!("lacks {token}")))?;
        added.push(json!({"id": id, "content": token, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}));
    }
    let special = |index: usize| json!([added[index]["content"], added[index]["id"]]);
    let around = json!({"type": "BertProcessing", "cls": special(0), "sep": special(1)});
    let model = json!({"type": "WordPiece", "unk_token": added[2]["content"], "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary});
    let pre_tokenizer = json!({"type": "BertPreTokenizer"});
    let whole = json!({"version": "1.0", "added_tokens": added, "pre_tokenizer": pre_tokenizer, "post_processor": around, "model": model});
    parse(&file, whole.to_string().as_bytes())
}

/// Gives a BertTokenizer or its like the normaliser that tokenizer_config.json describes.
fn bert_normalizer(tokenizer: &mut Tokenizer, config: &Json, file: &str) -> Result<(), LoadError> {
    if !matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_))) {
        return Err(LoadError::field(file, "pre_tokenizer", "must be BertPreTokenizer, as the tokenizer_class is BertTokenizer or one like it"));
    }
    if !matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_)) {
        return Err(LoadError::field(file, "model", "must be WordPiece, as the tokenizer_class is BertTokenizer or one like it"));
    }
    let chinese = config.bool("tokenize_chinese_chars")?.unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, config.bool("strip_accents")?, config.bool("do_lower_case")?.unwrap_or(true));
    set_normalizer(tokenizer, normalizer.into(), file)
}

/// Has a RobertaTokenizer put a space before a text, or not, as tokenizer_config.json says.
fn roberta_space(tokenizer: &mut Tokenizer, config: &Json) -> Result<(), LoadError> {
    if let Some(PreTokenizerWrapper::ByteLevel(bytes)) = tokenizer.get_pre_tokenizer() {
        let mut bytes = *bytes;
        bytes.add_prefix_space = config.bool("add_prefix_space")?.unwrap_or(false);
        tokenizer.with_pre_tokenizer(Some(bytes));
    }
    Ok(())
}

/// `do_lower_case` of the Transformer module: lowercase before everything else, unless the normaliser has that step itself.
fn lower_case_first(tokenizer: &mut Tokenizer, file: &str) -> Result<(), LoadError> {
    let mut steps = match tokenizer.get_normalizer() {
        None => Vec::new(),
        Some(NormalizerWrapper::Sequence(steps)) => steps.as_ref().to_vec(),
        Some(step) => vec![step.clone()],
    };
    if steps.iter().any(|step| matches!(step, NormalizerWrapper::Lowercase(_))) {
        return Ok(());
    }
    steps.insert(0, Lowercase.into());
    set_normalizer(tokenizer, Sequence::new(steps).into(), file)
}

fn set_normalizer(tokenizer: &mut Tokenizer, normalizer: NormalizerWrapper, file: &str) -> Result<(), LoadError> {
    tokenizer.with_normalizer(Some(normalizer)).map(|_| ()).map_err(|error| LoadError::field(file, "normalizer", error.to_string()))
}

/// Which ids the post-processor puts before and after a text, found by asking it.
fn special_tokens(tokenizer: &Tokenizer, file: &str) -> Result<(Vec<u32>, Vec<u32>), LoadError> {
    let refuse = |reason: String| LoadError::file(file, reason);
    for probe in ["a", "0", "."] {
        let bare = tokenizer.encode(probe, false).map_err(|error| refuse(error.to_string()))?;
        let full = tokenizer.encode(probe, true).map_err(|error| refuse(error.to_string()))?;
        if bare.get_ids().is_empty() {
            continue;
        }
        if let Some(kind) = full.get_type_ids().iter().find(|kind| **kind != 0) {
            return Err(LoadError::field(file, "post_processor", format!("gives a single text token type {kind}; only 0 is served")));
        }
        let count = full.get_special_tokens_mask().iter().take_while(|special| **special == 1).count();
        let (before, rest) = full.get_ids().split_at(count);
        let added = tokenizer.get_post_processor().map_or(0, |post_processor| post_processor.added_tokens(false));
        return match rest.strip_prefix(bare.get_ids()) {
            Some(after) if before.len() + after.len() == added => Ok((before.to_vec(), after.to_vec())),
            _ => Err(LoadError::field(file, "post_processor", "does more than put special tokens before and after a text")),
        };
    }
    Err(refuse("gives no token even for a letter, a digit or a full stop".to_owned()))
}

/// The id of what the vocabulary does not know, where it has one.
fn unknown(tokenizer: &Tokenizer, path: &Path) -> Result<Option<u32>, LoadError> {
    #[derive(serde::Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        unk_token: Option<String>,
        unk_id: Option<u32>,
    }
    let bytes = read_bytes(path)?.unwrap_or_default();
    let file: File = serde_json::from_slice(&bytes).map_err(|error| LoadError::file(path.display().to_string(), error.to_string()))?;
    Ok(file.model.unk_id.or_else(|| tokenizer.token_to_id(&file.model.unk_token?)))
}

/// How many characters the vocabulary's token of median length has, rounded down.
pub fn median_characters(tokenizer: &Tokenizer) -> usize {
    let mut lengths: Vec<usize> = tokenizer.get_vocab(true).into_keys().map(|token| token.chars().count()).collect();
    lengths.sort_unstable();
    let (low, high) = (lengths.get(lengths.len().saturating_sub(1) / 2), lengths.get(lengths.len() / 2));
    (low.unwrap_or(&1) + high.unwrap_or(&1)) / 2
}

/// How long texts may be cut before tokenising without changing a token; `None` where nothing is known.
///
/// BERT's pre-tokenizer separates words at white space and punctuation, and its normaliser works character by character (decomposition of
/// accents included, as nothing combines backwards with white space, ASCII punctuation or an ideograph).
pub fn cutter(tokenizer: &Tokenizer) -> Option<Cutter> {
    let (Some(PreTokenizerWrapper::BertPreTokenizer(_)), ModelWrapper::WordPiece(model)) = (tokenizer.get_pre_tokenizer(), tokenizer.get_model())
    else {
        return None;
    };
    let ideographs = match tokenizer.get_normalizer()? {
        NormalizerWrapper::BertNormalizer(bert) => bert.handle_chinese_chars,
        NormalizerWrapper::Sequence(steps) => match steps.as_ref() {
            [NormalizerWrapper::Lowercase(_), NormalizerWrapper::BertNormalizer(bert)] => bert.handle_chinese_chars,
            _ => return None,
        },
        _ => return None,
    };
    let added: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
    if added.iter().any(|token| token.content.contains(char::is_whitespace)) {
        return None;
    }
    // A token that is looked for after normalisation, or only as a whole word, may be found or lost at any cut inside a word.
    let words = added.iter().all(|token| !token.normalized && !token.single_word);
    let cuts = if words { Cuts::InsideWords { ideographs } } else { Cuts::WhiteSpace };
    Some(Cutter::new(cuts, added.into_iter().map(|token| token.content).collect(), model.max_input_chars_per_word))
}
