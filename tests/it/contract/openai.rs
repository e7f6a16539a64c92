//! Section 9 of the contract, and the OpenAI column of table 3.6: the same calls in OpenAI's forms.

use super::edges::{self, Edge};
use super::small;
use crate::fake::{DIM, Server, key, vector};
use crate::raw::{Reply, connect, read_reply, send};
use base64::Engine as _;
use serde_json::{Value, json};
use std::io::Write;
use vecmill::api::Options;
use vecmill::service::access::Access;

const EMBEDDINGS: &str = "/oai/v1/embeddings";

fn post(server: &Server, body: impl AsRef<[u8]>) -> Reply {
    send(server.addr, "POST", EMBEDDINGS, &[], body)
}

fn get(server: &Server, path: &str) -> Reply {
    send(server.addr, "GET", path, &[], "")
}

/// Checks one error whole: exactly the four keys, and the headers around them.
fn assert_error(reply: &Reply, status: u16, kind: &str, code: Option<&str>, param: Option<&str>, case: &str) {
    let body = reply.json();
    assert_eq!(reply.status, status, "{case}: {body}");
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"], "{case}");
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "param", "type"], "{case}");
    assert_eq!((error["type"].as_str(), error["code"].as_str(), error["param"].as_str()), (Some(kind), code, param), "{case}: {body}");
    assert!(!error["message"].as_str().unwrap().is_empty(), "{case}");
    assert!(reply.header("x-request-id").is_some(), "{case}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{case}");
    assert_eq!(reply.header("www-authenticate"), (status == 401).then_some("Bearer"), "{case}");
}

/// The vectors of an answer.
fn floats(reply: &Reply) -> Vec<Vec<f32>> {
    assert_eq!(reply.status, 200, "{}", reply.json());
    let items = reply.json()["data"].as_array().unwrap().clone();
    items.into_iter().map(|mut item| serde_json::from_value(item["embedding"].take()).unwrap()).collect()
}

#[test]
fn the_answer_has_exactly_the_specifications_shape() {
    let server = Server::start(small());
    for path in [EMBEDDINGS, "/v1/embeddings", "/oai/v1/embeddings/"] {
        let reply = send(server.addr, "POST", path, &[], r#"{"model":"plain","input":["The quick fox","a"],"user":"me"}"#);
        assert_eq!(floats(&reply), [vector("The quick fox", DIM), vector("a", DIM)], "{path}");
        let mut body = reply.json();
        for item in body["data"].as_array_mut().unwrap() {
            item.as_object_mut().unwrap().remove("embedding");
        }
        let data = json!([{"object": "embedding", "index": 0}, {"object": "embedding", "index": 1}]);
        assert_eq!(body, json!({"object": "list", "data": data, "model": "plain", "usage": {"prompt_tokens": 8, "total_tokens": 8}}));
        assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
    }
}

#[test]
fn base64_holds_the_same_numbers_as_floats() {
    let server = Server::start(small());
    let reply = post(&server, r#"{"model":"fake/plain","input":"a","encoding_format":"base64"}"#);
    let text = reply.json()["data"][0]["embedding"].as_str().unwrap().to_owned();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let numbers: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(numbers, vector("a", DIM));
}

#[test]
fn the_extensions_work_here_too() {
    let server = Server::start(small());
    let long = "word ".repeat(30);
    let body = post(&server, json!({"model": "fake/plain", "input": ["short", long], "truncate": "end", "input_type": "query"}).to_string()).json();
    assert_eq!(body["data"][0].get("truncated"), None);
    assert_eq!((&body["data"][1]["truncated"], &body["data"][1]["original_tokens"]), (&json!(true), &json!(32)));
    assert_eq!(post(&server, r#"{"model":"plain:query","input":"a"}"#).json()["model"], "plain:query");
    assert_eq!(floats(&post(&server, r#"{"model":"fake/mrl","input":"a","dimensions":3}"#)), [vector("a", 3)]);
}

#[test]
fn every_edge_of_the_native_table_is_told_in_openais_form() {
    let server = Server::start(small());
    // Token arrays are the one thing that only this layer takes; they have tests of their own.
    for Edge { row, body, status, code, fields } in edges::all().filter(|edge| !edge.row.starts_with("19 ")) {
        let reply = post(&server, &body);
        if status == 200 {
            assert_eq!((reply.status, reply.json()["object"].as_str()), (200, Some("list")), "{row}: {}", reply.json());
            continue;
        }
        let param = fields.first().map(|field| field.split('.').next().unwrap()).filter(|field| *field != "body");
        let (status, kind, code, param) = match (status, code) {
            (422, _) if row == "22 over the sum" => (400, "max_tokens_per_request", Some("max_tokens_per_request"), param),
            (422, _) => (400, "invalid_request_error", None, param),
            (404, _) => (404, "invalid_request_error", Some("model_not_found"), Some("model")),
            (429, _) => (429, "rate_limit_exceeded", Some("rate_limit_exceeded"), None),
            (500.., _) => (status, "server_error", None, None),
            _ => (status, "invalid_request_error", None, None),
        };
        assert_error(&reply, status, kind, code, param, row);
    }
}

#[test]
fn retries_are_advised_where_they_help() {
    let server = Server::start(small());
    assert_eq!(post(&server, r#"{"model":"fake/plain","input":"!busy"}"#).header("retry-after"), Some("7"));
    assert_eq!(post(&server, r#"{"model":"fake/loading","input":"a"}"#).header("retry-after"), Some("5"));
    let failed = post(&server, r#"{"model":"fake/failed","input":"a"}"#);
    assert_eq!((failed.status, failed.header("retry-after"), failed.header("x-should-retry")), (503, None, Some("false")));
}

#[test]
fn the_unknown_model_is_told_in_openais_words() {
    let server = Server::start(small());
    let expected = json!({"error": {
        "message": "The model 'no/such' does not exist", "type": "invalid_request_error", "param": "model", "code": "model_not_found",
    }});
    assert_eq!(post(&server, r#"{"model":"no/such","input":"a"}"#).json(), expected);
    for path in ["/oai/v1/models/no/such", "/oai/v1/models/no%2Fsuch"] {
        let reply = get(&server, path);
        assert_eq!((reply.status, reply.json()), (404, expected.clone()), "{path}");
    }
}

#[test]
fn token_arrays_are_read_as_cl100k() {
    let server = Server::start(small());
    let ids = json!([83, 1609, 5963, 374, 2294, 0]);
    let expected = vector("tiktoken is great!", DIM);
    let ask = |input: Value| post(&server, json!({"model": "fake/plain", "input": input}).to_string());
    assert_eq!(floats(&ask(ids.clone())), vec![expected.clone()]);
    assert_eq!(floats(&ask(json!([ids, [64], ids]))), [expected.clone(), vector("a", DIM), expected]);
    // One array may hold more ids than a request may hold texts.
    assert_eq!(floats(&ask(json!([264, 264, 264, 264, 264, 264, 264, 264, 264]))).len(), 1);
}

#[test]
fn token_arrays_that_stand_for_nothing_are_refused() {
    let server = Server::start(Options { max_token_ids: 12, ..small() });
    let ask = |input: &str| post(&server, format!(r#"{{"model":"fake/plain","input":{input}}}"#));
    let bad = [
        "[83,100257]",
        "[83,300000]",
        "[[83],[100257]]",
        "[-1]",
        "[1.5]",
        "[83,-1]",
        "[4294967296]",
        "[[83],[-1]]",
        "[[83],[]]",
        "[[]]",
        "[[83],[[83]]]",
        "[[\"a\"]]",
        "[83,\"a\"]",
        "[\"a\",83]",
        "[\"a\",[83]]",
        "[[83],\"a\"]",
        "[83,null]",
        "[[83,null]]",
        "[83,[83]]",
        "[true]",
    ];
    for input in bad {
        assert_error(&ask(input), 400, "invalid_request_error", None, Some("input"), input);
    }
    assert!(ask("[83,300000]").json()["error"]["message"].as_str().unwrap().contains("300000"));
    // Arrays beyond the number of texts, and ids beyond the number of tokens.
    let nine = format!("[{}]", ["[64]"; 9].join(","));
    assert_error(&ask(&nine), 400, "invalid_request_error", None, Some("input"), "nine arrays");
    let sum = "max_tokens_per_request";
    for input in [format!("[{}]", ["64"; 13].join(",")), format!("[{}]", ["[64,64,64,64,64,64,64]"; 2].join(","))] {
        assert_error(&ask(&input), 400, sum, Some(sum), Some("input"), &input);
    }
    assert_eq!(ask(&format!("[{}]", ["64"; 12].join(","))).status, 200);
}

#[test]
fn models_are_listed_and_found_under_both_spellings() {
    let server = Server::start(small());
    let body = get(&server, "/oai/v1/models").json();
    let ids: Vec<_> = body["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((body["object"].as_str(), ids.len()), (Some("list"), 6));
    assert!(ids.is_sorted());
    for path in ["/oai/v1/models/fake/plain", "/oai/v1/models/fake%2Fplain", "/oai/v1/models/fake/plain/"] {
        let model = get(&server, path).json();
        let created = model["created"].as_i64().unwrap();
        assert!(created > 1_700_000_000, "{created}");
        let expected = json!({"id": "fake/plain", "object": "model", "created": created, "owned_by": "local", "context_window": 16});
        assert_eq!(model, expected, "{path}");
        assert!(body["data"].as_array().unwrap().contains(&model), "{path}");
    }
}

#[test]
fn keys_are_told_in_openais_form_and_see_their_own_models() {
    let keys = vec![key("sgk_some", Some(&["fake/plain"]), &["models:use", "models:list"]), key("sgk_viewer", None, &["models:list"])];
    let server = Server::with_access(small(), Access::keys(keys));
    let with = |method: &str, path: &str, value: &str, body: &str| send(server.addr, method, path, &[("authorization", value)], body);
    assert_error(&get(&server, "/oai/v1/models"), 401, "invalid_request_error", None, None, "none");
    assert_error(&post(&server, "{}"), 401, "invalid_request_error", None, None, "the key comes before the body");
    for value in ["Bearer sk-wrong", "sgk_some", "Basic sgk_some"] {
        assert_error(&with("GET", "/oai/v1/models", value, ""), 401, "invalid_request_error", Some("invalid_api_key"), None, value);
    }
    let body = |model: &str| format!(r#"{{"model":"{model}","input":"a"}}"#);
    assert_eq!(with("POST", EMBEDDINGS, "Bearer sgk_some", &body("fake/plain")).status, 200);
    let denied = with("POST", EMBEDDINGS, "Bearer sgk_some", &body("fake/mrl"));
    assert_error(&denied, 403, "invalid_request_error", Some("model_access_denied"), None, "another model");
    let scope = with("POST", EMBEDDINGS, "Bearer sgk_viewer", &body("fake/plain"));
    assert_error(&scope, 403, "invalid_request_error", Some("auth_insufficient_scope"), None, "scope");
    let listed = with("GET", "/oai/v1/models", "Bearer sgk_some", "").json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(with("GET", "/oai/v1/models/fake/mrl", "Bearer sgk_some", "").status, 403);
}

#[test]
fn routes_and_methods_that_are_not_there_are_told_in_openais_form() {
    let server = Server::start(small());
    for path in ["/oai/v1/chat/completions", "/oai/v1/nowhere", "/oai", "/v1/files/x/y/z"] {
        assert_error(&get(&server, path), 404, "invalid_request_error", None, None, path);
    }
    for (path, allow) in [(EMBEDDINGS, "POST"), ("/oai/v1/models", "GET, HEAD"), ("/oai/v1/models/fake/plain", "GET, HEAD")] {
        let reply = send(server.addr, "DELETE", path, &[], "");
        assert_error(&reply, 405, "invalid_request_error", None, None, path);
        assert_eq!(reply.header("allow"), Some(allow), "{path}");
    }
    let reply = send(server.addr, "POST", EMBEDDINGS, &[("content-encoding", "gzip")], "x");
    assert_error(&reply, 415, "invalid_request_error", None, None, "gzip");
}

#[test]
fn on_a_host_of_its_own_the_layer_is_under_v1() {
    let server = Server::start(Options { openai_hosts: vec!["openai.test".to_owned()], ..small() });
    let to = |host: &str, method: &str, path: &str, body: &str| {
        let mut stream = connect(server.addr);
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        read_reply(&mut stream, method)
    };
    assert_eq!(to("openai.test", "GET", "/v1/models", "").json()["object"], "list");
    assert_eq!(to("OpenAI.test:8000", "GET", "/v1/models/fake%2Fplain", "").json()["object"], "model");
    assert_eq!(to("openai.test", "POST", "/v1/embeddings", r#"{"model":"plain","input":"a"}"#).status, 200);
    assert_eq!(to("openai.test", "GET", "/oai/v1/models", "").json()["object"], "list");
    let native = to("openai.test", "POST", "/v1/inference/embed", "{}");
    assert_error(&native, 404, "invalid_request_error", None, None, "the native layer is not there");
    assert_eq!(to("openai.test", "GET", "/health", "").json()["status"], "ok");
    assert_eq!(to("other.test", "GET", "/v1/models", "").json()["status"], "ok");
}

#[test]
fn metrics_tell_the_layers_apart() {
    let server = Server::start(small());
    assert_eq!(post(&server, r#"{"model":"fake/plain","input":"a"}"#).status, 200);
    assert_eq!(post(&server, r#"{"model":"fake/plain","input":""}"#).status, 400);
    let text = String::from_utf8(get(&server, "/metrics").body).unwrap();
    assert!(text.contains("scaigrid_requests_total{model=\"fake/plain\",status=\"200\",protocol=\"openai\"}"), "{text}");
    assert!(text.contains("scaigrid_requests_total{model=\"none\",status=\"400\",protocol=\"openai\"}"), "{text}");
}
