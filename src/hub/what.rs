//! What `--model` names: a card, a path, or a repo on the hub.

use super::error::HubError;
use crate::card::{self, Card};
use std::path::{Path, PathBuf};

/// What `--model` names.
#[derive(Debug, Clone)]
pub enum What {
    /// A model with a card.
    Card(&'static Card),
    /// A directory on this machine, or a GGUF file.
    Path(PathBuf),
    /// `owner/name` on the hub, without a card.
    Repo(String),
}

/// Reads what the operator wrote: the name of a card; else a path (it starts with `.` or `/`, or names something that exists);
/// else `owner/name`. A repo that has a card is that card.
///
/// # Errors
/// [`HubError::Name`] if it can be none of them.
pub fn parse(what: &str) -> Result<What, HubError> {
    if let Some(card) = card::find(what) {
        return Ok(What::Card(card));
    }
    let refuse = |reason: String| Err(HubError::Name { what: what.to_owned(), reason });
    if what.trim().is_empty() || what.contains('\0') {
        return refuse(format!("it is empty; {}", alternatives()));
    }
    if what.starts_with(['.', '/']) || Path::new(what).exists() {
        return Ok(What::Path(PathBuf::from(what)));
    }
    if let Some(card) = card::find_repo(what) {
        return Ok(What::Card(card));
    }
    match what.split('/').collect::<Vec<_>>()[..] {
        [owner, name] if card::is_plain_name(owner) && card::is_plain_name(name) => Ok(What::Repo(what.to_owned())),
        [_] => refuse(format!("no model of that name is known and no directory of that name exists; {}", alternatives())),
        [_, _] => refuse("owner and name may have letters, digits, '-', '_' and '.' only, and a path starts with './' or '/'".to_owned()),
        _ => refuse(format!("there is no such directory, and a hub repo has exactly one slash; {}", alternatives())),
    }
}

fn alternatives() -> String {
    let names: Vec<&str> = card::all().iter().map(|card| card.name.as_str()).collect();
    format!("give a known model ({}), a directory (./dir or /dir), a GGUF file (./file.gguf), or owner/name on the hub", names.join(", "))
}

impl What {
    /// The slug if the operator gives none: the repo id, or the directory's base name.
    pub fn slug(&self) -> String {
        match self {
            Self::Card(card) => card.repo.clone(),
            Self::Repo(repo) => repo.clone(),
            Self::Path(path) => base_name(path),
        }
    }

    /// The folder's name in our cache: a card's short name, or `owner--name`. `None` for a path.
    pub fn cache_key(&self) -> Option<String> {
        match self {
            Self::Card(card) => Some(card.name.clone()),
            Self::Repo(repo) => Some(repo.replace('/', "--")),
            Self::Path(_) => None,
        }
    }

    /// The card, if there is one.
    pub fn card(&self) -> Option<&'static Card> {
        match self {
            Self::Card(card) => Some(card),
            _ => None,
        }
    }

    /// What the operator would write for it.
    pub fn said(&self) -> String {
        match self {
            Self::Card(card) => card.name.clone(),
            Self::Repo(repo) => repo.clone(),
            Self::Path(path) => path.display().to_string(),
        }
    }
}

/// The last component; of `.`, `..` and `dir/..` the name of what they stand for.
fn base_name(path: &Path) -> String {
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    named(path).or_else(|| path.canonicalize().ok().and_then(|full| named(&full))).unwrap_or_else(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_by_short_name_and_by_repo() {
        for said in ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"] {
            let what = parse(said).unwrap();
            assert!(matches!(what, What::Card(_)), "{said}");
            assert_eq!(what.slug(), "sentence-transformers/all-MiniLM-L6-v2");
            assert_eq!(what.cache_key().unwrap(), "all-MiniLM-L6-v2");
        }
    }

    #[test]
    fn paths_start_with_a_dot_or_a_slash_or_exist() {
        let dir = tempfile::tempdir().unwrap();
        for said in ["./a/b/c", "../m", ".", "/no/such", dir.path().to_str().unwrap()] {
            assert!(matches!(parse(said).unwrap(), What::Path(_)), "{said}");
        }
        assert!(matches!(parse("src/hub").unwrap(), What::Path(_)), "cargo runs tests in the package's root, where src/hub exists");
        assert_eq!(parse("./models/my-model/").unwrap().slug(), "my-model");
        std::fs::create_dir(dir.path().join("x")).unwrap();
        assert_eq!(What::Path(dir.path().join("x/..")).slug(), dir.path().file_name().unwrap().to_string_lossy());
    }

    #[test]
    fn owner_and_name_is_a_repo() {
        let what = parse("BAAI/bge-small-en-v1.5").unwrap();
        assert!(matches!(&what, What::Repo(repo) if repo == "BAAI/bge-small-en-v1.5"));
        assert_eq!(what.cache_key().unwrap(), "BAAI--bge-small-en-v1.5");
    }

    #[test]
    fn strange_names_say_what_would_do() {
        for (said, part) in [
            ("", "it is empty"),
            ("  ", "it is empty"),
            ("no-such-model", "no model of that name is known"),
            ("a/b/c", "exactly one slash"),
            ("a/b/c/d", "exactly one slash"),
            ("a/..", "owner and name may have"),
            ("owner/", "owner and name may have"),
            ("own er/name", "owner and name may have"),
            ("owner/na%2Fme", "owner and name may have"),
            ("https://host/x", "exactly one slash"),
        ] {
            let error = parse(said).unwrap_err().to_string();
            assert!(error.contains(part), "{said:?}: {error}");
        }
        assert!(parse("no-such-model").unwrap_err().to_string().contains("all-MiniLM-L6-v2"));
    }
}
