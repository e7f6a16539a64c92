//! From a model's name, repo id or directory to verified files on disk.
//!
//! [`parse`] reads what the operator wrote, [`obtain`] asks the sources in turn (our cache, the hub's own cache, the hub, Python
//! packages) and hands out [`ModelFiles`]. A model with a card is only ever handed out with the card's bytes.

pub mod bundle;
mod cache;
mod digest;
mod error;
mod files;
mod golden;
mod hfcache;
mod license;
mod obtain;
mod place;
mod progress;
mod python;
mod select;
mod stamp;
mod what;
mod wheel;

#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod remote;
#[cfg(not(feature = "hub"))]
#[path = "no_remote.rs"]
mod remote;

pub use digest::weights_digest;
pub use error::{Attempt, Attempts, HubError, Outcome};
pub use files::{CONFIG_LIMIT_BYTES, ModelFiles};
pub use golden::{Goldens, goldens_at};
pub use obtain::{cached, obtain};
pub use place::place;
pub use progress::{Bars, Lines, Progress, Silent, for_stderr};
pub use what::{What, parse};

use std::path::PathBuf;
use std::time::Duration;

/// Where models come from and where they are kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Open no socket and start no process to obtain anything.
    pub offline: bool,
    /// Our own cache: `<cache_dir>/models/<name or owner--name>/`.
    pub cache_dir: PathBuf,
    /// `$HF_HOME` or its default, whose cache is read too, and never written.
    pub hf_home: PathBuf,
    /// `$HF_ENDPOINT`.
    pub hf_endpoint: String,
    /// `$HF_TOKEN`.
    pub hf_token: Option<String>,
    /// True if a proxy variable is set: named in the advice when the hub cannot be reached.
    pub proxied: bool,
    /// Serve only what this key has signed, and cards.
    pub trust: Option<bundle::PublicKey>,
    /// The Python interpreter whose pip fetches packages (`python3`).
    pub python: String,
    /// How long a source may keep us waiting.
    pub limits: Limits,
}

/// How long a source may keep us waiting before the next one is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// To resolve a name and connect, each.
    pub connect: Duration,
    /// Without a byte from a connection, or without growth of what pip fetches.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), stall: Duration::from_secs(60) }
    }
}
