//! Section 7 of the contract: 429 with its headers, nobody over the limit however many ask at once, and who is not limited.

use super::{EMBED, assert_fault, small};
use crate::fake::{Server, key};
use crate::raw::{Reply, connect, read_reply, request, send};
use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use vecmill::service::access::Access;
use vecmill::service::limits::{Options, Quota};

const BODY: &str = r#"{"model":"fake/plain","input":"a"}"#;
const HEADERS: [&str; 3] = ["x-scaigrid-ratelimit-limit", "x-scaigrid-ratelimit-remaining", "x-scaigrid-ratelimit-reset"];

fn server(options: Options) -> Server {
    let scopes = ["models:use", "models:list"];
    Server::with_limits(small(), Access::keys(vec![key("sgk_a", None, &scopes), key("sgk_b", None, &scopes)]), options)
}

fn embed(server: &Server, token: &str, body: &str) -> Reply {
    send(server.addr, "POST", EMBED, &[("authorization", &format!("Bearer {token}"))], body)
}

fn numbers(reply: &Reply) -> [u64; 3] {
    HEADERS.map(|name| reply.header(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap())
}

#[test]
fn the_61st_request_of_a_minute_waits() {
    let server = server(Options::scaigrid());
    for n in 1..=60 {
        let reply = embed(&server, "sgk_a", BODY);
        assert_eq!((reply.status, numbers(&reply)[..2].to_vec()), (200, vec![60, 60 - n]), "request {n}");
    }
    let reply = embed(&server, "sgk_a", BODY);
    assert_fault(&reply, 429, "RATE_LIMITED", &[], "the 61st");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait) && reply.json()["error"]["retry_after"] == wait);
    let [limit, remaining, reset] = numbers(&reply);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((limit, remaining) == (60, 0) && reset.abs_diff(now + wait) <= 1);
    let list = |token: &str| send(server.addr, "GET", "/v1/models", &[("authorization", token)], "").status;
    assert_eq!(list("Bearer sgk_a"), 429, "every call counts");
    assert_eq!(list("Bearer sgk_b"), 200, "another key goes on");
    assert_eq!(send(server.addr, "GET", "/health", &[], "").status, 200, "probes are not limited");
}

#[test]
fn what_passes_counts_even_if_it_is_refused_later_and_what_does_not_never() {
    let server = server(Options { key: Quota { requests_per_minute: Some(3), tokens_per_minute: None }, ..Options::default() });
    let refused = embed(&server, "sgk_a", r#"{"model":"fake/plain","input":""}"#);
    assert_eq!((refused.status, numbers(&refused)[1]), (422, 2), "a 422 counts");
    let busy = embed(&server, "sgk_a", r#"{"model":"fake/plain","input":"!busy"}"#);
    assert_fault(&busy, 429, "BACKEND_RATE_LIMITED", &[], "busy");
    assert_eq!(numbers(&busy)[..2], [3, 2], "and is not missing from what is left");
    assert_eq!([0; 3].map(|_| embed(&server, "sgk_a", BODY).status), [200, 200, 429], "a 429 does not");
    let large = "x".repeat(10_000);
    assert_eq!(embed(&server, "sgk_a", &large).status, 429, "before the size");
    assert_eq!(embed(&server, "sgk_none", BODY).status, 401, "after the key");
}

#[test]
fn a_scope_that_is_missing_is_told_before_anything_is_counted() {
    let options = Options { key: Quota { requests_per_minute: Some(1), tokens_per_minute: None }, ..Options::default() };
    let server = Server::with_limits(small(), Access::keys(vec![key("sgk_list", None, &["models:list"])]), options);
    for _ in 0..2 {
        assert_fault(&embed(&server, "sgk_list", BODY), 403, "AUTH_INSUFFICIENT_SCOPE", &[], "embed");
    }
    let list = || send(server.addr, "GET", "/v1/models", &[("authorization", "Bearer sgk_list")], "").status;
    assert_eq!([list(), list()], [200, 429]);
}

#[test]
fn tokens_have_their_own_limit() {
    let server = server(Options { key: Quota { requests_per_minute: None, tokens_per_minute: Some(10) }, ..Options::default() });
    let words = |n: usize| format!(r#"{{"model":"fake/plain","input":"{}"}}"#, vec!["w"; n].join(" "));
    let reply = embed(&server, "sgk_a", &words(4));
    assert_eq!((reply.status, numbers(&reply)[..2].to_vec()), (200, vec![10, 4]), "its own tokens count already");
    let reply = embed(&server, "sgk_a", &words(3));
    assert_fault(&reply, 429, "RATE_LIMITED", &[], "6 + 5 tokens");
    assert_eq!(numbers(&reply)[..2], [10, 4]);
    assert_eq!(embed(&server, "sgk_a", &words(2)).status, 200, "6 + 4 tokens");
    assert_fault(&embed(&server, "sgk_b", &words(9)), 422, "VALIDATION_ERROR", &["input"], "never");
    let busy = r#"{"model":"fake/plain","input":["!busy","w w w"]}"#;
    assert_fault(&embed(&server, "sgk_b", busy), 429, "BACKEND_RATE_LIMITED", &[], "counted first, then no room");
    assert_eq!(embed(&server, "sgk_b", &words(8)).status, 200, "all ten are still there");
}

#[test]
fn sixty_four_clients_at_once_get_exactly_the_limit() {
    let server = server(Options { tenant: Quota { requests_per_minute: Some(100), tokens_per_minute: None }, ..Options::default() });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let addr = server.addr;
        let client = |n: usize| scope.spawn(move || [0; 5].map(|_| send_one(addr, if n.is_multiple_of(2) { "sgk_a" } else { "sgk_b" })));
        let threads: Vec<_> = (0..64).map(client).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let count = |status: u16| statuses.iter().filter(|own| **own == status).count();
    assert_eq!((count(200), count(429)), (100, 220));
}

fn send_one(addr: std::net::SocketAddr, token: &str) -> u16 {
    send(addr, "POST", EMBED, &[("authorization", &format!("Bearer {token}"))], BODY).status
}

#[test]
fn without_limits_there_are_no_headers() {
    let reply = embed(&server(Options::default()), "sgk_a", BODY);
    assert!(HEADERS.iter().all(|name| reply.header(name).is_none()));
}

#[test]
fn an_address_without_a_key_is_limited_and_one_with_a_key_is_not() {
    let server = server(Options { address: Quota { requests_per_minute: Some(3), tokens_per_minute: None }, ..Options::default() });
    let list = |headers: &[(&str, &str)]| send(server.addr, "GET", "/v1/models", headers, "");
    assert_eq!([list(&[]).status, list(&[("authorization", "Bearer guess-1")]).status], [401, 401]);
    let link = send(server.addr, "GET", "/v1/inference/batch/b/output?expires=99999999999&signature=00", &[], "");
    assert_eq!(link.status, 401, "a guessed link counts as well");
    let reply = list(&[("authorization", "Bearer guess-2"), ("x-forwarded-for", "8.8.8.8")]);
    assert_fault(&reply, 429, "RATE_LIMITED", &[], "the fourth");
    assert_eq!(numbers(&reply)[..2], [3, 0]);
    assert_eq!(list(&[("authorization", "Bearer sgk_a")]).status, 200, "a key is not its address");
    assert_eq!(send(server.addr, "GET", "/health", &[], "").status, 200);

    let open = Server::with_limits(
        small(),
        Access::open_to_all(),
        Options { address: Quota { requests_per_minute: Some(2), ..Quota::default() }, ..Options::default() },
    );
    let ask = || send(open.addr, "POST", EMBED, &[], BODY);
    assert_eq!([ask().status, ask().status, ask().status], [200, 200, 429], "where nobody has a key, addresses are all there is");
}

#[test]
fn a_request_refused_before_its_body_was_read_says_that_its_connection_ends() {
    let server = server(Options { key: Quota { requests_per_minute: Some(2), tokens_per_minute: None }, ..Options::default() });
    let mut stream = connect(server.addr);
    let mut ask = || {
        stream.write_all(&request("POST", EMBED, &[("authorization", "Bearer sgk_a")], BODY.as_bytes())).unwrap();
        let reply = read_reply(&mut stream, "POST");
        (reply.status, reply.header("connection").map(str::to_owned))
    };
    assert_eq!([ask(), ask(), ask()], [(200, None), (200, None), (429, Some("close".to_owned()))]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "an orderly end");
}
