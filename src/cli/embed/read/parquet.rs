//! Texts in a column of a Parquet file, read a piece of a row group at a time.

use super::{BLOCK_ROWS, Column, Source, Wanted, choose};
use crate::cli::embed::line::{Block, Item};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, types};
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;
use std::fs::File;
use std::sync::Arc;

/// The rows of a file.
pub struct Parquet {
    reader: ParquetRecordBatchReader,
    text: usize,
    id: Option<usize>,
    keep: bool,
    rows: u64,
}

/// Reads the file's index. Columns that are kept: all, as they are. Also tells the number of rows.
///
/// # Errors
/// A file that is not Parquet, or lacks the columns that are wanted.
pub fn open(file: File, wanted: &Wanted) -> anyhow::Result<(Parquet, Option<SchemaRef>, u64)> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = builder.schema().clone();
    let about = |field: &Arc<arrow_schema::Field>| Column {
        name: field.name().clone(),
        kind: format!(" ({})", field.data_type()),
        is_text: is_text(field.data_type()),
        is_id: is_text(field.data_type()) || field.data_type().is_integer() || *field.data_type() == DataType::Boolean,
    };
    let (mut text, mut id) = choose(&schema.fields().iter().map(about).collect::<Vec<_>>(), wanted)?;
    id = id.filter(|_| wanted.keep_ids);
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mut builder = builder.with_batch_size(BLOCK_ROWS);
    if !wanted.keep_columns {
        let mask = ProjectionMask::roots(builder.parquet_schema(), [Some(text), id].into_iter().flatten());
        builder = builder.with_projection(mask);
        // What is left of them keeps its order.
        (text, id) = match id {
            Some(at) if at == text => (0, Some(0)),
            Some(at) => (usize::from(at < text), Some(usize::from(at > text))),
            None => (0, None),
        };
    }
    let columns = wanted.keep_columns.then_some(schema);
    Ok((Parquet { reader: builder.build()?, text, id, keep: wanted.keep_columns, rows: 0 }, columns, rows))
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

impl Source for Parquet {
    fn block(&mut self) -> anyhow::Result<Option<Block>> {
        let Some(batch) = self.reader.next().transpose()? else { return Ok(None) };
        let ids = self.id.map(|at| plain(batch.column(at))).transpose()?;
        let texts = plain(batch.column(self.text))?;
        let item = |row: usize| {
            let text = if texts.is_null(row) { Err("null".to_owned()) } else { text_at(&texts, row).map(str::to_owned).ok_or("not text".to_owned()) };
            Item::of(ids.as_ref().and_then(|ids| id_at(ids, row)), text)
        };
        let items: Vec<Item> = (0..batch.num_rows()).map(item).collect();
        self.rows += items.len() as u64;
        Ok(Some(Block { items, table: self.keep.then_some(batch), end: self.rows }))
    }
}

/// The values of a column that may be a dictionary's.
fn plain(column: &ArrayRef) -> Result<ArrayRef, arrow_schema::ArrowError> {
    match column.as_any_dictionary_opt() {
        Some(dictionary) => arrow_select::take::take(dictionary.values(), dictionary.keys(), None),
        None => Ok(column.clone()),
    }
}

fn text_at(column: &ArrayRef, row: usize) -> Option<&str> {
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(column.as_string_view().value(row)),
        _ => None,
    }
}

fn id_at(column: &ArrayRef, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return None;
    }
    macro_rules! integer {
        ($kind:ty) => {
            Value::from(column.as_primitive::<$kind>().value(row))
        };
    }
    Some(match column.data_type() {
        DataType::Boolean => Value::from(column.as_boolean().value(row)),
        DataType::Int8 => integer!(types::Int8Type),
        DataType::Int16 => integer!(types::Int16Type),
        DataType::Int32 => integer!(types::Int32Type),
        DataType::Int64 => integer!(types::Int64Type),
        DataType::UInt8 => integer!(types::UInt8Type),
        DataType::UInt16 => integer!(types::UInt16Type),
        DataType::UInt32 => integer!(types::UInt32Type),
        DataType::UInt64 => integer!(types::UInt64Type),
        _ => Value::from(text_at(column, row)?),
    })
}
