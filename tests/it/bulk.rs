//! `vecmill embed`: every input and every output hold the server's vectors; a run that is killed, or finds the disk full, goes on to the same bytes.

use crate::models::tiny;
use crate::server::{Server, command, vecmill};
use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Int32Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TEXTS: [&str; 5] = ["a vector mill", "Water, \"wheel\"", "\u{e9}t\u{e9} \u{2603}", "one", "the longest of them"];
const OUTPUTS: [&str; 4] = ["jsonl", "npy", "safetensors", "parquet"];

fn model() -> PathBuf {
    tiny("bert").into_iter().find(|dir| dir.ends_with("old-mean")).expect("the checkpoint")
}

/// `vecmill embed` with the small model.
fn embed(words: &[&str]) -> Command {
    let model = model();
    let mut command = vecmill(&[&["embed", "--model", model.to_str().unwrap(), "--dtype", "f32", "--threads", "1"], words].concat());
    command.stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    embed(words).output().unwrap()
}

/// What it said, which must be a success.
fn done(output: Output) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// What it said, which must be a failure.
fn failed(output: Output) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    said
}

/// The texts in a file of each kind.
fn write_inputs(dir: &Path) -> Vec<PathBuf> {
    let path = |ending: &str| dir.join(format!("in.{ending}"));
    fs::write(path("txt"), TEXTS.join("\n")).unwrap();
    let line = |(row, text): (usize, &&str)| json!({"id": row + 10, "text": text}).to_string() + "\n";
    fs::write(path("jsonl"), TEXTS.iter().enumerate().map(line).collect::<String>()).unwrap();
    let record = |(row, text): (usize, &&str)| format!("{},\"{}\"\r\n", row + 10, text.replace('"', "\"\""));
    fs::write(path("csv"), format!("id,text\r\n{}", TEXTS.iter().enumerate().map(record).collect::<String>())).unwrap();
    let (ids, texts) = (Int32Array::from_iter_values(10..15), StringArray::from_iter_values(TEXTS));
    let batch = RecordBatch::try_from_iter([("id", Arc::new(ids) as _), ("text", Arc::new(texts) as _)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path("parquet")).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    ["txt", "jsonl", "csv", "parquet"].map(path).to_vec()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn rows(values: Vec<f32>, dim: usize) -> Vec<Vec<f32>> {
    values.chunks_exact(dim).map(<[f32]>::to_vec).collect()
}

fn json_lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The vectors of a file, read as its format has it.
fn vectors(path: &Path, dim: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    match path.extension().unwrap().to_str().unwrap() {
        "npy" => rows(floats(&bytes[10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))..]), dim),
        "safetensors" => rows(floats(safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("embeddings").unwrap().data()), dim),
        "parquet" => {
            let batches = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
            let values = |batch: RecordBatch| {
                let list = batch.column_by_name("embedding").unwrap().as_fixed_size_list().clone();
                rows(list.values().as_primitive::<Float32Type>().values().to_vec(), dim)
            };
            batches.flat_map(|batch| values(batch.unwrap())).collect()
        }
        _ => json_lines(path).iter().map(|line| serde_json::from_value(line["embedding"].clone()).unwrap()).collect(),
    }
}

#[test]
fn every_input_and_every_output_hold_the_servers_vectors() {
    let model = format!("tiny={}", model().display());
    let server = Server::spawn(command(&["--model", &model, "--dtype", "f32", "--threads", "1", "--port", "0", "--deadline-ms", "600000"]));
    let (status, body) = server.embed(&json!({"model": "tiny", "input": TEXTS}));
    assert_eq!(status, 200, "{body}");
    let expected = crate::server::vectors_of(&body);
    let dir = tempfile::tempdir().unwrap();
    for input in write_inputs(dir.path()) {
        for ending in OUTPUTS {
            let out = dir.path().join(format!("out.{ending}"));
            let said = done(run(&["--input", input.to_str().unwrap(), "--output", out.to_str().unwrap()]));
            assert!(said.contains("5 texts"), "{said}");
            assert_eq!(vectors(&out, expected[0].len()), expected, "{} to {ending}", input.display());
            if ending == "jsonl" && !input.ends_with("in.txt") {
                let id = if input.ends_with("in.csv") { json!("10") } else { json!(10) };
                assert_eq!(json_lines(&out)[0]["id"], id, "{}", input.display());
            }
            fs::remove_file(out).unwrap();
        }
    }
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| name.starts_with("in.")), "nothing is left beside the outputs");
}

/// Some thousand texts of several lengths, none longer than the small model takes.
fn corpus(rows: usize) -> String {
    let words = ["mill", "water", "grain", "wheel", "stone"];
    let text = |row: usize| (0..=row * 5 % 3).map(|word| words[(row + word * 3) % 5]).collect::<Vec<_>>().join(" ");
    (0..rows).map(|row| format!("{row} {}\n", text(row))).collect()
}

/// Asks until the answer is there.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let text = corpus(3000);
    let input = dir.path().join("in.txt");
    fs::write(&input, &text).unwrap();
    for ending in OUTPUTS {
        let (straight, broken) = (dir.path().join(format!("straight.{ending}")), dir.path().join(format!("broken.{ending}")));
        done(run(&["--input", input.to_str().unwrap(), "--output", straight.to_str().unwrap()]));
        let words = ["--output", broken.to_str().unwrap()];
        let checkpoint = dir.path().join(format!("broken.{ending}.part.json"));

        // Half of the rows come; the rest never does, so it cannot end by itself.
        let mut child = embed(&words).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&text.as_bytes()[..text.len() / 2]).unwrap();
        let rows = until("a checkpoint", || {
            let checkpoint: Value = serde_json::from_slice(&fs::read(&checkpoint).ok()?).ok()?;
            checkpoint["rows"].as_u64().filter(|rows| *rows > 0)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        drop(pipe);
        assert!(rows < 3000 && !broken.exists(), "{ending}: {rows} rows");

        let again = |text: &str| {
            let mut child = embed(&words).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // It may refuse before it has read all.
            let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
            child.wait_with_output().unwrap()
        };
        let other = failed(again(&text.replacen("mill", "hill", 1)));
        assert!(other.contains("are not those that were embedded before") && other.contains("--restart"), "{other}");
        let said = done(again(&text));
        assert!(said.contains("goes on after") && said.contains("3000 texts"), "{said}");
        assert!(fs::read(&straight).unwrap() == fs::read(&broken).unwrap(), "{ending}: the same bytes");
        assert!(!checkpoint.exists());
    }
}

#[test]
fn a_full_disk_is_told_and_the_run_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out, straight) = (dir.path().join("in.txt"), dir.path().join("out.npy"), dir.path().join("straight.npy"));
    fs::write(&input, corpus(10_000)).unwrap();
    let words = ["--input", input.to_str().unwrap(), "--output", out.to_str().unwrap()];
    done(run(&["--input", input.to_str().unwrap(), "--output", straight.to_str().unwrap()]));

    // A file may have no more than 700 blocks of 512 bytes: room for a first window, not for all.
    let full = embed(&words);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 700; trap '' XFSZ; exec \"$0\" \"$@\""]).arg(full.get_program()).args(full.get_args()).stdin(Stdio::null());
    full.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(limited.env(name, value)),
        None => drop(limited.env_remove(name)),
    });
    let said = failed(limited.output().unwrap());
    assert!(said.contains("out.npy.part") && said.contains("too large") && said.contains("run the same command again"), "{said}");
    assert!(!out.exists());

    let said = failed(run(&[&words[..], &["--truncate", "end"]].concat()));
    assert!(said.contains("--truncate: none before, end now") && said.contains("--restart"), "{said}");
    let said = failed(run(&[&words[..], &["--normalize", "model"]].concat()));
    assert!(said.contains("--normalize: unit before, model now"), "{said}");
    let said = done(run(&words));
    assert!(said.contains("goes on after"), "{said}");
    assert!(fs::read(&straight).unwrap() == fs::read(&out).unwrap());
}

#[test]
fn another_input_is_refused_and_restart_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (dir.path().join("in.txt"), dir.path().join("out.jsonl"));
    fs::write(&input, "one\n\ntwo\n").unwrap();
    let words = ["--input", input.to_str().unwrap(), "--output", out.to_str().unwrap(), "--on-error", "fail"];
    let said = failed(run(&words));
    assert!(said.contains("row 2 (index 1): must not be empty"), "{said}");
    assert!(!out.exists());
    fs::write(&input, "one\nmended\ntwo\n").unwrap();
    let said = failed(run(&words));
    assert!(said.contains("input size in bytes: 9 before, 15 now"), "{said}");
    done(run(&[&words[..], &["--restart"]].concat()));
    assert_eq!(json_lines(&out).len(), 3);
}

#[test]
fn what_cannot_work_is_told_before_a_model_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = write_inputs(dir.path());
    let csv = inputs[2].to_str().unwrap();
    let nowhere = dir.path().join("no/out.npy");
    for (words, said) in [
        (vec!["--input", csv, "--column", "body"], "the columns are \"id\", \"text\""),
        (vec!["--input", csv, "--output-format", "parquet"], "give --output FILE"),
        (vec!["--input", csv, "--output", "vectors.csv"], "--output-format"),
        (vec!["--input", csv, "--output", nowhere.to_str().unwrap()], "no/out.npy.part"),
        (vec!["--format", "parquet"], "give --input FILE"),
    ] {
        // No such model: it is not asked for.
        let output = vecmill(&[&["embed", "--model", "./no-such-model"], &words[..]].concat()).stdin(Stdio::null()).output().unwrap();
        let error = failed(output);
        assert!(error.contains(said), "{words:?}: {error}");
    }
}
