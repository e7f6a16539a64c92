//! Windows of the input: rows that are embedded in the order of their length, so that batches hold texts alike, and written in their own.

use super::ask::Row;
use super::line::{Chain, Line, Lines};
use arrow_array::RecordBatch;
use serde_json::Value;
use std::mem;

/// How large windows and the requests cut from them are.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of a window.
    pub window_rows: usize,
    /// Bytes of text of a window.
    pub window_bytes: usize,
    /// Texts of one request.
    pub chunk_texts: usize,
    /// Bytes of text of one request.
    pub chunk_bytes: usize,
}

/// The most that a window holds: some thousand rows, and so much text that a few of them fit into any memory.
const MOST: (usize, usize) = (4096, 8 << 20);
/// The least, below which sorting by length gains nothing.
const LEAST: (usize, usize) = (64, 64 << 10);
/// A low guess, as elsewhere.
const BYTES_PER_TOKEN: usize = 4;
/// A window is written, and a checkpoint with it, about this often.
const WINDOW_S: f64 = 10.0;

impl Limits {
    /// Windows of about ten seconds of work, requests of about one batch.
    pub fn of(batch_tokens: usize, batch_texts: usize, tokens_per_s: f64) -> Self {
        let bytes = (tokens_per_s * WINDOW_S) as usize * BYTES_PER_TOKEN;
        Self {
            // A text of one token costs at least what eight do.
            window_rows: (bytes / (8 * BYTES_PER_TOKEN)).clamp(LEAST.0, MOST.0),
            window_bytes: bytes.clamp(LEAST.1, MOST.1),
            chunk_texts: batch_texts.max(1),
            chunk_bytes: batch_tokens.max(1) * BYTES_PER_TOKEN,
        }
    }
}

/// A row as the writer sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Its place among the rows, from 0.
    pub index: u64,
    pub id: Option<Value>,
    pub chain: Chain,
}

/// Rows of the input with what became of them.
#[derive(Debug, Default)]
pub struct Done {
    pub places: Vec<Place>,
    /// A vector or a reason for each place.
    pub rows: Vec<Result<Row, String>>,
    /// The columns that are kept, together one row for each place.
    pub tables: Vec<RecordBatch>,
    /// How far into the input the last row ends.
    pub end: u64,
}

/// Rows that are being gathered or embedded.
#[derive(Debug, Default)]
pub struct Window {
    lines: Vec<Line>,
    tables: Vec<RecordBatch>,
    bytes: usize,
    end: u64,
    answers: Vec<Option<Result<Row, String>>>,
    missing: usize,
}

/// Texts for one request, with their numbers in the window.
#[derive(Debug, PartialEq)]
pub struct Chunk {
    pub rows: Vec<usize>,
    pub texts: Vec<String>,
}

impl Window {
    /// Takes more rows.
    pub fn take(&mut self, lines: Lines) {
        self.bytes += lines.lines.iter().map(|line| line.text.as_ref().map_or(0, String::len)).sum::<usize>();
        self.lines.extend(lines.lines);
        self.tables.extend(lines.table);
        self.end = lines.end;
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn is_full(&self, limits: &Limits) -> bool {
        self.lines.len() >= limits.window_rows || self.bytes >= limits.window_bytes
    }

    /// Closes the window: its texts go out in requests, short ones first.
    pub fn cut(&mut self, limits: &Limits) -> Vec<Chunk> {
        self.answers = self.lines.iter().map(|line| line.text.as_ref().err().map(|reason| Err(reason.clone()))).collect();
        let mut order: Vec<usize> = (0..self.lines.len()).filter(|&row| self.answers[row].is_none()).collect();
        order.sort_by_key(|&row| self.lines[row].text.as_ref().map_or(0, String::len));
        self.missing = order.len();
        let (mut chunks, mut bytes) = (Vec::<Chunk>::new(), 0);
        for row in order {
            let Ok(text) = self.lines[row].text.as_mut().map(mem::take) else { continue };
            match chunks.last_mut() {
                Some(chunk) if chunk.texts.len() < limits.chunk_texts && bytes + text.len() <= limits.chunk_bytes => {
                    bytes += text.len();
                    chunk.rows.push(row);
                    chunk.texts.push(text);
                }
                _ => {
                    bytes = text.len();
                    chunks.push(Chunk { rows: vec![row], texts: vec![text] });
                }
            }
        }
        chunks
    }

    /// Takes the answers to a chunk.
    pub fn put(&mut self, rows: &[usize], answers: Vec<Result<Row, String>>) {
        for (&row, answer) in rows.iter().zip(answers) {
            if let Some(place) = self.answers.get_mut(row)
                && place.replace(answer).is_none()
            {
                self.missing -= 1;
            }
        }
    }

    /// Whether every row has its answer.
    pub fn is_done(&self) -> bool {
        self.missing == 0
    }

    /// The rows with their answers, in the order of the input.
    pub fn done(self) -> Done {
        let rows = self.answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err("no answer".to_owned()))).collect();
        let places = self.lines.into_iter().map(|Line { index, id, chain, .. }| Place { index, id, chain }).collect();
        Done { places, rows, tables: self.tables, end: self.end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ItemTokens;

    #[test]
    fn texts_go_out_by_length_and_come_back_in_order() {
        let texts = ["four", "a", "", "three", "bb", "c"];
        let line = |(index, text): (usize, &&str)| {
            let text = if text.is_empty() { Err("empty".to_owned()) } else { Ok((*text).to_owned()) };
            Line { index: index as u64, id: None, text, chain: Chain::default() }
        };
        let mut window = Window::default();
        window.take(Lines { lines: texts.iter().enumerate().map(line).collect(), table: None, end: 7 });
        let limits = Limits { window_rows: 6, window_bytes: 100, chunk_texts: 2, chunk_bytes: 6 };
        assert!(window.is_full(&limits));
        let chunks = window.cut(&limits);
        let rows: Vec<_> = chunks.iter().map(|chunk| chunk.rows.clone()).collect();
        assert_eq!(rows, [vec![1, 5], vec![4, 0], vec![3]], "two texts, six bytes, or one that is longer");
        for chunk in chunks.iter().rev() {
            assert!(!window.is_done());
            let row = |text: &String| Ok(Row { vector: vec![text.len() as f32], tokens: ItemTokens { tokens: 1, original_tokens: None } });
            window.put(&chunk.rows, chunk.texts.iter().map(row).collect());
        }
        assert!(window.is_done());
        let done = window.done();
        assert_eq!(done.end, 7);
        let lengths: Vec<_> = done.rows.iter().map(|row| row.as_ref().map(|row| row.vector[0])).collect();
        assert_eq!(lengths, [Ok(4.0), Ok(1.0), Err(&"empty".to_owned()), Ok(5.0), Ok(2.0), Ok(1.0)]);
    }

    #[test]
    fn windows_follow_the_models_pace_within_bounds() {
        let slow = Limits::of(512, 512, 50.0);
        assert_eq!((slow.window_rows, slow.window_bytes), (64, 64 << 10));
        let fast = Limits::of(32_768, 512, 1e6);
        assert_eq!((fast.window_rows, fast.window_bytes, fast.chunk_bytes), (4096, 8 << 20, 131_072));
    }
}
