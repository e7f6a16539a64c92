//! What can go wrong between a model's name and its files, with the facts kept and the sentence that says what to do.

use std::fmt;
use std::path::PathBuf;

/// Every way in which obtaining a model can fail.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// `WHAT` is no card, no path and no `owner/name`.
    #[error("{what:?} names no model: {reason}")]
    Name {
        /// What was said.
        what: String,
        /// Why it cannot be one, and what it could be instead.
        reason: String,
    },
    /// A path that is not there, or not a directory.
    #[error("{}: {reason}", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Only pickled weights, which can run code when they are read.
    #[error(
        "{place} has its weights only as {files}: such files can run code when they are read, so they are refused. Convert them to safetensors once, on a machine where you trust them \
         (`SentenceTransformer(...).save(...)`), and name the resulting directory"
    )]
    PickleOnly {
        /// Repo or directory.
        place: String,
        /// The files found.
        files: String,
    },
    /// No weights of any kind.
    #[error("{place} holds no .safetensors file: it is not a model that can be served")]
    NoWeights {
        /// Repo or directory.
        place: String,
    },
    /// Offline, and not here.
    #[error("{what} is not on this machine, and offline nothing is fetched. Looked in:\n{looked}\n{remedy}")]
    Offline {
        /// The model.
        what: String,
        /// Each place and what was found there.
        looked: Attempts,
        /// The command for a connected machine.
        remedy: String,
    },
    /// Every source was tried.
    #[error("{what} could not be obtained. Tried in this order:\n{attempts}")]
    Exhausted {
        /// The model.
        what: String,
        /// Each source and why it failed.
        attempts: Attempts,
    },
    /// A bundle with a byte that is not what it must be.
    #[error("{} is not used: {part}: {reason}", bundle.display())]
    Bundle {
        /// The bundle.
        bundle: PathBuf,
        /// The file in it, or the part between files.
        part: String,
        /// What is wrong there.
        reason: String,
    },
    /// A model that the trusted key does not vouch for.
    #[error("{what} is refused by --trust: {reason}")]
    Untrusted {
        /// The model.
        what: String,
        /// Who vouches for it, if anyone.
        reason: String,
    },
    /// A file that should hold a signing key.
    #[error("{} holds no key: `vecmill bundle keygen` makes such a file", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that are not the card's.
    #[error("{file} from {origin} has the wrong sha256: expected {expected}, got {got}. It is not used")]
    WrongHash {
        /// Path inside the model.
        file: String,
        /// Where the bytes came from.
        origin: String,
        /// The card's (or the hub's own) hash.
        expected: String,
        /// The hash of what arrived.
        got: String,
    },
    /// A length that is not the expected one.
    #[error("{file} from {origin} has the wrong length: expected {expected_bytes} bytes, got {got_bytes}")]
    WrongSize {
        /// Path inside the model.
        file: String,
        /// Where the bytes came from.
        origin: String,
        /// The card's or the server's figure.
        expected_bytes: u64,
        /// What arrived.
        got_bytes: u64,
    },
    /// The place does not have one of the model's files.
    #[error("{origin} has no {file}")]
    Missing {
        /// Path inside the model.
        file: String,
        /// Where it was looked for.
        origin: String,
    },
    /// 401 or 403.
    #[error("{endpoint} answered {status} for {repo}: {}", unauthorized_advice(*token_sent))]
    Unauthorized {
        /// The hub.
        endpoint: String,
        /// The repo.
        repo: String,
        /// HTTP status.
        status: u16,
        /// Whether a token was sent.
        token_sent: bool,
    },
    /// 404.
    #[error("{endpoint} has no {file} in {repo} at revision {revision}")]
    NotFound {
        /// The hub.
        endpoint: String,
        /// The repo.
        repo: String,
        /// The revision.
        revision: String,
        /// The file, or "such repo".
        file: String,
    },
    /// No connection within the limit.
    #[error("{endpoint} cannot be reached: {reason}")]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// What the connection attempt said.
        reason: String,
    },
    /// A connection that stopped giving bytes.
    #[error("{origin} sent nothing for {seconds} s while {file} was being fetched")]
    Stalled {
        /// The source.
        origin: String,
        /// The file.
        file: String,
        /// The limit that passed.
        seconds: u64,
    },
    /// Anything else the hub's client reports.
    #[error("{endpoint}: {reason}")]
    Hub {
        /// The hub.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// The binary was built without the `hub` feature.
    #[error("this binary was built without the hub feature and contains no HTTP client")]
    NoHubClient,
    /// pip could not be run or failed.
    #[error("`{command}` {reason}")]
    Pip {
        /// The command line.
        command: String,
        /// What it said.
        reason: String,
    },
    /// The package's archive cannot be read.
    #[error("{wheel} is not a readable wheel: {reason}")]
    Wheel {
        /// Its file name.
        wheel: String,
        /// What the reader said.
        reason: String,
    },
    /// A file larger than the reader's limit.
    #[error("{} has {size_bytes} bytes, more than the {limit_bytes} allowed for it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A file that is not the JSON it should be.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and field.
        source: serde_json::Error,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb: read, write, create.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// The sources that were asked and what each answered, in order.
#[derive(Debug, Default)]
pub struct Attempts(pub Vec<Attempt>);

/// One source and its answer.
#[derive(Debug)]
pub struct Attempt {
    /// The source, with its address.
    pub place: String,
    /// Why it could not serve.
    pub outcome: Outcome,
}

/// Why a source gave no model.
#[derive(Debug)]
pub enum Outcome {
    /// It does not have it: nothing is wrong with the source.
    Absent(String),
    /// It failed.
    Failed(Box<HubError>),
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, attempt) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            match &attempt.outcome {
                Outcome::Absent(why) => write!(f, "{newline}  - {}: {why}", attempt.place)?,
                Outcome::Failed(error) => write!(f, "{newline}  - {}: {error}", attempt.place)?,
            }
        }
        Ok(())
    }
}

impl Attempts {
    pub(super) fn absent(&mut self, place: impl Into<String>, why: impl Into<String>) {
        self.0.push(Attempt { place: place.into(), outcome: Outcome::Absent(why.into()) });
    }

    pub(super) fn failed(&mut self, place: impl Into<String>, error: HubError) {
        self.0.push(Attempt { place: place.into(), outcome: Outcome::Failed(Box::new(error)) });
    }
}

fn unauthorized_advice(token_sent: bool) -> &'static str {
    if token_sent {
        "the token in HF_TOKEN does not open it (wrong, expired, or its owner has not accepted the model's terms)"
    } else {
        "the repo is private or gated, or does not exist. Set HF_TOKEN to a token that may read it"
    }
}

/// Attaches verb and path to a file system error.
pub(super) trait IoContext<T> {
    fn io(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, HubError>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn io(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, HubError> {
        self.map_err(|source| HubError::Io { action, path: path.into(), source })
    }
}
