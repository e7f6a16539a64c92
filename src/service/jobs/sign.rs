//! Links that need no key: a path and the time until which it may be read, under the store's secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Signs with one secret.
pub(super) struct Signer(Vec<u8>);

impl Signer {
    pub(super) fn new(secret: Vec<u8>) -> Self {
        Self(secret)
    }

    /// The signature as hexadecimal digits.
    pub(super) fn sign(&self, path: &str, until_s: i64) -> String {
        let Some(mac) = self.mac(path, until_s) else { return String::new() };
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// In constant time.
    pub(super) fn verify(&self, path: &str, until_s: i64, signature: &str) -> bool {
        let Some(mac) = self.mac(path, until_s) else { return false };
        crate::store::from_hex(signature).is_some_and(|signature| mac.verify_slice(&signature).is_ok())
    }

    fn mac(&self, path: &str, until_s: i64) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(format!("GET\n{path}\n{until_s}").as_bytes());
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_path_time_and_secret_alone() {
        let signer = Signer::new(vec![1; 32]);
        let signature = signer.sign("/a", 7);
        assert!(signature.len() == 64 && signer.verify("/a", 7, &signature));
        assert!(!signer.verify("/b", 7, &signature) && !signer.verify("/a", 8, &signature));
        assert!(!signer.verify("/a", 7, &signature[..62]) && !signer.verify("/a", 7, "") && !signer.verify("/a", 7, "zz"));
        assert!(!Signer::new(vec![2; 32]).verify("/a", 7, &signature));
    }
}
