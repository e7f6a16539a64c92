//! The real binary as a child process, with the real model: started on a free port, asked over HTTP, ended with the test.

use crate::models::real_minilm;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// The slug of the model that the README's first command has cached.
pub const MINILM: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// A running server.
pub struct Server {
    child: Child,
    pub base: String,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts `vecmill serve --model all-MiniLM-L6-v2 --dtype f32 --offline` with more flags, and waits until it listens.
    pub fn start(more: &[&str]) -> Self {
        let model = real_minilm();
        let cache = model.ancestors().nth(2).unwrap();
        // However busy the machine that tests, no deadline passes.
        let common = ["--model", "all-MiniLM-L6-v2", "--dtype", "f32", "--offline", "--port", "0", "--deadline-ms", "600000", "--cache-dir"];
        Self::spawn(command(&[&common[..], &[cache.to_str().unwrap()], more].concat()))
    }

    /// Starts any `serve` and waits until it listens.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (mut stderr, into) = (child.stderr.take().unwrap(), log.clone());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut server = Self { child, base: String::new(), log, reader: Some(reader) };
        match line.trim().strip_prefix("listening on ") {
            Some(base) => server.base = base.to_owned(),
            None => {
                let status = server.wait();
                panic!("no server: {status}\n{}", server.log());
            }
        }
        server
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Ends it as `kill -9` does: without a word to it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; the log is whole afterwards.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// `GET`: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        answer(agent().get(format!("{}{path}", self.base)).call())
    }

    /// `POST /v1/inference/embed`: status and body.
    pub fn embed(&self, body: &serde_json::Value) -> (u16, serde_json::Value) {
        self.post("/v1/inference/embed", body)
    }

    /// `POST`: status and body.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let (status, text) = answer(agent().post(format!("{}{path}", self.base)).send(body.to_string()));
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// The vectors of some texts, which must be accepted.
    pub fn vectors(&self, texts: &[&str]) -> Vec<Vec<f32>> {
        let (status, body) = self.embed(&serde_json::json!({"model": MINILM, "input": texts}));
        assert_eq!(status, 200, "{body}");
        vectors_of(&body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `vecmill serve` with these words and nothing of this process's VECMILL_ variables.
pub fn command(words: &[&str]) -> Command {
    vecmill(&[&["serve"], words].concat())
}

/// `vecmill` with these words and nothing of this process's VECMILL_ variables.
pub fn vecmill(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vecmill"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VECMILL_")) {
        command.env_remove(name);
    }
    // Nothing is kept, unless the test says where.
    if !words.contains(&"--data-dir") {
        command.env("VECMILL_STORE", "memory");
    }
    command.args(words);
    command
}

/// The vectors of a success envelope.
pub fn vectors_of(body: &serde_json::Value) -> Vec<Vec<f32>> {
    let items = body["data"]["data"].as_array().unwrap();
    items.iter().map(|item| item["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()).collect()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut response = result.unwrap();
    (response.status().as_u16(), response.body_mut().with_config().limit(1 << 30).read_to_string().unwrap())
}
