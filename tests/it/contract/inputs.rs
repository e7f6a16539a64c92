//! Job inputs that lie elsewhere: only where the operator allows it, only what fits, and never by a way round.

use super::{assert_fault, small};
use crate::fake::{Server, key};
use crate::raw::{Reply, send};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use vecmill::api::Options;
use vecmill::api::input;
use vecmill::service::access::Access;

const BATCH: &str = "/v1/inference/batch";

fn server(places: &[String], networks: &[&str]) -> Server {
    let places = places.iter().map(|place| place.parse().unwrap()).collect();
    let inputs = input::Options { places, networks: networks.iter().map(|network| network.parse().unwrap()).collect() };
    let mut other = key("sgk_other", None, &["models:use"]);
    other.user = "other".to_owned();
    Server::with_access(Options { inputs, ..small() }, Access::keys(vec![key("sgk_a", None, &["models:use"]), other]))
}

fn submit(server: &Server, url: &str) -> Reply {
    send(server.addr, "POST", BATCH, &[("authorization", "Bearer sgk_a")], json!({"input_file_url": url}).to_string())
}

fn refused(server: &Server, url: &str, word: &str) {
    let reply = submit(server, url);
    assert_fault(&reply, 422, "VALIDATION_ERROR", &["input_file_url"], url);
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(word), "{url}: {message}");
}

fn completed(server: &Server, url: &str) -> Value {
    let reply = submit(server, url);
    assert_eq!(reply.status, 200, "{}", reply.json());
    let path = format!("{BATCH}/{}", reply.json()["data"]["id"].as_str().unwrap());
    loop {
        let job = send(server.addr, "GET", &path, &[("authorization", "Bearer sgk_a")], "").json()["data"].clone();
        if job["status"] == "completed" {
            return job;
        }
        assert_ne!(job["status"], "failed", "{job}");
    }
}

fn lines(count: usize) -> String {
    let line = |n: usize| json!({"custom_id": n.to_string(), "method": "POST", "url": "/v1/embeddings", "body": {"model": "plain", "input": "a"}});
    (0..count).map(|n| format!("{}\n", line(n))).collect()
}

/// A host that gives these answers, one connection each; and what it was asked.
fn host(answers: Vec<String>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let answer = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head).unwrap().lines().next().unwrap().to_owned()
        };
        answers.into_iter().map(answer).collect()
    });
    (addr, thread)
}

fn ok(body: &str, rest: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n{rest}\r\n{body}", body.len())
}

#[test]
fn nothing_is_fetched_unless_the_operator_allows_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = server(&[], &[]);
    for url in [format!("http://{}/x", listener.local_addr().unwrap()), "file:///etc/passwd".to_owned()] {
        refused(&server, &url, "fetches nothing");
    }
    refused(&server, "s3://bucket/x", "object stores are not read");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody has connected");
}

#[test]
fn an_allowed_address_is_fetched_into_a_file_of_the_users_own() {
    let text = lines(300);
    let (addr, asked) = host(vec![ok(&text, "")]);
    let server = server(&[format!("http://{addr}/batches/")], &["127.0.0.0/8"]);
    let job = completed(&server, &format!("http://{addr}/batches/x.jsonl?signature=s%2Fs"));
    assert_eq!(job["request_counts"], json!({"total": 300, "completed": 300, "failed": 0}));
    assert_eq!(asked.join().unwrap(), ["GET /batches/x.jsonl?signature=s%2Fs HTTP/1.1"]);
    let content = format!("/v1/files/{}/content", job["input_file_id"].as_str().unwrap());
    assert!(send(server.addr, "GET", &content, &[("authorization", "Bearer sgk_a")], "").body == text.as_bytes());
    assert_eq!(send(server.addr, "GET", &content, &[("authorization", "Bearer sgk_other")], "").status, 404);
}

#[test]
fn a_private_address_must_be_listed_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    // By number, by a name that the resolver knows, and in forms that only the resolver takes for an address.
    let hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"];
    let places: Vec<String> = hosts.iter().map(|host| format!("http://{host}:{port}/")).collect();
    let server = server(&places, &["10.0.0.0/8"]);
    for place in &places {
        refused(&server, &format!("{place}x"), "must not connect");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody has connected");
}

#[test]
fn what_does_not_arrive_whole_and_plain_is_refused() {
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned();
    let short = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 100\r\n\r\nshort".to_owned();
    let endless = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(3000));
    let (addr, asked) = host(vec![redirect, short, ok("x", "content-encoding: gzip\r\n"), endless]);
    let place = format!("http://{addr}/a/");
    let server = server(std::slice::from_ref(&place), &["127.0.0.1"]);
    let jobs = vecmill::service::jobs::Options::default();
    assert!(jobs.max_file_bytes > 3000, "the last one is refused as a job, not for its length");
    refused(&server, &format!("{place}1"), "302");
    refused(&server, &format!("{place}2"), "broke off");
    refused(&server, &format!("{place}3"), "Content-Encoding");
    assert_eq!(submit(&server, &format!("{place}4")).status, 200, "a body without a length is taken");
    asked.join().unwrap();
    refused(&server, &format!("{place}5"), "nobody answers");
    for outside in [format!("http://{addr}/b/x"), format!("http://{addr}/a/../b"), format!("https://{addr}/a/x"), format!("http://u@{addr}/a/x")] {
        refused(&server, &outside, "not allowed");
    }
    let files = send(server.addr, "GET", "/v1/files", &[("authorization", "Bearer sgk_a")], "").json();
    assert_eq!(files["data"].as_array().unwrap().len(), 1, "what was refused leaves nothing: {files}");
}

#[test]
fn only_files_below_an_allowed_folder_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in side"), dir.path().join("outside"));
    for folder in [&inside, &outside] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("x.jsonl"), lines(3)).unwrap();
    }
    std::os::unix::fs::symlink(outside.join("x.jsonl"), inside.join("link.jsonl")).unwrap();
    let base = format!("file://{}/in%20side/", dir.path().display());
    let server = server(&[format!("file://{}/none/", dir.path().display()), base.clone()], &[]);
    assert_eq!(completed(&server, &format!("{base}x.jsonl"))["request_counts"]["completed"], 3);
    refused(&server, &format!("file://{}/outside/x.jsonl", dir.path().display()), "not allowed");
    for bad in ["link.jsonl", "none", "", "../outside/x.jsonl", "%2e%2e/outside/x.jsonl"] {
        refused(&server, &format!("{base}{bad}"), "names no file that can be read here");
    }
}
