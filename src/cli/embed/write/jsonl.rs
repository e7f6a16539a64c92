//! Vectors as JSON lines, one object a row.

use super::Format;
use crate::cli::embed::ask::Row;
use crate::cli::embed::window::{Done, Place};
use serde::Serialize;
use serde_json::Value;
use std::fs::File;
use std::path::Path;

/// One line of output: `{"index", "id"?, "embedding", "tokens", "truncated"?, "original_tokens"?}` or `{"index", "id"?, "error"}`.
#[derive(Serialize)]
struct OutputLine<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// JSON lines.
pub struct JsonLines;

impl Format for JsonLines {
    fn append(&self, done: &Done, out: &mut Vec<u8>) -> anyhow::Result<()> {
        done.places.iter().zip(&done.rows).try_for_each(|(place, row)| line(place, row.as_ref().map_err(String::as_str), out))?;
        Ok(())
    }

    fn finish(&self, _: &mut File, _: u64, _: &Path) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn holds_refusals(&self) -> bool {
        true
    }
}

/// The line of a refused row, its end included.
///
/// # Errors
/// None that is known: memory takes every byte.
pub fn refusal(place: &Place, reason: &str) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::new();
    line(place, Err(reason), &mut out)?;
    Ok(out)
}

fn line(place: &Place, row: Result<&Row, &str>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let vector = row.ok();
    let original_tokens = vector.and_then(|row| row.tokens.original_tokens);
    let written = OutputLine {
        index: place.index,
        id: place.id.as_ref(),
        embedding: vector.map(|row| row.vector.as_slice()),
        tokens: vector.map(|row| row.tokens.tokens),
        truncated: original_tokens.map(|_| true),
        original_tokens,
        error: row.err(),
    };
    serde_json::to_writer(&mut *out, &written)?;
    out.push(b'\n');
    Ok(())
}
