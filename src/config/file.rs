//! The TOML file: the same options under the same names. A key that no option has is refused, so that a typo never goes unnoticed.

use super::{ConfigError, Said};
use clap::Args;
use std::path::Path;

/// What the file has beyond the options.
const TABLES: [&str; 2] = ["models", "aliases"];

/// Reads the file; every key must be an option of `serve`, or one of its tables.
pub fn read(path: &Path) -> Result<Said, ConfigError> {
    let fail = |reason: String| ConfigError::File { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    parse(&text).map_err(fail)
}

fn parse(text: &str) -> Result<Said, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let known = Said::augment_args(clap::Command::new("serve"));
    let known: Vec<&str> = known.get_arguments().map(|argument| argument.get_id().as_str()).filter(|id| *id != "config").collect();
    if let Some(key) = table.keys().find(|key| !TABLES.contains(&key.as_str()) && !known.contains(&key.as_str())) {
        return Err(format!("unknown key {key:?}; the keys are {} and {}", known.join(", "), TABLES.join(", ")));
    }
    toml::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_is_read() {
        let text = r#"
            model = "all-MiniLM-L6-v2"
            port = 9000
            max_body_bytes = "8MiB"
            offline = true
            dtype = "f32"
            log_level = "debug"
            [models."a/b"]
            truncate = "end"
            matryoshka = [64, 128]
            normalize = "model"
            [aliases]
            "openai/text-embedding-3-small" = "a/b"
            "c" = { model = "a/b", prompt = "query", dimensions = 64 }
        "#;
        let said = parse(text).unwrap();
        assert_eq!((said.model, said.port), (vec!["all-MiniLM-L6-v2".to_owned()], Some(9000)));
        assert_eq!(said.max_body_bytes.unwrap().as_u64(), 8 << 20);
        assert_eq!((said.model_options.source.offline, said.model_options.dtype.as_deref()), (Some(true), Some("f32")));
        assert_eq!(said.log.log_level.as_deref(), Some("debug"));
        assert!(said.models["a/b"].matryoshka.is_some());
        assert_eq!(said.aliases.len(), 2);
    }

    #[test]
    fn typos_are_refused_by_name() {
        assert!(parse("prot = 1").unwrap_err().contains("\"prot\""));
        assert!(parse("[models.\"a\"]\ntruncat = \"end\"").unwrap_err().contains("truncat"));
        assert!(parse("[aliases]\n\"a\" = { model = \"b\", promt = \"query\" }").is_err());
        assert!(parse("port = \"x\"").is_err());
        assert!(parse("config = \"other.toml\"").is_err());
    }
}
