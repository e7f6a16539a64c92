//! HTTP by hand over a plain socket: what is sent is exactly what the test says, and what comes back is not interpreted.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No test waits longer than this for one read; far above any limit that a test sets.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The stable name of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or("-").to_owned()
    }

    /// The fields at fault.
    pub fn fields(&self) -> Vec<String> {
        let details = self.json()["error"]["details"].as_array().cloned().unwrap_or_default();
        details.iter().map(|detail| detail["field"].as_str().unwrap().to_owned()).collect()
    }
}

/// A connection.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A request with a body, as bytes.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// Sends one request over a connection of its own.
pub fn send(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
    let mut stream = connect(addr);
    stream.write_all(&request(method, path, headers, body.as_ref())).unwrap();
    read_reply(&mut stream, method)
}

/// Posts to the embed endpoint.
pub fn embed(addr: SocketAddr, body: impl AsRef<[u8]>) -> Reply {
    send(addr, "POST", "/v1/inference/embed", &[], body)
}

/// Reads one answer; the connection may go on after it.
pub fn read_reply(stream: &mut impl Read, method: &str) -> Reply {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; if method == "HEAD" || status == 100 { 0 } else { length }];
    stream.read_exact(&mut body).unwrap();
    Reply { status, headers, body }
}

/// Reads until the other side closes in an orderly way; says how many bytes came.
pub fn read_to_close(stream: &mut TcpStream) -> std::io::Result<usize> {
    let (mut buffer, mut total) = ([0; 64 << 10], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(total),
            read => total += read,
        }
    }
}

/// Sends one request; nothing if the server closes the connection without an answer.
pub fn try_send(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
    let mut stream = connect(addr);
    stream.write_all(&request(method, path, headers, body)).ok()?;
    let mut first = [0];
    matches!(stream.peek(&mut first), Ok(1)).then(|| read_reply(&mut stream, method))
}
