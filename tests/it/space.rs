//! Embedding spaces on a real server: the same model keeps its space, and everything that moves its vectors moves the space.

use crate::golden::Certified;
use crate::server::{Server, command};
use serde_json::{Value, json};
use std::path::Path;
use vecmill::kernels::host::Cpu;

/// The space that a server with this configuration lists for the model, after asking it for vectors that must lie there.
fn space(model: &Certified, table: &str, more: &[&str]) -> String {
    let server = start(model, table, more);
    let item: Value = serde_json::from_str(&server.get("/v1/models/model").1).unwrap();
    let space = item["data"]["space"].as_str().unwrap().to_owned();
    let (status, body) = server.embed(&json!({"model": "model", "input": "the cat", "expect_space": space}));
    assert_eq!(status, 200, "{body}");
    space
}

fn start(model: &Certified, table: &str, more: &[&str]) -> Server {
    let config = model.dir.path().join("vecmill.toml");
    std::fs::write(&config, format!("[models.model]\n{table}\n")).unwrap();
    let (root, cache) = (model.root(), model.dir.path().join("cache"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let words = [text(&root), text(&config), text(&cache)];
    let common = ["--model", &words[0], "--config", &words[1], "--cache-dir", &words[2], "--offline", "--port", "0", "--min-cosine", "0"];
    Server::spawn(command(&[&common[..], more].concat()))
}

#[test]
fn what_moves_the_vectors_moves_the_space_and_nothing_else_does() {
    let model = Certified::new("old-mean");
    let first = space(&model, "", &[]);
    assert!(first.len() == 16 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
    assert_eq!(space(&model, "", &[]), first, "a restart");
    assert_eq!(space(&model, "truncate = \"end\"\nmatryoshka = [8]", &["--dtype", "f16", "--threads", "1"]), first, "what does not");
    assert_ne!(space(&model, "default_prompt = \"query\"", &[]), first, "another prompt");
    if Cpu::best().is_some() {
        assert_ne!(space(&model, "", &["--dtype", "int8"]), first, "quantised");
    }

    let weights = model.root().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // The sign of one weight: another model.
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80;
    std::fs::write(&weights, bytes).unwrap();
    assert_ne!(space(&model, "", &[]), first, "other weights");
}

#[test]
fn each_size_is_a_space_of_its_own_and_vectors_for_another_are_refused() {
    let model = Certified::new("old-mean");
    let server = start(&model, "matryoshka = true", &[]);
    let item: Value = serde_json::from_str(&server.get("/v1/models/model").1).unwrap();
    let native = item["data"]["space"].as_str().unwrap();
    let ask = |dimensions: usize| server.embed(&json!({"model": "model", "input": "x", "dimensions": dimensions, "expect_space": native}));
    assert_eq!(ask(16).0, 200);
    let (status, body) = ask(8);
    assert_eq!((status, &body["error"]["code"]), (409, &json!("SPACE_MISMATCH")));
    assert!(body["error"]["message"].as_str().unwrap().contains(native), "{body}");
    assert_eq!(ask(0).0, 422, "a size that cannot be is a fault of its own");
}
