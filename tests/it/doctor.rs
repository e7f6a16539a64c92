//! `vecmill doctor` and the log name every decision about a model, and the file or option that decided it.

use crate::golden::Certified;
use crate::server::{Server, command, vecmill};
use serde_json::{Value, json};
use std::path::Path;
use vecmill::kernels::host::Cpu;

fn doctor(words: &[&str]) -> (Option<i32>, String, String) {
    let output = vecmill(&[&["doctor", "--offline", "--dtype", "f32", "--device", "cpu"], words].concat()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn report(model: &Certified, more: &[&str]) -> Value {
    let root = model.root();
    let (code, text, error) = doctor(&[&["--json", "--model", root.to_str().unwrap()], more].concat());
    assert_eq!(code, Some(0), "{error}");
    serde_json::from_str(&text).unwrap()
}

/// A GGUF file with what `--json` prints about it.
fn gguf(name: &str, more: &[&str]) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gguf").join(name);
    let cache = tempfile::tempdir().unwrap();
    let words = ["--json", "--model", path.to_str().unwrap(), "--cache-dir", cache.path().to_str().unwrap()];
    let (code, text, error) = doctor(&[&words, more].concat());
    assert_eq!(code, Some(0), "{error}");
    serde_json::from_str(&text).unwrap()
}

/// Value and source of a decision, which must be there once.
fn decision(report: &Value, what: &str) -> (String, String) {
    let found: Vec<_> = report["decisions"].as_array().unwrap().iter().filter(|decision| decision["what"] == what).collect();
    assert_eq!(found.len(), 1, "{what} in {report}");
    (found[0]["value"].as_str().unwrap().to_owned(), found[0]["from"].as_str().unwrap().to_owned())
}

#[test]
fn every_decision_names_the_file_that_it_comes_from() {
    let model = Certified::new("old-mean");
    std::fs::write(model.root().join("README.md"), "---\nlicense: mit\n---\n# A model\n").unwrap();
    let report = report(&model, &[]);
    let prompts = "config_sentence_transformers.json";
    for (what, value, from) in [
        ("architecture", "bert", "config.json"),
        ("pooling", "mean", "1_Pooling/config.json"),
        ("after_pooling", "Normalize", "modules.json"),
        ("model_length", "unit length (Normalize)", "modules.json"),
        ("max_tokens", "24", "sentence_bert_config.json"),
        ("position_limit", "40", "config.json"),
        ("default_prompt", "passage", prompts),
        ("prompt_unless_named", "passage", prompts),
        ("supported_dimensions", "only 16", "not declared by operator, card or config.json"),
        ("dtype", "f32", "--dtype, the model's table, or auto after its goldens held"),
        ("device", "cpu", "--device"),
        ("license", "mit", "README.md"),
        ("truncate", "none", "the default"),
    ] {
        assert_eq!(decision(&report, what), (value.to_owned(), from.to_owned()), "{what}");
    }
    assert_eq!(decision(&report, "query_prompt").0, "\"query: \"");
    assert_eq!(decision(&report, "document_prompt").0, "\"passage: \"");
    assert!(decision(&report, "memory_mib").0.parse::<u64>().unwrap() >= 1);
    assert_eq!((&report["slug"], &report["fidelity"]["holds"]), (&json!("model"), &json!(true)));
    assert!(report["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains("input_type")), "{report}");
}

#[test]
fn pooling_that_the_operator_names_is_said_to_be_his() {
    let model = Certified::new("old-mean");
    std::fs::remove_file(model.root().join("modules.json")).unwrap();
    std::fs::remove_dir_all(model.root().join("golden")).unwrap();
    let root = model.root();
    let (code, _, error) = doctor(&["--model", root.to_str().unwrap()]);
    assert!(code == Some(1) && error.contains("--pooling"), "never guessed: {error}");
    let report = report(&model, &["--pooling", "cls"]);
    assert_eq!(decision(&report, "pooling"), ("cls".to_owned(), "--pooling (there is no modules.json)".to_owned()));
    assert_eq!(decision(&report, "after_pooling").0, "nothing");
    assert!(report["fidelity"].is_null() && report["notes"][0].as_str().unwrap().contains("no goldens"), "{report}");
}

#[test]
fn the_executor_is_the_one_that_runs_and_the_other_one_has_a_reason() {
    let executor_at = |model: &Certified, dtype: &str, level: &str| {
        let root = model.root();
        let words = ["doctor", "--offline", "--device", "cpu", "--json", "--dtype", dtype, "--model", root.to_str().unwrap(), "--min-cosine", "0"];
        let output = vecmill(&words).args(["--cpu-level", level]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        decision(&serde_json::from_slice(&output.stdout).unwrap(), "executor")
    };
    let executor = |model: &Certified, dtype: &str| executor_at(model, dtype, "auto");
    let said = |name: &str, from: &str| (name.to_owned(), from.to_owned());
    let bert = Certified::new("old-mean");
    let fused = match Cpu::best() {
        Some(cpu) => {
            assert_eq!(
                executor(&bert, "int8"),
                said("host", &format!("fused int8 kernels at the level {}, the best of this processor", cpu.level()))
            );
            said("host", &format!("fused f32 kernels at the level {}, the best of this processor", cpu.level()))
        }
        None => said("tensor", "not the fused one: the processor lacks AVX2 and FMA"),
    };
    assert_eq!(executor(&bert, "f32"), fused);
    assert_eq!(executor_at(&bert, "f32", "scalar"), said("host", "fused f32 kernels at the level scalar, by --cpu-level"));
    assert_eq!(executor(&bert, "f16"), said("tensor", "not the fused one: the fused executor does not compute in f16"));
}

#[test]
fn a_table_of_static_embeddings_has_no_pooling_of_the_operators() {
    let bare = report(&Certified::of("static_embedding", "model2vec-normalised"), &[]);
    assert_eq!(decision(&bare, "pooling"), ("mean".to_owned(), "modules.json (StaticEmbedding)".to_owned()));
    let model = Certified::of("static_embedding", "model2vec-bare");
    let bare = report(&model, &[]);
    assert_eq!(decision(&bare, "pooling"), ("mean".to_owned(), "config.json, as model2vec (there is no modules.json)".to_owned()));
    assert_eq!(decision(&bare, "position_limit").1, "no positions: this server's own bound");
}

#[test]
fn a_gguf_file_is_explained_by_its_keys() {
    let report = gguf("bert-f32.gguf", &[]);
    for (what, value, from) in [
        ("architecture", "bert", "general.architecture"),
        ("tokenizer", "bert", "tokenizer.ggml.model"),
        ("max_tokens", "24", "bert.context_length"),
        ("position_limit", "40", "the file's position table"),
        ("after_pooling", "Normalize", "as llama.cpp answers"),
        ("license", "not stated", "neither card nor general.license"),
        ("prompts", "none", "a GGUF file has none"),
        ("dtype", "f32", "--dtype, the model's table, or auto after its goldens held"),
    ] {
        assert_eq!(decision(&report, what), (value.to_owned(), from.to_owned()), "{what}");
    }
    assert_eq!(decision(&report, "pooling").1, "bert.pooling_type");
    assert_eq!((&report["slug"], &report["fidelity"]), (&json!("bert-f32.gguf"), &Value::Null));
    let space = |report: &Value| decision(report, "space").0;
    assert_eq!(space(&gguf("bert-f32.gguf", &[])), space(&report), "the same file");
    assert_ne!(space(&gguf("nomic-q8_0.gguf", &[])), space(&report), "another file");
    let (after, from) = decision(&gguf("gemma-embedding-q8_0.gguf", &[]), "after_pooling");
    assert!(after.matches("Dense to ").count() == 2 && from.starts_with("the file's dense tensors"), "{after}: {from}");
}

#[test]
fn the_text_form_and_the_log_say_the_same() {
    let model = Certified::new("new-cls-dense");
    let root = model.root();
    let (code, text, error) = doctor(&["--model", root.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    let line = text.lines().find(|line| line.starts_with("pooling ")).unwrap();
    assert!(line.contains(" cls ") && line.contains("1_Pooling/config.json"), "{line}");
    assert!(text.contains("Dense to 12, Normalize") && text.contains("goldens hold: "), "{text}");

    let words = ["--model", root.to_str().unwrap(), "--dtype", "f32", "--offline", "--port", "0", "--log-format", "json"];
    let mut server = Server::spawn(command(&words));
    server.terminate();
    server.wait();
    let log = server.log();
    let logged: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let pooling = logged.iter().find(|line| line["what"] == "pooling").unwrap_or_else(|| panic!("{log}"));
    assert_eq!((&pooling["value"], &pooling["from"], &pooling["model"]), (&json!("cls"), &json!("1_Pooling/config.json"), &json!("model")));
    assert!(logged.iter().any(|line| line["message"] == "the goldens hold"), "{log}");
}
