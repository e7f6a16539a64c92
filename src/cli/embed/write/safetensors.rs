//! Vectors as one tensor `embeddings` of a safetensors file: f32, `[rows, dim]`; its metadata names model and embedding space.
//!
//! The shape stands in the header, so the header's place is kept free, padded with spaces as the format allows. A refused row keeps its place as zeros.

use super::{Format, Heading, append_raw};
use crate::cli::embed::window::Done;
use serde_json::json;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

/// Digits of the largest number of rows or bytes.
const DIGITS: usize = 20;
/// What the tensor's data is aligned to.
const ALIGN: usize = 64;

/// A file with one tensor.
pub struct Safetensors {
    pub heading: Heading,
}

impl Safetensors {
    /// u64 length, then JSON padded to a length that does not depend on the number of rows.
    fn header(&self, rows: u64) -> Vec<u8> {
        let Heading { dim, model, space, .. } = &self.heading;
        let bytes = rows * (dim * size_of::<f32>()) as u64;
        let header = json!({
            "__metadata__": {"model": model, "space": space},
            "embeddings": {"dtype": "F32", "shape": [rows, dim], "data_offsets": [0, bytes]},
        });
        let mut text = header.to_string().into_bytes();
        let written = rows.to_string().len() + bytes.to_string().len();
        let longest = text.len() - written + 2 * DIGITS;
        text.resize((longest + 8).next_multiple_of(ALIGN) - 8, b' ');
        [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat()
    }
}

impl Format for Safetensors {
    fn head(&self) -> Vec<u8> {
        self.header(0)
    }

    fn append(&self, done: &Done, out: &mut Vec<u8>) -> anyhow::Result<()> {
        append_raw(done, self.heading.dim, out)
    }

    fn finish(&self, part: &mut File, rows: u64, _: &Path) -> anyhow::Result<bool> {
        part.rewind()?;
        part.write_all(&self.header(rows))?;
        Ok(false)
    }
}
