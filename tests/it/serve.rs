//! The server from outside, with the real model: the guide's call, a batch against its texts alone, start, drain and refusals to start.

use crate::models::{cosine, real_minilm};
use crate::raw::send;
use crate::server::{MINILM, Server, command, vectors_of};
use serde_json::json;

const TEXTS: [&str; 6] = ["The quick brown fox", "jumps over the lazy dog", "", "naïve café ☕ 日本語", "fn main() { println!(\"{}\", 1) }", "a"];

#[test]
fn the_guides_call_works_with_only_base_url_and_model_changed() {
    let server = Server::start(&[]);
    let (status, body) = server.embed(&json!({"model": MINILM, "input": [TEXTS[0], TEXTS[1]]}));
    assert_eq!((status, &body["status"], &body["data"]["model"]), (200, &json!("ok"), &json!(MINILM)));
    let items = body["data"]["data"].as_array().unwrap();
    assert_eq!(items.iter().map(|item| item["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
    assert!(items.iter().all(|item| item["embedding"].as_array().unwrap().len() == 384));
    assert_eq!(body["data"]["usage"], json!({"prompt_tokens": 13, "total_tokens": 13}));
    let (status, short) = server.embed(&json!({"model": "all-MiniLM-L6-v2", "input": TEXTS[0]}));
    assert_eq!((status, &short["data"]["model"]), (200, &json!("all-MiniLM-L6-v2")), "the answer echoes the name that was sent");
    assert_eq!(short["data"]["data"][0]["embedding"], items[0]["embedding"], "alone and beside another text");
}

#[test]
fn a_batch_equals_its_texts_alone_in_both_lanes() {
    let server = Server::start(&[]);
    let long = "word ".repeat(200);
    let texts: Vec<String> = (0..40).map(|i| format!("{} {} {i}", TEXTS[i % 6], &long[..(i * 131) % 1000])).collect();
    let together = server.vectors(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    for (text, batched) in texts.iter().zip(&together) {
        let alone = &server.vectors(&[text])[0];
        let difference = alone.iter().zip(batched).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-6, "{difference} for {text:?}");
        assert!(cosine(alone, batched) >= 0.999_999);
    }
}

#[test]
fn sigterm_finishes_what_is_admitted_and_exits_with_zero() {
    let mut server = Server::start(&[]);
    let text = "many words that take a moment to compute ".repeat(20);
    // Equal ones would be computed once.
    let texts: Vec<String> = (0..64).map(|n| format!("{n} {text}")).collect();
    let (base, body) = (server.base.clone(), json!({"model": MINILM, "input": texts}).to_string());
    let request = std::thread::spawn(move || ureq::post(format!("{base}/v1/inference/embed")).send(body).map(|response| response.status().as_u16()));
    // The request is inside once tokens wait or a batch has been computed.
    while !server.get("/metrics").1.lines().any(|line| line.starts_with("vecmill_queue_tokens") && !line.ends_with(" 0")) {
        assert!(!request.is_finished(), "the request was over before it was seen");
    }
    server.terminate();
    assert_eq!(request.join().unwrap().unwrap(), 200);
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(server.log().contains("SIGTERM"), "{}", server.log());
}

#[test]
fn limits_of_the_model_are_named_with_field_value_and_limit() {
    let server = Server::start(&["--max-request-tokens", "1000"]);
    let refused = |body: serde_json::Value| {
        let (status, answer) = server.embed(&body);
        let error = &answer["error"];
        assert_eq!((status, error["code"].as_str()), (422, Some("VALIDATION_ERROR")), "{answer}");
        let details = error["details"].as_array().unwrap();
        details
            .iter()
            .map(|detail| (detail["field"].as_str().unwrap().to_owned(), detail["message"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let long = "word ".repeat(300);
    let too_long = refused(json!({"model": MINILM, "input": ["short", long]}));
    assert!(too_long[0].0 == "input.1" && too_long[0].1.contains("302") && too_long[0].1.contains("256"), "{too_long:?}");
    let (status, told) = server.post("/oai/v1/embeddings", &json!({"model": MINILM, "input": ["short", long]}));
    let message = told["error"]["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("This model's maximum context length is 256 tokens, however you requested 302 tokens"), "{told}");
    let too_much = refused(json!({"model": MINILM, "input": vec!["word ".repeat(200); 6]}));
    assert!(too_much[0].0 == "input" && too_much[0].1.contains("1000"), "{too_much:?}");
    for (dimensions, part) in [(0, "1"), (385, "384"), (128, "Matryoshka")] {
        let found = refused(json!({"model": MINILM, "input": "x", "dimensions": dimensions}));
        assert!(found[0].0 == "dimensions" && found[0].1.contains(part), "{found:?}");
    }
    let prompt = refused(json!({"model": MINILM, "input": "x", "input_type": "poem"}));
    assert!(prompt[0].0 == "input_type" && prompt[0].1.contains("query"), "{prompt:?}");
    let long_name = refused(json!({"model": MINILM, "input": "x", "input_type": "z".repeat(100_000)}));
    assert!(long_name[0].0 == "input_type" && long_name[0].1.len() < 400, "{} bytes", long_name[0].1.len());

    let cut = server.embed(&json!({"model": MINILM, "input": ["short", long], "truncate": "end", "dimensions": 384})).1;
    let items = &cut["data"]["data"];
    assert_eq!((&items[1]["truncated"], &items[1]["original_tokens"]), (&json!(true), &json!(302)));
    assert!(items[0].get("truncated").is_none() && items[0].get("original_tokens").is_none());
    // However long: its length is what is wrong with it, not the load of the server.
    let huge = "word ".repeat(400_000);
    assert_eq!(refused(json!({"model": MINILM, "input": huge}))[0].0, "input.0");
    let prefix = server.vectors(&["word ".repeat(254).trim_end()]).remove(0);
    assert!(cosine(&prefix, &vectors_of(&cut)[1]) > 0.999_999, "the beginning is kept");
}

#[test]
fn matryoshka_sizes_are_cut_and_scaled_where_the_operator_declares_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vecmill.toml");
    std::fs::write(&file, format!("[models.{MINILM:?}]\nmatryoshka = [64, 128]\nmatryoshka_strict = true\n")).unwrap();
    let server = Server::start(&["--config", file.to_str().unwrap()]);
    let ask = |dimensions: usize| server.embed(&json!({"model": MINILM, "input": "x", "dimensions": dimensions}));
    let (whole, cut) = (server.vectors(&["x"]).remove(0), vectors_of(&ask(64).1).remove(0));
    assert_eq!(cut.len(), 64);
    assert!(cosine(&whole[..64], &cut) > 0.999_999 && (cut.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
    assert_eq!((ask(65).0, ask(384).0), (422, 200));
    let item: serde_json::Value = serde_json::from_str(&server.get("/v1/models/all-MiniLM-L6-v2").1).unwrap();
    assert_eq!(item["data"]["supported_dimensions"], json!([64, 128, 384]), "the native size is always taken");
}

#[test]
fn several_models_under_their_own_slugs() {
    let other = format!("mine={}", real_minilm().display());
    let server = Server::start(&["--model", &other]);
    let (status, body) = server.get("/v1/models?modality=embedding");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let slugs: Vec<_> = body["data"]["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap()).collect();
    assert_eq!((status, slugs), (200, vec!["mine", MINILM]), "in the order of their slugs");
    let vector = |model: &str| server.embed(&json!({"model": model, "input": "x"})).1["data"]["data"][0]["embedding"].clone();
    assert_eq!(vector("mine"), vector(MINILM));
    assert_eq!(server.embed(&json!({"model": "yours", "input": "x"})).0, 404);
}

#[test]
fn aliases_are_other_names_for_a_model_with_presets_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vecmill.toml");
    let text = format!(
        "[models.{MINILM:?}]\nmatryoshka = true\n[aliases]\n\"openai/text-embedding-3-small\" = {MINILM:?}\nshort = {{ model = {MINILM:?}, dimensions = 64 }}\n"
    );
    std::fs::write(&file, text).unwrap();
    let server = Server::start(&["--config", file.to_str().unwrap()]);
    let ask = |body: serde_json::Value| server.embed(&body).1["data"].clone();
    let own = ask(json!({"model": MINILM, "input": "x"}));
    let hosted = ask(json!({"model": "openai/text-embedding-3-small", "input": "x"}));
    assert_eq!((&hosted["data"], &hosted["model"]), (&own["data"], &json!("openai/text-embedding-3-small")));
    let size = |body: serde_json::Value| ask(body)["data"][0]["embedding"].as_array().unwrap().len();
    assert_eq!(size(json!({"model": "short", "input": "x"})), 64);
    assert_eq!(size(json!({"model": "short", "input": "x", "dimensions": 128})), 128);
    assert_eq!(size(json!({"model": "short:query", "input": "x"})), 64);

    let list: serde_json::Value = serde_json::from_str(&server.get("/v1/models").1).unwrap();
    let items = list["data"]["items"].as_array().unwrap();
    let of = |slug: &str| items.iter().find(|item| item["slug"] == slug).unwrap().clone();
    assert_eq!((of("short")["alias_of"].as_str(), &of("short")["dimensions"]), (Some(MINILM), &json!(64)));
    assert_eq!((of(MINILM).get("alias_of"), items.len()), (None, 3));
    let one: serde_json::Value = serde_json::from_str(&server.get("/v1/models/openai%2Ftext-embedding-3-small").1).unwrap();
    assert_eq!(one["data"], of("openai/text-embedding-3-small"));
    let one: serde_json::Value = serde_json::from_str(&server.get("/v1/models/short:query").1).unwrap();
    assert_eq!(one["data"], of("short"), "with a prompt behind it, it is the same alias");
    let addr = server.base.strip_prefix("http://").unwrap().parse().unwrap();
    let reply = send(addr, "POST", "/v1/inference/embed", &[], r#"{"model":"short","input":"x"}"#);
    assert_eq!(reply.header("x-embedding-space"), of("short")["space"].as_str(), "the space of what it gives");
    assert_ne!(of("short")["space"], of(MINILM)["space"]);
    assert!(server.get("/oai/v1/models/short").1.contains("\"id\":\"short\""));
    let metrics = server.get("/metrics").1;
    assert!(!metrics.contains("model=\"short\""), "metrics count the model, whatever it was called");
    let log = server.log();
    assert!(log.contains("1536") && log.contains("384 here"), "the log warns of the other size: {log}");
}

#[test]
fn a_key_sees_the_aliases_of_its_own_models_only_and_the_log_names_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let (file, keys) = (dir.path().join("vecmill.toml"), dir.path().join("keys.toml"));
    std::fs::write(&file, format!("[aliases]\nopen = {MINILM:?}\nhidden = \"secret\"\n")).unwrap();
    // SHA-256 of `sgk_a`.
    let hash = "6403f3485b0760855826611b4f9f9144cfb1b6373fbf638aa640826df15724a4";
    std::fs::write(&keys, format!("[[key]]\nname = \"k\"\nsha256 = {hash:?}\nuser = \"u\"\ntenant = \"t\"\nmodels = [\"open\"]\n")).unwrap();
    let secret = format!("secret={}", real_minilm().display());
    let mut server = Server::start(&["--model", &secret, "--config", file.to_str().unwrap(), "--keys", keys.to_str().unwrap()]);
    let addr = server.base.strip_prefix("http://").unwrap().parse().unwrap();
    let ask = |method: &str, path: &str, body: &str| send(addr, method, path, &[("authorization", "Bearer sgk_a")], body);
    let listed = ask("GET", "/oai/v1/models", "").json();
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["open", MINILM], "a key that names an alias may use its model");
    assert_eq!(ask("GET", "/v1/models/hidden", "").status, 403);
    assert_eq!(ask("POST", "/v1/embeddings", r#"{"model":"hidden","input":"x"}"#).status, 403);
    let reply = ask("POST", "/v1/embeddings", r#"{"model":"open","input":"whispered words"}"#);
    assert_eq!(reply.status, 200);
    server.terminate();
    server.wait();
    let log = server.log();
    let line = log.lines().rfind(|line| line.contains(r#""event":"request""#)).expect("a line per request");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let names = ["request_id", "tenant_id", "user_id", "method", "route"].map(|name| line[name].as_str());
    assert_eq!(names, [reply.header("x-request-id"), Some("t"), Some("u"), Some("POST"), Some("/v1/embeddings")], "{line}");
    assert!(!log.contains("sgk_a") && !log.contains("whispered"), "neither keys nor texts: {log}");
}

#[test]
fn what_cannot_be_served_ends_the_process_with_the_reason() {
    let refused = |words: &[&str]| {
        let output = command(words).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = refused(&["--model", "./no-such-directory", "--offline", "--port", "0"]);
    assert!(code == Some(1) && text.contains("no-such-directory"), "{code:?} {text}");
    let (code, text) = refused(&["--model", "a=all-MiniLM-L6-v2", "--model", "a=all-MiniLM-L6-v2", "--port", "0"]);
    assert!(code == Some(1) && text.contains("two models are named \"a\""), "{code:?} {text}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vecmill.toml");
    std::fs::write(&file, "[aliases]\na = { model = \"m\", dimensions = 64 }\n").unwrap();
    let model = format!("m={}", real_minilm().display());
    let (code, text) = refused(&["--model", &model, "--offline", "--port", "0", "--config", file.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("[aliases] \"a\": dimensions") && text.contains("Matryoshka"), "{code:?} {text}");
    let (code, text) = refused(&["--model", "all-MiniLM-L6-v2", "--host", "0.0.0.0"]);
    assert!(code == Some(2) && text.contains("--no-auth"), "{code:?} {text}");
    let (code, text) = refused(&["--model", real_minilm().to_str().unwrap(), "--offline", "--port", "0", "--max-queue-tokens", "1000000000000"]);
    assert!(code == Some(1) && text.contains("not enough memory") && text.contains("allows"), "{code:?} {text}");
}

#[test]
fn the_environment_wins_over_the_file_and_the_flag_over_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vecmill.toml");
    std::fs::write(&file, "max_texts = 1\nmax_request_tokens = 1000\ndeadline_ms = 1000\n").unwrap();
    let words = ["--model", "./no-such-directory", "--port", "0", "--config", file.to_str().unwrap(), "--deadline-ms", "3000"];
    let output = command(&words).env("VECMILL_MAX_REQUEST_TOKENS", "2000").env("VECMILL_DEADLINE_MS", "2000").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    for part in ["max_texts: 1,", "max_request_tokens: 2000,", "deadline: 3s"] {
        assert!(log.contains(part), "{part} in {log}");
    }
}
