//! What each kind of input gives, row by row, and what is said of an input that lacks something.

use super::*;
use crate::cli::embed::line::Item;
use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::Compression;
use ::parquet::file::properties::WriterProperties;
use arrow_array::cast::AsArray;
use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray, types::Int8Type,
};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

struct File {
    dir: tempfile::TempDir,
    name: &'static str,
}

impl File {
    fn of(name: &'static str, bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        Self { dir, name }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(self.name)
    }

    fn open(&self, wanted: &Wanted) -> anyhow::Result<Input> {
        open(&self.path(), None, wanted)
    }

    fn fault(&self, wanted: &Wanted) -> String {
        let opened = self.open(wanted).and_then(|mut input| input.source.block().map(drop));
        format!("{:#}", opened.expect_err("a fault"))
    }

    fn read(&self, wanted: &Wanted) -> (Vec<Item>, Vec<RecordBatch>) {
        let mut input = self.open(wanted).unwrap();
        let (mut items, mut tables, mut end) = (Vec::new(), Vec::new(), 0);
        while let Some(block) = input.source.block().unwrap() {
            assert!(block.end >= end && block.table.as_ref().is_none_or(|table| table.num_rows() == block.items.len()));
            end = block.end;
            items.extend(block.items);
            tables.extend(block.table);
        }
        match input.extent {
            Extent::Bytes(size) | Extent::Rows(size) => assert_eq!(end, size, "read to the end"),
            Extent::Unknown => panic!("a file has a size"),
        }
        (items, tables)
    }

    fn items(&self) -> Vec<Item> {
        self.read(&ids()).0
    }
}

/// For an output of JSON lines.
fn ids() -> Wanted {
    Wanted { keep_ids: true, ..Wanted::default() }
}

/// For an output of Parquet.
fn all() -> Wanted {
    Wanted { keep_columns: true, ..Wanted::default() }
}

fn text(id: Option<serde_json::Value>, text: &str) -> Item {
    Item::of(id, Ok(text.to_owned()))
}

fn reason(item: &Item) -> &str {
    item.text.as_ref().unwrap_err()
}

#[test]
fn lines_are_texts() {
    let items = File::of("in.txt", b"\xef\xbb\xbfone\n\n\xff\xfe\ntwo\r\nlast").items();
    assert_eq!((&items[0], &items[3], &items[4]), (&text(None, "one"), &text(None, "two"), &text(None, "last")));
    assert_eq!(reason(&items[1]), "must not be empty");
    assert!(reason(&items[2]).starts_with("not UTF-8"));
    assert!(File::of("in.txt", b"a").fault(&Wanted { column: Some("a".into()), ..ids() }).contains("plain text has no columns"));
}

#[test]
fn a_line_without_end_is_refused_and_not_held() {
    let mut input = vec![b'x'; (32 << 20) + 10];
    input.extend_from_slice(b"\nafter");
    let items = File::of("in.txt", &input).items();
    assert!(reason(&items[0]).contains("33554432 bytes"));
    assert_eq!(items[1], text(None, "after"));
}

#[test]
fn json_lines_may_be_strings_or_objects_with_ids() {
    let input = "\u{feff}\"plain\"\r\n\n{\"text\": \"named\", \"id\": \"doc-7\", \"lang\": \"en\"}\n{\"id\": 3, \"text\": \"x\"}\n{\"id\": 4, \"lang\": 1}\n\
        {\"text\": 5, \"id\": [1]}\n{\"text\": null, \"id\": null}\nnot json\n42\n\"\"\n\"last\"";
    let file = File::of("in.jsonl", input.as_bytes());
    let items = file.items();
    assert_eq!(items[..3], [text(None, "plain"), text(Some(json!("doc-7")), "named"), text(Some(json!(3)), "x")]);
    let reasons: Vec<_> = items[3..9].iter().map(reason).collect();
    assert_eq!(reasons[..3], ["no field \"text\"; the fields are \"id\", \"lang\"", "\"text\" is not a string", "\"text\" is null"]);
    assert!(reasons[3].starts_with("not JSON"), "{}", reasons[3]);
    assert_eq!(reasons[4..], ["neither a JSON string nor an object", "must not be empty"]);
    assert_eq!((&items[3].id, &items[4].id, &items[5].id), (&Some(json!(4)), &Some(json!([1])), &None));
    assert_eq!(items[9], text(None, "last"));

    let (_, tables) = file.read(&all());
    let table = &tables[0];
    assert_eq!(table.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["id", "text"]);
    let ids: Vec<_> = table.column(0).as_string::<i32>().iter().collect();
    assert_eq!(ids[..5], [None, Some("doc-7"), Some("3"), Some("4"), Some("[1]")]);
}

#[test]
fn a_field_that_the_first_row_lacks_ends_the_run() {
    let file = File::of("in.jsonl", br#"{"body": "a", "key": 1}"#);
    let fault = file.fault(&ids());
    assert!(fault.contains("no field \"text\"") && fault.contains("\"body\", \"key\"") && fault.contains("--column"), "{fault}");
    let wanted = Wanted { column: Some("body".into()), id_column: Some("key".into()), ..ids() };
    assert_eq!(file.read(&wanted).0, [text(Some(json!(1)), "a")]);
    assert_eq!(file.read(&Wanted { id_column: Some(String::new()), ..wanted }).0, [text(None, "a")]);
}

#[test]
fn csv_is_as_rfc_4180_has_it() {
    let input = "\u{feff}id,text,note\r\n1,\"a, \"\"quoted\"\"\nline\",x\r\n2,plain,\r\n3,,x\r\n4,too few\r\n5,one,two,many\r\n6,last,x";
    let file = File::of("in.csv", input.as_bytes());
    let items = file.items();
    assert_eq!(items[..2], [text(Some(json!("1")), "a, \"quoted\"\nline"), text(Some(json!("2")), "plain")]);
    let reasons: Vec<_> = items[2..5].iter().map(reason).collect();
    assert_eq!(reasons, ["must not be empty", "2 fields, but the header has 3", "4 fields, but the header has 3"]);
    assert_eq!(items[5], text(Some(json!("6")), "last"));
    let (_, tables) = file.read(&all());
    let notes: Vec<_> = tables[0].column(2).as_string::<i32>().iter().collect();
    assert_eq!(notes, [Some("x"), Some(""), Some("x"), None, Some("two"), Some("x")]);
    assert_eq!(File::of("in.tsv", b"text\tn\n\"a\tb\"\t1\n").items(), [text(None, "a\tb")]);
    assert!(reason(&File::of("in.csv", b"text,n\n\xff,1\n").items()[0]).starts_with("not UTF-8"));
}

#[test]
fn a_column_that_is_not_there_is_told_with_those_that_are() {
    let file = File::of("in.csv", b"key,body,note\n1,a,b\n");
    for (wanted, said) in [
        (ids(), "--column"),
        (Wanted { column: Some("boddy".into()), ..ids() }, "no column \"boddy\" (--column)"),
        (Wanted { column: Some("body".into()), id_column: Some("kee".into()), ..ids() }, "no column \"kee\" (--id-column)"),
    ] {
        let fault = file.fault(&wanted);
        assert!(fault.contains(said) && fault.contains("\"key\", \"body\", \"note\""), "{fault}");
    }
    let wanted = Wanted { column: Some("body".into()), id_column: Some("key".into()), ..ids() };
    assert_eq!(file.read(&wanted).0, [text(Some(json!("1")), "a")]);
    assert_eq!(File::of("in.csv", b"id,body\n1,a\n").items(), [text(Some(json!("1")), "a")], "the only one that it can be");
    assert!(File::of("in.csv", b"text,text\na,b\n").fault(&ids()).contains("several columns \"text\""));
    assert!(File::of("in.csv", b"").fault(&ids()).contains("no header"));
}

#[test]
fn a_quote_that_is_never_closed_does_not_take_all_memory() {
    let mut input = b"text,n\n\"open".to_vec();
    input.resize(70 << 20, b'x');
    assert!(File::of("in.csv", &input).fault(&ids()).contains("is a quote not closed?"));
}

fn parquet_of(columns: Vec<(&str, ArrayRef)>, compression: Compression) -> File {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    let properties = WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(2)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    File::of("in.parquet", &bytes)
}

#[test]
fn parquet_texts_of_every_kind_and_compression() {
    let texts = vec![Some("a"), None, Some(""), Some("b"), Some("a")];
    let kinds: [ArrayRef; 4] = [
        Arc::new(StringArray::from(texts.clone())),
        Arc::new(LargeStringArray::from(texts.clone())),
        Arc::new(StringViewArray::from(texts.clone())),
        Arc::new(texts.iter().copied().collect::<DictionaryArray<Int8Type>>()),
    ];
    let compressions = [Compression::SNAPPY, Compression::ZSTD(Default::default()), Compression::GZIP(Default::default()), Compression::LZ4_RAW];
    for (column, compression) in kinds.into_iter().zip(compressions) {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(7), Some(8), Some(i64::MIN)]));
        let kind = column.data_type().clone();
        let file = parquet_of(vec![("score", Arc::new(Float64Array::from(vec![0.5; 5]))), ("text", column), ("id", numbers)], compression);
        let items = file.items();
        assert_eq!(items[0], text(Some(json!(5)), "a"), "{kind}");
        assert_eq!((reason(&items[1]), reason(&items[2]), &items[1].id), ("null", "must not be empty", &None));
        assert_eq!(items[3..], [text(Some(json!(8)), "b"), text(Some(json!(i64::MIN)), "a")]);
        let (_, tables) = file.read(&all());
        assert_eq!(tables.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
        assert_eq!(*tables[0].column(1).data_type(), kind, "columns are kept as they are");
    }
}

#[test]
fn parquet_columns_that_do_not_serve_are_told_with_their_types() {
    let column = || -> ArrayRef { Arc::new(StringArray::from(vec!["a"])) };
    let file = parquet_of(
        vec![("n", Arc::new(Int32Array::from(vec![1]))), ("body", column()), ("id", Arc::new(Float64Array::from(vec![0.5])))],
        Compression::UNCOMPRESSED,
    );
    let fault = file.fault(&Wanted { column: Some("n".into()), ..all() });
    assert!(fault.contains("\"n\" does not hold text") && fault.contains("\"body\" (Utf8)") && fault.contains("(Int32)"), "{fault}");
    let fault = file.fault(&ids());
    assert!(fault.contains("\"id\" cannot be an id") && fault.contains("(Float64)"), "{fault}");
    assert_eq!(file.read(&all()).0, [text(None, "a")], "ids are not asked for, and the column is the only one of text");
    assert_eq!(file.read(&Wanted { id_column: Some("body".into()), column: Some("body".into()), ..ids() }).0, [text(Some(json!("a")), "a")]);
    assert_eq!(file.read(&Wanted { id_column: Some("n".into()), ..ids() }).0, [text(Some(json!(1)), "a")]);
    assert!(File::of("in.parquet", b"not parquet at all").fault(&ids()).contains("in.parquet"));
}
