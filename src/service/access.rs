//! Who may use the server: API keys by their hash, and what each key is good for.

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// The scope of every call that computes vectors.
pub const MODELS_USE: &str = "models:use";
/// The scope of listing models.
pub const MODELS_LIST: &str = "models:list";

/// The scope of making, listing and revoking keys.
pub const API_KEYS_MANAGE: &str = "api_keys:manage";
/// Every scope that a key can have.
pub const SCOPES: [&str; 3] = [MODELS_USE, MODELS_LIST, API_KEYS_MANAGE];

/// A key in force. The key itself is nowhere in the server: only its hash.
#[derive(Clone)]
pub struct Key {
    /// `apikey_...`: names it without telling anything about it.
    pub id: String,
    /// The operator's name for it.
    pub name: String,
    pub user: String,
    pub tenant: String,
    pub partner: Option<String>,
    /// Slugs it may use; `None` = all.
    pub models: Option<Vec<String>>,
    /// What it may do: some of `SCOPES`.
    pub scopes: Vec<String>,
    /// From when on it is refused; `None` = never.
    pub expires_at: Option<Timestamp>,
    /// SHA-256 of the whole key.
    pub sha256: [u8; 32],
    /// Requests it may make in a minute; `None` = what the configuration says.
    pub requests_per_minute: Option<u32>,
    /// Tokens it may embed in a minute; `None` = what the configuration says.
    pub tokens_per_minute: Option<u32>,
    /// Its part of the device relative to other keys, at least 1.
    pub weight: u32,
    /// Where it is kept.
    pub origin: Origin,
}

/// Where a key is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the keys file, which only the operator changes.
    File,
    /// In the store, with its first characters and when it was made.
    Store { prefix: String, created_at: Timestamp },
}

impl Key {
    /// True if it has `scope`.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }

    /// True if it may use the model listed under `slug`.
    pub fn may_use(&self, slug: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|model| model == slug))
    }

    /// A number for this key, the same after a restart: requests of one key share its turn in the queue.
    pub fn number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.sha256;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Without the hash: logs are read by more people than key files.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("user", &self.user).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// The keys in force, or none at all. Each source is replaced as a whole when it changes.
pub struct Access {
    keys: RwLock<Keys>,
}

/// The keys of both sources.
#[derive(Clone)]
struct Keys {
    /// True if everyone gets in who can connect.
    open: bool,
    file: Arc<[Arc<Key>]>,
    stored: Arc<[Arc<Key>]>,
}

impl Access {
    /// Only these keys; with an empty list nobody gets in.
    pub fn keys(keys: Vec<Key>) -> Self {
        Self { keys: RwLock::new(Keys { open: false, file: share(keys), stored: share(Vec::new()) }) }
    }

    /// No keys asked for. Whoever configures this has checked that it is safe or meant.
    pub fn open_to_all() -> Self {
        Self { keys: RwLock::new(Keys { open: true, file: share(Vec::new()), stored: share(Vec::new()) }) }
    }

    /// Puts other keys of the file in force for all requests from now on.
    pub fn replace(&self, keys: Vec<Key>) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).file = share(keys);
    }

    /// Puts other keys of the store in force for all requests from now on.
    pub fn replace_stored(&self, keys: Vec<Key>) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).stored = share(keys);
    }

    /// Asks for keys from now on.
    pub fn close(&self) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).open = false;
    }

    /// True if keys are asked for and the file has none.
    pub fn is_empty(&self) -> bool {
        let keys = self.now();
        !keys.open && keys.file.is_empty()
    }

    /// True if no key is asked for.
    pub fn open(&self) -> bool {
        self.now().open
    }

    /// True if this key is still in force.
    pub fn holds(&self, key: &Key) -> bool {
        let (keys, now) = (self.now(), Timestamp::now());
        let in_force = |own: &Arc<Key>| own.sha256 == key.sha256 && own.expires_at.is_none_or(|end| now < end);
        keys.file.iter().chain(keys.stored.iter()).any(in_force)
    }

    /// True if a key of the file has this id and has not expired; `None` if there are no keys of a file at all.
    pub fn file_holds(&self, id: &str) -> Option<bool> {
        let (keys, now) = (self.now(), Timestamp::now());
        let in_force = |own: &Arc<Key>| own.id == id && own.expires_at.is_none_or(|end| now < end);
        (!keys.file.is_empty()).then(|| keys.file.iter().any(in_force))
    }

    /// All keys, those of the file first.
    pub fn list(&self) -> Vec<Arc<Key>> {
        let keys = self.now();
        keys.file.iter().chain(keys.stored.iter()).cloned().collect()
    }

    fn now(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key whose hash is that of `token`, unless it has expired.
    pub fn authenticate(&self, token: &str) -> Option<Arc<Key>> {
        self.authenticate_at(token, Timestamp::now())
    }

    fn authenticate_at(&self, token: &str, now: Timestamp) -> Option<Arc<Key>> {
        let keys = self.now();
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // All keys are compared to the end, so that the time taken tells nothing about any of them.
        let (mut found, mut place) = (Choice::from(0), 0u64);
        for (index, key) in keys.file.iter().chain(keys.stored.iter()).enumerate() {
            let equal = key.sha256.ct_eq(&digest);
            place.conditional_assign(&(index as u64), equal);
            found |= equal;
        }
        let key = bool::from(found).then(|| keys.file.iter().chain(keys.stored.iter()).nth(place as usize)).flatten()?;
        key.expires_at.is_none_or(|end| now < end).then(|| key.clone())
    }
}

fn share(keys: Vec<Key>) -> Arc<[Arc<Key>]> {
    keys.into_iter().map(Arc::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, token: &str, expires_at: Option<&str>) -> Key {
        Key {
            id: format!("apikey_{name}"),
            requests_per_minute: None,
            tokens_per_minute: None,
            weight: 1,
            origin: Origin::File,
            name: name.into(),
            user: "u".into(),
            tenant: "t".into(),
            partner: None,
            models: Some(vec!["a/b".into()]),
            scopes: vec![MODELS_USE.into()],
            expires_at: expires_at.map(|time| time.parse().unwrap()),
            sha256: Sha256::digest(token.as_bytes()).into(),
        }
    }

    fn name(access: &Access, token: &str, now: &str) -> Option<String> {
        access.authenticate_at(token, now.parse().unwrap()).map(|key| key.name.clone())
    }

    #[test]
    fn a_key_is_found_by_its_whole_text_and_until_it_expires() {
        let access = Access::keys(vec![key("first", "sgk_1", None), key("second", "sgk_2", Some("2026-01-01T00:00:00Z"))]);
        let (before, after) = ("2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z");
        assert_eq!(name(&access, "sgk_1", after).as_deref(), Some("first"));
        assert_eq!(name(&access, "sgk_2", before).as_deref(), Some("second"));
        assert_eq!(name(&access, "sgk_2", after), None);
        for token in ["", "sgk_", "sgk_1 ", "SGK_1", "sgk_3"] {
            assert_eq!(name(&access, token, before), None, "{token:?}");
        }
    }

    #[test]
    fn replaced_keys_are_gone_at_once() {
        let access = Access::keys(vec![key("old", "sgk_old", None)]);
        access.replace(vec![key("new", "sgk_new", None)]);
        assert!(access.authenticate("sgk_old").is_none());
        assert!(access.authenticate("sgk_new").is_some());
        assert!(!access.open() && Access::open_to_all().open());
        access.replace_stored(vec![key("stored", "sgk_stored", None)]);
        assert!(["sgk_new", "sgk_stored"].iter().all(|token| access.authenticate(token).is_some()));
        access.replace(Vec::new());
        assert!(access.authenticate("sgk_new").is_none() && access.authenticate("sgk_stored").is_some() && access.is_empty());
        assert_eq!(access.list().iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["stored"]);
    }

    #[test]
    fn a_keys_limits_are_its_own() {
        let key = key("k", "sgk_k", None);
        assert!(key.has_scope(MODELS_USE) && !key.has_scope(MODELS_LIST));
        assert!(key.may_use("a/b") && !key.may_use("a/b/c"));
        assert!(!format!("{key:?}").contains("sha256"));
    }
}
