//! Who made a bundle: ed25519 keys, their files, and the signature over a manifest.

use super::super::error::{HubError, IoContext};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::Deserialize;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

/// Keeps a signature over a manifest from being one over anything else.
const DOMAIN: &[u8] = b"vecmill bundle 1\n";

/// A key that bundles must be signed with; 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicKey(VerifyingKey);

/// The key that signs. It has no text form but its file.
pub struct SecretKey(SigningKey);

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || "a public key is the 64 hex digits that `vecmill bundle keygen` prints".to_owned();
        let bytes = from_hex(text).ok_or_else(refuse)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| refuse())
    }
}

impl TryFrom<String> for PublicKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(self.0.as_bytes()))
    }
}

impl PublicKey {
    /// Whether this key signed the manifest.
    pub(super) fn has_signed(&self, manifest: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(&[DOMAIN, manifest].concat(), &Signature::from_bytes(signature)).is_ok()
    }
}

impl SecretKey {
    /// Makes a key and writes it to a new file that only its owner may read.
    ///
    /// # Errors
    /// The file exists already, or cannot be written.
    pub fn create(path: &Path) -> Result<Self, HubError> {
        // The thread-local generator is seeded by the operating system and cryptographically strong.
        let key = SigningKey::from_bytes(&rand::random());
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).io("create", path)?;
        writeln!(file, "{}", to_hex(&key.to_bytes())).io("write", path)?;
        Ok(Self(key))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read, or holds no key.
    pub fn read(path: &Path) -> Result<Self, HubError> {
        let text = String::from_utf8_lossy(&super::super::files::read_limited(path, 1024)?).into_owned();
        let refuse = || HubError::Key { path: path.to_owned() };
        from_hex(text.trim()).map(|bytes| Self(SigningKey::from_bytes(&bytes))).ok_or_else(refuse)
    }

    /// The key to give to those who should trust this one.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(super) fn sign(&self, manifest: &[u8]) -> [u8; 64] {
        self.0.sign(&[DOMAIN, manifest].concat()).to_bytes()
    }
}

/// Lower-case hex.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Exactly `N` bytes from lower-case hex.
pub(super) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}
