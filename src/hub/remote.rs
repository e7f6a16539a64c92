//! The hub, through hf-hub: its URLs, token and TLS; the bytes are read here, because its own download neither times out nor checks
//! what it resumes, and names files after headers of the answer.

use super::cache::Staging;
use super::download::{Answer, Download, Failure, Wanted};
use super::error::HubError;
use super::obtain::Fetched;
use super::progress::Progress;
use super::{Options, What, files, select};
use crate::card::CardFile;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use std::io::{ErrorKind, Read};
use std::sync::Arc;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// The list of a repo's files is not longer than this.
const LISTING_LIMIT_BYTES: u64 = 32 << 20;
/// The branch asked where no revision is known.
const MAIN: &str = "main";

type Response = ureq::http::Response<ureq::Body>;

/// Brings every file of the model into the staging directory, verified where a hash is known.
///
/// # Errors
/// [`HubError`] says which request failed and why.
pub(super) fn fetch(what: &What, options: &Options, staging: &Staging, progress: &dyn Progress) -> Result<Fetched, HubError> {
    if let Some(card) = what.card() {
        let hub = Hub::new(&card.repo, card.revision.as_deref().unwrap_or(MAIN), options, staging)?;
        for file in &card.files {
            hub.bring(&Wanted { path: file.path.clone(), size_bytes: Some(file.size_bytes), sha256: Some(file.sha256.clone()) }, staging, progress)?;
        }
        return Ok(Fetched { files: card.files.clone(), origin: hub.origin() });
    }
    let repo = what.slug();
    let listing = Hub::new(&repo, MAIN, options, staging)?.listing()?;
    // All files from one commit, even if the branch moves meanwhile.
    let hub = Hub::new(&repo, listing.sha.as_deref().filter(|sha| crate::card::is_plain_name(sha)).unwrap_or(MAIN), options, staging)?;
    let names: Vec<String> = listing.siblings.iter().map(|file| file.rfilename.clone()).collect();
    let mut fetched = Vec::new();
    let mut folders = select::module_folders(None);
    if let Some(modules) = listing.siblings.iter().find(|file| file.rfilename == select::MODULES) {
        hub.bring(&modules.wanted(), staging, progress)?;
        let bytes = files::read_limited(&staging.ready.join(select::MODULES), super::CONFIG_LIMIT_BYTES)?;
        folders = select::module_folders(Some(&bytes));
    }
    let chosen = select::needed(&names, &folders);
    select::require_safetensors(&repo, &names, &chosen)?;
    for file in listing.siblings.iter().filter(|file| chosen.contains(&file.rfilename)) {
        fetched.push(hub.bring(&file.wanted(), staging, progress)?);
    }
    Ok(Fetched { files: fetched, origin: hub.origin() })
}

/// A repo at a revision on a hub.
struct Hub<'a> {
    repo: ApiRepo,
    name: &'a str,
    revision: String,
    options: &'a Options,
    tls: TlsConfig,
}

/// What the hub says about a repo, with `blobs=true`.
#[derive(Deserialize)]
struct Listing {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Sibling {
    fn wanted(&self) -> Wanted {
        let lfs = self.lfs.as_ref();
        Wanted {
            path: self.rfilename.clone(),
            size_bytes: lfs.and_then(|lfs| lfs.size).or(self.size),
            sha256: lfs.and_then(|lfs| lfs.sha256.as_ref()).map(|hash| hash.to_ascii_lowercase()),
        }
    }
}

impl<'a> Hub<'a> {
    fn new(name: &'a str, revision: &str, options: &'a Options, staging: &Staging) -> Result<Self, HubError> {
        // Every setting is said: hf-hub's own defaults come from the environment and the home directory.
        let api = ApiBuilder::from_cache(Cache::new(staging.scratch.join("hub")))
            .with_endpoint(options.hf_endpoint.trim_end_matches('/').to_owned())
            .with_token(options.hf_token.clone())
            .with_user_agent("vecmill", env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .build()
            .map_err(|error| HubError::Hub { endpoint: options.hf_endpoint.clone(), reason: error.to_string() })?;
        let repo = api.repo(Repo::with_revision(name.to_owned(), RepoType::Model, revision.to_owned()));
        Ok(Self { repo, name, revision: revision.to_owned(), options, tls: tls() })
    }

    fn origin(&self) -> String {
        format!("{}/{} at {}", self.options.hf_endpoint.trim_end_matches('/'), self.name, self.revision)
    }

    /// The repo's files.
    fn listing(&self) -> Result<Listing, HubError> {
        let request = self.repo.info_request().query("blobs", "true");
        let mut response = self.call(request, "such repo").map_err(Failure::into_error)?;
        let body = response.body_mut().with_config().limit(LISTING_LIMIT_BYTES);
        body.read_json().map_err(|error| self.error(&error, "the list of files").into_error())
    }

    /// Fetches one file unless an earlier attempt left it verified.
    fn bring(&self, wanted: &Wanted, staging: &Staging, progress: &dyn Progress) -> Result<CardFile, HubError> {
        if let (Some(size_bytes), Some(sha256)) = (wanted.size_bytes, wanted.sha256.clone()) {
            let file = CardFile { path: wanted.path.clone(), size_bytes, sha256 };
            if staging.has(&file, progress) {
                return Ok(file);
            }
        }
        let download = Download { wanted, origin: &self.options.hf_endpoint, staging, stall: self.options.limits.stall, progress };
        let arrived = download.run(|start| self.open(&wanted.path, start))?;
        Ok(CardFile { path: wanted.path.clone(), size_bytes: arrived.size_bytes, sha256: arrived.sha256 })
    }

    fn open(&self, file: &str, start: u64) -> Result<Answer, Failure> {
        // Without compression the lengths in the headers are those of the file.
        let mut request = self.repo.info_request().uri(self.repo.url(&encoded(file))).header("Accept-Encoding", "identity");
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        let response = self.call(request, file)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (start_bytes, total_bytes) = match response.status().as_u16() {
            416 => return Ok(Answer::RangeRefused),
            206 => header("content-range").as_deref().and_then(content_range).ok_or_else(|| self.plain("a partial answer without a range"))?,
            _ => (0, header("content-length").and_then(|text| text.parse().ok())),
        };
        Ok(Answer::Body { start_bytes, total_bytes, body: Box::new(Timed(response.into_body().into_reader())) })
    }

    /// Sends a request under our time limits and sorts the answer: 2xx and 416 pass.
    fn call(&self, request: ureq::RequestBuilder<ureq::typestate::WithoutBody>, file: &str) -> Result<Response, Failure> {
        let limits = self.options.limits;
        let request = request.config().http_status_as_error(false).tls_config(self.tls.clone());
        let request = request.timeout_resolve(Some(limits.connect)).timeout_connect(Some(limits.connect));
        let request = request.timeout_recv_response(Some(limits.stall)).timeout_per_read(Some(limits.stall)).build();
        let response = request.call().map_err(|error| self.error(&error, file))?;
        let status = response.status().as_u16();
        let (endpoint, repo) = (self.options.hf_endpoint.clone(), self.name.to_owned());
        match status {
            200..=299 | 416 => Ok(response),
            401 | 403 => Err(HubError::Unauthorized { endpoint, repo, status, token_sent: self.options.hf_token.is_some() }.into()),
            404 => Err(HubError::NotFound { endpoint, repo, revision: self.revision.clone(), file: file.to_owned() }.into()),
            408 | 429 | 500..=599 => Err(Failure::Passing(self.plain(&format!("HTTP status {status} for {file}")))),
            _ => Err(self.plain(&format!("HTTP status {status} for {file}")).into()),
        }
    }

    fn error(&self, error: &ureq::Error, file: &str) -> Failure {
        use ureq::{Error, Timeout};
        let endpoint = self.options.hf_endpoint.clone();
        let unreachable = |reason: String| {
            let proxy = if self.options.proxied { " (through the configured proxy)" } else { "" };
            Failure::Final(HubError::Unreachable { endpoint: endpoint.clone(), reason: format!("{reason}{proxy}") })
        };
        match error {
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => unreachable(format!("no connection within {:?}", self.options.limits.connect)),
            Error::Timeout(_) => {
                Failure::Passing(HubError::Stalled { origin: endpoint, file: file.to_owned(), seconds: self.options.limits.stall.as_secs() })
            }
            Error::HostNotFound | Error::ConnectionFailed | Error::ConnectProxyFailed(_) => unreachable(error.to_string()),
            Error::Io(io) if broke_off(io.kind()) => Failure::Passing(self.plain(&format!("{file}: {error}"))),
            Error::Io(_) => unreachable(error.to_string()),
            _ => self.plain(&format!("{file}: {error}")).into(),
        }
    }

    fn plain(&self, reason: &str) -> HubError {
        HubError::Hub { endpoint: self.options.hf_endpoint.clone(), reason: reason.to_owned() }
    }
}

impl Failure {
    fn into_error(self) -> HubError {
        match self {
            Self::Final(error) | Self::Passing(error) | Self::Corrupt { error, .. } => error,
        }
    }
}

/// Gives the client's timeouts the kind that std has for them.
struct Timed<R>(R);

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let timeout =
                error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()).is_some_and(|inner| matches!(inner, ureq::Error::Timeout(_)));
            if timeout || error.kind() == ErrorKind::WouldBlock { std::io::Error::from(ErrorKind::TimedOut) } else { error }
        })
    }
}

/// True for a connection that stood and then broke; whatever else the system says before an answer came is a connection never made
/// (no such name, refused, a certificate not trusted).
fn broke_off(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof)
}

/// TLS that trusts the machine's own roots, where a site's certificate authority is found; the built-in ones if it has none.
fn tls() -> TlsConfig {
    let own: Vec<Certificate<'static>> =
        rustls_native_certs::load_native_certs().certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    let roots = if own.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(own)) };
    TlsConfig::builder().provider(TlsProvider::Rustls).root_certs(roots).build()
}

/// `bytes 5-9/10` -> (5, Some(10)); the total may be `*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}

/// A path as it stands in a URL.
fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_and_nonsense_is_not() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, None)));
        for text in ["", "bytes */10", "bytes x-9/10", "5-9/10", "bytes 5"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }

    #[test]
    fn file_names_cannot_change_the_url() {
        assert_eq!(encoded("1_Pooling/config.json"), "1_Pooling/config.json");
        assert_eq!(encoded("a b?x=1#y%"), "a%20b%3Fx%3D1%23y%25");
    }
}
