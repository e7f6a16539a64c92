//! Model cards: what the binary knows about a model before it has a single file of it.

/// One model we promise to serve exactly, compiled in from `models/<name>/card.toml`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Short name: the folder's (`all-MiniLM-L6-v2`).
    pub name: String,
}
