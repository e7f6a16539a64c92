//! The keys file: TOML, one `[[key]]` each. Read at the start and again whenever it changes.

use super::access::{Access, Key, MODELS_LIST, MODELS_USE, Origin, SCOPES};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A keys file and the state in which it was last seen.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
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

impl KeyFile {
    /// Opens the file; at the start it must be readable and right.
    ///
    /// # Errors
    /// [`KeyFileError`], naming the key and the field.
    pub fn open(path: &Path) -> Result<(Self, Access), KeyFileError> {
        let mut file = Self { path: path.to_owned(), version: None };
        let access = Access::keys(Vec::new());
        file.reload(&access)?;
        Ok((file, access))
    }

    /// Reads the file again if it has changed, and puts its keys in force: true if it had. If it is broken, the old keys stay in force, and the
    /// error is given once per state of the file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn reload(&mut self, access: &Access) -> Result<bool, KeyFileError> {
        let fail = |reason: String| KeyFileError { path: self.path.display().to_string(), reason };
        let seen = std::fs::metadata(&self.path).and_then(|metadata| Ok((metadata.modified()?, metadata.len())));
        let version = seen.as_ref().ok().copied();
        if version.is_some() && version == self.version {
            return Ok(false);
        }
        if version.is_none() && self.version.is_none() && !access.is_empty() {
            // Gone, and reported already.
            return Ok(false);
        }
        let text = seen.and_then(|_| std::fs::read_to_string(&self.path)).map_err(|error| fail(error.to_string()));
        let keys = text.and_then(|text| parse(&text).map_err(fail));
        self.version = version;
        access.replace(keys?);
        Ok(true)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stanzas {
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
    requests_per_minute: Option<u32>,
    tokens_per_minute: Option<u32>,
    weight: Option<u32>,
}

/// `"2027-01-01T00:00:00Z"`, with or without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum ExpiresAt {
    Text(String),
    Date(toml::value::Datetime),
}

/// The keys of a file's text.
fn parse(text: &str) -> Result<Vec<Key>, String> {
    let file: Stanzas = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut keys: Vec<Key> = Vec::new();
    for stanza in file.key {
        let name = stanza.name.clone();
        let key = stanza.into_key().map_err(|reason| format!("key {name:?}: {reason}"))?;
        if keys.iter().any(|other| other.sha256 == key.sha256 || other.name == key.name) {
            return Err(format!("key {name:?}: its name or hash occurs twice"));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err("holds no [[key]]; without one nobody could use the server (--no-auth opens it to everyone)".to_owned());
    }
    Ok(keys)
}

impl KeyStanza {
    fn into_key(self) -> Result<Key, String> {
        let sha256 = from_hex(&self.sha256).ok_or("sha256 must be 64 hexadecimal digits")?;
        let scopes = self.scopes.unwrap_or_else(|| vec![MODELS_USE.to_owned(), MODELS_LIST.to_owned()]);
        if let Some(scope) = scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
            return Err(format!("scope {scope:?} is not one of {}", SCOPES.join(", ")));
        }
        let expires_at = self.expires_at.map(|at| match at {
            ExpiresAt::Text(text) => text,
            ExpiresAt::Date(date) => date.to_string(),
        });
        let expires_at = expires_at.map(|text| text.parse().map_err(|error| format!("expires_at {text:?}: {error}"))).transpose()?;
        let limits = [("requests_per_minute", self.requests_per_minute), ("tokens_per_minute", self.tokens_per_minute), ("weight", self.weight)];
        if let Some((name, _)) = limits.iter().find(|(_, limit)| *limit == Some(0)) {
            return Err(format!("{name} must be at least 1"));
        }
        Ok(Key {
            id: file_id(&sha256),
            name: self.name,
            user: self.user,
            tenant: self.tenant,
            partner: self.partner,
            models: self.models,
            scopes,
            expires_at,
            sha256,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            weight: self.weight.unwrap_or(1),
            origin: Origin::File,
        })
    }
}

/// An id for a key of the file, the same on every server and after a restart; it does not give the hash away.
fn file_id(sha256: &[u8; 32]) -> String {
    let digest = Sha256::digest(sha256);
    format!("apikey_{}", digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>())
}

pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
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

    fn open(text: &str) -> Result<(tempfile::TempDir, KeyFile, Access), KeyFileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        std::fs::write(&path, text).unwrap();
        let (file, access) = KeyFile::open(&path)?;
        Ok((dir, file, access))
    }

    #[test]
    fn keys_are_known_by_their_hash_and_have_the_default_scopes() {
        let (_dir, _file, access) = open(
            &(stanza("a", "sgk_a", "models = [\"m\"]\nrequests_per_minute = 9\nweight = 4") + &stanza("b", "sgk_b", "scopes = [\"models:list\"]")),
        )
        .unwrap();
        let key = access.authenticate("sgk_a").unwrap();
        assert!(key.has_scope(MODELS_USE) && key.has_scope(MODELS_LIST) && key.may_use("m") && !key.may_use("n"));
        assert_eq!((key.requests_per_minute, key.tokens_per_minute, key.weight, key.id.len()), (Some(9), None, 4, 39));
        let other = access.authenticate("sgk_b").unwrap();
        assert!(!other.has_scope(MODELS_USE) && other.may_use("n") && other.number() != key.number());
        assert!(access.authenticate("sgk_c").is_none() && access.authenticate("").is_none());
    }

    #[test]
    fn expired_keys_are_refused() {
        let text = stanza("old", "sgk_old", "expires_at = 2020-01-01T00:00:00Z") + &stanza("new", "sgk_new", "expires_at = \"2999-01-01T00:00:00Z\"");
        let (_dir, _file, access) = open(&text).unwrap();
        assert!(access.authenticate("sgk_old").is_none() && access.authenticate("sgk_new").is_some());
    }

    #[test]
    fn a_changed_file_counts_at_once_and_a_broken_one_leaves_the_old_keys() {
        let (dir, mut file, access) = open(&stanza("a", "sgk_a", "")).unwrap();
        let path = dir.path().join("keys.toml");
        assert!(!file.reload(&access).unwrap());
        std::fs::write(&path, "not toml at all [").unwrap();
        assert!(file.reload(&access).is_err());
        assert!(!file.reload(&access).unwrap(), "reported once");
        assert!(access.authenticate("sgk_a").is_some());
        std::fs::remove_file(&path).unwrap();
        assert!(file.reload(&access).is_err() && !file.reload(&access).unwrap(), "a lost file, reported once");
        std::fs::write(&path, stanza("bb", "sgk_b", "")).unwrap();
        assert!(file.reload(&access).unwrap());
        assert!(access.authenticate("sgk_a").is_none() && access.authenticate("sgk_b").is_some());
    }

    #[test]
    fn faults_name_the_key_and_the_field() {
        let error = |text: &str| open(text).err().unwrap().to_string();
        assert!(error("").contains("no [[key]]"));
        assert!(error(&stanza("x", "k", "scopes = [\"models:fly\"]")).contains("key \"x\": scope \"models:fly\""));
        assert!(error("[[key]]\nname = \"x\"\nsha256 = \"00\"\nuser = \"u\"\ntenant = \"t\"").contains("64 hexadecimal digits"));
        assert!(error(&stanza("x", "k", "expires_at = \"soon\"")).contains("expires_at \"soon\""));
        assert!(error(&stanza("x", "k", "colour = 1")).contains("colour"));
        assert!(error(&stanza("x", "k", "weight = 0")).contains("weight must be at least 1"));
        assert!(error(&(stanza("x", "k", "") + &stanza("y", "k", ""))).contains("twice"));
    }
}
