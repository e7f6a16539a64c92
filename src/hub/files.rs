//! A model's files on disk, and the only ways to read them: inside the directory, and never more than was allowed for.

use super::error::{HubError, IoContext};
use crate::card::{Card, is_inside};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Enough for any configuration file. A tokenizer may be larger; its reader says so.
pub const CONFIG_LIMIT_BYTES: u64 = 16 << 20;

/// A model's files on disk, verified where a card has their hashes.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The directory that holds them.
    pub root: PathBuf,
    /// The card they were verified against.
    pub card: Option<&'static Card>,
    /// The slug if the operator gives none: repo id, or the directory's base name.
    pub slug: String,
}

impl ModelFiles {
    /// Where `rel` is, or `None` if the model has no such file. Folders are separated by `/`; a `rel` that would leave the model's
    /// directory (`..`, a root) is no file of it. Symbolic links are followed: whoever made the directory made them.
    pub fn path(&self, rel: &str) -> Option<PathBuf> {
        if !is_inside(rel) {
            return None;
        }
        let path = self.root.join(rel);
        path.is_file().then_some(path)
    }

    /// The bytes of `rel`, or `None` if the model has no such file.
    ///
    /// # Errors
    /// [`HubError::TooLarge`] above `limit_bytes`; [`HubError::Io`].
    pub fn read(&self, rel: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, HubError> {
        self.path(rel).map(|path| read_limited(&path, limit_bytes)).transpose()
    }

    /// `rel` as JSON, at most [`CONFIG_LIMIT_BYTES`] of it, or `None` if the model has no such file.
    ///
    /// # Errors
    /// [`HubError::Json`] names file, line and field; else as [`Self::read`].
    pub fn read_json<T: DeserializeOwned>(&self, rel: &str) -> Result<Option<T>, HubError> {
        let Some(path) = self.path(rel) else { return Ok(None) };
        let bytes = read_limited(&path, CONFIG_LIMIT_BYTES)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|source| HubError::Json { path, source })
    }
}

/// Reads a whole file, but not a longer one than `limit_bytes`: what the metadata says is checked first, what is read is bounded.
pub(super) fn read_limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, HubError> {
    let file = std::fs::File::open(path).io("open", path)?;
    let size_bytes = file.metadata().io("read", path)?.len();
    if size_bytes > limit_bytes {
        return Err(HubError::TooLarge { path: path.to_owned(), size_bytes, limit_bytes });
    }
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes).io("read", path)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(HubError::TooLarge { path: path.to_owned(), size_bytes: bytes.len() as u64, limit_bytes });
    }
    Ok(bytes)
}

/// The regular files of `root` in `folders` (`""` is the root itself; one that is not there has none), as paths with `/`, sorted.
pub(super) fn list(root: &Path, folders: &BTreeSet<String>) -> Result<Vec<String>, HubError> {
    let mut found = Vec::new();
    for folder in folders {
        let dir = root.join(folder);
        if !(folder.is_empty() || is_inside(folder) && dir.is_dir()) {
            continue;
        }
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        for entry in std::fs::read_dir(&dir).io("list", &dir)? {
            let entry = entry.io("list", &dir)?;
            if entry.path().is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                found.push(format!("{prefix}{name}"));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> (tempfile::TempDir, ModelFiles) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("model");
        std::fs::create_dir_all(root.join("1_Pooling")).unwrap();
        std::fs::write(root.join("config.json"), br#"{"hidden_size": 4}"#).unwrap();
        std::fs::write(root.join("1_Pooling/config.json"), b"{").unwrap();
        std::fs::write(dir.path().join("secret"), b"s").unwrap();
        (dir, ModelFiles { root, card: None, slug: "model".into() })
    }

    #[test]
    fn nothing_outside_the_directory_is_a_file_of_the_model() {
        let (dir, files) = model();
        let absolute = dir.path().join("secret");
        for rel in ["../secret", "1_Pooling/../../secret", absolute.to_str().unwrap(), "", "/", "1_Pooling", "absent.json"] {
            assert_eq!(files.path(rel), None, "{rel}");
        }
        assert!(files.path("1_Pooling/config.json").is_some());
    }

    #[test]
    fn a_file_over_the_limit_is_refused_with_both_figures() {
        let (_dir, files) = model();
        assert_eq!(files.read("config.json", 18).unwrap().unwrap().len(), 18);
        assert!(matches!(files.read("config.json", 17), Err(HubError::TooLarge { size_bytes: 18, limit_bytes: 17, .. })));
        assert!(files.read("absent", 1).unwrap().is_none());
    }

    #[test]
    fn json_errors_name_the_file() {
        let (_dir, files) = model();
        let config: serde_json::Value = files.read_json("config.json").unwrap().unwrap();
        assert_eq!(config["hidden_size"], 4);
        let error = files.read_json::<serde_json::Value>("1_Pooling/config.json").unwrap_err().to_string();
        assert!(error.contains("1_Pooling/config.json") && error.contains("line 1"), "{error}");
    }
}
