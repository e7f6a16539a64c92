//! Vectors as a column of a Parquet file, beside the columns of the input.
//!
//! A Parquet file cannot be gone on with once its writer is gone. So the windows are kept one after the other as Arrow streams, each with its
//! length before it, and the file is written from them at the end: in batches of a fixed size, so that it is the same however they were cut.

use super::{Format, Heading};
use crate::cli::embed::window::Done;
use anyhow::{Context, bail, ensure};
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow_select::coalesce::BatchCoalescer;
use arrow_select::concat::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;

/// Rows that go to the writer together.
const BATCH_ROWS: usize = 1024;
/// A row group ends when it holds this much.
const GROUP_BYTES: usize = 64 << 20;
const GROUP_ROWS: usize = 128 * 1024;

/// A file of the input's columns and one of vectors.
pub struct Parquet {
    /// The input's columns.
    columns: SchemaRef,
    /// These and the vectors'.
    schema: SchemaRef,
    item: FieldRef,
    dim: i32,
    properties: WriterProperties,
}

impl Parquet {
    /// # Errors
    /// An input that already has a column of that name, or two of one name.
    pub fn new(heading: &Heading) -> anyhow::Result<Self> {
        let name = &heading.embedding_column;
        let columns = heading.columns.clone().unwrap_or_else(|| Arc::new(Schema::empty()));
        let mut fields: Vec<FieldRef> = columns.fields().iter().cloned().collect();
        if fields.iter().any(|field| field.name() == name) {
            bail!("the input has a column {name:?} already: name the one for the vectors with --embedding-column");
        }
        for (at, field) in fields.iter().enumerate() {
            ensure!(
                fields[..at].iter().all(|other| other.name() != field.name()),
                "the input has two columns {:?}: Parquet output needs names that differ",
                field.name()
            );
        }
        let dim = i32::try_from(heading.dim).context("vectors too large for Parquet")?;
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        fields.push(Arc::new(Field::new(name, DataType::FixedSizeList(item.clone(), dim), true)));
        // Metadata of the input's schema would describe columns that are no longer all there are.
        let schema = Arc::new(Schema::new(fields));
        let vectors = ColumnPath::new(vec![name.clone(), "list".to_owned(), item.name().clone()]);
        let about = |key: &str, value: &str| KeyValue::new(format!("vecmill.{key}"), value.to_owned());
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            // Vectors neither repeat nor compress.
            .set_column_dictionary_enabled(vectors.clone(), false)
            .set_column_compression(vectors, Compression::UNCOMPRESSED)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(Some(vec![about("model", &heading.model), about("space", &heading.space)]))
            .build();
        Ok(Self { columns, schema, item, dim, properties })
    }

    fn vectors(&self, done: &Done) -> anyhow::Result<ArrayRef> {
        let dim = self.dim as usize;
        let values = Float32Builder::with_capacity(done.rows.len() * dim);
        let mut list = FixedSizeListBuilder::with_capacity(values, self.dim, done.rows.len()).with_field(self.item.clone());
        for row in &done.rows {
            match row {
                Ok(row) if row.vector.len() != dim => bail!("a vector of {} numbers among vectors of {dim}", row.vector.len()),
                Ok(row) => list.values().append_slice(&row.vector),
                Err(_) => list.values().append_nulls(dim),
            }
            list.append(row.is_ok());
        }
        Ok(Arc::new(list.finish()))
    }

    /// Writes the windows in `part` to `out`.
    fn merge(&self, part: &mut impl Read, out: impl Write + Send) -> anyhow::Result<()> {
        let mut writer = ArrowWriter::try_new(out, self.schema.clone(), Some(self.properties.clone()))?;
        let mut batches = BatchCoalescer::new(self.schema.clone(), BATCH_ROWS);
        while let Some(frame) = frame(part)? {
            for batch in StreamReader::try_new(frame.as_slice(), None)? {
                batches.push_batch(batch?)?;
            }
            write(&mut batches, &mut writer)?;
        }
        batches.finish_buffered_batch()?;
        write(&mut batches, &mut writer)?;
        writer.close()?;
        Ok(())
    }
}

impl Format for Parquet {
    fn append(&self, done: &Done, out: &mut Vec<u8>) -> anyhow::Result<()> {
        if done.rows.is_empty() {
            return Ok(());
        }
        let mut columns = concat_batches(&self.columns, &done.tables)?.columns().to_vec();
        columns.push(self.vectors(done)?);
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        let at = out.len();
        out.extend_from_slice(&[0; size_of::<u64>()]);
        let mut stream = StreamWriter::try_new(&mut *out, &self.schema)?;
        stream.write(&batch)?;
        stream.finish()?;
        drop(stream);
        let bytes = (out.len() - at - size_of::<u64>()) as u64;
        out[at..at + size_of::<u64>()].copy_from_slice(&bytes.to_le_bytes());
        Ok(())
    }

    fn finish(&self, part: &mut File, _: u64, whole: &Path) -> anyhow::Result<bool> {
        part.rewind()?;
        let mut out = BufWriter::new(File::create(whole)?);
        self.merge(&mut BufReader::new(part), &mut out)?;
        let out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        out.sync_all()?;
        Ok(true)
    }
}

fn write<W: Write + Send>(batches: &mut BatchCoalescer, writer: &mut ArrowWriter<W>) -> anyhow::Result<()> {
    while let Some(batch) = batches.next_completed_batch() {
        writer.write(&batch)?;
        if writer.in_progress_size() >= GROUP_BYTES {
            writer.flush()?;
        }
    }
    Ok(())
}

/// The next window's stream; `None` at the end.
fn frame(part: &mut impl Read) -> anyhow::Result<Option<Vec<u8>>> {
    let mut length = [0; size_of::<u64>()];
    match part.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u64::from_le_bytes(length);
    let mut frame = Vec::new();
    // Not `vec![0; length]`: a length that is not one must not ask for memory.
    part.take(length).read_to_end(&mut frame)?;
    ensure!(frame.len() as u64 == length, "the part file is damaged: begin again with --restart");
    Ok(Some(frame))
}
