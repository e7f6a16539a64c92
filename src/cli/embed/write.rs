//! Vectors to a stream, one JSON object a line.

use super::ask::Row;
use super::read::Line;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};

/// Takes the results in input order.
pub trait RowWriter: Send {
    /// One line's vector, or why it has none.
    ///
    /// # Errors
    /// Output that cannot be written.
    fn row(&mut self, line: &Line, row: Result<Row, String>) -> io::Result<()>;

    /// All lines have been written.
    ///
    /// # Errors
    /// Output that cannot be written.
    fn finish(&mut self) -> io::Result<()>;
}

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
pub struct JsonLines<W> {
    out: W,
}

impl<W: Write + Send> JsonLines<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> RowWriter for JsonLines<W> {
    fn row(&mut self, line: &Line, row: Result<Row, String>) -> io::Result<()> {
        write_line(&mut self.out, line, row.as_ref().map_err(String::as_str))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One line of output, its end included.
///
/// # Errors
/// Output that cannot be written.
pub fn write_line(out: &mut dyn Write, line: &Line, row: Result<&Row, &str>) -> io::Result<()> {
    let vector = row.ok();
    let original_tokens = vector.and_then(|row| row.tokens.original_tokens);
    let written = OutputLine {
        index: line.index,
        id: line.id.as_ref(),
        embedding: vector.map(|row| row.vector.as_slice()),
        tokens: vector.map(|row| row.tokens.tokens),
        truncated: original_tokens.map(|_| true),
        original_tokens,
        error: row.err(),
    };
    serde_json::to_writer(&mut *out, &written)?;
    out.write_all(b"\n")
}
