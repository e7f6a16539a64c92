//! Batch jobs of the real server: three times killed in the middle, and every line is there once, in order, with the vectors of a live request.

use crate::models::cosine;
use crate::server::{MINILM, Server, vectors_of};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

fn start(dir: &tempfile::TempDir) -> Server {
    Server::start(&["--data-dir", dir.path().to_str().unwrap()])
}

fn text(n: usize) -> String {
    format!("text {n} {}", "with some words to compute ".repeat(n % 2))
}

fn job(server: &Server, id: &str) -> Value {
    let (status, body) = server.get(&format!("/v1/inference/batch/{id}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["data"].clone()
}

#[test]
fn a_job_outlives_three_kills_and_no_line_is_lost_or_doubled() {
    const LINES: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(&dir);
    let line = |n: usize| {
        let input = if n % 100 == 99 { String::new() } else { text(n) };
        json!({"custom_id": n.to_string(), "method": "POST", "url": "/v1/inference/embed", "body": {"model": MINILM, "input": input}}).to_string()
    };
    let lines = (0..LINES).map(line).collect::<Vec<_>>().join("\n");
    let (status, made) = server.post("/v1/inference/batch", &json!({"input_file_base64": STANDARD.encode(lines)}));
    assert_eq!(status, 200, "{made}");
    let id = made["data"]["id"].as_str().unwrap().to_owned();
    let finished = |job: &Value| ["completed", "failed"].map(|name| job["request_counts"][name].as_u64().unwrap()).iter().sum::<u64>();
    let mut killed_at = Vec::new();
    for part in 1..=3 {
        // Whatever the server is about when it has written down so much.
        while finished(&job(&server, &id)) < part * 80 {
            assert_eq!(job(&server, &id)["failed_at"], json!(null));
        }
        let before = finished(&job(&server, &id));
        server.kill();
        server = start(&dir);
        let after = finished(&job(&server, &id));
        assert!(after >= before, "{after} lines after the kill, {before} before");
        killed_at.push(after);
    }
    assert!(killed_at[0] < LINES as u64, "the job was over before the first kill");
    let job = loop {
        let job = job(&server, &id);
        if job["status"] == "completed" {
            break job;
        }
        assert!(["validating", "in_progress"].contains(&job["status"].as_str().unwrap()), "{job}");
    };
    let read = |url: &Value| {
        let (status, text) = server.get(url.as_str().unwrap().strip_prefix(&server.base).unwrap());
        assert_eq!(status, 200, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let (output, errors) = (read(&job["output_file_url"]), read(&job["error_file_url"]));
    let ids = |lines: &[Value]| lines.iter().map(|line| line["custom_id"].as_str().unwrap().parse().unwrap()).collect::<Vec<usize>>();
    assert_eq!(ids(&output), (0..LINES).filter(|n| n % 100 != 99).collect::<Vec<_>>());
    assert_eq!(ids(&errors), (0..LINES).filter(|n| n % 100 == 99).collect::<Vec<_>>());
    assert_eq!(job["request_counts"], json!({"total": LINES, "completed": LINES - 4, "failed": 4}));
    for n in [0, 200, output.len() - 1] {
        let id: usize = output[n]["custom_id"].as_str().unwrap().parse().unwrap();
        let (live, line) = (server.vectors(&[&text(id)]), vectors_of(&output[n]["response"]["body"]));
        assert!(cosine(&live[0], &line[0]) > 0.999_999, "line {id}");
    }
}
