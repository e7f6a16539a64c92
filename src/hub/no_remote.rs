//! The hub in a build without an HTTP client: it says so, and the next source is asked.

use super::cache::Staging;
use super::obtain::Fetched;
use super::{HubError, Options, Progress, What};

/// Always [`HubError::NoHubClient`].
pub(super) fn fetch(_: &What, _: &Options, _: &Staging, _: &dyn Progress) -> Result<Fetched, HubError> {
    Err(HubError::NoHubClient)
}
