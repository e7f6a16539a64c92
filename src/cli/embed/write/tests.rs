//! What the growing files hold when they are whole, however they grew.

use super::*;
use crate::cli::embed::ask::Row;
use crate::cli::embed::line::Chain;
use crate::cli::embed::window::Place;
use crate::service::ItemTokens;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

fn vector(row: u64) -> [f32; 2] {
    [row as f32, 0.1 * row as f32]
}

/// Every third row is refused.
fn done(rows: Range<u64>) -> Done {
    let row = |row: u64| match row % 3 {
        0 => Err("refused".to_owned()),
        _ => Ok(Row { vector: vector(row).to_vec(), tokens: ItemTokens { tokens: 3, original_tokens: None } }),
    };
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("text {row}"))));
    Done {
        places: rows.clone().map(|index| Place { index, id: None, chain: Chain::default() }).collect(),
        rows: rows.map(row).collect(),
        tables: vec![RecordBatch::try_from_iter([("text", texts)]).unwrap()],
        end: 0,
    }
}

fn heading() -> Heading {
    let columns = Some(done(0..1).tables[0].schema());
    Heading { dim: 2, model: "m".into(), space: "s".into(), columns, embedding_column: "embedding".into() }
}

/// The whole file of windows that begin and end at these rows.
fn whole(format: OutputFormat, cuts: &[u64]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (part, whole) = (dir.path().join("part"), dir.path().join("whole"));
    let mut file = File::options().read(true).write(true).create_new(true).open(&part).unwrap();
    let writer = format.writer(heading()).unwrap();
    let mut bytes = writer.head();
    cuts.windows(2).for_each(|cut| writer.append(&done(cut[0]..cut[1]), &mut bytes).unwrap());
    file.write_all(&bytes).unwrap();
    let elsewhere = writer.finish(&mut file, cuts[cuts.len() - 1], &whole).unwrap();
    std::fs::read(if elsewhere { whole } else { part }).unwrap()
}

#[test]
fn a_file_is_the_same_however_its_windows_were_cut() {
    for format in [OutputFormat::Jsonl, OutputFormat::Npy, OutputFormat::Safetensors, OutputFormat::Parquet] {
        let (one, many) = (whole(format, &[0, 2500]), whole(format, &[0, 1, 1030, 1031, 2500]));
        assert!(one == many, "{format:?}");
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    numbers.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

fn expected(rows: u64) -> Vec<f32> {
    (0..rows).flat_map(|row| if row % 3 == 0 { [0.0; 2] } else { vector(row) }).collect()
}

#[test]
fn npy_is_one_array() {
    let bytes = whole(OutputFormat::Npy, &[0, 5]);
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((header + 10) % 64, 0);
    let dict = std::str::from_utf8(&bytes[10..10 + header]).unwrap();
    assert_eq!(dict.trim_end_matches(' ').trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), }");
    assert!(dict.ends_with('\n'));
    assert_eq!(floats(&bytes[10 + header..]), expected(5));
}

#[test]
fn safetensors_is_one_tensor_and_names_its_space() {
    for rows in [0, 5, 1000] {
        let bytes = whole(OutputFormat::Safetensors, &[0, rows]);
        let (_, metadata) = ::safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let about = metadata.metadata().clone().unwrap();
        assert_eq!((about["model"].as_str(), about["space"].as_str()), ("m", "s"));
        let tensors = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor("embeddings").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (::safetensors::Dtype::F32, &[rows as usize, 2][..]));
        assert_eq!(floats(tensor.data()), expected(rows));
    }
}

#[test]
fn parquet_keeps_the_columns_and_adds_the_vectors() {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(whole(OutputFormat::Parquet, &[0, 3, 7]))).unwrap();
    let about = builder.metadata().file_metadata().key_value_metadata().unwrap().clone();
    let about: Vec<_> = about.iter().map(|entry| (entry.key.as_str(), entry.value.as_deref().unwrap())).collect();
    assert!(about.contains(&("vecmill.space", "s")) && about.contains(&("vecmill.model", "m")), "{about:?}");
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    let batch = &batches[0];
    assert_eq!((batches.len(), batch.num_rows()), (1, 7));
    assert_eq!(batch.column(0).as_string::<i32>().value(4), "text 4");
    let vectors = batch.column_by_name("embedding").unwrap().as_fixed_size_list();
    for row in 0..7 {
        assert_eq!(vectors.is_null(row), row % 3 == 0, "row {row}");
        if row % 3 != 0 {
            assert_eq!(vectors.value(row).as_primitive::<Float32Type>().values(), &vector(row as u64)[..]);
        }
    }
}

#[test]
fn parquet_needs_names_that_differ() {
    let name = |column: &str| Heading { embedding_column: column.to_owned(), ..heading() };
    let fault = OutputFormat::Parquet.writer(name("text")).err().unwrap().to_string();
    assert!(fault.contains("\"text\" already") && fault.contains("--embedding-column"), "{fault}");
    assert!(OutputFormat::Parquet.writer(name("v")).is_ok());
}

#[test]
fn the_ending_names_the_format() {
    let name = |path: &str| OutputFormat::by_name(Path::new(path));
    assert_eq!(name("a.PARQUET").unwrap(), OutputFormat::Parquet);
    assert_eq!(name("-").unwrap(), OutputFormat::Jsonl);
    assert!(name("a.csv").unwrap_err().to_string().contains("--output-format"));
}
