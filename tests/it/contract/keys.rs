//! Section 2 of the contract: who gets in, with what, and in which order that is checked.

use super::{EMBED, assert_fault, small};
use crate::fake::{Server, key};
use crate::raw::{Reply, send};
use vecmill::service::access::Access;

const BODY: &str = r#"{"model":"fake/plain","input":"a"}"#;

fn server() -> Server {
    let both = ["models:use", "models:list"];
    let keys = vec![
        key("sgk_all", None, &both),
        key("sgk_viewer", None, &["models:list"]),
        key("sgk_user", None, &["models:use"]),
        key("sgk_some", Some(&["fake/plain", "mrl"]), &both),
    ];
    Server::with_access(small(), Access::keys(keys))
}

fn post(server: &Server, authorization: Option<&str>, body: &str) -> Reply {
    let header = authorization.map(|value| ("authorization", value));
    send(server.addr, "POST", EMBED, header.as_slice(), body)
}

#[test]
fn a_good_key_gets_in_whatever_the_case_of_bearer() {
    let server = server();
    for value in ["Bearer sgk_all", "bearer sgk_all", "BEARER sgk_all"] {
        assert_eq!(post(&server, Some(value), BODY).status, 200, "{value}");
    }
}

#[test]
fn no_key_and_a_wrong_key_are_told_apart() {
    let server = server();
    assert_fault(&post(&server, None, BODY), 401, "AUTH_TOKEN_MISSING", &[], "none");
    for value in ["sgk_all", "Bearer", "Bearer ", "Basic sgk_all", "Bearer sgk_other", "Bearer sgk_al", "Bearer sgk_all2", "\u{e9}"] {
        assert_fault(&post(&server, Some(value), BODY), 401, "AUTH_TOKEN_INVALID", &[], value);
    }
    let reply = send(server.addr, "POST", EMBED, &[("x-api-key", "sgk_all")], BODY);
    assert_fault(&reply, 401, "AUTH_TOKEN_MISSING", &[], "another header");
    let twice = [("authorization", "Bearer sgk_all"), ("authorization", "Bearer sgk_viewer")];
    assert_fault(&send(server.addr, "POST", EMBED, &twice, BODY), 401, "AUTH_TOKEN_INVALID", &[], "two headers");
}

#[test]
fn a_scope_is_needed_for_each_half() {
    let server = server();
    assert_fault(&post(&server, Some("Bearer sgk_viewer"), BODY), 403, "AUTH_INSUFFICIENT_SCOPE", &[], "viewer");
    let list = |token: &str| send(server.addr, "GET", "/v1/models", &[("authorization", token)], "");
    assert_eq!(list("Bearer sgk_viewer").status, 200);
    assert_fault(&list("Bearer sgk_user"), 403, "AUTH_INSUFFICIENT_SCOPE", &[], "user");
    assert_fault(
        &send(server.addr, "GET", "/v1/models/fake/plain", &[("authorization", "Bearer sgk_user")], ""),
        403,
        "AUTH_INSUFFICIENT_SCOPE",
        &[],
        "one",
    );
}

#[test]
fn row_10_a_keys_models_are_all_it_sees() {
    let server = server();
    let some = ("authorization", "Bearer sgk_some");
    for name in ["fake/plain", "plain", "fake/mrl", "mrl:query"] {
        let body = format!(r#"{{"model":"{name}","input":"a"}}"#);
        assert_eq!(post(&server, Some(some.1), &body).status, 200, "{name}");
    }
    let body = r#"{"model":"fake/secret","input":"a"}"#;
    assert_fault(&post(&server, Some(some.1), body), 403, "MODEL_ACCESS_DENIED", &[], "embed");
    assert_fault(&post(&server, Some(some.1), r#"{"model":"no/such","input":"a"}"#), 404, "MODEL_NOT_FOUND", &[], "404 before 403");
    let list = send(server.addr, "GET", "/v1/models", &[some], "").json();
    let slugs: Vec<_> = list["data"]["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["fake/mrl", "fake/plain"]);
    assert_fault(&send(server.addr, "GET", "/v1/models/fake/secret", &[some], ""), 403, "MODEL_ACCESS_DENIED", &[], "one");
}

#[test]
fn the_order_of_the_checks() {
    let server = server();
    let get = |path: &str| send(server.addr, "GET", path, &[], "");
    assert_fault(&get("/v1/nowhere"), 404, "NOT_FOUND", &[], "a route that is not there needs no key");
    assert_fault(&get(EMBED), 405, "METHOD_NOT_ALLOWED", &[], "nor does a wrong method");
    let large = "x".repeat(10_000);
    assert_fault(&post(&server, None, &large), 401, "AUTH_TOKEN_MISSING", &[], "the key before the size");
    assert_fault(&post(&server, Some("Bearer sgk_viewer"), &large), 403, "AUTH_INSUFFICIENT_SCOPE", &[], "the scope before the size");
    assert_fault(&post(&server, Some("Bearer sgk_all"), &large), 413, "PAYLOAD_TOO_LARGE", &[], "the size before the JSON");
    assert_fault(
        &post(&server, Some("Bearer sgk_some"), r#"{"model":"fake/secret","input":""}"#),
        422,
        "VALIDATION_ERROR",
        &["input"],
        "fields before the model",
    );
    let body = r#"{"model":"fake/secret","input":"a","dimensions":9}"#;
    assert_fault(&post(&server, Some("Bearer sgk_some"), body), 403, "MODEL_ACCESS_DENIED", &[], "the model before dimensions");
}

#[test]
fn an_open_server_ignores_whatever_key_is_sent() {
    let server = Server::start(small());
    for value in [None, Some("Bearer sgk_any"), Some("sgk_any"), Some("Basic x")] {
        assert_eq!(post(&server, value, BODY).status, 200, "{value:?}");
    }
}
