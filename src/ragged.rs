//! Texts of different lengths side by side without padding: one text's tokens, cumulative offsets, a packed batch.

use std::ops::Range;

/// One text as the model sees it: its ids with special tokens, already cut to the model's length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Vocabulary ids, special tokens included.
    pub ids: Vec<u32>,
    /// How many leading tokens belong to the prompt (the first special token included), for poolings that leave it out; 0 = none.
    pub prompt_len: usize,
    /// How many tokens the whole text has; more than `ids.len()` when the text was cut.
    pub original_len: usize,
    /// Which of the network's sets of low-rank deltas it wants.
    pub adapter: Option<usize>,
}

impl Tokens {
    /// Tokens of a text that was not cut and has no prompt.
    pub fn whole(ids: Vec<u32>) -> Self {
        let original_len = ids.len();
        Self { ids, original_len, ..Self::default() }
    }

    /// The number of tokens that will be computed.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True for a text without a single token, which no model takes.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// True if part of the text was left out.
    pub fn truncated(&self) -> bool {
        self.original_len > self.ids.len()
    }
}

/// Cumulative offsets of `B` texts in a packed dimension: `B + 1` numbers, the first 0, the last `T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ragged(Vec<usize>);

impl Ragged {
    /// Offsets from the texts' lengths.
    pub fn from_lens(lens: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for len in lens {
            end += len;
            offsets.push(end);
        }
        Self(offsets)
    }

    /// `B`, the number of texts.
    pub fn texts(&self) -> usize {
        self.0.len() - 1
    }

    /// `T`, the number of tokens of all texts.
    pub fn total(&self) -> usize {
        self.0[self.0.len() - 1]
    }

    /// The cumulative offsets, `[B + 1]`.
    pub fn offsets(&self) -> &[usize] {
        &self.0
    }

    /// The rows of each text, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.windows(2).map(|pair| pair[0]..pair[1])
    }
}

/// A batch of texts laid end to end: what an executor computes in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The ids of all texts, `[T]`.
    pub ids: Vec<u32>,
    /// Where each text lies in `ids`.
    pub segments: Ragged,
    /// `Tokens::prompt_len` of each text, `[B]`.
    pub prompt_lens: Vec<usize>,
    /// `Tokens::adapter` of each text, `[B]`.
    pub adapters: Vec<Option<usize>>,
}

impl Packed {
    /// Lays the texts end to end, in order.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a Tokens>) -> Self {
        let (mut ids, mut lens, mut prompt_lens, mut adapters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            ids.extend_from_slice(&text.ids);
            lens.push(text.len());
            prompt_lens.push(text.prompt_len);
            adapters.push(text.adapter);
        }
        Self { ids, segments: Ragged::from_lens(lens), prompt_lens, adapters }
    }

    /// `T`, the number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// `B`, the number of texts.
    pub fn texts(&self) -> usize {
        self.segments.texts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_order_and_bounds() {
        let texts = [Tokens::whole(vec![1, 2, 3]), Tokens::whole(vec![4]), Tokens::whole(vec![5, 6])];
        let packed = Packed::new(&texts);
        assert_eq!(packed.ids, [1, 2, 3, 4, 5, 6]);
        assert_eq!(packed.segments.offsets(), [0, 3, 4, 6]);
        assert_eq!(packed.segments.ranges().collect::<Vec<_>>(), [0..3, 3..4, 4..6]);
        assert_eq!((packed.tokens(), packed.texts()), (6, 3));
    }

    #[test]
    fn an_empty_batch_has_one_offset() {
        let packed = Packed::new([]);
        assert_eq!((packed.tokens(), packed.texts()), (0, 0));
        assert_eq!(packed.segments.offsets(), [0]);
    }
}
