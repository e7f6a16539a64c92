//! The output: JSON lines, NumPy, safetensors or Parquet. Each grows by windows in a file of another name and is made whole at the end.

mod jsonl;
mod npy;
mod parquet;
mod safetensors;

pub use jsonl::refusal;

use super::window::Done;
use anyhow::bail;
use arrow_schema::SchemaRef;
use std::fs::File;
use std::path::Path;

/// How the output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// One JSON object a line: index, id, embedding, tokens.
    Jsonl,
    /// One f32 array `[rows, dimensions]` (NumPy's format 1.0).
    Npy,
    /// One f32 tensor `embeddings` of shape `[rows, dimensions]`.
    Safetensors,
    /// The input's columns, and one of f32 lists of fixed size beside them.
    Parquet,
}

impl OutputFormat {
    /// What a file's name says of its format; JSON lines where it has no ending.
    ///
    /// # Errors
    /// An ending that says something else.
    pub fn by_name(path: &Path) -> anyhow::Result<Self> {
        Ok(match path.extension().map(|extension| extension.to_ascii_lowercase()).as_deref().and_then(|extension| extension.to_str()) {
            None | Some("jsonl" | "ndjson" | "json") => Self::Jsonl,
            Some("npy") => Self::Npy,
            Some("safetensors") => Self::Safetensors,
            Some("parquet") => Self::Parquet,
            Some(other) => bail!(
                "--output {}: `.{other}` is not an ending that is known (.jsonl, .npy, .safetensors, .parquet); say which with --output-format",
                path.display()
            ),
        })
    }
}

/// What a format must know before the first row.
#[derive(Debug, Clone)]
pub struct Heading {
    /// Numbers in a vector.
    pub dim: usize,
    /// The model's name.
    pub model: String,
    /// The fingerprint of the space that the vectors lie in.
    pub space: String,
    /// The input's columns, where they are kept.
    pub columns: Option<SchemaRef>,
    /// The name of the column of vectors.
    pub embedding_column: String,
}

/// A way to write vectors that grows by appending.
pub trait Format: Send {
    /// The first bytes of the growing file.
    fn head(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Appends the bytes of some rows to `out`. Rows without a vector keep their place.
    ///
    /// # Errors
    /// Rows that cannot be written this way.
    fn append(&self, done: &Done, out: &mut Vec<u8>) -> anyhow::Result<()>;

    /// Makes the grown file whole, or writes a whole one to `whole`; tells whether it did the latter.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    fn finish(&self, part: &mut File, rows: u64, whole: &Path) -> anyhow::Result<bool>;

    /// Whether the reason of a refused row stands in the output itself.
    fn holds_refusals(&self) -> bool {
        false
    }
}

impl OutputFormat {
    /// The writer of this format.
    ///
    /// # Errors
    /// A heading that it cannot write.
    pub fn writer(self, heading: Heading) -> anyhow::Result<Box<dyn Format>> {
        Ok(match self {
            Self::Jsonl => Box::new(jsonl::JsonLines),
            Self::Npy => Box::new(npy::Npy { dim: heading.dim }),
            Self::Safetensors => Box::new(safetensors::Safetensors { heading }),
            Self::Parquet => Box::new(parquet::Parquet::new(&heading)?),
        })
    }
}

/// Appends vectors as little-endian f32; a row without one is a row of zeros.
fn append_raw(done: &Done, dim: usize, out: &mut Vec<u8>) -> anyhow::Result<()> {
    out.reserve(done.rows.len() * dim * size_of::<f32>());
    for row in &done.rows {
        match row {
            Ok(row) if row.vector.len() != dim => bail!("a vector of {} numbers among vectors of {dim}", row.vector.len()),
            Ok(row) => row.vector.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
            Err(_) => out.resize(out.len() + dim * size_of::<f32>(), 0),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
