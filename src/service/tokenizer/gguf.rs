//! From the vocabulary inside a GGUF file to a tokenizer: written as the tokenizer.json that it was made of, with the settings that llama.cpp has in
//! its code for each kind of model.

use super::setup::parse;
use crate::engine::load::LoadError;
use crate::engine::load::gguf::{Kind, Vocabulary};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::HashMap;
use tokenizers::Tokenizer;

/// Builds the tokenizer.
///
/// # Errors
/// A kind of tokenizer or of text splitting that is not known, a token that is there twice, special tokens that are not named.
pub fn build(vocabulary: &Vocabulary) -> Result<Tokenizer, LoadError> {
    let whole = match vocabulary.model.as_str() {
        "bert" => word_piece(vocabulary)?,
        "gpt2" => byte_bpe(vocabulary)?,
        "llama" => sentence_piece_bpe(vocabulary)?,
        "t5" => unigram(vocabulary)?,
        other => return Err(refuse(vocabulary, "model", format!("`{other}` is not a tokenizer that is built; known: bert, gpt2, llama, t5"))),
    };
    parse(&vocabulary.file, whole.to_string().as_bytes())
}

fn refuse(vocabulary: &Vocabulary, key: &str, reason: String) -> LoadError {
    LoadError::field(&vocabulary.file, format!("tokenizer.ggml.{key}"), reason)
}

/// Ids by token; a text may stand for one id only.
fn ids<'a>(vocabulary: &Vocabulary, tokens: impl Iterator<Item = &'a str>) -> Result<HashMap<&'a str, u32>, LoadError> {
    let mut ids = HashMap::with_capacity(vocabulary.tokens.len());
    for (token, id) in tokens.zip(0u32..) {
        if let Some(other) = ids.insert(token, id) {
            return Err(refuse(vocabulary, "tokens", format!("has {token:?} as {other} and as {id}")));
        }
    }
    Ok(ids)
}

/// Tokens that are found in a text as they stand, before anything else is done to it.
fn added(vocabulary: &Vocabulary, kinds: &[Kind]) -> Vec<Value> {
    let token = |id: usize| {
        let special = vocabulary.kinds[id] != Kind::UserDefined;
        // A mask takes the space before it along (XLM-RoBERTa).
        let lstrip = vocabulary.model == "t5" && vocabulary.mask == Some(id as u32);
        json!({"id": id, "content": vocabulary.tokens[id], "special": special, "lstrip": lstrip,
            "single_word": false, "rstrip": false, "normalized": false})
    };
    (0..vocabulary.tokens.len()).filter(|id| kinds.contains(&vocabulary.kinds[*id])).map(token).collect()
}

/// The special tokens before and after a text, where they are wanted.
fn around(vocabulary: &Vocabulary, before: Option<u32>, after: Option<u32>) -> Value {
    let name = |id: u32| vocabulary.tokens[id as usize].as_str();
    let special = |id: Option<u32>| id.map(|id| json!({"SpecialToken": {"id": name(id), "type_id": 0}}));
    let single: Vec<_> = [special(before), Some(json!({"Sequence": {"id": "A", "type_id": 0}})), special(after)].into_iter().flatten().collect();
    let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
    let tokens: serde_json::Map<_, _> =
        before.into_iter().chain(after).map(|id| (name(id).to_owned(), json!({"id": name(id), "ids": [id], "tokens": [name(id)]}))).collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
}

/// The begin and end tokens that are added, by the switches or by what the kind of tokenizer does without them.
fn ends(vocabulary: &Vocabulary, begin: bool, end: bool) -> Result<(Option<u32>, Option<u32>), LoadError> {
    let wanted = |switch: Option<bool>, default: bool, id: Option<u32>, key: &str| match (switch.unwrap_or(default), id) {
        (true, None) => Err(refuse(vocabulary, key, "is missing, but the token is to be added".to_owned())),
        (wanted, id) => Ok(id.filter(|_| wanted)),
    };
    Ok((wanted(vocabulary.add_begin, begin, vocabulary.begin, "bos_token_id")?, wanted(vocabulary.add_end, end, vocabulary.end, "eos_token_id")?))
}

/// BERT's WordPiece. The file marks what begins a word with "\u{2581}", where vocab.txt marks what does not with "##". Whether to lowercase is not
/// in the file: a vocabulary without A to Z was made of lowercased text
/// (the uncased one of BERT has \u{211d}, which counts as a capital).
fn word_piece(vocabulary: &Vocabulary) -> Result<Value, LoadError> {
    let bracketed = |token: &str| token.starts_with('[') && token.ends_with(']');
    let plain = |(token, kind): (&String, &Kind)| match token.strip_prefix('\u{2581}') {
        Some(word) => word.to_owned(),
        None if *kind == Kind::Control || *kind == Kind::Unknown || bracketed(token) => token.clone(),
        None => format!("##{token}"),
    };
    let tokens: Vec<String> = vocabulary.tokens.iter().zip(&vocabulary.kinds).map(plain).collect();
    let ids = ids(vocabulary, tokens.iter().map(String::as_str))?;
    let cased = tokens.iter().any(|token| !bracketed(token) && token.bytes().any(|byte| byte.is_ascii_uppercase()));
    let unknown = vocabulary.unknown.ok_or_else(|| refuse(vocabulary, "unknown_token_id", "is missing".to_owned()))?;
    let first = vocabulary.class.or(vocabulary.begin).ok_or_else(|| refuse(vocabulary, "cls_token_id", "is missing".to_owned()))?;
    let last = vocabulary.separator.or(vocabulary.end).ok_or_else(|| refuse(vocabulary, "seperator_token_id", "is missing".to_owned()))?;
    let model = json!({"type": "WordPiece", "unk_token": tokens[unknown as usize], "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": ids});
    let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": !cased});
    Ok(json!({"version": "1.0", "added_tokens": added(vocabulary, &[Kind::Control, Kind::Unknown]), "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": around(vocabulary, Some(first), Some(last)), "model": model}))
}

/// How a text is split before its bytes are merged, by `tokenizer.ggml.pre`: pattern, whether the text is normalised to NFC first, and whether a
/// piece that is a token stays whole whatever the merges say.
fn splitting(pre: &str) -> Option<(Option<&'static str>, bool, bool)> {
    const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    match pre {
        "qwen2" => Some((Some(QWEN2), true, false)),
        "llama-bpe" | "llama3" | "llama-v3" => Some((Some(LLAMA3), false, true)),
        "gpt-2" => Some((None, false, false)),
        _ => None,
    }
}

/// BPE over bytes that are written as letters.
fn byte_bpe(vocabulary: &Vocabulary) -> Result<Value, LoadError> {
    let pre = vocabulary.pre.as_deref().unwrap_or_default();
    let known = || refuse(vocabulary, "pre", format!("`{pre}` is not a way to split text that is known; known: qwen2, llama-bpe, gpt-2"));
    let (pattern, nfc, whole_pieces) = splitting(pre).ok_or_else(known)?;
    let (begin, end) = ends(vocabulary, whole_pieces, false)?;
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let pre_tokenizer = match pattern {
        None => bytes(true),
        Some(pattern) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}, bytes(false)]}),
    };
    let merges = pairs(vocabulary)?;
    let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_pieces,
        "vocab": ids(vocabulary, vocabulary.tokens.iter().map(String::as_str))?, "merges": merges});
    Ok(json!({"version": "1.0", "added_tokens": added(vocabulary, &[Kind::Control, Kind::Unknown, Kind::UserDefined]),
        "normalizer": if nfc { json!({"type": "NFC"}) } else { Value::Null }, "pre_tokenizer": pre_tokenizer,
        "post_processor": around(vocabulary, begin, end), "model": model}))
}

/// `merges`, each cut at its only space.
fn pairs(vocabulary: &Vocabulary) -> Result<Vec<(&str, &str)>, LoadError> {
    let cut = |merge: &'_ String| format!("{merge:.60?} is not two tokens with a space between them");
    let pair = |merge| <String as AsRef<str>>::as_ref(merge).split_once(' ').ok_or_else(|| refuse(vocabulary, "merges", cut(merge)));
    vocabulary.merges.iter().map(pair).collect()
}

/// SentencePiece's BPE: the pair whose union has the best score is merged first, so the merges follow from the scores.
fn sentence_piece_bpe(vocabulary: &Vocabulary) -> Result<Value, LoadError> {
    if vocabulary.scores.is_empty() {
        return Err(refuse(vocabulary, "scores", "is missing".to_owned()));
    }
    let ids = ids(vocabulary, vocabulary.tokens.iter().map(String::as_str))?;
    let (begin, end) = ends(vocabulary, true, false)?;
    let unknown = vocabulary.unknown.map(|id| vocabulary.tokens[id as usize].as_str());
    let escape = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let normalizer = if vocabulary.add_space_prefix.unwrap_or(true) {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"}, escape]})
    } else {
        escape
    };
    let model = json!({"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": true, "byte_fallback": vocabulary.kinds.contains(&Kind::Byte), "ignore_merges": false,
        "vocab": ids, "merges": merges_of_scores(vocabulary, &ids)});
    Ok(json!({"version": "1.0", "added_tokens": added(vocabulary, &[Kind::Control, Kind::Unknown, Kind::UserDefined]), "normalizer": normalizer,
        "pre_tokenizer": null, "post_processor": around(vocabulary, begin, end), "model": model}))
}

/// Every way to put a token together of two others, the best score first; of equal scores the longer left half, then the longer right one.
fn merges_of_scores<'a>(vocabulary: &'a Vocabulary, ids: &HashMap<&str, u32>) -> Vec<(&'a str, &'a str)> {
    let mut merges = Vec::new();
    for ((token, kind), score) in vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(&vocabulary.scores) {
        if matches!(kind, Kind::Control | Kind::Unknown | Kind::Byte | Kind::Unused) {
            continue;
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        merges.extend(cuts.filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right)).map(|pair| (*score, pair)));
    }
    let chars = |text: &str| text.chars().count();
    merges.sort_by(|(score, pair), (other_score, other)| {
        let length = || chars(other.0).cmp(&chars(pair.0)).then_with(|| chars(other.1).cmp(&chars(pair.1)));
        other_score.total_cmp(score).then_with(length)
    });
    merges.into_iter().map(|(_, pair)| pair).collect()
}

/// SentencePiece's Unigram (XLM-RoBERTa and its kin).
fn unigram(vocabulary: &Vocabulary) -> Result<Value, LoadError> {
    if vocabulary.scores.is_empty() {
        return Err(refuse(vocabulary, "scores", "is missing".to_owned()));
    }
    // The crate keeps the first of two equal tokens: they would be two ids for one text.
    ids(vocabulary, vocabulary.tokens.iter().map(String::as_str))?;
    let (begin, end) = ends(vocabulary, false, true)?;
    let normalizer = if vocabulary.charsmap.is_empty() {
        Value::Null
    } else {
        json!({"type": "Precompiled", "precompiled_charsmap": base64::engine::general_purpose::STANDARD.encode(&vocabulary.charsmap)})
    };
    let prefix = if vocabulary.add_space_prefix.unwrap_or(true) { "always" } else { "never" };
    let words = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": prefix, "split": true});
    let pre_tokenizer = if vocabulary.remove_extra_whitespaces.unwrap_or(true) {
        json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, words]})
    } else {
        words
    };
    let pieces: Vec<_> = vocabulary.tokens.iter().zip(&vocabulary.scores).map(|(token, score)| (token, f64::from(*score))).collect();
    let model = json!({"type": "Unigram", "unk_id": vocabulary.unknown, "vocab": pieces, "byte_fallback": vocabulary.kinds.contains(&Kind::Byte)});
    Ok(json!({"version": "1.0", "added_tokens": added(vocabulary, &[Kind::Control, Kind::Unknown, Kind::UserDefined]), "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": around(vocabulary, begin, end), "model": model}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(model: &str, tokens: &[(&str, Kind, f32)]) -> Vocabulary {
        Vocabulary {
            file: "m.gguf".to_owned(),
            model: model.to_owned(),
            pre: None,
            tokens: tokens.iter().map(|(token, ..)| (*token).to_owned()).collect(),
            scores: tokens.iter().map(|(.., score)| *score).collect(),
            kinds: tokens.iter().map(|(_, kind, _)| *kind).collect(),
            merges: Vec::new(),
            begin: Some(1),
            end: Some(2),
            separator: None,
            class: None,
            unknown: Some(0),
            mask: None,
            add_begin: None,
            add_end: None,
            add_separator: None,
            add_space_prefix: None,
            remove_extra_whitespaces: None,
            charsmap: Vec::new(),
        }
    }

    fn ids(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
        build(vocabulary).unwrap_or_else(|error| panic!("{error}")).encode(text, true).unwrap().get_ids().to_vec()
    }

    #[test]
    fn a_vocabulary_without_a_to_z_lowercases() {
        let special = [("[UNK]", Kind::Control, 0.), ("[CLS]", Kind::Control, 0.), ("[SEP]", Kind::Control, 0.)];
        let with = |more: &[&'static str]| {
            let more = more.iter().map(|token| (*token, Kind::Normal, 0.));
            vocabulary("bert", &special.into_iter().chain(more).collect::<Vec<_>>())
        };
        let uncased = with(&["\u{2581}ab", "c", "\u{2581}\u{211d}"]);
        assert_eq!((ids(&uncased, "Abc AB [SEP]"), ids(&uncased, "x")), (vec![1, 3, 4, 3, 2, 2], vec![1, 0, 2]));
        assert_eq!(ids(&with(&["\u{2581}ab", "c", "\u{2581}A"]), "Abc abc"), [1, 0, 3, 4, 2]);
    }

    #[test]
    fn the_best_score_is_merged_first() {
        let tokens = |pair: f32, other: f32| {
            let letters = ["\u{2581}", "a", "b", "c"].map(|letter| (letter, Kind::Normal, -9.));
            let special = [("<unk>", Kind::Unknown, 0.), ("<s>", Kind::Control, 0.), ("</s>", Kind::Control, 0.)];
            special.into_iter().chain(letters).chain([("ab", Kind::Normal, pair), ("bc", Kind::Normal, other)]).collect::<Vec<_>>()
        };
        assert_eq!(ids(&vocabulary("llama", &tokens(-1., -2.)), "abc"), [1, 3, 7, 6]);
        assert_eq!(ids(&vocabulary("llama", &tokens(-2., -1.)), "abc"), [1, 3, 4, 8]);
    }
}
