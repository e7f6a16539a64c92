//! The books that the server keeps while it works: what of it must survive lies in the store.

use super::access::Access;
use super::jobs::{self, Jobs};
use super::keybook::KeyBook;
use super::limits::{self, Limiter};
use super::usage::Usage;
pub use crate::store::audit::Actor;
use crate::store::{self, Store};
use crate::wire::Fault;
use std::sync::Arc;
use std::time::Duration;

/// Everything that is kept about keys and their use.
pub struct Books {
    pub store: Store,
    pub access: Arc<Access>,
    pub keys: KeyBook,
    pub limiter: Arc<Limiter>,
    pub usage: Usage,
    pub jobs: Arc<Jobs>,
}

/// How the books are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// See [`KeyBook::open`].
    pub stays_open: bool,
    pub limits: limits::Options,
    pub jobs: jobs::Options,
}

/// When a client may try again whose request the store has failed.
const RETRY_AFTER_STORE_S: u32 = 5;
/// How long a probe waits for the store.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

impl Books {
    /// Opens the books of a store, for those whom `access` lets in.
    ///
    /// # Errors
    /// If the store fails or holds what cannot be read.
    pub async fn open(store: Store, access: Arc<Access>, options: Options) -> store::Result<Self> {
        let keys = KeyBook::open(store.clone(), access.clone(), options.stays_open).await?;
        let jobs = Arc::new(Jobs::open(store.clone(), options.jobs).await?);
        let store_if_shared = store.shared().then(|| store.clone());
        let usage = Usage::new(store.clone());
        Ok(Self { store, access, keys, limiter: Limiter::new(options.limits, store_if_shared), usage, jobs })
    }
}

impl Books {
    /// `ok`, or that the store does not answer.
    pub async fn check(&self) -> &'static str {
        match tokio::time::timeout(STORE_PATIENCE, self.store.ping()).await {
            Ok(Ok(())) => "ok",
            _ => "the store does not answer",
        }
    }
}

/// What the store said, or the fault that a client sees of its failure; the log has the reason.
pub(super) fn stored<T>(result: store::Result<T>) -> Result<T, Fault> {
    result.map_err(|error| {
        tracing::error!(event = "store_error", %error, "the store failed");
        Fault::ModelUnavailable { reason: "The server's storage does not answer".into(), retry_after_s: Some(RETRY_AFTER_STORE_S) }
    })
}
