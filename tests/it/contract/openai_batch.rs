//! Files and batches in OpenAI's forms: uploaded, run, read back, deleted; each its user's own.

use crate::fake::{Event, Server, key, vector};
use crate::raw::{Reply, send};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use vecmill::api::Options;
use vecmill::service::access::Access;

fn server() -> Server {
    let mut other = key("sgk_other", None, &["models:use"]);
    other.user = "other".to_owned();
    Server::with_access(Options::default(), Access::keys(vec![key("sgk_a", None, &["models:use"]), other]))
}

fn call(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Reply {
    send(server.addr, method, path, &[("authorization", &format!("Bearer {token}"))], body)
}

/// What a form with these fields gives; the file goes first, as in many clients.
fn upload(server: &Server, token: &str, content: &str, fields: &[(&str, &str)]) -> Reply {
    let mut body = format!("--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{content}\r\n");
    for (name, value) in fields {
        body.push_str(&format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
    }
    body.push_str("--B--\r\n");
    let headers = [("authorization", &*format!("Bearer {token}")), ("content-type", "multipart/form-data; boundary=B")];
    send(server.addr, "POST", "/oai/v1/files", &headers, body)
}

fn line(id: usize, url: &str) -> String {
    let body = json!({"model": "fake/plain", "input": format!("text {id}"), "encoding_format": "base64"});
    json!({"custom_id": id.to_string(), "method": "POST", "url": url, "body": body}).to_string()
}

fn create(server: &Server, base: &str, file: &Value) -> Value {
    let body = json!({"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h", "metadata": {"a": "b"}});
    let reply = call(server, "POST", &format!("{base}/batches"), "sgk_a", &body.to_string());
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

fn ended(server: &Server, base: &str, id: &Value) -> Value {
    loop {
        let batch = call(server, "GET", &format!("{base}/batches/{}", id.as_str().unwrap()), "sgk_a", "").json();
        if ["completed", "failed", "expired", "cancelled"].contains(&batch["status"].as_str().unwrap()) {
            return batch;
        }
    }
}

#[test]
fn a_file_goes_in_and_its_answers_come_out_under_both_paths() {
    let server = server();
    for base in ["/oai/v1", "/v1"] {
        // More than one chunk of the store.
        let content: String = (0..3000).map(|id| line(id, "/v1/embeddings") + "\n").collect();
        let reply =
            upload(&server, "sgk_a", &content, &[("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")]);
        let file = reply.json();
        assert_eq!(
            (reply.status, &file["object"], &file["purpose"], &file["filename"]),
            (200, &json!("file"), &json!("batch"), &json!("in.jsonl")),
            "{file}"
        );
        assert_eq!((&file["bytes"], file["expires_at"].as_i64().unwrap() - file["created_at"].as_i64().unwrap()), (&json!(content.len()), 3600));
        let same = call(&server, "GET", &format!("{base}/files/{}/content", file["id"].as_str().unwrap()), "sgk_a", "");
        assert!(same.body == content.as_bytes(), "the file comes back as it was");

        let made = create(&server, base, &file);
        assert_eq!((&made["object"], &made["endpoint"], &made["metadata"]), (&json!("batch"), &json!("/v1/embeddings"), &json!({"a": "b"})));
        let batch = ended(&server, base, &made["id"]);
        assert_eq!(batch["request_counts"], json!({"total": 3000, "completed": 3000, "failed": 0}), "{batch}");
        assert!(batch["completed_at"].is_i64() && batch["error_file_id"].is_null() && batch["usage"]["input_tokens"] == 12_000);
        let output = call(&server, "GET", &format!("{base}/files/{}/content", batch["output_file_id"].as_str().unwrap()), "sgk_a", "");
        let lines: Vec<Value> = String::from_utf8(output.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().enumerate().all(|(id, line)| line["custom_id"].as_str() == Some(id.to_string().as_str())) && lines.len() == 3000);
        let body = &lines[7]["response"]["body"];
        let bytes = STANDARD.decode(body["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let expected: Vec<u8> = vector("text 7", 8).iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!((bytes, &body["object"], &body["data"][0]["object"]), (expected, &json!("list"), &json!("embedding")));
    }
}

#[test]
fn listings_deletion_and_other_users() {
    let server = server();
    let ids: Vec<Value> =
        (0..3).map(|n| upload(&server, "sgk_a", &line(n, "/v1/embeddings"), &[("purpose", "batch")]).json()["id"].clone()).collect();
    let path = |id: &Value| format!("/oai/v1/files/{}", id.as_str().unwrap());
    let list = |query: &str| call(&server, "GET", &format!("/oai/v1/files{query}"), "sgk_a", "").json();
    let first = list("?limit=2");
    assert_eq!((&first["data"][0]["id"], &first["last_id"], &first["has_more"]), (&ids[2], &ids[1], &json!(true)), "newest first");
    let rest = list(&format!("?limit=2&after={}", ids[1].as_str().unwrap()));
    assert_eq!((&rest["first_id"], &rest["has_more"]), (&ids[0], &json!(false)));
    assert_eq!(list("?order=asc&purpose=batch")["first_id"], ids[0]);
    assert_eq!(list("?purpose=batch_output")["data"], json!([]));
    for method in ["GET", "DELETE"] {
        assert_eq!(call(&server, method, &path(&ids[0]), "sgk_other", "").status, 404, "another user's");
    }
    assert_eq!(call(&server, "GET", "/oai/v1/files", "sgk_other", "").json()["data"], json!([]));
    let batch = create(&server, "/oai/v1", &json!({"id": ids[1]}));
    ended(&server, "/oai/v1", &batch["id"]);
    assert_eq!(call(&server, "GET", "/oai/v1/batches", "sgk_a", "").json()["first_id"], batch["id"]);
    assert_eq!(
        call(&server, "POST", &format!("/oai/v1/batches/{}/cancel", batch["id"].as_str().unwrap()), "sgk_a", "").json()["status"],
        "completed"
    );
    assert_eq!(call(&server, "DELETE", &path(&ids[0]), "sgk_a", "").json(), json!({"id": ids[0], "object": "file", "deleted": true}));
    assert_eq!(call(&server, "GET", &path(&ids[0]), "sgk_a", "").status, 404);
}

#[test]
fn a_file_that_a_batch_reads_stays_until_the_batch_has_ended() {
    let server = server();
    let file = upload(&server, "sgk_a", &line(0, "/v1/embeddings").replace("text 0", "!hang"), &[("purpose", "batch")]).json();
    let path = format!("/oai/v1/files/{}", file["id"].as_str().unwrap());
    let batch = create(&server, "/oai/v1", &file);
    assert_eq!(server.event(), Event::Began);
    let refused = call(&server, "DELETE", &path, "sgk_a", "");
    assert_eq!((refused.status, error(&refused.json())), (409, [&json!("invalid_request_error"), &json!(null), &json!("conflict")]));
    assert_eq!(refused.header("x-should-retry"), Some("false"), "OpenAI's clients would try again");
    server.go_on();
    assert_eq!(ended(&server, "/oai/v1", &batch["id"])["request_counts"]["completed"], 1);
    assert_eq!(call(&server, "DELETE", &path, "sgk_a", "").status, 200);
    assert_eq!(
        call(
            &server,
            "POST",
            "/oai/v1/batches",
            "sgk_a",
            &json!({"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}).to_string()
        )
        .json()["error"]["param"],
        "input_file_id"
    );
}

#[test]
fn an_empty_file_comes_back_empty() {
    let server = server();
    let file = upload(&server, "sgk_a", "", &[("purpose", "batch")]).json();
    let content = call(&server, "GET", &format!("/oai/v1/files/{}/content", file["id"].as_str().unwrap()), "sgk_a", "");
    assert_eq!((&file["bytes"], content.status, content.header("content-length"), content.body.len()), (&json!(0), 200, Some("0"), 0));
    let batch = ended(&server, "/oai/v1", &create(&server, "/oai/v1", &file)["id"]);
    assert_eq!((&batch["status"], &batch["errors"]["data"][0]["code"]), (&json!("failed"), &json!("empty_file")));
}

#[test]
fn a_line_for_another_endpoint_refuses_the_file() {
    let server = server();
    let content = [line(0, "/v1/embeddings"), line(1, "/v1/inference/embed")].join("\n");
    let file = upload(&server, "sgk_a", &content, &[("purpose", "batch")]).json();
    let batch = ended(&server, "/oai/v1", &create(&server, "/oai/v1", &file)["id"]);
    assert_eq!((&batch["status"], &batch["errors"]["object"]), (&json!("failed"), &json!("list")));
    assert_eq!((&batch["errors"]["data"][0]["code"], &batch["errors"]["data"][0]["line"]), (&json!("url_mismatch"), &json!(2)));
}

/// The fault's own keys, all four of them.
fn error(body: &Value) -> [&Value; 3] {
    let error = body["error"].as_object().unwrap();
    assert_eq!((body.as_object().unwrap().len(), error.len()), (1, 4), "{body}");
    assert!(error["message"].is_string(), "{body}");
    ["type", "param", "code"].map(|name| &error[name])
}

#[test]
fn faults_have_openais_form() {
    let server = server();
    for base in ["/oai/v1", "/v1"] {
        let missing = call(&server, "GET", &format!("{base}/files/file-none/content"), "sgk_a", "");
        assert_eq!((missing.status, error(&missing.json())), (404, [&json!("invalid_request_error"), &json!(null), &json!(null)]));
        let wrong =
            call(&server, "POST", &format!("{base}/batches"), "sgk_a", r#"{"input_file_id": "f", "endpoint": "/v1/x", "completion_window": "24h"}"#);
        assert_eq!((wrong.status, error(&wrong.json())), (400, [&json!("invalid_request_error"), &json!("endpoint"), &json!(null)]));
        let unknown = call(&server, "GET", &format!("{base}/batches"), "sgk_nobody", "");
        assert_eq!((unknown.status, error(&unknown.json())), (401, [&json!("invalid_request_error"), &json!(null), &json!("invalid_api_key")]));
        let method = call(&server, "DELETE", &format!("{base}/batches"), "sgk_a", "");
        assert_eq!((method.status, method.header("allow")), (405, Some("GET, HEAD, POST")));
    }
}

#[test]
fn lines_are_read_and_refused_as_the_endpoint_would() {
    let server = server();
    let line = |id: &str, body: Value| json!({"custom_id": id, "method": "POST", "url": "/v1/embeddings", "body": body}).to_string();
    // "tiktoken is great!" in the vocabulary cl100k_base.
    let tokens = line("tokens", json!({"model": "fake/plain", "input": [83, 1609, 5963, 374, 2294, 0]}));
    let text = line("text", json!({"model": "fake/plain", "input": "tiktoken is great!"}));
    let content = [tokens, text, line("model", json!({"model": "none", "input": "x"})), line("input", json!({"model": "fake/plain", "input": []}))];
    let file = upload(&server, "sgk_a", &content.join("\n"), &[("purpose", "batch")]).json();
    let batch = ended(&server, "/oai/v1", &create(&server, "/oai/v1", &file)["id"]);
    let lines = |id: &str| -> Vec<Value> {
        let reply = call(&server, "GET", &format!("/v1/files/{}/content", batch[id].as_str().unwrap()), "sgk_a", "");
        String::from_utf8(reply.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let output = lines("output_file_id");
    assert_eq!(output.len(), 2);
    assert_eq!(output[0]["response"]["body"]["data"], output[1]["response"]["body"]["data"]);
    let errors = lines("error_file_id");
    let faults: Vec<_> = errors.iter().map(|line| (&line["response"]["status_code"], error(&line["response"]["body"]))).collect();
    let kind = json!("invalid_request_error");
    assert_eq!(faults, [(&json!(404), [&kind, &json!("model"), &json!("model_not_found")]), (&json!(400), [&kind, &json!("input"), &json!(null)])]);
}

#[test]
fn an_upload_is_held_to_its_form() {
    let server = server();
    let refused = |fields: &[(&str, &str)], param: Value| {
        let reply = upload(&server, "sgk_a", &line(0, "/v1/embeddings"), fields);
        assert_eq!((reply.status, reply.json()["error"]["param"].clone()), (400, param), "{}", reply.json());
    };
    refused(&[("purpose", "batch"), ("expires_after[anchor]", "last_active_at")], json!("expires_after"));
    refused(&[("purpose", "batch"), ("expires_after[seconds]", "60")], json!("expires_after"));
    refused(&[("purpose", "batch"), ("other", &"x".repeat(100_000))], json!(null));
    refused(&[("x", "y"); 40], json!(null));
    let headers = [("authorization", "Bearer sgk_a"), ("content-type", "multipart/form-data; boundary=B"), ("content-encoding", "gzip")];
    assert_eq!(send(server.addr, "POST", "/oai/v1/files", &headers, "x").status, 415);
    assert_eq!(call(&server, "GET", "/oai/v1/files", "sgk_a", "").json()["data"], json!([]));
}

#[test]
fn results_are_kept_as_long_as_the_batch_says() {
    let server = server();
    let file = upload(&server, "sgk_a", &line(0, "/v1/embeddings"), &[("purpose", "batch")]).json();
    let body = |expires: Value| {
        json!({"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h", "output_expires_after": expires}).to_string()
    };
    let made = call(&server, "POST", "/oai/v1/batches", "sgk_a", &body(json!({"anchor": "created_at", "seconds": 7200}))).json();
    let batch = ended(&server, "/oai/v1", &made["id"]);
    let output = call(&server, "GET", &format!("/oai/v1/files/{}", batch["output_file_id"].as_str().unwrap()), "sgk_a", "").json();
    assert_eq!(output["expires_at"].as_i64().unwrap() - output["created_at"].as_i64().unwrap(), 7200);
    for bad in [json!({"anchor": "created_at", "seconds": 60}), json!({"seconds": 7200}), json!(7200)] {
        let reply = call(&server, "POST", "/oai/v1/batches", "sgk_a", &body(bad));
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("output_expires_after")));
    }
}

#[test]
fn a_nul_names_nothing_and_is_no_fault_of_the_store() {
    let server = server();
    for path in ["/v1/files/a%00b", "/v1/batches/a%00b", "/v1/inference/batch/a%00b", "/v1/files/%ff"] {
        assert_eq!(call(&server, "GET", path, "sgk_a", "").status, 404, "{path}");
    }
    for (path, status) in [("/v1/files?after=a%00b", 400), ("/v1/batches?after=%00", 400), ("/v1/accounting/usage?model=%00", 422)] {
        assert_eq!(call(&server, "GET", path, "sgk_a", "").status, status, "{path}");
    }
}
