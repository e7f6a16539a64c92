//! A model's goldens: the texts and the reference's vectors for them, beside its files or compiled in with its card.

use super::error::{HubError, IoContext};
use super::files::{ModelFiles, read_limited};
use super::select::GOLDEN;
use crate::card;
use std::path::Path;

/// Enough for ten thousand texts of a model of 4096 dimensions.
const LIMIT_BYTES: u64 = 256 << 20;
const RECORD: &str = "golden.json";
const VECTORS: &str = "golden.safetensors";

/// The two files, unread.
#[derive(Debug, Clone)]
pub struct Goldens {
    /// `golden.json`.
    pub record: Vec<u8>,
    /// `golden.safetensors`.
    pub vectors: Vec<u8>,
    /// Where they come from, for people.
    pub from: String,
}

impl ModelFiles {
    /// The goldens in the model's folder `golden/`, else those of its card; `None` if it has none, as a model in one file.
    ///
    /// # Errors
    /// One of the two files is missing or cannot be read.
    pub fn goldens(&self) -> Result<Option<Goldens>, HubError> {
        let folder = self.root.join(GOLDEN);
        if folder.is_dir() {
            return goldens_at(&folder).map(Some);
        }
        let compiled_in = |card: &card::Card| {
            let golden = card::golden(card)?;
            let from = format!("the card of {}", card.name);
            Some(Goldens { record: golden.record.to_vec(), vectors: golden.vectors.to_vec(), from })
        };
        Ok(self.card.and_then(compiled_in))
    }
}

/// The goldens that `path` names: a `golden.json` with its vectors beside it, or the folder of both.
///
/// # Errors
/// One of the two files is missing or cannot be read.
pub fn goldens_at(path: &Path) -> Result<Goldens, HubError> {
    let record = if path.is_dir() { path.join(RECORD) } else { path.to_owned() };
    let vectors = record.with_extension("safetensors");
    let missing = |file: &str| HubError::Missing { file: file.to_owned(), origin: path.display().to_string() };
    for (file, name) in [(&record, RECORD), (&vectors, VECTORS)] {
        if !file.try_exists().io("find", file)? {
            return Err(missing(name));
        }
    }
    let from = record.display().to_string();
    Ok(Goldens { record: read_limited(&record, LIMIT_BYTES)?, vectors: read_limited(&vectors, LIMIT_BYTES)?, from })
}
