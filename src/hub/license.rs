//! The licence of a model's weights, as its card or the head of its README.md states it.

use super::files::ModelFiles;

/// The head of a README is at its beginning.
const LIMIT_BYTES: u64 = 4 << 20;

impl ModelFiles {
    /// The licence's name and where it stands; `None` if nothing states it.
    pub fn license(&self) -> Option<(String, &'static str)> {
        if let Some(card) = self.card.filter(|card| !card.license.is_empty()) {
            return Some((card.license.clone(), "the card"));
        }
        let readme = self.read("README.md", LIMIT_BYTES).ok()??;
        stated(&String::from_utf8_lossy(&readme)).map(|license| (license, "README.md"))
    }
}

/// `license: NAME` between the two `---` lines that begin a model's README on the hub; `license_name` where that says `other`.
fn stated(readme: &str) -> Option<String> {
    let head = readme.strip_prefix("---")?.split("\n---").next()?;
    let field = |name: &str| {
        let value = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
    };
    match field("license")?.as_str() {
        "other" => Some(field("license_name").unwrap_or_else(|| "other".to_owned())),
        name => Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::stated;

    #[test]
    fn the_head_of_a_readme_states_it() {
        assert_eq!(stated("---\ntags: [a]\nlicense: apache-2.0\n---\n# M\nlicense: mit").as_deref(), Some("apache-2.0"));
        assert_eq!(stated("---\nlicense: other\nlicense_name: \"gemma\"\n---\n").as_deref(), Some("gemma"));
        assert_eq!(stated("---\nlicense:\n- mit\n---\n"), None);
        assert_eq!(stated("# M\nlicense: mit"), None);
    }
}
