//! From text to ids, exactly as sentence-transformers has them: prompt as text before it, special tokens around, cut to length where asked.
//! Only this file and its folder know the `tokenizers` crate.

mod gguf;
mod own_code;
mod pieces;
mod setup;

use crate::engine::load::{LoadError, ModelInfo};
use crate::ragged::Tokens;
use crate::wire::Truncate;
use pieces::Cutter;
use std::collections::HashMap;
use tokenizers::Tokenizer;

/// Why a text has no ids.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// It is longer than allowed and may not be cut. Programs written for OpenAI's API look for these words.
    #[error("This model's maximum context length is {limit} tokens, however you requested {tokens} tokens; send less, or set `truncate`")]
    TooLong { tokens: usize, limit: usize },
    /// It has more characters than the model looks at, and may not be cut.
    #[error("This model's maximum context length is {limit} characters, however you requested {characters}; send less, or set `truncate`")]
    TooManyCharacters { characters: usize, limit: usize },
    /// The tokenizer failed: its vocabulary lacks a token that it needs.
    #[error("the tokenizer failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One model's tokenizer. Shared by all requests; encoding changes nothing in it.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    /// Special tokens before and after a text.
    before: Vec<u32>,
    after: Vec<u32>,
    /// An id that is left out wherever it stands.
    dropped: Option<u32>,
    /// Characters of a token where the characters of a text are bounded too.
    characters_per_token: Option<usize>,
    cutter: Option<Cutter>,
    prompt_lens: HashMap<String, usize>,
    max_tokens: usize,
}

impl TextEncoder {
    /// Reads the tokenizer of a loaded model and checks that the model can take all it may produce.
    ///
    /// # Errors
    /// Files that are missing or broken, a vocabulary larger than the embedding table, a prompt that leaves no room for text.
    pub fn load(info: &ModelInfo) -> Result<Self, LoadError> {
        let setup = setup::read(info)?;
        let mut encoder = Self {
            before: setup.before,
            after: setup.after,
            dropped: setup.dropped,
            characters_per_token: info.text.bounded_characters.then(|| setup::median_characters(&setup.tokenizer)),
            cutter: setup::cutter(&setup.tokenizer),
            tokenizer: setup.tokenizer,
            prompt_lens: HashMap::new(),
            max_tokens: info.max_tokens,
        };
        for (name, prompt) in &info.prompts {
            let refuse = |reason: String| LoadError::field("config_sentence_transformers.json", format!("prompts.{name}"), reason);
            let tokens = encoder.encode(prompt, "", Truncate::End, usize::MAX).map_err(|error| refuse(error.to_string()))?.len();
            if tokens >= info.max_tokens {
                return Err(refuse(format!("takes {tokens} tokens of the {} that the model takes", info.max_tokens)));
            }
            let len = encoder.prompt_len(prompt).map_err(|error| refuse(error.to_string()))?;
            encoder.prompt_lens.insert(prompt.clone(), len);
        }
        Ok(encoder)
    }

    /// The ids of `prompt` followed by `text`, special tokens included, at most `limit` of them.
    ///
    /// `Truncate::End` keeps the beginning, `Truncate::Start` drops the head of the text but keeps the prompt.
    ///
    /// # Errors
    /// `TooLong` if there are more than `limit` and `truncate` is `None`.
    pub fn encode(&self, text: &str, prompt: &str, truncate: Truncate, limit: usize) -> Result<Tokens, TokenizeError> {
        let joined;
        let whole = if prompt.is_empty() {
            text
        } else {
            joined = format!("{prompt}{text}");
            &joined
        };
        let most = self.characters_per_token.map_or(usize::MAX, |characters| characters.saturating_mul(limit));
        match whole.char_indices().nth(most) {
            Some(_) if truncate == Truncate::None => Err(TokenizeError::TooManyCharacters { characters: whole.chars().count(), limit: most }),
            Some((end, _)) if truncate == Truncate::End => {
                let original_len = self.ids(whole, prompt, truncate, limit)?.original_len;
                Ok(Tokens { original_len, ..self.ids(&whole[..end], prompt, truncate, limit)? })
            }
            _ => self.ids(whole, prompt, truncate, limit),
        }
    }

    /// The ids of `whole`, which begins with `prompt`.
    fn ids(&self, whole: &str, prompt: &str, truncate: Truncate, limit: usize) -> Result<Tokens, TokenizeError> {
        let special = self.before.len() + self.after.len();
        let mut kept = Kept { room: limit.saturating_sub(special), truncate, head: 0, ids: Vec::new(), seen: 0 };
        let mut dropped = 0;
        match &self.cutter {
            None => dropped += self.feed(whole, prompt, &mut kept)?,
            Some(cutter) => {
                for piece in cutter.pieces(whole) {
                    let prompt = if kept.seen == 0 { prompt } else { "" };
                    dropped += self.feed(&piece, prompt, &mut kept)?;
                }
            }
        }
        let tokens = kept.seen + special;
        if tokens > limit && truncate == Truncate::None {
            return Err(TokenizeError::TooLong { tokens, limit });
        }
        kept.close();
        // As the reference does: first cut, then left out.
        kept.ids.retain(|id| Some(*id) != self.dropped);
        let ids = [self.before.as_slice(), &kept.ids, &self.after].concat();
        Ok(Tokens { ids, prompt_len: self.prompt_len(prompt)?, original_len: tokens - dropped, adapter: None })
    }

    /// Appends the content tokens of one piece; of the first piece, those that begin inside the prompt are its head. Returns how many of them will
    /// be left out.
    fn feed(&self, piece: &str, prompt: &str, kept: &mut Kept) -> Result<usize, TokenizeError> {
        let encoding = if kept.truncate == Truncate::Start && !prompt.is_empty() {
            let encoding = self.tokenizer.encode(piece, false).map_err(TokenizeError::Failed)?;
            kept.head = encoding.get_offsets().iter().take_while(|(start, _)| *start < prompt.len()).count();
            encoding
        } else {
            self.tokenizer.encode_fast(piece, false).map_err(TokenizeError::Failed)?
        };
        kept.push(encoding.get_ids());
        Ok(encoding.get_ids().iter().filter(|id| Some(**id) == self.dropped).count())
    }

    /// How many leading tokens a pooling without prompts leaves out: those of the prompt alone, without a special token at its end.
    fn prompt_len(&self, prompt: &str) -> Result<usize, TokenizeError> {
        if prompt.is_empty() {
            return Ok(0);
        }
        if let Some(len) = self.prompt_lens.get(prompt) {
            return Ok(*len);
        }
        let content = self.tokenizer.encode_fast(prompt, false).map_err(TokenizeError::Failed)?;
        let ids = [self.before.as_slice(), content.get_ids(), &self.after].concat();
        let special = |id: &u32| self.tokenizer.get_added_vocabulary().get_added_tokens_decoder().get(id).is_some_and(|token| token.special);
        let len = ids.len().min(self.max_tokens);
        // Cut to length, the prompt still ends in the special tokens after it.
        let last = if self.after.is_empty() { ids.get(len.saturating_sub(1)) } else { self.after.last() };
        Ok(len - usize::from(last.is_some_and(special)))
    }
}

/// The content tokens of a text as they arrive, no more of them held than can be of use.
struct Kept {
    /// How many may stay.
    room: usize,
    truncate: Truncate,
    /// How many of them are the prompt's.
    head: usize,
    ids: Vec<u32>,
    /// How many came.
    seen: usize,
}

impl Kept {
    fn push(&mut self, ids: &[u32]) {
        self.seen += ids.len();
        if self.truncate == Truncate::Start {
            self.ids.extend_from_slice(ids);
            // Twice the room before anything moves, so that a long text costs one move per id.
            if self.ids.len() > self.room.saturating_mul(2) {
                self.close();
            }
        } else {
            self.ids.extend_from_slice(&ids[..ids.len().min(self.room - self.ids.len())]);
        }
    }

    /// Drops what is over the room: behind the prompt for `Start`, at the end otherwise.
    fn close(&mut self) {
        let over = self.ids.len().saturating_sub(self.room);
        if self.truncate == Truncate::Start {
            let head = self.head.min(self.room);
            self.ids.drain(head..head + over);
        }
        self.ids.truncate(self.room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::load::{Options, load_dir};
    use proptest::prelude::*;
    use std::path::Path;

    fn encoder() -> TextEncoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tiny/bert/old-mean");
        let loaded = load_dir(&dir, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
        TextEncoder::load(&loaded.info).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Texts of what a cut could go wrong at: white space of all kinds, punctuation, ideographs, marks, controls, special tokens, long words.
    fn nasty() -> impl Strategy<Value = String> {
        let atoms = vec![
            "a",
            "cat",
            "sitting",
            "Z",
            "9",
            " ",
            "  ",
            "\n",
            "\t",
            "\r",
            "\u{a0}",
            "\u{85}",
            "\u{2028}",
            "\u{3000}",
            ".",
            "!",
            "[",
            "]",
            "[MASK]",
            "[SEP]",
            "[se",
            "LS]",
            "[C",
            "\u{301}",
            "\u{323}",
            "\u{e9}",
            "\u{130}",
            "\u{df}",
            "\u{65e5}",
            "\u{672c}",
            "\u{f900}",
            "\u{20000}",
            "\u{3002}",
            "\u{0}",
            "\u{7}",
            "\u{ad}",
            "\u{200b}",
            "\u{fffd}",
            "\u{1100}\u{1161}",
            "\u{11a8}",
            "\u{ac00}",
            "\u{1f600}",
            "\u{5d0}\u{5b8}",
            "\u{3a3}",
            "\u{345}",
            "\u{2603}",
        ];
        let long = ["x".repeat(99), "x".repeat(101), "y".repeat(250)];
        let atoms: Vec<String> = atoms.into_iter().map(str::to_owned).chain(long).collect();
        proptest::collection::vec(proptest::sample::select(atoms), 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn pieces_have_the_tokens_of_the_whole(text in nasty(), piece_bytes in 1..40usize) {
            let mut whole = encoder();
            let cutter = whole.cutter.take().map(|cutter| cutter.with_piece_bytes(piece_bytes));
            prop_assert!(cutter.is_some());
            let pieces = TextEncoder { cutter, ..encoder() };
            let ids = |encoder: &TextEncoder| encoder.encode(&text, "", Truncate::None, usize::MAX).map(|tokens| tokens.ids).ok();
            prop_assert_eq!(ids(&pieces), ids(&whole));
        }

        #[test]
        fn special_tokens_and_prompt_are_always_kept(text in nasty(), prompted: bool, limit in 12..40usize) {
            let mut encoder = encoder();
            encoder.cutter = encoder.cutter.map(|cutter| cutter.with_piece_bytes(9));
            let prompt = if prompted { "query: " } else { "" };
            let head: &[u32] = &encoder.encode(prompt, "", Truncate::None, 99).map(|tokens| tokens.ids).unwrap_or_default();
            let [before @ .., _] = head else { panic!("no special tokens") };
            let whole = encoder.encode(&text, prompt, Truncate::None, usize::MAX).map(|tokens| tokens.ids).unwrap_or_default();
            let [content @ .., after] = whole.as_slice() else { panic!("no special tokens") };
            for truncate in [Truncate::None, Truncate::End, Truncate::Start] {
                let got = encoder.encode(&text, prompt, truncate, limit);
                let want = match truncate {
                    _ if whole.len() <= limit => whole.clone(),
                    Truncate::None => {
                        let told = match got {
                            Err(TokenizeError::TooLong { tokens, limit }) => Some((tokens, limit)),
                            _ => None,
                        };
                        prop_assert_eq!(told, Some((whole.len(), limit)));
                        continue;
                    }
                    Truncate::End => [&content[..limit - 1], &[*after]].concat(),
                    Truncate::Start => [before, &content[content.len() + before.len() + 1 - limit..], &[*after]].concat(),
                };
                let got = got.unwrap_or_else(|error| panic!("{error}"));
                prop_assert_eq!(&got.ids, &want, "{:?}", truncate);
                prop_assert_eq!((got.original_len, got.truncated()), (whole.len(), whole.len() > limit));
                prop_assert_eq!(got.prompt_len, if prompted { 3 } else { 0 });
            }
        }
    }

    #[test]
    fn a_megabyte_word_is_one_unknown_token() {
        let encoder = encoder();
        let tokens = encoder.encode(&"x".repeat(1 << 20), "", Truncate::None, 3).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(tokens.ids.len(), 3);
    }
}
