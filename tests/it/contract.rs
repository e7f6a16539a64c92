//! The hosted contract's native surface, row by row, over a real listener: status, code, fields, headers and shapes.

use crate::fake::{DIM, Event, Server, key, vector};
use crate::raw::{Reply, connect, embed, read_reply, request, send};
use serde_json::{Value, json};
use std::io::Write;
use vecmill::api::Options;
use vecmill::service::access::Access;

mod accounting;
mod api_keys;
mod batch;
mod cors;
mod edges;
mod inputs;
mod keys;
mod limits;
mod models;
mod openai;
mod openai_batch;

const EMBED: &str = "/v1/inference/embed";

/// Small limits, so that going over them is cheap.
fn small() -> Options {
    Options { max_body_bytes: 4096, max_texts: 8, ..Options::default() }
}

#[test]
fn the_guides_answer_has_exactly_its_shape() {
    let server = Server::start(small());
    let reply = embed(server.addr, r#"{"model": "fake/plain", "input": ["The quick brown fox", "jumps over the lazy dog"]}"#);
    let mut body = reply.json();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("x-request-id"), body["meta"]["request_id"].as_str());
    for (index, text) in ["The quick brown fox", "jumps over the lazy dog"].into_iter().enumerate() {
        let item = body["data"]["data"][index].as_object_mut().unwrap();
        let floats: Vec<f32> = serde_json::from_value(item.remove("embedding").unwrap()).unwrap();
        assert_eq!(floats, vector(text, DIM));
    }
    body["meta"] = json!(null);
    let data = json!({"model": "fake/plain", "data": [{"index": 0}, {"index": 1}], "usage": {"prompt_tokens": 13, "total_tokens": 13}});
    assert_eq!(body, json!({"status": "ok", "data": data, "meta": null}));
}

#[test]
fn the_answer_names_the_model_as_the_client_did() {
    let server = Server::start(small());
    for name in ["fake/plain", "plain", "plain:query"] {
        let reply = embed(server.addr, json!({"model": name, "input": "a"}).to_string());
        assert_eq!(reply.json()["data"]["model"], name);
    }
    let reply = embed(server.addr, r#"{"model": "plain:query", "input": "a", "input_type": "document"}"#);
    assert_eq!((reply.status, reply.fields()), (422, vec!["input_type".to_owned()]));
}

#[test]
fn an_answer_does_not_grow_with_the_words_it_refuses() {
    let server = Server::with_access(small(), Access::keys(vec![key("sgk_admin", None, &["models:use", "api_keys:manage"])]));
    let long = "z".repeat(2000);
    let bodies = [
        (EMBED, json!({"model": format!("plain:{long}"), "input": "a", "input_type": "document"}), 422),
        (EMBED, json!({"model": long, "input": "a"}), 404),
        ("/v1/api-keys", json!({"name": "n", "scopes": [long]}), 422),
    ];
    for (path, body, status) in bodies {
        let reply = send(server.addr, "POST", path, &[("authorization", "Bearer sgk_admin")], body.to_string());
        assert!(reply.status == status && reply.body.len() < 800, "{path}: {} with {} bytes", reply.status, reply.body.len());
    }
}

#[test]
fn base64_holds_the_same_numbers_as_floats() {
    use base64::Engine as _;
    let server = Server::start(small());
    let reply = embed(server.addr, r#"{"model":"fake/plain","input":"a","encoding_format":"base64"}"#);
    let text = reply.json()["data"]["data"][0]["embedding"].as_str().unwrap().to_owned();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let floats: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(floats, vector("a", DIM));
}

#[test]
fn only_a_cut_item_says_that_it_was_cut() {
    let server = Server::start(small());
    let long = "word ".repeat(30);
    let reply = embed(server.addr, json!({"model": "fake/plain", "input": ["short", long], "truncate": "end"}).to_string());
    let items = reply.json()["data"]["data"].as_array().unwrap().clone();
    assert_eq!((items[0].get("truncated"), items[0].get("original_tokens")), (None, None));
    assert_eq!((&items[1]["truncated"], &items[1]["original_tokens"]), (&json!(true), &json!(32)));
    assert_eq!(reply.json()["usage"], Value::Null);
    assert_eq!(reply.json()["data"]["usage"]["prompt_tokens"], 3 + 16);
}

#[test]
fn equal_texts_get_equal_vectors_in_items_of_their_own() {
    let server = Server::start(small());
    let items = embed(server.addr, r#"{"model":"fake/plain","input":["a","b","a"]}"#).json()["data"]["data"].clone();
    assert_eq!(items[0]["embedding"], items[2]["embedding"]);
    assert_ne!(items[0]["embedding"], items[1]["embedding"]);
    assert_eq!(items[2]["index"], 2);
}

#[test]
fn a_thousand_texts_come_back_in_order() {
    let server = Server::start(Options::default());
    let texts: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let items = embed(server.addr, json!({"model": "fake/empty", "input": texts}).to_string()).json()["data"]["data"].clone();
    for (index, text) in texts.iter().enumerate() {
        let floats: Vec<f32> = serde_json::from_value(items[index]["embedding"].clone()).unwrap();
        assert_eq!((items[index]["index"].as_u64(), floats), (Some(index as u64), vector(text, DIM)));
    }
}

#[test]
fn a_client_that_leaves_ends_its_work() {
    let server = Server::start(small());
    let mut stream = connect(server.addr);
    stream.write_all(&request("POST", EMBED, &[], br#"{"model":"fake/plain","input":"!hang"}"#)).unwrap();
    assert_eq!(server.event(), Event::Began);
    drop(stream);
    assert_eq!(server.event(), Event::Dropped);
    assert_eq!(embed(server.addr, r#"{"model":"fake/plain","input":"a"}"#).status, 200);
}

#[test]
fn every_answer_carries_an_id_and_a_clients_own_only_if_well_formed() {
    let server = Server::start(small());
    let ask = |id: &str| send(server.addr, "GET", "/v1/models", &[("x-request-id", id)], "");
    assert_eq!(ask("abc-123").header("x-request-id"), Some("abc-123"));
    assert_eq!(ask("abc-123").json()["meta"]["request_id"], "abc-123");
    for bad in ["a b", "<script>", &"x".repeat(200)] {
        assert!(ask(bad).header("x-request-id").unwrap().starts_with("req_"), "{bad}");
    }
    let (one, two) = (ask(" "), ask(" "));
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    assert!(send(server.addr, "GET", "/health", &[], "").header("x-request-id").is_some());
}

#[test]
fn the_time_spent_is_told() {
    let server = Server::start(small());
    let reply = embed(server.addr, r#"{"model":"fake/plain","input":"a"}"#);
    assert_eq!(reply.header("server-timing"), Some("tokenize;dur=1.000, queue;dur=2.000, inference;dur=3.000"));
}

#[test]
fn health_needs_no_key_and_has_no_envelope() {
    let server = Server::with_access(small(), Access::keys(vec![key("sgk_x", None, &["models:use"])]));
    let get = |path: &str| send(server.addr, "GET", path, &[], "");
    assert_eq!((get("/health").status, get("/health").json()), (200, json!({"status": "ok"})));
    let ready = get("/health/ready");
    assert_eq!((ready.status, ready.json()), (200, json!({"status": "ready", "checks": {"models": "ok", "server": "ok", "storage": "ok"}})));
    assert_eq!(send(server.addr, "HEAD", "/health", &[], "").status, 200);
    let metrics = get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
}

#[test]
fn metrics_name_configured_models_and_never_a_clients_words() {
    let server = Server::start(small());
    embed(server.addr, r#"{"model":"plain","input":"a"}"#);
    embed(server.addr, r#"{"model":"made-up-name","input":"a"}"#);
    send(server.addr, "GET", "/v1/made-up-path", &[], "");
    let text = String::from_utf8(send(server.addr, "GET", "/metrics", &[], "").body).unwrap();
    let expected = [
        "scaigrid_requests_total{model=\"fake/plain\",status=\"200\",protocol=\"native\"}",
        "scaigrid_requests_total{model=\"none\",status=\"404\",protocol=\"native\"}",
        "scaigrid_request_duration_seconds_bucket{model=\"fake/plain\",backend=\"fake/plain\"",
        "scaigrid_tokens_total{model=\"fake/plain\",direction=\"input\",tenant_id=\"default\"}",
        "scaigrid_backend_inflight_requests{backend_id=\"fake/plain\"}",
        "vecmill_rejections_total{reason=\"model_not_found\"}",
        "vecmill_queue_seconds_sum{model=\"fake/plain\"}",
        "vecmill_requests_in_flight",
    ];
    for line in expected {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("made-up"), "{text}");
}

#[test]
fn a_shutdown_finishes_what_runs_and_refuses_what_comes() {
    let mut server = Server::start(small());
    let mut running = connect(server.addr);
    running.write_all(&request("POST", EMBED, &[], br#"{"model":"fake/plain","input":"!hang"}"#)).unwrap();
    assert_eq!(server.event(), Event::Began);
    let mut kept = connect(server.addr);
    kept.write_all(&request("GET", "/v1/models", &[], b"")).unwrap();
    assert_eq!(read_reply(&mut kept, "GET").status, 200);

    server.begin_shutdown();
    let not_ready = until_not_ready(&server);
    assert_eq!((not_ready["status"].as_str(), not_ready["checks"]["server"].as_str()), (Some("not_ready"), Some("draining")));
    assert_eq!(send(server.addr, "GET", "/health", &[], "").status, 200);

    kept.write_all(&request("POST", EMBED, &[], br#"{"model":"fake/plain","input":"a"}"#)).unwrap();
    let refused = read_reply(&mut kept, "POST");
    assert_eq!((refused.status, refused.code()), (503, "MODEL_UNAVAILABLE".to_owned()));
    assert_eq!(refused.header("retry-after"), Some(refused.json()["error"]["retry_after"].to_string().as_str()));
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(send(server.addr, "GET", "/v1/nowhere", &[], "").status, 503, "the drain comes before the route");

    server.go_on();
    assert_eq!(read_reply(&mut running, "POST").status, 200);
    server.join().unwrap();
}

/// The shutdown is asked for on another thread; polls until it has arrived.
fn until_not_ready(server: &Server) -> Value {
    loop {
        let reply = send(server.addr, "GET", "/health/ready", &[], "");
        if reply.status == 503 {
            return reply.json();
        }
    }
}

/// Checks one error envelope whole.
fn assert_fault(reply: &Reply, status: u16, code: &str, fields: &[&str], case: &str) {
    let body = reply.json();
    assert_eq!((reply.status, reply.code().as_str()), (status, code), "{case}: {body}");
    assert_eq!(reply.fields(), fields, "{case}: {body}");
    assert_eq!(body["status"], "error", "{case}");
    assert!(!body["error"]["message"].as_str().unwrap().is_empty(), "{case}");
    assert_eq!(body["meta"]["request_id"].as_str(), reply.header("x-request-id"), "{case}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{case}");
    let retry_after = body["error"].get("retry_after").map(ToString::to_string);
    assert_eq!(reply.header("retry-after"), retry_after.as_deref(), "{case}");
    assert_eq!(reply.header("www-authenticate"), (status == 401).then_some("Bearer"), "{case}");
}
