//! From `rate_limits`, a word or a table, to the limits that are obeyed.

use super::said::{QuotaSaid, RateLimitsSaid, RateLimitsTable};
use super::{ConfigError, impossible};
use crate::service::limits::{Options, Quota};

/// The limits of all levels; off unless something is said.
pub(super) fn resolve(said: Option<&RateLimitsSaid>) -> Result<Options, ConfigError> {
    let table = match said {
        None => return Ok(Options::default()),
        Some(RateLimitsSaid::Preset(word)) => RateLimitsTable { preset: Some(word.clone()), ..RateLimitsTable::default() },
        Some(RateLimitsSaid::Table(table)) => table.clone(),
    };
    let preset = match table.preset.as_deref() {
        None | Some("off") => Options::default(),
        Some("scaigrid") => Options::scaigrid(),
        Some(other) => {
            return impossible(format!("--rate-limits {other:?} must be off or scaigrid; [rate_limits] in the configuration file can say more"));
        }
    };
    let level = |name: &str, preset: Quota, said: QuotaSaid| {
        if said.requests_per_minute == Some(0) || said.tokens_per_minute == Some(0) {
            return impossible(format!("rate_limits.{name}: a limit must be at least 1"));
        }
        Ok(Quota {
            requests_per_minute: said.requests_per_minute.or(preset.requests_per_minute),
            tokens_per_minute: said.tokens_per_minute.or(preset.tokens_per_minute),
        })
    };
    Ok(Options {
        key: level("key", preset.key, table.key)?,
        user: level("user", preset.user, table.user)?,
        tenant: level("tenant", preset.tenant, table.tenant)?,
        partner: level("partner", preset.partner, table.partner)?,
        address: level("address", preset.address, table.address)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct File {
        rate_limits: RateLimitsSaid,
    }

    fn options(text: &str) -> Result<Options, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        resolve(Some(&file.rate_limits)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_word_or_a_table_and_off_unless_said() {
        assert_eq!(resolve(None).unwrap(), Options::default());
        assert_eq!(options("rate_limits = \"scaigrid\"").unwrap(), Options::scaigrid());
        let table = options("[rate_limits]\npreset = \"scaigrid\"\nkey = { requests_per_minute = 5, tokens_per_minute = 7 }").unwrap();
        assert_eq!(table.key, Quota { requests_per_minute: Some(5), tokens_per_minute: Some(7) });
        assert_eq!(table.user.requests_per_minute, Some(120));
        assert!(options("rate_limits = \"fast\"").unwrap_err().contains("scaigrid"));
        assert!(options("[rate_limits]\nuser = { requests_per_minute = 0 }").unwrap_err().contains("rate_limits.user"));
        assert!(options("[rate_limits]\nuser = { requests = 1 }").is_err());
    }
}
