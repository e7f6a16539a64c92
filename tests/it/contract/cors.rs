//! Browsers: only pages of listed origins may call the server; without a list none may.

use super::{EMBED, small};
use crate::fake::Server;
use crate::raw::{Reply, send};
use vecmill::api::Options;

fn ask(origins: &[&str], method: &str, origin: &str) -> Reply {
    let server = Server::start(Options { cors_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(), ..small() });
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-stainless-lang"),
    ];
    send(server.addr, method, EMBED, &headers, r#"{"model":"fake/plain","input":"a"}"#)
}

const ALLOWED: &str = "access-control-allow-origin";

#[test]
fn without_a_list_no_page_may_call() {
    assert_eq!(ask(&[], "POST", "https://app.test").header(ALLOWED), None);
    let preflight = ask(&[], "OPTIONS", "https://app.test");
    assert_eq!((preflight.status, preflight.header(ALLOWED)), (405, None));
}

#[test]
fn a_listed_origin_may_and_another_may_not() {
    let list = ["https://app.test", "http://localhost:3000"];
    for origin in list {
        let preflight = ask(&list, "OPTIONS", origin);
        assert_eq!((preflight.status, preflight.header(ALLOWED)), (200, Some(origin)));
        assert!(preflight.header("access-control-allow-headers").unwrap().contains("x-stainless-lang"));
        assert!(preflight.header("access-control-allow-methods").unwrap().contains("POST"));
        let reply = ask(&list, "POST", origin);
        assert_eq!((reply.status, reply.header(ALLOWED)), (200, Some(origin)));
        let exposed = reply.header("access-control-expose-headers").unwrap();
        for name in ["x-request-id", "x-embedding-space", "retry-after", "x-scaigrid-ratelimit-remaining"] {
            assert!(exposed.contains(name), "{name}");
        }
        assert_eq!(reply.header("access-control-allow-credentials"), None);
    }
    for origin in ["https://evil.test", "https://app.test.evil.test", "http://app.test", "null"] {
        assert_eq!(ask(&list, "OPTIONS", origin).header(ALLOWED), None, "{origin}");
        assert_eq!(ask(&list, "POST", origin).header(ALLOWED), None, "{origin}");
    }
    assert_eq!(ask(&["*"], "POST", "https://any.test").header(ALLOWED), Some("*"));
}

#[test]
fn errors_can_be_read_by_the_page_too() {
    let server = Server::start(Options { cors_origins: vec!["https://app.test".to_owned()], ..small() });
    let reply = send(server.addr, "GET", "/v1/nowhere", &[("origin", "https://app.test")], "");
    assert_eq!((reply.status, reply.header(ALLOWED)), (404, Some("https://app.test")));
}
