//! Model cards: what the binary knows about a model before it has a single file of it.
//!
//! A card is data in `models/<name>/card.toml`, compiled in. It holds only what was seen: hashes of bytes that were in hand, a
//! revision only where it could be confirmed. What `config.json` says about the network stays there.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path};
use std::sync::LazyLock;

/// One line per folder of `models/`; a test holds the two together.
const COMPILED_IN: &[(&str, &str)] = &[
    ("all-MiniLM-L6-v2", include_str!("../models/all-MiniLM-L6-v2/card.toml")),
    ("all-mpnet-base-v2", include_str!("../models/all-mpnet-base-v2/card.toml")),
    ("potion-base-8M", include_str!("../models/potion-base-8M/card.toml")),
];

/// One model we promise to serve exactly.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Short name: the folder's (`all-MiniLM-L6-v2`).
    pub name: String,
    /// The name shown to people.
    pub display_name: String,
    /// `owner/name` on the hub; also the model's slug.
    pub repo: String,
    /// The hub commit that holds the files below. Without one the hub is asked for `main` and the hashes decide.
    pub revision: Option<String>,
    /// SPDX identifier of the weights' licence.
    pub license: String,
    /// Length of the model's full vector: what an index must be laid out for before the weights are here.
    pub dimensions: usize,
    /// Vector lengths the model was trained to be cut to (Matryoshka); empty if it was not.
    #[serde(default)]
    pub matryoshka: Vec<usize>,
    /// Which of the model's prompts is for queries and which for documents.
    #[serde(default)]
    pub prompts: Prompts,
    /// Every file the model needs, and nothing else.
    pub files: Vec<CardFile>,
    /// Python packages that carry the same bytes, in the order they are tried.
    #[serde(default)]
    pub python: Vec<PythonSource>,
}

/// The meaning of prompt names, which the models' own files leave to the reader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// Name of the prompt for search queries.
    pub query: Option<String>,
    /// Name of the prompt for documents.
    pub document: Option<String>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFile {
    /// Path inside the model's directory, `/` between folders.
    pub path: String,
    /// Exact length.
    pub size_bytes: u64,
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: String,
}

/// Where a Python index has the model's files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PythonSource {
    /// In one package.
    Wheel(Wheel),
    /// In an archive that is spread over several packages, because an index limits the length of each.
    Parts(Parts),
}

/// A package whose wheel contains the model's files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// Distribution name.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// Folder inside the wheel that stands for the model's directory.
    pub prefix: String,
    /// Length of the wheel, for the progress display.
    pub size_bytes: Option<u64>,
}

/// Packages each of whose wheels contains a part of one zip archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// Folder inside the archive that stands for the model's directory.
    pub prefix: String,
    /// In the order in which they make the archive.
    pub parts: Vec<Part>,
}

/// One part of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Distribution name.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// The part's path inside the wheel.
    pub path: String,
    /// Exact length of the part.
    pub size_bytes: u64,
}

impl PythonSource {
    /// Name and version of each package.
    fn packages(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Wheel(wheel) => vec![(&wheel.package, &wheel.version)],
            Self::Parts(parts) => parts.parts.iter().map(|part| (part.package.as_str(), part.version.as_str())).collect(),
        }
    }
}

impl fmt::Display for PythonSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packages().as_slice() {
            [(package, version)] => write!(f, "Python package {package}=={version}"),
            packages => {
                let names: Vec<String> = packages.iter().map(|(package, version)| format!("{package}=={version}")).collect();
                write!(f, "Python packages {}", names.join(", "))
            }
        }
    }
}

/// Why a card's text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Not TOML, or not a card.
    #[error("not a model card: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A field whose value cannot be obeyed.
    #[error("model card {name}: {reason}")]
    Invalid {
        /// The card's name.
        name: String,
        /// What is wrong, naming the field.
        reason: String,
    },
}

impl Card {
    /// Reads a card.
    ///
    /// # Errors
    /// [`CardError`] if the text is no card, or names paths or hashes that could not be obeyed.
    pub fn from_toml(text: &str) -> Result<Self, CardError> {
        let card: Self = toml::from_str(text)?;
        match card.fault() {
            None => Ok(card),
            Some(reason) => Err(CardError::Invalid { name: card.name, reason }),
        }
    }

    /// Sum of the files' lengths.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// The entry for `path`.
    pub fn file(&self, path: &str) -> Option<&CardFile> {
        self.files.iter().find(|file| file.path == path)
    }

    fn fault(&self) -> Option<String> {
        if !is_plain_name(&self.name) {
            return Some(format!("name {:?} is not a plain folder name", self.name));
        }
        if self.repo.split('/').count() != 2 || !self.repo.split('/').all(is_plain_name) {
            return Some(format!("repo {:?} is not owner/name", self.repo));
        }
        if self.files.is_empty() {
            return Some("files is empty".to_owned());
        }
        let mut seen = BTreeMap::new();
        for file in &self.files {
            if !is_inside(&file.path) {
                return Some(format!("files: path {:?} does not stay inside the model's directory", file.path));
            }
            if !is_sha256(&file.sha256) {
                return Some(format!("files: sha256 of {} is not 64 lower-case hex digits", file.path));
            }
            if seen.insert(&file.path, ()).is_some() {
                return Some(format!("files: {} is listed twice", file.path));
            }
        }
        // A package name that starts with a dash would be an option of pip's.
        let odd =
            |text: &str| text.is_empty() || text.starts_with('-') || text.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_.+!".contains(c));
        if self.python.iter().any(|source| source.packages().is_empty()) {
            return Some("python: parts is empty".to_owned());
        }
        self.python
            .iter()
            .flat_map(PythonSource::packages)
            .find(|(package, version)| odd(package) || odd(version))
            .map(|(package, version)| format!("python: {package}=={version} is not a package and version"))
    }
}

/// All cards, in the order of their names.
pub fn all() -> &'static [Card] {
    // A card that does not parse cannot get past the tests below; leaving it out is the mildest answer if it ever does.
    static CARDS: LazyLock<Vec<Card>> = LazyLock::new(|| COMPILED_IN.iter().filter_map(|(_, text)| Card::from_toml(text).ok()).collect());
    &CARDS
}

/// The card with this short name.
pub fn find(name: &str) -> Option<&'static Card> {
    all().iter().find(|card| card.name == name)
}

/// The card of this hub repo.
pub fn find_repo(repo: &str) -> Option<&'static Card> {
    all().iter().find(|card| card.repo == repo)
}

/// True if `path` is relative and names something below its directory (no `..`, no root, no drive, no backslash).
pub(crate) fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && !path.split('/').any(str::is_empty)
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// True for one path component of the characters that hub owners, repos and our folders may have.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !name.contains("..")
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_folder_of_models_is_compiled_in_and_parses() {
        let folders: BTreeSet<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/models"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let listed: BTreeSet<String> = COMPILED_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(folders, listed, "a folder of models/ and COMPILED_IN in card.rs must name the same models");
        for (name, text) in COMPILED_IN {
            let card = Card::from_toml(text).unwrap_or_else(|e| panic!("models/{name}: {e}"));
            assert_eq!(card.name, *name, "a card's name is its folder's");
        }
        assert_eq!(all().len(), COMPILED_IN.len());
    }

    #[test]
    fn names_and_repos_are_unique() {
        let keys: BTreeSet<&str> = all().iter().flat_map(|card| [card.name.as_str(), card.repo.as_str()]).collect();
        assert_eq!(keys.len(), 2 * all().len());
    }

    #[test]
    fn cards_are_found_by_name_and_by_repo() {
        let card = find("all-MiniLM-L6-v2").unwrap();
        assert_eq!(find_repo("sentence-transformers/all-MiniLM-L6-v2"), Some(card));
        assert_eq!(card.file("model.safetensors").unwrap().size_bytes, 90_868_376);
        assert_eq!(card.dimensions, 384);
        assert!(find("no-such-model").is_none());
    }

    fn card_with(line: &str, file: &str) -> Result<Card, CardError> {
        let sha = "a".repeat(64);
        Card::from_toml(&format!(
            "name = \"m\"\ndisplay_name = \"M\"\nrepo = \"o/m\"\nlicense = \"MIT\"\ndimensions = 4\n{line}\n[[files]]\npath = \"{file}\"\nsize_bytes = 1\nsha256 = \"{sha}\"\n"
        ))
    }

    #[test]
    fn a_card_cannot_reach_outside_its_directory() {
        assert!(card_with("", "1_Pooling/config.json").is_ok());
        for path in ["../x", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\\\b"] {
            let error = card_with("", path).unwrap_err().to_string();
            assert!(error.contains("does not stay inside"), "{path}: {error}");
        }
    }

    #[test]
    fn unknown_fields_and_packages_that_look_like_options_are_refused() {
        assert!(matches!(card_with("colour = 1", "a"), Err(CardError::Syntax(_))));
        let python = "python = [{ package = \"--index-url=x\", version = \"1\", prefix = \"p\" }]";
        assert!(card_with(python, "a").unwrap_err().to_string().contains("is not a package"));
        let part = |package: &str| format!("{{ package = \"{package}\", version = \"1\", path = \"p\", size_bytes = 1 }}");
        let parts = |parts: &[String]| card_with(&format!("python = [{{ prefix = \"p\", parts = [{}] }}]", parts.join(", ")), "a");
        assert!(parts(&[part("one"), part("two")]).is_ok());
        assert!(parts(&[part("one"), part("-r")]).unwrap_err().to_string().contains("-r==1 is not a package"));
        assert!(parts(&[]).unwrap_err().to_string().contains("parts is empty"));
    }
}
