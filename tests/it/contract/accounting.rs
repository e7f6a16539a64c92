//! Usage over HTTP: what is counted, who sees it, and its pages.

use super::{EMBED, assert_fault, small};
use crate::fake::{Server, key};
use crate::raw::send;
use serde_json::{Value, json};
use vecmill::service::access::Access;

fn server() -> Server {
    let user = |token: &str, user: &str, scopes: &[&str]| {
        let mut key = key(token, None, scopes);
        key.user = user.to_owned();
        key
    };
    let keys = vec![user("sgk_a", "a", &["models:use"]), user("sgk_b", "b", &["models:use"]), user("sgk_admin", "admin", &["api_keys:manage"])];
    let server = Server::with_access(small(), Access::keys(keys));
    for (token, model, input) in
        [("sgk_a", "plain", "one two"), ("sgk_a", "fake/plain", "one"), ("sgk_a", "fake/mrl", "x"), ("sgk_b", "fake/mrl", "x")]
    {
        let body = json!({"model": model, "input": [input, "again"]}).to_string();
        let reply = send(server.addr, "POST", EMBED, &[("authorization", &format!("Bearer {token}"))], body);
        assert_eq!(reply.status, 200, "{}", reply.json());
    }
    let refused = r#"{"model":"fake/plain","input":""}"#;
    assert_eq!(send(server.addr, "POST", EMBED, &[("authorization", "Bearer sgk_a")], refused).status, 422);
    server
}

fn get(server: &Server, token: &str, query: &str) -> Value {
    let reply = send(server.addr, "GET", &format!("/v1/accounting/{query}"), &[("authorization", &format!("Bearer {token}"))], "");
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

#[test]
fn usage_is_by_key_model_and_day_and_by_slug() {
    let server = server();
    let items = get(&server, "sgk_a", "usage")["data"]["items"].clone();
    let items = items.as_array().unwrap();
    let short: Vec<_> =
        items.iter().map(|item| json!([item["model"], item["requests"], item["texts"], item["tokens_in"], item["user_id"]])).collect();
    assert_eq!(short, [json!(["fake/plain", 2, 4, 13, "a"]), json!(["fake/mrl", 1, 2, 6, "a"])]);
    assert_eq!((&items[0]["api_key_id"], &items[0]["cost"], &items[0]["tokens_out"]), (&json!("apikey_sgk_a"), &json!("0"), &json!(0)));
    assert_eq!(get(&server, "sgk_admin", "usage")["data"]["items"].as_array().unwrap().len(), 3, "the whole tenant's");
    assert_eq!(get(&server, "sgk_a", "usage?user_id=b")["data"]["items"].as_array().unwrap().len(), 2, "not another user's");
    assert_eq!(get(&server, "sgk_admin", "usage?user_id=b&model=fake/mrl")["data"]["items"].as_array().unwrap().len(), 1);
    assert_eq!(get(&server, "sgk_admin", "usage?end_date=2020-01-01")["data"]["items"], json!([]));
}

#[test]
fn pages_follow_each_other_and_sums_add_up() {
    let server = server();
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = get(&server, "sgk_admin", &format!("usage?limit=1{cursor}"));
        seen.push(page["data"]["items"][0]["id"].as_str().unwrap().to_owned());
        let Some(next) = page["pagination"]["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 3);
    seen.dedup();
    assert_eq!(seen.len(), 3);
    let summary = get(&server, "sgk_admin", "usage/summary")["data"].clone();
    assert_eq!((&summary["requests"], &summary["tokens_in"], &summary["cost"]), (&json!(4), &json!(25), &json!("0")));
    let models: Vec<_> = summary["by_model"].as_array().unwrap().iter().map(|sum| json!([sum["model"], sum["requests"]])).collect();
    assert_eq!(models, [json!(["fake/mrl", 2]), json!(["fake/plain", 2])]);
}

#[test]
fn parameters_and_keys_are_checked() {
    let server = server();
    let path = "/v1/accounting/usage?limit=0&start_date=x";
    let reply = send(server.addr, "GET", path, &[("authorization", "Bearer sgk_a")], "");
    assert_fault(&reply, 422, "VALIDATION_ERROR", &["limit"], "limit");
    assert_fault(&send(server.addr, "GET", "/v1/accounting/usage/summary", &[], ""), 401, "AUTH_TOKEN_MISSING", &[], "no key");
}
