//! Token budgets that a device held at an earlier start, in one file of the cache: so that the next start need not find them by running it full.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// More models than anybody serves; the file does not grow beyond.
const MOST_ENTRIES: usize = 200;

/// The file, or none.
#[derive(Debug, Clone, Default)]
pub struct Profile(Option<PathBuf>);

/// What was found for one model on one device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The most tokens of one batch that the device's memory takes, headroom left.
    pub most_tokens: usize,
    /// Tokens per second of the largest batch that was measured.
    pub tokens_per_s: f64,
}

impl Profile {
    /// The file at that path; it need not be there.
    pub fn at(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    /// What is known of a model. A file that cannot be read or understood knows nothing: everything in it can be measured again.
    pub fn find(&self, name: &str) -> Option<Found> {
        let found = read(self.0.as_deref()?)?.get(name).copied()?;
        (found.most_tokens > 0 && found.tokens_per_s.is_finite() && found.tokens_per_s > 0.0).then_some(found)
    }

    /// Keeps what was found. A file that cannot be written costs the next start some seconds, and nothing else.
    pub fn keep(&self, name: &str, found: Found) {
        let Some(path) = self.0.as_deref() else { return };
        let mut all = read(path).unwrap_or_default();
        if all.len() >= MOST_ENTRIES {
            all.clear();
        }
        all.insert(name.to_owned(), found);
        if let Err(error) = write(path, &all) {
            tracing::debug!(path = %path.display(), %error, "the measured budgets are not kept");
        }
    }

    /// Forgets a model whose budget did not hold.
    pub fn forget(&self, name: &str) {
        if let Some(path) = self.0.as_deref()
            && let Some(mut all) = read(path)
            && all.remove(name).is_some()
        {
            let _ = write(path, &all);
        }
    }
}

fn read(path: &Path) -> Option<BTreeMap<String, Found>> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Beside, then renamed into place: another process reads the old file or the new one.
fn write(path: &Path, all: &BTreeMap<String, Found>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&beside, serde_json::to_vec_pretty(all)?)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_there_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/budgets.json");
        let found = Found { most_tokens: 4096, tokens_per_s: 1e6 };
        Profile::at(Some(path.clone())).keep("bert", found);
        let next = Profile::at(Some(path));
        assert_eq!((next.find("bert"), next.find("other")), (Some(found), None));
        next.forget("bert");
        assert_eq!(next.find("bert"), None);
    }

    #[test]
    fn a_broken_file_knows_nothing_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("budgets.json");
        for broken in ["", "{", "[1]", r#"{"m": {"most_tokens": 0, "tokens_per_s": 1.0}}"#, r#"{"m": {"most_tokens": 1, "tokens_per_s": -1.0}}"#] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(Profile::at(Some(path.clone())).find("m"), None, "{broken}");
        }
        let profile = Profile::at(Some(path));
        profile.keep("m", Found { most_tokens: 7, tokens_per_s: 2.0 });
        assert_eq!(profile.find("m").map(|found| found.most_tokens), Some(7));
        Profile::at(None).keep("m", Found { most_tokens: 7, tokens_per_s: 2.0 });
    }
}
