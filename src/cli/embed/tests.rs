//! `vecmill embed` with a service that is not there: what goes in, what comes out, and who is blamed.

use super::*;
use crate::service::{ItemTokens, Timing};
use crate::wire::Detail;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::{Cursor, Write};
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

impl Shared {
    fn lines(&self) -> Vec<Value> {
        self.0.lock().unwrap().split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }
}

async fn run<F, Fut>(input: impl Into<Vec<u8>>, format: InputFormat, embed: F) -> (anyhow::Result<Summary>, Vec<Value>)
where
    F: Fn(Vec<String>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Embedded, Fault>> + Send,
{
    let out = Shared::default();
    let mut writer = JsonLines::new(out.clone());
    let summary = pipe(Box::new(Cursor::new(input.into())), format, &mut writer, &ProgressBar::hidden(), embed).await;
    writer.finish().unwrap();
    (summary, out.lines())
}

#[tokio::test]
async fn lines_keep_their_order_over_many_chunks_that_end_out_of_order() {
    let input: String = (0..1000).map(|i| format!("text {i}\n")).collect();
    let calls = Arc::new(AtomicUsize::new(0));
    let (summary, out) = run(input, InputFormat::Text, move |texts: Vec<String>| {
        // Every other call gives way a hundred times, so that later chunks overtake it.
        let yields = calls.fetch_add(1, Ordering::Relaxed) % 2 * 100;
        async move {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            Ok(embedded(&texts))
        }
    })
    .await;
    assert_eq!(summary.unwrap(), Summary { embedded: 1000, refused: 0, tokens: out.iter().map(|l| l["tokens"].as_u64().unwrap()).sum() });
    for (i, line) in out.iter().enumerate() {
        let text = format!("text {i}");
        assert_eq!(*line, json!({ "index": i, "embedding": vector(&text), "tokens": text.len() }));
    }
}

#[tokio::test]
async fn a_refused_line_fails_alone() {
    let mut input: Vec<String> = (0..200).map(|i| format!("text {i}")).collect();
    for bad in [0, 63, 64, 130, 199] {
        input[bad] = format!("bad {bad}");
    }
    let (summary, out) = run(input.join("\n"), InputFormat::Text, picky).await;
    assert_eq!(summary.unwrap().refused, 5);
    assert_eq!(out.len(), 200);
    for (i, line) in out.iter().enumerate() {
        let bad = input[i].starts_with("bad");
        assert_eq!(line.get("error").is_some(), bad, "line {i}");
        assert_eq!(line.get("embedding").is_some(), !bad, "line {i}");
        assert_eq!(line["index"], i);
    }
    assert_eq!(out[63], json!({ "index": 63, "error": "refused: \"bad 63\"" }));
}

#[tokio::test]
async fn json_lines_may_be_strings_or_objects_with_ids() {
    let input = concat!(
        "\u{feff}\"plain\"\r\n",
        "\n",
        "{\"text\": \"named\", \"id\": \"doc-7\", \"lang\": \"en\"}\n",
        "{\"id\": 3, \"text\": \"long one\"}\n",
        "{\"id\": 4}\n",
        "{\"text\": 5, \"id\": [1]}\n",
        "not json\n",
        "42\n",
        "\"\"\n",
        "\"last, without a line end\""
    );
    let (summary, out) = run(input, InputFormat::Jsonl, picky).await;
    assert_eq!(summary.unwrap().refused, 5);
    let why = "not a JSON string, nor an object with a string \"text\"";
    assert_eq!(out[0], json!({ "index": 0, "embedding": vector("plain"), "tokens": 5 }));
    assert_eq!(out[1], json!({ "index": 1, "id": "doc-7", "embedding": vector("named"), "tokens": 5 }));
    assert_eq!(out[2], json!({ "index": 2, "id": 3, "embedding": vector("long one"), "tokens": 8, "truncated": true, "original_tokens": 999 }));
    assert_eq!(out[3], json!({ "index": 3, "id": 4, "error": why }));
    assert_eq!(out[4], json!({ "index": 4, "id": [1], "error": why }));
    assert_eq!(out[5], json!({ "index": 5, "error": why }));
    assert_eq!(out[7], json!({ "index": 7, "error": "must not be empty" }));
    assert_eq!(out[8]["tokens"], 24);
}

#[tokio::test]
async fn an_empty_line_and_bad_bytes_keep_their_place_as_refusals() {
    let (_, out) = run(b"one\n\n\xff\xfe\ntwo\r\n".as_slice(), InputFormat::Text, picky).await;
    assert_eq!(out.len(), 4);
    assert_eq!(out[1], json!({ "index": 1, "error": "must not be empty" }));
    assert!(out[2]["error"].as_str().unwrap().contains("UTF-8"));
    assert_eq!(out[3], json!({ "index": 3, "embedding": vector("two"), "tokens": 3 }));
}

#[tokio::test]
async fn a_line_without_end_is_refused_and_not_held() {
    let mut input = vec![b'x'; (32 << 20) + 10];
    input.extend_from_slice(b"\nafter");
    let (_, out) = run(input, InputFormat::Text, picky).await;
    assert!(out[0]["error"].as_str().unwrap().contains("33554432 bytes"), "{}", out[0]);
    assert_eq!(out[1]["embedding"], json!(vector("after")));
}

#[tokio::test]
async fn no_input_is_no_output() {
    let (summary, out) = run("", InputFormat::Text, picky).await;
    assert_eq!((summary.unwrap(), out.len()), (Summary::default(), 0));
}

#[tokio::test]
async fn a_fault_of_every_line_ends_the_run() {
    let faults = [
        Fault::Validation(vec![Detail::new("dimensions", "must be 384")]),
        Fault::ModelUnavailable { reason: "draining".into(), retry_after_s: None },
    ];
    for fault in faults {
        let (summary, out) = run("a\nb", InputFormat::Text, move |_| std::future::ready(Err(fault.clone()))).await;
        assert!(summary.is_err());
        assert!(out.is_empty());
    }
}

#[tokio::test]
async fn a_full_queue_is_waited_for() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let (summary, _) = run("a\nb", InputFormat::Text, move |texts: Vec<String>| {
        let full = seen.fetch_add(1, Ordering::Relaxed) < 5;
        async move { if full { Err(Fault::Overloaded { retry_after_s: 0 }) } else { Ok(embedded(&texts)) } }
    })
    .await;
    assert_eq!((summary.unwrap().embedded, calls.load(Ordering::Relaxed)), (2, 6));
}

#[tokio::test]
async fn a_queue_that_never_empties_ends_in_refusals() {
    let (summary, out) = run("a\nb", InputFormat::Text, |_| std::future::ready(Err(Fault::Overloaded { retry_after_s: 0 }))).await;
    assert_eq!(summary.unwrap().refused, 2);
    assert_eq!(out[1]["error"], "the queue stayed full");
}

#[tokio::test]
async fn npy_rows_match_lines_and_refusals_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (path, refusals) = (dir.path().join("out.npy"), Shared::default());
    let mut writer = npy::Npy::create(&path, Box::new(refusals.clone())).unwrap();
    let input: Vec<u8> = "bad\nbad\none\nbad\nfour\n".into();
    let summary = pipe(Box::new(Cursor::new(input)), InputFormat::Text, &mut writer, &ProgressBar::hidden(), picky).await.unwrap();
    assert!(!path.exists(), "an array that is not whole must not have the name asked for");
    writer.finish().unwrap();
    assert_eq!((summary.embedded, summary.refused), (2, 3));

    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((header + 10) % 64, 0);
    let dict = std::str::from_utf8(&bytes[10..10 + header]).unwrap();
    assert_eq!(dict.trim_end_matches(' ').trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), }");
    assert!(dict.ends_with('\n'));
    let (numbers, rest) = bytes[10 + header..].as_chunks::<4>();
    assert!(rest.is_empty());
    let numbers: Vec<f32> = numbers.iter().map(|four| f32::from_le_bytes(*four)).collect();
    let expected = [[0.0; 2], [0.0; 2], vector("one"), [0.0; 2], vector("four")].concat();
    assert_eq!(numbers, expected);
    assert_eq!(refusals.lines().iter().map(|l| l["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 3]);
}

#[tokio::test]
async fn an_unfinished_npy_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    drop(npy::Npy::create(&dir.path().join("out.npy"), Box::new(io::sink())).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
