//! From text to ids, exactly as sentence-transformers has them: prompt as text before it, special tokens around, cut to length where asked.
//! Only this file and its folder know the `tokenizers` crate.

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
    /// It is longer than allowed and may not be cut.
    #[error("{tokens} tokens, but the limit is {limit}")]
    TooLong { tokens: usize, limit: usize },
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
        let special = self.before.len() + self.after.len();
        let mut kept = Kept { room: limit.saturating_sub(special), truncate, head: 0, ids: Vec::new(), seen: 0 };
        match &self.cutter {
            None => self.feed(whole, prompt, &mut kept)?,
            Some(cutter) => {
                for piece in cutter.pieces(whole) {
                    let prompt = if kept.seen == 0 { prompt } else { "" };
                    self.feed(&piece, prompt, &mut kept)?;
                }
            }
        }
        let tokens = kept.seen + special;
        if tokens > limit && truncate == Truncate::None {
            return Err(TokenizeError::TooLong { tokens, limit });
        }
        kept.close();
        let ids = [self.before.as_slice(), &kept.ids, &self.after].concat();
        Ok(Tokens { ids, prompt_len: self.prompt_len(prompt)?, original_len: tokens })
    }

    /// Appends the content tokens of one piece; of the first piece, those that begin inside the prompt are its head.
    fn feed(&self, piece: &str, prompt: &str, kept: &mut Kept) -> Result<(), TokenizeError> {
        if kept.truncate == Truncate::Start && !prompt.is_empty() {
            let encoding = self.tokenizer.encode(piece, false).map_err(TokenizeError::Failed)?;
            kept.head = encoding.get_offsets().iter().take_while(|(start, _)| *start < prompt.len()).count();
            kept.push(encoding.get_ids());
        } else {
            kept.push(self.tokenizer.encode_fast(piece, false).map_err(TokenizeError::Failed)?.get_ids());
        }
        Ok(())
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
