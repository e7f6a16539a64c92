//! Token ids of OpenAI's vocabulary `cl100k_base` back to the text they stand for: what clients written for OpenAI's models send, even to others.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tiktoken_rs::cl100k_base_singleton;

/// Ids from here on are control tokens, which stand for no text.
const FIRST_CONTROL_ID: u32 = 100_256;

static LOADED: AtomicBool = AtomicBool::new(false);

/// The text of some ids. The first call takes a moment: it builds the table of all ids, which comes compiled in.
///
/// A client that cuts its ids into pieces may cut within a character; such a piece's broken ends come out as U+FFFD.
///
/// # Errors
/// The sentence that names the first id without text.
pub fn decode(ids: &[u32]) -> Result<String, String> {
    let without_text = |id: u32| format!("holds the token id {id}, which stands for no text in the vocabulary cl100k_base; send strings instead");
    if let Some(control) = ids.iter().find(|id| **id >= FIRST_CONTROL_ID) {
        return Err(without_text(*control));
    }
    let vocabulary = cl100k_base_singleton();
    LOADED.store(true, Relaxed);
    let bytes = vocabulary.decode_bytes(ids).map_err(|error| without_text(error.token))?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// True once `decode` is quick.
pub fn is_loaded() -> bool {
    LOADED.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_the_text_that_they_stand_for() {
        // "tiktoken is great!" as OpenAI's own cookbook encodes it.
        assert_eq!(decode(&[83, 1609, 5963, 374, 2294, 0]).unwrap(), "tiktoken is great!");
        assert!(is_loaded());
        for text in ["naïve café ☕ 日本語", " leading and trailing \n\n", "fn main() { println!(\"{}\", 1) }", "😀\u{0}"] {
            assert_eq!(decode(&cl100k_base_singleton().encode_ordinary(text)).unwrap(), text);
        }
    }

    #[test]
    fn a_piece_of_a_character_is_marked_and_not_lost() {
        let ids = cl100k_base_singleton().encode_ordinary("☕");
        assert!(ids.len() > 1, "the character is one token");
        assert!(decode(&ids[..1]).unwrap().contains('\u{fffd}'));
    }

    #[test]
    fn ids_without_text_are_named() {
        for id in [100_256, 100_257, 100_276, 200_000, u32::MAX] {
            assert!(decode(&[83, id]).unwrap_err().contains(&id.to_string()), "{id}");
        }
        assert!(decode(&[100_255]).is_ok());
    }
}
