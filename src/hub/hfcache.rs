//! The cache that Python's hub library keeps (`$HF_HOME/hub`), read in place and never written.
//!
//! Layout, from its documentation: `models--owner--name/refs/<branch>` holds a commit's hash, `snapshots/<commit>/` that commit's files
//! as links into `blobs/`.

use std::path::{Path, PathBuf};

/// The repo's folder.
pub(super) fn repo_dir(hf_home: &Path, repo: &str) -> PathBuf {
    hf_home.join("hub").join(format!("models--{}", repo.replace('/', "--")))
}

/// The snapshots that may be the model, likeliest first: the wanted revision, `main`, then (if `any`) the others by name.
pub(super) fn snapshots(hf_home: &Path, repo: &str, revision: Option<&str>, any: bool) -> Vec<PathBuf> {
    let dir = repo_dir(hf_home, repo);
    let main = std::fs::read_to_string(dir.join("refs/main")).ok();
    let mut names: Vec<String> = revision
        .map(str::to_owned)
        .into_iter()
        .chain(main.map(|text| text.trim().to_owned()))
        .filter(|name| crate::card::is_plain_name(name))
        .collect();
    if any && let Ok(entries) = std::fs::read_dir(dir.join("snapshots")) {
        let mut others: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        others.sort();
        names.extend(others);
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for name in names {
        let path = dir.join("snapshots").join(name);
        if path.is_dir() && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_revision_comes_before_main_before_the_rest() {
        let home = tempfile::tempdir().unwrap();
        let dir = repo_dir(home.path(), "o/m");
        for name in ["aaa", "bbb", "ccc"] {
            std::fs::create_dir_all(dir.join("snapshots").join(name)).unwrap();
        }
        std::fs::create_dir_all(dir.join("refs")).unwrap();
        std::fs::write(dir.join("refs/main"), "bbb\n").unwrap();
        let found = |revision, any| {
            let list = snapshots(home.path(), "o/m", revision, any);
            list.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(Some("ccc"), true), ["ccc", "bbb", "aaa"]);
        assert_eq!(found(Some("gone"), false), ["bbb"]);
        std::fs::write(dir.join("refs/main"), "../../../..").unwrap();
        assert!(found(None, false).is_empty());
        assert!(snapshots(home.path(), "o/other", None, true).is_empty());
    }
}
