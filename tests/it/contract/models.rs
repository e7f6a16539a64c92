//! Sections 4, 5 and 12 of the contract: the listing, one model, and pages.

use super::{assert_fault, small};
use crate::fake::Server;
use crate::raw::{Reply, send};
use serde_json::{Value, json};

fn get(server: &Server, path: &str) -> Reply {
    send(server.addr, "GET", path, &[], "")
}

fn slugs(body: &Value) -> Vec<String> {
    body["data"]["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_listing_has_the_contracts_shape() {
    let server = Server::start(small());
    let body = get(&server, "/v1/models?modality=embedding").json();
    assert_eq!(body["status"], "ok");
    assert_eq!(body["pagination"], json!({"has_more": false, "next_cursor": null}));
    assert_eq!((&body["meta"]["has_more"], &body["meta"]["next_cursor"]), (&json!(false), &Value::Null));
    assert!(body["meta"]["request_id"].is_string());
    assert_eq!(slugs(&body), ["fake/empty", "fake/failed", "fake/loading", "fake/mrl", "fake/plain", "fake/secret"]);
    let item = |slug: &str| body["data"]["items"].as_array().unwrap().iter().find(|item| item["slug"] == slug).unwrap().clone();
    let plain = item("fake/plain");
    let expected = [
        ("display_name", json!("fake/plain")),
        ("modality", json!("embedding")),
        ("context_window", json!(16)),
        ("status", json!("active")),
        ("health_status", json!("healthy")),
        ("active_backend_count", json!(1)),
        ("total_backend_count", json!(1)),
        ("dimensions", json!(8)),
        ("supported_dimensions", json!([8])),
    ];
    for (name, value) in expected {
        assert_eq!(plain[name], value, "{name}");
    }
    let loading = item("fake/loading");
    assert_eq!((&loading["health_status"], &loading["active_backend_count"]), (&json!("unhealthy"), &json!(0)));
    assert_eq!(item("fake/mrl")["supported_dimensions"], json!({"min": 1, "max": 8, "trained": [4]}));
}

#[test]
fn filters_leave_out_what_is_not_here_and_refuse_what_is_not_known() {
    let server = Server::start(small());
    for query in ["modality=chat", "modality=image", "modality=audio", "status=deprecated", "modality=embedding&status=deprecated"] {
        let reply = get(&server, &format!("/v1/models?{query}"));
        assert_eq!((reply.status, slugs(&reply.json()).len()), (200, 0), "{query}");
    }
    for query in ["", "status=active", "modality=embedding&status=active", "unknown=1"] {
        assert_eq!(slugs(&get(&server, &format!("/v1/models?{query}")).json()).len(), 6, "{query}");
    }
    assert_fault(&get(&server, "/v1/models?modality=video"), 422, "VALIDATION_ERROR", &["modality"], "modality");
    assert_fault(&get(&server, "/v1/models?status=gone&limit=0"), 422, "VALIDATION_ERROR", &["limit", "status"], "two");
    assert_fault(&get(&server, "/v1/models?cursor=abc"), 422, "VALIDATION_ERROR", &["cursor"], "cursor");
}

#[test]
fn pages_cover_everything_once() {
    let server = Server::start(small());
    let (mut seen, mut path, mut pages) = (Vec::new(), "/v1/models?limit=4".to_owned(), 0);
    loop {
        let body = get(&server, &path).json();
        seen.extend(slugs(&body));
        pages += 1;
        let Some(cursor) = body["pagination"]["next_cursor"].as_str() else { break };
        assert_eq!(body["pagination"]["has_more"], true);
        path = format!("/v1/models?limit=4&cursor={cursor}");
    }
    assert_eq!((pages, seen), (2, slugs(&get(&server, "/v1/models").json())));
    for limit in ["1001", "-1", "x", ""] {
        assert_fault(&get(&server, &format!("/v1/models?limit={limit}")), 422, "VALIDATION_ERROR", &["limit"], limit);
    }
}

#[test]
fn one_model_by_any_spelling_of_its_slashes() {
    let server = Server::start(small());
    for path in ["/v1/models/fake%2Fplain", "/v1/models/fake/plain", "/v1/models/fake/plain/", "/v1/models/fake%2fplain/", "/v1/models/plain"] {
        let reply = get(&server, path);
        assert_eq!((reply.status, &reply.json()["data"]["slug"]), (200, &json!("fake/plain")), "{path}");
    }
    for path in ["/v1/models/no/such", "/v1/models/fake", "/v1/models/fake%2Fplain%2Favatar", "/v1/models/%ff", "/v1/models//"] {
        assert_fault(&get(&server, path), 404, "MODEL_NOT_FOUND", &[], path);
    }
    assert_eq!(get(&server, "/v1/models/").status, 200);
}

#[test]
fn models_cannot_be_changed_here() {
    let server = Server::start(small());
    for path in ["/v1/models", "/v1/models/fake%2Fplain", "/v1/models/fake/plain", "/health", "/metrics"] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let reply = send(server.addr, method, path, &[], "{}");
            assert_fault(&reply, 405, "METHOD_NOT_ALLOWED", &[], path);
            assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
    let head = send(server.addr, "HEAD", "/v1/models", &[], "");
    assert_eq!((head.status, head.body.len()), (200, 0));
}
