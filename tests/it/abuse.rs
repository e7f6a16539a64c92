//! Clients that are slow, rude, broken or too many: each is answered readably or cut off, and the next one is served.

use crate::fake::{Event, Server};
use crate::raw::{connect, embed, read_reply, read_to_close, request, send, try_send};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};
use vecmill::api::Options;

const EMBED: &str = "/v1/inference/embed";
const GOOD: &str = r#"{"model":"fake/plain","input":"a"}"#;
/// A limit that a test wants to see reached.
const SHORT: Duration = Duration::from_millis(200);
/// How long a test keeps asking for something that must happen.
const SOON: Duration = Duration::from_secs(60);

fn assert_alive(addr: SocketAddr) {
    assert_eq!(embed(addr, GOOD).status, 200, "the next client is served");
}

/// Asks until the answer is there.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {SOON:?}");
    }
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let server = Server::start(Options { header_timeout: SHORT, ..Options::default() });
    for start in ["", "POST", "POST /v1/inference/embed HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut stream = connect(server.addr);
        stream.write_all(start.as_bytes()).unwrap();
        assert_eq!(read_to_close(&mut stream).unwrap(), 0, "{start:?}");
    }
    assert_alive(server.addr);
}

#[test]
fn a_body_that_does_not_come_is_answered_408() {
    let server = Server::start(Options { body_timeout: SHORT, ..Options::default() });
    let heads = [
        "POST /v1/inference/embed HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"model\":",
        "POST /v1/inference/embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"mod\r\n",
    ];
    for head in heads {
        let mut stream = connect(server.addr);
        stream.write_all(head.as_bytes()).unwrap();
        let reply = read_reply(&mut stream, "POST");
        assert_eq!((reply.status, reply.code().as_str()), (408, "REQUEST_TIMEOUT"));
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(read_to_close(&mut stream).unwrap(), 0);
    }
    assert_alive(server.addr);
}

/// 40 MiB against a limit of 4 KiB, all of it sent before a byte of the answer is read.
fn flood(head: &str, chunk: &[u8], tail: &[u8], expected: (u16, &str)) {
    let server = Server::start(Options { max_body_bytes: 4096, ..Options::default() });
    let mut stream = connect(server.addr);
    stream.write_all(format!("POST {EMBED} HTTP/1.1\r\nhost: x\r\n{head}\r\n").as_bytes()).unwrap();
    for _ in 0..40 {
        stream.write_all(chunk).expect("the server keeps reading");
    }
    stream.write_all(tail).expect("the server keeps reading");
    let reply = read_reply(&mut stream, "POST");
    assert_eq!((reply.status, reply.code().as_str()), expected);
    stream.shutdown(Shutdown::Write).unwrap();
    read_to_close(&mut stream).expect("an orderly end, not a reset");
    assert_alive(server.addr);
}

#[test]
fn forty_announced_mebibytes_get_a_readable_413() {
    flood(&format!("content-length: {}\r\n", 40 << 20), &vec![b' '; 1 << 20], b"", (413, "PAYLOAD_TOO_LARGE"));
}

#[test]
fn forty_chunked_mebibytes_get_a_readable_413() {
    let chunk = [b"100000\r\n", &vec![b' '; 1 << 20][..], b"\r\n"].concat();
    flood("transfer-encoding: chunked\r\n", &chunk, b"0\r\n\r\n", (413, "PAYLOAD_TOO_LARGE"));
}

#[test]
fn forty_mebibytes_that_nothing_announced_get_a_readable_answer() {
    // HTTP says that such a request has no body; what follows is not a request.
    flood("", &vec![b'x'; 1 << 20], b"", (422, "VALIDATION_ERROR"));
}

#[test]
fn an_early_refusal_is_readable_too() {
    for (path, status) in [("/v1/nowhere", 404), ("/v1/models", 405)] {
        let server = Server::start(Options::default());
        let mut stream = connect(server.addr);
        stream.write_all(&request("POST", path, &[], &vec![b' '; 40 << 20])).expect("the server keeps reading");
        assert_eq!(read_reply(&mut stream, "POST").status, status);
    }
}

#[test]
fn a_client_that_never_stops_sending_is_cut_off() {
    let server = Server::start(Options { max_body_bytes: 4096, linger_bytes: 1 << 20, ..Options::default() });
    let mut stream = connect(server.addr);
    stream.write_all(format!("POST {EMBED} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 1u64 << 40).as_bytes()).unwrap();
    let chunk = vec![b' '; 1 << 20];
    until("being cut off", || stream.write_all(&chunk).err());
    assert_alive(server.addr);
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends() {
    let server = Server::start(Options { max_body_bytes: 4096, ..Options::default() });
    let mut stream = connect(server.addr);
    stream.write_all(format!("POST {EMBED} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5000\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream, "POST").status, 413);
    let mut stream = connect(server.addr);
    let head = format!("POST {EMBED} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", GOOD.len());
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream, "POST").status, 100);
    stream.write_all(GOOD.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream, "POST").status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(Options::default());
    let mut stream = connect(server.addr);
    let three = [request("POST", EMBED, &[], GOOD.as_bytes()), request("POST", EMBED, &[], b"nonsense"), request("GET", "/v1/models", &[], b"")];
    stream.write_all(&three.concat()).unwrap();
    assert_eq!([(); 3].map(|()| read_reply(&mut stream, "POST").status), [200, 422, 200]);
}

#[test]
fn a_client_that_stops_sending_mid_body_is_let_go() {
    let server = Server::start(Options::default());
    let mut stream = connect(server.addr);
    stream.write_all(b"POST /v1/inference/embed HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Whatever is said, it is said at once and the connection ends.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    assert_alive(server.addr);
}

#[test]
fn bytes_that_are_no_http_end_the_connection() {
    let server = Server::start(Options::default());
    let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let greetings: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"POST /v1/inference/embed HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST /v1/inference/embed HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nbad header\r\n\r\n",
        &noise,
    ];
    for bytes in greetings {
        let mut stream = connect(server.addr);
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4"), "{text} for {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
    }
    assert_alive(server.addr);
}

#[test]
fn a_broken_chunk_is_a_fault_of_the_body_or_ends_the_connection() {
    let server = Server::start(Options::default());
    let mut stream = connect(server.addr);
    stream.write_all(b"POST /v1/inference/embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nnonsense").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    assert_alive(server.addr);
}

#[test]
fn huge_heads_are_refused() {
    let server = Server::start(Options::default());
    let big = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /health HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: a\r\n".repeat(1000));
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20));
    for head in [big, many, long] {
        let mut stream = connect(server.addr);
        stream.write_all(head.as_bytes()).expect("the server keeps reading");
        let status = read_reply(&mut stream, "GET").status;
        assert!([431, 414].contains(&status), "{status}");
    }
    assert_alive(server.addr);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = Server::start(Options { write_timeout: SHORT, max_connections: 1, ..Options::default() });
    let mut stream = connect(server.addr);
    stream.write_all(&request("POST", EMBED, &[], br#"{"model":"fake/empty","input":"!large"}"#)).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // The only connection is taken as long as the answer waits for its reader.
    until("the connection's end", || try_send(server.addr, "GET", "/v1/models", &[], b"").filter(|reply| reply.status == 200));
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let server = Server::start(Options { max_connections: 1, ..Options::default() });
    let mut first = connect(server.addr);
    first.write_all(&request("GET", "/v1/models", &[], b"")).unwrap();
    assert_eq!(read_reply(&mut first, "GET").status, 200);
    let second = send(server.addr, "GET", "/v1/models", &[], "");
    assert_eq!((second.status, second.code().as_str()), (429, "BACKEND_RATE_LIMITED"));
    assert_eq!((second.header("retry-after"), second.header("connection")), (Some("1"), Some("close")));
    drop(first);
    until("room for another", || try_send(server.addr, "GET", "/v1/models", &[], b"").filter(|reply| reply.status == 200));
}

#[test]
fn bodies_share_a_bounded_memory() {
    let server = Server::start(Options { max_held_bytes: 1000, ..Options::default() });
    let body = format!("{GOOD}{}", " ".repeat(900));
    let bytes = request("POST", EMBED, &[], body.as_bytes());
    let (most, rest) = bytes.split_at(bytes.len() - 10);
    let other = format!("{GOOD}{}", " ".repeat(300));
    // Whichever body arrives first may fill the memory, so the two meet until it was the slow one.
    let refused = until("the slow body before the other", || {
        let mut slow = connect(server.addr);
        slow.write_all(most).unwrap();
        let reply = embed(server.addr, &other);
        slow.write_all(rest).unwrap();
        let served = read_reply(&mut slow, "POST").status;
        Some(reply).filter(|reply| reply.status != 200 && served == 200)
    });
    assert_eq!((refused.status, refused.code().as_str()), (429, "BACKEND_RATE_LIMITED"));
    until("the memory given back", || Some(embed(server.addr, &other)).filter(|reply| reply.status == 200));
}

#[test]
fn a_panic_costs_its_own_request_only() {
    let server = Server::start(Options::default());
    let mut stream = connect(server.addr);
    for (input, status) in [("!panic", 500), ("a", 200)] {
        stream.write_all(&request("POST", EMBED, &[], format!(r#"{{"model":"fake/plain","input":"{input}"}}"#).as_bytes())).unwrap();
        assert_eq!(read_reply(&mut stream, "POST").status, status, "{input}");
    }
}

#[test]
fn a_shutdown_waits_for_nobody_for_ever() {
    let mut server = Server::start(Options { drain_timeout: SHORT, ..Options::default() });
    let mut hanging = connect(server.addr);
    hanging.write_all(&request("POST", EMBED, &[], br#"{"model":"fake/plain","input":"!hang"}"#)).unwrap();
    assert_eq!(server.event(), Event::Began);
    let mut idle = connect(server.addr);
    idle.write_all(&request("GET", "/health", &[], b"")).unwrap();
    assert_eq!(read_reply(&mut idle, "GET").status, 200);
    server.begin_shutdown();
    server.join().unwrap();
    assert_eq!(server.event(), Event::Dropped);
    assert_eq!(read_to_close(&mut idle).unwrap(), 0);
}
