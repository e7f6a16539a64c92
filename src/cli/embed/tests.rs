//! `vecmill embed` with a service that is not there: what goes in, what comes out, who is blamed, and what a second run makes of the first.

use super::sink::OnError;
use super::*;
use crate::service::{Embedded, ItemTokens, Timing};
use crate::wire::{Detail, Fault};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A vector that tells its text: its length in bytes and its first byte.
fn vector(text: &str) -> [f32; 2] {
    [text.len() as f32, f32::from(text.as_bytes().first().copied().unwrap_or_default())]
}

fn embedded(texts: &[String]) -> Embedded {
    let cut = |text: &str| text.starts_with("long").then_some(999);
    Embedded {
        vectors: texts.iter().flat_map(|text| vector(text)).collect(),
        dim: 2,
        items: texts.iter().map(|text| ItemTokens { tokens: text.len(), original_tokens: cut(text) }).collect(),
        timing: Timing::default(),
        space: String::new(),
    }
}

/// Refuses a request that holds a text that says "bad", naming it as the service would.
async fn picky(texts: Vec<String>) -> Result<Embedded, Fault> {
    let details: Vec<Detail> = texts
        .iter()
        .enumerate()
        .filter(|(_, text)| text.contains("bad"))
        .map(|(i, text)| Detail::new(Cow::Owned(format!("input.{i}")), format!("refused: {text:?}")))
        .collect();
    if details.is_empty() { Ok(embedded(&texts)) } else { Err(Fault::Validation(details)) }
}

/// A writer that can be read after its owner is gone.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// A folder with an input and perhaps an output.
struct Place {
    dir: tempfile::TempDir,
    format: OutputFormat,
    on_error: OnError,
    refusals: Shared,
}

impl Place {
    fn of(input: &[u8], format: OutputFormat, on_error: OnError) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("in.jsonl"), input).unwrap();
        Self { dir, format, on_error, refusals: Shared::default() }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Names in the folder besides the input.
    fn left(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "in.jsonl").collect();
        names.sort();
        names
    }

    /// As the command does it, in small windows.
    async fn run<F, Fut>(&self, embed_texts: F) -> anyhow::Result<Summary>
    where
        F: Fn(Vec<String>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Embedded, Fault>> + Send,
    {
        let wanted = read::Wanted { keep_columns: self.format == OutputFormat::Parquet, keep_ids: true, ..read::Wanted::default() };
        let input = read::open(&self.dir.path().join("in.jsonl"), None, &wanted)?;
        let heading = Heading { dim: 2, model: "m".into(), space: "s".into(), columns: input.columns, embedding_column: "embedding".into() };
        let format = self.format.writer(heading)?;
        let mut part = Part::open(&self.out(), false)?;
        let Found::Begun(skip) = part.go_on(Identity::default(), &format.head())? else { return Ok(Summary::default()) };
        let state = part.state();
        let summary = Summary { rows: state.rows, refused: state.refused, tokens: state.tokens };
        let (target, progress) = (Target::Part(part), Progress::hidden());
        let sink = Sink { format, target, on_error: self.on_error, refusals: Box::new(self.refusals.clone()), progress, summary };
        let limits = window::Limits { window_rows: 300, window_bytes: 1 << 20, chunk_texts: 64, chunk_bytes: 1 << 16 };
        embed(input.source, skip, sink, limits, embed_texts).await
    }
}

/// JSON lines out of JSON lines.
async fn lines<F, Fut>(input: &str, embed_texts: F) -> (anyhow::Result<Summary>, Vec<Value>)
where
    F: Fn(Vec<String>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Embedded, Fault>> + Send,
{
    let place = Place::of(input.as_bytes(), OutputFormat::Jsonl, OnError::Null);
    let summary = place.run(embed_texts).await;
    let out = if summary.is_ok() { json_lines(&std::fs::read(place.out()).unwrap()) } else { Vec::new() };
    assert_eq!(place.left(), if summary.is_ok() { vec!["out"] } else { vec![] });
    (summary, out)
}

fn many(rows: usize) -> String {
    (0..rows).map(|row| format!("\"{}text {row}\"\n", "x".repeat(row * 7 % 50))).collect()
}

#[tokio::test]
async fn rows_keep_their_order_over_many_requests_that_end_out_of_order() {
    let input = many(2000);
    let calls = Arc::new(AtomicUsize::new(0));
    let (summary, out) = lines(&input, move |texts: Vec<String>| {
        // Every other call gives way a hundred times, so that later ones overtake it.
        let yields = calls.fetch_add(1, Ordering::Relaxed) % 2 * 100;
        async move {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            Ok(embedded(&texts))
        }
    })
    .await;
    assert_eq!(summary.unwrap(), Summary { rows: 2000, refused: 0, tokens: out.iter().map(|line| line["tokens"].as_u64().unwrap()).sum() });
    for (row, (line, text)) in out.iter().zip(input.lines()).enumerate() {
        let text: String = serde_json::from_str(text).unwrap();
        assert_eq!(*line, json!({ "index": row, "embedding": vector(&text), "tokens": text.len() }));
    }
}

#[tokio::test]
async fn a_refused_row_fails_alone() {
    let mut input: Vec<String> = (0..200).map(|row| format!("{{\"id\": {row}, \"text\": \"text {row}\"}}")).collect();
    for bad in [0, 63, 64, 130, 199] {
        input[bad] = format!("{{\"id\": {bad}, \"text\": \"bad {bad}\"}}");
    }
    input[7] = "\"\"".to_owned();
    input[8] = "{\"id\": \"8\", \"text\": \"long one\"}".to_owned();
    let (summary, out) = lines(&input.join("\n"), picky).await;
    assert_eq!((summary.unwrap().refused, out.len()), (6, 200));
    let errors: Vec<_> = out.iter().filter(|line| line.get("error").is_some()).map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!(errors, [0, 7, 63, 64, 130, 199]);
    assert_eq!(out[63], json!({ "index": 63, "id": 63, "error": "refused: \"bad 63\"" }));
    assert_eq!(out[7], json!({ "index": 7, "error": "must not be empty" }));
    assert_eq!(out[8], json!({ "index": 8, "id": "8", "embedding": vector("long one"), "tokens": 8, "truncated": true, "original_tokens": 999 }));
}

#[tokio::test]
async fn no_input_is_no_rows() {
    let (summary, out) = lines("", picky).await;
    assert_eq!((summary.unwrap(), out.len()), (Summary::default(), 0));
    for format in [OutputFormat::Npy, OutputFormat::Safetensors, OutputFormat::Parquet] {
        let place = Place::of(b"", format, OnError::Null);
        place.run(picky).await.unwrap();
        assert_eq!(place.left(), ["out"], "{format:?}");
    }
}

#[tokio::test]
async fn a_fault_of_every_row_ends_the_run_and_leaves_nothing() {
    let faults = [
        Fault::Validation(vec![Detail::new("dimensions", "must be 384")]),
        Fault::ModelUnavailable { reason: "draining".into(), retry_after_s: None },
    ];
    for fault in faults {
        let (summary, _) = lines("\"a\"\n\"b\"", move |_| std::future::ready(Err(fault.clone()))).await;
        assert!(summary.is_err());
    }
}

#[tokio::test]
async fn a_full_queue_is_waited_for() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let (summary, _) = lines("\"a\"\n\"b\"", move |texts: Vec<String>| {
        let full = seen.fetch_add(1, Ordering::Relaxed) < 5;
        async move { if full { Err(Fault::Overloaded { retry_after_s: 0 }) } else { Ok(embedded(&texts)) } }
    })
    .await;
    assert_eq!((summary.unwrap().rows, calls.load(Ordering::Relaxed)), (2, 6));
}

#[tokio::test]
async fn a_queue_that_never_empties_ends_in_refusals() {
    let (summary, out) = lines("\"a\"\n\"b\"", |_| std::future::ready(Err(Fault::Overloaded { retry_after_s: 0 }))).await;
    assert_eq!(summary.unwrap().refused, 2);
    assert_eq!(out[1]["error"], "the queue stayed full");
}

#[tokio::test]
async fn a_refused_row_is_null_left_out_or_the_end() {
    let input = "\"one\"\n\"bad\"\n\"three\"\n\"\"\n\"five\"\n";
    for format in [OutputFormat::Jsonl, OutputFormat::Npy, OutputFormat::Parquet] {
        let place = Place::of(input.as_bytes(), format, OnError::Skip);
        assert_eq!(place.run(picky).await.unwrap().refused, 2);
        let told = json_lines(&place.refusals.0.lock().unwrap());
        assert_eq!(told, [json!({"index": 1, "error": "refused: \"bad\""}), json!({"index": 3, "error": "must not be empty"})]);
        let without = Place::of(b"\"one\"\n\"three\"\n\"five\"\n", format, OnError::Skip);
        without.run(picky).await.unwrap();
        if format == OutputFormat::Jsonl {
            // Rows keep the number that they have in the input.
            let kept: Vec<_> = json_lines(&std::fs::read(place.out()).unwrap()).iter().map(|line| line["index"].as_u64().unwrap()).collect();
            assert_eq!(kept, [0, 2, 4]);
        } else {
            assert!(std::fs::read(place.out()).unwrap() == std::fs::read(without.out()).unwrap(), "{format:?}");
        }
    }
    let place = Place::of(input.as_bytes(), OutputFormat::Npy, OnError::Null);
    assert_eq!(place.run(picky).await.unwrap().refused, 2);
    assert_eq!(json_lines(&place.refusals.0.lock().unwrap()).len(), 2, "an array cannot hold the reason");

    let mut place = Place::of(input.as_bytes(), OutputFormat::Jsonl, OnError::Fail);
    let fault = place.run(picky).await.unwrap_err().to_string();
    assert!(fault.contains("row 2 (index 1): refused: \"bad\""), "{fault}");
    assert_eq!(place.left(), ["out.part", "out.part.json"]);
    // What came before the row is kept, and another choice goes on behind it.
    place.on_error = OnError::Null;
    assert_eq!(place.run(picky).await.unwrap(), Summary { rows: 5, refused: 2, tokens: 12 });
    assert_eq!(json_lines(&std::fs::read(place.out()).unwrap()).len(), 5);
}

/// A service that dies after some texts.
fn dying(after: usize) -> impl Fn(Vec<String>) -> std::future::Ready<Result<Embedded, Fault>> + Clone + Send + Sync + 'static {
    let seen = Arc::new(AtomicUsize::new(0));
    move |texts| {
        let fine = seen.fetch_add(texts.len(), Ordering::Relaxed) < after;
        std::future::ready(if fine { Ok(embedded(&texts)) } else { Err(Fault::ModelUnavailable { reason: "gone".into(), retry_after_s: None }) })
    }
}

#[tokio::test]
async fn a_run_that_was_ended_goes_on_and_ends_in_the_same_bytes() {
    let input = many(2000);
    for format in [OutputFormat::Jsonl, OutputFormat::Npy, OutputFormat::Safetensors, OutputFormat::Parquet] {
        let (straight, broken) = (Place::of(input.as_bytes(), format, OnError::Null), Place::of(input.as_bytes(), format, OnError::Null));
        let all = straight.run(picky).await.unwrap();
        assert!(broken.run(dying(1200)).await.is_err());
        assert_eq!(broken.left(), ["out.part", "out.part.json"]);
        // As if it had been killed between the bytes and the word that they are there.
        let part = broken.dir.path().join("out.part");
        std::fs::File::options().append(true).open(&part).unwrap().write_all(b"half a row").unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        let done = broken
            .run(move |texts: Vec<String>| {
                seen.fetch_add(texts.len(), Ordering::Relaxed);
                picky(texts)
            })
            .await;
        assert_eq!(done.unwrap(), all);
        assert!((1..2000).contains(&calls.load(Ordering::Relaxed)), "not all over again: {calls:?}");
        assert_eq!(broken.left(), ["out"]);
        assert!(std::fs::read(straight.out()).unwrap() == std::fs::read(broken.out()).unwrap(), "{format:?}");
    }
}

#[tokio::test]
async fn an_input_that_changed_is_not_gone_on_with() {
    let input = many(2000);
    let place = Place::of(input.as_bytes(), OutputFormat::Npy, OnError::Null);
    assert!(place.run(dying(1200)).await.is_err());
    let changed = input.replacen("text 3", "text X", 1);
    std::fs::write(place.dir.path().join("in.jsonl"), changed).unwrap();
    let fault = place.run(picky).await.unwrap_err().to_string();
    assert!(fault.contains("are not those that were embedded before") && fault.contains("--restart"), "{fault}");
    assert_eq!(place.left(), ["out.part", "out.part.json"], "nothing is lost by asking");
    drop(Part::open(&place.out(), true).unwrap());
    assert!(place.left().is_empty());
    assert_eq!(place.run(picky).await.unwrap().rows, 2000);
}

#[test]
fn a_part_has_one_writer_and_ends_once() {
    let place = Place::of(b"", OutputFormat::Npy, OnError::Null);
    let heading = Heading { dim: 1, model: String::new(), space: String::new(), columns: None, embedding_column: String::new() };
    let format = OutputFormat::Npy.writer(heading).unwrap();
    let mut part = Part::open(&place.out(), false).unwrap();
    assert!(Part::open(&place.out(), false).err().unwrap().to_string().contains("another process"));
    part.go_on(Identity::default(), &format.head()).unwrap();
    part.append(&1f32.to_le_bytes()).unwrap();
    part.commit(|state| (state.rows, state.written_rows) = (1, 1)).unwrap();
    let sidecar = place.dir.path().join("out.part.json");
    part.commit(|state| state.input_ended = true).unwrap();
    let last = std::fs::read(&sidecar).unwrap();
    part.finish(format.as_ref()).unwrap();
    drop(part);
    assert_eq!(place.left(), ["out"]);
    // Killed after the rename, before the checkpoint was removed.
    std::fs::write(&sidecar, last).unwrap();
    assert_eq!(Part::open(&place.out(), false).unwrap().go_on(Identity::default(), &format.head()).unwrap(), Found::Whole);
    assert_eq!(place.left(), ["out"]);
}
