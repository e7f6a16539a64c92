//! Texts from a stream, one a line: plain, or JSON strings and objects with an id. A bad line is a finding, not the end.

use serde::Deserialize;
use serde_json::Value;
use std::io::{self, BufRead, Read};
use std::path::Path;

/// A longer line is refused rather than held in memory.
const MAX_LINE_BYTES: u64 = 32 << 20;

/// How the input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum InputFormat {
    /// Every line is a text; an empty one is refused, and counts.
    Text,
    /// Every line is a JSON string or an object `{"text": ..., "id"?: ...}`; blank lines are skipped.
    Jsonl,
}

impl InputFormat {
    /// What a file's name says of its format.
    pub fn by_name(path: &Path) -> Self {
        if path.extension().is_some_and(|extension| extension == "jsonl") { Self::Jsonl } else { Self::Text }
    }
}

/// One text of the input.
#[derive(Debug, PartialEq)]
pub struct Line {
    /// Its place among the texts, from 0.
    pub index: u64,
    /// What the input calls it; any JSON value.
    pub id: Option<Value>,
    /// The text, or why there is none.
    pub text: Result<String, String>,
}

/// The object form of a JSON line; other fields may be there and are left alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum JsonLine {
    Bare(String),
    Named {
        text: String,
        #[serde(default)]
        id: Option<Value>,
    },
}

/// The texts of a stream.
pub struct Lines<R> {
    input: R,
    format: InputFormat,
    index: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    /// Starts at the stream's beginning.
    pub fn new(input: R, format: InputFormat) -> Self {
        Self { input, format, index: 0, bytes: 0 }
    }

    /// How many bytes have been read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line without its end, and without the mark some programs put at the start of a file; `None` inside = too long.
    fn raw(&mut self) -> io::Result<Option<Option<Vec<u8>>>> {
        let mut line = Vec::new();
        let first = self.bytes == 0;
        let read = (&mut self.input).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
        self.bytes += read as u64;
        if read == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        } else if read as u64 > MAX_LINE_BYTES {
            self.bytes += self.input.skip_until(b'\n')? as u64;
            return Ok(Some(None));
        }
        if first && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        Ok(Some(Some(line)))
    }

    fn parse(&self, raw: Option<Vec<u8>>) -> Line {
        let text = match raw {
            None => Err(format!("a line of more than {MAX_LINE_BYTES} bytes")),
            Some(bytes) => String::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}")),
        };
        let (id, text) = match (text, self.format) {
            (Ok(text), InputFormat::Jsonl) => match serde_json::from_str(&text) {
                Ok(JsonLine::Bare(text)) => (None, Ok(text)),
                Ok(JsonLine::Named { text, id }) => (id, Ok(text)),
                Err(_) => (id_of(&text), Err("not a JSON string, nor an object with a string \"text\"".to_owned())),
            },
            (text, _) => (None, text),
        };
        let text = text.and_then(|text| if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) });
        Line { index: self.index, id, text }
    }
}

/// The id of an object that has no usable text, so that the refusal can name it.
fn id_of(line: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line).ok()?.get("id").cloned()
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let raw = match self.raw() {
                Ok(raw) => raw?,
                Err(e) => return Some(Err(e)),
            };
            let blank = raw.as_ref().is_some_and(|bytes| bytes.trim_ascii().is_empty());
            if blank && self.format == InputFormat::Jsonl {
                continue;
            }
            let line = self.parse(raw);
            self.index += 1;
            return Some(Ok(line));
        }
    }
}
