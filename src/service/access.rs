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

/// A key as the operator wrote it down. The key itself is nowhere in the server: only its hash.
#[derive(Clone)]
pub struct Key {
    /// The operator's name for it.
    pub name: String,
    pub user: String,
    pub tenant: String,
    pub partner: Option<String>,
    /// Slugs it may use; `None` = all.
    pub models: Option<Vec<String>>,
    /// What it may do: `models:use`, `models:list`.
    pub scopes: Vec<String>,
    /// From when on it is refused; `None` = never.
    pub expires_at: Option<Timestamp>,
    /// SHA-256 of the whole key.
    pub sha256: [u8; 32],
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

/// The keys in force, or none at all. Replaced as a whole when the operator changes them.
pub struct Access {
    /// `None` = open to everyone who can connect.
    keys: RwLock<Option<Arc<[Arc<Key>]>>>,
}

impl Access {
    /// Only these keys; with an empty list nobody gets in.
    pub fn keys(keys: Vec<Key>) -> Self {
        Self { keys: RwLock::new(Some(share(keys))) }
    }

    /// No keys asked for. Whoever configures this has checked that it is safe or meant.
    pub fn open_to_all() -> Self {
        Self { keys: RwLock::new(None) }
    }

    /// Puts other keys in force for all requests from now on.
    pub fn replace(&self, keys: Vec<Key>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(share(keys));
    }

    /// True if keys are asked for and there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|keys| keys.is_empty())
    }

    /// True if no key is asked for.
    pub fn open(&self) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// The key whose hash is that of `token`, unless it has expired.
    pub fn authenticate(&self, token: &str) -> Option<Arc<Key>> {
        self.authenticate_at(token, Timestamp::now())
    }

    fn authenticate_at(&self, token: &str, now: Timestamp) -> Option<Arc<Key>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // All keys are compared to the end, so that the time taken tells nothing about any of them.
        let (mut found, mut place) = (Choice::from(0), 0u64);
        for (index, key) in keys.iter().enumerate() {
            let equal = key.sha256.ct_eq(&digest);
            place.conditional_assign(&(index as u64), equal);
            found |= equal;
        }
        let key = bool::from(found).then(|| keys.get(place as usize)).flatten()?;
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
    }

    #[test]
    fn a_keys_limits_are_its_own() {
        let key = key("k", "sgk_k", None);
        assert!(key.has_scope(MODELS_USE) && !key.has_scope(MODELS_LIST));
        assert!(key.may_use("a/b") && !key.may_use("a/b/c"));
        assert!(!format!("{key:?}").contains("sha256"));
    }
}
