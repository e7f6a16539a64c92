//! Section 8 of the contract: jobs submitted, looked through, run, cancelled; their results by key and by signed link.

use super::{assert_fault, small};
use crate::fake::{Event, Server, key, vector};
use crate::raw::{Reply, send};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use vecmill::api::Options;
use vecmill::service::access::Access;

const BATCH: &str = "/v1/inference/batch";
const EMBED: &str = "/v1/inference/embed";

fn server() -> Server {
    let mut other = key("sgk_other", None, &["models:use"]);
    other.user = "other".to_owned();
    let keys = vec![key("sgk_a", None, &["models:use"]), other, key("sgk_some", Some(&["fake/plain"]), &["models:use"])];
    Server::with_access(Options { max_body_bytes: 1 << 20, ..small() }, Access::keys(keys))
}

fn call(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Reply {
    send(server.addr, method, path, &[("authorization", &format!("Bearer {token}"))], body)
}

fn line(id: &str, input: &Value) -> String {
    json!({"custom_id": id, "method": "POST", "url": EMBED, "body": {"model": "fake/plain", "input": input}}).to_string()
}

fn submit(server: &Server, token: &str, lines: &[String]) -> Value {
    let body = json!({"input_file_base64": STANDARD.encode(lines.join("\n")), "metadata": {"project": "x"}});
    let reply = call(server, "POST", BATCH, token, &body.to_string());
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()["data"].clone()
}

fn job(server: &Server, token: &str, id: &str) -> Value {
    let reply = call(server, "GET", &format!("{BATCH}/{id}"), token, "");
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()["data"].clone()
}

/// Asks until the job has ended.
fn ended(server: &Server, token: &str, id: &str) -> Value {
    loop {
        let job = job(server, token, id);
        if ["completed", "failed", "expired", "cancelled"].contains(&job["status"].as_str().unwrap()) {
            return job;
        }
    }
}

fn lines_of(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{:?}", String::from_utf8_lossy(&reply.body));
    String::from_utf8(reply.body.clone()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["custom_id"].as_str().unwrap()).collect()
}

/// The path of a link to this server.
fn path(link: &Value) -> String {
    link.as_str().unwrap().strip_prefix("http://test").expect("the request's own host").to_owned()
}

#[test]
fn good_lines_and_bad_ones_come_out_in_order_each_where_it_belongs() {
    let server = server();
    let mut lines: Vec<String> = (0..600).map(|n| line(&format!("id-{n}"), &json!([format!("text {n}"), "b"]))).collect();
    lines[3] = line("bad-body", &json!(""));
    lines[5] = json!({"custom_id": "bad-url", "method": "POST", "url": "/v1/chat", "body": {}}).to_string();
    lines[7] = json!({"custom_id": "bad-method", "method": "GET", "url": EMBED}).to_string();
    lines[300] = json!({"custom_id": "bad-model", "method": "POST", "url": EMBED, "body": {"model": "no/such", "input": "a"}}).to_string();
    lines[400] = line("broken", &json!("!broken"));
    lines[401] = line("panic", &json!("!panic"));
    lines[402] = line("nan", &json!("!nan"));
    lines[403] = line("openai-panic", &json!("!panic")).replace(EMBED, "/v1/embeddings");
    // Good enough to be lines; what is in them is their own fault.
    let odd =
        |id: &str, input: &str| format!(r#"{{"custom_id":"{id}","method":"POST","url":"{EMBED}","body":{{"model":"fake/plain","input":{input}}}}}"#);
    lines[500] = odd("surrogate", r#""\ud800""#);
    lines[501] = odd("huge", "1e999");
    lines[502] = odd("deep", &("[".repeat(300) + &"]".repeat(300)));
    let made = submit(&server, "sgk_a", &lines);
    assert_eq!((&made["object"], &made["id"], &made["metadata"]), (&json!("batch"), &made["batch_id"], &json!({"project": "x"})));
    let job = ended(&server, "sgk_a", made["id"].as_str().unwrap());
    assert_eq!((&job["status"], &job["request_counts"]), (&json!("completed"), &json!({"total": 600, "completed": 589, "failed": 11})), "{job}");
    assert!(job["completed_at"].is_string() && job["failed_at"].is_null() && job["usage"]["prompt_tokens"] == 589 * 7);

    let output = lines_of(&send(server.addr, "GET", &path(&job["output_file_url"]), &[], ""));
    let expected: Vec<String> =
        (0..600).filter(|n| ![3, 5, 7, 300, 400, 401, 402, 403, 500, 501, 502].contains(n)).map(|n| format!("id-{n}")).collect();
    assert_eq!(ids(&output), expected);
    let body = &output[1]["response"]["body"];
    let values: Vec<f32> = body["data"]["data"][0]["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
    assert_eq!((values, &body["status"], &body["data"]["model"]), (vector("text 1", 8), &json!("ok"), &json!("fake/plain")));
    assert_eq!((&output[1]["error"], &output[1]["response"]["status_code"]), (&json!(null), &json!(200)));
    assert_eq!(output[1]["response"]["request_id"], body["meta"]["request_id"]);

    let errors = lines_of(&send(server.addr, "GET", &path(&job["error_file_url"]), &[], ""));
    let short: Vec<_> =
        errors.iter().map(|line| json!([line["custom_id"], line["response"]["status_code"], line["response"]["body"]["error"]["code"]])).collect();
    assert_eq!(
        short,
        [
            json!(["bad-body", 422, "VALIDATION_ERROR"]),
            json!(["bad-url", 422, "VALIDATION_ERROR"]),
            json!(["bad-method", 422, "VALIDATION_ERROR"]),
            json!(["bad-model", 404, "MODEL_NOT_FOUND"]),
            json!(["broken", 502, "BACKEND_ERROR"]),
            json!(["panic", 500, "INTERNAL_ERROR"]),
            json!(["nan", 502, "BACKEND_ERROR"]),
            json!(["openai-panic", 500, null]),
            json!(["surrogate", 422, "VALIDATION_ERROR"]),
            json!(["huge", 422, "VALIDATION_ERROR"]),
            json!(["deep", 422, "VALIDATION_ERROR"]),
        ]
    );
    let panic = errors.iter().find(|line| line["custom_id"] == "openai-panic").unwrap();
    assert_eq!(panic["response"]["body"]["error"]["type"], "server_error", "in the form of its url: {panic}");
    let usage = call(&server, "GET", "/v1/accounting/usage", "sgk_a", "").json()["data"]["items"][0].clone();
    assert_eq!((&usage["requests"], &usage["texts"], &usage["tokens_in"]), (&json!(589), &json!(1178), &json!(589 * 7)));
}

#[test]
fn a_jobs_results_are_its_users_and_whoever_has_the_link() {
    let server = server();
    let id = submit(&server, "sgk_a", &[line("a", &json!("x"))])["id"].as_str().unwrap().to_owned();
    let job = ended(&server, "sgk_a", &id);
    let output = format!("{BATCH}/{id}/output");
    assert_eq!(ids(&lines_of(&call(&server, "GET", &output, "sgk_a", ""))), ["a"]);
    for path in [format!("{BATCH}/{id}"), output.clone()] {
        assert_fault(&call(&server, "GET", &path, "sgk_other", ""), 404, "NOT_FOUND", &[], "another user's");
    }
    assert_fault(&call(&server, "POST", &format!("{BATCH}/{id}/cancel"), "sgk_other", ""), 404, "NOT_FOUND", &[], "cancel another's");
    assert_fault(&send(server.addr, "GET", &output, &[], ""), 401, "AUTH_TOKEN_MISSING", &[], "no key, no signature");
    let link = path(&job["output_file_url"]);
    assert_eq!(send(server.addr, "GET", &link, &[("authorization", "Bearer nonsense")], "").status, 200, "the link is enough");
    let (start, signature) = link.rsplit_once("signature=").unwrap();
    let turned = signature.chars().rev().collect::<String>();
    for bad in [
        format!("{start}signature={turned}"),
        link.replace("/output?", "/errors?"),
        link.replace("expires=", "expires=1"),
        format!("{output}?expires=1&signature=00"),
    ] {
        assert_fault(&send(server.addr, "GET", &bad, &[], ""), 401, "AUTH_TOKEN_INVALID", &[], &bad);
        let wrong = call(&server, "GET", &bad, "sgk_nobody", "");
        assert_fault(&wrong, 401, "AUTH_TOKEN_INVALID", &[], &bad);
    }
    let old = format!("{output}?expires=1&signature=00");
    assert_eq!(ids(&lines_of(&call(&server, "GET", &old, "sgk_a", ""))), ["a"], "with a key an old link is no worse than none");
    assert_fault(&call(&server, "GET", &old, "sgk_other", ""), 404, "NOT_FOUND", &[], "with another user's key");
    assert_eq!(call(&server, "GET", &format!("{BATCH}/{id}/errors"), "sgk_a", "").status, 404, "no errors, no file");
    assert!(job["error_file_url"].is_null() && job["error_file_id"].is_null());
    let cancelled = call(&server, "POST", &format!("{BATCH}/{id}/cancel"), "sgk_a", "");
    assert_eq!((cancelled.status, &cancelled.json()["data"]["status"]), (200, &json!("completed")), "what has ended stays");
    let again = json!({"input_file_url": format!("scaigrid://file/{}", job["output_file_id"].as_str().unwrap())});
    assert_eq!(call(&server, "POST", BATCH, "sgk_a", &again.to_string()).status, 200, "a file of one's own is taken, whatever is in it");
    assert_fault(&call(&server, "POST", BATCH, "sgk_other", &again.to_string()), 422, "VALIDATION_ERROR", &["input_file_url"], "another user's file");
}

#[test]
fn where_nobody_needs_a_key_an_old_link_needs_none_either() {
    let server = Server::start(Options { max_body_bytes: 1 << 20, ..small() });
    let id = submit(&server, "sgk_any", &[line("a", &json!("x"))])["id"].as_str().unwrap().to_owned();
    ended(&server, "sgk_any", &id);
    let old = format!("{BATCH}/{id}/output?expires=1&signature=00");
    assert_eq!(ids(&lines_of(&send(server.addr, "GET", &old, &[], ""))), ["a"]);
}

#[test]
fn a_file_that_is_wrong_as_a_whole_fails_the_job() {
    let server = server();
    let id = submit(&server, "sgk_a", &[line("a", &json!("x")), "{".to_owned(), line("a", &json!("y"))])["id"].as_str().unwrap().to_owned();
    let job = ended(&server, "sgk_a", &id);
    let faults: Vec<_> = job["errors"].as_array().unwrap().iter().map(|fault| json!([fault["code"], fault["line"]])).collect();
    assert_eq!((&job["status"], faults), (&json!("failed"), vec![json!(["invalid_json_line", 2]), json!(["duplicate_custom_id", 3])]));
    assert!(job["failed_at"].is_string() && job["output_file_url"].is_null());
    let body = json!({"input_file_base64": "!", "endpoint_completion_window": "2h"});
    assert_fault(
        &call(&server, "POST", BATCH, "sgk_a", &body.to_string()),
        422,
        "VALIDATION_ERROR",
        &["input_file_base64", "endpoint_completion_window"],
        "fields",
    );
}

#[test]
fn a_keys_models_bind_its_jobs() {
    let server = server();
    let secret = line("b", &json!("x")).replace("fake/plain", "fake/secret");
    let id = submit(&server, "sgk_some", &[line("a", &json!("x")), secret])["id"].as_str().unwrap().to_owned();
    let job = ended(&server, "sgk_some", &id);
    assert_eq!(job["request_counts"], json!({"total": 2, "completed": 1, "failed": 1}));
    let errors = lines_of(&send(server.addr, "GET", &path(&job["error_file_url"]), &[], ""));
    assert_eq!(errors[0]["response"]["body"]["error"]["code"], "MODEL_ACCESS_DENIED");
}

#[test]
fn cancelling_ends_what_runs_and_keeps_every_line_once() {
    let server = server();
    let lines: Vec<String> = (0..600).map(|n| line(&n.to_string(), &if n == 300 { json!("!hang") } else { json!("x") })).collect();
    let id = submit(&server, "sgk_a", &lines)["id"].as_str().unwrap().to_owned();
    assert_eq!(server.event(), Event::Began);
    let reply = call(&server, "POST", &format!("{BATCH}/{id}/cancel"), "sgk_a", "").json();
    assert!(["cancelling", "cancelled"].contains(&reply["data"]["status"].as_str().unwrap()), "{reply}");
    let job = ended(&server, "sgk_a", &id);
    assert_eq!((&job["status"], server.event()), (&json!("cancelled"), Event::Dropped));
    let errors = lines_of(&send(server.addr, "GET", &path(&job["error_file_url"]), &[], ""));
    let mut all: Vec<String> = ids(&errors).into_iter().map(str::to_owned).collect();
    assert!(errors.iter().all(|line| line["error"]["code"] == "batch_cancelled" && line["response"].is_null()));
    if !job["output_file_url"].is_null() {
        all.extend(ids(&lines_of(&send(server.addr, "GET", &path(&job["output_file_url"]), &[], ""))).into_iter().map(str::to_owned));
    }
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (600, 600));
    assert!(all.iter().position(|id| id == "300").unwrap() < errors.len());
}

#[test]
fn the_listing_is_newest_first_in_pages() {
    let server = server();
    let made: Vec<String> =
        (0..3).map(|n| submit(&server, "sgk_a", &[line(&n.to_string(), &json!("x"))])["id"].as_str().unwrap().to_owned()).collect();
    submit(&server, "sgk_other", &[line("o", &json!("x"))]);
    let page = |query: &str| call(&server, "GET", &format!("{BATCH}{query}"), "sgk_a", "").json();
    let names =
        |page: &Value| page["data"]["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let first = page("?limit=2");
    let rest = page(&format!("?limit=2&cursor={}", first["pagination"]["next_cursor"].as_str().unwrap()));
    assert_eq!([names(&first), names(&rest)].concat(), made.iter().rev().cloned().collect::<Vec<_>>());
    ended(&server, "sgk_a", &made[0]);
    assert!(names(&page("?status=completed")).contains(&made[0]) && names(&page("?status=expired")).is_empty());
    assert_eq!(page("?status=odd")["error"]["details"][0]["field"], "status");
}

#[test]
fn links_have_the_servers_own_scheme_or_the_address_it_was_given() {
    let public_url = Some("https://vectors.example.com/".to_owned());
    for (options, expected) in
        [(Options { https: true, ..small() }, "https://test/v1/"), (Options { public_url, ..small() }, "https://vectors.example.com/v1/")]
    {
        let server = Server::with_access(options, Access::keys(vec![key("sgk_a", None, &["models:use"])]));
        let id = submit(&server, "sgk_a", &[line("a", &json!("b"))])["id"].as_str().unwrap().to_owned();
        let link = ended(&server, "sgk_a", &id)["output_file_url"].clone();
        assert!(link.as_str().unwrap().starts_with(expected), "{link}");
    }
}

#[test]
fn a_revoked_key_computes_nothing_any_more_and_its_job_says_why() {
    let admin = key("sgk_admin", None, &["models:use", "api_keys:manage"]);
    let server = Server::with_access(Options { max_body_bytes: 1 << 20, ..small() }, Access::keys(vec![admin]));
    let made = call(&server, "POST", "/v1/api-keys", "sgk_admin", r#"{"name": "nightly"}"#).json()["data"].clone();
    let token = made["key"].as_str().unwrap();
    let lines: Vec<String> = (0..600).map(|n| line(&n.to_string(), &if n == 300 { json!("!hang") } else { json!("x") })).collect();
    let id = submit(&server, token, &lines)["id"].as_str().unwrap().to_owned();
    assert_eq!(server.event(), Event::Began);
    assert_eq!(call(&server, "DELETE", &format!("/v1/api-keys/{}", made["id"].as_str().unwrap()), "sgk_admin", "").status, 200);
    let job = ended(&server, "sgk_admin", &id);
    assert_eq!((&job["status"], &job["errors"][0]["code"]), (&json!("failed"), &json!("api_key_ended")), "{job}");
    assert_eq!(server.event(), Event::Dropped);
    let counts = &job["request_counts"];
    assert_eq!(counts["completed"].as_u64().unwrap() + counts["failed"].as_u64().unwrap(), 600, "every line is accounted for");
    let errors = lines_of(&send(server.addr, "GET", &path(&job["error_file_url"]), &[], ""));
    assert!(errors.iter().all(|line| line["error"]["code"] == "api_key_ended") && ids(&errors).contains(&"300"));
}
