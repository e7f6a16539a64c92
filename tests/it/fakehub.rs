//! A model hub on loopback that behaves as the real one: weights by redirect to another host, ranges, etags, tokens; and badly on demand.

use super::fakemodel::{Files, sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The commit every repo is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does wrong.
#[derive(Default)]
pub struct Behaviour {
    /// Requests to the hub (not to the host of the weights) need this token.
    pub token: Option<String>,
    /// Each next answer with weights ends after so many bytes; when the list is used up, answers are whole.
    pub cuts: VecDeque<usize>,
    /// Once the list of cuts is used up, the host of the weights answers 503.
    pub unavailable_after_cuts: bool,
    /// A cut connection is not closed: it falls silent.
    pub hold_when_cut: bool,
    /// Ranges are ignored: 200 with everything.
    pub no_ranges: bool,
    /// Connections are accepted and never answered.
    pub silent: bool,
    /// Listings carry neither lengths nor hashes, as those of simple mirrors.
    pub bare_listing: bool,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// True for the host that keeps the weights.
    pub cdn: bool,
    pub path: String,
    pub range_start: Option<usize>,
    pub token: Option<String>,
}

/// A running hub; it ends with this value.
pub struct FakeHub {
    pub endpoint: String,
    state: Arc<State>,
    listeners: Vec<(String, JoinHandle<()>)>,
}

struct State {
    repos: BTreeMap<String, Files>,
    cdn: String,
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
    silent: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

impl FakeHub {
    /// Serves `repos` (`owner/name` -> files).
    pub fn new(repos: &[(&str, &Files)], behaviour: Behaviour) -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let cdn = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            repos: repos.iter().map(|(name, files)| ((*name).to_owned(), (*files).clone())).collect(),
            // Another host name: the token must not follow the redirect.
            cdn: format!("http://localhost:{}", cdn.local_addr().unwrap().port()),
            behaviour: Mutex::new(behaviour),
            seen: Mutex::default(),
            silent: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let endpoint = format!("http://{}", address(&hub));
        let listen = |listener: TcpListener, cdn: bool| {
            let state = Arc::clone(&state);
            (address(&listener), std::thread::spawn(move || state.listen(&listener, cdn)))
        };
        let listeners = vec![listen(hub, false), listen(cdn, true)];
        Self { endpoint, state, listeners }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The first byte of each answer with weights that was asked for.
    pub fn weights_asked_from(&self) -> Vec<usize> {
        self.seen().iter().filter(|seen| seen.cdn).map(|seen| seen.range_start.unwrap_or(0)).collect()
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        for (address, thread) in self.listeners.drain(..) {
            let _ = TcpStream::connect(address);
            let _ = thread.join();
        }
    }
}

impl State {
    fn listen(self: &Arc<Self>, listener: &TcpListener, cdn: bool) {
        for stream in listener.incoming().flatten() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let state = Arc::clone(self);
            // A client that hangs up while it is answered is no failure of the hub's.
            std::thread::spawn(move || state.answer(stream, cdn).unwrap_or_default());
        }
    }

    fn answer(&self, mut stream: TcpStream, cdn: bool) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut seen = Seen { cdn, path, range_start: None, token: None };
        loop {
            line.clear();
            if reader.by_ref().take(16_384).read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            let Some((name, value)) = line.trim().split_once(": ") else { continue };
            match name.to_ascii_lowercase().as_str() {
                "range" => seen.range_start = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
                "authorization" => seen.token = value.strip_prefix("Bearer ").map(str::to_owned),
                _ => {}
            }
        }
        self.seen.lock().unwrap().push(seen.clone());
        if self.behaviour.lock().unwrap().silent {
            self.silent.lock().unwrap().push(stream);
            return Ok(());
        }
        if cdn { self.weights(&mut stream, &seen) } else { self.hub(&mut stream, &seen) }
    }

    fn hub(&self, stream: &mut TcpStream, seen: &Seen) -> std::io::Result<()> {
        if let Some(token) = &self.behaviour.lock().unwrap().token
            && seen.token.as_ref() != Some(token)
        {
            return respond(stream, "401 Unauthorized", "", b"Invalid username or password.");
        }
        let path = seen.path.split('?').next().unwrap_or_default();
        if let Some(rest) = path.strip_prefix("/api/models/") {
            let repo = rest.split("/revision/").next().unwrap_or_default();
            let Some(files) = self.repos.get(repo) else { return not_found(stream) };
            let bare = self.behaviour.lock().unwrap().bare_listing;
            return respond(stream, "200 OK", "content-type: application/json\r\n", listing(files, bare).as_bytes());
        }
        let Some((repo, rest)) = path[1..].split_once("/resolve/") else { return not_found(stream) };
        let (revision, file) = rest.split_once('/').unwrap_or_default();
        let found = self.repos.get(repo).and_then(|files| files.get(file)).filter(|_| revision == "main" || revision == COMMIT);
        let Some(bytes) = found else { return not_found(stream) };
        let commit = format!("x-repo-commit: {COMMIT}\r\netag: \"{}\"\r\n", sha256(bytes));
        if file.ends_with(".safetensors") {
            let location = format!("{commit}x-linked-etag: \"{}\"\r\nlocation: {}/{repo}/{file}\r\n", sha256(bytes), self.cdn);
            return respond(stream, "302 Found", &location, b"");
        }
        respond(stream, "200 OK", &commit, bytes)
    }

    fn weights(&self, stream: &mut TcpStream, seen: &Seen) -> std::io::Result<()> {
        let found = self.repos.iter().find_map(|(repo, files)| files.get(seen.path[1..].strip_prefix(repo.as_str())?.strip_prefix('/')?));
        let Some(bytes) = found else { return not_found(stream) };
        let (cut, hold, unavailable, no_ranges) = {
            let mut behaviour = self.behaviour.lock().unwrap();
            let cut = behaviour.cuts.pop_front();
            (cut, cut.is_some() && behaviour.hold_when_cut, cut.is_none() && behaviour.unavailable_after_cuts, behaviour.no_ranges)
        };
        if unavailable {
            return respond(stream, "503 Service Unavailable", "", b"");
        }
        let start = if no_ranges { None } else { seen.range_start };
        let head = match start {
            Some(start) if start >= bytes.len() => return respond(stream, "416 Range Not Satisfiable", "", b""),
            Some(start) => format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len()),
            None => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        let body = &bytes[start.unwrap_or(0)..];
        write!(stream, "{head}content-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
        stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())])?;
        if hold {
            self.silent.lock().unwrap().push(stream.try_clone()?);
        }
        stream.flush()
    }
}

fn listing(files: &Files, bare: bool) -> String {
    let sibling = |(path, bytes): (&String, &Vec<u8>)| match (bare, path.ends_with(".safetensors")) {
        (true, _) => serde_json::json!({"rfilename": path}),
        (false, true) => serde_json::json!({"rfilename": path, "size": bytes.len(), "lfs": {"sha256": sha256(bytes), "size": bytes.len()}}),
        (false, false) => serde_json::json!({"rfilename": path, "size": bytes.len(), "blobId": "x"}),
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    serde_json::json!({"id": "x", "sha": COMMIT, "siblings": siblings}).to_string()
}

fn not_found(stream: &mut TcpStream) -> std::io::Result<()> {
    respond(stream, "404 Not Found", "", b"Entry not found")
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}
