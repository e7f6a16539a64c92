//! Keys over HTTP: made, shown, used and revoked, each within its tenant; and the caller seen by itself.

use super::{EMBED, assert_fault, small};
use crate::fake::{Event, Server, key};
use crate::raw::{Reply, connect, read_reply, request, send};
use serde_json::{Value, json};
use std::io::Write as _;
use vecmill::service::access::Access;

const KEYS: &str = "/v1/api-keys";
const BODY: &str = r#"{"model":"fake/plain","input":"a"}"#;

fn server() -> Server {
    let mut other = key("sgk_other", None, &["models:use", "api_keys:manage"]);
    other.tenant = "other".to_owned();
    let admin = key("sgk_admin", None, &["models:use", "models:list", "api_keys:manage"]);
    Server::with_access(small(), Access::keys(vec![admin, key("sgk_user", None, &["models:use"]), other]))
}

fn call(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Reply {
    send(server.addr, method, path, &[("authorization", &format!("Bearer {token}"))], body)
}

fn create(server: &Server, token: &str, body: &Value) -> Value {
    let reply = call(server, "POST", KEYS, token, &body.to_string());
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()["data"].clone()
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"]["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[test]
fn a_key_is_made_used_listed_and_revoked() {
    let server = server();
    let made = create(&server, "sgk_admin", &json!({"name": "reports", "expires_at": "2999-01-01T00:00:00Z", "models": ["fake/plain"]}));
    let text = made["key"].as_str().unwrap();
    assert!(text.starts_with("sgk_") && text.len() == 44 && made["prefix"] == text[..8]);
    assert_eq!((&made["name"], &made["user_id"], &made["tenant_id"]), (&json!("reports"), &json!("u"), &json!("t")));
    assert_eq!((&made["scopes"], &made["expires_at"]), (&json!(["models:use", "models:list"]), &json!("2999-01-01T00:00:00Z")));
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(call(&server, "POST", EMBED, text, BODY).status, 200);
    assert_fault(&call(&server, "POST", EMBED, text, r#"{"model":"fake/mrl","input":"a"}"#), 403, "MODEL_ACCESS_DENIED", &[], "its models");

    let id = made["id"].as_str().unwrap();
    let listed = call(&server, "GET", KEYS, "sgk_admin", "").json();
    assert_eq!(ids(&listed).len(), 3, "those of its tenant: {listed}");
    assert!(ids(&listed).contains(&id) && !listed.to_string().contains(text) && !listed.to_string().contains("sha256"));
    assert_eq!(ids(&call(&server, "GET", KEYS, "sgk_other", "").json()).len(), 1);
    let page = call(&server, "GET", &format!("{KEYS}?limit=2"), "sgk_admin", "").json();
    let cursor = page["pagination"]["next_cursor"].as_str().unwrap();
    let rest = call(&server, "GET", &format!("{KEYS}?limit=2&cursor={cursor}"), "sgk_admin", "").json();
    assert_eq!([ids(&page), ids(&rest)].concat(), ids(&listed));

    let path = format!("{KEYS}/{id}");
    assert_fault(&call(&server, "DELETE", &path, "sgk_other", ""), 404, "NOT_FOUND", &[], "another tenant's");
    assert_eq!(call(&server, "DELETE", &path, "sgk_admin", "").json()["data"], json!({"id": id, "deleted": true}));
    assert_fault(&call(&server, "POST", EMBED, text, BODY), 401, "AUTH_TOKEN_INVALID", &[], "at once");
    assert_fault(&call(&server, "DELETE", &path, "sgk_admin", ""), 404, "NOT_FOUND", &[], "twice");
}

#[test]
fn keys_of_the_file_are_seen_and_not_touched() {
    let server = server();
    let path = format!("{KEYS}/apikey_sgk_user");
    assert_fault(&call(&server, "DELETE", &path, "sgk_admin", ""), 409, "CONFLICT", &[], "a key of the file");
    assert_eq!(call(&server, "POST", EMBED, "sgk_user", BODY).status, 200);
}

#[test]
fn managing_needs_its_scope_and_good_fields() {
    let server = server();
    for (method, path) in [("GET", KEYS), ("POST", KEYS), ("DELETE", "/v1/api-keys/x")] {
        assert_fault(&call(&server, method, path, "sgk_user", "{}"), 403, "AUTH_INSUFFICIENT_SCOPE", &[], method);
        assert_fault(&send(server.addr, method, path, &[], "{}"), 401, "AUTH_TOKEN_MISSING", &[], method);
    }
    assert_fault(&call(&server, "PUT", KEYS, "sgk_admin", ""), 405, "METHOD_NOT_ALLOWED", &[], "put");
    let body = r#"{"scopes":["models:fly"],"expires_at":"1999-01-01T00:00:00Z"}"#;
    assert_fault(&call(&server, "POST", KEYS, "sgk_admin", body), 422, "VALIDATION_ERROR", &["name", "expires_at"], "fields");
    let body = r#"{"name":"n","scopes":["models:list"]}"#;
    assert_fault(&call(&server, "POST", KEYS, "sgk_other", body), 422, "VALIDATION_ERROR", &["scopes"], "more than the maker has");
    assert_fault(&call(&server, "GET", "/v1/api-keys?limit=0", "sgk_admin", ""), 422, "VALIDATION_ERROR", &["limit"], "limit");
}

#[test]
fn me_is_the_caller() {
    let server = server();
    let me = call(&server, "GET", "/v1/me", "sgk_user", "").json()["data"].clone();
    assert_eq!((&me["id"], &me["tenant_id"], &me["permissions"]), (&json!("u"), &json!("t"), &json!(["models:use"])));
    assert_eq!((&me["api_key"]["id"], me["api_key"].get("key")), (&json!("apikey_sgk_user"), None));
    assert_fault(&send(server.addr, "GET", "/v1/me", &[], ""), 401, "AUTH_TOKEN_MISSING", &[], "no key");
    let open = Server::start(small());
    assert_eq!(send(open.addr, "GET", "/v1/me", &[], "").json()["data"]["user_id"], "default");
    assert_fault(&send(open.addr, "POST", KEYS, &[], "{}"), 409, "CONFLICT", &[], "an open server has no keys to manage");
}

#[test]
fn what_was_revoked_while_it_ran_is_not_given_out() {
    let server = server();
    let made = create(&server, "sgk_admin", &json!({"name": "running"}));
    let mut running = connect(server.addr);
    let bearer = format!("Bearer {}", made["key"].as_str().unwrap());
    running.write_all(&request("POST", EMBED, &[("authorization", &bearer)], br#"{"model":"fake/plain","input":"!hang"}"#)).unwrap();
    assert_eq!(server.event(), Event::Began);
    assert_eq!(call(&server, "DELETE", &format!("{KEYS}/{}", made["id"].as_str().unwrap()), "sgk_admin", "").status, 200);
    server.go_on();
    assert_fault(&read_reply(&mut running, "POST"), 401, "AUTH_TOKEN_INVALID", &[], "revoked in flight");
}
