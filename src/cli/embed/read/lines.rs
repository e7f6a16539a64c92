//! Texts one a line: plain, or JSON strings and objects with an id.

use super::{BLOCK_BYTES, BLOCK_ROWS, MAX_ROW_BYTES, Source, Wanted};
use crate::cli::embed::line::{Block, Item};
use anyhow::bail;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde_json::{Map, Value};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

/// The lines of a stream.
pub struct Lines {
    input: BufReader<Box<dyn Read + Send>>,
    /// Lines are JSON: the names of the text and of the id. `None` = lines are texts.
    fields: Option<(String, Option<String>)>,
    columns: Option<SchemaRef>,
    bytes: u64,
    rows: u64,
}

/// Starts at a stream's beginning. Columns that are kept: the text, and before it the id of JSON lines.
///
/// # Errors
/// A column named for plain text, or one name for both.
pub fn open(input: Box<dyn Read + Send>, json: bool, wanted: &Wanted) -> anyhow::Result<(Lines, Option<SchemaRef>)> {
    if !json && (wanted.column.is_some() || wanted.id_column.as_deref().is_some_and(|name| !name.is_empty())) {
        bail!("plain text has no columns: --column and --id-column need --input-format jsonl, csv, tsv or parquet");
    }
    let fields = json.then(|| wanted.fields());
    let names: Vec<&str> = match &fields {
        Some((text, Some(id))) if text == id => bail!("--column and --id-column are both {text:?}"),
        Some((text, id)) => id.iter().chain([text]).map(String::as_str).collect(),
        None => vec![super::TEXT_COLUMN],
    };
    let schema = Schema::new(names.into_iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>());
    let columns = wanted.keep_columns.then(|| Arc::new(schema));
    Ok((Lines { input: BufReader::with_capacity(1 << 16, input), fields, columns: columns.clone(), bytes: 0, rows: 0 }, columns))
}

impl Lines {
    /// The next line without its end, and without the mark some programs put at the start of a file; `None` inside = too long.
    fn raw(&mut self) -> io::Result<Option<Option<Vec<u8>>>> {
        let mut line = Vec::new();
        let first = self.bytes == 0;
        let read = (&mut self.input).take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut line)?;
        self.bytes += read as u64;
        if read == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        } else if read as u64 > MAX_ROW_BYTES {
            self.bytes += self.input.skip_until(b'\n')? as u64;
            return Ok(Some(None));
        }
        if first && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        Ok(Some(Some(line)))
    }

    fn parse(&self, raw: Option<Vec<u8>>) -> anyhow::Result<Item> {
        let text = match raw {
            None => Err(format!("a line of more than {MAX_ROW_BYTES} bytes")),
            Some(bytes) => String::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}")),
        };
        match (&self.fields, text) {
            (Some((text, id)), Ok(line)) => self.parse_json(&line, text, id.as_deref()),
            (_, text) => Ok(Item::of(None, text)),
        }
    }

    fn parse_json(&self, line: &str, text: &str, id: Option<&str>) -> anyhow::Result<Item> {
        let mut object: Map<String, Value> = match serde_json::from_str(line) {
            Ok(Value::String(text)) => return Ok(Item::of(None, Ok(text))),
            Ok(Value::Object(object)) => object,
            Ok(_) => return Ok(Item::of(None, Err("neither a JSON string nor an object".to_owned()))),
            Err(error) => return Ok(Item::of(None, Err(format!("not JSON: {error}")))),
        };
        let found = match object.remove(text) {
            Some(Value::String(text)) => Ok(text),
            Some(Value::Null) => Err(format!("{text:?} is null")),
            Some(_) => Err(format!("{text:?} is not a string")),
            None => {
                let names = object.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
                let reason = format!("no field {text:?}; the fields are {names}");
                if self.rows == 0 {
                    bail!("the first row has {reason}: name the one with the texts with --column");
                }
                Err(reason)
            }
        };
        // null is no name.
        let id = id.and_then(|id| object.remove(id)).filter(|id| !id.is_null());
        Ok(Item::of(id, found))
    }

    fn table(&self, items: &[Item]) -> anyhow::Result<Option<RecordBatch>> {
        let Some(columns) = &self.columns else { return Ok(None) };
        let text = StringArray::from_iter(items.iter().map(|item| item.text.as_ref().ok()));
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(text)];
        if columns.fields().len() == 2 {
            // A string as it is, any other value as its JSON.
            let id = |item: &Item| item.id.as_ref().map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
            arrays.insert(0, Arc::new(StringArray::from_iter(items.iter().map(id))));
        }
        Ok(Some(RecordBatch::try_new(columns.clone(), arrays)?))
    }
}

impl Source for Lines {
    fn block(&mut self) -> anyhow::Result<Option<Block>> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < BLOCK_ROWS && bytes < BLOCK_BYTES {
            // Whoever writes to a pipe now and then is not kept waiting for rows that are not there yet.
            if !items.is_empty() && !self.input.buffer().contains(&b'\n') {
                break;
            }
            let Some(raw) = self.raw()? else { break };
            if self.fields.is_some() && raw.as_ref().is_some_and(|bytes| bytes.trim_ascii().is_empty()) {
                continue;
            }
            let item = self.parse(raw)?;
            self.rows += 1;
            bytes += item.text.as_ref().map_or(0, String::len);
            items.push(item);
        }
        if items.is_empty() {
            return Ok(None);
        }
        let table = self.table(&items)?;
        Ok(Some(Block { items, table, end: self.bytes }))
    }
}
