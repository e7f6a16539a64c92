//! Texts in a column of comma- or tab-separated values, as RFC 4180 has them: quotes, line ends inside quotes, a header row.

use super::{BLOCK_BYTES, BLOCK_ROWS, Column, MAX_ROW_BYTES, Source, Wanted, choose};
use crate::cli::embed::line::{Block, Item};
use anyhow::{Context, bail};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::Value;
use std::io::{self, Read};
use std::sync::Arc;

/// The records of a stream.
pub struct Csv {
    reader: Reader<Bounded>,
    names: usize,
    text: usize,
    id: Option<usize>,
    columns: Option<SchemaRef>,
    record: ByteRecord,
}

/// Reads the header. Columns that are kept: all, as text.
///
/// # Errors
/// No header, or one without the columns that are wanted.
pub fn open(input: Box<dyn Read + Send>, delimiter: u8, wanted: &Wanted) -> anyhow::Result<(Csv, Option<SchemaRef>)> {
    // Rows of another length are found here, row by row, and not by the crate, which would end with the first.
    let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(Bounded { input, left: MAX_ROW_BYTES });
    let header = reader.headers().context("the header row")?.clone();
    if header.is_empty() {
        bail!("there is no header row");
    }
    let column = |name: &str| Column { name: name.to_owned(), kind: String::new(), is_text: true, is_id: true };
    let (text, id) = choose(&header.iter().map(column).collect::<Vec<_>>(), wanted)?;
    let schema = Schema::new(header.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>());
    let columns = wanted.keep_columns.then(|| Arc::new(schema));
    Ok((Csv { reader, names: header.len(), text, id, columns: columns.clone(), record: ByteRecord::new() }, columns))
}

impl Csv {
    /// The record that was read last, as a row.
    fn item(&self) -> Item {
        let field = |at: usize| self.record.get(at).map(std::str::from_utf8);
        let id = self.id.and_then(field).and_then(Result::ok).map(|id| Value::String(id.to_owned()));
        if self.record.len() != self.names {
            return Item::of(id, Err(format!("{} fields, but the header has {}", self.record.len(), self.names)));
        }
        let text = match field(self.text) {
            Some(Ok(text)) => Ok(text.to_owned()),
            Some(Err(error)) => Err(format!("not UTF-8: {error}")),
            None => Err("no such field".to_owned()),
        };
        Item::of(id, text)
    }
}

impl Source for Csv {
    fn block(&mut self) -> anyhow::Result<Option<Block>> {
        let mut items = Vec::new();
        let mut kept: Vec<Vec<Option<String>>> = vec![Vec::new(); self.columns.as_ref().map_or(0, |columns| columns.fields().len())];
        let mut bytes = 0;
        while items.len() < BLOCK_ROWS && bytes < BLOCK_BYTES {
            self.reader.get_mut().left = MAX_ROW_BYTES;
            if !self.reader.read_byte_record(&mut self.record)? {
                break;
            }
            bytes += self.record.as_slice().len();
            items.push(self.item());
            for (at, column) in kept.iter_mut().enumerate() {
                column.push(self.record.get(at).and_then(|field| std::str::from_utf8(field).ok()).map(str::to_owned));
            }
        }
        if items.is_empty() {
            return Ok(None);
        }
        let table = match &self.columns {
            Some(columns) => {
                let arrays = kept.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef).collect();
                Some(RecordBatch::try_new(columns.clone(), arrays)?)
            }
            None => None,
        };
        Ok(Some(Block { items, table, end: self.reader.position().byte() }))
    }
}

/// A stream that ends in an error when one row takes too much of it.
struct Bounded {
    input: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(format!("a row of more than {MAX_ROW_BYTES} bytes: is a quote not closed?")));
        }
        let read = self.input.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}
