//! What was said (flags, environment, file) -> what is obeyed (one `Options` per room). The only reader of argv and the environment.

mod aliases;
mod file;
mod limits;
mod resolve;
mod said;

pub use resolve::{Models, Resolved, ServeModel, resolve_models, resolve_source, resolve_store, serve};
pub use said::{LogSaid, ModelSaid, Said, SourceSaid, StoreSaid};

use std::collections::BTreeMap;

/// The environment as it was when the program started.
#[derive(Debug, Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The process's own. Values that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect())
    }

    /// A variable; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

/// A configuration that cannot be obeyed, with the sentence that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {reason}")]
    File { path: String, reason: String },
    #[error("{0}")]
    Impossible(String),
}

/// Shorthand for a sentence.
fn impossible<T>(sentence: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Impossible(sentence.into()))
}
