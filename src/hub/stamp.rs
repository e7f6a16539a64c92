//! The note that a directory's files were verified, so that a warm start need not hash gigabytes again.

use super::error::{HubError, IoContext};
use super::progress::Progress;
use crate::card::CardFile;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Its name inside a directory of our own cache.
pub(super) const FILE_NAME: &str = ".vecmill-stamp.json";

/// What was verified, when the files looked like this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// The directory meant; a stamp that lies inside it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<PathBuf>,
    /// Where the bytes came from, for people.
    pub(super) origin: String,
    /// Path inside the model -> how it looked.
    pub(super) files: BTreeMap<String, Seen>,
}

/// How a file looked when its hash was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) size_bytes: u64,
    pub(super) modified_ns: u64,
    pub(super) sha256: String,
}

impl Stamp {
    /// The stamp at `path`; none if there is no readable one, which only costs the hashing.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let bytes = super::files::read_limited(path, super::CONFIG_LIMIT_BYTES).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes it by renaming, so that no half a stamp is ever read.
    pub(super) fn save(&self, path: &Path) -> Result<(), HubError> {
        let text = serde_json::to_vec_pretty(self).map_err(|source| HubError::Json { path: path.to_owned(), source })?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&temporary, text).io("write", &temporary)?;
        std::fs::rename(&temporary, path).io("write", path)
    }

    /// The files as a card would list them: what an uncarded repo is verified against after its first fetch.
    pub(super) fn as_wanted(&self) -> Vec<CardFile> {
        let file = |(path, seen): (&String, &Seen)| CardFile { path: path.clone(), size_bytes: seen.size_bytes, sha256: seen.sha256.clone() };
        self.files.iter().map(file).collect()
    }
}

/// Verifies that `root` holds exactly `wanted`. A file that looks as it did in `known` is not hashed again.
/// Returns what was seen, and whether anything had to be hashed (then the stamp is worth writing).
///
/// # Errors
/// [`HubError::Missing`], [`HubError::WrongSize`] or [`HubError::WrongHash`] for the first file that is not as wanted.
pub(super) fn verify(
    root: &Path,
    wanted: &[CardFile],
    known: Option<&Stamp>,
    progress: &dyn Progress,
) -> Result<(BTreeMap<String, Seen>, bool), HubError> {
    let mut files = BTreeMap::new();
    let mut hashed = false;
    for file in wanted {
        let path = root.join(&file.path);
        let (size_bytes, modified_ns) =
            look(&path)?.ok_or_else(|| HubError::Missing { file: file.path.clone(), origin: root.display().to_string() })?;
        let origin = || root.display().to_string();
        if size_bytes != file.size_bytes {
            let (expected_bytes, got_bytes) = (file.size_bytes, size_bytes);
            return Err(HubError::WrongSize { file: file.path.clone(), origin: origin(), expected_bytes, got_bytes });
        }
        let now = Seen { size_bytes, modified_ns, sha256: file.sha256.clone() };
        if known.and_then(|stamp| stamp.files.get(&file.path)) != Some(&now) {
            hashed = true;
            let got = sha256_of(&path, |done| progress.bytes(&format!("verifying {}", file.path), done, Some(size_bytes)))?;
            if got != file.sha256 {
                return Err(HubError::WrongHash { file: file.path.clone(), origin: origin(), expected: file.sha256.clone(), got });
            }
        }
        files.insert(file.path.clone(), now);
    }
    Ok((files, hashed))
}

/// Length and time of last change; `None` if there is no such file.
pub(super) fn look(path: &Path) -> Result<Option<(u64, u64)>, HubError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).io("read", path),
    };
    if !metadata.is_file() {
        return Ok(None);
    }
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(Some((metadata.len(), u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX))))
}

/// SHA-256 of a file as lower-case hex.
pub(super) fn sha256_of(path: &Path, done: impl FnMut(u64)) -> Result<String, HubError> {
    let mut hash = Sha256::new();
    hash_into(&mut hash, path, done)?;
    Ok(hex(hash))
}

/// Feeds a file to `hash`; `done` hears how many bytes have been fed.
pub(super) fn hash_into(hash: &mut Sha256, path: &Path, mut done: impl FnMut(u64)) -> Result<(), HubError> {
    let mut file = std::fs::File::open(path).io("open", path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let n = file.read(&mut buffer).io("read", path)?;
        if n == 0 {
            return Ok(());
        }
        hash.update(&buffer[..n]);
        total += n as u64;
        done(total);
    }
}

/// The digest as lower-case hex.
pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::progress::Silent;
    use super::*;

    fn wanted(path: &str, bytes: &[u8]) -> CardFile {
        let mut hash = Sha256::new();
        hash.update(bytes);
        CardFile { path: path.into(), size_bytes: bytes.len() as u64, sha256: hex(hash) }
    }

    #[test]
    fn the_empty_file_has_the_known_hash() {
        assert_eq!(hex(Sha256::new()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn a_stamped_file_is_not_hashed_again_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("w"), b"good").unwrap();
        let wanted = [wanted("w", b"good")];
        let (files, hashed) = verify(dir.path(), &wanted, None, &Silent).unwrap();
        assert!(hashed);
        let stamp = Stamp { root: None, origin: "test".into(), files };
        let at = dir.path().join(FILE_NAME);
        stamp.save(&at).unwrap();
        let stamp = Stamp::load(&at).unwrap();
        assert!(!verify(dir.path(), &wanted, Some(&stamp), &Silent).unwrap().1);

        // Other bytes under the same length and time: proof that the stamp is believed and the file is not read.
        let path = dir.path().join("w");
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, b"evil").unwrap();
        let touch = |time| std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        touch(time);
        assert!(!verify(dir.path(), &wanted, Some(&stamp), &Silent).unwrap().1);
        touch(time + std::time::Duration::from_nanos(1000));
        assert!(matches!(verify(dir.path(), &wanted, Some(&stamp), &Silent), Err(HubError::WrongHash { .. })));
        std::fs::write(&path, b"longer").unwrap();
        assert!(matches!(verify(dir.path(), &wanted, Some(&stamp), &Silent), Err(HubError::WrongSize { got_bytes: 6, .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(verify(dir.path(), &wanted, Some(&stamp), &Silent), Err(HubError::Missing { .. })));
    }

    #[test]
    fn a_new_card_with_another_hash_is_not_satisfied_by_an_old_stamp() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("w"), b"good").unwrap();
        let (files, _) = verify(dir.path(), &[wanted("w", b"good")], None, &Silent).unwrap();
        let stamp = Stamp { root: None, origin: "test".into(), files };
        assert!(verify(dir.path(), &[wanted("w", b"next")], Some(&stamp), &Silent).is_err());
    }

    #[test]
    fn half_a_stamp_is_no_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join(FILE_NAME);
        std::fs::write(&at, b"{\"origin\":").unwrap();
        assert_eq!(Stamp::load(&at), None);
    }
}
