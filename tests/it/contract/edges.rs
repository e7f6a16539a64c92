//! Table 3.6 of the contract, and section 6: every edge of the embed call with its status, code and fields.

use super::{EMBED, assert_fault, small};
use crate::fake::Server;
use crate::raw::{embed, send};
use serde_json::{Value, json};

/// One edge: its row in the table, a request body, and the answer it must get.
pub(super) struct Edge {
    pub(super) row: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) fields: &'static [&'static str],
}

const OK: &str = "-";
const BAD: &str = "VALIDATION_ERROR";

fn edge(row: &'static str, body: impl Into<Vec<u8>>, status: u16, code: &'static str, fields: &'static [&'static str]) -> Edge {
    Edge { row, body: body.into(), status, code, fields }
}

fn bad(row: &'static str, body: impl Into<Vec<u8>>, fields: &'static [&'static str]) -> Edge {
    edge(row, body, 422, BAD, fields)
}

fn ok(row: &'static str, body: impl Into<Vec<u8>>) -> Edge {
    edge(row, body, 200, OK, &[])
}

/// A body for the plain model with this `input`.
fn input(value: &str) -> String {
    format!(r#"{{"model":"fake/plain","input":{value}}}"#)
}

/// A good body with one more field.
fn with(field: &str, value: &str) -> String {
    format!(r#"{{"model":"fake/plain","input":"a","{field}":{value}}}"#)
}

fn mrl(dimensions: &str) -> String {
    format!(r#"{{"model":"fake/mrl","input":"a","dimensions":{dimensions}}}"#)
}

fn model(value: &str) -> String {
    format!(r#"{{"model":{value},"input":"a"}}"#)
}

fn body_edges() -> Vec<Edge> {
    vec![
        bad("1 not JSON", "model=a&input=b", &["body"]),
        bad("1 cut off", r#"{"model":"fake/plain","input":["a""#, &["body"]),
        bad("1 NaN", with("dimensions", "NaN"), &["body"]),
        bad("1 something behind it", format!("{} {{}}", input("\"a\"")), &["body"]),
        bad("2 a list", "[]", &["body"]),
        bad("2 a string", "\"a\"", &["body"]),
        bad("2 null", "null", &["body"]),
        bad("3 empty", "", &["body"]),
        bad("3 blank", " \r\n", &["body"]),
        bad("37 a lone surrogate", input(r#""\ud800""#), &["body"]),
        bad("37 not UTF-8", b"{\"model\":\"fake/plain\",\"input\":\"\xff\xfe\"}".to_vec(), &["body"]),
        bad("37 UTF-16", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(), &["body"]),
        ok("1 a byte order mark", format!("\u{feff}{}", input("\"a\""))),
        ok("38 NUL and control characters", input(r#""a\u0000\u0007\u001b b""#)),
        edge("24 too large", input(&format!("\"{}\"", "a".repeat(5000))), 413, "PAYLOAD_TOO_LARGE", &[]),
    ]
}

fn model_edges() -> Vec<Edge> {
    vec![
        bad("5 missing", r#"{"input":"a"}"#, &["model"]),
        bad("6 a number", model("3"), &["model"]),
        bad("6 null", model("null"), &["model"]),
        bad("6 a list", model("[\"fake/plain\"]"), &["model"]),
        bad("7 empty", model("\"\""), &["model"]),
        edge("8 unknown", model("\"no/such\""), 404, "MODEL_NOT_FOUND", &[]),
        edge("11 loading", model("\"fake/loading\""), 503, "MODEL_UNAVAILABLE", &[]),
        edge("11 failed", model("\"fake/failed\""), 503, "MODEL_UNAVAILABLE", &[]),
    ]
}

fn input_edges() -> Vec<Edge> {
    let nine = format!("[{}]", ["\"a\""; 9].join(","));
    let fourteen_words = format!("\"{}\"", "word ".repeat(14));
    let times = |count: usize| format!("[{}]", vec!["\"a b c d e f g h i j k l m n\""; count].join(","));
    vec![
        bad("12 missing", r#"{"model":"fake/plain"}"#, &["input"]),
        bad("12 null", input("null"), &["input"]),
        bad("13 a number", input("3"), &["input"]),
        bad("13 a boolean", input("true"), &["input"]),
        bad("13 an object", input(r#"{"text":"a"}"#), &["input"]),
        bad("14 an empty list", input("[]"), &["input"]),
        bad("15 an empty string", input("\"\""), &["input"]),
        bad("16 an empty string in a list", input(r#"["a",""]"#), &["input.1"]),
        ok("15 where the model takes it", r#"{"model":"fake/empty","input":""}"#),
        ok("16 where the model takes it", r#"{"model":"fake/empty","input":["a",""]}"#),
        ok("17 blanks", input(r#"[" ","\n\t"]"#)),
        bad("18 a number in a list", input(r#"["a",3]"#), &["input.1"]),
        bad("18 null in a list", input(r#"["a",null]"#), &["input.1"]),
        bad("19 token ids", input("[1,2,3]"), &["input"]),
        bad("19 lists of token ids", input("[[1,2],[3]]"), &["input"]),
        bad("20 nested strings", input(r#"[["a"],["b"]]"#), &["input"]),
        bad("20 one nested string", input(r#"["a",["b"]]"#), &["input.1"]),
        bad("21 too many", input(&nine), &["input"]),
        bad("22 over the sum", input(&times(8)), &["input"]),
        ok("22 just within", input(&times(6))),
        bad("23 too long", input(&format!("[\"a\",\"{}\"]", "word ".repeat(15))), &["input.1"]),
        ok("23 just within", input(&fourteen_words)),
        ok("23 cut as asked", format!(r#"{{"model":"fake/plain","truncate":"start","input":"{}"}}"#, "word ".repeat(40))),
        ok("39 equal texts", input(r#"["a","a"]"#)),
    ]
}

fn option_edges() -> Vec<Edge> {
    vec![
        bad("25 zero", mrl("0"), &["dimensions"]),
        bad("25 negative", mrl("-4"), &["dimensions"]),
        bad("26 above native", mrl("9"), &["dimensions"]),
        bad("26 far above native", mrl("1e30"), &["dimensions"]),
        ok("27 native", with("dimensions", "8")),
        bad("28 below native, not trained for it", with("dimensions", "4"), &["dimensions"]),
        ok("28 below native, trained for it", mrl("3")),
        ok("29 a string", mrl("\"4\"")),
        ok("29 with a zero behind the point", mrl("4.0")),
        bad("30 a fraction", mrl("4.5"), &["dimensions"]),
        bad("30 a word", mrl("\"abc\""), &["dimensions"]),
        bad("30 a boolean", mrl("true"), &["dimensions"]),
        bad("30 a list", mrl("[4]"), &["dimensions"]),
        ok("31 null", with("dimensions", "null")),
        ok("32 an unknown field", with("unknown", r#"{"deep":[[[1e999,"\u0000"]]]}"#)),
        ok("33 float", with("encoding_format", "\"float\"")),
        ok("34 base64", with("encoding_format", "\"base64\"")),
        bad("35 another encoding", with("encoding_format", "\"hex\""), &["encoding_format"]),
        bad("35 of the wrong type", with("encoding_format", "1"), &["encoding_format"]),
        ok("36 user", with("user", "\"someone\"")),
        bad("truncate: another word", with("truncate", "\"middle\""), &["truncate"]),
        bad("truncate: of the wrong type", with("truncate", "true"), &["truncate"]),
        bad("input_type: of the wrong type", with("input_type", "1"), &["input_type"]),
    ]
}

fn server_edges() -> Vec<Edge> {
    vec![
        edge("40 overloaded", input("\"!busy\""), 429, "BACKEND_RATE_LIMITED", &[]),
        edge("41 too late", input("\"!late\""), 504, "BACKEND_TIMEOUT", &[]),
        edge("42 broken", input("\"!broken\""), 502, "BACKEND_ERROR", &[]),
        edge("42 not a number", input("\"!nan\""), 502, "BACKEND_ERROR", &[]),
        edge("a panic", input("\"!panic\""), 500, "INTERNAL_ERROR", &[]),
        bad("several at once", r#"{"input":["a",3,""],"dimensions":true,"truncate":0}"#, &["model", "input.1", "input.2", "dimensions", "truncate"]),
        bad("fields before the model", r#"{"model":"no/such","input":""}"#, &["input"]),
        edge("the model before dimensions", r#"{"model":"no/such","input":"a","dimensions":9}"#, 404, "MODEL_NOT_FOUND", &[]),
    ]
}

/// The whole table.
pub(super) fn all() -> impl Iterator<Item = Edge> {
    [body_edges(), model_edges(), input_edges(), option_edges(), server_edges()].into_iter().flatten()
}

#[test]
fn every_edge_of_the_embed_call_is_answered_as_the_table_says() {
    let server = Server::start(small());
    for Edge { row, body, status, code, fields } in all() {
        let reply = embed(server.addr, &body);
        if status == 200 {
            assert_eq!((reply.status, reply.json()["status"].as_str()), (200, Some("ok")), "{row}: {}", reply.json());
        } else {
            assert_fault(&reply, status, code, fields, row);
        }
    }
}

#[test]
fn messages_tell_value_and_limit() {
    let server = Server::start(small());
    let message = |body: &str| embed(server.addr, body).json()["error"]["details"][0]["message"].as_str().unwrap().to_owned();
    let many = message(&input(&format!("[{}]", ["\"a\""; 9].join(","))));
    assert!(many.contains('9') && many.contains('8'), "{many}");
    assert!(message(&mrl("-4")).contains("-4"));
    let busy = embed(server.addr, input("\"!busy\""));
    assert_eq!((busy.header("retry-after"), &busy.json()["error"]["retry_after"]), (Some("7"), &json!(7)));
    assert_eq!(embed(server.addr, model("\"fake/loading\"")).json()["error"]["retry_after"], 5);
    assert_eq!(embed(server.addr, model("\"fake/failed\"")).json()["error"].get("retry_after"), None);
    assert!(!String::from_utf8(embed(server.addr, input("\"!broken\"")).body).unwrap().contains("secret"));
}

#[test]
fn rows_4_44_and_45_content_type_method_and_slash() {
    let server = Server::start(small());
    let body = input("\"a\"");
    for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense"] {
        let reply = send(server.addr, "POST", EMBED, &[("content-type", content_type)], &body);
        assert_eq!(reply.status, 200, "{content_type}");
    }
    assert_eq!(send(server.addr, "POST", "/v1/inference/embed/", &[], &body).status, 200);
    assert_eq!(send(server.addr, "POST", "/v1/inference/embed?x=1", &[], &body).status, 200);
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = send(server.addr, method, EMBED, &[], "");
        assert_fault(&reply, 405, "METHOD_NOT_ALLOWED", &[], method);
        assert_eq!(reply.header("allow"), Some("POST"), "{method}");
    }
    assert_eq!(send(server.addr, "HEAD", EMBED, &[], "").status, 405);
}

#[test]
fn paths_that_are_not_there_are_told_in_json() {
    let server = Server::start(small());
    let hosted = ["/v1/inference/chat", "/v1/inference/audio", "/v1/inference/image", "/v1/users", "/v1/backends", "/v1/webhooks"];
    for path in hosted {
        for method in ["GET", "POST"] {
            let reply = send(server.addr, method, path, &[], "{}");
            assert_fault(&reply, 404, "NOT_FOUND", &[], path);
            assert!(reply.json()["error"]["message"].as_str().unwrap().contains("embeddings only"), "{path}");
        }
    }
    for path in ["/", "/v1", "/v1/nowhere", "/v1/embed", "/V1/models", "/v1//models", "/favicon.ico", "/%ff", "/..%2f..%2fetc/passwd"] {
        assert_fault(&send(server.addr, "GET", path, &[], ""), 404, "NOT_FOUND", &[], path);
    }
}

#[test]
fn a_body_in_another_encoding_is_refused_and_identity_is_not() {
    let server = Server::start(small());
    for encoding in ["gzip", "br", "identity, gzip", "zstd"] {
        let reply = send(server.addr, "POST", EMBED, &[("content-encoding", encoding)], input("\"a\""));
        assert_fault(&reply, 415, "UNSUPPORTED_MEDIA_TYPE", &[], encoding);
    }
    for encoding in ["identity", "Identity", ""] {
        assert_eq!(send(server.addr, "POST", EMBED, &[("content-encoding", encoding)], input("\"a\"")).status, 200, "{encoding:?}");
    }
}

#[test]
fn errors_have_no_keys_beyond_the_contracts() {
    let server = Server::start(small());
    let body = embed(server.addr, "{}").json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&body), ["error", "meta", "status"]);
    assert_eq!(keys(&body["error"]), ["code", "details", "message"]);
    assert_eq!(keys(&body["error"]["details"][0]), ["field", "message"]);
    assert_eq!(keys(&body["meta"]), ["request_id"]);
}

#[test]
fn the_answer_names_its_space_and_another_expected_one_is_409() {
    let server = Server::start(small());
    let reply = embed(server.addr, input("\"a\""));
    assert_eq!((reply.status, reply.header("x-embedding-space")), (200, Some(crate::fake::SPACE)));
    for same in [format!("{:?}", crate::fake::SPACE), "null".to_owned()] {
        assert_eq!(embed(server.addr, with("expect_space", &same)).status, 200, "{same}");
    }
    let other = embed(server.addr, with("expect_space", "\"0000000000000000\""));
    assert_fault(&other, 409, "SPACE_MISMATCH", &[], "another space");
    assert_eq!(other.header("x-embedding-space"), None, "no vectors, no space");
    let message = other.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(crate::fake::SPACE) && message.contains("0000000000000000"), "{message}");
    assert_fault(&embed(server.addr, with("expect_space", "7")), 422, BAD, &["expect_space"], "not a string");
}
