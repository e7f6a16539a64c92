//! Who may do what: keys by the hash of their text, scopes, allowed models. Keys come from a file and change while the server runs.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;
use subtle::ConstantTimeEq;

/// The scope of every embedding call.
pub const USE: &str = "models:use";
/// The scope of listing models.
pub const LIST: &str = "models:list";
/// Every scope there is.
const SCOPES: [&str; 3] = [USE, LIST, "api_keys:manage"];

/// One key; its text is nowhere, only the hash.
#[derive(Debug, Clone)]
pub struct Key {
    pub name: String,
    pub user: String,
    pub tenant: String,
    pub partner: Option<String>,
    /// Slugs it may use; `None` = all.
    pub models: Option<Vec<String>>,
    pub scopes: Vec<String>,
    pub expires_at: Option<jiff::Timestamp>,
    /// SHA-256 of the whole key.
    hash: [u8; 32],
    /// Tells clients apart in the queue.
    pub client: u64,
}

impl Key {
    /// Whether it has a scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }

    /// Whether it may use and see a model.
    pub fn may_use(&self, slug: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|model| model == slug))
    }
}

/// The keys in force; none at all means an open server.
#[derive(Debug, Default)]
pub struct Access {
    file: Option<PathBuf>,
    keys: RwLock<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    keys: Vec<Arc<Key>>,
    version: Option<Version>,
}

/// What tells one state of the file from another.
type Version = (SystemTime, u64);

/// A keys file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("keys file {path}: {reason}")]
pub struct KeyFileError {
    path: String,
    reason: String,
}

impl Access {
    /// A server open to everyone who can reach it.
    pub fn open() -> Self {
        Self::default()
    }

    /// Keys from a file; it must be readable and right at the start.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        let access = Self { file: Some(path.to_owned()), keys: RwLock::default() };
        access.reload()?;
        Ok(access)
    }

    /// Whether no key is asked for.
    pub fn is_open(&self) -> bool {
        self.file.is_none()
    }

    /// Reads the file again if it has changed: true if it had. If it is broken, the keys stay as they are.
    pub fn reload(&self) -> Result<bool, KeyFileError> {
        let Some(path) = &self.file else { return Ok(false) };
        let fail = |reason: String| KeyFileError { path: path.display().to_string(), reason };
        let version = version(path).map_err(|error| fail(error.to_string()))?;
        if self.keys.read().unwrap_or_else(PoisonError::into_inner).version == Some(version) {
            return Ok(false);
        }
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        let parsed = parse(&text);
        let mut loaded = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // A broken file is reported once per state, not at every look.
        loaded.version = Some(version);
        loaded.keys = parsed.map_err(fail)?;
        Ok(true)
    }

    /// The key that a client sent, if it is known and has not expired. Compares all hashes in constant time.
    pub fn authenticate(&self, token: &str) -> Option<Arc<Key>> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let loaded = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for key in &loaded.keys {
            if bool::from(key.hash.ct_eq(&hash)) {
                found = Some(key);
            }
        }
        let now = jiff::Timestamp::now();
        found.filter(|key| key.expires_at.is_none_or(|expires_at| now < expires_at)).cloned()
    }
}

fn version(path: &Path) -> std::io::Result<Version> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.len()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<KeyStanza>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyStanza {
    name: String,
    sha256: String,
    user: String,
    tenant: String,
    partner: Option<String>,
    models: Option<Vec<String>>,
    scopes: Option<Vec<String>>,
    expires_at: Option<ExpiresAt>,
}

/// `"2027-01-01T00:00:00Z"`, with or without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum ExpiresAt {
    Text(String),
    Date(toml::value::Datetime),
}

fn parse(text: &str) -> Result<Vec<Arc<Key>>, String> {
    let file: KeyFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut keys: Vec<Arc<Key>> = Vec::new();
    for stanza in file.key {
        let name = stanza.name.clone();
        let key = stanza.into_key().map_err(|reason| format!("key {name:?}: {reason}"))?;
        if keys.iter().any(|other| other.hash == key.hash || other.name == key.name) {
            return Err(format!("key {name:?}: its name or hash occurs twice"));
        }
        keys.push(Arc::new(key));
    }
    if keys.is_empty() {
        return Err("holds no [[key]]; without one nobody could use the server (--no-auth opens it to everyone)".to_owned());
    }
    Ok(keys)
}

impl KeyStanza {
    fn into_key(self) -> Result<Key, String> {
        let hash = from_hex(&self.sha256).ok_or("sha256 must be 64 hexadecimal digits")?;
        let scopes = self.scopes.unwrap_or_else(|| vec![USE.to_owned(), LIST.to_owned()]);
        if let Some(scope) = scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
            return Err(format!("scope {scope:?} is not one of {}", SCOPES.join(", ")));
        }
        let expires_at = self.expires_at.map(|at| match at {
            ExpiresAt::Text(text) => text,
            ExpiresAt::Date(date) => date.to_string(),
        });
        let expires_at = expires_at.map(|text| text.parse().map_err(|error| format!("expires_at {text:?}: {error}"))).transpose()?;
        let mut client = [0; 8];
        client.copy_from_slice(&hash[..8]);
        Ok(Key {
            name: self.name,
            user: self.user,
            tenant: self.tenant,
            partner: self.partner,
            models: self.models,
            scopes,
            expires_at,
            hash,
            client: u64::from_le_bytes(client),
        })
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// The hash of a key's text, as the keys file has it.
pub fn sha256_hex(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(name: &str, key: &str, rest: &str) -> String {
        format!("[[key]]\nname = {name:?}\nsha256 = \"{}\"\nuser = \"u\"\ntenant = \"t\"\n{rest}\n", sha256_hex(key))
    }

    fn access(text: &str) -> Result<(tempfile::TempDir, Access), KeyFileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        std::fs::write(&path, text).unwrap();
        Ok((dir, Access::from_file(&path)?))
    }

    #[test]
    fn keys_are_known_by_their_hash_and_have_the_default_scopes() {
        let (_dir, access) = access(&(stanza("a", "sgk_a", "models = [\"m\"]") + &stanza("b", "sgk_b", "scopes = [\"models:list\"]"))).unwrap();
        let key = access.authenticate("sgk_a").unwrap();
        assert!(key.has_scope(USE) && key.has_scope(LIST) && key.may_use("m") && !key.may_use("n"));
        let other = access.authenticate("sgk_b").unwrap();
        assert!(!other.has_scope(USE) && other.may_use("n") && other.client != key.client);
        assert!(access.authenticate("sgk_c").is_none() && access.authenticate("").is_none());
    }

    #[test]
    fn expired_keys_are_refused() {
        let text = stanza("old", "sgk_old", "expires_at = 2020-01-01T00:00:00Z") + &stanza("new", "sgk_new", "expires_at = \"2999-01-01T00:00:00Z\"");
        let (_dir, access) = access(&text).unwrap();
        assert!(access.authenticate("sgk_old").is_none() && access.authenticate("sgk_new").is_some());
    }

    #[test]
    fn a_changed_file_counts_at_once_and_a_broken_one_leaves_the_old_keys() {
        let (dir, access) = access(&stanza("a", "sgk_a", "")).unwrap();
        let path = dir.path().join("keys.toml");
        assert!(!access.reload().unwrap());
        std::fs::write(&path, "not toml at all [").unwrap();
        assert!(access.reload().is_err());
        assert!(!access.reload().unwrap(), "reported once");
        assert!(access.authenticate("sgk_a").is_some());
        std::fs::write(&path, stanza("bb", "sgk_b", "")).unwrap();
        assert!(access.reload().unwrap());
        assert!(access.authenticate("sgk_a").is_none() && access.authenticate("sgk_b").is_some());
    }

    #[test]
    fn faults_name_the_key_and_the_field() {
        let error = |text: &str| access(text).unwrap_err().to_string();
        assert!(error("").contains("no [[key]]"));
        assert!(error(&stanza("x", "k", "scopes = [\"models:fly\"]")).contains("key \"x\": scope \"models:fly\""));
        assert!(error("[[key]]\nname = \"x\"\nsha256 = \"00\"\nuser = \"u\"\ntenant = \"t\"").contains("64 hexadecimal digits"));
        assert!(error(&stanza("x", "k", "expires_at = \"soon\"")).contains("expires_at \"soon\""));
        assert!(error(&stanza("x", "k", "colour = 1")).contains("colour"));
        assert!(error(&(stanza("x", "k", "") + &stanza("y", "k", ""))).contains("twice"));
    }
}
