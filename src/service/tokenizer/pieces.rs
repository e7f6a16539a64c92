//! Cuts a long text where a BERT tokenizer would separate it anyway, so that tokenising megabytes costs the memory of one piece.

use std::borrow::Cow;

/// Pieces are at most this long where a cut can be found. The tokenizer takes some hundred bytes per byte of text while it works.
const PIECE_BYTES: usize = 64 << 10;

/// Where a text may be cut without changing a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// Before ASCII white space.
    WhiteSpace,
    /// Also before ASCII punctuation, and before ideographs where the normaliser puts spaces around these.
    InsideWords { ideographs: bool },
}

/// Knows where the texts of one tokenizer may be cut.
#[derive(Debug)]
pub struct Cutter {
    cuts: Cuts,
    /// Texts that are one token each and must stay whole.
    added: Vec<String>,
    /// A word of more characters than this is one unknown token, whatever it is.
    max_word_chars: usize,
    /// No token of its own consists of ASCII letters and digits only, so that none can be hidden in a long run of these.
    shorten: bool,
    piece_bytes: usize,
}

impl Cutter {
    /// Remembers what may not be cut.
    pub fn new(cuts: Cuts, added: Vec<String>, max_word_chars: usize) -> Self {
        let shorten = cuts != Cuts::WhiteSpace && added.iter().all(|token| !token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        Self { cuts, added, max_word_chars, shorten, piece_bytes: PIECE_BYTES }
    }

    /// The same with another length of pieces, so that a test can cut short texts.
    #[cfg(test)]
    pub fn with_piece_bytes(mut self, piece_bytes: usize) -> Self {
        self.piece_bytes = piece_bytes;
        self
    }

    /// The text in pieces whose tokens, laid end to end, are the text's tokens. An empty text is one empty piece.
    pub fn pieces<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        let mut rest = Some(text);
        std::iter::from_fn(move || {
            let text = rest?;
            let (piece, after) = text.split_at(self.first_cut(text));
            rest = (!after.is_empty()).then_some(after);
            Some(if self.shorten && piece.len() > self.piece_bytes { self.shortened(piece).into() } else { piece.into() })
        })
    }

    /// Where the first piece ends: at the last cut within its length, else at the first one after it.
    fn first_cut(&self, text: &str) -> usize {
        if text.len() <= self.piece_bytes {
            return text.len();
        }
        let before = (1..=self.piece_bytes).rev().find(|at| self.may_cut(text, *at));
        before.or_else(|| (self.piece_bytes + 1..text.len()).find(|at| self.may_cut(text, *at))).unwrap_or(text.len())
    }

    fn may_cut(&self, text: &str, at: usize) -> bool {
        let Some((left, right)) = text.split_at_checked(at) else { return false };
        let inside = |ideographs| match right.chars().next() {
            Some(next) => next.is_ascii_punctuation() || ideographs && ('\u{4e00}'..='\u{9fff}').contains(&next),
            None => false,
        };
        match self.cuts {
            _ if right.starts_with([' ', '\t', '\n', '\r']) => true,
            Cuts::WhiteSpace => false,
            Cuts::InsideWords { ideographs } => inside(ideographs) && !self.added.iter().any(|token| straddles(token, left, right)),
        }
    }

    /// A piece without cuts, its runs of letters and digits shortened to just more than the longest word that is looked up: the word they are
    /// in is unknown before and after.
    fn shortened(&self, piece: &str) -> String {
        let mut run = 0;
        let keep = |next: &char| {
            run = if next.is_ascii_alphanumeric() { run + 1 } else { 0 };
            run <= self.max_word_chars + 1
        };
        piece.chars().filter(keep).collect()
    }
}

/// True if an occurrence of `token` begins in `left` and ends in `right`.
fn straddles(token: &str, left: &str, right: &str) -> bool {
    (1..token.len()).any(|at| token.split_at_checked(at).is_some_and(|(head, tail)| left.ends_with(head) && right.starts_with(tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cutter() -> Cutter {
        Cutter::new(Cuts::InsideWords { ideographs: true }, vec!["[CLS]".to_owned()], 3).with_piece_bytes(4)
    }

    fn pieces(text: &str) -> Vec<String> {
        cutter().pieces(text).map(Cow::into_owned).collect()
    }

    #[test]
    fn cuts_lie_before_white_space_punctuation_and_ideographs() {
        assert_eq!(pieces("ab cd ef"), ["ab", " cd", " ef"]);
        assert_eq!(pieces("ab.cd,ef"), ["ab", ".cd", ",ef"]);
        assert_eq!(pieces("\u{65e5}\u{672c}\u{8a9e}"), ["\u{65e5}", "\u{672c}", "\u{8a9e}"]);
        assert_eq!(pieces(""), [""]);
    }

    #[test]
    fn a_token_of_its_own_stays_whole() {
        assert_eq!(pieces("a[CLS].b"), ["a", "[CLS]", ".b"]);
    }

    #[test]
    fn a_word_beyond_lookup_is_shortened() {
        assert_eq!(pieces("abcdefghij klm"), ["abcd", " klm"]);
        assert_eq!(pieces("abcdefghij\u{e9}0123456"), ["abcd\u{e9}0123"]);
    }
}
